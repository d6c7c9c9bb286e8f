"""Messages of QoS 1 and 2 from a client to another, while the node is killed between any two steps.

Both clients behave as the specification wants: they send again what was not answered, and take no
message of QoS 2 twice whose identifier they hold.
"""

from __future__ import annotations

from random import Random

import pytest

from fluffle.protocol.mqtt.codes import PacketType
from fluffle.protocol.mqtt.events import Acks, Publishes
from fluffle.protocol.mqtt.packets import Ack, Connack, Publish, Suback, Subscribe
from tests.suite.seeds import seeds
from tests.support.mqtt_edge import MqttClient
from tests.support.mqtt_restarts import RestartedMqtt

MESSAGES = 4
STEPS_MAX = 2_000


class Peer:
    """Client with a session that lasts, and its line to the node."""

    def __init__(self, node: RestartedMqtt, name: str) -> None:
        self.node = node
        self.name = name
        self.line: MqttClient | None = None
        self.is_let_in = False
        self.was_present = False
        self.inbox: list[object] = []

    def connect(self) -> None:
        self.line = self.node.begin(self.name, clean_start=False, expiry_s=3600, receive_max=2)
        self.is_let_in = False

    def lose(self) -> None:
        """The line is cut, or the node has gone."""
        self.line, self.is_let_in = None, False
        self.inbox.clear()

    @property
    def has_mail(self) -> bool:
        if self.line is not None:
            self.inbox += self.line.packets()
        return bool(self.inbox)

    def act(self) -> None:
        """Do the next thing: connect, or act on the next packet."""
        if self.line is None:
            self.connect()
            return
        packet = self.inbox.pop(0)
        if isinstance(packet, Connack):
            assert not packet.code
            self.is_let_in = True
            self.let_in(present=packet.session_present)
        elif isinstance(packet, Publishes):
            for packet_id, payload in zip(packet.packet_ids, packet.payloads, strict=True):
                self.message(packet.qos, packet_id, payload)
        elif isinstance(packet, Acks):
            for packet_id in packet.packet_ids:
                self.answered(packet.kind, packet_id)
        elif isinstance(packet, Ack):
            self.answered(packet.kind, packet.packet_id)
        else:
            assert isinstance(packet, Suback), packet

    def send(self, packet: Publish | Ack | Subscribe) -> None:
        assert self.line is not None
        self.line.send(packet)

    @property
    def can_act(self) -> bool:
        return self.line is None or self.has_mail

    def let_in(self, *, present: bool) -> None: ...

    def message(self, qos: int, packet_id: int, payload: bytes) -> None: ...

    def answered(self, kind: PacketType, packet_id: int) -> None: ...


class Publisher(Peer):
    def __init__(self, node: RestartedMqtt, qos: int) -> None:
        super().__init__(node, "p")
        self.qos = qos
        self.published: dict[int, bytes] = {}
        self.released: dict[int, None] = {}
        self.next_number = 0
        self.confirmed = 0

    def let_in(self, *, present: bool) -> None:
        if not present:
            assert not self.was_present, "a session is lost"
        self.was_present = True
        for packet_id, payload in self.published.items():
            self.send(Publish(b"t", payload, self.qos, dup=True, packet_id=packet_id))
        for packet_id in self.released:
            self.send(Ack(PacketType.PUBREL, packet_id))

    @property
    def can_publish(self) -> bool:
        under_way = self.published.keys() | self.released.keys()
        return self.is_let_in and self.next_number < MESSAGES and len(under_way) < 2

    def publish(self) -> None:
        under_way = self.published.keys() | self.released.keys()
        packet_id = next(each for each in (1, 2) if each not in under_way)
        payload = b"%d" % self.next_number
        self.next_number += 1
        self.published[packet_id] = payload
        self.send(Publish(b"t", payload, self.qos, packet_id=packet_id))

    def answered(self, kind: PacketType, packet_id: int) -> None:
        if kind is PacketType.PUBREC:
            if self.published.pop(packet_id, None) is not None:
                self.released[packet_id] = None
                self.confirmed += 1
            self.send(Ack(PacketType.PUBREL, packet_id))
        elif kind is PacketType.PUBCOMP:
            self.released.pop(packet_id, None)
        else:
            assert kind is PacketType.PUBACK
            self.confirmed += self.published.pop(packet_id, None) is not None

    @property
    def is_done(self) -> bool:
        return self.next_number == MESSAGES and not self.published and not self.released


class Subscriber(Peer):
    def __init__(self, node: RestartedMqtt, qos: int) -> None:
        super().__init__(node, "s")
        self.qos = qos
        self.taken: list[bytes] = []
        self.held: set[int] = set()

    def let_in(self, *, present: bool) -> None:
        assert present == self.was_present, "a session is lost, or one is there from nowhere"
        if not present:
            self.was_present = True

    def message(self, qos: int, packet_id: int, payload: bytes) -> None:
        assert qos == self.qos
        if qos == 1:
            self.taken.append(payload)
            self.send(Ack(PacketType.PUBACK, packet_id))
            return
        if packet_id not in self.held:
            self.held.add(packet_id)
            self.taken.append(payload)
        self.send(Ack(PacketType.PUBREC, packet_id))

    def answered(self, kind: PacketType, packet_id: int) -> None:
        assert kind is PacketType.PUBREL
        self.held.discard(packet_id)
        self.send(Ack(PacketType.PUBCOMP, packet_id))


class Conversation:
    """A publisher, a subscriber, and a node between them, moved step by step."""

    def __init__(self, qos: int) -> None:
        self.node = RestartedMqtt()
        self.publisher, self.subscriber = Publisher(self.node, qos), Subscriber(self.node, qos)
        line = self.node.connect("s", clean_start=False, expiry_s=3600, receive_max=2)
        line.send(Subscribe(1, [("t", qos)]))
        self.node.settle()
        line.expect(Suback)
        line.lose()
        self.node.settle()
        self.subscriber.was_present = True

    def steps(self) -> list[str]:
        """Steps that may happen next."""
        node, publisher, subscriber = self.node, self.publisher, self.subscriber
        return [
            name
            for name, may in {
                "wake": node.is_committed,
                "commit": node.has_work and not node.is_committed,
                "subscriber": subscriber.can_act,
                "publisher": publisher.can_act,
                "publish": publisher.can_publish,
            }.items()
            if may
        ]

    def step(self, name: str) -> None:
        if name == "wake":
            self.node.wake()
        elif name == "commit":
            self.node.commit()
        elif name == "publish":
            self.publisher.publish()
        else:
            (self.subscriber if name == "subscriber" else self.publisher).act()

    def kill(self) -> None:
        self.node.kill()
        self.publisher.lose()
        self.subscriber.lose()

    def cut(self, peer: Peer) -> None:
        """Cut one line."""
        if peer.line is not None:
            peer.line.lose()
        peer.lose()

    def finish(self) -> None:
        """Let all that happens come to an end, and see that all is well."""
        for _ in range(STEPS_MAX):
            steps = self.steps()
            if not steps:
                break
            self.step(steps[0])
        assert not self.steps(), "it comes to no end"
        assert self.publisher.is_done
        expected = [b"%d" % number for number in range(MESSAGES)]
        taken = self.subscriber.taken
        if self.publisher.qos == 2:
            assert taken == expected
            assert not self.subscriber.held
        else:
            firsts = list(dict.fromkeys(taken))
            assert firsts == expected, taken
        state = self.node.mqtt.server.states.find(("/", "s"))
        assert state is not None
        assert not state.packet_ids.used
        assert not self.node.mqtt.edge.vhost.client_sessions.packets
        assert not self.node.mqtt.edge.vhost.queues["mqtt-subscription-sqos1"].ready_count


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("is_lazy", [False, True], ids=["commits first", "commits last"])
def test_the_node_is_killed_once_at_each_step(qos: int, is_lazy: bool) -> None:
    at = 0
    while True:
        conversation = Conversation(qos)
        for _ in range(at):
            steps = conversation.steps()
            if not steps:
                break
            conversation.step(steps[-1] if is_lazy else steps[0])
        else:
            print(f"killed at {at}")
            conversation.kill()
            conversation.finish()
            at += 1
            continue
        break
    assert at > 20
    conversation.finish()


@pytest.mark.parametrize("qos", [1, 2])
@seeds(50)
def test_the_node_is_killed_and_lines_are_cut_at_random(qos: int, seed: int) -> None:
    random = Random(seed)
    conversation = Conversation(qos)
    for _ in range(150):
        drawn = random.random()
        if drawn < 0.04:
            conversation.kill()
        elif drawn < 0.07:
            conversation.cut(random.choice((conversation.publisher, conversation.subscriber)))
        elif steps := conversation.steps():
            conversation.step(random.choice(steps))
    conversation.finish()
