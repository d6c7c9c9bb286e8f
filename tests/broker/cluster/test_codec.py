"""Frames of messages: what goes in comes out, and nothing else gets in."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, get_type_hints

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.cluster import codec
from fluffle.broker.cluster.codec import (
    APART_BYTES_MIN,
    FRAME_BYTES_MAX,
    BadFrame,
    TrafficClasses,
    decode,
)
from fluffle.broker.cluster.ports import TrafficClass
from fluffle.raft.log import CONFIG, DATA, NOOP, Entry
from fluffle.raft.messages import (
    MESSAGES,
    AppendRequest,
    GroupUnknown,
    Message,
    Ping,
    SnapshotChunk,
    SnapshotOffer,
)
from tests.support.payloads import joined
from tests.support.raft_hosts import MemoryLinks, Network

NUMBERS = st.integers(0, 2**64 - 1)
ENTRIES = st.builds(
    Entry,
    st.integers(1, 2**64 - 1),
    st.integers(1, 2**64 - 1),
    st.sampled_from([NOOP, DATA, CONFIG]),
    st.binary(max_size=50) | st.just(b"large" * APART_BYTES_MIN),
)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: NUMBERS,
    bool: st.booleans(),
    bytes: st.binary(max_size=50),
    Sequence[Entry]: st.lists(ENTRIES, max_size=4),
}


def encode(messages: list[Message]) -> bytes:
    """A frame as it is on the wire."""
    return joined(codec.encode(messages))


def any_of(kind: type[Message]) -> st.SearchStrategy[Message]:
    hints = get_type_hints(kind)
    return st.builds(kind, **{field.name: VALUES[hints[field.name]] for field in fields(kind)})


MESSAGE = st.one_of([any_of(kind) for kind in MESSAGES])


@given(st.lists(MESSAGE, max_size=5))
def test_a_frame_says_what_was_put_into_it(messages: list[Message]) -> None:
    assert decode(encode(messages)) == messages


@given(st.binary(max_size=100))
def test_no_bytes_do_worse_than_being_refused(frame: bytes) -> None:
    try:
        messages = decode(frame)
    except BadFrame:
        return
    assert decode(encode(messages)) == messages


VALUE = st.recursive(
    st.one_of(st.integers(-(2**63), 2**64 - 1), st.binary(max_size=5), st.booleans(), st.none()),
    lambda children: st.lists(children, max_size=8),
)


@given(st.lists(st.one_of(MESSAGE, VALUE), min_size=1, max_size=3))
def test_no_values_do_worse_than_being_refused(values: list[Any]) -> None:
    rows = [
        msgpack.unpackb(encode([value]))[0] if type(value) in MESSAGES else value
        for value in values
    ]
    try:
        messages = decode(msgpack.packb(rows))
    except BadFrame:
        return
    assert msgpack.unpackb(encode(messages)) == rows


@given(st.lists(MESSAGE, min_size=1, max_size=3), st.data())
def test_a_frame_that_was_cut_is_refused(messages: list[Message], data: st.DataObject) -> None:
    frame = encode(messages)
    with pytest.raises(BadFrame):
        decode(frame[: data.draw(st.integers(0, len(frame) - 1))])


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (7, "not a list"),
        ([7], "not a list with a number"),
        ([[]], "not a list with a number"),
        ([[len(MESSAGES)]], "no message has the number"),
        ([[-1]], "no message has the number"),
        ([["Ping"]], "no message has the number"),
        ([[True, 1, 1]], "no message has the number"),
        ([[0, 1, 1, 0]], "the fields of a Ping"),
        ([[0, 1, 1, 0, 0, False, 0, 0, 0, 0, 0]], "the fields of a Ping"),
        ([[0, 1, 1, 0, True, False, 0, 0, 0, 0]], "the fields of a Ping"),
        ([[0, 1, -1, 0, 0, False, 0, 0, 0, 0]], "below zero"),
        ([[2, *range(8), [[1, 1, 1]]]], "an entry whose fields"),
        ([[2, *range(8), [[0, 1, 1, b""]]]], "an entry of index 0"),
        ([[2, *range(8), [[1, 1, 3, b""]]]], "kind 3"),
    ],
)
def test_what_is_wrong_is_said(rows: object, complaint: str) -> None:
    with pytest.raises(BadFrame, match=complaint):
        decode(msgpack.packb(rows))


def test_two_frames_in_one_are_refused() -> None:
    with pytest.raises(BadFrame, match="not msgpack"):
        decode(encode([Ping(1, 1, 0, 0, is_answer_wanted=True)]) + encode([GroupUnknown(7, 1)]))


def test_the_number_of_a_class_is_its_place() -> None:
    ping = Ping(
        3, 4, 5, 6, is_answer_wanted=True, sent_ms=7, echo_age_ms=8, wall_ms=9, common_ms=10
    )
    assert msgpack.unpackb(encode([GroupUnknown(7, 1), ping])) == [
        [1, 7, 1],
        [0, 3, 4, 5, 6, True, 7, 8, 9, 10],
    ]


@pytest.fixture
def links() -> MemoryLinks:
    return Network().join("a")


def append(group: int, first: int, *sizes: int) -> AppendRequest:
    entries = [Entry(index, 1, DATA, bytes(size)) for index, size in enumerate(sizes, first)]
    return AppendRequest(group, 1, 1, 1, first - 1, 1, 0, 1, entries)


def lanes_of(traffic_classes: TrafficClasses, messages: Sequence[Message]) -> list[TrafficClass]:
    return [traffic for traffic, _ in traffic_classes.frames("b", messages)]


def test_what_is_small_goes_before_bodies_and_those_before_snapshots(links: MemoryLinks) -> None:
    chunk = SnapshotChunk(1, 1, 1, 1, 5, 1, 0, 1, 5, [], 0, b"state", 1)
    offer = SnapshotOffer(1, 1, 1, 1, 5, 1, b"", b"", 5, 0, 1)
    ping = Ping(1, 1, 0, 0, is_answer_wanted=False)
    messages: list[Message] = [chunk, append(1, 1, 10), ping, offer, append(2, 1)]
    frames = list(TrafficClasses(links).frames("b", messages))
    assert frames == [
        (TrafficClass.URGENT, [ping]),
        (TrafficClass.NORMAL, [append(1, 1, 10), append(2, 1)]),
        (TrafficClass.BULK, [chunk, offer]),
    ]


def test_frames_are_of_limited_size_and_a_large_message_goes_alone(links: MemoryLinks) -> None:
    half, whole = FRAME_BYTES_MAX // 2, FRAME_BYTES_MAX
    messages = [append(group, 1, size) for group, size in enumerate([half, half, 2 * whole, 1, 1])]
    frames = [frame for _, frame in TrafficClasses(links).frames("b", messages)]
    assert frames == [messages[:1], messages[1:2], messages[2:3], messages[3:]]


def test_a_catch_up_takes_the_bulk_lane_and_the_group_stays_there(links: MemoryLinks) -> None:
    traffic_classes = TrafficClasses(links)
    traffic_classes.was_read(1, 10)
    links.bulk_waiting["b"] = 1_000
    assert lanes_of(traffic_classes, [append(1, 10, 5)]) == [TrafficClass.BULK]
    traffic_classes.end_turn()
    # From memory by now, but behind what still waits; other groups and nodes are not held up.
    assert lanes_of(traffic_classes, [append(1, 11, 5)]) == [TrafficClass.BULK]
    assert lanes_of(traffic_classes, [append(1, 12)]) == [TrafficClass.BULK]
    assert lanes_of(traffic_classes, [append(2, 11, 5)]) == [TrafficClass.NORMAL]
    assert [traffic for traffic, _ in traffic_classes.frames("c", [append(1, 11, 5)])] == [
        TrafficClass.NORMAL
    ]
    links.bulk_waiting["b"] = 0
    traffic_classes.end_turn()
    assert lanes_of(traffic_classes, [append(1, 13, 5)]) == [TrafficClass.NORMAL]


def test_what_was_read_in_another_turn_is_no_catch_up(links: MemoryLinks) -> None:
    traffic_classes = TrafficClasses(links)
    traffic_classes.was_read(1, 10)
    traffic_classes.end_turn()
    assert lanes_of(traffic_classes, [append(1, 10, 5)]) == [TrafficClass.NORMAL]
