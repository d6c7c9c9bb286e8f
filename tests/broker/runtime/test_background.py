"""Long work: one piece in a turn of the loop, whatever there is to do, at the pace of the disk."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fluffle.broker.runtime.background import BackgroundTasks, Task, in_pieces
from fluffle.broker.runtime.commits import Commits
from fluffle.broker.runtime.turn import Turn
from fluffle.storage.disk import Disk
from tests.storage.support import ManualWriter
from tests.support.fakes import Scheduler
from tests.support.store import open_store


class Rig:
    """Chores over a disk that is moved by hand; `done` says which pieces were done, in order."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        self.turn = Turn(self.scheduler.call_soon)
        self.commits = Commits(open_store(make_writer=self._make_writer), self.turn)
        self.fatal: list[Exception] = []
        self.failures: list[Exception] = []
        self.background_tasks = BackgroundTasks(
            self.scheduler.call_soon, self.turn, self.commits, self.fatal.append
        )
        self.done: list[str] = []

    def _make_writer(self, disk: Disk, wake: Callable[[], None]) -> ManualWriter:
        self.writer = ManualWriter(disk, wake)
        return self.writer

    def add(self, task: Task) -> None:
        self.background_tasks.add(task, self.failures.append)

    def work(self, name: str, pieces: int) -> Task:
        for number in range(pieces):
            self.done.append(f"{name}{number}")
            yield None

    def saved(self, name: str, pieces: int) -> Task:
        for number in range(pieces):
            self.done.append(f"{name}{number}")
            self.commits.put("kind", f"{name}{number}".encode(), b"")
            yield self.commits.ticket


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_turn_sees_one_piece_and_chores_alternate(rig: Rig) -> None:
    rig.add(rig.work("a", 3))
    rig.add(rig.work("b", 2))
    assert rig.done == []
    for count in range(1, 6):
        rig.scheduler.turn()
        assert len(rig.done) == count
    assert rig.done == ["a0", "b0", "a1", "b1", "a2"]
    rig.scheduler.run()
    rig.add(rig.work("c", 1))
    rig.scheduler.run()
    assert rig.done[-1] == "c0"


def test_a_piece_waits_for_the_commit_of_the_one_before(rig: Rig) -> None:
    rig.add(rig.saved("a", 3))
    for count in (1, 2, 3):
        rig.scheduler.run()
        assert len(rig.done) == count
        assert rig.writer.step()
    rig.scheduler.run()
    assert not rig.writer.step()
    rig.add(rig.work("b", 1))
    rig.scheduler.run()
    assert rig.done == ["a0", "a1", "a2", "b0"]


def test_who_waits_for_the_disk_holds_up_no_other(rig: Rig) -> None:
    rig.add(rig.saved("a", 2))
    rig.add(rig.work("b", 2))
    rig.scheduler.run()
    assert rig.done == ["a0", "b0", "b1"]


@pytest.mark.parametrize(("error", "is_fatal"), [(RuntimeError(), False), (AssertionError(), True)])
def test_what_fails_ends_alone(rig: Rig, error: Exception, is_fatal: bool) -> None:
    def failing() -> Task:
        yield None
        raise error

    rig.add(failing())
    rig.add(rig.work("a", 4))
    rig.scheduler.run()
    assert rig.failures == [error]
    assert rig.fatal == [error] * is_fatal
    assert len(rig.done) == 4


def test_items_are_taken_when_their_piece_is_asked_for() -> None:
    taken: list[int] = []

    def noticed(number: int) -> int:
        taken.append(number)
        return number

    pieces = in_pieces(map(noticed, range(5)), 2)
    assert next(pieces) == [0, 1]
    assert taken == [0, 1]
    assert list(pieces) == [[2, 3], [4]]
    assert list(in_pieces((), 2)) == []
