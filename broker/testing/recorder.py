"""`Recorder`: puts what a node does into timelines, one for each virtual host.

It is an `Observer` of connections.  `TimelineTap` and `SettlementTap` see what happens to messages,
`DefinitionListener` what is declared and deleted.  A daemon has none of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from fluffle.broker.core.observer import ChangedBy, ChannelObserver
from fluffle.broker.core.route_lookup import in_order
from fluffle.broker.event_publisher import EventHeaders, PublishingMetadata
from fluffle.broker.metadata.change import Name
from fluffle.broker.metadata.metadata import Metadata
from fluffle.broker.queues.dead_letters import DeadLetterFrom, DeadMessages
from fluffle.broker.queues.queue_api import Consumer, DeliveryBatch, Holder, Outcome
from fluffle.broker.queues.settings import QueueSettings
from fluffle.broker.testing.timeline import Actor, StepKind, Timeline, TraceStep, listed, origin_of
from fluffle.broker.vhosts.vhost import set_tracer
from fluffle.protocol.properties import body_of
from fluffle.protocol.spec import DIRECT_REPLY_TO
from fluffle.protocol.wire import FieldTable

if TYPE_CHECKING:
    from fluffle.broker.base.errors import BrokerError
    from fluffle.broker.core.client import Client, ObservedChannel, ObservedSession, SessionChannel
    from fluffle.broker.core.route_lookup import RoutedBatch
    from fluffle.broker.core.settlement import Stretch
    from fluffle.broker.queues.queue_api import QueueHandle
    from fluffle.broker.vhosts.vhost import TracedBatch, TracedClient


TRACER = "timeline"
"""The name under which a `TimelineTap` traces a virtual host."""

ARGUMENT = re.compile(r'\{<<"(.+?)">>,\w+,(?:<<"(.*)">>|<<>>|(.*))\}', re.DOTALL)
BY_ITSELF = "amq."
"""So begin names of what comes with a virtual host."""


class Recorder:
    """Recorder of the events of one node."""

    def __init__(self, now_ms: Callable[[], int], find: Callable[[Name], object]) -> None:
        """`find` gives the value of a fact that there is."""
        self._now_ms = now_ms
        self._find = find
        self._timelines: dict[str, Timeline] = {}
        self._connections: dict[ObservedSession, Client] = {}
        """Open connections by session."""

    def of(self, vhost: str) -> Timeline:
        """Return the timeline of a virtual host; a new one if nothing has been seen of it."""
        if vhost not in self._timelines:
            self._timelines[vhost] = Timeline(self._now_ms)
        return self._timelines[vhost]

    @property
    def seen(self) -> tuple[str, ...]:
        """Return the virtual hosts of which something has been seen."""
        return tuple(self._timelines)

    def forget(self, vhost: str) -> None:
        """Forget a virtual host that is gone."""
        self._timelines.pop(vhost, None)

    # An `Observer`

    def metadata(self, inner: Metadata, by: ChangedBy) -> Metadata:
        teller = DefinitionListener(self, Actor(short(by.connection)))
        return PublishingMetadata(inner, teller, self._find, actor=by.actor, settler=by.settler)

    def logged_in(self, connection: Client, mechanism: str, name: str) -> None:
        """Note a login, which is shown when the client opens a virtual host."""

    def refused(self, connection: Client, mechanism: str, name: str, reason: str) -> None:
        """Note a refused login in all timelines: which virtual host it wanted is not known."""
        for timeline in self._timelines.values():
            timeline.note(Actor(short(connection.name)), f"may not log in as {name!r}: {reason}")

    def opened(self, connection: Client, session: ObservedSession) -> None:
        self._connections[session] = connection
        timeline, actor = self._seen(session)
        timeline.channels[session] = set()
        set_tracer(session.vhost, TRACER, TimelineTap(timeline))
        name = connection.handshake.client_name or connection.handshake.client_id
        named = f", named {name!r}" if name else ""
        timeline.note(actor, f"opens a connection as {session.user.name!r}{named}")

    def closed(self, session: ObservedSession) -> None:
        timeline, actor = self._seen(session)
        timeline.channels.pop(session, None)
        timeline.note(actor, f"is closed: {self._connections.pop(session).close_reason}")

    def channel_opened(self, channel: ObservedChannel) -> ChannelObserver:
        timeline, actor = self._at(channel)
        if channel.number:  # else its protocol has none
            timeline.channels.setdefault(channel.session, set()).add(channel.number)
            timeline.note(actor, "opens the channel")
        return SettlementTap(timeline, channel)

    def channel_refused(self, channel: ObservedChannel, error: BrokerError) -> None:
        timeline, actor = self._at(channel)
        timeline.note(actor, f"the channel is closed: {int(error.code)} {error.reply_text}")

    def channel_closed(self, channel: ObservedChannel, consumer_count: int) -> None:
        timeline, actor = self._at(channel)
        if channel.number:
            timeline.channels.get(channel.session, set()).discard(channel.number)
            timeline.note(actor, "the channel ends")

    def consumer_started(
        self, channel: ObservedChannel, consumer: Consumer, arguments: FieldTable
    ) -> None:
        timeline, actor = self._at(channel)
        how = ", which need not acknowledge" if consumer.no_ack else ""
        prefetch = f", {consumer.prefetch} at once" if consumer.prefetch else ""
        text = f"consumes queue {consumer.queue.name!r} as {consumer.tag!r}{how}{prefetch}"
        timeline.note(actor, text)

    def consumer_ended(self, channel: ObservedChannel, consumer: Consumer) -> None:
        timeline, actor = self._at(channel)
        is_there = channel.session.vhost.has(consumer.queue)
        why = "" if is_there else ", which is gone: it is cancelled by the broker"
        timeline.note(actor, f"{consumer.tag!r} ends, of queue {consumer.queue.name!r}{why}")

    # Who

    def _seen(self, session: ObservedSession) -> tuple[Timeline, Actor]:
        return self.of(session.vhost.name), Actor(short(session.name))

    def _at(self, channel: ObservedChannel) -> tuple[Timeline, Actor]:
        return self.of(channel.session.vhost.name), actor_on(channel)


class DefinitionListener:
    """Puts changes of definitions into timelines, of one who does them."""

    node = ""
    is_heard = True

    def __init__(self, recorder: Recorder, actor: Actor) -> None:
        self._recorder = recorder
        self._actor = actor

    def publish(self, what: str, headers: EventHeaders) -> None:
        text = changed(what, headers)
        if not text:
            return
        timeline = self._recorder.of(str(headers["vhost"]))
        if what == "queue.deleted":
            timeline.queue_gone(str(headers["name"]))
        timeline.note(self._actor, text)


def changed(what: str, headers: EventHeaders) -> str:
    """Return in words what headers of an event describe; empty for what goes without saying."""
    if "vhost" not in headers or what.startswith(("vhost.", "permission.")):
        return ""
    describe = DESCRIPTIONS.get(what)
    if describe is not None:
        return describe(dict(headers))
    return f"{what} {headers.get('name', '')}".rstrip()


def queue_declared(headers: Mapping[str, Any]) -> str:
    words = [headers["type"].removeprefix("rabbit_").removesuffix("_queue")]
    words += [name for name in ("durable", "exclusive", "auto_delete") if headers[name]]
    return f"declares queue {headers['name']!r} ({', '.join([*words, *arguments_in(headers)])})"


def exchange_declared(headers: Mapping[str, Any]) -> str:
    if not headers["name"] or headers["name"].startswith(BY_ITSELF):
        return ""
    words = [headers["type"]]
    words += [name for name in ("durable", "internal", "auto_delete") if headers[name]]
    return f"declares exchange {headers['name']!r} ({', '.join([*words, *arguments_in(headers)])})"


def exchange_deleted(headers: Mapping[str, Any]) -> str:
    if not headers["name"] or headers["name"].startswith(BY_ITSELF):
        return ""
    return f"exchange {headers['name']!r} is deleted"


def bound(headers: Mapping[str, Any]) -> str:
    return f"binds {ends(headers, 'to')}"


def unbound(headers: Mapping[str, Any]) -> str:
    return f"unbinds {ends(headers, 'from')}"


def ends(headers: Mapping[str, Any], way: str) -> str:
    text = f"{headers['destination_kind']} {headers['destination_name']!r}"
    text += f" {way} exchange {headers['source_name']!r} by {headers['routing_key']!r}"
    return f"{text} ({', '.join(arguments_in(headers))})" if headers["arguments"] else text


def arguments_in(headers: Mapping[str, Any]) -> list[str]:
    """Return arguments without their types, as people write them; the event exchange has Erlang
    terms."""
    pairs = (ARGUMENT.fullmatch(each) for each in headers["arguments"])
    return [f"{pair[1]}={pair[2] or pair[3] or ''}" for pair in pairs if pair is not None]


DESCRIPTIONS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "queue.created": queue_declared,
    "queue.deleted": lambda headers: f"queue {headers['name']!r} is deleted",
    "exchange.created": exchange_declared,
    "exchange.deleted": exchange_deleted,
    "binding.created": bound,
    "binding.deleted": unbound,
}


class TimelineTap:
    """A `Tracer` of one virtual host."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    def published(
        self,
        client: TracedClient,
        routed_batches: Sequence[TracedBatch],
        more_routing_keys: Sequence[str],
    ) -> None:
        del more_routing_keys
        timeline, actor = self._timeline, actor_of(client)
        within = "in a transaction" if client.is_transactional else ""
        publishes = list[tuple[str, bytes]]()
        for origin, content, routed in in_order(routed_batches):
            message = origin.exchange, origin.routing_key, content
            names = [each.name for each in routed.targets]
            queues = [name for name in names if not name.startswith(DIRECT_REPLY_TO)]
            if not names and client.channel:  # MQTT publishers know of no queue
                timeline.led_nowhere(actor, message, is_returned=routed.mandatory)
            timeline.published(actor, message, queues, within)
            lost = "nowhere and is returned" if routed.mandatory else "nowhere and is dropped"
            where = f"to {' and '.join(map(repr, names))}" if names else lost
            key = f"to exchange {origin.exchange!r} with key {origin.routing_key!r}"
            publishes.append(
                (f"{key}{', ' if within else ''}{within}: it goes {where}", body_of(content))
            )
        for where, same in groupby(publishes, lambda each: each[0]):
            timeline.note(actor, f"publishes {listed([body for _, body in same])} {where}")

    def delivered(
        self, client: TracedClient, delivery_batch: DeliveryBatch, first_tag: int
    ) -> None:
        timeline, actor = self._timeline, actor_of(client)
        holder, first = delivery_batch.holder, first_tag
        tag = holder.tag if isinstance(holder, Consumer) else ""
        what = StepKind.TAKEN if holder.no_ack else StepKind.DELIVERED
        again = ", redelivered" if delivery_batch.redelivered else ""
        tags = f"delivery tag {first}"
        if len(delivery_batch.contents) > 1:
            tags = f"delivery tags {first} to {first + len(delivery_batch.contents) - 1}"
        verb = f"{tag!r} is given" if tag else "gets"
        bodies = [body_of(content) for content in delivery_batch.contents]
        timeline.note(
            actor, f"{verb} {listed(bodies)} of queue {holder.queue.name!r}, {tags}{again}"
        )
        for at, (sequence, origin, content) in enumerate(
            zip(
                delivery_batch.sequences,
                delivery_batch.origins,
                delivery_batch.contents,
                strict=True,
            )
        ):
            message = origin.exchange, origin.routing_key, content
            step = TraceStep(what, timeline.at_ms, actor, tag, f"tag {first + at}{again}")
            found = origin_of(content)
            timeline.delivered(holder.queue.name, sequence, message, step, found)

    def purging(self, client: TracedClient, queue: QueueHandle) -> Callable[[], None]:
        return self._timeline.purging(actor_of(client), queue.name)


class SettlementTap:
    """Settlements of one channel, put into a timeline: a `ChannelObserver`."""

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
            timeline.settled(actor_on(channel), queue, sequences_of(same), outcome)


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
    """True if the queue of which it holds messages can hear of them; another of its name gives the
    same numbers to others, and a `FormerHolder` has none."""
    return channel.session.vhost.has(holder.queue)


def actor_of(client: TracedClient) -> Actor:
    return Actor(short(client.connection), client.channel)


def actor_on(channel: SessionChannel) -> Actor:
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
