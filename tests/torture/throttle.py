"""A small part of a processor for a process: by the kernel's cgroups, else by stopping it again and
again.  Either way it runs for some milliseconds and then not at all for tens of them."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import cycle
from pathlib import Path

from fluffle.broker.torture.system import Doing, NodeAction

PERIOD_US = 100_000
QUOTAS_US = (10_000, 3_000, 5_000)
"""The quotas of a period, in turn."""
RUNS_S, STOPS_S = 0.005, 0.045
REMOVE_S, REMOVE_AGAIN_S = 5.0, 0.001
CPU_GROUPS = (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup"))
"""Where the kernel has them, by the first version and by the second."""


class CpuGroup:
    """A group of processes that share a quota of processor time.  OSError where there are none."""

    def __init__(self, folder: Path, pids: Callable[[], Iterable[int]]) -> None:
        folder.mkdir()
        self._folder = folder
        self._quotas_us = cycle(QUOTAS_US)
        self._pids = pids
        self._is_of_first_version = (folder / "cpu.cfs_quota_us").exists()
        try:
            self._limit(0)
        except OSError:
            folder.rmdir()
            raise

    async def throttle(self) -> None:
        for pid in self._pids():
            with suppress(ProcessLookupError):
                write(self._folder / "cgroup.procs", str(pid))
        self._limit(next(self._quotas_us))

    async def unthrottle(self) -> None:
        self._limit(0)

    async def remove(self) -> None:
        """Move the processes back to where they were.

        A process that exits is no longer listed, and yet in the group for a moment, of whose end
        the kernel gives no event.
        """
        async with asyncio.timeout(REMOVE_S):
            while not self._is_removed():  # noqa: ASYNC110 - no event says so
                await asyncio.sleep(REMOVE_AGAIN_S)

    def _is_removed(self) -> bool:
        """Move the processes that are listed; the group is removed unless one is left in it."""
        for pid in (self._folder / "cgroup.procs").read_text(encoding="ascii").split():
            with suppress(ProcessLookupError):
                write(self._folder.parent / "cgroup.procs", pid)
        try:
            self._folder.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
        return True

    def _limit(self, quota_us: int) -> None:
        """0: as much as there is."""
        if self._is_of_first_version:
            write(self._folder / "cpu.cfs_period_us", str(PERIOD_US))
            write(self._folder / "cpu.cfs_quota_us", str(quota_us or -1))
        else:
            write(self._folder / "cpu.max", f"{quota_us or 'max'} {PERIOD_US}")


def write(file: Path, text: str) -> None:
    """The file is there, or the kernel has no such groups."""
    with file.open("r+", encoding="ascii") as opened:
        opened.write(text)


class Stops:
    """SIGSTOP and SIGCONT in turn."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self._stopping: asyncio.Task[None] | None = None

    async def throttle(self) -> None:
        self._stopping = asyncio.create_task(self._stop_again_and_again())

    async def unthrottle(self) -> None:
        if self._stopping is not None:
            self._stopping.cancel()
            await asyncio.gather(self._stopping, return_exceptions=True)
            self._stopping = None
            self._signal(signal.SIGCONT)

    async def remove(self) -> None:
        """Nothing is left of it."""

    async def _stop_again_and_again(self) -> None:
        while True:
            self._signal(signal.SIGSTOP)
            await asyncio.sleep(STOPS_S)
            self._signal(signal.SIGCONT)
            await asyncio.sleep(RUNS_S)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def pids_of_group(leader: int) -> list[int]:
    """All processes of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(ProcessLookupError, ValueError):
            if os.getpgid(int(entry.name)) == leader:
                found.append(int(entry.name))
    return found


@asynccontextmanager
async def throttles(
    nodes: Iterable[str], leader: Callable[[str], int]
) -> AsyncIterator[dict[NodeAction, Doing]]:
    """The deeds that throttle nodes; `leader` knows who leads the process group of one now."""
    found: dict[str, CpuGroup | Stops] = {}

    def pids_of(node: str) -> list[int]:
        return pids_of_group(leader(node))

    async def throttle(node: str) -> None:
        await found[node].throttle()

    async def unthrottle(node: str) -> None:
        await found[node].unthrottle()

    try:
        for node in nodes:
            name = f"fluffle-torture-{os.getpid()}-{node}"
            found[node] = new_throttle(name, partial(pids_of, node))
        yield {NodeAction.THROTTLE: throttle, NodeAction.UNTHROTTLE: unthrottle}
    finally:
        for node, throttled in found.items():
            await unthrottle(node)
            await throttled.remove()


def new_throttle(name: str, pids: Callable[[], Iterable[int]]) -> CpuGroup | Stops:
    """The kernel's if it has any that we may make."""
    for folder in CPU_GROUPS:
        with suppress(OSError):
            return CpuGroup(folder / name, pids)
    return Stops(pids)
