"""Clients of MQTT of a simulated cluster that publish, subscribe, and ask for what is retained.

They take a step now and then, come to any node, and leave it with or without a word.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from fluffle.broker.base.queue_names import subscription_queue
from fluffle.protocol.mqtt.codes import PacketType
from fluffle.protocol.mqtt.packets import Ack, Disconnect, Publish, Suback, Subscribe
from fluffle.protocol.mqtt.reader import Publishes
from fluffle.raft.config import NodeId
from tests.simulation.facts import Violation
from tests.support.mqtt_peers import MovingPeer, Publisher

if TYPE_CHECKING:
    from tests.simulation.mqtt.mqtt_clients import Clients
    from tests.simulation.mqtt.mqtt_node import Line

RETAINED_TOPICS = 3
MESSAGES = 1_000
"""Messages of a publisher, if a run is long."""
TOUCH = b"touch/0"
"""Content of messages that are for no client: their queue is to have something new."""


class Transmission(NamedTuple):
    """Message on its way to a node."""

    node: NodeId
    qos: int
    revision: int
    """Revision of the definitions that the node had applied when it was sent."""


class AnsweredSubscription(NamedTuple):
    """Subscription as it was answered."""

    revision: int
    """Revision of the first binding of its queue."""
    unawaited: Mapping[NodeId, int]
    """Highest revision that its node has answered without waiting for another, by that node."""

    def may_miss(self, transmission: Transmission) -> bool:
        """True if the node that took a message of QoS 1 did not know of the subscription, and was
        not waited for: it lags, or was cut off (decisions 0009 and 0020).

        One of QoS 2 is noted in the log of the definitions first: its node knows what came before.
        """
        node, qos, revision = transmission
        return qos < 2 and revision < self.revision <= self.unawaited.get(node, 0)


NO_SUBSCRIPTION = AnsweredSubscription(0, MappingProxyType({}))


class Member(MovingPeer, ABC):
    """Client that goes on by itself."""

    node: Clients
    line: Line | None
    connects = 0
    """How often it has sent CONNECT."""
    heard_us = 0

    @property
    @abstractmethod
    def is_done(self) -> bool:
        """True if nothing is left to do once nothing new is published."""

    def look(self) -> None:
        """Take the next step."""
        clients, line = self.node, self.line
        if line is None:
            if clients.some_nodes():
                self.connects += 1
                self.heard_us = clients.now_us
                self.connect()
        elif self.has_mail and clients.chance.random() < clients.reads_share:
            self.heard_us = clients.now_us
            if isinstance(self.inbox[0], Disconnect):
                self.lose()  # for whatever reason: it comes again, and its session is there
            else:
                self.act()
            clients.strike(line.node)
        elif line.is_cut:
            self.lose()
        elif clients.chance.random() < clients.leaves_share or self._is_out_of_patience():
            self.leave()
        elif self.is_let_in:
            self.go_on()

    def _is_out_of_patience(self) -> bool:
        return self.node.now_us - self.heard_us > self.node.patience_us and not (
            self.is_let_in and self.is_done
        )

    def leave(self) -> None:
        """Hang up, or come elsewhere without that."""
        if self.line is not None and self.node.chance.random() < 0.5:
            self.line.lose()
        self.lose()

    def go_on(self) -> None:
        """Do something of its own."""


class SimulatedPublisher(Member, Publisher):
    """Publisher of numbered messages, of which it remembers what it was answered."""

    messages_max = MESSAGES

    def __init__(self, clients: Clients, name: str, qos: int, *, retain: bool = False) -> None:
        Publisher.__init__(self, clients, qos, name)
        self.retain = retain
        self.acknowledged: set[int] = set()
        self.sent_on: dict[int, tuple[int, ...]] = {}
        """Connections of all clients when a message was sent first, by number."""
        self.last_sent: dict[int, Transmission] = {}
        """Last transmission of a message, by number."""

    @property
    def is_done(self) -> bool:
        return not self.published and not self.released and not self.node.wants_more(self)

    def topic_of(self, number: int) -> bytes:
        return b"kept/%d" % (number % RETAINED_TOPICS) if self.retain else self.name.encode()

    def packet(self, packet_id: int, payload: bytes, *, dup: bool = False) -> Publish:
        topic = self.topic_of(number_of(payload))
        return Publish(topic, payload, self.qos, self.retain, dup, packet_id)

    def payload_of(self, number: int) -> bytes:
        return b"%s/%d" % (self.name.encode(), number)

    def send(self, packet: Publish | Ack | Subscribe) -> None:
        super().send(packet)
        if isinstance(packet, Publish):
            assert self.line is not None
            node, number = self.line.node, number_of(packet.payload)
            sent = Transmission(node.process.node, self.qos, node.metadata.revision)
            self.last_sent[number] = sent

    def go_on(self) -> None:
        clients = self.node
        is_wanted = not clients.is_over or clients.wants_more(self)
        if self.can_publish and is_wanted and clients.wants_message():
            self.sent_on[self.next_number] = clients.connects()
            self.publish()

    def answered(self, kind: PacketType, packet_id: int) -> None:
        payload = self.published.get(packet_id)
        super().answered(kind, packet_id)
        if payload is not None and packet_id not in self.published:
            self.acknowledged.add(number_of(payload))
            self.node.acknowledged_us = self.node.now_us

    def refused(self, packet: Ack) -> None:
        """The message may have come to some; the identifier is free."""
        self.published.pop(packet.packet_id, None)


class SimulatedSubscriber(Member):
    """Subscriber to all publishers, or to what one of them retains."""

    def __init__(self, clients: Clients, name: str, topic_filter: str, qos: int) -> None:
        super().__init__(clients, name)
        self.topic_filter = topic_filter
        self.qos = qos
        self.was_present = False
        self.is_subscribed = False
        self.is_asking = False
        self.held: set[int] = set()
        self.taken: dict[str, set[int]] = {}
        """Numbers by publisher."""
        self.first_due: dict[str, int] = {}
        """Numbers by publisher of the first messages behind its subscription."""
        self.subscription = NO_SUBSCRIPTION
        self.may_be_lost = False
        """True if its queue was on disks of which a majority is lost."""
        self.again = 0
        """Messages that have come again."""
        self.late = 0
        """Messages that have come behind later ones."""

    def let_in(self, *, present: bool) -> None:
        if self.was_present and not present and not self.may_be_lost:
            raise Violation(f"mqtt: the session of {self.name} is lost")
        if self.may_be_lost or not present:
            self.begin_anew()
        self.was_present, self.is_asking, self.may_be_lost = True, False, False

    def begin_anew(self) -> None:
        """Subscribe again: what came before is of another session."""
        self.is_subscribed = False
        self.held.clear()
        self.taken.clear()

    def go_on(self) -> None:
        if not self.is_subscribed and not self.is_asking:
            self.ask()

    def ask(self) -> None:
        self.is_asking = True
        self.send(Subscribe(1, [(self.topic_filter, self.qos)]))

    def took(self, packet: object) -> None:
        assert isinstance(packet, Suback), packet
        self.is_asking = False
        if not self.is_subscribed and not packet.codes[0].is_error:
            self.is_subscribed = True
            self.subscribed()

    def subscribed(self) -> None:
        """Note which messages must come: those that are sent from now on, but to a node that does
        not know of the subscription yet, and was not waited for."""
        assert self.line is not None
        self.first_due = {each.name: each.next_number for each in self.node.publishers}
        self.subscription = AnsweredSubscription(
            self.node.bound_since(self.queue), dict(self.line.node.applied_barrier.unawaited)
        )

    @property
    def queue(self) -> str:
        """Name of the queue to which its messages come."""
        return subscription_queue(self.name, self.qos)

    @property
    def is_done(self) -> bool:
        return self.is_subscribed and not self.held and not self.lacking()

    def lacking(self) -> list[str]:
        """Return the names of some acknowledged messages that have not come."""
        return [
            f"{each.name}/{number}"
            for each in self.node.publishers
            for number in missing(
                each, self.taken.get(each.name, ()), self.first_due, self.subscription
            )
        ]

    def came(self, packet: Publishes) -> None:
        packet_ids = packet.packet_ids or [0] * len(packet.payloads)
        for packet_id, payload in zip(packet_ids, packet.payloads, strict=True):
            is_new = packet_id not in self.held
            if packet.qos == 2:
                self.held.add(packet_id)
            if packet.qos:
                kind = PacketType.PUBREC if packet.qos == 2 else PacketType.PUBACK
                self.send(Ack(kind, packet_id))
            if is_new and payload != TOUCH:
                self.take(packet, payload)

    def take(self, packet: Publishes, payload: bytes) -> None:
        """Check a message that is no repetition of one that is held."""
        sender, number = self.check_sender(packet, payload), number_of(payload)
        taken = self.taken.setdefault(sender.name, set())
        if number in taken:
            self.again += 1
            if packet.qos == 2 or sender.qos == self.qos == 0:
                raise Violation(f"mqtt: {self.name} is sent {payload!r} of QoS {packet.qos} twice")
            return
        if taken and number < max(taken):
            self.late += 1
            if self.node.is_calm:
                raise Violation(f"mqtt: {self.name} is sent {payload!r} late")
        taken.add(number)

    def check_sender(self, packet: Publishes, payload: bytes) -> SimulatedPublisher:
        """Return the publisher of a message, which must have sent it with this QoS or more."""
        name, number = payload.partition(b"/")[0].decode(), number_of(payload)
        found = [each for each in self.node.publishers if each.name == name]
        if not found or number >= found[0].next_number:
            raise Violation(f"mqtt: {self.name} is sent {payload!r}, which nobody has sent")
        if packet.qos != min(self.qos, found[0].qos):
            raise Violation(f"mqtt: {self.name} is sent {payload!r} as of QoS {packet.qos}")
        return found[0]

    def answered(self, kind: PacketType, packet_id: int) -> None:
        assert kind is PacketType.PUBREL
        self.held.discard(packet_id)
        self.send(Ack(PacketType.PUBCOMP, packet_id))


class RetainedReader(SimulatedSubscriber):
    """Client that subscribes anew again and again, and is sent what is retained."""

    def __init__(self, clients: Clients, of: SimulatedPublisher) -> None:
        super().__init__(clients, "reader", "kept/#", clients.chance.choice((1, 2)))
        self._of = of
        self.asked_us = 0
        self.found: dict[bytes, int] = {}
        """Numbers of what it was sent since it has asked, by topic."""

    def floors(self) -> dict[bytes, int]:
        """Return the last numbers that were acknowledged, by topic."""
        return {self._of.topic_of(number): number for number in sorted(self._of.acknowledged)}

    def lacking(self) -> list[str]:
        """Return the topics whose last message it is not sent."""
        if self.asked_us < self.node.rests_at_us:
            return ["what is retained"]
        return [f"{topic!r}" for topic in self.floors().keys() - self.found.keys()]

    def let_in(self, *, present: bool) -> None:
        super().let_in(present=present)
        self.asked_us = -1  # what was not sent over the connection before is not sent

    def go_on(self) -> None:
        clients = self.node
        is_due = self.asked_us < clients.rests_at_us <= clients.now_us
        if not self.is_asking and (is_due if clients.is_over else clients.chance.random() < 0.02):
            self.ask()

    def ask(self) -> None:
        self.found.clear()
        self.asked_us = self.node.now_us
        super().ask()

    def take(self, packet: Publishes, payload: bytes) -> None:
        if not packet.retain or packet.dup or self.is_asking:
            return  # what was sent before it has asked may be old
        number, topic = number_of(payload), bytes(packet.topic)
        if number >= self._of.next_number or self._of.topic_of(number) != topic:
            raise Violation(f"mqtt: {payload!r} is retained, which nobody has sent to {topic!r}")
        floor = self.floors().get(topic, 0)
        if self.asked_us >= self.node.rests_at_us and number < floor:
            raise Violation(f"mqtt: {topic!r} has {number}, though {floor} was acknowledged")
        self.found[topic] = number


def missing(
    publisher: SimulatedPublisher,
    taken: Container[int],
    first_due: Mapping[str, int],
    subscription: AnsweredSubscription,
) -> list[int]:
    """Return the first numbers that are acknowledged, and have not come though they must."""
    floor, last_sent = first_due.get(publisher.name, 0), publisher.last_sent
    return sorted(
        each
        for each in publisher.acknowledged
        if each >= floor
        and each not in taken
        and not (each in last_sent and subscription.may_miss(last_sent[each]))
    )[:3]


def number_of(payload: bytes) -> int:
    return int(payload.rpartition(b"/")[2])
