"""MQTT server of a node: what all its MQTT connections share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from fluffle.broker.base.traffic import ClientDrop, TrafficLabels
from fluffle.broker.config.config import MqttConfig
from fluffle.broker.core.client import SessionCounts
from fluffle.broker.core.connections import KeepAlives
from fluffle.broker.core.observer import ChangedBy
from fluffle.broker.core.services import Services
from fluffle.broker.events.event_publisher import INTERNAL
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.protocols.mqtt.conversion import MessageConverter
from fluffle.broker.protocols.mqtt.session_state import (
    NEVER_S,
    SessionKey,
    SessionState,
    SessionStates,
)
from fluffle.broker.protocols.mqtt.topics import TopicTranslator, subscription_queue
from fluffle.broker.protocols.mqtt.will import Wills
from fluffle.broker.vhosts import queue_changes

if TYPE_CHECKING:
    from fluffle.broker.base.clock import Timer


TRAFFIC_LABELS = {
    0: TrafficLabels("mqtt311", "mqtt"),
    3: TrafficLabels("mqtt310", "mqtt"),
    4: TrafficLabels("mqtt311", "mqtt"),
    5: TrafficLabels("mqtt50", "mqtt"),
}
"""RabbitMQ's labels by version; 0 is a client that has not said it."""


class ConnectedClient(Protocol):
    """Connection that has a session."""

    @property
    def name(self) -> str: ...

    def take_over(self, done: Callable[[], None]) -> None:
        """End, for the same client has connected anew, and call `done` when the session is free."""


class MqttServer:
    """State of MQTT on a node: sessions, and who is connected."""

    __slots__ = (
        "_expiries",
        "config",
        "connected",
        "converter",
        "durable_queue_type",
        "keep_alives",
        "retained",
        "services",
        "states",
        "taken_over",
        "wills",
    )

    def __init__(self, services: Services, config: MqttConfig, durable_queue_type: str) -> None:
        """`durable_queue_type`: of queues for QoS 1 and 2 of sessions that last."""
        self.services = services
        self.config = config
        self.durable_queue_type = durable_queue_type
        topics = TopicTranslator(sparkplug=config.sparkplug)
        self.converter = MessageConverter(topics, services.runtime.clock.wall_ms)
        self.states = SessionStates()
        self.connected: dict[SessionKey, ConnectedClient] = {}
        """By session."""
        self.retained = services.retained if config.retained else None
        self.wills = Wills(services, self.converter, config.exchange, self.retained)
        services.connections.session_keepers.append(self)
        self.keep_alives = KeepAlives(services.runtime.clients_call_later)
        self.taken_over = 0
        """Times that a connection has ended since its client had connected anew."""
        for labels in TRAFFIC_LABELS.values():
            services.runtime.traffic.show(labels)
            services.runtime.traffic.of(labels).dropped.update(dict.fromkeys(ClientDrop, 0))
        self._expiries: dict[SessionKey, Timer] = {}
        """Of sessions whose clients are away."""

    def session_rows(self) -> Iterator[dict[str, Any]]:
        """Yield what each session is, as a `SessionKeeper`."""
        for state in self.states:
            client = self.connected.get(state.key)
            vhost, client_id = state.key
            queues = (subscription_queue(client_id, qos) for qos in (0, 1))
            there = self.services.vhosts[vhost].queues if vhost in self.services.vhosts else ()
            yield {
                "vhost": vhost,
                "client_id": client_id,
                "user": state.user,
                "connection": "" if client is None else client.name,
                "expiry_s": None if state.expiry_s == NEVER_S else state.expiry_s,
                "subscriptions": [
                    {
                        "topic_filter": each.topic_filter,
                        "qos": each.qos,
                        "options": each.options,
                        "subscription_id": each.identifier or None,
                    }
                    for each in state.subscriptions.values()
                ],
                "queues": [queue for queue in queues if queue in there],
                "packets_from_client": len(state.incoming),
                "packets_to_client": len(state.packet_ids.used),
            }

    def session_counts(self) -> SessionCounts:
        """How many sessions there are, as a `SessionKeeper`."""
        connected = len(self.connected)
        return SessionCounts(connected, len(self.states) - connected, self.taken_over)

    def attach(self, state: SessionState, client: ConnectedClient) -> None:
        """A client has connected to its session, which does not expire meanwhile."""
        self.connected[state.key] = client
        self.wills.session_resumed(state.key)
        if (timer := self._expiries.pop(state.key, None)) is not None:
            timer.cancel()

    def detach(self, state: SessionState, client: ConnectedClient) -> None:
        """The connection of a session has ended: the session does, now or in its time."""
        if self.connected.get(state.key) is client:
            del self.connected[state.key]
        if not state.is_lasting:
            self.end_state(state)
            self._delete_queues(state)  # left by a connection after which it was to last
        elif state.expiry_s != NEVER_S:
            expire = partial(self._expire, state)
            call_later = self.services.runtime.clients_call_later
            self._expiries[state.key] = call_later(state.expiry_s, expire)

    def _expire(self, state: SessionState) -> None:
        del self._expiries[state.key]
        self.end_state(state)
        self._delete_queues(state)

    def end_state(self, state: SessionState) -> None:
        """Forget a session; its queues are deleted elsewhere."""
        if (timer := self._expiries.pop(state.key, None)) is not None:
            timer.cancel()
        self.states.end(state)
        self.wills.session_ended(state.key)

    def _delete_queues(self, state: SessionState) -> None:
        """Delete the queues of a session that has ended, if it has any."""
        vhost_name, client_id = state.key
        names = [subscription_queue(client_id, qos) for qos in (0, 1)]
        there = self.services.vhosts.get(vhost_name)
        if there is None or not any(name in there.queues for name in names):
            return

        def decide() -> Change:
            vhost = self.services.vhosts.get(vhost_name)
            if vhost is None or state.key in self.connected:
                return NOTHING
            found = tuple(vhost.queues[name] for name in names if name in vhost.queues)
            return queue_changes.delete_queues(vhost, found)

        self.services.metadata_of(ChangedBy(INTERNAL, INTERNAL)).settle(decide)
