"""MQTT clients of a node without sockets: each `send` is one read of a real connection.

edge = MqttEdge()
client = edge.connect("meter")          # accepted
client.subscribe("a/#", 1)
client.packets()                        # [Suback(...)]
"""

from __future__ import annotations

from typing import TypeVar

from fluffle.broker.config.config import MqttConfig
from fluffle.broker.protocols.mqtt.connection import Connection
from fluffle.broker.protocols.mqtt.packet_handlers import PACKET_HANDLERS
from fluffle.broker.protocols.mqtt.server import MqttServer
from fluffle.protocol.mqtt.codes import MQTT_5, PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import (
    Ack,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
    encode,
)
from fluffle.protocol.mqtt.properties import Properties, PropertyId
from fluffle.protocol.mqtt.reader import Acks, ClientReader, Event, Publishes
from tests.support.edge import Edge
from tests.support.fakes import FakeTransport

P = TypeVar("P")

LOCAL_PEER = ("127.0.0.1", 40_000)
"""Address of a client that is on the machine of the node."""


class MqttEdge:
    """The MQTT server of a node, and the clients that are connected to it."""

    def __init__(
        self,
        config: MqttConfig | None = None,
        edge: Edge | None = None,
        durable_queue_type: str = "classic",
    ) -> None:
        self.edge = edge or Edge()
        config = config or MqttConfig()
        self.server = MqttServer(self.edge.services, config, durable_queue_type)
        self.edge.catalogue.session_listeners.append(self.server.session_changed)
        self.edge.catalogue.will_listeners.append(self.server.due_wills.changed)

    def accept(self, version: int = MQTT_5, peer: tuple[str, int] = LOCAL_PEER) -> MqttClient:
        """A socket on which nothing has been said."""
        return MqttClient(self, version, peer)

    def connect(
        self,
        client_id: str,
        version: int = MQTT_5,
        *,
        clean_start: bool = True,
        expiry_s: int = 0,
        will: Will | None = None,
        keep_alive_s: int = 0,
    ) -> MqttClient:
        """A client that has been let in; its CONNACK is `client.connack`."""
        client = self.accept(version)
        properties = Properties()
        if expiry_s:
            properties.values[PropertyId.SESSION_EXPIRY_INTERVAL] = expiry_s
        client.send(
            Connect(
                version,
                client_id,
                clean_start,
                keep_alive_s,
                user="guest",
                password=b"guest",
                will=will,
                properties=properties,
            )
        )
        client.connack = client.expect(Connack)
        assert client.connack.code is ReasonCode.SUCCESS, client.connack
        return client

    @property
    def queue_names(self) -> list[str]:
        return sorted(self.edge.vhost.queues)


class MqttClient:
    """The other end of one connection."""

    def __init__(self, mqtt: MqttEdge, version: int, peer: tuple[str, int] = LOCAL_PEER) -> None:
        edge = mqtt.edge
        self.mqtt, self.edge = mqtt, edge
        self.version = version
        self.connack: Connack
        self.transport = FakeTransport(
            edge.scheduler, {"sockname": ("127.0.0.1", 1883), "peername": peer}
        )
        self.connection = Connection(mqtt.server, PACKET_HANDLERS)
        self._reader = ClientReader(1 << 28, version)
        self._parsed_writes = 0
        self._came: list[Event] = []
        self.reasons: list[str] = []
        """Reason Strings of all answers, which `packets` leaves out: they are for people."""
        self._last_id = 0
        self.transport.connect(self.connection)

    def send(self, *packets: Packet | bytes) -> None:
        """Send packets in one read, and let all turns pass that follow from it."""
        octets = [
            each if isinstance(each, bytes) else encode(each, self.version) for each in packets
        ]
        self.transport.receive(b"".join(octets))
        self.edge.run()

    def next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def subscribe(self, *filters: str, options: int = 1, identifier: int = 0) -> list[ReasonCode]:
        """Subscribe with the same options; the codes of the answer."""
        properties = Properties(subscription_ids=[identifier] if identifier else [])
        wanted = [(each, options) for each in filters]
        self.send(Subscribe(self.next_id(), wanted, properties))
        return self.expect(Suback).codes

    def unsubscribe(self, *filters: str) -> list[ReasonCode]:
        self.send(Unsubscribe(self.next_id(), list(filters)))
        return self.expect(Unsuback).codes

    def publish(
        self, topic: str, payload: bytes = b"x", qos: int = 0, *, retain: bool = False
    ) -> int:
        """Publish a message; its packet identifier."""
        packet_id = self.next_id() if qos else 0
        self.send(Publish(topic.encode(), payload, qos, retain, packet_id=packet_id))
        return packet_id

    def answer(self, kind: PacketType, *packet_ids: int) -> None:
        """Send acknowledgements."""
        self.send(*(Ack(kind, packet_id) for packet_id in packet_ids))

    def packets(self) -> list[Event]:
        """Take everything that has come."""
        writes = self.transport.writes[self._parsed_writes :]
        self._parsed_writes += len(writes)
        new = self._reader.feed(b"".join(writes))
        while self._reader.is_waiting:
            new += self._reader.go_on()
        for each in new:
            if isinstance(each, Connack | Disconnect | Suback):
                reason = each.properties.values.pop(PropertyId.REASON_STRING, None)
                self.reasons += [reason] if isinstance(reason, str) else []
        came, self._came = [*self._came, *new], []
        return came

    def expect(self, kind: type[P]) -> P:
        """Take the next packet, which must be of this kind."""
        came = self.packets()
        assert came, "nothing has come"
        self._came = came[1:]
        assert isinstance(came[0], kind), came[0]
        return came[0]

    def messages(self) -> list[tuple[str, bytes, int]]:
        """Take everything, which must be messages: topic, payload and QoS of each."""
        came = self.packets()
        assert all(isinstance(each, Publishes) for each in came), came
        return [
            (run.topic.decode(), payload, run.qos)
            for run in came
            if isinstance(run, Publishes)
            for payload in run.payloads
        ]

    def acks(self) -> list[tuple[PacketType, int, ReasonCode]]:
        """Take everything, which must be acknowledgements."""
        found: list[tuple[PacketType, int, ReasonCode]] = []
        for each in self.packets():
            assert isinstance(each, Acks | Ack), each
            if isinstance(each, Acks):
                found += [
                    (each.kind, packet_id, ReasonCode.SUCCESS) for packet_id in each.packet_ids
                ]
            else:
                found.append((each.kind, each.packet_id, each.code))
        return found

    def lose(self) -> None:
        """Cut the connection."""
        self.transport.lose()
        self.edge.run()
