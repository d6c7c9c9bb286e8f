"""From frames to pieces and back, and what is no piece."""

from __future__ import annotations

import operator
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.cluster.links.chunks import (
    ACK,
    ACK_BYTES,
    CHUNK_BYTES_MAX,
    FIRST,
    HEARTBEAT,
    HEARTBEAT_CHUNK,
    MORE,
    WHOLE,
    ChunkDecoder,
    OutgoingFrame,
)
from fluffle.broker.cluster.ports import FrameKind, Payload

KINDS = frozenset(FrameKind)
FRAME_BYTES_MAX = 1 << 20


def decoder() -> ChunkDecoder:
    return ChunkDecoder(KINDS, frame_bytes_max=FRAME_BYTES_MAX)


def encoded(traffic: int, kind: int, payload: Payload) -> bytes:
    """A frame whose pieces follow one another."""
    frame = OutgoingFrame(kind, payload)
    wire = b"".join(frame.piece(traffic))
    while frame.gone < frame.total:
        wire += b"".join(frame.piece(traffic))
    return wire


def short(tag: int, kind: int, content: bytes, *, size: int | None = None) -> bytes:
    return pack(">BBI", tag, kind, len(content) if size is None else size) + content


def long(tag: int, kind: int, number: int, content: bytes) -> bytes:
    return pack(">BBII", tag, kind, len(content), number) + content


SIZES = [0, 1, 100, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1, 3 * CHUNK_BYTES_MAX, FRAME_BYTES_MAX]


@pytest.mark.parametrize("size", SIZES)
def test_a_frame_comes_back(size: int) -> None:
    ours, payload = decoder(), bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert ours.feed(encoded(1, 2, payload)) == [(2, payload)]
    assert (ours.fault, ours.held_bytes) == (None, 0)


@given(st.lists(st.sampled_from(SIZES[:-1]), max_size=5))
def test_it_does_not_matter_in_which_parts_a_frame_is_given(sizes: list[int]) -> None:
    parts = [bytes([number]) * size for number, size in enumerate(sizes)]
    assert encoded(1, 2, parts) == encoded(1, 2, b"".join(parts))


def test_nothing_of_a_frame_is_copied() -> None:
    whole = [b"one", b"two"]
    assert all(map(operator.is_, OutgoingFrame(0, whole).piece(0)[1:], whole))
    large = OutgoingFrame(0, [bytes(CHUNK_BYTES_MAX), b"more"])
    contents = large.piece(0)[1:] + large.piece(0)[1:]
    assert [type(each) for each in contents] == [memoryview] * 2


def test_the_layout_is_this() -> None:
    assert encoded(0, 2, b"ping") == b"\x10\x02\x00\x00\x00\x04ping"
    payload = b"x" * (CHUNK_BYTES_MAX + 3)
    assert encoded(2, 0, payload) == (
        b"\x22\x00\x00\x04\x00\x00\x00\x04\x00\x03" + payload[:CHUNK_BYTES_MAX]
        + b"\x32\x00\x00\x00\x00\x03\x00\x04\x00\x00xxx"
    )  # fmt: skip
    assert HEARTBEAT_CHUNK == b"\x40\x00\x00\x00\x00\x00"


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_it_does_not_matter_how_the_bytes_are_cut(sizes: list[int]) -> None:
    wire = (
        encoded(0, 0, b"one") + HEARTBEAT_CHUNK + encoded(1, 1, b"") + encoded(0, 2, b"three" * 9)
    )
    frames, ours, at = [], decoder(), 0
    for size in [*sizes, len(wire)]:
        frames += ours.feed(wire[at : at + size])
        at += size
    assert frames == [(0, b"one"), (1, b""), (2, b"three" * 9)]


def test_frames_of_three_lanes_may_alternate() -> None:
    ours = decoder()
    wire = (
        long(FIRST | 2, 0, 6, b"bu") + long(FIRST | 1, 1, 4, b"no") + short(WHOLE | 0, 0, b"ping")
        + long(MORE | 2, 0, 2, b"lk") + long(MORE | 1, 1, 2, b"rm") + long(MORE | 2, 0, 4, b"!!")
    )  # fmt: skip
    assert ours.feed(wire) == [(0, b"ping"), (1, b"norm"), (0, b"bulk!!")]
    assert ours.fault is None


BEGUN = long(FIRST | 2, 0, 6, b"ab")

FAULTS: dict[str, tuple[bytes, str]] = {
    "no tag": (b"\x00", "a tag of 0"),
    "a lane that there is not": (short(WHOLE | 3, 0, b"x"), "a tag of 19"),
    "text": (b"GET / HTTP/1.1\r\n\r\n", "a tag of 71"),
    "a kind that there is not": (short(WHOLE, 77, b"x"), "of kind 77"),
    "a piece that is too large": (short(WHOLE, 0, b"", size=CHUNK_BYTES_MAX + 1), "262145 bytes"),
    "a first piece that is too large": (
        pack(">BBII", FIRST, 0, CHUNK_BYTES_MAX + 1, FRAME_BYTES_MAX), "a piece of 262145"
    ),
    "a frame that is too large": (long(FIRST, 0, FRAME_BYTES_MAX + 1, b"x"), "a frame of 1048577"),
    "a first piece that is all": (long(FIRST, 0, 2, b"ab"), "the first 2 bytes of a frame of 2"),
    "a first piece of nothing": (long(FIRST, 0, 2, b""), "the first 0 bytes"),
    "more of nothing": (long(MORE | 2, 0, 2, b"cd"), "never began"),
    "more on another lane": (BEGUN + long(MORE | 1, 0, 2, b"cd"), "never began"),
    "more of another kind": (BEGUN + long(MORE | 2, 1, 2, b"cd"), "2 bytes of kind 1 at 2"),
    "more that was skipped to": (BEGUN + long(MORE | 2, 0, 3, b"cd"), "at 3, behind 2"),
    "more that was there": (BEGUN + long(MORE | 2, 0, 0, b"cd"), "at 0, behind 2"),
    "more than there is": (BEGUN + long(MORE | 2, 0, 2, b"cdefg"), "5 bytes of kind 0 at 2"),
    "more, of no bytes": (BEGUN + long(MORE | 2, 0, 2, b""), "0 bytes"),
    "a frame within another": (BEGUN + short(WHOLE | 2, 0, b"x"), "within another"),
    "a beginning within another": (BEGUN + BEGUN, "within another"),
    "a beat with a kind": (short(HEARTBEAT, 1, b""), "a sign that holds"),
    "a beat with content": (short(HEARTBEAT, 0, b"x"), "a sign that holds"),
    "an acknowledgement where nothing is sent": (short(ACK, 0, b""), "never sent"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_what_is_no_piece_is_a_fault(case: str) -> None:
    wire, fault = FAULTS[case]
    ours, good = decoder(), short(WHOLE | 1, 2, b"before")
    assert ours.feed(good + wire + good) == [(2, b"before")]
    assert ours.fault is not None
    assert fault in ours.fault
    assert ours.feed(good) == []
    assert ours.held_bytes == 0


def test_an_end_that_is_only_written_to_takes_beats_alone() -> None:
    ours = ChunkDecoder((), frame_bytes_max=FRAME_BYTES_MAX)
    ours.feed(HEARTBEAT_CHUNK * 3)
    assert ours.fault is None
    ours.feed(short(WHOLE, 0, b"x"))
    assert ours.fault == "a frame of kind 0"


def test_what_was_read_is_acknowledged_in_portions() -> None:
    ours, sender = decoder(), ChunkDecoder((), frame_bytes_max=FRAME_BYTES_MAX)
    assert ours.acknowledge() == b""
    ours.feed(encoded(1, 0, bytes(ACK_BYTES - 1)))
    assert ours.acknowledge() == b""
    ours.feed(encoded(2, 0, bytes(ACK_BYTES)) + encoded(1, 0, b"x"))
    said = ours.acknowledge()
    assert said == short(ACK | 1, 0, b"", size=ACK_BYTES) + short(ACK | 2, 0, b"", size=ACK_BYTES)
    assert ours.acknowledge() == b""
    for start in range(0, len(said), 5):
        sender.feed(said[start : start + 5])
    assert (sender.acknowledged, sender.fault) == ([0, ACK_BYTES, ACK_BYTES], None)


def test_crumbs_cost_no_more_than_they_are() -> None:
    """A frame that comes byte by byte is kept in parts of some size."""
    ours, payload = decoder(), bytes(range(256)) * 100
    frames = []
    wire = encoded(0, 0, payload)
    for at in range(len(wire)):
        frames += ours.feed(wire[at : at + 1])
        unfinished = ours._unfinished.get(0)
        assert unfinished is None or len(unfinished._parts) <= 2 + unfinished.have // 2_048
    assert frames == [(0, payload)]


def test_a_claim_reserves_nothing() -> None:
    ours = decoder()
    for traffic in range(3):
        ours.feed(long(FIRST | traffic, 0, FRAME_BYTES_MAX, b"x"))
    assert ours.held_bytes == 3


@given(st.lists(st.binary(max_size=200), max_size=20), st.booleans())
def test_noise_is_a_fault_or_held_within_bounds(reads: list[bytes], is_begun: bool) -> None:
    ours, fed = decoder(), 0
    for read in [BEGUN, *reads] if is_begun else reads:
        ours.feed(read)
        fed += len(read)
        assert ours.held_bytes <= fed
