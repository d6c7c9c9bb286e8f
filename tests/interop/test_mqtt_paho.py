"""paho-mqtt, the client under most MQTT programs in Python, with pika on the other side."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from queue import Queue
from typing import Any

import pika
import pytest
from paho.mqtt.client import Client, MQTTMessage, PayloadType
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.interop.mqtt_broker import LOOPBACK, TRANSPORTS, MqttBroker
from tests.support.deadlines import DEADLINE_S

Name = Callable[[str], str]
VERSIONS = {
    "3.1": MQTTProtocolVersion.MQTTv31,
    "3.1.1": MQTTProtocolVersion.MQTTv311,
    "5": MQTTProtocolVersion.MQTTv5,
}


@pytest.fixture
def name(name: Name) -> Name:
    """Names as of all tests, without dots: RabbitMQ takes them for slashes."""
    return lambda base: name(base).replace(".", "-")


class Paho:
    """A connected client with its loop in a thread, and what it heard."""

    def __init__(self, client: Client, *, clean: bool, expiry_s: int) -> None:
        self.client = client
        self.messages: Queue[MQTTMessage] = Queue()
        self.events: Queue[tuple[str, Any]] = Queue()
        self.present = False
        self._clean, self._expiry_s = clean, expiry_s
        client.on_message = lambda _c, _u, message: self.messages.put(message)
        client.on_connect = lambda _c, _u, flags, code, _p: self.events.put(
            ("connect", (code.value, flags.session_present))
        )
        client.on_subscribe = lambda _c, _u, _m, codes, _p: self.events.put(
            ("subscribe", [code.value for code in codes])
        )
        client.on_publish = lambda _c, _u, _m, code, _p: self.events.put(("publish", code.value))
        client.on_disconnect = lambda _c, _u, _f, code, _p: self.events.put(
            ("disconnect", code.value)
        )

    def connect(self, port: int) -> tuple[int, bool]:
        """Connect; returns the return code, and whether there was a session."""
        options: dict[str, Any] = {}
        if self.client.protocol == MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = self._expiry_s
            options = {"clean_start": self._clean, "properties": properties}
        self.client.connect(LOOPBACK, port, keepalive=60, **options)
        self.client.loop_start()
        return self.reported("connect")

    def reported(self, event: str) -> Any:
        """Value of the next event of that name."""
        while True:
            name, value = self.events.get(timeout=DEADLINE_S)
            if name == event:
                return value

    def subscribe(self, topic: str, qos: int = 1) -> list[int]:
        self.client.subscribe(topic, qos)
        return self.reported("subscribe")

    def publish(self, topic: str, payload: PayloadType, qos: int = 1, **options: Any) -> None:
        """Return when the broker has it, of QoS 1 and 2."""
        self.client.publish(topic, payload, qos, **options).wait_for_publish(DEADLINE_S)

    def take(self) -> MQTTMessage:
        return self.messages.get(timeout=DEADLINE_S)


@pytest.fixture
def connected(mqtt: MqttBroker, name: Name) -> Iterator[Callable[..., Paho]]:
    """Make clients, which end with the test."""
    numbers = count()
    with ExitStack() as clients:

        def connect(
            version: str = "5",
            transport: str = "tcp",
            *,
            client_id: str = "",
            clean: bool = True,
            expiry_s: int = 0,
        ) -> Paho:
            options: dict[str, Any] = {}
            if VERSIONS[version] != MQTTProtocolVersion.MQTTv5:
                options["clean_session"] = clean
            client = Client(
                CallbackAPIVersion.VERSION2,
                client_id or f"paho{next(numbers)}{name('')[-12:]}",
                protocol=VERSIONS[version],
                transport="websockets" if transport == "websockets" else "tcp",
                **options,
            )
            if transport == "websockets":
                client.ws_set_options(path="/ws")
            if transport == "tls":
                client.tls_set(mqtt.ca_file, tls_version=ssl.PROTOCOL_TLS_CLIENT)
            client.username_pw_set("guest", "guest")
            paho = Paho(client, clean=clean, expiry_s=expiry_s)
            code, paho.present = paho.connect(mqtt.ports[transport])
            assert code == 0
            clients.callback(end, client)
            return paho

        yield connect


def end(client: Client) -> None:
    client.disconnect()
    client.loop_stop()


@contextmanager
def amqp_channel(mqtt: MqttBroker) -> Iterator[Any]:
    with pika.BlockingConnection(pika.URLParameters(mqtt.amqp_url)) as connection:
        yield connection.channel()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_messages_of_each_quality(
    connected: Callable[..., Paho], name: Name, version: str, transport: str
) -> None:
    topic = name("topic/quality")
    one, other = connected(version, transport), connected(version, transport)
    assert one.subscribe(f"{topic}/#", 2) == [2]
    for qos in (0, 1, 2):
        payload = bytes([qos]) * (1 + qos * 50_000)
        other.publish(f"{topic}/{qos}", payload, qos)
        message = one.take()
        assert (message.topic, message.payload, message.qos, message.retain) == (
            f"{topic}/{qos}",
            payload,
            qos,
            False,
        )


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_session_waits_for_its_client(
    connected: Callable[..., Paho], mqtt: MqttBroker, name: Name, version: str
) -> None:
    topic, client_id = name("topic/waits"), name("waiting")
    lasting = {"client_id": client_id, "clean": False, "expiry_s": 60}
    one = connected(version, **lasting)
    assert not one.present
    one.subscribe(topic, 2)
    end(one.client)
    other = connected(version)
    for number in range(50):
        other.publish(topic, f"{number}", 1 + number % 2)
    again = connected(version, **lasting)
    assert again.present
    heard = [again.take() for _ in range(50)]
    for qos in (1, 2):
        numbers = [int(each.payload) for each in heard if each.qos == qos]
        assert numbers == list(range(qos - 1, 50, 2))
    end(again.client)
    assert not connected(version, client_id=client_id).present


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_retained_messages(connected: Callable[..., Paho], name: Name, version: str) -> None:
    topic = name("topic/retained")
    other = connected(version)
    for rest in ("a", "b/c"):
        other.publish(f"{topic}/{rest}", rest, retain=True)
    one = connected(version)
    one.subscribe(f"{topic}/#")
    heard = sorted((each.payload.decode(), each.retain) for each in (one.take(), one.take()))
    assert heard == [("a", True), ("b/c", True)]
    for rest in ("a", "b/c"):
        other.publish(f"{topic}/{rest}", b"", retain=True)
    late = connected(version)
    late.subscribe(f"{topic}/#")
    other.publish(f"{topic}/end", "end")
    assert late.take().payload == b"end"


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_will(mqtt: MqttBroker, connected: Callable[..., Paho], name: Name, version: str) -> None:
    topic = name("topic/will")
    one = connected(version)
    one.subscribe(topic, 1)
    dying = Client(CallbackAPIVersion.VERSION2, name("dying")[-20:], protocol=VERSIONS[version])
    dying.will_set(topic, "gone", 1)
    dying.username_pw_set("guest", "guest")
    paho = Paho(dying, clean=True, expiry_s=0)
    assert paho.connect(mqtt.ports["tcp"])[0] == 0
    dying.loop_stop()
    socket = dying.socket()
    assert socket is not None
    socket.close()
    assert one.take().payload == b"gone"


def test_properties_of_version_5(connected: Callable[..., Paho], name: Name) -> None:
    topic = name("topic/properties")
    one, other = connected(), connected()
    subscription = Properties(PacketTypes.SUBSCRIBE)
    subscription.SubscriptionIdentifier = 7
    one.client.subscribe(topic, options=SubscribeOptions(1), properties=subscription)
    one.reported("subscribe")
    sent = Properties(PacketTypes.PUBLISH)
    sent.PayloadFormatIndicator = 1
    sent.ContentType = "text/plain"
    sent.ResponseTopic = f"{topic}/answer"
    sent.CorrelationData = b"\0\xff"
    sent.UserProperty = [("b", "1"), ("a", "2"), ("b", "3")]
    sent.MessageExpiryInterval = 1_000
    other.publish(topic, "text", properties=sent)
    heard: Any = one.take().properties
    assert heard.PayloadFormatIndicator == 1
    assert heard.ContentType == "text/plain"
    assert heard.ResponseTopic == f"{topic}/answer"
    assert heard.CorrelationData == b"\0\xff"
    assert heard.UserProperty == [("b", "1"), ("a", "2"), ("b", "3")]
    assert heard.SubscriptionIdentifier == [7]
    assert 990 <= heard.MessageExpiryInterval <= 1_000


def test_who_takes_a_session_over(connected: Callable[..., Paho], name: Name) -> None:
    client_id = name("twice")
    first = connected(client_id=client_id)

    def ended(client: Client, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        first.events.put(("disconnect", code.value))
        client.disconnect()  # or it would come back

    first.client.on_disconnect = ended
    connected(client_id=client_id)
    assert first.reported("disconnect") == 0x8E


def test_a_wrong_password(mqtt: MqttBroker, name: Name) -> None:
    for version, code in (("3.1.1", 4), ("5", 0x86)):
        client = Client(CallbackAPIVersion.VERSION2, name("no"), protocol=VERSIONS[version])
        client.username_pw_set("guest", "wrong")
        refused: Queue[int] = Queue()
        client.on_connect = lambda _c, _u, _f, why, _p, refused=refused: refused.put(why.value)
        client.connect(LOOPBACK, mqtt.ports["tcp"])
        client.loop_start()
        # paho shows codes of 3.1.1 as those of version 5
        assert refused.get(timeout=DEADLINE_S) in (code, 0x86)
        end(client)


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_shared_subscriptions(connected: Callable[..., Paho], name: Name, version: str) -> None:
    topic, together = name("topic/shared"), 20
    members = [connected(version) for _ in range(2)]
    for member in members:
        assert member.subscribe(f"$share/group/{topic}", 1) == [1]
    other = connected(version)
    for number in range(together):
        other.publish(topic, f"{number}")
    heard: Queue[int] = Queue()
    for member in members:
        member.client.on_message = lambda _c, _u, message: heard.put(int(message.payload))
        while not member.messages.empty():
            heard.put(int(member.messages.get().payload))
    assert sorted(heard.get(timeout=DEADLINE_S) for _ in range(together)) == list(range(together))


def test_from_mqtt_to_amqp(connected: Callable[..., Paho], mqtt: MqttBroker, name: Name) -> None:
    topic = name("topic")
    with amqp_channel(mqtt) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "amq.topic", f"{topic}.a.#")
        sent = Properties(PacketTypes.PUBLISH)
        sent.ContentType = "text/plain"
        sent.CorrelationData = b"id"
        sent.UserProperty = [("name", "value")]
        connected().publish(f"{topic}/a/b", "hello", properties=sent)
        method, properties, body = next(channel.consume(queue, auto_ack=True))
        assert (method.exchange, method.routing_key, body) == (
            "amq.topic",
            f"{topic}.a.b",
            b"hello",
        )
        assert (properties.content_type, properties.correlation_id) == ("text/plain", "id")
        assert (properties.delivery_mode, properties.headers) == (2, {"name": "value"})


def test_from_amqp_to_mqtt(connected: Callable[..., Paho], mqtt: MqttBroker, name: Name) -> None:
    topic = name("topic")
    one = connected()
    one.subscribe(f"{topic}/+/b")
    with amqp_channel(mqtt) as channel:
        channel.confirm_delivery()
        properties = pika.BasicProperties(
            delivery_mode=2, content_type="text/plain", headers={"name": "value"}
        )
        channel.basic_publish("amq.topic", f"{topic}.a.b", b"hello", properties, mandatory=True)
    message = one.take()
    assert (message.topic, message.payload, message.qos) == (f"{topic}/a/b", b"hello", 1)
    heard: Any = message.properties
    assert heard.ContentType == "text/plain"
    assert heard.UserProperty == [("name", "value")]
