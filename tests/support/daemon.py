"""A real `fluffle serve` process: start it, talk to it, stop it, read what it logged.

For tests and measurements that need the whole thing.  A daemon listens on a free loopback port,
keeps everything in its data directory, and sees no `FLUFFLE_*` variable of its parent.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

COMMAND = (sys.executable, "-m", "fluffle.broker", "serve")
START_DEADLINE_S = 30.0
STOP_DEADLINE_S = 30.0


class Daemon:
    """One node.  `options` are further options of `fluffle serve`.

    A daemon can be started again after `stop` or `kill`: same data, perhaps another port.
    """

    __slots__ = ("_log", "_options", "_process", "_reader", "_ready", "data_dir", "port")

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.data_dir = data_dir
        self.port = 0
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._ready = threading.Event()
        self._log: list[str] = []

    @property
    def url(self) -> str:
        """For any client: guest on virtual host `/`."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    @property
    def log(self) -> str:
        """What all runs of this daemon wrote to stdout and stderr so far."""
        return "".join(self._log)

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> None:
        """Return when clients can connect; `RuntimeError` with the log if that never happens."""
        command = [*COMMAND, "--listen", "127.0.0.1:0", "--data-dir", str(self.data_dir)]
        self._ready.clear()
        self._process = subprocess.Popen(
            [*command, *self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={k: v for k, v in os.environ.items() if not k.startswith("FLUFFLE_")},
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        if not self._ready.wait(START_DEADLINE_S) or self._process.poll() is not None:
            self.kill()
            raise RuntimeError(f"the daemon did not become ready:\n{self.log}")
        node = json.loads((self.data_dir / "node.json").read_text(encoding="utf-8"))
        self.port = int(node["addresses"]["amqp"][1])

    def stop(self) -> int:
        """Send SIGTERM and return the exit code; `RuntimeError` if it takes too long."""
        self._running().terminate()
        try:
            return self._reap(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"the daemon did not stop on SIGTERM:\n{self.log}") from None

    def kill(self) -> None:
        """Send SIGKILL and return when the process is gone."""
        self._running().kill()
        self._reap(None)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.stop()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("the daemon is not running")
        return self._process

    def _reap(self, timeout_s: float | None) -> int:
        process = self._running()
        code = process.wait(timeout_s)
        if self._reader is not None:
            self._reader.join()  # the pipe has ended with the process: the log is whole
        self._process = self._reader = None
        return code

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._log.append(line)
                if "ready" in line.split() or '"ready"' in line:  # text and JSON logs
                    self._ready.set()
        self._ready.set()  # nothing more will come: whoever waits must look at the process
