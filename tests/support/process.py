"""A child process that says when it is ready, and whose whole output is kept."""

import contextlib
import os
import re
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from tests.support.deadlines import DEADLINE_S

START_DEADLINE_S = 180.0

LAST_LINES = 1000
"""Enough to see why a process failed, where somebody else reads all of its output."""


class Process:
    """Runs `command` until `stop` or `kill`; it is ready once a line of its output matches `ready`.

    `on_line` hears each line of the output, in another thread; then only the last are kept.
    Raises `RuntimeError` with the output if it ends or stays silent instead.
    """

    __slots__ = ("_decided", "_is_ready", "_lines", "_on_line", "_popen", "_reader")

    def __init__(
        self,
        command: Sequence[str],
        ready: str,
        env: Mapping[str, str],
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self._lines: deque[str] = deque(maxlen=LAST_LINES if on_line else None)
        self._on_line = on_line
        self._is_ready = False
        self._decided = threading.Event()
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=env,
            process_group=0,
        )
        self._reader = threading.Thread(target=self._read, args=(re.compile(ready),), daemon=True)
        self._reader.start()
        self._decided.wait(START_DEADLINE_S)
        if not self._is_ready:
            self.kill()
            raise RuntimeError(f"{command[0]} did not become ready:\n{self.log}")

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def log(self) -> str:
        """Standard output and standard error so far."""
        return "".join(tuple(self._lines))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code; `RuntimeError` if it does not go in time."""
        self._popen.send_signal(number)
        try:
            return self._reap(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"process {self.pid} ignored {number.name}:\n{self.log}") from None

    def kill(self) -> None:
        """Send SIGKILL, also to what the process started, and return when it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._reap(None)

    def _reap(self, timeout_s: float | None) -> int:
        code = self._popen.wait(timeout_s)
        self._reader.join(DEADLINE_S)  # the log is whole when the pipe has ended
        return code

    def _read(self, ready: re.Pattern[str]) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as lines:
            for line in lines:
                self._lines.append(line)
                if self._on_line is not None:
                    self._on_line(line)
                if not self._is_ready and ready.search(line):
                    self._is_ready = True
                    self._decided.set()
        self._decided.set()  # nothing more will come
