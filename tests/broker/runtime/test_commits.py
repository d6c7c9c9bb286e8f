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


class Rig:
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
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(group_commit, "BEHIND_BYTES", 10)
    return Rig()


def test_what_is_settled_before_it_was_written_is_not_waited_for(rig: Rig) -> None:
    """As with a consumer that keeps up with a publisher who wants no confirms."""
    for _ in range(20):
        rig.journal.settled([rig.publish(1)])
        rig.run()
    assert (rig.writer.work, rig.commits.unwritten_bytes) == (None, 0)


def test_who_waits_for_the_disk_goes_on_when_nothing_is_left_to_write(rig: Rig) -> None:
    told: list[str] = []
    rig.publish(1)
    rig.run()
    late = rig.publish(11)
    assert rig.commits.is_behind
    rig.commits.when_caught_up(lambda: told.append("caught up"))
    rig.journal.settled([late])
    rig.writer.step()
    rig.run()
    assert (rig.writer.work, told) == (None, ["caught up"])


def test_what_is_told_by_who_went_on_is_written(rig: Rig) -> None:
    """Also if he went on because there was nothing to write, and so in the midst of a turn."""

    def publish_more() -> None:
        rig.publish(1)

    for size_bytes in (11, 1):
        rig.commits.when_caught_up(publish_more)
        rig.journal.settled([rig.publish(size_bytes)])
        rig.run()
        assert rig.writer.step()
        rig.run()
