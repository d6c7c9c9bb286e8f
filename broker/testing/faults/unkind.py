"""A broker that is unkind to its clients: everything that AMQP permits and naive code forgets.

    frames         cut at any byte on their way, bodies in several frames, those of several channels
                   among each other, heartbeats between them
    confirms       late, several in one, one by one and out of order
    deliveries     of classic queues marked as redelivered though there was no first time;
                   and really once more while the consumer is about to acknowledge: as when a quorum
                   queue has given up the consumer's node, and for the sake of what is not safe to
                   do twice of classic queues, too, which with RabbitMQ takes a lost connection
    consumers      cancelled by the server, rarely, where the client understands that

What happens depends on the seed, on which connection it is, and on what is said on it: not on time,
but for how late a confirm is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import count
from random import Random
from typing import Any

from fluffle.broker.protocols.amqp091.channel import Channel
from fluffle.broker.protocols.amqp091.connection import HEARTBEAT_FRAME, Connection
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.queue_api import Consumer, DeliveryBatch
from fluffle.broker.testing.faults.clients import channels_of, end_consumer, give_back
from fluffle.broker.testing.faults.frames import (
    ACK,
    CHANNEL_CLOSE,
    CHANNEL_CLOSE_OK,
    DELIVER,
    NACK,
    FrameSplitter,
    WireFrame,
    consumer_tag_of,
    frames_of,
    in_two,
    marked_redelivered,
)
from fluffle.broker.testing.faults.tapped_transport import FaultScope, TappedConnection
from fluffle.protocol.hot import ack_frame, nack_frame


class PendingConfirms:
    """Confirms that a client is yet to get, in any form that says the same; numbered from 1."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._low = 0
        """All up to this one have been sent."""
        self._sent: set[int] = set()
        """And these."""
        self._due: dict[int, bool] = {}
        """Confirms that are to be sent, by number: True for an ack."""

    def add(self, tag: int, *, multiple: bool, is_ack: bool) -> None:
        """Add the broker's answer for a publish, or for all up to it that it has not answered
        yet."""
        for number in range(self._low + 1 if multiple else tag, tag + 1):
            if number not in self._sent:
                self._due.setdefault(number, is_ack)

    def due(self, chance: Random) -> list[WireFrame]:
        """Return all that is due: some as one frame, where possible, the others in any order."""
        frames: list[WireFrame] = []
        last = self._low
        while last + 1 in self._sent or self._due.get(last + 1, False):
            last += 1
        if last in self._due and chance.random() < 0.5:
            frames.append(self._frame(last, multiple=True, is_ack=True))
            self._note([number for number in self._due if number <= last])
        singles = list(self._due.items())
        chance.shuffle(singles)
        for number, is_ack in singles:
            frames.append(self._frame(number, multiple=False, is_ack=is_ack))
        self._note([number for number, _is_ack in singles])
        return frames

    def _note(self, numbers: list[int]) -> None:
        for number in numbers:
            del self._due[number]
            self._sent.add(number)
        while self._low + 1 in self._sent:
            self._low += 1
            self._sent.remove(self._low)

    def _frame(self, tag: int, *, multiple: bool, is_ack: bool) -> WireFrame:
        make = ack_frame if is_ack else nack_frame
        data = make(self._channel, tag, multiple=multiple)
        return WireFrame(self._channel, ACK if is_ack else NACK, data)


UNKIND = "the broker is unkind"
LATE_S_MAX = 0.01
SMALL_PIECES_MAX = 24
"""So many pieces of a byte or a few; the rest of a write goes in large ones, to come to an end."""

MARKED, SPLIT, BEATS, LATE = 1 / 8, 1 / 4, 1 / 16, 1 / 2
"""How often a delivery is marked as redelivered, a body split, a heartbeat sent, a confirm kept for
later: as a part of one."""


class AdversarialFilter:
    """A `ByteFilter` of one connection."""

    def __init__(
        self,
        tap: TappedConnection,
        chance: Random,
        is_meant: Callable[[TappedConnection], bool],
        *,
        redelivered: float,
        cancelled: float,
    ) -> None:
        """`redelivered` and `cancelled`: how often that happens when a client acknowledges."""
        self._tap = tap
        self._chance = chance
        self._is_meant = is_meant
        self._redelivered = redelivered
        self._cancelled = cancelled
        self._splitter = FrameSplitter(waits_for_header=not tap.introduction)
        self._pending_confirms: dict[int, PendingConfirms] = {}

    # To the client

    def to_client(self, data: bytes) -> bytes:
        if not self._is_meant(self._tap):
            return data
        frames: list[WireFrame] = []
        for frame in frames_of(data):
            frames += self._treated(frame)
        return b"".join(self._among_each_other(frames))

    def _treated(self, frame: WireFrame) -> Iterable[WireFrame]:
        channel = frame.channel
        if frame.method in (ACK, NACK):
            return self._confirmed(frame)
        if frame.method in (CHANNEL_CLOSE, CHANNEL_CLOSE_OK):
            self._pending_confirms.pop(channel, None)
        elif frame.method == DELIVER and self._is(MARKED) and self._may_be_marked(frame):
            return (marked_redelivered(frame),)
        elif self._is(SPLIT):
            return in_two(frame, self._chance)
        return (frame,)

    def _may_be_marked(self, frame: WireFrame) -> bool:
        """True if a delivery may be marked as redelivered: only of classic queues, since a quorum
        queue counts deliveries as well, and what answers a request by direct reply-to has been in
        no queue."""
        for channel in self._tap.connection.channels:
            subscription = channel.subscriptions.get(consumer_tag_of(frame))
            if channel.number == frame.channel and subscription is not None:
                return subscription.consumer.queue.spec.queue_type is QueueType.CLASSIC
        return False

    def _confirmed(self, frame: WireFrame) -> list[WireFrame]:
        confirms = self._pending_confirms.get(frame.channel)
        if confirms is None:
            confirms = self._pending_confirms[frame.channel] = PendingConfirms(frame.channel)
        confirms.add(frame.tag, multiple=frame.multiple, is_ack=frame.method == ACK)
        if not self._is(LATE):
            return confirms.due(self._chance)
        late_s = self._chance.random() * LATE_S_MAX
        asyncio.get_running_loop().call_later(late_s, self._send_due, frame.channel, confirms)
        return []

    def _send_due(self, channel: int, confirms: PendingConfirms) -> None:
        if self._pending_confirms.get(channel) is confirms:
            frames = confirms.due(self._chance)
            self._tap.pass_on(b"".join(frame.data for frame in frames), behind=self)

    def _among_each_other(self, frames: list[WireFrame]) -> Iterator[bytes]:
        """Yield those of each channel in order; those of the connection where they are."""
        waiting: dict[int, list[WireFrame]] = {}
        for frame in frames:
            if frame.channel:
                waiting.setdefault(frame.channel, []).append(frame)
            else:
                yield from self._mixed(waiting)
                yield frame.data
        yield from self._mixed(waiting)

    def _mixed(self, waiting: dict[int, list[WireFrame]]) -> Iterator[bytes]:
        while waiting:
            channel = self._chance.choice(list(waiting))
            yield waiting[channel].pop(0).data
            if not waiting[channel]:
                del waiting[channel]
            if self._tap.connection.heartbeat_s and self._is(BEATS):
                yield HEARTBEAT_FRAME

    def pieces(self, data: bytes) -> Iterable[bytes]:
        """Return what goes to the socket at a time."""
        if not self._is_meant(self._tap):
            return (data,)
        cut, at = list[bytes](), 0
        while at < len(data):
            small = len(cut) < SMALL_PIECES_MAX
            size = self._chance.choice((1, 1, 2, 7)) if small else max(4_096, len(data) // 4)
            cut.append(data[at : at + size])
            at += size
        return cut

    # From the client

    def from_client(self, data: bytes) -> Iterator[bytes]:
        """Before an acknowledgement is known, its message may go out once more."""
        together = b""
        for frame in self._splitter.feed(data):
            if frame.method == ACK and self._is_meant(self._tap):
                yield together
                together = b""
                self._before_ack(frame)
            together += frame.data
        if together:
            yield together

    def _before_ack(self, frame: WireFrame) -> None:
        for channel in channels_of(self._tap):
            if channel.number == frame.channel and channel.transaction is None:
                if self._is(self._redelivered):
                    redeliver(channel, frame.tag)
                if self._is(self._cancelled):
                    self._cancel(channel)

    def _cancel(self, channel: Channel) -> None:
        subscriptions = list(channel.subscriptions.values())
        if subscriptions and channel.session.notify_cancel:
            end_consumer(channel, self._chance.choice(subscriptions))

    def _is(self, likelihood: float) -> bool:
        return self._chance.random() < likelihood

    def end(self) -> None:
        """Be kind again."""
        for channel, confirms in self._pending_confirms.items():
            self._send_due(channel, confirms)
        self._pending_confirms.clear()
        if self in self._tap.filters:
            self._tap.filters.remove(self)
        self._tap.pieces = None


def redeliver(channel: Channel, tag: int) -> None:
    """The run that a message of a consumer was delivered with goes out once more."""

    def is_meant(run: DeliveryBatch) -> bool:
        return isinstance(run.holder, Consumer) and 0 <= tag - run.first_tag < len(run.contents)

    give_back(channel, is_meant)


def be_unkind(
    scope: FaultScope,
    *,
    seed: int | str,
    redelivered_percent: int = 25,
    cancelled_percent: int = 1,
) -> None:
    """Everything that AMQP permits and naive code forgets, from the seed; clients of MQTT get
    packets in pieces, and nothing else of it.

    Of a hundred acknowledgements so many come when their messages have just been delivered once
    more, and so many when a consumer of their channel is cancelled.
    """
    be_kind(scope)
    filters: dict[TappedConnection, AdversarialFilter] = {}
    numbers = count()

    def attach(tap: TappedConnection) -> None:
        unkindness = AdversarialFilter(
            tap,
            Random(f"{seed} {next(numbers)}"),
            scope.has,
            redelivered=redelivered_percent / 100,
            cancelled=cancelled_percent / 100,
        )
        filters[tap] = unkindness
        tap.when_lost.append(partial(filters.pop, tap, None))
        if isinstance(tap.connection, Connection):
            tap.filters.append(unkindness)
        tap.pieces = unkindness.pieces

    def end() -> None:
        scope.acceptor.lasting_plans.pop((scope, UNKIND), None)
        for each in filters.values():
            each.end()
        filters.clear()

    for tap in scope.acceptor.taps():
        attach(tap)
    scope.acceptor.lasting_plans[scope, UNKIND] = attach
    scope.begin(UNKIND, f"{UNKIND}, with seed {seed}", end)


def be_kind(scope: FaultScope) -> None:
    """Be kind again: what was kept for later is said now."""
    scope.end(UNKIND)


OPERATIONS: Mapping[str, Callable[..., Any]] = {"unkind": be_unkind, "kind": be_kind}
