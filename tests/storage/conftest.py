"""Every test of a store runs on the fake disk and on LMDB: that is what makes the fake a disk."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fluffle.storage import environment, reserve
from fluffle.storage.disk import Disk, MemoryDisk
from fluffle.storage.environment import open_environment
from tests.storage.log_stores import InMemory, InStore, Subject, Writer
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
def free_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system has always as much left, whatever else writes to it or goes."""
    for module in (environment, reserve):
        monkeypatch.setattr(module, "free_bytes", lambda _folder: 1 << 40)


@pytest.fixture
def host(open_disk: Callable[[], Disk]) -> Host:
    return Host(open_disk)


def on_fake_disk() -> InStore:
    disk = MemoryDisk()
    return InStore(lambda: disk)


@pytest.fixture(params=["fake", "store on the fake disk", "store on LMDB"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Writer]:
    """Every log store."""
    if request.param == "fake":
        yield Writer(InMemory())
    elif request.param == "store on the fake disk":
        yield Writer(on_fake_disk())
    else:
        opened: list[Disk] = []

        def open_again() -> Disk:
            for disk in opened:
                disk.close()
            opened[:] = [open_environment(tmp_path)]
            return opened[0]

        yield Writer(InStore(open_again))
        opened[0].close()


@pytest.fixture(params=[InMemory, on_fake_disk])
def fragile(request: pytest.FixtureRequest) -> Writer:
    """Every log store that can be damaged."""
    make: Callable[[], Subject] = request.param
    return Writer(make())
