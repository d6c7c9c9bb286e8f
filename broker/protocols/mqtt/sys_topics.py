"""`$SYS` of MQTT: figures of this node, as retained messages under mosquitto's topics.

    counters --> every interval: tree of topics --> new subscriptions, by a cursor, as retained
                                 changed topics --> clients that subscribe to `$SYS/…`

Nothing of it is stored or replicated, and only the broker publishes there, but for the states of
bridges (`topics.BRIDGE_STATE`), which are messages as any other.  All virtual hosts see the same
figures, so a user who subscribes needs the tag `monitoring`, or a topic permission for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from math import exp
from typing import TYPE_CHECKING, Protocol

from fluffle.broker.base.errors import AccessRefused, BrokerError
from fluffle.broker.base.message import NEVER_EXPIRES_MS, RetainedMessage
from fluffle.broker.base.traffic import ClientTraffic, TrafficLabels
from fluffle.broker.config.config import VERSION
from fluffle.broker.protocols.mqtt.annotations import Annotations, client_mark, pack
from fluffle.broker.protocols.mqtt.conversion import with_identifiers
from fluffle.broker.protocols.mqtt.reasons import code_of
from fluffle.broker.protocols.mqtt.session_state import DirectMessage
from fluffle.broker.protocols.mqtt.topics import SYS, is_reserved
from fluffle.broker.vhosts.retained import RetainedTopics
from fluffle.protocol.mqtt.codes import MQTT_5, ReasonCode
from fluffle.protocol.mqtt.reader import PacketCounts
from fluffle.protocol.properties import build_contents

if TYPE_CHECKING:
    from fluffle.broker.base.clock import Timer
    from fluffle.broker.config.config import MqttConfig
    from fluffle.broker.core.client import SessionCounts
    from fluffle.broker.core.output_buffer import OutputBuffer
    from fluffle.broker.core.services import Services
    from fluffle.broker.core.session import Session
    from fluffle.broker.protocols.mqtt.outgoing_publishes import OutgoingPublishes
    from fluffle.broker.protocols.mqtt.session_state import (
        SessionKey,
        SessionState,
        SessionStates,
    )
    from fluffle.broker.runtime.turn import Turn
    from fluffle.broker.vhosts.retained import RetainedCursor

READER_TAGS = frozenset({"monitoring", "administrator"})
"""Tags of users who may read the figures of a node, as with the management API."""

QOS0_QUEUES = "rabbit_mqtt_qos0_queue"

LOAD_MINUTES = (1, 5, 15)

FRESH_MS = 1_000
"""Figures as old as that are good enough for a new subscription."""

PROPERTIES = b"\0\0"
"""Raw AMQP properties of a message without any."""

ANNOTATIONS = pack(Annotations(0, retain=True, client=client_mark("")))


def check_may_read(session: Session, topic_filter: str, exchange: str) -> None:
    """Check that a user may read what a filter matches below `$SYS`: figures of the whole node.
    AccessRefused unless he is a monitor, or topic permissions guard the exchange for him: these
    are checked elsewhere."""
    if not is_reserved(topic_filter) or not READER_TAGS.isdisjoint(session.user.tags):
        return
    if not session.rights.guards_topics(exchange):
        raise AccessRefused(
            f"read access to topic '{topic_filter}' refused for user '{session.user.name}', who has"
            " neither the tag monitoring nor a topic permission"
        )


def check_may_publish_to(topic: str) -> None:
    """AccessRefused for what is the broker's own."""
    if is_reserved(topic):
        raise AccessRefused(f"write access to topic '{topic}' refused: it is the broker's own")


class LoadAverage:
    """Moving averages of what a counter gains a minute, as mosquitto has them."""

    __slots__ = ("_at_ms", "_averages", "_before")

    def __init__(self, now_ms: int) -> None:
        self._at_ms = now_ms
        self._before = 0
        self._averages = dict.fromkeys(LOAD_MINUTES, 0.0)

    def take(self, count: int, now_ms: int) -> None:
        """Note that the counter has so much now."""
        seconds, self._at_ms = (now_ms - self._at_ms) / 1000, now_ms
        gained, self._before = count - self._before, count
        for minutes, average in self._averages.items():
            left = exp(-seconds / (60 * minutes))
            weighed = gained * 60 / seconds * (1 - left) if seconds else gained / minutes
            self._averages[minutes] = average * left + weighed

    def shown(self) -> Iterator[tuple[str, str]]:
        """Yield the averages by their minutes."""
        for minutes, average in self._averages.items():
            yield f"{minutes}min", f"{average:.2f}"


class CountedClient(Protocol):
    """Connection of a client, as far as its octets are counted."""

    def count_bytes(self) -> None:
        """Add what has come and gone since the last time to the counts of the node."""


class CountedServer(Protocol):
    """Server of MQTT, as far as it is counted."""

    services: Services
    config: MqttConfig
    states: SessionStates

    @property
    def connected(self) -> Mapping[SessionKey, CountedClient]:
        """Clients that are in, by session."""

    def session_counts(self) -> SessionCounts:
        """How many sessions there are."""


class WatchingConnection(Protocol):
    """Connection of a client that subscribes."""

    def end(self, code: ReasonCode, text: str) -> None:
        """End the connection for what no packet of its client has done; it gets the reason."""


class WatchingChannel(Protocol):
    """Channel of a client that may subscribe to figures."""

    output: OutputBuffer
    state: SessionState
    turn: Turn
    is_open: bool

    @property
    def connection(self) -> WatchingConnection: ...

    @property
    def outgoing(self) -> OutgoingPublishes:
        """Messages that the client is sent."""

    @property
    def session(self) -> Session: ...

    def give_up(self, error: Exception) -> None:
        """Close the connection for an error of the broker's own that concerns it alone."""


class SysTopics:
    """Figures of a node by topic, and the clients that watch them."""

    __slots__ = (
        "_begun_at_ms",
        "_clients_max",
        "_heap_bytes_max",
        "_labels",
        "_loads",
        "_refreshed_at_ms",
        "_sent",
        "_server",
        "_shown",
        "_timer",
        "_topics",
        "_watchers",
        "connections",
        "expired",
        "packets",
        "read_bytes",
        "sockets",
        "written_bytes",
    )

    def __init__(self, server: CountedServer, labels: frozenset[TrafficLabels]) -> None:
        """`labels`: those of the traffic of MQTT's clients."""
        self._server = server
        self._labels = labels
        self.packets = PacketCounts()
        """Packets that all clients have sent."""
        self.sockets = self.connections = self.expired = 0
        """Sockets that were opened, clients that were let in, sessions that have expired."""
        self.read_bytes = self.written_bytes = 0
        """Octets of all clients, as far as they have counted them."""
        self._clients_max = 0
        self._heap_bytes_max = 0
        """The most memory that was seen."""
        self._begun_at_ms = self._now_ms
        self._loads: dict[str, LoadAverage] = {}
        self._shown: dict[str, str] = {}
        """Values of `_topics`."""
        self._refreshed_at_ms = -FRESH_MS
        """When that was."""
        self._sent: dict[str, str] = {}
        """Values that watchers were sent last."""
        self._topics = RetainedTopics()
        self._timer: Timer | None = None
        """None while no client is connected.  Without a watcher it takes averages alone."""
        self._watchers: dict[WatchingChannel, bool] = {}
        """Channels that watch, and True for one that has missed figures."""

    @property
    def _now_ms(self) -> int:
        return self._server.services.runtime.clock.now_ms()

    @property
    def is_on(self) -> bool:
        return self._server.config.sys_interval_s > 0

    def connected(self) -> None:
        """A client has been let in."""
        self.connections += 1
        self._clients_max = max(self._clients_max, len(self._server.connected))
        if self._timer is None and self.is_on:
            self._arm()

    def disconnected(self) -> None:
        """A client has gone."""
        if self._timer is not None and not self._server.connected:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        call_later = self._server.services.runtime.clients_call_later
        self._timer = call_later(self._server.config.sys_interval_s, self._tick)

    def watch(self, channel: WatchingChannel) -> None:
        """Send a client the figures to which it has subscribed, as long as it does."""
        self._watchers.setdefault(channel, False)

    def cursor(self, topic_filter: str) -> RetainedCursor:
        """Return a cursor at the first figure that a filter matches, as they are now."""
        if self.is_on and self._now_ms - self._refreshed_at_ms >= FRESH_MS:
            self._refresh()
        return self._topics.cursor(topic_filter)

    def _tick(self) -> None:
        """Send all watchers what has changed."""
        self._arm()
        if not self._watchers:
            self._average(self._totals())
            return
        self._refresh()
        shown, sent = dict(self._shown), self._sent
        changed = {topic: value for topic, value in shown.items() if sent.get(topic) != value}
        self._sent = shown
        for channel, has_missed in tuple(self._watchers.items()):
            figures = shown if has_missed else changed
            channel.turn.act_later(partial(self._tell, channel, figures), channel.give_up)

    def _tell(self, channel: WatchingChannel, changed: Mapping[str, str]) -> None:
        """Send a client those of the changed figures that it subscribes to."""
        if not channel.is_open:
            return
        filters = [each for each in channel.state.subscriptions if is_reserved(each)]
        if not filters:
            self.forget(channel)
            return
        try:
            for topic_filter in filters:
                check_may_read(channel.session, topic_filter, self._server.config.exchange)
        except BrokerError as refused:
            channel.connection.end(code_of(refused), refused.explanation)
            return
        self._watchers[channel] = channel.output.has_enough
        if self._watchers[channel]:
            return  # it does not read: it is sent all figures once it does
        version = channel.outgoing.terms.version
        for topic, value in changed.items():
            match = channel.state.match(topic, is_own=False)
            if match.qos < 0:
                continue
            properties = with_identifiers(b"", match.identifiers) if version == MQTT_5 else b""
            retain = version == MQTT_5 and match.retain_as_published
            figure = DirectMessage(0, topic.encode(), properties, value.encode(), retain=retain)
            channel.outgoing.send(figure)

    def forget(self, channel: WatchingChannel) -> None:
        """A client does not watch any more, if it has."""
        self._watchers.pop(channel, None)

    # Figures

    def _refresh(self) -> None:
        """Count anew, and keep what is other than before for new subscriptions."""
        self._refreshed_at_ms = self._now_ms
        for client in self._server.connected.values():
            client.count_bytes()
        for name, figure in self._figures().items():
            self._show(name, str(figure))
        of_bytes = {"bytes/received": self.read_bytes, "bytes/sent": self.written_bytes}
        self._average(self._totals() | of_bytes)
        for name, average in self._loads.items():
            for minutes, value in average.shown():
                self._show(f"load/{name}/{minutes}", value)

    def _show(self, name: str, value: str) -> None:
        topic = f"{SYS}/broker/{name}"
        if self._shown.get(topic) != value:
            self._shown[topic] = value
            (content,) = build_contents(PROPERTIES, [value.encode()])
            message = RetainedMessage(content, ANNOTATIONS, "", 0, NEVER_EXPIRES_MS)
            self._topics.put(topic, message)

    def _figures(self) -> dict[str, int | str]:
        """Return all figures but averages, by mosquitto's names."""
        server, services, counts = self._server, self._server.services, self.packets
        sessions = server.session_counts()
        heap_bytes = services.runtime.measures.resident_bytes() or 0
        self._heap_bytes_max = max(self._heap_bytes_max, heap_bytes)
        return {
            "version": f"fluffle version {VERSION}",
            "uptime": f"{(self._now_ms - self._begun_at_ms) // 1000} seconds",
            "heap/current": heap_bytes,
            "heap/maximum": self._heap_bytes_max,
            "clients/total": sessions.connected + sessions.away,
            "clients/connected": sessions.connected,
            "clients/active": sessions.connected,
            "clients/disconnected": sessions.away,
            "clients/inactive": sessions.away,
            "clients/maximum": self._clients_max,
            "clients/expired": self.expired,
            "subscriptions/count": sum(len(each.subscriptions) for each in server.states),
            "retained messages/count": sum(
                vhost.retained.count for vhost in services.vhosts.values()
            ),
            "messages/received": counts.received,
            "messages/sent": self._sent_count + counts.answered,
            "publish/messages/received": counts.publishes,
            "publish/messages/sent": self._sent_count,
            "publish/messages/dropped": self._dropped_count,
            "publish/bytes/received": counts.publish_bytes,
            "publish/bytes/sent": sum(each.sent_bytes for each in self._traffic),
            "shared_subscriptions/count": sessions.shared_subscriptions,
            "bytes/received": self.read_bytes,
            "bytes/sent": self.written_bytes,
        }

    def _totals(self) -> dict[str, int]:
        """Return the counters whose gains are averaged, but for octets, which connections count."""
        counts, sent_count = self.packets, self._sent_count
        return {
            "messages/received": counts.received,
            "messages/sent": sent_count + counts.answered,
            "publish/received": counts.publishes,
            "publish/sent": sent_count,
            "publish/dropped": self._dropped_count,
            "sockets": self.sockets,
            "connections": self.connections,
        }

    def _average(self, totals: Mapping[str, int]) -> None:
        """Take the averages of what counters gain in a minute."""
        now_ms = self._now_ms
        for name, total in totals.items():
            if name not in self._loads:
                self._loads[name] = LoadAverage(self._begun_at_ms)
            self._loads[name].take(total, now_ms)

    @property
    def _traffic(self) -> list[ClientTraffic]:
        traffic = self._server.services.runtime.traffic
        return [traffic.of(labels) for labels in self._labels]

    @property
    def _sent_count(self) -> int:
        """Messages that clients were sent."""
        return sum(
            each.from_queues.delivered
            + each.from_quorum_queues.delivered
            + each.from_qos0_queues.delivered
            + each.past_queues
            for each in self._traffic
        )

    @property
    def _dropped_count(self) -> int:
        """Messages that were dropped on their way from or to clients."""
        died = self._server.services.runtime.traffic.deaths.died
        dropped = sum(sum(each.dropped.values()) for each in self._traffic)
        return dropped + sum(n for (kind, _, _), n in died.items() if kind == QOS0_QUEUES)
