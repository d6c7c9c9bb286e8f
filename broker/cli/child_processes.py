"""Processes that are started together, watched, and ended together.

Each is in a process group of its own, so that a Ctrl-C at the terminal reaches only this process,
which passes it on: the first signal stops the nodes in order, the next one where they stand.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple, Self, TypeAlias

from fluffle.broker.process.node_file import NODE_FILE, node_pid

POLL_INTERVAL_S = 0.05
"""How often it is looked whether a node has said that it is ready."""
LOOKS_PATIENT = 200
"""It is told once who is not ready after so many."""
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LAST_LINES = 5

Tell: TypeAlias = Callable[[str], None]
Explain: TypeAlias = Callable[[Path], str]
"""Returns why the node with that data directory is not ready, or nothing."""


class NodeProcess(NamedTuple):
    """A node: how it is started, and where it says that it is ready."""

    name: str
    words: Sequence[str]
    data_dir: Path
    log: Path


class Signals:
    """Within it, signals wake `wait` up and do nothing else."""

    def __enter__(self) -> Self:
        self._heard, self._said = os.pipe()
        os.set_blocking(self._said, False)
        self._former_fd = signal.set_wakeup_fd(self._said)
        numbers = (*STOPPING, signal.SIGCHLD)
        self._former = {number: signal.signal(number, lambda *_: None) for number in numbers}
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._former_fd)
        os.close(self._heard)
        os.close(self._said)

    def wait(self, timeout_s: float | None) -> bytes:
        """The numbers of those that came; none when it took too long."""
        ready, _, _ = select.select([self._heard], [], [], timeout_s)
        return os.read(self._heard, 1024) if ready else b""


class ProcessGroup:
    """All of them, from start to end."""

    def __init__(
        self,
        members: Sequence[NodeProcess],
        tell: Tell,
        on_ready: Callable[[str], None],
        explain: Explain,
    ) -> None:
        """`on_ready` is called with the name of each that is."""
        self._explain = explain
        self._members = {member.name: member for member in members}
        self._tell = tell
        self._on_ready = on_ready
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._starting = set(self._members)
        self._looks_left = LOOKS_PATIENT
        self._is_stopping = False
        self._has_failed = False

    def run(self, when_ready: str) -> int:
        """Until none of them runs any more; the exit code, 0 if the last have ended as told.

        A node that ends while others start is the end of all; later, they go on without it: it was
        named, may have been started again by hand, and says nothing of how the rest ends.
        """
        with Signals() as signals, ExitStack() as stack:
            stack.callback(self._kill)
            for member in self._members.values():
                self._start(member)
            while self._running:
                came = signals.wait(POLL_INTERVAL_S if self._starting else None)
                if any(number in came for number in STOPPING):
                    self._stop()
                self._reap()
                if self._starting and not self._is_stopping:
                    self._look(when_ready)
        return int(self._has_failed)

    def _start(self, member: NodeProcess) -> None:
        with member.log.open("ab") as log:
            self._running[member.name] = subprocess.Popen(
                member.words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def _look(self, when_ready: str) -> None:
        for name in sorted(self._starting):
            if node_pid(self._members[name].data_dir / NODE_FILE) == self._running[name].pid:
                self._starting.remove(name)
                self._on_ready(name)
        self._looks_left -= 1
        if not self._starting:
            self._tell(when_ready)
        elif not self._looks_left:
            for name in sorted(self._starting):
                data_dir = self._members[name].data_dir
                command = f"fluffle status --data-dir {shlex.quote(str(data_dir))}"
                self._tell(f"{name} is not ready yet: {self._explain(data_dir) or command}")

    def _reap(self) -> None:
        """Say who has ended, and what follows."""
        for name, process in [*self._running.items()]:
            code = process.poll()
            if code is None:
                continue
            del self._running[name]
            if self._is_stopping and code == 0:
                self._tell(f"{name} has stopped")
                continue
            is_the_end = self._is_stopping or bool(self._starting) or not self._running
            self._has_failed = self._has_failed or is_the_end
            self._tell(f"{name} {how_it_ended(code)}; the end of its log:")
            for line in last_lines(self._members[name].log):
                self._tell(f"    {line}")
            if self._is_stopping:
                continue
            if self._starting:
                self._stop()
            elif self._running:
                self._tell(f"start it again: {shlex.join(self._members[name].words)}")

    def _stop(self) -> None:
        """In order at first; a node that hears it again ends where it stands."""
        self._is_stopping = True
        self._tell(f"stopping {', '.join(self._running)}")
        for process in self._running.values():
            process.terminate()

    def _kill(self) -> None:
        """Whoever is left, after an error of ours."""
        for process in self._running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def how_it_ended(code: int) -> str:
    """`code` as `Popen` gives it: below 0 it is the signal."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


def last_lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
