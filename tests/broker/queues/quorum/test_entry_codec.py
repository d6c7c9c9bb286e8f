"""Entries of a replicated queue's log: there and back, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from random import Random
from typing import Any, get_type_hints

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.delivery_counts import Counts, EqualCountsRun
from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum.entry_codec import (
    ENTRY_HEAD,
    VERSION,
    Enqueued,
    EntryMessages,
    FactBatch,
    columns_of,
    decode,
    encode,
    fact_of,
    pack_enqueued,
    pick_messages,
    read_messages,
    row_of,
    slim,
)
from fluffle.broker.queues.quorum.facts import InvalidEntry
from fluffle.broker.queues.quorum.state import QueueImage
from tests.broker.queues.quorum.history import OPERATIONS
from tests.broker.queues.quorum.image_comparison import MemberImage

naturals = st.integers(0, 2**63 - 1)
texts = st.binary(max_size=9).map(lambda raw: raw.decode(errors="surrogateescape"))
runs = st.builds(
    lambda first, step, count: range(first, first + step * count, step),
    st.integers(1, 2**60),
    st.integers(1, 1000),
    st.integers(1, 2**40),
)
VALUES: Mapping[Any, st.SearchStrategy[Any]] = {
    int: naturals,
    bool: st.booleans(),
    str: texts,
    bytes: st.binary(max_size=9),
    f.RemovalReason: st.sampled_from(f.RemovalReason),
    f.RequeueReason: st.sampled_from(f.RequeueReason),
    list[int]: st.lists(st.integers(1, 2**63 - 1), min_size=1, max_size=4),
    list[range]: st.lists(runs, min_size=1, max_size=4),
}
any_fact = st.sampled_from(list(f.KINDS.values())).flatmap(
    lambda kind: st.builds(kind, *(VALUES[hint] for hint in get_type_hints(kind).values()))
)
origins = st.builds(Origin, texts, texts)


@st.composite
def batches(draw: st.DrawFn) -> Enqueued:
    """New messages, some with columns."""
    contents = draw(st.lists(st.binary(max_size=20), min_size=1, max_size=6))
    count = len(contents)
    known = draw(st.lists(origins, min_size=1, max_size=2))
    of_each = draw(st.lists(st.sampled_from(known), min_size=count, max_size=count))
    columns = columns_of(
        draw(st.sampled_from([[], [9] * count, list(range(count))])),
        draw(st.sampled_from([[], [2**60] * count, list(range(count))])),
        draw(brought(count)),
    )
    return pack_enqueued(draw(st.integers(1, 2**60)), of_each, contents, columns)


counts = st.integers(0, 2**32 - 1)


@st.composite
def brought(draw: st.DrawFn, count: int) -> tuple[EqualCountsRun, ...]:
    """Random delivery counts for some of so many messages."""
    bounds = sorted(draw(st.sets(st.integers(0, count), max_size=4)))
    pairs = zip(bounds[::2], bounds[1::2], strict=False)
    drawn = ((low, high, draw(st.builds(Counts, counts, counts))) for low, high in pairs)
    return tuple(EqualCountsRun(*run) for run in drawn)


def plain(batch: FactBatch) -> tuple[object, ...]:
    new = batch.enqueued
    if new is None:
        return batch.stamp_ms, batch.revision, batch.facts
    reported = new.first, new.count, new.content_bytes, new.columns, b"".join(new.pieces)
    return batch.stamp_ms, batch.revision, batch.facts, reported


@pytest.mark.parametrize(
    "fact",
    [
        f.Requeued(1, 0, 1, f.RequeueReason.NACKED, 2**63, [range(1, 2)]),
        f.Settled(1, -1, [range(1, 2)]),
        f.SessionClosed(2**63),
        f.ConsumerAttached(1, 1, 1, -(2**63) - 1, 0, False, False, "c", b""),
    ],
)
def test_what_nobody_could_read_is_not_written(fact: f.Fact) -> None:
    with pytest.raises(AssertionError, match="no member could read"):
        encode(FactBatch(0, 0, [fact]))


@given(naturals, naturals, st.lists(any_fact, max_size=4), st.none() | batches())
def test_what_is_written_is_read(
    stamp_ms: int, revision: int, facts: list[f.Fact], new: Enqueued | None
) -> None:
    batch = FactBatch(stamp_ms, revision, facts, new)
    assert plain(decode(encode(batch, VERSION))) == plain(batch)


def test_every_kind_can_be_written() -> None:
    for kind in f.KINDS.values():
        fact = kind(*(EXAMPLES[hint] for hint in get_type_hints(kind).values()))
        again = fact_of(msgpack.unpackb(msgpack.packb(row_of(fact))))
        assert again == fact
        assert type(again) is kind


EXAMPLES: Mapping[Any, Any] = {
    int: 7,
    bool: True,
    str: "name",
    bytes: b"octets",
    f.RemovalReason: f.RemovalReason.EXPIRED,
    f.RequeueReason: f.RequeueReason.LOST,
    list[int]: [1, 2],
    list[range]: [range(1, 9, 2), range(3, 4)],
}


@given(st.lists(st.tuples(origins, st.binary(max_size=30)), min_size=1, max_size=8), st.data())
def test_messages_are_read_as_they_came(
    published: list[tuple[Origin, bytes]], data: st.DataObject
) -> None:
    of_each, contents = [origin for origin, _ in published], [content for _, content in published]
    entry = encode(FactBatch(0, 0, [], pack_enqueued(5, of_each, contents)))
    everything = read_messages(entry)
    assert rows(everything) == rows(EntryMessages(range(5, 5 + len(published)), of_each, contents))
    kept = data.draw(st.sets(st.sampled_from(everything.sequences), min_size=1))
    slimmer = slim(entry, [range(number, number + 1) for number in kept])
    assert rows(read_messages(slimmer)) == [row for row in rows(everything) if row[0] in kept]
    least = min(kept)
    assert rows(read_messages(slim(slimmer, [range(least, least + 1)])))[0][0] == least


def rows(stored: EntryMessages) -> list[tuple[int, str, str, bytes]]:
    return [
        (number, origin.exchange, origin.routing_key, content)
        for number, origin, content in zip(*stored, strict=True)
    ]


def test_what_is_slim_is_not_applied() -> None:
    entry = encode(FactBatch(0, 0, [], pack_enqueued(1, [Origin("", "q")], [b"body"])))
    with pytest.raises(InvalidEntry, match="kind 2"):
        QueueImage().apply(1, slim(entry, [range(1, 2)]))


def test_slimming_away_everything_is_a_mistake() -> None:
    entry = encode(FactBatch(0, 0, [], pack_enqueued(1, [Origin("", "q")], [b"body"])))
    with pytest.raises(InvalidEntry, match="no live message"):
        slim(entry, [range(2, 3)])


@pytest.mark.parametrize("change", [1, -1])
def test_a_content_that_has_changed(change: int) -> None:
    """Sizes may be as they were: each message has a checksum."""
    new = pack_enqueued(1, [Origin("", "q")] * 2, [b"aa", b"bb"])
    entry = bytearray(encode(FactBatch(0, 0, [], new)))
    entry[-2 - change] ^= 1
    with pytest.raises(InvalidEntry, match="content of a message is not what it was"):
        read_messages(bytes(entry))
    whole, broken = (1, 2) if change == -1 else (2, 1)
    assert pick_messages(bytes(entry), [whole]).contents == [b"aa" if whole == 1 else b"bb"]
    with pytest.raises(InvalidEntry, match="content of a message is not what it was"):
        pick_messages(bytes(entry), [whole, broken])


def test_what_is_not_in_an_entry_is_not_picked_from_it() -> None:
    entry = encode(FactBatch(0, 0, [], pack_enqueued(3, [Origin("", "q")] * 3, [b"a", b"b", b"c"])))
    assert pick_messages(entry, [5, 3]).contents == [b"c", b"a"]
    left = slim(entry, [range(3, 4), range(5, 6)])
    assert pick_messages(left, [5, 3]).contents == [b"c", b"a"]
    for of_entry, other in ((entry, 2), (entry, 6), (left, 4)):
        with pytest.raises(InvalidEntry, match="messages of an entry cannot be read"):
            pick_messages(of_entry, [other])


def test_an_origin_that_has_changed() -> None:
    entry = encode(FactBatch(0, 0, [], pack_enqueued(1, [Origin("here", "q")], [b"aa"])))
    with pytest.raises(InvalidEntry, match="content of a message is not what it was"):
        read_messages(entry.replace(b"here", b"herd"))


ROWS: list[tuple[object, str]] = [
    ({}, "not a list"),
    ([1], "not a list with a number"),
    ([[]], "not a list with a number"),
    ([["1"]], "not a list with a number"),
    ([[0]], "no fact has the number 0"),
    ([[99]], "no fact has the number 99"),
    ([[7]], "fields of a SessionClosed are others"),
    ([[7, 1, 1]], "fields of a SessionClosed are others"),
    ([[7, "1"]], "fields of a SessionClosed are others"),
    ([[7, True]], "fields of a SessionClosed are others"),
    ([[7, -1]], "SessionClosed with a number that none is"),
    ([[7, 2**63]], "SessionClosed with a number that none is"),
    ([[20, []]], "runs that are not three numbers each"),
    ([[20, [1, 1]]], "runs that are not three numbers each"),
    ([[20, [1, 1, "1"]]], "runs that are not three numbers each"),
    ([[20, [0, 1, 1]]], "a run of 1 messages from 0 on by steps of 1"),
    ([[20, [1, 0, 1]]], "a run of 1 messages from 1 on by steps of 0"),
    ([[20, [1, 1, 0]]], "a run of 0 messages"),
    ([[20, [1, 2**62, 2]]], "a run of 2 messages"),
    ([[12, 0, [], [1, 1, 1]]], "holders that are not keys"),
    ([[12, 0, [0], [1, 1, 1]]], "holders that are not keys"),
    ([[12, 0, ["a"], [1, 1, 1]]], "holders that are not keys"),
    ([[17, 99, 0, 0, [1, 1, 1]]], "Dropped of an unknown sort"),
]


@pytest.mark.parametrize(("facts", "why"), ROWS, ids=[f"{facts}" for facts, _ in ROWS])
def test_facts_that_nobody_wrote(facts: object, why: str) -> None:
    packed = msgpack.packb(facts)
    with pytest.raises(InvalidEntry, match=why):
        decode(ENTRY_HEAD.pack(1, 1, 0, 0, len(packed)) + packed)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (b"", "an entry of 0 bytes"),
        (ENTRY_HEAD.pack(1, 0, 0, 0, 0), "an entry of version 0, which no node writes"),
        (ENTRY_HEAD.pack(3, 1, 0, 0, 0), "kind 3"),
        (ENTRY_HEAD.pack(1, 6, 0, 0, 0), "an entry of version 6; this fluffle reads up to 5"),
        (ENTRY_HEAD.pack(1, 1, 0, 0, 2), "2 bytes of facts in an entry of"),
        (ENTRY_HEAD.pack(1, 1, 0, 0, 0), "not msgpack"),
        (ENTRY_HEAD.pack(1, 1, 0, 0, 2) + b"\x90\x90", "not msgpack"),
        (
            ENTRY_HEAD.pack(1, 1, 0, 0, 1) + b"\x90" + bytes(9),
            "messages of an entry cannot be found",
        ),
        (ENTRY_HEAD.pack(1, 1, 0, 0, 1) + b"\x90" + bytes(40), "are not 0 messages"),
    ],
)
def test_entries_that_nobody_wrote(entry: bytes, why: str) -> None:
    with pytest.raises(InvalidEntry, match=why):
        decode(entry)


@given(st.randoms(use_true_random=False), st.data())
def test_damage_is_refused_or_harmless(chance: Random, data: st.DataObject) -> None:
    """Whatever octets of an entry are others: it can be read, or it is `InvalidEntry`."""
    reported = MemberImage()
    for operation in (OPERATIONS[0], OPERATIONS[2], *chance.choices(OPERATIONS, k=12)):
        reported.do(operation, chance)
    entry = bytearray(reported.history.entry())
    for _ in range(data.draw(st.integers(1, 3))):
        entry[data.draw(st.integers(0, len(entry) - 1))] = data.draw(st.integers(0, 255))
    size = data.draw(st.sampled_from([len(entry), data.draw(st.integers(0, len(entry)))]))
    pick = partial(pick_messages, wanted=[1])
    for read in (lambda damaged: QueueImage().apply(1, damaged), read_messages, pick):
        try:
            read(bytes(entry[:size]))
        except InvalidEntry:
            continue
