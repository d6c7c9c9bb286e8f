"""Clients of MQTT of a simulated cluster, and what they must be sent.

Publishers and subscribers have sessions that last.  They come to any node, leave it with or without
a word, and send again what was not answered.  Their node is killed between any two of their steps.

- A session that was there is present.
- A message that was acknowledged comes to all subscribers; none comes that nobody has published.
- From QoS 2 to QoS 2 each comes once.
- Where nothing fails, messages of a publisher come in order.
- A retained message is the last that was acknowledged of its topic, or a later one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from fluffle.protocol.mqtt.codes import MQTT_5, PacketType
from fluffle.protocol.mqtt.events import Publishes
from fluffle.protocol.mqtt.packets import Ack, Connect, Disconnect, Publish, Suback, Subscribe
from fluffle.protocol.mqtt.properties import Properties, PropertyId
from tests.simulation.facts import Violation
from tests.simulation.mqtt.mqtt_node import Line, MqttNode
from tests.simulation.virtual_time import SECOND_US
from tests.support.mqtt_peers import MovingPeer, Publisher

if TYPE_CHECKING:
    from tests.simulation.mqtt.mqtt_cluster import MqttCluster
    from tests.simulation.workload import Workload

LOOK_S = 0.03
"""Mean time between two steps of a client."""
RETAINED_TOPICS = 3
MESSAGES = 1_000
"""Messages of a publisher, if a run is long."""
LONG_PATIENCE_US = 20 * SECOND_US
"""How long clients wait when all is well again: networks may be slow."""
AT_REST_US = 2 * SECOND_US
"""Behind the last acknowledgement; who asks later is sent the last retained messages."""
TOUCH = b"touch/0"
"""Content of messages that are for no client: their queue is to have something new."""


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

    def go_on(self) -> None:
        clients = self.node
        is_wanted = not clients.is_over or clients.wants_more(self)
        if (
            self.can_publish
            and clients.may_publish
            and is_wanted
            and (clients.chance.random() < clients.rate)
        ):
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
        self.again = 0
        """Messages that have come again."""
        self.late = 0
        """Messages that have come behind later ones."""

    def let_in(self, *, present: bool) -> None:
        if self.was_present and not present:
            raise Violation(f"mqtt: the session of {self.name} is lost")
        self.was_present, self.is_asking = True, False

    def go_on(self) -> None:
        if not self.is_subscribed and not self.is_asking:
            self.ask()

    def ask(self) -> None:
        self.is_asking = True
        self.send(Subscribe(1, [(self.topic_filter, self.qos)]))

    def took(self, packet: object) -> None:
        assert isinstance(packet, Suback), packet
        self.is_asking = False
        self.is_subscribed = self.is_subscribed or not packet.codes[0].is_error

    @property
    def is_done(self) -> bool:
        return self.is_subscribed and not self.held and not self.lacking()

    def lacking(self) -> list[str]:
        """Return the names of some acknowledged messages that have not come."""
        return [
            f"{each.name}/{number}"
            for each in self.node.publishers
            for number in sorted(each.acknowledged - self.taken.get(each.name, set()))[:3]
        ]

    def came(self, packet: Publishes) -> None:
        for packet_id, payload in zip(packet.packet_ids, packet.payloads, strict=True):
            is_new = packet_id not in self.held
            if packet.qos == 2:
                self.held.add(packet_id)
            self.send(Ack(PacketType.PUBREC if packet.qos == 2 else PacketType.PUBACK, packet_id))
            if is_new and payload != TOUCH:
                self.take(packet, payload)

    def take(self, packet: Publishes, payload: bytes) -> None:
        """Check a message that is no repetition of one that is held."""
        name, number = payload.partition(b"/")[0].decode(), number_of(payload)
        found = [each for each in self.node.publishers if each.name == name]
        if not found or number >= found[0].next_number:
            raise Violation(f"mqtt: {self.name} is sent {payload!r}, which nobody has sent")
        taken = self.taken.setdefault(name, set())
        if number in taken:
            self.again += 1
            if packet.qos == 2:
                raise Violation(f"mqtt: {self.name} is sent {payload!r} of QoS 2 twice")
            return
        if packet.qos != min(self.qos, found[0].qos):
            raise Violation(f"mqtt: {self.name} is sent {payload!r} as of QoS {packet.qos}")
        if taken and number < max(taken):
            self.late += 1
            if self.node.is_calm:
                raise Violation(f"mqtt: {self.name} is sent {payload!r} late")
        taken.add(number)

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


def number_of(payload: bytes) -> int:
    return int(payload.rpartition(b"/")[2])


class Clients:
    """All clients of MQTT of a run."""

    def __init__(self, mqtt_cluster: MqttCluster, chance: Random) -> None:
        self._mqtt_cluster = mqtt_cluster
        self.chance = chance
        self.rate = chance.choice((0.05, 0.3, 1.0))
        """How often a publisher publishes that may, in a step."""
        self.reads_share = chance.choice((1.0, 1.0, 0.3))
        self.leaves_share = chance.choice((0.0, 0.001, 0.01))
        self.strikes_share = chance.choice((0.0, 0.003, 0.01))
        """How often a node is killed behind a step of one of its clients."""
        self.patience_us = chance.choice((2, 5, 10)) * SECOND_US
        self.is_over = False
        self.is_calm = False
        """True in a run in which nothing fails."""
        self.has_ended = False
        self.acknowledged_us = 0
        self._served: dict[str, int] = {}
        """How many messages of a publisher were acknowledged when all was to be well again."""
        self.publishers = [SimulatedPublisher(self, f"p{qos}", qos) for qos in (1, 2)]
        self.retaining = SimulatedPublisher(self, "r", chance.choice((1, 2)), retain=True)
        self.reader = RetainedReader(self, self.retaining)
        self.subscribers = [SimulatedSubscriber(self, f"s{qos}", "+", qos) for qos in (1, 2)]
        self.members: list[Member] = [
            *self.publishers, self.retaining, *self.subscribers, self.reader,
        ]  # fmt: skip
        self._workload: Workload

    def be_calm(self) -> None:
        """Have nothing fail."""
        self.leaves_share = self.strikes_share = 0.0
        self.patience_us = 1_000 * SECOND_US
        self.is_calm = True

    @property
    def now_us(self) -> int:
        return self._mqtt_cluster.cluster.clockwork.now_us

    @property
    def rests_at_us(self) -> int:
        """Time from which on what is retained is what was acknowledged last."""
        is_at_rest = self.is_over and self.retaining.is_done
        return self.acknowledged_us + AT_REST_US if is_at_rest else self.now_us + 1

    @property
    def may_publish(self) -> bool:
        """True if all subscribers have subscribed."""
        return all(each.is_subscribed for each in self.subscribers)

    def wants_more(self, publisher: SimulatedPublisher) -> bool:
        """True if a publisher has yet to be served when all is well again."""
        return self.is_over and len(publisher.acknowledged) <= self._served.get(publisher.name, 0)

    def connects(self) -> tuple[int, ...]:
        return tuple(each.connects for each in self.members)

    def some_nodes(self) -> list[MqttNode]:
        """Return nodes to which clients may connect; of paused ones they would get no answer."""
        machines = self._mqtt_cluster.cluster.machines
        return [
            each
            for each in self._mqtt_cluster.open_nodes()
            if isinstance(each, MqttNode)
            and each.mqtt is not None
            and not machines[each.process.node].is_paused
        ]

    def begin(self, client_id: str, *, clean_start: bool, expiry_s: int, receive_max: int) -> Line:
        """A client that has sent CONNECT to some node."""
        line = Line(self.chance.choice(self.some_nodes()), self._delay_s)
        properties = Properties()
        properties.values[PropertyId.SESSION_EXPIRY_INTERVAL] = expiry_s
        properties.values[PropertyId.RECEIVE_MAXIMUM] = receive_max
        line.send(
            Connect(
                MQTT_5, client_id, clean_start, 0,
                user="guest", password=b"guest", properties=properties,
            )
        )  # fmt: skip
        return line

    def _delay_s(self) -> float:
        return self.chance.expovariate(1 / 0.001)

    # A run

    def start(self, workload: Workload) -> None:
        self._workload = workload
        for member in self.members:
            self._look_later(member)

    def _look_later(self, member: Member) -> None:
        delay_us = int(self.chance.expovariate(1 / LOOK_S) * SECOND_US)
        self._mqtt_cluster.cluster.clockwork.after(delay_us, self._look, member)

    def _look(self, member: Member) -> None:
        if self._workload.is_stopped and not self.is_over:
            self.is_over = True
            for each in (*self.publishers, self.retaining):
                self._served[each.name] = len(each.acknowledged)
        if not self.has_ended:
            member.look()
            self._look_later(member)

    def strike(self, node: MqttNode) -> None:
        """Kill a node behind a step of a client, now and then, if all others run."""
        cluster, name = self._mqtt_cluster.cluster, node.process.node
        if self._workload.is_steady or self.chance.random() >= self.strikes_share:
            return
        if len(cluster.alive()) == len(cluster.names):
            soon_us = int(self.chance.choice((0, 0.002, 0.02)) * self.chance.random() * SECOND_US)
            back_us = soon_us + int((0.2 + self.chance.random()) * SECOND_US)
            cluster.clockwork.after(soon_us, partial(cluster.kill, name, is_silent=False))
            cluster.clockwork.after(back_us, cluster.start, name)

    def unfinished(self) -> str | None:
        """Return what is left to do, now that nothing new is published."""
        self.leaves_share, self.patience_us = 0.0, LONG_PATIENCE_US
        for member in self.members:
            if not (self.is_over and member.is_let_in and member.is_done):
                lacking = getattr(member, "lacking", list[str])()
                return f"{member.name} is not done: {lacking or 'it waits for answers'}"
        return None

    def end(self) -> None:
        self.has_ended = True

    def __str__(self) -> str:
        acknowledged = sum(len(each.acknowledged) for each in self.publishers)
        again = sum(each.again for each in self.subscribers)
        late = sum(each.late for each in self.subscribers)
        retained = len(self.retaining.acknowledged)
        connects = sum(self.connects())
        return (
            f"{acknowledged} acknowledged, {again} again, {late} late, {retained} retained, "
            f"{connects} connects"
        )
