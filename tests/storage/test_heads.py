"""Entries of a Raft group that are made smaller on disk, at or below the floor."""

from __future__ import annotations

import pytest

from fluffle.raft.log_store import DamagedLog, Write
from fluffle.storage.layout import PART_BYTES, Table
from tests.storage.log_stores import InStore, Writer, created, entries, entry, snapshot
from tests.storage.test_raft_log import log, subject, values

__all__ = ["log", "subject"]


def test_a_cold_entry_is_made_smaller_and_stays_what_it_is(log: Writer, subject: InStore) -> None:
    log.write(created(1))
    large = bytes(2 * PART_BYTES + 7)
    log.write(Write(1, entries=[*entries(1, 3), entry(3, payload=large), *entries(4, 6)]))
    log.write(Write(1, snapshot=snapshot(5, [(2, 4)], b""), deletes=[(1, 2), (4, 6)]))
    store = subject.store
    assert not store.rewrite(1, 6, lambda _before: b""), "it is above the floor"
    for index in range(6, 12):  # until all of that has left the hot window
        log.write(Write(1, entries=[entry(index, payload=bytes(600))]))
    cold = values(subject, Table.COLD)
    assert store.rewrite(1, 3, lambda before: before[: PART_BYTES + 1])
    subject.sync()
    kept = entry(3, payload=large[: PART_BYTES + 1])
    assert store.read(1, 1, 6, 1 << 20) == [*entries(2, 3), kept]
    assert values(subject, Table.COLD) == cold - 1
    assert store.rewrite(1, 3, lambda _before: b"x")
    subject.sync()
    log.load()
    assert store.read(1, 1, 6, 1 << 20)[1:] == [entry(3, payload=b"x")]
    log.write(Write(1, snapshot=snapshot(6, [(2, 3)], b""), deletes=[(3, 4), (6, 7)]))
    log.write(Write(1, entries=[entry(12, payload=bytes(600))]))
    assert store.read(1, 1, 7, 1 << 20) == entries(2, 3)
    assert not store.rewrite(1, 3, lambda before: before), "it is gone"


def test_what_is_in_the_hot_window_or_no_shorter_is_left_as_it_is(
    log: Writer, subject: InStore
) -> None:
    log.write(created(1))
    log.write(Write(1, entries=entries(1, 3), snapshot=snapshot(2, [(1, 3)], b"")))
    store = subject.store
    assert not store.rewrite(1, 2, lambda _before: b"")
    assert not store.rewrite(7, 2, lambda _before: b"")
    for index in range(3, 9):
        log.write(Write(1, entries=[entry(index, payload=bytes(600))]))
    before = subject.host.writer.work
    assert store.rewrite(1, 2, lambda payload: payload)
    assert subject.host.writer.work is before, "nothing is written"
    subject.damage_entry(1, 2)
    with pytest.raises(DamagedLog):
        store.rewrite(1, 2, lambda _before: b"")


def test_what_is_on_its_way_to_be_deleted_does_not_come_back(log: Writer, subject: InStore) -> None:
    """A commit carries out deletions of the one before, and then writes what is new."""
    log.write(created(1))
    log.write(Write(1, entries=[*entries(1, 3), entry(3, payload=bytes(600))]))
    log.write(Write(1, snapshot=snapshot(3, [(3, 4)], b""), deletes=[(1, 3)]))
    for index in range(4, 10):
        log.write(Write(1, entries=[entry(index, payload=bytes(600))]))
    store, cold = subject.store, values(subject, Table.COLD)
    log.submit(Write(1, snapshot=snapshot(4, [], b""), deletes=[(3, 5)]))
    assert not store.rewrite(1, 3, lambda _before: b"x")
    subject.sync()
    log.write(Write(1, entries=[entry(10)]))
    assert store.read(1, 1, 5, 1 << 20) == []
    assert values(subject, Table.COLD) < cold
    log.load()
    assert store.read(1, 1, 5, 1 << 20) == []
    assert not store.rewrite(1, 3, lambda _before: b"x"), "it is gone"
