"""`Recorder`: puts what a node does into timelines, one for each virtual host.

It is an `Observer` of connections; what happens to messages is seen by `tapped`.  A daemon has
neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fluffle.broker.core.observer import ChangedBy, ChannelObserver
from fluffle.broker.events.change_events import PublishingMetadata
from fluffle.broker.events.event_publisher import EventHeaders
from fluffle.broker.metadata.change import Name
from fluffle.broker.metadata.metadata import Metadata
from fluffle.broker.queues.queue_api import Consumer
from fluffle.broker.testing.message_traces import Actor
from fluffle.broker.testing.tapped import SettlementTap, TimelineTap, short, who_on
from fluffle.broker.testing.timeline import Timeline
from fluffle.broker.testing.timeline_events import changed
from fluffle.broker.vhosts.tracers import set_tracer
from fluffle.protocol.types import FieldTable

if TYPE_CHECKING:
    from fluffle.broker.base.errors import BrokerError
    from fluffle.broker.core.client import Client, ObservedChannel
    from fluffle.broker.core.session import Session

TAP = "timeline"


class Recorder:
    """Recorder of the events of one node."""

    __slots__ = ("_connections", "_find", "_now_ms", "_timelines")

    def __init__(self, now_ms: Callable[[], int], find: Callable[[Name], object]) -> None:
        """`find` gives the value of a fact that there is."""
        self._now_ms = now_ms
        self._find = find
        self._timelines: dict[str, Timeline] = {}
        self._connections: dict[Session, Client] = {}
        """Those that are open."""

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

    def opened(self, connection: Client, session: Session) -> None:
        self._connections[session] = connection
        timeline, who = self._seen(session)
        timeline.channels[session] = set()
        set_tracer(session.vhost, TAP, TimelineTap(timeline))
        name = connection.handshake.client_name
        named = f", named {name!r}" if name else ""
        timeline.note(who, f"opens a connection as {session.user.name!r}{named}")

    def closed(self, session: Session) -> None:
        timeline, who = self._seen(session)
        timeline.channels.pop(session, None)
        timeline.note(who, f"is closed: {self._connections.pop(session).close_reason}")

    def channel_opened(self, channel: ObservedChannel) -> ChannelObserver:
        timeline, who = self._at(channel)
        timeline.channels.setdefault(channel.session, set()).add(channel.number)
        timeline.note(who, "opens the channel")
        return SettlementTap(timeline, channel)

    def channel_refused(self, channel: ObservedChannel, error: BrokerError) -> None:
        timeline, who = self._at(channel)
        timeline.note(who, f"the channel is closed: {int(error.code)} {error.reply_text}")

    def channel_closed(self, channel: ObservedChannel, consumer_count: int) -> None:
        timeline, who = self._at(channel)
        timeline.channels.get(channel.session, set()).discard(channel.number)
        timeline.note(who, "the channel ends")

    def consumer_started(
        self, channel: ObservedChannel, consumer: Consumer, arguments: FieldTable
    ) -> None:
        timeline, who = self._at(channel)
        how = ", which need not acknowledge" if consumer.no_ack else ""
        prefetch = f", {consumer.prefetch} at once" if consumer.prefetch else ""
        text = f"consumes queue {consumer.queue.name!r} as {consumer.tag!r}{how}{prefetch}"
        timeline.note(who, text)

    def consumer_ended(self, channel: ObservedChannel, consumer: Consumer) -> None:
        timeline, who = self._at(channel)
        is_there = channel.session.vhost.has(consumer.queue)
        why = "" if is_there else ", which is gone: it is cancelled by the broker"
        timeline.note(who, f"{consumer.tag!r} ends, of queue {consumer.queue.name!r}{why}")

    # Who

    def _seen(self, session: Session) -> tuple[Timeline, Actor]:
        return self.of(session.vhost.name), Actor(short(session.name))

    def _at(self, channel: ObservedChannel) -> tuple[Timeline, Actor]:
        return self.of(channel.session.vhost.name), who_on(channel)


class DefinitionListener:
    """Puts changes of definitions into timelines, of one who does them."""

    node = ""
    is_heard = True

    __slots__ = ("_recorder", "_who")

    def __init__(self, recorder: Recorder, who: Actor) -> None:
        self._recorder = recorder
        self._who = who

    def tell(self, what: str, headers: EventHeaders) -> None:
        text = changed(what, headers)
        if not text:
            return
        timeline = self._recorder.of(str(headers["vhost"]))
        if what == "queue.deleted":
            timeline.queue_gone(str(headers["name"]))
        timeline.note(self._who, text)
