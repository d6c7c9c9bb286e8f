"""Damage, on every log store that can be damaged: it is found, reported, and not the end of a
log."""

import pytest

from fluffle.raft.log import CONFIG, HardState, Quarantine
from fluffle.raft.log_store import DamagedLog, Write
from fluffle.raft.ranges import Ranges
from fluffle.storage.layout import PART_BYTES
from tests.storage.log_stores import (
    THREE,
    InStore,
    Writer,
    cool,
    created,
    damage_of,
    entries,
    entry,
    everything,
    meta,
    snapshot,
    staged,
)


def test_a_quarantine_is_remembered_until_it_is_over(log: Writer) -> None:
    log.write(created(1))
    log.write(Write(1, quarantine=Quarantine(3, 9, 2, needs_snapshot=True)))
    assert log.recovered(1).quarantine == Quarantine(3, 9, 2, needs_snapshot=True)
    log.write(Write(1, is_repaired=True))
    assert log.recovered(1).quarantine is None


@pytest.mark.parametrize("is_cold", [False, True])
def test_damage_is_not_the_end_of_the_log(fragile: Writer, is_cold: bool) -> None:
    fragile.write(created(1), created(2))
    terms = [*entries(1, 4, 1), *entries(4, 7, 2), *entries(7, 9, 3)]
    fragile.write(Write(1, entries=terms, hard_state=HardState(5, None)))
    fragile.write(Write(2, entries=entries(1, 9)))
    if is_cold:
        cool(fragile)
    fragile.subject.damage_entry(1, 4)
    store = fragile.subject.store
    assert store.read(1, 1, 9, 1000) == entries(1, 4)
    with pytest.raises(DamagedLog, match="group 1: what is at index 4 is damaged"):
        store.read(1, 4, 9, 1000)
    assert store.read(1, 5, 9, 1000) == terms[4:]
    recovered = fragile.recovered(1)
    assert recovered.quarantine == Quarantine(4, 8, 3, needs_snapshot=False)
    assert (recovered.terms, recovered.last_index) == ([(1, 1), (5, 2), (7, 3)], 8)
    assert fragile.recovered(2).quarantine is None
    fragile.write(Write(1, truncate_from=4, entries=entries(4, 6, 6), is_repaired=True))
    recovered = fragile.recovered(1)
    assert (recovered.quarantine, recovered.terms) == (None, [(1, 1), (4, 6)])
    assert everything(fragile.subject.store, 1) == entries(1, 4) + entries(4, 6, 6)


def test_the_term_of_a_last_entry_that_is_damaged_may_be_any(fragile: Writer) -> None:
    fragile.write(created(1))
    written = [*entries(1, 4, 1), *entries(4, 6, 2)]
    fragile.write(Write(1, entries=written, hard_state=HardState(7, None)))
    fragile.subject.damage_entry(1, 5)
    assert fragile.recovered(1).quarantine == Quarantine(5, 5, 7, needs_snapshot=False)


def test_the_first_entry_may_be_damaged_and_a_configuration_too(fragile: Writer) -> None:
    fragile.write(created(1))
    changed = entry(2, 2, CONFIG, THREE.encode())
    fragile.write(Write(1, entries=[entry(1, 2), changed, entry(3, 2)]))
    fragile.subject.damage_entry(1, 1)
    fragile.subject.damage_entry(1, 2)
    recovered = fragile.recovered(1)
    assert recovered.quarantine == Quarantine(1, 3, 2, needs_snapshot=False)
    assert (recovered.terms, recovered.configs) == ([(1, 0), (3, 2)], [])
    assert damage_of(fragile.subject.store, 1) == 1


def test_a_missing_entry_above_the_floor_is_damage(fragile: Writer) -> None:
    fragile.write(created(1))
    fragile.write(Write(1, entries=entries(1, 9)))
    cool(fragile)
    for index in (3, 4):
        fragile.subject.lose_entry(1, index)
    assert damage_of(fragile.subject.store, 1) == 3
    with pytest.raises(DamagedLog, match="index 4"):
        fragile.subject.store.read(1, 4, 9, 1000)
    recovered = fragile.recovered(1)
    assert recovered.quarantine == Quarantine(3, 8, 1, needs_snapshot=False)
    assert (recovered.last_index, recovered.terms) == (8, [(1, 1)])


def test_below_the_floor_only_what_is_live_is_missed(fragile: Writer) -> None:
    fragile.write(created(1))
    fragile.write(Write(1, entries=entries(1, 9)))
    cool(fragile)
    fragile.write(Write(1, snapshot=snapshot(6, [(2, 4), (5, 6)], b"state")))
    fragile.subject.lose_entry(1, 4)
    assert fragile.recovered(1).quarantine is None
    fragile.subject.lose_entry(1, 5)
    found = fragile.recovered(1)
    assert found.quarantine == Quarantine(5, 8, 1, needs_snapshot=True)
    assert found.snapshot.live == Ranges.of((2, 4), (5, 6))


def test_damage_to_a_live_entry_is_found_when_it_is_read(fragile: Writer) -> None:
    fragile.write(created(1))
    fragile.write(Write(1, entries=entries(1, 9), snapshot=snapshot(6, [(2, 7)], b"state")))
    cool(fragile)
    fragile.subject.damage_entry(1, 3)
    assert fragile.recovered(1).quarantine is None
    assert damage_of(fragile.subject.store, 1) == 3


def test_a_damaged_state_needs_a_snapshot(fragile: Writer) -> None:
    fragile.write(created(1))
    state = bytes(PART_BYTES)
    live = [(index, index + 1) for index in range(1, 200, 2)]
    fragile.write(Write(1, entries=entries(1, 301), snapshot=snapshot(200, live, state)))
    if isinstance(fragile.subject, InStore):
        fragile.subject.disk.flip(*fragile.subject.image_part(1, 1), -1)
    else:
        fragile.subject.damage_state(1)
    with pytest.raises(DamagedLog, match="index 200"):
        fragile.subject.store.read_state(1, PART_BYTES - 10, 10)
    found = fragile.recovered(1)
    assert found.quarantine == Quarantine(200, 300, 1, needs_snapshot=True)
    assert found.snapshot.live == Ranges.of(*live)
    fragile.write(
        Write(1, staged=[staged(meta(301, [], b"x"), [], 301, b"x")], install=meta(301, [], b"x"),
              truncate_from=1, deletes=[(1, 302)])
    )  # fmt: skip
    assert fragile.recovered(1).quarantine is None


def test_damage_is_joined_with_what_is_remembered(fragile: Writer) -> None:
    fragile.write(created(1))
    remembered = Quarantine(6, 12, 7, needs_snapshot=True)
    fragile.write(Write(1, entries=entries(1, 9), quarantine=remembered))
    fragile.subject.damage_entry(1, 4)
    assert fragile.recovered(1).quarantine == Quarantine(4, 12, 7, needs_snapshot=True)


def test_a_later_leader_had_all_that_was_worth_keeping(fragile: Writer) -> None:
    fragile.write(created(1))
    remembered = Quarantine(6, 12, 2, needs_snapshot=False)
    log = entries(1, 8, 2) + entries(8, 9, 3)
    hard_state = HardState(3, None)
    fragile.write(Write(1, entries=log, quarantine=remembered, hard_state=hard_state))
    fragile.subject.damage_entry(1, 4)
    assert fragile.recovered(1).quarantine == Quarantine(4, 8, 3, needs_snapshot=False)
    fragile.subject.damage_entry(1, 8)
    assert fragile.recovered(1).quarantine == Quarantine(4, 12, 3, needs_snapshot=False)


def test_a_group_without_a_head_is_lost_and_can_be_made_anew(fragile: Writer) -> None:
    fragile.write(created(1), created(2), created(3))
    fragile.write(Write(1, entries=entries(1, 9), snapshot=snapshot(6, [(2, 7)], bytes(200_000))))
    fragile.write(Write(3, entries=entries(1, 9)))
    for group in (1, 2, 3):
        fragile.subject.damage_head(group)
    loaded = fragile.load()
    assert (loaded.groups, loaded.lost) == ([], [1, 2, 3])
    fragile.write(created(1, incarnation=2), Write(3, is_drop=True))
    loaded = fragile.load()
    assert [(group.group, group.incarnation) for group in loaded.groups] == [(1, 2)]
    assert loaded.lost == [2]
    assert everything(fragile.subject.store, 1) == []
    assert fragile.subject.store.read_state(1, 0, 100) == b""
    fragile.write(Write(1, entries=entries(1, 3)))
    assert everything(fragile.subject.store, 1) == entries(1, 3)
