"""Snapshots that come from a leader, on every log store: staged, then installed."""

from zlib import crc32

import pytest

from fluffle.raft.config import Configuration
from fluffle.raft.log_store import StagedSnapshot, Write
from fluffle.raft.ranges import Ranges
from fluffle.storage.layout import PART_BYTES
from tests.storage.log_stores import (
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

STATE = bytes(range(256)) * 600
assert len(STATE) > 2 * PART_BYTES
SENT = meta(50, [(10, 12), (30, 33), (50, 51)], STATE, term=4)
SENT_ENTRIES = [*entries(10, 12, 2), *entries(30, 33, 3), entry(50, 4)]


def test_a_snapshot_is_staged_apart_from_the_log_and_then_installed(log: Writer) -> None:
    log.write(created(1))
    log.write(Write(1, entries=entries(1, 20)))
    log.write(Write(1, staged=[staged(SENT, SENT_ENTRIES[:2], 20)]))
    log.write(Write(1, staged=[staged(SENT, SENT_ENTRIES[2:], 50, STATE[:70_000])]))
    assert everything(log.subject.store, 1) == entries(1, 20)
    recovered = log.recovered(1)
    assert recovered.snapshot.index == 0
    assert recovered.staged == StagedSnapshot(SENT, 50, 70_000, crc32(STATE[:70_000]))
    log.write(Write(1, staged=[staged(SENT, [], 50, STATE[70_000:], 70_000)]))
    log.write(Write(1, install=SENT, truncate_from=13, deletes=[(1, 10), (12, 13)]))
    for _ in range(2):
        assert everything(log.subject.store, 1) == SENT_ENTRIES
        assert log.subject.store.read_state(1, 0, 1 << 20) == STATE
        recovered = log.recovered(1)
        assert recovered.snapshot == SENT
        assert (recovered.last_index, recovered.terms) == (50, [])
        assert (recovered.staged, recovered.quarantine) == (None, None)
        cool(log)
    log.write(Write(1, entries=entries(51, 53, 5)))
    assert everything(log.subject.store, 1) == SENT_ENTRIES + entries(51, 53, 5)


def test_a_snapshot_is_staged_and_installed_in_one_write(log: Writer) -> None:
    log.write(created(1, config=Configuration()))
    pieces = [
        staged(SENT, SENT_ENTRIES, 50, STATE[:10]),
        staged(SENT, [], 50, STATE[10:], 10),
    ]
    log.write(Write(1, staged=pieces, install=SENT, entries=entries(51, 53, 4)))
    assert everything(log.subject.store, 1) == SENT_ENTRIES + entries(51, 53, 4)
    recovered = log.recovered(1)
    assert (recovered.snapshot, recovered.terms) == (SENT, [(51, 4)])


def test_a_suffix_that_matches_stays_behind_an_installed_snapshot(log: Writer) -> None:
    log.write(created(1))
    log.write(Write(1, entries=entries(1, 56, 4)))
    log.write(Write(1, staged=[staged(SENT, SENT_ENTRIES[2:], 50, STATE)]))
    log.write(
        Write(1, install=SENT, deletes=[(1, 10), (12, 30), (33, 50)], entries=entries(56, 58, 4))
    )
    kept = entries(10, 12, 4) + SENT_ENTRIES[2:] + entries(51, 58, 4)
    for _ in range(2):
        assert everything(log.subject.store, 1) == kept
        recovered = log.recovered(1)
        assert (recovered.last_index, recovered.terms) == (57, [(51, 4)])
        assert recovered.quarantine is None
        cool(log)
    log.write(Write(1, truncate_from=54, entries=entries(54, 55, 6)))
    assert everything(log.subject.store, 1) == kept[:-4] + entries(54, 55, 6)


@pytest.mark.parametrize("bytes_max", range(0, 130, 9))
def test_a_page_ends_at_its_limit_wherever_its_entries_are(log: Writer, bytes_max: int) -> None:
    content = [entry(index, payload=bytes(index % 4 * 9)) for index in range(1, 30)]
    live = [(index, index + 1) for index in range(2, 28, 3)]
    sent = meta(28, [(1, 29)], b"state")
    log.write(created(1))
    log.write(Write(1, entries=content))
    late = [content[first - 1] for first, _ in live]
    log.write(Write(1, staged=[staged(sent, late, 28, b"state")], install=sent))
    page = log.subject.store.read(1, 1, 30, bytes_max)
    assert page == content[: len(page)], "nothing is left out"
    assert sum(len(found.payload) for found in page) <= max(bytes_max, len(page[0].payload))


def test_a_later_snapshot_discards_staged_state_but_not_entries(log: Writer) -> None:
    log.write(created(1))
    log.write(Write(1, staged=[staged(SENT, SENT_ENTRIES[:3], 30, STATE[:100])]))
    later = meta(60, [(10, 11), (30, 31), (60, 61)], b"later", term=4)
    log.write(Write(1, staged=[staged(later, [entry(60, 4)], 60, b"la")]))
    assert log.recovered(1).staged == StagedSnapshot(later, 60, 2, crc32(b"la"))
    log.write(Write(1, staged=[staged(later, [], 60, b"ter", 2)]))
    log.write(Write(1, install=later, deletes=[(1, 10), (11, 30), (31, 60)]))
    assert everything(log.subject.store, 1) == [
        entry(10, 2),
        entry(30, 3),
        entry(60, 4),
    ]
    assert log.recovered(1).quarantine is None
    assert log.subject.store.read_state(1, 0, 10) == b"later"


def test_offset_0_begins_the_state_afresh(log: Writer) -> None:
    sent = meta(5, [(5, 6)], b"state")
    log.write(created(1))
    log.write(Write(1, staged=[staged(sent, entries(5, 6), 5, b"sta")]))
    log.write(Write(1, staged=[staged(sent, [], 5, b"stat")]))
    assert log.recovered(1).staged == StagedSnapshot(sent, 5, 4, crc32(b"stat"))
    log.write(Write(1, staged=[staged(sent, [], 5, b"e", 4)], install=sent))
    assert log.subject.store.read_state(1, 0, 10) == b"state"


def test_what_is_staged_can_be_discarded_and_begun_anew(log: Writer) -> None:
    log.write(created(1))
    log.write(Write(1, staged=[staged(SENT, SENT_ENTRIES, 50, STATE[:100])]))
    log.write(Write(1, discard_staged=True))
    assert log.recovered(1).staged is None
    first = staged(SENT, SENT_ENTRIES[:1], 10)
    log.write(Write(1, discard_staged=True, staged=[first]))
    log.write(Write(1, discard_staged=True, staged=[first]))
    assert log.recovered(1).staged == StagedSnapshot(SENT, 10, 0, 0)
    log.write(Write(1, discard_staged=True))
    assert everything(log.subject.store, 1) == []
    assert log.recovered(1).last_index == 0


def test_an_install_of_nothing_empties_a_log(log: Writer) -> None:
    log.write(created(1))
    log.write(Write(1, entries=entries(1, 9), snapshot=snapshot(4, [(1, 5)], STATE)))
    log.write(Write(1, staged=[staged(SENT, SENT_ENTRIES, 50, STATE)]))
    nothing = created(1, config=Configuration()).install
    log.write(Write(1, install=nothing, truncate_from=1))
    recovered = log.recovered(1)
    assert (recovered.snapshot, recovered.last_index) == (nothing, 0)
    assert (recovered.staged, recovered.quarantine) == (None, None)
    assert log.subject.store.read_state(1, 0, 10) == b""
    log.write(Write(1, entries=entries(1, 3, 7)))
    assert everything(log.subject.store, 1) == entries(1, 3, 7)


def test_one_install_after_the_other(log: Writer) -> None:
    """A follower that is always too slow, and a few messages that nobody takes."""
    log.write(created(1))
    log.write(Write(1, entries=entries(1, 4)))
    kept = entries(1, 2)
    for floor in range(10, 60, 10):
        live = [*((old.index, old.index + 1) for old in kept), (floor, floor + 1)]
        sent = meta(floor, live, b"at %d" % floor)
        log.write(
            Write(1, staged=[staged(sent, entries(floor, floor + 1), floor, b"at %d" % floor)])
        )
        dead = Ranges.of(*live).gaps(1, floor + 1)
        log.write(Write(1, install=sent, deletes=list(dead), entries=entries(floor + 1, floor + 3)))
        kept += entries(floor, floor + 1)
        assert everything(log.subject.store, 1) == kept + entries(floor + 1, floor + 3)
        assert log.recovered(1).quarantine is None
    log.write(Write(1, snapshot=snapshot(52, [(20, 21)], b"own"), deletes=[(1, 20), (21, 53)]))
    assert everything(log.subject.store, 1) == entries(20, 21)
    log.write(Write(1, snapshot=snapshot(52, [], b"own"), deletes=[(20, 21)]))
    log.write(Write(1, entries=entries(53, 55), snapshot=snapshot(54, [(54, 55)], b"again")))
    assert everything(log.subject.store, 1) == entries(53, 55)
    recovered = log.recovered(1)
    assert (recovered.last_index, recovered.quarantine) == (54, None)


# Contradictions


@pytest.mark.parametrize(
    "write",
    [
        Write(2, entries=entries(1, 2)),
        created(1),
        Write(1, entries=entries(6, 7)),
        Write(1, entries=entries(4, 5)),
        Write(1, entries=[entry(5), entry(7)]),
        Write(1, truncate_from=3, entries=entries(4, 5)),
        Write(1, deletes=[(1, 4)]),
        Write(1, install=SENT),
        Write(1, staged=[staged(SENT, [], 0, b"a")], install=SENT),
        Write(1, staged=[staged(SENT, [], 0, STATE)], install=meta(51, [], STATE)),
        Write(1, staged=[staged(SENT, [], 0, b"a", 5)]),
        Write(1, staged=[staged(SENT, [*entries(7, 9), entry(8)], 0)]),
    ],
)
def test_what_contradicts_what_was_written_is_refused(log: Writer, write: Write) -> None:
    log.write(created(1))
    log.write(Write(1, entries=entries(1, 5), snapshot=snapshot(2, [], b"")))
    with pytest.raises(ValueError, match=r"group|index|staged|piece|deletion"):
        log.write(write)
