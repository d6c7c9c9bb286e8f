"""Every test of a store runs on the fake disk and on LMDB: that is what makes the fake a disk."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fluffle.storage.disk import Disk
from fluffle.storage.environment import open_environment
from fluffle.storage.memory import MemoryDisk
from tests.storage.support import Host


@pytest.fixture(params=["memory", "lmdb"])
def open_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Disk]]:
    """Opens the same disk each time, as a process does that starts again."""
    opened: list[Disk] = []
    memory = MemoryDisk()

    def open_again() -> Disk:
        for disk in opened:
            disk.close()
        opened.clear()
        opened.append(memory if request.param == "memory" else open_environment(tmp_path))
        return opened[0]

    yield open_again
    for disk in opened:
        disk.close()


@pytest.fixture
def disk(open_disk: Callable[[], Disk]) -> Disk:
    return open_disk()


@pytest.fixture
def host(open_disk: Callable[[], Disk]) -> Host:
    return Host(open_disk)
