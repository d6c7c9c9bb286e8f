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


class Harness:
    """Chores over a disk that is moved by hand; `done` says which pieces were done, in order."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        self.turn = Turn(self.scheduler.call_soon)
        self.commits = Commits(open_store(make_writer=self._make_writer), self.turn)
        self.fatal: list[Exception] = []
        self.failures: list[Exception] = []
        self.background_tasks = BackgroundTasks(self.turn, self.commits, self.fatal.append)
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
def harness() -> Harness:
    return Harness()


def test_a_turn_sees_one_piece_and_chores_alternate(harness: Harness) -> None:
    harness.add(harness.work("a", 3))
    harness.add(harness.work("b", 2))
    assert harness.done == []
    for count in range(1, 6):
        harness.scheduler.turn()
        assert len(harness.done) == count
    assert harness.done == ["a0", "b0", "a1", "b1", "a2"]
    harness.scheduler.run()
    harness.add(harness.work("c", 1))
    harness.scheduler.run()
    assert harness.done[-1] == "c0"


def test_a_piece_waits_for_the_commit_of_the_one_before(harness: Harness) -> None:
    harness.add(harness.saved("a", 3))
    for count in (1, 2, 3):
        harness.scheduler.run()
        assert len(harness.done) == count
        assert harness.writer.step()
    harness.scheduler.run()
    assert not harness.writer.step()
    harness.add(harness.work("b", 1))
    harness.scheduler.run()
    assert harness.done == ["a0", "a1", "a2", "b0"]


def test_who_waits_for_the_disk_holds_up_no_other(harness: Harness) -> None:
    harness.add(harness.saved("a", 2))
    harness.add(harness.work("b", 2))
    harness.scheduler.run()
    assert harness.done == ["a0", "b0", "b1"]


@pytest.mark.parametrize(("error", "is_fatal"), [(RuntimeError(), False), (AssertionError(), True)])
def test_what_fails_ends_alone(harness: Harness, error: Exception, is_fatal: bool) -> None:
    def failing() -> Task:
        yield None
        raise error

    harness.add(failing())
    harness.add(harness.work("a", 4))
    harness.scheduler.run()
    assert harness.failures == [error]
    assert harness.fatal == [error] * is_fatal
    assert len(harness.done) == 4


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
