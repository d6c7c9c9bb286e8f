"""A real `fluffle serve` process: start it, talk to it, stop it, read what it logged.

For tests and measurements that need the whole thing.  A daemon listens on a free loopback port,
keeps everything in its data directory, and sees no `FLUFFLE_*` variable of its parent.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.process import Process

COMMAND = (sys.executable, "-m", "fluffle.broker", "serve", "--listen", "127.0.0.1:0")
READY = r'(?:^|[\s"])ready(?:[\s"]|$)'
"""The line that a daemon logs when it accepts connections, as text or as JSON."""


def environment_for_nodes() -> dict[str, str]:
    """That of this process, without what is meant for its tests."""
    ours = ("FLUFFLE_", "RABBITMQ_")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)}


class Daemon:
    """Node in a process of its own.  `options` are further options of `fluffle serve`; `on_line`
    hears its log.

    A daemon can be started again after `stop` or `kill`: same data, perhaps another port.
    """

    __slots__ = (
        "_environment",
        "_on_line",
        "_options",
        "_past_log",
        "_process",
        "addresses",
        "data_dir",
        "port",
    )

    def __init__(
        self,
        data_dir: Path,
        *options: str,
        on_line: Callable[[str], None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment` is set besides what this process has."""
        self.data_dir = data_dir
        self.port = 0
        self.addresses: dict[str, tuple[str, int]] = {}
        """Listening addresses by protocol."""
        self._options = options
        self._on_line = on_line
        self._environment = {**environment_for_nodes(), **(environment or {})}
        self._process: Process | None = None
        self._past_log = ""

    @property
    def url(self) -> str:
        """URL for any client: guest on virtual host `/`."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    @property
    def log(self) -> str:
        """Output of all runs of this daemon to stdout and stderr so far."""
        return self._past_log + (self._process.log if self._process else "")

    @property
    def _command(self) -> list[str]:
        return [*COMMAND, "--data-dir", str(self.data_dir), *self._options]

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """True if it was started, and neither stopped nor killed since."""
        return self._process is not None

    def start(self) -> None:
        """Return when clients can connect; `RuntimeError` with the log if that never happens."""
        if self._process is not None:
            raise RuntimeError("the daemon is already running")
        self._process = Process(self._command, READY, self._environment, self._on_line)
        node = json.loads((self.data_dir / "node.json").read_text(encoding="utf-8"))
        self.addresses = {name: (at[0], int(at[1])) for name, at in node["addresses"].items()}
        self.port = self.addresses["amqp"][1]

    def start_and_kill(self, after_s: float) -> None:
        """Start, and kill it after that time, most likely before it is ready."""
        with subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(after_s)
            process.kill()
            self._past_log += process.communicate()[0]

    def stop(self) -> int:
        """Send SIGTERM and return the exit code; `RuntimeError` if it takes too long."""
        try:
            return self._running().stop()
        finally:
            self._forget()

    def kill(self) -> None:
        """Send SIGKILL and return when the process is gone."""
        self._running().kill()
        self._forget()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.stop()

    def _running(self) -> Process:
        if self._process is None:
            raise RuntimeError("the daemon is not running")
        return self._process

    def _forget(self) -> None:
        self._past_log, self._process = self.log, None
