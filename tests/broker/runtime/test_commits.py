"""Group commit: who is told and who is let go, also when there is nothing left to write."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fluffle.broker.base.message import Origin
from fluffle.broker.durability.journals.local_journal import LocalJournals
from fluffle.broker.queues.journal import Journal
from fluffle.broker.runtime import commits as group_commit
from fluffle.broker.runtime.commits import Commits
from fluffle.broker.runtime.turn import Turn
from fluffle.storage.disk import Disk
from tests.storage.support import ManualWriter
from tests.support.store import open_store

ORIGIN = Origin("", "q")


class Harness:
    """The commits of a node with one queue, moved by hand."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []
        self.turn = Turn(self.callbacks.append)
        self.store = open_store(make_writer=self._make_writer)
        self.commits = Commits(self.store, self.turn)
        journals = LocalJournals(self.store.log, self.commits, {})
        self.journal: Journal = journals.create(journals.new_groups())
        self._next_sequence = 1

    def _make_writer(self, disk: Disk, wake: Callable[[], None]) -> ManualWriter:
        self.writer = ManualWriter(disk, wake)
        return self.writer

    def publish(self, size_bytes: int) -> int:
        """A message; its sequence number."""
        first, self._next_sequence = self._next_sequence, self._next_sequence + 1
        self.journal.enqueued([ORIGIN], [b"m"], size_bytes, first, apart=False)
        return first

    def run(self) -> None:
        """Have all turns that were asked for."""
        while self.callbacks:
            self.callbacks.pop(0)()


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    monkeypatch.setattr(group_commit, "BEHIND_BYTES", 10)
    return Harness()


def test_what_is_settled_before_it_was_written_is_not_waited_for(harness: Harness) -> None:
    """As with a consumer that keeps up with a publisher who wants no confirms."""
    for _ in range(20):
        harness.journal.settled([harness.publish(1)])
        harness.run()
    assert (harness.writer.work, harness.commits.unwritten_bytes) == (None, 0)


def test_who_waits_for_the_disk_goes_on_when_nothing_is_left_to_write(harness: Harness) -> None:
    told: list[str] = []
    harness.publish(1)
    harness.run()
    late = harness.publish(11)
    assert harness.commits.is_behind
    harness.commits.when_caught_up(lambda: told.append("caught up"))
    harness.journal.settled([late])
    harness.writer.step()
    harness.run()
    assert (harness.writer.work, told) == (None, ["caught up"])


def test_what_is_told_by_who_went_on_is_written(harness: Harness) -> None:
    """Also if he went on because there was nothing to write, and so in the midst of a turn."""

    def publish_more() -> None:
        harness.publish(1)

    for size_bytes in (11, 1):
        harness.commits.when_caught_up(publish_more)
        harness.journal.settled([harness.publish(size_bytes)])
        harness.run()
        assert harness.writer.step()
        harness.run()
