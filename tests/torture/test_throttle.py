"""A process that is throttled gets a small part of a processor, and all of it again afterwards."""

from __future__ import annotations

import asyncio
import errno
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path, PosixPath
from time import monotonic
from typing import Any

import pytest

from fluffle.broker.torture.system import NodeAction
from tests.torture.processes import Command, processes
from tests.torture.throttle import CpuGroup, Stops, new_throttle, pids_of_group, throttles

BURNING = (
    "import sys, time\n"
    "while True:\n"
    "    sys.stdin.readline()\n"
    "    stop = time.process_time() + 0.1\n"
    "    while time.process_time() < stop: pass\n"
    "    print(flush=True)\n"
)
"""Each line costs a tenth of a second of a processor."""


class FolderOfGroup(PosixPath):
    """A folder that has the files of a group of the second version once it is made."""

    def mkdir(self, *arguments: Any, **more: Any) -> None:
        super().mkdir(*arguments, **more)
        for name in ("cgroup.procs", "cpu.max"):
            (self / name).touch()


@asynccontextmanager
async def burner() -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", BURNING),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        process_group=0,
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def seconds_of(process: asyncio.subprocess.Process) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    began_s = monotonic()
    process.stdin.write(b"\n")
    await process.stdout.readline()
    return monotonic() - began_s


def stops(_name: str, pids: Callable[[], Iterable[int]]) -> Stops:
    return Stops(pids)


@pytest.mark.parametrize("kind", [new_throttle, stops], ids=["what there is", "stops"])
async def test_who_is_throttled_takes_far_longer(
    kind: Callable[[str, Callable[[], Iterable[int]]], CpuGroup | Stops],
) -> None:
    async with burner() as process:
        await seconds_of(process)  # it has started
        throttled = kind("fluffle-torture-test", lambda: pids_of_group(process.pid))
        try:
            await throttled.throttle()
            assert await seconds_of(process) > 0.4
            await throttled.unthrottle()
        finally:
            await throttled.remove()
        await seconds_of(process)


async def test_a_node_that_has_died_can_be_throttled_and_starts_anew(tmp_path: Path) -> None:
    command = Command((sys.executable, "-c", "input()"), {}, tmp_path / "log")
    async with processes({"a": command}) as group, throttles(("a",), group.pid) as actions:
        await group.kill("a")
        await actions[NodeAction.THROTTLE]("a")
        await actions[NodeAction.UNTHROTTLE]("a")
        await actions[NodeAction.UNTHROTTLE]("a")
        await group.start("a")
        await actions[NodeAction.THROTTLE]("a")


async def test_a_group_is_removed_once_the_last_process_has_left_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that exits is not listed, and keeps the group busy."""
    folder = tmp_path / "group"
    group = CpuGroup(FolderOfGroup(folder), lambda: ())
    busy = [OSError(errno.EBUSY, "Device or resource busy")] * 2
    removed = []

    def rmdir(path: Path) -> None:
        if busy:
            raise busy.pop()
        removed.append(path)

    monkeypatch.setattr(Path, "rmdir", rmdir)
    await group.remove()
    assert removed == [folder]
