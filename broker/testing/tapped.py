"""`TimelineTap` and `SettlementTap`: messages that clients publish, get, settle and purge, and
those that die, put into a timeline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from fluffle.broker.core.firehose import in_order
from fluffle.broker.queues.dead_letters import DeadLetterFrom, DeadMessages
from fluffle.broker.queues.queue_api import Consumer, DeliveryBatch, Holder, Outcome
from fluffle.broker.queues.settings import QueueSettings
from fluffle.broker.testing.faults.redelivery import FormerHolder
from fluffle.broker.testing.message_traces import Actor, StepKind, TraceStep
from fluffle.broker.testing.timeline import Timeline, listed
from fluffle.broker.testing.timeline_events import origin_of
from fluffle.protocol.properties import body_of
from fluffle.protocol.spec import DIRECT_REPLY_TO

if TYPE_CHECKING:
    from fluffle.broker.core.client import ObservedChannel, SessionChannel
    from fluffle.broker.core.enqueue import RoutedBatch
    from fluffle.broker.core.unacked import Stretch
    from fluffle.broker.queues.queue_api import QueueHandle
    from fluffle.broker.vhosts.tracers import TracedBatch, TracedClient


class TimelineTap:
    """A `Tracer` of one virtual host."""

    __slots__ = ("_timeline",)

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    def published(
        self,
        client: TracedClient,
        routed_batches: Sequence[TracedBatch],
        more_routing_keys: Sequence[str],
    ) -> None:
        del more_routing_keys
        timeline, who = self._timeline, actor_of(client)
        within = "in a transaction" if client.is_transactional else ""
        publishes = list[tuple[str, bytes]]()
        for origin, content, routed in in_order(routed_batches):
            message = origin.exchange, origin.routing_key, content
            names = [each.name for each in routed.targets]
            queues = [name for name in names if not name.startswith(DIRECT_REPLY_TO)]
            if not names:
                timeline.led_nowhere(who, message, is_returned=routed.mandatory)
            timeline.published(who, message, queues, within)
            lost = "nowhere and is returned" if routed.mandatory else "nowhere and is dropped"
            where = f"to {' and '.join(map(repr, names))}" if names else lost
            key = f"to exchange {origin.exchange!r} with key {origin.routing_key!r}"
            publishes.append(
                (f"{key}{', ' if within else ''}{within}: it goes {where}", body_of(content))
            )
        for where, same in groupby(publishes, lambda each: each[0]):
            timeline.note(who, f"publishes {listed([body for _, body in same])} {where}")

    def delivered(
        self, client: TracedClient, delivery_batch: DeliveryBatch, first_tag: int
    ) -> None:
        timeline, who = self._timeline, actor_of(client)
        holder, first = delivery_batch.holder, first_tag
        tag = holder.tag if isinstance(holder, Consumer) else ""
        what = StepKind.TAKEN if holder.no_ack else StepKind.DELIVERED
        again = ", redelivered" if delivery_batch.redelivered else ""
        tags = f"delivery tag {first}"
        if len(delivery_batch.contents) > 1:
            tags = f"delivery tags {first} to {first + len(delivery_batch.contents) - 1}"
        verb = f"{tag!r} is given" if tag else "gets"
        bodies = [body_of(content) for content in delivery_batch.contents]
        timeline.note(who, f"{verb} {listed(bodies)} of queue {holder.queue.name!r}, {tags}{again}")
        for at, (sequence, origin, content) in enumerate(
            zip(
                delivery_batch.sequences,
                delivery_batch.origins,
                delivery_batch.contents,
                strict=True,
            )
        ):
            message = origin.exchange, origin.routing_key, content
            step = TraceStep(what, timeline.at_ms, who, tag, f"tag {first + at}{again}")
            found = origin_of(content)
            timeline.delivered(holder.queue.name, sequence, message, step, found)

    def purging(self, client: TracedClient, queue: QueueHandle) -> Callable[[], None]:
        return self._timeline.purging(actor_of(client), queue.name)


class SettlementTap:
    """Settlements of one channel, put into a timeline: a `ChannelObserver`."""

    __slots__ = ("_channel", "_timeline")

    def __init__(self, timeline: Timeline, channel: ObservedChannel) -> None:
        self._timeline = timeline
        self._channel = channel

    def enqueued(self, routed: RoutedBatch) -> None:
        """`TimelineTap` sees what is published."""

    def delivered(self, delivery_batch: DeliveryBatch) -> None:
        """`TimelineTap` sees it, before it has tags."""

    def got(self, queue: QueueHandle, delivery_batch: DeliveryBatch | None) -> None:
        """`TimelineTap` sees it, if it is a message."""

    def settled(self, stretches: list[Stretch], outcome: Outcome) -> None:
        timeline, channel = self._timeline, self._channel
        known = [each for each in stretches if is_there(channel, each.delivery_batch.holder)]
        for queue, same in groupby(known, lambda each: each.delivery_batch.holder.queue.name):
            timeline.settled(who_on(channel), queue, sequences_of(same), outcome)


def seen_dead(of: Callable[[str], Timeline], inner: DeadLetterFrom) -> DeadLetterFrom:
    """Return a port that publishes dead letters by `inner`, and records them; `of` gives the
    timeline of a virtual host."""

    def dead_letter(vhost: str, queue: str, settings: QueueSettings, dead: DeadMessages) -> None:
        timeline = of(vhost)
        parcels = dead.parcels or (None,) * len(dead.contents)
        pairs = zip(dead.contents, parcels, strict=True)
        new = [content for content, pending in pairs if pending is None or not pending.tries]
        if new:
            key = settings.dead_letter_routing_key
            where = f"to exchange {settings.dead_letter_exchange!r}"
            where += f" with key {key!r}" if key is not None else ""
            timeline.died(queue, dead.reason, new, where)
        if dead.unwanted:
            timeline.dropped(queue, dead.reason, dead.unwanted)
        inner(vhost, queue, settings, dead)

    return dead_letter


def is_there(channel: ObservedChannel, holder: Holder) -> bool:
    """Whether the queue of which it holds messages can hear of them; another of its name gives the
    same numbers to others."""
    return not isinstance(holder, FormerHolder) and channel.session.vhost.has(holder.queue)


def actor_of(client: TracedClient) -> Actor:
    return Actor(short(client.connection), client.channel)


def who_on(channel: SessionChannel) -> Actor:
    return Actor(short(channel.session.name), channel.number)


def short(connection: str) -> str:
    """Return the client's end of a connection."""
    return connection.partition(" -> ")[0]


def sequences_of(stretches: Iterable[Stretch]) -> list[int]:
    return [
        sequence
        for delivery_batch, start, stop in stretches
        for sequence in delivery_batch.sequences[start:stop]
    ]
