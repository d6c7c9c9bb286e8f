"""Timeline entries of messages that a test publishes and takes without a client."""

from __future__ import annotations

from collections.abc import Sequence

from fluffle.broker.queues.delivery import DeliveryBatch
from fluffle.broker.testing.message_traces import Actor, StepKind, TraceStep
from fluffle.broker.testing.timeline import Message, Timeline, listed
from fluffle.broker.testing.timeline_events import origin_of
from fluffle.protocol.properties import body_of

TEST = Actor("the test")


def published(timeline: Timeline, message: Message, queues: Sequence[str]) -> None:
    exchange, routing_key, content = message
    timeline.published(TEST, message, queues)
    where = f"to exchange {exchange!r} with key {routing_key!r}"
    to = " and ".join(map(repr, queues))
    timeline.note(TEST, f"publishes {listed([body_of(content)])} {where}: it goes to {to}")


def taken(timeline: Timeline, delivery_batch: DeliveryBatch) -> None:
    """One message."""
    (origin,), (content,), (sequence,) = (
        delivery_batch.origins,
        delivery_batch.contents,
        delivery_batch.sequences,
    )
    queue, again = (
        delivery_batch.holder.queue.name,
        "redelivered" if delivery_batch.redelivered else "",
    )
    step = TraceStep(StepKind.DELIVERED, timeline.at_ms, TEST, detail=again)
    message = origin.exchange, origin.routing_key, content
    timeline.delivered(queue, sequence, message, step, origin_of(content))
    told = f", {again}" if again else ""
    timeline.note(TEST, f"takes {listed([body_of(content)])} of queue {queue!r}{told}")
