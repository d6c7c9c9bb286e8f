"""Frames of streams: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, get_type_hints

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.base.message import Origin
from fluffle.broker.cluster.codec import APART_BYTES_MIN, BadFrame
from fluffle.broker.cluster.queue_sessions import codec
from fluffle.broker.cluster.queue_sessions.codec import FROM_CLIENT, FROM_LEADER, decode
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum import messages as m
from tests.support.payloads import joined

NUMBER = st.integers(0, 1 << 40)
RUN = st.builds(
    lambda first, step, count: range(first, first + step * count, step),
    NUMBER,
    st.integers(1, 9),
    st.integers(1, 5),
)
ORIGIN = st.builds(Origin, st.text(max_size=5), st.text(max_size=5))
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: NUMBER,
    m.Signed: st.integers(-(1 << 63), (1 << 63) - 1),
    bool: st.booleans(),
    str: st.text(max_size=9),
    bytes: st.binary(max_size=9),
    m.SessionBoot: st.builds(m.SessionBoot, NUMBER, st.integers(0, (1 << 64) - 1)),
    list[int]: st.lists(NUMBER, max_size=3),
    list[range]: st.lists(RUN, max_size=3),
    list[m.Token]: st.lists(st.builds(m.Token, NUMBER, NUMBER, RUN), max_size=3),
    list[tuple[int, int]]: st.lists(st.tuples(NUMBER, NUMBER), max_size=3),
    Outcome: st.sampled_from(Outcome),
    Outcome | None: st.sampled_from([None, *Outcome]),
}
CONTENT = st.binary(max_size=9) | st.just(b"large" * APART_BYTES_MIN)
CONTENTS = st.lists(st.tuples(ORIGIN, CONTENT), min_size=1, max_size=4)


def encode(frame: m.Frame) -> bytes:
    """A frame as it is on the wire."""
    return joined(codec.encode(frame))


def any_of(kind: Any) -> st.SearchStrategy[Any]:
    hints = get_type_hints(kind)
    return st.builds(kind, **{field.name: VALUES[hints[field.name]] for field in fields(kind)})


@st.composite
def publishes(draw: st.DrawFn) -> m.Publish:
    origins, contents = zip(*draw(CONTENTS), strict=True)
    count = len(contents)
    each_ms = st.lists(NUMBER, min_size=count, max_size=count)
    lifetimes_ms = draw(st.none() | NUMBER | each_ms)
    is_persistent, failed = draw(st.booleans()), draw(st.integers(0, 9))
    counts = Counts(failed + draw(st.integers(0, 9)), failed) if failed else NEW
    return m.Publish(
        draw(NUMBER), list(origins), list(contents), is_persistent, lifetimes_ms, None, counts
    )


@st.composite
def settlements(draw: st.DrawFn) -> m.Settle:
    runs = draw(st.lists(st.tuples(NUMBER, RUN), min_size=1, max_size=3))
    holder = draw(NUMBER)
    tokens = [m.Token(holder, ordinal, run) for ordinal, run in runs]
    return m.Settle(draw(NUMBER), draw(st.sampled_from(Outcome)), tokens)


@st.composite
def delivers(draw: st.DrawFn) -> m.Deliver:
    origins, contents = zip(*draw(CONTENTS), strict=True)
    first = draw(NUMBER)
    return m.Deliver(
        draw(NUMBER),
        draw(NUMBER),
        draw(NUMBER),
        draw(st.booleans()),
        [range(first, first + len(contents))],
        list(origins),
        list(contents),
    )


OWN: dict[type, st.SearchStrategy[Any]] = {
    m.Publish: publishes(),
    m.Settle: settlements(),
    m.Deliver: delivers(),
    m.DoneReply: st.builds(m.DoneReply, NUMBER, st.integers(1, 9)),
    m.RejectedReply: st.builds(m.RejectedReply, NUMBER, st.integers(1, 9)),
    m.GetAnswer: st.builds(m.GetAnswer, NUMBER, NUMBER, NUMBER, st.lists(delivers(), max_size=1)),
}


def frames(kind: type, messages: tuple[type, ...]) -> st.SearchStrategy[Any]:
    hints = get_type_hints(kind)
    head = {f.name: VALUES[hints[f.name]] for f in fields(kind) if f.name != "messages"}
    one = st.one_of([OWN[each] if each in OWN else any_of(each) for each in messages])
    return st.builds(kind, **head, messages=st.lists(one, max_size=4))


FRAME = frames(m.ClientFrame, FROM_CLIENT) | frames(m.LeaderFrame, FROM_LEADER)


@given(FRAME)
def test_a_frame_says_what_was_put_into_it(frame: m.Frame) -> None:
    assert repr(decode(encode(frame))) == repr(frame)


@given(FRAME, st.data())
def test_a_frame_with_another_value_somewhere_is_a_frame_or_refused(
    frame: m.Frame, data: st.DataObject
) -> None:
    row = msgpack.unpackb(encode(frame))
    at: Any = row
    while True:
        place = data.draw(st.integers(0, len(at) - 1))
        if not isinstance(at[place], list) or not at[place]:
            break
        at = at[place]
    at[place] = data.draw(
        st.one_of(st.integers(-(2**63), 2**64 - 1), st.binary(max_size=3), st.none(), st.just([]))
    )
    try:
        again = decode(msgpack.packb(row))
    except BadFrame:
        return
    assert repr(decode(encode(again))) == repr(again)


HEAD = [7, 1, 1, [1, 1], [2, 2], 1, 1]


@pytest.mark.parametrize(
    "row",
    [
        7,
        [],
        [2, *HEAD, 0, []],
        [0, *HEAD, 0, []],
        [0, *HEAD, 0, 1, [[99]]],
        [0, *HEAD, 0, 1, [[0]]],
        [0, *HEAD, 0, 1, [[0, -1]]],
        [0, *HEAD, 0, 1, [[0, True]]],
        [0, *HEAD, 0, 1, [[1, 1, [0, 0, b""], []]]],
        [0, *HEAD, 0, 1, [[1, 1, [1 << 30, 1, b"\x40\x00\x00\x00\x00\x00"], [b""]]]],
        [0, *HEAD, 0, 1, [[1, 1, [1, 1, b"\x00\x00\x00\x01\x00\x00"], [b"", b""]]]],
        [0, *HEAD, 0, 1, [[1, (1 << 63) - 1, [2, 1, b"\x00\x00\x00\x02\x00\x00"], [b"", b""]]]],
        *(
            [0, *HEAD, 0, 1, [[1, 1, [1, 1, b"\0\0\0\1\0\0"], [b""], False, lifetimes, None]]]
            for lifetimes in ([], [1, 2], [-1], [True], [b"1"], [1 << 63], -1, b"", False)
        ),
        *(
            [0, *HEAD, 0, 1, [[1, 1, [1, 1, b"\0\0\0\1\0\0"], [b""], False, None, None, counts]]]
            for counts in (1, [], [1], [1, 1, 1], [-1, 1], [0, 0], [1, 2], [1 << 32, 1], [True, 1])
        ),
        [0, *HEAD, 0, 1, [[1, 1, [1, 1, b"\0\0\0\1\0\0"], [b""], False]]],
        [0, *HEAD, 0, 1, [[2, 1, 1, []]]],
        [0, *HEAD, 0, 1, [[2, 1, 1, [[1, 0, [1, 1, 1]], [2, 0, [1, 1, 1]]]]]],
        [0, *HEAD, 0, 1, [[2, 1, 0, [[1, 0, [1, 1, 1]]]]]],
        [0, *HEAD, 0, 1, [[2, 1, 1, [[1, 0, [1, 0, 1]]]]]],
        [0, *HEAD, 0, 1, [[2, 1, 1, [[1, 0, [1, 1, 0]]]]]],
        [1, *HEAD, 0, [[0, 1, 0]]],
        [1, *HEAD, 0, [[5, 1, 0, 0, False, [[1, 1, 2]], [1, 1, b"\0\0\0\1\0\0"], [b""]]]],
    ],
)
def test_what_is_no_frame(row: object) -> None:
    with pytest.raises(BadFrame):
        decode(msgpack.packb(row))


def test_who_speaks_an_earlier_version_is_notified_of_no_counts() -> None:
    publish = m.Publish(1, [Origin("", "q")], [b"body"], True, counts=Counts(3, 1))
    frame = m.ClientFrame(
        7, 1, 1, m.SessionBoot(1, 1), m.SessionBoot(2, 2), 1, 1, 0, 1, [m.Get(2, 3, False), publish]
    )
    assert repr(decode(encode(frame))) == repr(frame)
    assert [len(row) for row in msgpack.unpackb(encode(frame))[-1]] == [4, 8]
    earlier = m.without_counts(frame)
    assert earlier.messages == [m.Get(2, 3, False), replace(publish, counts=NEW)]
    assert [len(row) for row in msgpack.unpackb(encode(earlier))[-1]] == [4, 7]
    assert repr(decode(encode(earlier))) == repr(earlier)
    assert m.without_counts(earlier) is earlier


@given(st.binary(max_size=100))
def test_no_bytes_do_worse_than_being_refused(payload: bytes) -> None:
    try:
        decode(payload)
    except BadFrame:
        return
