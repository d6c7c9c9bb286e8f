"""MQTT server of a node: what all its MQTT connections share."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from fluffle.broker.base.client_session import OUTGOING, ClientSession
from fluffle.broker.base.logs import LimitedLog
from fluffle.broker.base.queue_names import subscription_queue, subscription_queues
from fluffle.broker.base.traffic import ClientDrop, TrafficLabels
from fluffle.broker.config.config import MqttConfig
from fluffle.broker.core.client import SessionCounts
from fluffle.broker.core.connections import KeepAlives
from fluffle.broker.core.observer import ChangedBy
from fluffle.broker.core.services import Services
from fluffle.broker.event_publisher import INTERNAL
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.metadata.metadata import ignore_done
from fluffle.broker.protocols.mqtt.conversion import MessageConverter
from fluffle.broker.protocols.mqtt.due_wills import ChangeWithWill, DueWills
from fluffle.broker.protocols.mqtt.packet_keeper import PacketRequests
from fluffle.broker.protocols.mqtt.publish_runs import LastRun
from fluffle.broker.protocols.mqtt.session_adoption import SessionAdoption
from fluffle.broker.protocols.mqtt.session_state import (
    NEVER_S,
    BegunPacket,
    SentBefore,
    SessionKey,
    SessionState,
    SessionStates,
    TopicSubscription,
)
from fluffle.broker.protocols.mqtt.shared_queues import LASTS, end_memberships, memberships
from fluffle.broker.protocols.mqtt.subscribe_methods import (
    X_EXPIRES,
    expiry_arguments,
)
from fluffle.broker.protocols.mqtt.sys_topics import SysTopics
from fluffle.broker.protocols.mqtt.topics import TopicTranslator
from fluffle.broker.protocols.mqtt.will import (
    PendingWill,
    Wills,
    decode_record,
    encode_record,
)
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.runtime.turn import do_nothing
from fluffle.broker.vhosts import queue_changes
from fluffle.broker.vhosts.client_sessions import end_session, keep_session
from fluffle.protocol.mqtt.codes import ReasonCode
from fluffle.protocol.mqtt.packets import Connack, encode
from fluffle.protocol.mqtt.properties import Properties, PropertyId, PropertyValue

if TYPE_CHECKING:
    from fluffle.broker.base.clock import Clock, Timer
    from fluffle.broker.queues.queue_api import QueueHandle
    from fluffle.broker.vhosts.vhost import VirtualHost

logger = logging.getLogger(__name__)

AGAIN_MS = 60_000
"""A session that is taken over twice in this time has two clients, or one that comes again before
its connection is lost."""
TAKEOVERS_MAX = 1_000
"""Most sessions of which it is remembered when they were taken over; beyond, all are forgotten."""
SHOWN_MAX = 100
"""Characters of a client identifier in a line of the log that is remembered."""

CONNACKS_MAX = 64
"""CONNACKs that are remembered: the next one is mostly one of them."""

TRAFFIC_LABELS = {
    0: TrafficLabels("mqtt311", "mqtt"),
    3: TrafficLabels("mqtt310", "mqtt"),
    4: TrafficLabels("mqtt311", "mqtt"),
    5: TrafficLabels("mqtt50", "mqtt"),
}
"""RabbitMQ's labels by version; 0 is a client that has not said it."""


class ConnectedClient(Protocol):
    """Connection that has a session."""

    came_at_ms: int
    """When its CONNECT came, in ms of common time."""

    @property
    def name(self) -> str: ...

    def count_bytes(self) -> None:
        """Add what has come and gone since the last time to the counts of the node."""

    def take_over(self, done: Callable[[], None]) -> None:
        """End, for the same client has connected anew, and call `done` when the session is free."""


def encoded_connack(
    version: int,
    properties: tuple[tuple[PropertyId, PropertyValue], ...],
    *,
    is_session_present: bool,
) -> bytes:
    """Return the CONNACK of a client that is let in."""
    packet = Connack(ReasonCode.SUCCESS, is_session_present, Properties(dict(properties)))
    return encode(packet, version)


class SessionEnd(NamedTuple):
    """End of a connection, as it is to be on record."""

    user: str
    expiry_s: int
    """How long the session lasts from then on."""
    at_ms: int
    """When it was, in ms of common time."""
    pending: PendingWill | None
    """Will of the connection, unless its client has taken leave."""


DueChange: TypeAlias = "tuple[Change, PendingWill | None]"
"""Change, and the will that is due with it."""
EndChange: TypeAlias = "Callable[[SessionKey, bytes, SessionEnd], DueChange]"
"""Returns what keeps the end of a connection, if its session has that record yet."""


class PendingEnds:
    """Ends of connections that are about to be on record, by session.

    One of a client that had left before it was let in may be of a record that is the next client's:
    that one is let in once it has put itself on record again.
    """

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends: dict[SessionKey, list[SessionEnd]] = {}

    def __contains__(self, key: SessionKey) -> bool:
        return key in self._ends

    def note(self, key: SessionKey, end: SessionEnd, *, is_pending: bool) -> None:
        """Note whether an end is about to be on record."""
        ends = [each for each in self._ends.pop(key, ()) if each is not end]
        if is_pending:
            ends.append(end)
        if ends:
            self._ends[key] = ends


class MqttServer:
    """State of MQTT on a node: sessions, and connected clients."""

    __slots__ = (
        "_expiries",
        "adoption",
        "cached_connack",
        "config",
        "connected",
        "connecting",
        "converter",
        "due_wills",
        "durable_queue_type",
        "ending",
        "keep_alives",
        "last_run",
        "now_ms",
        "packet_requests",
        "retained",
        "services",
        "shared_subscriptions",
        "states",
        "sys",
        "takeovers",
        "unkept",
        "warnings",
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
        self.now_ms = services.retained.now_ms
        """The time that all nodes have in common, since 1970."""
        self.cached_connack = lru_cache(CONNACKS_MAX)(encoded_connack)
        self.packet_requests = PacketRequests(services)
        self.states = SessionStates()
        self.connected: dict[SessionKey, ConnectedClient] = {}
        """Connected clients by session."""
        self.unkept = UnkeptClients(self)
        self.retained = services.retained if config.retained else None
        self.warnings = LimitedLog(logger, services.runtime.clock)
        self.wills = Wills(services, self.converter, config.exchange, self.retained, self.warnings)
        self.due_wills = DueWills(services, self.wills, self.warnings)
        if config.retained:
            services.retained.exchanges[config.exchange] = self.converter.retained_topic
        services.connections.session_keepers.append(self)
        self.sys = SysTopics(self, frozenset(TRAFFIC_LABELS.values()))
        self.keep_alives = KeepAlives(services.runtime.clients_call_later)
        self.takeovers = Takeovers(services.runtime.clock, self.warnings)
        self.shared_subscriptions = 0
        """Subscriptions of connected clients that these share with others."""
        for labels in TRAFFIC_LABELS.values():
            services.runtime.traffic.show(labels)
            services.runtime.traffic.of(labels).dropped.update(dict.fromkeys(ClientDrop, 0))
        self.connecting: Counter[SessionKey] = Counter()
        """How many clients wait for what they connect to, by session: it does not expire
        meanwhile.  None that is 0."""
        self.ending = PendingEnds()
        self._expiries: dict[SessionKey, Timer] = {}
        """Timers of the expiry of sessions whose clients are away."""
        self.adoption = SessionAdoption(self, self._resume_waiting)

    def session_rows(self) -> Iterator[dict[str, Any]]:
        """Yield what each session is, as a `SessionKeeper`."""
        for state in self.states:
            client = self.connected.get(state.key)
            vhost, client_id = state.key
            subscriptions = [*self._subscriptions_of(state)]
            queues = [*subscription_queues(client_id)]
            queues += (each.queue(client_id) for each in subscriptions if each.share_name)
            there = self.services.vhosts[vhost].queues if vhost in self.services.vhosts else ()
            yield {
                "vhost": vhost,
                "client_id": client_id,
                "user": state.user,
                "connection": "" if client is None else client.name,
                "expiry_s": None if state.expiry_s == NEVER_S else state.expiry_s,
                "expires_at_ms": expires_at_ms(self.kept(state.key)),
                "subscriptions": [
                    {
                        "topic_filter": each.full_filter,
                        "qos": each.qos,
                        "options": each.options,
                        "subscription_id": each.identifier or None,
                    }
                    for each in subscriptions
                ],
                "queues": [queue for queue in queues if queue in there],
                "packets_from_client": len(state.incoming),
                "packets_to_client": len(state.packet_ids.used),
            }

    def _subscriptions_of(self, state: SessionState) -> Iterable[TopicSubscription]:
        """Return the subscriptions of a session.  While its client is away only bindings say which
        there are: others may change them, and after a restart nothing else has them."""
        vhost = self.services.vhosts.get(state.key[0])
        if state.key in self.connected or vhost is None:
            return state.subscriptions.values()
        return bound_subscriptions(vhost, self.config.exchange, state.client_id)

    def session_counts(self) -> SessionCounts:
        """How many sessions there are, as a `SessionKeeper`."""
        connected = len(self.connected)
        away = len(self.states) - connected
        return SessionCounts(connected, away, self.takeovers.count, self.shared_subscriptions)

    # Sessions that last

    def restore(self) -> None:
        """Make what an earlier process of this node has left: sessions end in their time, and wills
        wait.  Those of other nodes are theirs."""
        end_memberships(self.services, self.config.exchange)
        self.due_wills.restore()  # mutant: MQ78
        for vhost in tuple(self.services.vhosts.values()):
            for client_id, kept in tuple(vhost.client_sessions.by_client.items()):
                if kept.node != self.services.owners.node:
                    continue
                state = self.restored((vhost.name, client_id), kept)
                if kept.ended_at_ms:
                    self._resume_waiting(state, kept)
                else:  # the process ended before
                    pending = decode_record(state.key, kept.record)
                    self._begin_waiting(state, kept.user, pending)

    def restored(self, key: SessionKey, kept: ClientSession) -> SessionState:
        """Return the state of a session that is kept, made of that if it is not there."""
        state = self.states.find(key)
        if state is None:
            state = self.states.open(key)
            sessions = self.services.vhosts[key[0]].client_sessions
            for packet, number in sessions.taken(key[1]).items():  # mutant: MQ32
                state.incoming[packet] = None if number is None else BegunPacket(number)
            state.released.update(dict.fromkeys(sessions.numbers(key[1], OUTGOING)))  # mutant: MQ33
            sent = sessions.sent(key[1])
            queue = subscription_queue(key[1], 1)
            before = {at: SentBefore(packet, 2) for packet, at in sent.items() if at}
            state.keep_unfinished(queue, before)  # mutant: MQ34
            lost = [packet for packet, at in sent.items() if not at]  # they were in no queue
            state.released.update(dict.fromkeys(lost))  # mutant: MQ52
            state.packet_ids.used.update(state.released, sent)  # mutant: MQ53
        state.expiry_s, state.user, state.is_kept = kept.expiry_s, kept.user, True
        state.record = kept.record
        return state

    def _resume_waiting(self, state: SessionState, kept: ClientSession) -> None:
        """Go on to wait for a client that was away already."""
        away_s = (self.now_ms() - kept.ended_at_ms) / 1000
        pending = decode_record(state.key, kept.record)
        if pending is not None:
            delay_s = min(pending.will.delay_s, state.expiry_s)
            publish = partial(self._publish_waiting, state.key, kept.record)
            self.wills.publish_later(pending, max(0, delay_s - away_s), publish)
        self._expire_later(state, max(0, state.expiry_s - away_s))

    def kept(self, key: SessionKey) -> ClientSession | None:
        """Return the stored session, if there is one."""
        vhost = self.services.vhosts.get(key[0])
        return None if vhost is None else vhost.client_sessions.by_client.get(key[1])

    def is_own(self, key: SessionKey) -> bool:
        """True if a session that lasts is this node's: its client was connected here last."""
        kept = self.kept(key)
        return kept is not None and kept.node == self.services.owners.node

    def opened(
        self, key: SessionKey, kept: ClientSession | None, *, is_present: bool
    ) -> SessionState:
        """Return the state of a session for its client, which has come back to it or makes it, and
        have it expire no more.  `kept`: what was kept of it before."""
        self._stop_expiry(key)
        state = self.states.find(key)
        if state is not None and not is_present:
            self._forget(state)
        if is_present and kept is not None:
            return self.restored(key, kept)
        return self.states.open(key)

    def session_changed(self, vhost_name: str, client_id: str) -> None:
        """A session is kept, or is no more: it is forgotten here if it is not this node's, and
        waits if it is this node's and no client is there for it, or ends if a queue of it has been
        deleted."""
        key = vhost_name, client_id
        state, kept = self.states.find(key), self.kept(key)
        if kept is not None and self.is_own(key):
            is_other = state is None or state.record != kept.record
            is_awaited = key in self.connected or key in self.connecting
            if is_other and not (kept.ended_at_ms or is_awaited):
                # its CONNECT was given up before that was true
                self._begin_waiting(self.restored(key, kept), kept.user, None)
            elif state is not None and kept.ended_at_ms and not kept.expiry_s:
                self._end_soon(state)
            return
        if kept is None or not kept.expiry_s:
            self.adoption.ended(key)
        if state is None:
            return
        client = self.connected.get(key)
        if client is None:
            self._forget(state)  # mutant: MQ54
        elif self.kept(key) is not None or (state.is_kept and key[0] in self.services.vhosts):
            client.take_over(do_nothing)  # mutant: MQ55

    def _end_change(
        self, key: SessionKey, record: bytes, end: SessionEnd
    ) -> tuple[Change, PendingWill | None]:
        """Return what keeps the end of a connection, if the session is its own yet, as `record`
        says, and the will that is due then."""
        vhost, kept = self.services.vhosts.get(key[0]), self.kept(key)
        # mutant: MQ56 MQ73
        if vhost is None or kept is None or not self._is_left(key) or kept.record != record:
            return NOTHING, None
        expiry_s = end.expiry_s if kept.expiry_s else 0  # a queue of it has been deleted
        pending = end.pending
        is_due = pending is not None and not min(pending.will.delay_s, expiry_s)
        ended = kept._replace(
            user=end.user,
            expiry_s=expiry_s,
            ended_at_ms=end.at_ms,
            record=encode_record(None if is_due else pending),
        )
        change = keep_session(vhost, key[1], ended)
        if kept.expiry_s != expiry_s:  # DISCONNECT has said so
            # mutant: MQ68
            change = change.joined(renew_expiry(vhost, key[1], expiry_s))
        return change, pending if is_due else None

    def _is_left(self, key: SessionKey) -> bool:
        """True if a session is this node's, and no client is connected to it."""
        return key not in self.connected and self.is_own(key)

    # Connections

    def attach(self, state: SessionState, client: ConnectedClient) -> None:
        """A client has connected to its session, which does not expire meanwhile."""
        self.connected[state.key] = client
        if not state.is_kept:
            self.unkept.announce(state.key, client.came_at_ms)
        self.sys.connected()
        self.states.put(state)

    def detach(
        self, state: SessionState, client: object, user: str, pending: PendingWill | None
    ) -> None:
        """The connection of a session has ended: the session does, now or in its time."""
        if self.connected.get(state.key) is client:
            del self.connected[state.key]
            self.sys.disconnected()
        if state.is_kept and not self.is_own(state.key):  # who has put its end on record publishes
            self._forget(state)
        elif state.is_lasting:
            self._begin_waiting(state, user, pending)
        elif state.is_kept:
            end = SessionEnd(user, 0, self.now_ms(), pending)
            with self._together():
                self._forget(state)
                self._put_end(state, self._delete_change, end, ignore_done)
        else:
            self._forget(state)
            if pending is not None:
                self.wills.publish(pending)

    def _ensure(
        self,
        decide: Callable[[], tuple[Change, PendingWill | None]],
        done: Callable[[], None] = ignore_done,
    ) -> None:
        """Have a change made, and the will published that is due with it; then call `done`."""
        change = ChangeWithWill(self.due_wills, decide)

        def is_made() -> None:
            change.done()
            done()

        with self._together():
            self.services.metadata_of(ChangedBy(INTERNAL, INTERNAL)).ensure(change.decide, is_made)

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Have in one commit what is published and kept meanwhile."""
        turn = self.services.runtime.turn
        ends_turn = turn.begin()
        self.services.runtime.commits.keep_together()
        try:
            yield
        finally:
            if ends_turn:
                turn.end()

    def _begin_waiting(self, state: SessionState, user: str, pending: PendingWill | None) -> None:
        """Wait for a client that has just gone, for as long as its session lasts."""
        end = SessionEnd(user, state.expiry_s, self.now_ms(), pending)
        self._put_end(state, self._end_change, end, partial(self._on_end_kept, state, end.at_ms))

    def _put_end(
        self, state: SessionState, change: EndChange, end: SessionEnd, then: Callable[[], None]
    ) -> None:
        """Have the end of a connection put on record, as `change` says, and call `then`."""
        key, record = state.key, state.record

        def decide() -> DueChange:
            decided = change(key, record, end)
            self.ending.note(key, end, is_pending=not decided[0].changes_nothing)
            return decided

        def done() -> None:
            self.ending.note(key, end, is_pending=False)
            then()

        self._ensure(decide, done)

    def _on_end_kept(self, state: SessionState, ended_at_ms: int) -> None:
        """The end of a connection is on record, unless another was first."""
        kept = self.kept(state.key)
        if kept is not None and self._is_left(state.key) and kept.ended_at_ms == ended_at_ms:
            self._resume_waiting(state, kept)

    def _publish_waiting(self, key: SessionKey, record: bytes) -> None:
        """Publish a will whose time has come, if that is still on record."""
        self.wills.session_resumed(key)

        def decide() -> tuple[Change, PendingWill | None]:
            vhost, kept = self.services.vhosts.get(key[0]), self.kept(key)
            if vhost is None or kept is None or not self._is_left(key) or kept.record != record:
                return NOTHING, None
            change = keep_session(vhost, key[1], kept._replace(record=encode_record(None)))
            return change, decode_record(key, record)

        self._ensure(decide)

    def _expire_later(self, state: SessionState, seconds: float) -> None:
        """End a session in so many seconds, and not before, if it ends at all."""
        self._stop_expiry(state.key)
        if state.expiry_s == NEVER_S:
            return
        if seconds <= 0:
            self._expire(state)
            return
        call_later = self.services.runtime.call_later
        # mutant: MQ31
        self._expiries[state.key] = call_later(seconds, partial(self._expire, state))

    def _end_soon(self, state: SessionState) -> None:
        """End a session whose client is away, and which lasts no longer, once what has changed it
        is done with."""
        state.expiry_s = 0
        if state.key not in self.connected:
            self._stop_expiry(state.key)
            end = partial(self._expire, state)
            self._expiries[state.key] = self.services.runtime.call_later(0, end)

    def connect_over(self, key: SessionKey, *, is_let_in: bool) -> None:
        """A client that was to connect is let in, or is not: then the session goes on to wait, if
        it did, or is deleted, if it has ended meanwhile."""
        self.connecting[key] -= 1
        if not self.connecting[key]:
            del self.connecting[key]
        state, kept = self.states.find(key), self.kept(key)
        if is_let_in or kept is None:
            return
        if state is None:
            self._delete(key)  # mutant: MQ66
        elif kept.ended_at_ms and key not in self._expiries and key not in self.connected:
            away_s = (self.now_ms() - kept.ended_at_ms) / 1000
            self._expire_later(state, max(0, state.expiry_s - away_s))

    def _stop_expiry(self, key: SessionKey) -> None:
        if (timer := self._expiries.pop(key, None)) is not None:
            timer.cancel()

    def _expire(self, state: SessionState) -> None:
        self._expiries.pop(state.key, None)
        if not self.is_own(state.key):
            self._forget(state)
        elif state.key not in self.connecting:
            self.sys.expired += 1
            with self._together():
                self._forget(state)
                self._delete(state.key)

    def _forget(self, state: SessionState) -> None:
        """Forget a session that has ended, or is not this node's any more; what is defined of it is
        deleted elsewhere."""
        self._drop(state)
        self.wills.session_resumed(state.key)

    def _drop(self, state: SessionState) -> None:
        self._stop_expiry(state.key)
        self.states.end(state)
        held, state.held = state.held, {}
        for delivery_batch, start, stop in held.values():
            delivery_batch.holder.queue.settle(delivery_batch, start, stop, Outcome.LOST)

    def _delete(self, key: SessionKey) -> None:
        """Delete what is defined of a session that has ended, if it was this node's; if a client
        with its identifier is connecting, not before that is refused."""

        def decide() -> tuple[Change, PendingWill | None]:
            vhost, kept = self.services.vhosts.get(key[0]), self.kept(key)
            if vhost is None or kept is None or not self._is_left(key) or key in self.connecting:
                return NOTHING, None
            pending = decode_record(key, kept.record) if kept.ended_at_ms else None
            return deletion(vhost, key[1], self.config.exchange), pending

        self._ensure(decide)

    def _delete_change(
        self, key: SessionKey, record: bytes, end: SessionEnd
    ) -> tuple[Change, PendingWill | None]:
        """Return what deletes a session with its connection, as `_end_change`; if a client with its
        identifier is connecting, that is done once it is refused.

        Exclusive queues go with their connections: those that are there are of another."""
        change, pending = self._end_change(key, record, end)
        if change.changes_nothing or key in self.connecting:
            return change, pending
        vhost = self.services.vhosts[key[0]]
        return deletion(vhost, key[1], self.config.exchange), pending


class Takeovers:
    """Connections that have ended since their clients had connected anew.

    Two clients with the same identifier end each other for ever, as both come again: the log names
    it, once in a while.
    """

    __slots__ = ("_clock", "_last_ms", "_log", "count")

    def __init__(self, clock: Clock, log: LimitedLog) -> None:
        self._clock, self._log = clock, log
        self._last_ms: dict[int, int] = {}
        """Time of the last takeover of a session, by its hash: an identifier may be long."""
        self.count = 0

    def note(self, key: SessionKey) -> None:
        """Note that a session was taken over."""
        self.count += 1
        now_ms, hashed = self._clock.now_ms(), hash(key)
        last_ms = self._last_ms.pop(hashed, None)
        if len(self._last_ms) >= TAKEOVERS_MAX:
            self._last_ms.clear()
        self._last_ms[hashed] = now_ms
        if last_ms is not None and now_ms - last_ms < AGAIN_MS:
            vhost, client = key
            self._log.inform("session_taken_over_again", vhost=vhost, client=client[:SHOWN_MAX])


class UnkeptClients:
    """Connected clients whose sessions are not on record, as `LocalClients`.  Of all others the
    record says at which node they are."""

    __slots__ = ("_server", "announce")

    def __init__(self, server: MqttServer) -> None:
        self._server = server
        self.announce: Callable[[SessionKey, int], None] = ignore_client
        """Tells the other nodes of one that has come, and when."""

    def connected_since(self) -> Iterator[tuple[str, str, int]]:
        for key in self._server.connected:
            if (at_ms := self.came_at_ms(*key)) is not None:
                yield *key, at_ms

    def came_at_ms(self, vhost: str, client_id: str) -> int | None:
        key = vhost, client_id
        client, state = self._server.connected.get(key), self._server.states.find(key)
        return None if client is None or state is None or state.is_kept else client.came_at_ms

    def came_elsewhere(self, vhost: str, client_id: str) -> None:
        self._server.connected[vhost, client_id].take_over(do_nothing)


def ignore_client(_key: SessionKey, _at_ms: int) -> None:
    """Do nothing: there is no other node."""


def expires_at_ms(kept: ClientSession | None) -> int | None:
    """Return when a session ends, since 1970; None while its client is there, or if it never
    does."""
    if kept is None or not kept.ended_at_ms or kept.expiry_s == NEVER_S:
        return None
    return kept.ended_at_ms + kept.expiry_s * 1000


def queues_of(vhost: VirtualHost, client_id: str) -> tuple[QueueHandle, ...]:
    """The queues of a session that are there."""
    found: tuple[QueueHandle, ...] = ()
    for name in subscription_queues(client_id):
        queue = vhost.queues.get(name)
        found = found if queue is None else (*found, queue)
    return found


def lasting_queues_of(vhost: VirtualHost, client_id: str) -> tuple[QueueHandle, ...]:
    """The queues of a session that outlive its connections."""
    return tuple(queue for queue in queues_of(vhost, client_id) if queue.owner is None)


def renew_expiry(vhost: VirtualHost, client_id: str, expiry_s: int) -> Change:
    """Let the queues of a session be unused for as long as it lasts by now."""
    change, expiry = NOTHING, expiry_arguments(expiry_s)
    for queue in lasting_queues_of(vhost, client_id):
        arguments = {**queue.spec.arguments}
        arguments.pop(X_EXPIRES, None)
        arguments |= expiry
        spec = replace(queue.spec, arguments=arguments)
        if spec != queue.spec:
            definition = queue.definition._replace(spec=spec)
            change = change.joined(queue_changes.redefinition(vhost.name, definition))
    return change


def deletion(vhost: VirtualHost, client_id: str, exchange: str) -> Change:
    """Delete what is defined of a session that lasts.  `exchange`: that of MQTT."""
    queues = queue_changes.delete_queues(vhost, lasting_queues_of(vhost, client_id))
    leaving = memberships(vhost, exchange, client_id, LASTS)
    change = queues.joined(queue_changes.leave_groups(vhost, leaving))
    return change.joined(end_session(vhost, client_id))  # mutant: MQ35


def has_definitions(vhost: VirtualHost, client_id: str, exchange: str) -> bool:
    """True if anything is defined of a session.  `exchange`: that of MQTT."""
    return (
        client_id in vhost.client_sessions.by_client
        or bool(queues_of(vhost, client_id))
        or bool(memberships(vhost, exchange, client_id, LASTS))
    )


def bound_subscriptions(
    vhost: VirtualHost, exchange: str, client_id: str
) -> Iterator[TopicSubscription]:
    """Yield what the bindings of a session say of its subscriptions."""
    found = iter(memberships(vhost, exchange, client_id, LASTS).values())
    for queue in subscription_queues(client_id):
        own = queue_changes.subscriptions(vhost, exchange, queue)
        found = chain(found, (each for _, each in own))
    for each in found:
        yield TopicSubscription(each.topic_filter, each.options, each.identifier or 0, each.group)
