"""Lanes: everything arrives whole and in order, urgent frames first, nothing without bound."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fluffle.broker.cluster.links.chunks import (
    ACK_BYTES,
    CHUNK_BYTES_MAX,
    FRAME_COST_BYTES,
    NORMAL_SHARE_BYTES,
    WINDOW_BYTES,
    ChunkDecoder,
    LinkSendQueue,
)
from fluffle.broker.cluster.ports import FrameKind, TrafficClass
from tests.suite.seeds import machine_settings

KINDS = frozenset(FrameKind)
PLENTY = dict.fromkeys(TrafficClass, 1 << 30)
SIZES = [0, 1, 1_000, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1, 3 * CHUNK_BYTES_MAX]


def lanes_of(taken: list[bytes | memoryview]) -> list[int]:
    """The lane of each piece."""
    return [head[0] & 0x0F for head in taken[::2]]


def decoder() -> ChunkDecoder:
    return ChunkDecoder(KINDS, frame_bytes_max=1 << 30)


class OutboxAgainstLists(RuleBasedStateMachine):
    """Three lists, of which the other end has read a part."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes_max = {
            TrafficClass.URGENT: 2_000,
            TrafficClass.NORMAL: 500_000,
            TrafficClass.BULK: 400_000,
        }
        self.outbox = LinkSendQueue(self.bytes_max)
        self.decoder = decoder()
        self.waiting: dict[TrafficClass, deque[tuple[int, bytes]]] = {
            traffic: deque() for traffic in TrafficClass
        }
        """Frames that have not arrived, by traffic class."""
        self.wire = bytearray()
        self.count = 0

    @rule(
        traffic=st.sampled_from(TrafficClass),
        kind=st.sampled_from(FrameKind),
        size=st.sampled_from(SIZES),
    )
    def put(self, traffic: TrafficClass, kind: int, size: int) -> None:
        self.count += 1
        payload = f"{traffic}{self.count}".encode().ljust(size, b".")
        before = self.outbox.waiting_bytes[traffic]
        limit = self.bytes_max[traffic]
        fits = before + min(len(payload) + FRAME_COST_BYTES, limit // 2) <= limit
        assert self.outbox.put(traffic, kind, payload) == (fits or not before)
        if fits or not before:
            self.waiting[traffic].append((kind, payload))

    @rule(enough=st.sampled_from([1, 5_000, CHUNK_BYTES_MAX]))
    def take(self, enough: int) -> None:
        had_urgent = self.outbox.waiting_bytes[TrafficClass.URGENT]
        had = any(self.outbox.waiting_bytes)
        taken = self.outbox.take(enough)
        if not taken:
            assert self.outbox.is_held_back == had
        assert all(len(part) <= CHUNK_BYTES_MAX for part in taken)
        assert sum(map(len, taken[:-2])) < enough
        if had_urgent:
            assert lanes_of(taken)[0] == TrafficClass.URGENT
        self.wire += b"".join(taken)

    @rule(share=st.floats(0, 1))
    def arrive(self, share: float) -> None:
        size = round(share * len(self.wire))
        for kind, payload in self.decoder.feed(bytes(self.wire[:size])):
            traffic = TrafficClass(int(payload[:1]))
            assert self.waiting[traffic].popleft() == (kind, payload)
        del self.wire[:size]

    @rule()
    def acknowledge(self) -> None:
        """Acknowledge in portions, as the other end does."""
        sender = ChunkDecoder((), frame_bytes_max=1)
        sender.feed(self.decoder.acknowledge())
        for traffic in TrafficClass:
            self.outbox.acknowledge(traffic, sender.acknowledged[traffic])

    @invariant()
    def nothing_is_wrong(self) -> None:
        assert self.decoder.fault is None

    def teardown(self) -> None:
        while self.wire or any(self.outbox.waiting_bytes):
            self.wire += b"".join(self.outbox.take(1 << 30))
            assert len(self.wire) <= 2 * sum(WINDOW_BYTES.values())
            self.arrive(1)
            self.acknowledge()
        assert not any(self.waiting.values())
        assert self.outbox.waiting_bytes == [0, 0, 0]
        assert self.decoder.held_bytes == 0


TestOutboxAgainstLists = OutboxAgainstLists.TestCase
TestOutboxAgainstLists.settings = machine_settings(examples=40, stateful_step_count=40)


def test_between_any_two_pieces_of_bulk_an_urgent_frame_goes_first() -> None:
    outbox = LinkSendQueue(PLENTY)
    outbox.put(TrafficClass.BULK, 0, bytes(40 * CHUNK_BYTES_MAX))
    for _ in range(40):
        outbox.put(TrafficClass.URGENT, 0, b"ping")
        assert lanes_of(outbox.take(CHUNK_BYTES_MAX)) == [TrafficClass.URGENT, TrafficClass.BULK]
        outbox.acknowledge(TrafficClass.BULK, CHUNK_BYTES_MAX)
    assert outbox.take(1) == []


def test_a_quarter_of_what_both_send_is_bulk() -> None:
    outbox = LinkSendQueue(PLENTY)
    outbox.put(TrafficClass.BULK, 0, bytes(10 * CHUNK_BYTES_MAX))
    for _ in range(4_000):
        outbox.put(TrafficClass.NORMAL, 0, bytes(1_000))
    wire = [(head[0] & 0x0F, len(content)) for head, content in zip(
        *[iter(outbox.take(4 * NORMAL_SHARE_BYTES))] * 2, strict=True)]  # fmt: skip
    sent = {traffic: sum(size for at, size in wire if at == traffic) for traffic in TrafficClass}
    assert sent[TrafficClass.BULK] * 3 <= sent[TrafficClass.NORMAL] <= sent[TrafficClass.BULK] * 3.2


def test_normal_alone_and_bulk_alone_have_it_all() -> None:
    outbox, count = LinkSendQueue(PLENTY), WINDOW_BYTES[TrafficClass.BULK] // CHUNK_BYTES_MAX
    for traffic in (TrafficClass.NORMAL, TrafficClass.BULK):
        for _ in range(count):
            outbox.put(traffic, 0, bytes(CHUNK_BYTES_MAX))
        assert lanes_of(outbox.take(count * CHUNK_BYTES_MAX)) == [traffic] * count


def test_what_is_under_way_of_a_lane_is_bounded() -> None:
    """Urgent frames and the other lane do not mind."""
    outbox = LinkSendQueue(PLENTY)
    window = WINDOW_BYTES[TrafficClass.BULK]
    outbox.put(TrafficClass.BULK, 0, bytes(2 * window))
    taken = outbox.take(1 << 30)
    assert sum(map(len, taken[1::2])) == window
    assert outbox.is_held_back
    outbox.put(TrafficClass.URGENT, 0, b"ping")
    outbox.put(TrafficClass.NORMAL, 0, b"append")
    assert lanes_of(outbox.take(1 << 30)) == [TrafficClass.URGENT, TrafficClass.NORMAL]
    outbox.acknowledge(TrafficClass.BULK, 1)
    assert lanes_of(outbox.take(1 << 30)) == [TrafficClass.BULK]
    outbox.acknowledge(TrafficClass.BULK, window + CHUNK_BYTES_MAX - 1)
    outbox.take(1 << 30)
    assert not outbox.is_held_back
    assert outbox.waiting_bytes[TrafficClass.BULK] == 0


def test_no_more_is_acknowledged_than_was_sent() -> None:
    outbox = LinkSendQueue(PLENTY)
    outbox.put(TrafficClass.NORMAL, 0, b"append")
    with pytest.raises(ValueError, match="6 bytes are acknowledged of 0"):
        outbox.acknowledge(TrafficClass.NORMAL, 6)
    outbox.take(1)
    outbox.acknowledge(TrafficClass.NORMAL, 6)
    with pytest.raises(ValueError, match="1 bytes are acknowledged of 0"):
        outbox.acknowledge(TrafficClass.NORMAL, 1)


def test_portions_are_small_enough_that_no_window_closes_for_good() -> None:
    assert min(WINDOW_BYTES.values()) >= 4 * ACK_BYTES


def test_what_does_not_fit_is_not_taken() -> None:
    outbox = LinkSendQueue({**PLENTY, TrafficClass.BULK: 1_000})
    assert outbox.put(TrafficClass.BULK, 0, bytes(5_000)), "an empty lane takes anything"
    assert not outbox.put(TrafficClass.BULK, 0, b"")
    assert outbox.put(TrafficClass.NORMAL, 0, bytes(5_000)), (
        "lanes do not take room from each other"
    )
    outbox.take(1 << 20)
    assert outbox.put(TrafficClass.BULK, 0, b"")


def test_a_frame_of_any_size_is_taken_where_less_than_half_a_lane_waits() -> None:
    """Senders that saw room rely on it, and never hear that a frame was lost."""
    outbox = LinkSendQueue({**PLENTY, TrafficClass.NORMAL: 1_000})
    assert outbox.put(TrafficClass.NORMAL, 0, bytes(500 - FRAME_COST_BYTES))
    assert outbox.put(TrafficClass.NORMAL, 0, bytes(5_000))
    assert not outbox.put(TrafficClass.NORMAL, 0, b"")


def test_empty_frames_are_bounded_as_well() -> None:
    outbox = LinkSendQueue({**PLENTY, TrafficClass.NORMAL: 1_000})
    taken = sum(outbox.put(TrafficClass.NORMAL, 0, b"") for _ in range(1_000))
    assert taken == 1_000 // FRAME_COST_BYTES
