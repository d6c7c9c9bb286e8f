"""The contract of `raft/log_store.py`, on the fake, and on the real one with both disks."""

import pytest

from fluffle.raft.config import Configuration, Member
from fluffle.raft.log import CONFIG, DATA, NOOP, HardState
from fluffle.raft.log_store import Write
from tests.storage.log_stores import (
    THREE,
    Writer,
    cool,
    created,
    entries,
    entry,
    everything,
    meta,
    snapshot,
    staged,
)


def test_nothing_is_there_at_first(log: Writer) -> None:
    loaded = log.load()
    assert (loaded.groups, loaded.lost) == ([], [])
    assert log.subject.store.read(1, 1, 10, 100) == []
    assert log.subject.store.read_state(1, 0, 10) == b""
    assert log.subject.store.has_room


def test_a_group_is_made_with_its_first_configuration(log: Writer) -> None:
    log.write(created(7, incarnation=3), created(2**64 - 1, config=Configuration()))
    first, second = log.load().groups
    assert (first.group, first.incarnation, first.hard_state) == (7, 3, HardState(0, None))
    assert (first.snapshot.index, first.snapshot.config) == (0, THREE)
    assert (first.terms, first.last_index, first.configs) == ([], 0, [])
    assert (first.quarantine, first.staged) == (None, None)
    assert (second.group, second.snapshot.config) == (2**64 - 1, Configuration())


def test_tokens_are_reported_in_order_once_durable_and_not_from_within(log: Writer) -> None:
    log.submit(created(1))
    log.submit(Write(1, entries=entries(1, 3)))
    assert log.subject.reported == []
    log.subject.sync()
    assert log.subject.reported[-1] == 2
    assert log.subject.reported == sorted(set(log.subject.reported))
    log.write(Write(1, entries=entries(3, 4)))
    assert log.subject.reported[-1] == 3


def test_what_was_not_durable_is_gone_and_never_reported(log: Writer) -> None:
    log.write(created(1))
    reported = log.subject.reported
    log.submit(Write(1, entries=entries(1, 3)))
    assert log.recovered(1).last_index == 0
    log.subject.sync()
    assert (reported, log.subject.reported) == ([1], [])


def test_entries_come_back_with_term_kind_and_payload(log: Writer) -> None:
    written = [
        entry(1, 1, NOOP, b""),
        entry(2, 1),
        entry(3, 2**40, CONFIG, THREE.encode()),
        entry(4, 2**40, DATA, bytes(range(256)) * 1000),
    ]
    log.write(created(1), created(2))
    log.write(Write(1, entries=written), Write(2, entries=entries(1, 2, 9)))
    for _ in range(2):
        assert everything(log.subject.store, 1) == written
        assert everything(log.subject.store, 2) == entries(1, 2, 9)
        recovered = log.recovered(1)
        assert (recovered.terms, recovered.last_index) == ([(1, 1), (3, 2**40)], 4)
        assert recovered.configs == [written[2]]
        cool(log)


@pytest.mark.parametrize(("bytes_max", "read"), [(0, 1), (7, 1), (14, 2), (20, 2), (21, 3)])
def test_reading_keeps_to_its_limit_but_gives_one(log: Writer, bytes_max: int, read: int) -> None:
    log.write(created(1))
    log.write(Write(1, entries=entries(1, 8)))
    store = log.subject.store
    assert store.read(1, 1, 8, bytes_max) == entries(1, read + 1)
    assert store.read(1, 3, 5, 1000) == entries(3, 5)
    assert store.read(1, 8, 100, 1000) == []


def test_term_and_vote_come_back(log: Writer) -> None:
    log.write(created(1))
    log.write(Write(1, hard_state=HardState(3, None)))
    log.write(Write(1, hard_state=HardState(4, Member("b", 2))))
    assert log.recovered(1).hard_state == HardState(4, Member("b", 2))


def test_a_member_goes_on_as_another(log: Writer) -> None:
    log.write(created(1), Write(1, entries=entries(1, 3)))
    log.write(Write(1, new_incarnation=9))
    (found,) = log.load().groups
    assert (found.incarnation, found.last_index) == (9, 2)
    assert log.subject.store.read(1, 1, 3, 1_000) == entries(1, 3)


def test_a_persist_is_all_groups_or_none(log: Writer) -> None:
    log.write(created(1), created(2))
    log.submit(
        Write(1, entries=entries(1, 2), hard_state=HardState(1, None)),
        Write(2, entries=entries(1, 4)),
    )
    found = log.load().groups
    assert [group.last_index for group in found] == [0, 0]
    log.write(
        Write(1, entries=entries(1, 2), hard_state=HardState(1, None)),
        Write(2, entries=entries(1, 4)),
    )
    found = log.load().groups
    assert [(group.last_index, group.hard_state.term) for group in found] == [(1, 1), (3, 0)]


@pytest.mark.parametrize("is_cold", [False, True])
def test_a_tail_is_replaced_in_one_write(log: Writer, is_cold: bool) -> None:
    log.write(created(1))
    log.write(Write(1, entries=entries(1, 10)))
    if is_cold:
        cool(log)
    log.write(Write(1, truncate_from=5, entries=entries(5, 7, 2)))
    for _ in range(2):
        assert everything(log.subject.store, 1) == entries(1, 5) + entries(5, 7, 2)
        recovered = log.recovered(1)
        assert (recovered.terms, recovered.last_index) == ([(1, 1), (5, 2)], 6)
    log.write(Write(1, truncate_from=1))
    assert log.recovered(1).last_index == 0


def test_truncations_of_writes_under_way_follow_each_other(log: Writer) -> None:
    log.write(created(1))
    log.submit(Write(1, entries=entries(1, 10)))
    log.submit(Write(1, truncate_from=5, entries=entries(5, 8, 2)))
    log.submit(Write(1, truncate_from=6, entries=entries(6, 7, 3)))
    log.subject.sync()
    assert everything(log.subject.store, 1) == entries(1, 5) + entries(5, 6, 2) + entries(6, 7, 3)


@pytest.mark.parametrize("is_cold", [False, True])
def test_a_snapshot_makes_the_log_sparse(log: Writer, is_cold: bool) -> None:
    log.write(created(1))
    log.write(Write(1, entries=entries(1, 12)))
    if is_cold:
        cool(log)
    state = b"the image" * 20_000
    live = [(2, 4), (7, 8)]
    log.write(Write(1, snapshot=snapshot(8, live, state), deletes=[(1, 2), (4, 7), (8, 9)]))
    kept = entries(2, 4) + entries(7, 8) + entries(9, 12)
    for _ in range(2):
        assert everything(log.subject.store, 1) == kept
        assert log.subject.store.read_state(1, 0, 1 << 20) == state
        assert log.subject.store.read_state(1, 100, 70_000) == state[100:70_100]
        assert log.subject.store.read_state(1, len(state), 10) == b""
        recovered = log.recovered(1)
        assert recovered.snapshot == meta(8, live, state)
        assert (recovered.terms, recovered.last_index) == ([(9, 1)], 11)
        assert recovered.quarantine is None
    log.write(Write(1, snapshot=snapshot(11, [(9, 10)], b"small"), deletes=[(1, 9), (10, 12)]))
    assert everything(log.subject.store, 1) == entries(9, 10)
    recovered = log.recovered(1)
    assert (recovered.terms, recovered.last_index) == ([], 11)
    assert log.subject.store.read_state(1, 0, 100) == b"small"
    log.write(Write(1, entries=entries(12, 14, 2)))
    assert everything(log.subject.store, 1) == entries(9, 10) + entries(12, 14, 2)


def test_the_state_that_is_read_is_that_which_is_durable(log: Writer) -> None:
    """Not a part of one that is on its way: its sender would call it damaged, and lead no more."""
    log.write(created(1))
    log.write(Write(1, entries=entries(1, 9), snapshot=snapshot(4, [(1, 5)], b"the first")))
    log.submit(Write(1, snapshot=snapshot(8, [(1, 2), (4, 9)], bytes(200_000))))
    assert log.subject.store.read_state(1, 4, 100) == b"first"
    log.subject.sync()
    assert log.subject.store.read_state(1, 0, 1 << 20) == bytes(200_000)
    sent = meta(20, [], b"the last")
    log.submit(Write(1, staged=[staged(sent, [], 20, b"the last")], install=sent))
    assert log.subject.store.read_state(1, 0, 10) == bytes(10)
    log.subject.sync()
    assert log.subject.store.read_state(1, 4, 10) == b"last"


def test_a_snapshot_of_nothing_is_one(log: Writer) -> None:
    log.write(created(1))
    log.write(Write(1, entries=entries(1, 3)))
    log.write(Write(1, snapshot=snapshot(2, [], b""), deletes=[(1, 3)]))
    recovered = log.recovered(1)
    assert recovered.snapshot == meta(2, [], b"")
    assert (recovered.last_index, recovered.quarantine) == (2, None)


def test_a_group_that_is_dropped_leaves_nothing(log: Writer) -> None:
    log.write(created(1), created(2))
    log.write(Write(1, entries=entries(1, 30)), Write(2, entries=entries(1, 3)))
    log.write(Write(1, snapshot=snapshot(20, [(1, 21)], b"image")))
    first = staged(meta(40, [(35, 41)], b"newer"), entries(35, 38), 37)
    log.write(Write(1, staged=[first]))
    log.write(Write(1, is_drop=True))
    assert everything(log.subject.store, 1) == []
    assert [group.group for group in log.load().groups] == [2]
    log.write(created(1, incarnation=2))
    recovered = log.recovered(1)
    assert (recovered.incarnation, recovered.last_index, recovered.staged) == (2, 0, None)
    log.write(Write(1, entries=entries(1, 3, 5)))
    assert everything(log.subject.store, 1) == entries(1, 3, 5)
    assert everything(log.subject.store, 2) == entries(1, 3)


def test_a_group_can_be_dropped_and_made_anew_in_one_persist(log: Writer) -> None:
    log.write(created(1))
    log.write(Write(1, entries=entries(1, 9), snapshot=snapshot(4, [(1, 5)], bytes(100_000))))
    log.write(Write(1, is_drop=True), created(1, incarnation=2))
    recovered = log.recovered(1)
    assert (recovered.incarnation, recovered.last_index, recovered.quarantine) == (2, 0, None)
    log.write(Write(1, entries=entries(1, 3, 5)))
    assert everything(log.subject.store, 1) == entries(1, 3, 5)


def test_a_group_that_is_gone_can_be_dropped_again(log: Writer) -> None:
    log.write(created(1))
    log.write(Write(1, is_drop=True))
    log.write(Write(1, is_drop=True), Write(2, is_drop=True))
    assert log.load().groups == []


def test_a_group_can_be_made_and_dropped_within_a_commit(log: Writer) -> None:
    log.submit(created(1))
    log.submit(Write(1, entries=entries(1, 3), hard_state=HardState(1, None)))
    log.submit(Write(1, is_drop=True))
    log.submit(created(1, incarnation=2))
    log.subject.sync()
    recovered = log.recovered(1)
    assert (recovered.incarnation, recovered.last_index) == (2, 0)
