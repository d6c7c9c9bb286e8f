"""Model of MQTT sessions: two clients on lines that lose what is under way, and what each must get.

    world = MqttWorld()
    world.connect("a", clean_start=False, expiry_s=100)
    world.subscribe("a", "t/#", 2)
    world.run()                      # until nothing is under way
    world.publish("b", "t/1", 2); world.flush("b", 1); world.cut("b")
    world.finish()                   # all comes back, and is checked

Nothing moves by itself but the node: clients read, send and acknowledge a packet at a time, as they
are asked to.  All that the node has done is durable before the next step.  What a client is sent is
checked as it reads it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from fluffle.protocol.mqtt.codes import MQTT_5, PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import (
    Ack,
    Connack,
    Disconnect,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
)
from fluffle.protocol.mqtt.properties import Properties, PropertyId
from fluffle.protocol.mqtt.reader import Acks, Publishes
from tests.support.mqtt_edge import MqttClient
from tests.support.mqtt_restarts import RestartedMqtt

LONGEST_S = 86_400
"""Expiry of a session of 3.1.1 that lasts."""
NO_LOCAL = 0b100
REQUEST_ID = 1000
"""Packet identifier of SUBSCRIBE and UNSUBSCRIBE, which no message has."""
STEPS_MAX = 5_000


def matches(topic_filter: str, topic: str) -> bool:
    """Return whether a topic filter matches a topic, level by level."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    for at, level in enumerate(wanted):
        if level == "#":
            return True
        if at >= len(levels) or level not in ("+", levels[at]):
            return False
    return len(wanted) == len(levels)


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """Message that a client has published, or its will."""

    sender: str
    topic: str
    payload: bytes
    qos: int


@dataclass(slots=True, eq=False)
class Entry:
    """Message on its way to a session."""

    message: Message
    granted: set[int]
    """Largest QoS of the subscriptions that match, now or since it came."""
    is_queued: bool
    """True if it waits in the queue of QoS 1 and 2."""
    is_excluded: bool = False
    """True if it is the client's own, which wants none of these."""
    may_lack: bool = False
    lines: int = 0
    """Connections over which it may have been sent."""
    was_read: bool = False
    packet_id: int = 0
    """Identifier under which it must come again; 0 if that is not known."""
    read_qos: int = 0

    def qos(self) -> set[int]:
        """The QoS with which it may be sent."""
        if self.was_read and self.read_qos:
            return {self.read_qos}
        return {min(self.message.qos, each) for each in self.granted}

    def unlikeness(self, packet: Publish) -> int:
        """Return how little identifier and DUP of a packet are those of this message."""
        if not packet.qos:
            return 0
        if self.packet_id:
            return 0 if packet.dup and self.packet_id == packet.packet_id else 2
        return 2 if packet.dup and self.lines < 2 else 1


@dataclass(slots=True, eq=False)
class RetainedDue:
    """Retained messages that a client is sent since it has subscribed."""

    topic_filter: str
    granted: set[int]
    """QoS of the subscription, then and since."""
    since: int
    """Changes of retained messages before it subscribed."""
    lacking: set[str]
    """Topics of which one has to come."""
    came: dict[str, RetainedCopy] = field(default_factory=dict)
    """Messages that have come, by topic."""

    def take(self, copy: RetainedCopy) -> None:
        """Have a message be the one of its topic."""
        self.came[copy.topic] = copy
        self.lacking.discard(copy.topic)


@dataclass(slots=True, eq=False)
class RetainedCopy:
    """Retained message that a client was sent, for one of several subscriptions: none says which.

    Each subscription has one of a topic (S5 3.3.1.3); what came for one is taken to be for another,
    should what comes later be for the first alone.
    """

    topic: str
    fits: list[RetainedDue]

    def place(self, *, may_be_spare: bool) -> bool:
        """Find what it is for, and move others for that; False if it is for nothing.

        `may_be_spare`: whether that may be what need not have come.
        """
        return self._place(set(), may_be_spare=may_be_spare)

    def _place(self, tried: set[int], *, may_be_spare: bool) -> bool:
        topic = self.topic
        for due in self.fits:
            if id(due) in tried:
                continue
            tried.add(id(due))
            other = due.came.get(topic)
            if other is None:
                is_free = may_be_spare or topic in due.lacking
            else:
                is_free = other._place(tried, may_be_spare=may_be_spare)
            if is_free:
                due.take(self)
                return True
        return False


@dataclass(slots=True, eq=False)
class ModelSession:
    """Session of a client, as it must be at the node."""

    expiry_s: int
    subscriptions: dict[str, int] = field(default_factory=dict)
    """Options by topic filter."""
    entries: list[Entry] = field(default_factory=list)
    retained: list[RetainedDue] = field(default_factory=list)
    incoming: set[int] = field(default_factory=set)
    """Packets of QoS 2 from the client that are taken and not released."""
    sent: dict[int, Entry | bytes] = field(default_factory=dict)
    """Messages that the client has read and not acknowledged; of a retained message its payload."""
    unfinished: set[int] = field(default_factory=set)
    """Packets that the node has read PUBREC of, and not PUBCOMP."""
    ended_at_s: float | None = None
    will: Message | None = None
    will_delay_s: int = 0

    def matching(self, message: Message, name: str) -> tuple[list[int], list[int]]:
        """QoS of the subscriptions that match; and of those that want nothing of the client's
        own, as this is."""
        found = [
            options
            for topic_filter, options in self.subscriptions.items()
            if matches(topic_filter, message.topic)
        ]
        is_own = message.sender == name
        unwanted = [each & 3 for each in found if is_own and each & NO_LOCAL]
        return [each & 3 for each in found if not (is_own and each & NO_LOCAL)], unwanted


class ModelClient:
    """Client that behaves as the specification wants."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.line: MqttClient | None = None
        self.version = MQTT_5
        self.is_let_in = False
        self.inbox: deque[object] = deque()
        self.outbox: deque[Publish | Ack | Subscribe | Unsubscribe] = deque()
        self.session: ModelSession | None = None
        """The session that it believes to have; all below is of that."""
        self.under_way: dict[int, Publish] = {}
        """Messages published, and not acknowledged."""
        self.released: dict[int, None] = {}
        self.held: dict[int, bytes] = {}
        """Packets of QoS 2 that it has taken, and the node has not released."""
        self.expected = {PacketType.PUBACK: deque[int](), PacketType.PUBREC: deque[int]()}
        """Answers that the node owes over this connection, in order."""
        self.read: set[Entry] = set()
        """Messages read over this connection."""
        self.window: set[int] = set()
        """Packets that came over this connection and whose end the node has not heard of."""
        self.receive_max = 0
        self.must_be_present = False

    def forget_session(self) -> None:
        self.under_way.clear()
        self.released.clear()
        self.held.clear()

    def lose(self) -> None:
        self.line, self.is_let_in = None, False
        self.inbox.clear()
        self.outbox.clear()
        self.read.clear()
        self.window.clear()
        for answers in self.expected.values():
            answers.clear()

    def pull(self) -> None:
        """Have what the node has sent on the line, packet by packet."""
        if self.line is None:
            return
        for each in self.line.packets():
            if isinstance(each, Publishes):
                ids = each.packet_ids or [0] * len(each.payloads)
                for packet_id, payload in zip(ids, each.payloads, strict=True):
                    self.inbox.append(
                        Publish(each.topic, payload, each.qos, each.retain, each.dup, packet_id)
                    )
            elif isinstance(each, Acks):
                self.inbox.extend(Ack(each.kind, packet_id) for packet_id in each.packet_ids)
            else:
                self.inbox.append(each)


class MqttWorld:
    """A node, two clients and the model of their sessions."""

    def __init__(self) -> None:
        self.node = RestartedMqtt()
        self.clients = {name: ModelClient(name) for name in ("a", "b")}
        self.sessions: dict[str, ModelSession] = {}
        self.retained: dict[str, Message] = {}
        self.changes: list[tuple[str, Message | None]] = []
        """Changes of retained messages."""
        self.now_s = 0.0
        self._numbers = count(1)

    # Connections

    def connect(
        self,
        name: str,
        version: int = MQTT_5,
        *,
        clean_start: bool = False,
        expiry_s: int = 100,
        receive_max: int = 2,
        will: int | None = None,
    ) -> None:
        """Connect, in the place of a connection that is there.  `will`: its delay."""
        client = self.clients[name]
        if version < MQTT_5:
            expiry_s, receive_max, will = (0 if clean_start else LONGEST_S), 0, will and 0
        before = client.line
        ended, sent, delay_s = None, None, will or 0
        if will is not None:
            ended = Message(name, f"w/{name}", b"will %d" % next(self._numbers), 1)
            sent = Will(ended.topic.encode(), ended.payload, 1, delay_s=delay_s)
        line = self.node.begin(
            name,
            version,
            clean_start=clean_start,
            expiry_s=expiry_s if version == MQTT_5 else 0,
            receive_max=receive_max,
            will=sent,
        )
        self.node.settle()
        if before is not None:
            self._taken_over(client, before)
        session, client.must_be_present = self.sessions.get(name), False
        if session is not None and not clean_start:
            client.must_be_present = True
        elif session is not None:
            self._end(name)
            session = None
        if session is None:
            session = self.sessions[name] = ModelSession(expiry_s)
        session.expiry_s, session.ended_at_s = expiry_s, None
        session.will, session.will_delay_s = ended, delay_s
        for entry in session.entries:
            entry.lines += 1
        client.line, client.version, client.receive_max = line, version, receive_max or 1000

    def _taken_over(self, client: ModelClient, before: MqttClient) -> None:
        last = before.packets()
        assert before.transport.is_lost, "the connection before stays"
        if client.version == MQTT_5:
            assert last
            assert isinstance(last[-1], Disconnect), last
            assert last[-1].code is ReasonCode.SESSION_TAKEN_OVER
        client.lose()
        self._ended(client.name)

    def cut(self, name: str) -> None:
        """Lose a line, and all that is under way on it."""
        client = self.clients[name]
        if client.line is not None:
            client.line.lose()
            self.node.settle()
            client.lose()
            self._ended(name)

    def disconnect(self, name: str, *, with_will: bool = False, ends: bool = False) -> None:
        """Send what is to be sent, and leave; `ends`: the session, too."""
        client = self.clients[name]
        self.flush(name, len(client.outbox))
        if client.line is None:
            return
        session, properties, code = self.sessions[name], Properties(), ReasonCode.SUCCESS
        if client.version == MQTT_5:
            code = ReasonCode.DISCONNECT_WITH_WILL if with_will else code
            if ends:
                properties.values[PropertyId.SESSION_EXPIRY_INTERVAL] = 0
                session.expiry_s = 0
        if code is ReasonCode.SUCCESS:
            session.will = None
        client.line.send(Disconnect(code, properties))
        self.node.settle()
        client.line.lose()
        client.lose()
        self._ended(name)

    def kill(self) -> None:
        """End the node, and begin another."""
        self.node.kill()
        late: list[tuple[Message, bool]] = []
        for name, client in self.clients.items():
            session, was_there = self.sessions.get(name), client.line is not None
            client.lose()
            if session is None:
                continue
            self._forget_by_kill(session)
            if not was_there:
                continue
            will, session.will = session.will, session.will
            if not session.expiry_s:
                del self.sessions[name]
                if will is not None and client.must_be_present:  # it was kept
                    late.append((will, True))
                continue
            self._left(session)
            session.ended_at_s = self.now_s
            if will is not None and not session.will_delay_s:
                session.will = None
                late.append((will, False))
        for will, may_lack in late:
            self.route(will, may_lack=may_lack)

    def _forget_by_kill(self, session: ModelSession) -> None:
        """Messages of QoS 0 need not outlive the node, nor what waits for answers past queues."""
        for entry in session.entries:
            entry.may_lack = entry.may_lack or not entry.is_queued or 0 in entry.qos()
            entry.lines += 1
            if entry.read_qos != 2:
                entry.packet_id = entry.read_qos = 0
        session.retained.clear()
        for packet_id, sent in tuple(session.sent.items()):
            if isinstance(sent, bytes) or sent.read_qos != 2:
                del session.sent[packet_id]

    def _left(self, session: ModelSession) -> None:
        """The connection of a session has ended: what was sent with QoS 0 is gone."""
        session.entries = [each for each in session.entries if each.is_queued]
        for entry in session.entries:
            entry.may_lack = entry.may_lack or 0 in entry.qos()
        for due in session.retained:
            due.lacking = {topic for topic in due.lacking if self._has_qos(due, topic)}

    def _has_qos(self, due: RetainedDue, topic: str) -> bool:
        """Return whether a topic has always had more than QoS 0: all other was sent."""
        return 0 not in due.granted and all(
            each.qos for each in self._retained_since(topic, due.since)
        )

    def _ended(self, name: str) -> None:
        """A connection has ended: its will is published, now or later."""
        session = self.sessions[name]
        self._left(session)
        session.ended_at_s = self.now_s
        if not session.expiry_s:
            self._end(name)
        elif session.will is not None and not session.will_delay_s:
            will, session.will = session.will, None
            self.route(will)

    def _end(self, name: str) -> None:
        """A session has ended: a will that waits is published."""
        session = self.sessions.pop(name)
        if session.will is not None:
            self.route(session.will)

    def advance(self, seconds: float) -> None:
        """Let time pass: wills and ends of sessions come when they are due."""
        until_s = self.now_s + seconds
        while True:
            due = [each for each in self._due() if each[0] <= until_s]
            if not due:
                break
            at_s, name, is_end = min(due)
            self.now_s = at_s
            if is_end:
                self._end(name)
            elif (will := self.sessions[name].will) is not None:
                self.sessions[name].will = None
                self.route(will)
        self.now_s = until_s
        self.node.advance(seconds)

    def _due(self) -> Iterator[tuple[float, str, bool]]:
        for name, session in self.sessions.items():
            if session.ended_at_s is None:
                continue
            if session.will is not None and session.will_delay_s < session.expiry_s:
                yield session.ended_at_s + session.will_delay_s, name, False
            yield session.ended_at_s + session.expiry_s, name, True

    # What clients ask for

    def publish(
        self, name: str, topic: str, qos: int, *, retain: bool = False, empty: bool = False
    ) -> None:
        client = self.clients[name]
        if not client.is_let_in:
            return
        packet_id = 0
        if qos:
            packet_id = next(
                each for each in count(1) if each not in client.under_way | client.released
            )
        payload = b"" if empty else b"%d" % next(self._numbers)
        packet = Publish(topic.encode(), payload, qos, retain, packet_id=packet_id)
        if qos:
            client.under_way[packet_id] = packet
        client.outbox.append(packet)

    def subscribe(self, name: str, topic_filter: str, options: int) -> None:
        client = self.clients[name]
        if client.is_let_in:
            options &= 0b11 if client.version < MQTT_5 else 0xFF
            client.outbox.append(Subscribe(REQUEST_ID, [(topic_filter, options)]))

    def unsubscribe(self, name: str, topic_filter: str) -> None:
        client = self.clients[name]
        if client.is_let_in:
            client.outbox.append(Unsubscribe(REQUEST_ID, [topic_filter]))

    def flush(self, name: str, packets: int = 1) -> None:
        """Have packets of a client arrive at the node."""
        client = self.clients[name]
        for _ in range(packets):
            if client.line is None or not client.outbox:
                return
            packet, session = client.outbox.popleft(), self.sessions[name]
            if isinstance(packet, Publish):
                self._published(client, session, packet)
            elif isinstance(packet, Subscribe):
                self._subscribed(name, session, packet)
            elif isinstance(packet, Unsubscribe):
                self._unsubscribed(name, session, packet)
            elif packet.kind is PacketType.PUBREL:
                session.incoming.discard(packet.packet_id)
            else:
                self._acknowledged(client, session, packet)
            client.line.send(packet)
            self.node.settle()

    def _published(self, client: ModelClient, session: ModelSession, packet: Publish) -> None:
        if packet.qos:
            kind = PacketType.PUBACK if packet.qos == 1 else PacketType.PUBREC
            client.expected[kind].append(packet.packet_id)
        if packet.qos == 2:
            if packet.packet_id in session.incoming:
                return
            session.incoming.add(packet.packet_id)
        message = Message(client.name, packet.topic.decode(), packet.payload, packet.qos)
        self.route(message)
        if packet.retain:
            self._retain(message)

    def route(self, message: Message, *, may_lack: bool = False) -> None:
        """A message comes to all sessions that have subscribed."""
        for name, session in self.sessions.items():
            wanted, unwanted = session.matching(message, name)
            if not wanted and not unwanted:
                continue
            granted = max(wanted or unwanted)
            entry = Entry(message, {granted}, granted > 0, not wanted, may_lack)
            entry.lines = int(self.clients[name].line is not None)
            session.entries.append(entry)
            if wanted and not granted and max(unwanted, default=0):  # it is in both queues
                other = Entry(message, {max(unwanted)}, is_queued=True, is_excluded=True)
                other.lines = entry.lines
                session.entries.append(other)

    def _retain(self, message: Message) -> None:
        topic = message.topic
        self.changes.append((topic, message if message.payload else None))
        if message.payload:
            self.retained[topic] = message
            return
        self.retained.pop(topic, None)
        for session in self.sessions.values():
            for due in session.retained:
                due.lacking.discard(topic)

    def _retained_since(self, topic: str, since: int) -> list[Message]:
        """Return all that a topic has retained from that change on."""
        before = [each for at, each in self.changes[:since] if at == topic][-1:]
        later = [each for at, each in self.changes[since:] if at == topic]
        return [each for each in (*before, *later) if each is not None]

    def _subscribed(self, name: str, session: ModelSession, packet: Subscribe) -> None:
        [(topic_filter, options)] = packet.filters
        is_new = topic_filter not in session.subscriptions
        session.subscriptions[topic_filter] = options
        self._subscriptions_changed(name, session)
        handling = options >> 4
        for due in session.retained:
            if due.topic_filter == topic_filter:
                due.granted.add(options & 3)
        if handling == 2 or (handling == 1 and not is_new):
            return
        for due in session.retained:
            if due.topic_filter == topic_filter:
                due.lacking.clear()  # it begins anew
        topics = {topic for topic in self.retained if matches(topic_filter, topic)}
        session.retained.append(RetainedDue(topic_filter, {options & 3}, len(self.changes), topics))

    def _unsubscribed(self, name: str, session: ModelSession, packet: Unsubscribe) -> None:
        [topic_filter] = packet.filters
        session.subscriptions.pop(topic_filter, None)
        for due in session.retained:
            if due.topic_filter == topic_filter:
                due.lacking.clear()
        self._subscriptions_changed(name, session)

    def _subscriptions_changed(self, name: str, session: ModelSession) -> None:
        """Let messages that wait be sent as they would have been, or as they are to be now."""
        for entry in session.entries:
            wanted, unwanted = session.matching(entry.message, name)
            if entry.is_queued:
                entry.granted.add(max((1, *wanted)))
                wanted, unwanted = [*filter(None, wanted)], [*filter(None, unwanted)]
            if (unwanted and not wanted) != entry.is_excluded:
                entry.is_excluded, entry.may_lack = False, True

    def _acknowledged(self, client: ModelClient, session: ModelSession, packet: Ack) -> None:
        packet_id = packet.packet_id
        if packet.kind is not PacketType.PUBCOMP:
            found = session.sent.pop(packet_id, None)
            if isinstance(found, Entry):
                session.entries.remove(found)
        if packet.kind is PacketType.PUBREC:
            session.unfinished.add(packet_id)
        else:
            session.unfinished.discard(packet_id)
            client.window.discard(packet_id)

    # What clients are sent

    def read(self, name: str, packets: int = 1) -> None:
        """Have a client read packets, and answer them."""
        client = self.clients[name]
        client.pull()
        for _ in range(packets):
            if not client.inbox or client.line is None:
                return
            packet = client.inbox.popleft()
            if isinstance(packet, Connack):
                self._let_in(client, packet)
            elif isinstance(packet, Publish):
                self._on_publish(client, packet)
            elif isinstance(packet, Ack):
                self._on_ack(client, packet)
            elif isinstance(packet, Suback):
                assert not packet.codes[0].is_error, packet
            else:
                assert isinstance(packet, Unsuback), packet

    def _let_in(self, client: ModelClient, packet: Connack) -> None:
        assert not packet.code
        assert packet.session_present == client.must_be_present, "session present"
        session = self.sessions[client.name]
        if client.session is not session:
            assert not client.session or client.session not in self.sessions.values()
            client.forget_session()
            client.session = session
        client.is_let_in = True
        for each in client.under_way.values():
            each.dup = True
            client.outbox.append(each)
        client.outbox.extend(Ack(PacketType.PUBREL, each) for each in client.released)

    def _on_ack(self, client: ModelClient, packet: Ack) -> None:
        kind, packet_id = packet.kind, packet.packet_id
        if kind in (PacketType.PUBACK, PacketType.PUBREC):
            assert not packet.code.is_error, packet
            assert client.expected[kind].popleft() == packet_id, "answers in another order"
            client.under_way.pop(packet_id, None)
            if kind is PacketType.PUBREC:
                client.released[packet_id] = None
                client.outbox.append(Ack(PacketType.PUBREL, packet_id))
        elif kind is PacketType.PUBCOMP:
            client.released.pop(packet_id, None)
        else:
            client.held.pop(packet_id, None)
            client.outbox.append(Ack(PacketType.PUBCOMP, packet_id))

    def _on_publish(self, client: ModelClient, packet: Publish) -> None:
        session, packet_id = self.sessions[client.name], packet.packet_id
        if packet.retain:
            self._on_retained(client, session, packet)
        else:
            self._on_live(client, session, packet)
        if not packet.qos:
            return
        assert packet_id not in client.window, "an identifier is in use"
        client.window.add(packet_id)
        assert len(client.window) <= client.receive_max, "more than the client takes"
        if packet.qos == 1:
            client.outbox.append(Ack(PacketType.PUBACK, packet_id))
        else:
            client.held[packet_id] = packet.payload
            client.outbox.append(Ack(PacketType.PUBREC, packet_id))

    def _on_live(self, client: ModelClient, session: ModelSession, packet: Publish) -> None:
        entry = self._next_entry(client, session, packet)
        packet_id = packet.packet_id
        if packet.qos:
            if packet.dup:
                assert entry.lines > 1, f"{packet} was not sent before"
            else:
                assert not entry.was_read, f"{packet} comes again without DUP"
            if entry.packet_id:
                assert entry.packet_id == packet_id, f"{packet} was {entry.packet_id}"
            else:
                assert packet_id not in session.sent, f"{packet}: identifier in use"
                assert packet_id not in session.unfinished, f"{packet}: identifier in use"
                assert packet_id not in client.held, f"{packet}: identifier is held"
            session.sent[packet_id] = entry
        else:
            session.entries.remove(entry)
        entry.was_read, entry.packet_id, entry.read_qos = True, packet_id, packet.qos
        client.read.add(entry)

    def _next_entry(self, client: ModelClient, session: ModelSession, packet: Publish) -> Entry:
        """Return the message of a packet: the first of its topic in either queue."""
        topic, candidates = packet.topic.decode(), list[Entry]()
        for is_queued in (True, False):
            for entry in session.entries:
                if entry in client.read or entry.message.topic != topic:
                    continue
                if entry.is_queued is not is_queued or entry.is_excluded:
                    continue
                if entry.message.payload == packet.payload and packet.qos in entry.qos():
                    candidates.append(entry)
                if not entry.may_lack:
                    break
        candidates.sort(key=lambda each: (each.unlikeness(packet), each.may_lack))
        assert candidates, f"{client.name}: {packet} is not next of {session.entries}"
        return candidates[0]

    def _on_retained(self, client: ModelClient, session: ModelSession, packet: Publish) -> None:
        packet_id = packet.packet_id
        if packet.qos == 2 and packet_id in client.held:
            assert packet.dup, f"{packet} comes again without DUP"
            assert client.held[packet_id] == packet.payload, f"{packet} is another message"
            session.sent[packet_id] = packet.payload
            return
        if packet_id and packet_id in session.sent:
            assert packet.dup, f"{packet} comes again without DUP"
            assert session.sent[packet_id] == packet.payload, f"{packet} is another message"
            return
        assert packet_id not in session.unfinished, f"{packet}: identifier in use"
        topic = packet.topic.decode()
        fits = [due for due in session.retained if self._is_due(due, topic, packet)]
        copy = RetainedCopy(topic, fits)
        is_due = copy.place(may_be_spare=False) or copy.place(may_be_spare=True)
        assert is_due, f"{client.name}: {packet} is none of {session.retained}"
        if packet_id:
            session.sent[packet_id] = packet.payload

    def _is_due(self, due: RetainedDue, topic: str, packet: Publish) -> bool:
        return matches(due.topic_filter, topic) and any(
            each.payload == packet.payload
            and packet.qos in {min(each.qos, qos) for qos in due.granted}
            for each in self._retained_since(topic, due.since)
        )

    # The end

    def run(self) -> None:
        """Have all that is under way arrive."""
        for _ in range(STEPS_MAX):
            is_quiet = True
            for name, client in self.clients.items():
                client.pull()
                is_quiet = is_quiet and not client.inbox and not client.outbox
                self.read(name, len(client.inbox))
                self.flush(name, len(client.outbox))
            if is_quiet:
                self._at_rest()
                return
        raise AssertionError("it comes to no end")

    def _at_rest(self) -> None:
        """Check that clients that are connected have all they must have."""
        for name, session in self.sessions.items():
            if self.clients[name].line is None:
                continue
            lacking = [each for each in session.entries if not (each.may_lack or each.is_excluded)]
            assert not lacking, f"{name} lacks {lacking}"
            retained = [each for each in session.retained if each.lacking]
            assert not retained, f"{name} lacks {retained}"
            session.entries.clear()
            session.retained.clear()

    def finish(self) -> None:
        """Have all clients come back, and see that nothing is left and nothing lacks."""
        for name in tuple(self.sessions):
            if self.clients[name].line is None:
                self.connect(name)
        self.run()
        states = self.node.mqtt.server.states
        assert len(states) == len(self.sessions)
        for name, session in self.sessions.items():
            client, state = self.clients[name], states.find(("/", name))
            assert state is not None
            assert not {**client.under_way, **client.released, **client.held}, vars(client)
            assert not state.packet_ids.used
            assert not state.incoming
            assert state.subscriptions.keys() == session.subscriptions.keys()
        vhost = self.node.mqtt.edge.vhost
        lasting = {name for name, session in self.sessions.items() if session.expiry_s}
        assert lasting.isdisjoint(vhost.client_sessions.packets), vhost.client_sessions.packets
        for queue in vhost.queues.values():
            assert not queue.ready_count, queue.name
