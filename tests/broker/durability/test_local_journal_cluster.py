"""Journals that are found by the id of their queue."""

from __future__ import annotations

import pytest

from fluffle.broker.base.message import Origin
from fluffle.broker.durability.durability import Durability
from fluffle.broker.durability.local_journal import ClusterJournals
from fluffle.broker.queues.journal import Journal
from fluffle.broker.runtime.turn import Turn
from fluffle.storage.disk import MemoryDisk
from fluffle.storage.errors import Corrupt
from tests.support.fakes import Scheduler
from tests.support.store import open_store

ORIGIN = Origin("", "q")


class Life:
    """A life of a node with a disk."""

    def __init__(self, disk: MemoryDisk) -> None:
        self.scheduler = Scheduler()
        self.durability = Durability(open_store(disk), Turn(self.scheduler.call_soon))
        self.journals = self.durability.journals_by_id

    def publish(self, journal: Journal, first: int, *contents: bytes) -> None:
        size = sum(map(len, contents))
        origins = [ORIGIN] * len(contents)
        journal.enqueued(origins, [*contents], size, first, apart=True)
        self.scheduler.run()


def contents_of(journal: Journal) -> list[bytes]:
    stored = journal.recover().stored
    return [
        content
        for stretch in stored
        for loaded in journal.load(stretch.first, stretch.stop)
        for content in loaded.contents
    ]


def test_a_journal_is_made_once_and_found_again() -> None:
    disk = MemoryDisk()
    life = Life(disk)
    journal, was_there = life.journals.open(1 << 62)
    assert not was_there
    life.publish(journal, 1, b"a", b"b")
    journal, was_there = Life(disk).journals.open(1 << 62)
    assert was_there
    assert contents_of(journal) == [b"a", b"b"]


def test_queues_that_nobody_knows_any_more_leave_nothing() -> None:
    disk = MemoryDisk()
    life = Life(disk)
    for queue in (7, 8):
        life.publish(life.journals.open(queue)[0], 1, b"message of %d" % queue)
    life = Life(disk)
    kept, _ = life.journals.open(8)
    assert life.journals.sweep({8, 9}) == 1
    life.scheduler.run()
    assert contents_of(kept) == [b"message of 8"]
    assert set(life.durability.store.log.groups()) == {kept.groups[0]}
    assert life.journals.sweep({8, 9}) == 0
    assert not Life(disk).journals.open(7)[1]


def test_a_deleted_queue_leaves_nothing_either() -> None:
    disk = MemoryDisk()
    life = Life(disk)
    journal, _ = life.journals.open(7)
    life.publish(journal, 1, b"a")
    journal.drop()
    life.journals.forget(7)
    life.scheduler.run()
    life = Life(disk)
    assert life.durability.store.log.groups() == []
    assert life.journals.sweep(()) == 0


def test_names_that_mean_nothing_are_reported() -> None:
    durability = Durability(open_store(), Turn(Scheduler().call_soon))
    with pytest.raises(Corrupt, match="the names of journals"):
        ClusterJournals([(b"short", b"")], durability.journals, durability.commits)
