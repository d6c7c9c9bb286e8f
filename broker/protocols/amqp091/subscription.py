"""Deliveries to one consumer: runs of messages become frames.  A hot file.

The frames of a run differ only in their delivery tags and contents, so that what surrounds
these is built once for a consumer and an origin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from fluffle.broker.base.traffic import Deliveries
from fluffle.broker.core.output_buffer import burst_bytes
from fluffle.broker.queues.queue_api import (
    DeliveryBatch,
    OverdueDeliveries,
    TimedOutDeliveries,
)
from fluffle.protocol.hot import build_deliveries, build_mixed_deliveries, renumber
from fluffle.protocol.methods import deliver_prefix
from fluffle.protocol.properties import split_content

if TYPE_CHECKING:
    from fluffle.broker.base.message import Origin
    from fluffle.broker.protocols.amqp091.channel import Channel
    from fluffle.broker.queues.queue_api import QueueHandle

Envelope: TypeAlias = tuple[bytes, bytes, bytes]
"""Bytes in front of a delivery tag, and behind it on a first and on a later delivery."""

ENVELOPES_MAX = 1024
"""Origins for which a consumer remembers what surrounds a delivery tag."""


class Envelopes:
    """Builds the frames of deliveries for one consumer tag on one channel: a `DeliveryWriter`."""

    __slots__ = ("_channel", "_deliveries", "_envelopes", "_frame_bytes_max", "_tag")

    def __init__(self, channel: Channel, tag: str, deliveries: Deliveries) -> None:
        self._channel = channel
        self._deliveries = deliveries
        """Where what is sent is counted."""
        self._tag = tag
        self._frame_bytes_max = channel.session.frame_bytes_max or 1 << 32
        self._envelopes: dict[Origin, Envelope] = {}

    def send(self, delivery_batch: DeliveryBatch) -> None:
        """Send a run of messages; a bug ends this connection, and not the turn of all."""
        try:
            self._send(delivery_batch)
        except Exception as error:  # noqa: BLE001
            self._channel.session.connection.give_up(error)

    def _send(self, delivery_batch: DeliveryBatch) -> None:
        """Number the messages of a run and add their frames to what the connection writes."""
        channel = self._channel
        output = channel.session.output
        first_tag = channel.unacked.number(delivery_batch)
        contents, content_bytes = delivery_batch.contents, delivery_batch.content_bytes
        if channel.outgoing is not None:
            contents = channel.outgoing.intercepted(contents)
            content_bytes = sum(map(len, contents))
        if (
            content_bytes > self._frame_bytes_max
            and max(map(len, contents)) > self._frame_bytes_max
        ):
            contents = [
                split_content(content, channel.number, self._frame_bytes_max)
                for content in contents
            ]
        elif channel.number != 1:
            contents = renumber(contents, channel.number)
        tail_at = 2 if delivery_batch.redelivered else 1
        origins = delivery_batch.origins
        # Most runs have one origin: because it is faster (benchmarks/micro, build_deliveries).
        if origins.count(origins[0]) == len(origins):
            envelope = self._envelope(origins[0])
            build_deliveries(output.pieces, envelope[0], first_tag, envelope[tail_at], contents)
        else:
            envelopes = list(map(self._envelope, origins))
            prefixes = [envelope[0] for envelope in envelopes]
            tails = [envelope[tail_at] for envelope in envelopes]
            build_mixed_deliveries(output.pieces, prefixes, first_tag, tails, contents)
        output.sent(burst_bytes(delivery_batch))
        deliveries = self._deliveries
        if delivery_batch.holder.no_ack:
            deliveries.consumed_auto_ack += len(contents)
        else:
            deliveries.consumed_manual_ack += len(contents)
        if delivery_batch.redelivered:
            deliveries.redelivered += len(contents)

    def _envelope(self, origin: Origin) -> Envelope:
        """Bytes around the delivery tag of messages of this origin."""
        envelope = self._envelopes.get(origin)
        if envelope is None:
            if origin.may_be_long:  # and there are as many as batches of messages
                return self._made_envelope(origin)
            if len(self._envelopes) >= ENVELOPES_MAX:
                self._envelopes.clear()
            envelope = self._envelopes[origin] = self._made_envelope(origin)
        return envelope

    def _made_envelope(self, origin: Origin) -> Envelope:
        exchange, routing_key = origin.exchange, origin.routing_key
        return deliver_prefix(self._channel.number, self._tag, exchange, routing_key)


class ReplySubscription:
    """The requester of direct reply-to: a holder of messages that no queue has held."""

    __slots__ = ("_envelopes", "_output")

    no_ack = True

    def __init__(self, channel: Channel, tag: str) -> None:
        self._envelopes = Envelopes(channel, tag, channel.session.traffic.replies)
        self._output = channel.session.output

    timeout_ms = None

    @property
    def queue(self) -> QueueHandle:
        raise AssertionError("a message of direct reply-to was settled, and it has no queue")

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        self._output.reserve(burst_bytes(delivery_batch))
        self._envelopes.send(delivery_batch)

    def took(self, delivery_batch: DeliveryBatch) -> None:
        """Nothing is counted: all is settled once it is sent."""

    def settled(self, count: int) -> None:
        raise AssertionError("a message of direct reply-to was settled, and it has no queue")

    def overdue(self, late: OverdueDeliveries) -> None:
        raise AssertionError("it holds nothing")

    def timed_out(self, lost: TimedOutDeliveries) -> None:
        raise AssertionError("it holds nothing")
