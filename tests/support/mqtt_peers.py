"""Clients of MQTT that a test moves step by step, and what happens between them.

Both clients behave as the specification wants: they send again what was not answered, and take no
message of QoS 2 twice whose identifier they hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from fluffle.protocol.mqtt.codes import PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import Ack, Connack, Disconnect, Publish, Suback, Subscribe
from fluffle.protocol.mqtt.reader import Acks, Publishes
from tests.support.mqtt_edge import MqttClient

MESSAGES = 4
STEPS_MAX = 2_000
NOT_THE_LAST = {ReasonCode.SESSION_TAKEN_OVER, ReasonCode.SERVER_UNAVAILABLE}
"""Answers to a client that has come elsewhere later, and is let in there before."""


class PeerNode(Protocol):
    """Node, or nodes, to which a client connects."""

    def begin(
        self, client_id: str, *, clean_start: bool, expiry_s: int, receive_max: int
    ) -> MqttClient:
        """A client that has sent CONNECT."""


class Peer:
    """Client with a session that lasts, and its line to the node."""

    def __init__(self, node: PeerNode, name: str) -> None:
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
            assert not packet.code, f"{self.name} is answered {packet}"
            self.is_let_in = True
            self.let_in(present=packet.session_present)
        elif isinstance(packet, Publishes):
            self.came(packet)
        elif isinstance(packet, Acks):
            for packet_id in packet.packet_ids:
                self.answered(packet.kind, packet_id)
        elif not isinstance(packet, Ack):
            self.took(packet)
        elif packet.code.is_error and packet.kind is not PacketType.PUBCOMP:
            self.refused(packet)
        else:
            self.answered(packet.kind, packet.packet_id)

    def send(self, packet: Publish | Ack | Subscribe) -> None:
        assert self.line is not None
        self.line.send(packet)

    @property
    def can_act(self) -> bool:
        return self.line is None or self.has_mail

    def let_in(self, *, present: bool) -> None: ...

    def came(self, packet: Publishes) -> None:
        """Take a run of messages."""
        for packet_id, payload in zip(packet.packet_ids, packet.payloads, strict=True):
            self.message(packet.qos, packet_id, payload)

    def took(self, packet: object) -> None:
        """Take a packet of another kind."""
        assert isinstance(packet, Suback), packet

    def refused(self, packet: Ack) -> None:
        raise AssertionError(f"{self.name} is answered {packet}")

    def message(self, qos: int, packet_id: int, payload: bytes) -> None: ...

    def answered(self, kind: PacketType, packet_id: int) -> None: ...


class Publisher(Peer):
    messages_max = MESSAGES

    def __init__(self, node: PeerNode, qos: int, name: str = "p") -> None:
        super().__init__(node, name)
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
            self.send(self.packet(packet_id, payload, dup=True))
        for packet_id in self.released:
            self.send(Ack(PacketType.PUBREL, packet_id))

    @property
    def can_publish(self) -> bool:
        under_way = self.published.keys() | self.released.keys()
        return self.is_let_in and self.next_number < self.messages_max and len(under_way) < 2

    def publish(self) -> None:
        under_way = self.published.keys() | self.released.keys()
        packet_id = next(each for each in (1, 2) if each not in under_way)
        payload = self.payload_of(self.next_number)
        self.next_number += 1
        self.published[packet_id] = payload
        self.send(self.packet(packet_id, payload))

    def payload_of(self, number: int) -> bytes:
        return b"%d" % number

    def packet(self, packet_id: int, payload: bytes, *, dup: bool = False) -> Publish:
        return Publish(b"t", payload, self.qos, dup=dup, packet_id=packet_id)

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
    def __init__(self, node: PeerNode, qos: int) -> None:
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


class MovingPeer(Peer):
    """Client that connects again when a connection of its own that was on its way is let in
    later."""

    def act(self) -> None:
        packet = self.inbox[0] if self.inbox else None
        is_answer = isinstance(packet, Disconnect | Connack)
        if is_answer and getattr(packet, "code", None) in NOT_THE_LAST:
            self.lose()
        else:
            super().act()


class MovingPublisher(MovingPeer, Publisher):
    """Publisher that moves."""


class MovingSubscriber(MovingPeer, Subscriber):
    """Subscriber that moves."""


class StepByStep:
    """A publisher, a subscriber, and what is between them, moved step by step."""

    publisher: Publisher
    subscriber: Subscriber

    def node_steps(self) -> dict[str, bool]:
        """Steps of what is between them, and whether each may be next."""
        raise AssertionError(f"{self} has none")

    def node_step(self, name: str) -> None:
        """Take one of these."""
        raise AssertionError(f"{self} has no {name}")

    def steps(self) -> list[str]:
        """Name the steps that may be next."""
        subscriber, publisher = self.subscriber, self.publisher
        return [
            name
            for name, may in {
                **self.node_steps(),
                "subscriber": subscriber.can_act,
                "publisher": publisher.can_act,
                "publish": publisher.can_publish,
            }.items()
            if may
        ]

    def step(self, name: str) -> None:
        if name == "publish":
            self.publisher.publish()
        elif name in ("subscriber", "publisher"):
            (self.subscriber if name == "subscriber" else self.publisher).act()
        else:
            self.node_step(name)

    def finish(self) -> None:
        """Let all that happens come to an end, and see that all is well."""
        for _ in range(STEPS_MAX):
            steps = self.steps()
            if not steps:
                break
            self.step(steps[0])
        assert not self.steps(), "it comes to no end"
        assert self.publisher.is_done
        self.check([b"%d" % number for number in range(MESSAGES)])

    def check(self, expected: list[bytes]) -> None:
        """Check what the subscriber has been sent."""
        raise AssertionError(f"{self} expects {expected}")


S = TypeVar("S", bound=StepByStep)


def at_each_step(begin: Callable[[], S], fault: Callable[[S], None], *, is_lazy: bool) -> int:
    """Begin again and again, each time with the fault one step later; how many steps there are.

    `is_lazy`: the last of the steps that may be next is taken, else the first.
    """
    at = 0
    while True:
        history = begin()
        for _ in range(at):
            steps = history.steps()
            if not steps:
                history.finish()
                return at
            history.step(steps[-1] if is_lazy else steps[0])
        print(f"fault at {at}")
        fault(history)
        history.finish()
        at += 1
