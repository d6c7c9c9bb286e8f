"""MQTT server of a node: what all its MQTT connections share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from fluffle.broker.base.client_session import INCOMING, OUTGOING, ClientSession
from fluffle.broker.base.traffic import ClientDrop, TrafficLabels
from fluffle.broker.config.config import MqttConfig
from fluffle.broker.core.client import SessionCounts
from fluffle.broker.core.connections import KeepAlives
from fluffle.broker.core.observer import ChangedBy
from fluffle.broker.core.services import Services
from fluffle.broker.events.event_publisher import INTERNAL
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.protocols.mqtt.conversion import MessageConverter
from fluffle.broker.protocols.mqtt.outgoing_publishes import LastRun
from fluffle.broker.protocols.mqtt.session_state import (
    NEVER_S,
    SessionKey,
    SessionState,
    SessionStates,
)
from fluffle.broker.protocols.mqtt.topics import TopicTranslator, subscription_queue
from fluffle.broker.protocols.mqtt.will import (
    PendingWill,
    Wills,
    decode_record,
    encode_record,
)
from fluffle.broker.vhosts import queue_changes
from fluffle.broker.vhosts.client_sessions import end_session, keep_session

if TYPE_CHECKING:
    from fluffle.broker.base.clock import Timer
    from fluffle.broker.queues.queue_api import QueueHandle
    from fluffle.broker.vhosts.vhost import VirtualHost


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
        "last_run",
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
        self.last_run = LastRun()
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

    # Sessions that last

    def restore(self) -> None:
        """Make what an earlier process has left: sessions end in their time, and wills wait."""
        for vhost in tuple(self.services.vhosts.values()):
            for client_id, kept in tuple(vhost.client_sessions.by_client.items()):
                state = self.restored((vhost.name, client_id), kept)
                if kept.ended_at_ms:
                    self._resume_waiting(state, kept)
                elif kept.node == self.services.owners.node:  # the process ended before
                    pending = decode_record(state.key, kept.record)
                    self._begin_waiting(state, kept.user, pending)

    def restored(self, key: SessionKey, kept: ClientSession) -> SessionState:
        """Return the state of a session that is kept, made of that if it is not there."""
        state = self.states.find(key)
        if state is None:
            state = self.states.open(key)
            sessions = self.services.vhosts[key[0]].client_sessions
            state.incoming.update(dict.fromkeys(sessions.numbers(key[1], INCOMING)))
            state.released.update(dict.fromkeys(sessions.numbers(key[1], OUTGOING)))
            state.packet_ids.used.update(state.released)
        state.expiry_s, state.user = kept.expiry_s, kept.user
        return state

    def _resume_waiting(self, state: SessionState, kept: ClientSession) -> None:
        """Go on to wait for a client that was away already."""
        away_s = (self.now_ms() - kept.ended_at_ms) / 1000
        if state.expiry_s != NEVER_S:
            self._expire_later(state, max(0, state.expiry_s - away_s))
        pending = decode_record(state.key, kept.record)
        if pending is not None:
            delay_s = min(pending.will.delay_s, state.expiry_s)
            self.wills.publish_later(pending, max(0, delay_s - away_s))

    @property
    def now_ms(self) -> Callable[[], int]:
        """The time that all nodes have in common, since 1970."""
        return self.services.retained.now_ms

    def kept_of(self, vhost: VirtualHost, client_id: str) -> ClientSession | None:
        """What is kept of a session, if it has not ended by now."""
        kept = vhost.client_sessions.by_client.get(client_id)
        if kept is None or not kept.ended_at_ms or kept.expiry_s == NEVER_S:
            return kept
        return kept if self.now_ms() < kept.ended_at_ms + kept.expiry_s * 1000 else None

    def _keep(self, state: SessionState, user: str, ended_at_ms: int, record: bytes) -> None:
        kept = ClientSession(user, state.expiry_s, ended_at_ms, self.services.owners.node, record)
        vhost_name, client_id = state.key

        def decide() -> Change:
            vhost = self.services.vhosts.get(vhost_name)
            if vhost is None or client_id not in vhost.client_sessions.by_client:
                return NOTHING
            return keep_session(vhost, client_id, kept)

        self.services.metadata.settle(decide)

    # Connections

    def attach(self, state: SessionState, client: ConnectedClient) -> None:
        """A client has connected to its session, which does not expire meanwhile."""
        self.connected[state.key] = client
        self.wills.session_resumed(state.key)
        if (timer := self._expiries.pop(state.key, None)) is not None:
            timer.cancel()

    def detach(
        self, state: SessionState, client: object, user: str, pending: PendingWill | None
    ) -> None:
        """The connection of a session has ended: the session does, now or in its time."""
        if self.connected.get(state.key) is client:
            del self.connected[state.key]
        if state.is_lasting:
            self._begin_waiting(state, user, pending)
            return
        if pending is not None:
            self.wills.connection_ended(pending, 0)
        self.end_state(state)
        self._delete(state)

    def _begin_waiting(self, state: SessionState, user: str, pending: PendingWill | None) -> None:
        """Wait for a client that has just gone, for as long as its session lasts."""
        if pending is not None:
            self.wills.connection_ended(pending, state.expiry_s)
        waits = pending is not None and pending.will.delay_s > 0
        self._keep(state, user, self.now_ms(), encode_record(pending if waits else None))
        if state.expiry_s != NEVER_S:
            self._expire_later(state, state.expiry_s)

    def _expire_later(self, state: SessionState, seconds: float) -> None:
        call_later = self.services.runtime.clients_call_later
        self._expiries[state.key] = call_later(seconds, partial(self._expire, state))

    def _expire(self, state: SessionState) -> None:
        del self._expiries[state.key]
        self.end_state(state)
        self._delete(state)

    def end_state(self, state: SessionState) -> None:
        """Forget a session here; what is defined of it is deleted elsewhere."""
        if (timer := self._expiries.pop(state.key, None)) is not None:
            timer.cancel()
        self.states.end(state)
        self.wills.session_ended(state.key)

    def _delete(self, state: SessionState) -> None:
        """Delete what is defined of a session that has ended, if anything is."""
        vhost_name, client_id = state.key
        there = self.services.vhosts.get(vhost_name)
        if there is None or not has_definitions(there, client_id):
            return

        def decide() -> Change:
            vhost = self.services.vhosts.get(vhost_name)
            if vhost is None or state.key in self.connected:
                return NOTHING
            return deletion(vhost, client_id)

        self.services.metadata_of(ChangedBy(INTERNAL, INTERNAL)).settle(decide)


def queues_of(vhost: VirtualHost, client_id: str) -> tuple[QueueHandle, ...]:
    """The queues of a session that are there."""
    names = (subscription_queue(client_id, qos) for qos in (0, 1))
    return tuple(vhost.queues[name] for name in names if name in vhost.queues)


def has_definitions(vhost: VirtualHost, client_id: str) -> bool:
    """Whether anything is defined of a session."""
    return client_id in vhost.client_sessions.by_client or bool(queues_of(vhost, client_id))


def deletion(vhost: VirtualHost, client_id: str) -> Change:
    """Delete what is defined of a session."""
    queues = queue_changes.delete_queues(vhost, queues_of(vhost, client_id))
    return queues.joined(end_session(vhost, client_id))
