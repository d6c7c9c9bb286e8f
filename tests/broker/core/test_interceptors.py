"""Headers that a node adds: to which messages, when, and that nothing else of them changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fluffle.broker.config.config import KEEP, OVERWRITE, Config, InterceptorConfig
from fluffle.broker.core.firehose import Firehose
from fluffle.broker.core.interceptors import Interceptors, interceptors_of
from fluffle.protocol.methods import Basic, Channel, Queue, Tx, encode_method, make, pamqp_table
from fluffle.protocol.mqtt.packets import Publish
from fluffle.protocol.mqtt.properties import Properties as MqttProperties
from fluffle.protocol.mqtt.properties import decode_properties as decode_mqtt
from fluffle.protocol.mqtt.properties import encode_properties as encode_mqtt
from fluffle.protocol.mqtt.reader import Publishes
from fluffle.protocol.properties import Properties, decode_properties
from fluffle.protocol.wire import Field, FieldTable, to_table
from tests.support.edge import Arrival, Client, Edge, publish_frames
from tests.support.fakes import ScheduledClock
from tests.support.mqtt_edge import MqttClient, MqttEdge

START_MS = 1_700_000_000_123
NODE = ("S", b"node")
BOTH = InterceptorConfig(OVERWRITE, OVERWRITE)
SENT = "x-opt-rabbitmq-sent-time"


def interceptors(config: InterceptorConfig) -> Edge:
    """A node that does so, by a clock that its scheduler moves."""
    edge = Edge()
    clock = ScheduledClock(edge.scheduler)

    def wall_ms() -> int:
        return START_MS + clock.now_ms()

    edge.services = replace(edge.services, interceptors=Interceptors(config, "node", wall_ms))
    return edge


def filled(arrival: Arrival) -> Properties:
    return decode_properties(arrival.header[12:])


def headers_of(arrival: Arrival) -> FieldTable:
    headers = filled(arrival).headers
    assert headers is not None
    return headers


def got(client: Client, queue: str = "q") -> list[Arrival]:
    """All that is in a queue."""
    arrivals: list[Arrival] = []
    while True:
        client.send(encode_method(1, Basic.Get(queue=queue, no_ack=True)))
        arrival = client.take()
        if not isinstance(arrival.method, Basic.GetOk):
            return arrivals
        arrivals.append(arrival)


def test_a_node_that_hears_nothing_does_nothing() -> None:
    edge = Edge()
    client = edge.connect()
    (channel,) = client.connection.channels
    assert channel.incoming is None
    assert channel.outgoing is None
    assert interceptors_of(Config(), ScheduledClock(edge.scheduler)) is None


def test_a_message_says_when_it_came_and_where() -> None:
    edge = interceptors(BOTH)
    client = edge.connect()
    client.declare()
    client.publish(b"a")
    edge.advance(2)
    client.publish(b"b", properties=Properties(message_id="m", headers=to_table({"z": 1, "a": 2})))
    one, other = got(client)
    assert filled(one) == Properties(
        headers={"timestamp_in_ms": ("l", START_MS), "x-routed-by": NODE},
        timestamp=START_MS // 1000,
    )
    assert filled(other) == Properties(
        headers={
            "a": ("l", 2),
            "timestamp_in_ms": ("l", START_MS + 2000),
            "x-routed-by": NODE,
            "z": ("l", 1),
        },
        message_id="m",
        timestamp=START_MS // 1000 + 2,
    )
    assert (one.body, other.body) == (b"a", b"b")


OWN = Properties(headers=to_table({"timestamp_in_ms": 5, "x-routed-by": "me"}), timestamp=7)


@pytest.mark.parametrize(
    ("config", "time", "node", "timestamp"),
    [
        (BOTH, ("l", START_MS), NODE, START_MS // 1000),
        (InterceptorConfig(KEEP, KEEP), ("l", 5), ("S", b"me"), 7),
        (InterceptorConfig(OVERWRITE, KEEP), ("l", START_MS), ("S", b"me"), START_MS // 1000),
        (InterceptorConfig(KEEP, OVERWRITE), ("l", 5), NODE, 7),
        (InterceptorConfig(None, OVERWRITE), ("l", 5), NODE, 7),
        (InterceptorConfig(KEEP, None), ("l", 5), ("S", b"me"), 7),
    ],
)
def test_what_a_client_says_itself_is_overwritten_or_kept(
    config: InterceptorConfig, time: Field, node: Field, timestamp: int
) -> None:
    client = interceptors(config).connect()
    client.declare()
    client.publish(b"x", properties=OWN)
    [arrival] = got(client)
    assert headers_of(arrival) == {"timestamp_in_ms": time, "x-routed-by": node}
    assert filled(arrival).timestamp == timestamp


@pytest.mark.parametrize("how", [OVERWRITE, KEEP])
def test_each_message_of_a_read_is_stamped_once_however_it_has_to_be_sorted(how: str) -> None:
    """A headers exchange takes them one by one: they are put back, and taken again."""
    client = interceptors(InterceptorConfig(how, how)).connect()
    for queue in ("q", "r"):
        client.declare(queue)
    bind = make(
        Queue.Bind,
        queue="r",
        exchange="amq.headers",
        arguments=pamqp_table(to_table({"x-match": "any-with-x", "x-routed-by": "node"})),
    )
    client.call(bind, Queue.BindOk)
    frames = []
    for number in range(20):
        properties = Properties(
            message_id=str(number % 7), headers=to_table({"n": number % 3}), priority=number % 2
        )
        exchange = "amq.headers" if number % 4 else ""
        frames.append(publish_frames(b"%d" % number, exchange=exchange, properties=properties))
    client.send(*frames)
    routed, plain = got(client, "r"), got(client)
    assert [each.body for each in plain] == [b"%d" % n for n in range(0, 20, 4)]
    assert [each.body for each in routed] == [b"%d" % n for n in range(20) if n % 4]
    for each in (*routed, *plain):
        number = int(each.body)
        assert filled(each) == Properties(
            headers={
                "n": ("l", number % 3),
                "timestamp_in_ms": ("l", START_MS),
                "x-routed-by": NODE,
            },
            message_id=str(number % 7),
            priority=number % 2,
            timestamp=START_MS // 1000,
        )


def test_what_routes_or_is_checked_stays_what_it_was() -> None:
    client = interceptors(BOTH).connect()
    for queue in ("q", "cc", "bcc"):
        client.declare(queue)
    headers = to_table({"CC": ["cc"], "BCC": ["bcc"]})
    client.publish(b"x", properties=Properties(user_id="guest", headers=headers))
    for queue in ("q", "cc", "bcc"):
        [arrival] = got(client, queue)
        assert filled(arrival).user_id == "guest"
        assert [*headers_of(arrival)] == ["CC", "timestamp_in_ms", "x-routed-by"]
    client.publish(b"x", properties=Properties(user_id="alice"))
    client.expect_channel_closed(406, "user_id property set to 'alice'")


@pytest.mark.parametrize(
    "raw", [b"", b"\x10\x00", b"\x00\x01", b"\x20\x00\x00\x00\x00\x09", b"\x00\x00more"]
)
def test_malformed_properties_are_refused_as_ever(raw: bytes) -> None:
    said = []
    for edge in (Edge(), interceptors(BOTH)):
        client = edge.connect()
        client.declare()
        frames = publish_frames(b"x", properties=Properties())
        header_at = frames.index(b"\x02\x00\x01")
        size = (12 + len(raw)).to_bytes(4, "big")
        header = b"\x02\x00\x01" + size + frames[header_at + 7 : header_at + 19] + raw + b"\xce"
        client.send(frames[:header_at] + header + frames[header_at + 22 :])
        [closed] = client.arrivals()
        said.append(str(closed))
    assert said[0] == said[1]


def test_transactions_returns_and_traces_have_it_too() -> None:
    edge = interceptors(BOTH)
    client, watcher = edge.connect(), edge.connect()
    edge.vhost.tracer = Firehose(edge.vhost, "node")
    watcher.declare("watching")
    watcher.bind("watching", "amq.rabbitmq.trace", "publish.#")
    client.publish(b"x", queue="nowhere", mandatory=True)
    returned = client.take()
    assert isinstance(returned.method, Basic.Return)
    assert headers_of(returned)["x-routed-by"] == NODE
    client.declare()
    client.call(Tx.Select(), Tx.SelectOk)
    client.publish(b"x")
    client.call(Tx.Commit(), Tx.CommitOk)
    [arrival] = got(client)
    assert headers_of(arrival)["x-routed-by"] == NODE
    copies = got(watcher, "watching")
    assert len(copies) == 2
    for copy in copies:
        tag, properties = headers_of(copy)["properties"]
        assert tag == "F"
        assert isinstance(properties, dict)
        assert "timestamp" in properties


# What is sent


def test_a_delivery_says_when_it_is_sent_and_the_message_in_its_queue_does_not() -> None:
    edge = interceptors(InterceptorConfig(sent=True))
    client = edge.connect()
    client.open_channel(2)
    client.declare()
    client.publish(b"a", b"b", properties=Properties(headers=to_table({"z": 1}), app_id="me"))
    client.consume(channel=2)
    delivered = client.arrivals()
    assert [arrival.body for arrival in delivered] == [b"a", b"b"]
    for arrival in delivered:
        assert filled(arrival) == Properties(
            headers={SENT: ("l", START_MS), "z": ("l", 1)}, app_id="me"
        )
    edge.advance(3)
    client.call(Channel.Close(0, "", 0, 0), Channel.CloseOk, 2)
    again = [headers_of(arrival)[SENT] for arrival in got(client)]
    assert again == [("l", START_MS + 3000)] * 2


@pytest.mark.parametrize("body_bytes", range(8_140, 8_190, 7))
def test_frames_stay_within_what_the_client_takes(body_bytes: int) -> None:
    """`Client` sees to it that none is longer."""
    edge = interceptors(InterceptorConfig(sent=True))
    client = edge.connect(frame_bytes_max=8_192)
    client.declare()
    client.publish(b"x" * body_bytes)
    client.consume()
    [delivered] = client.arrivals()
    assert len(delivered.body) == body_bytes
    assert headers_of(delivered) == {SENT: ("l", START_MS)}


def user_properties(client: MqttClient) -> list[list[tuple[str, str]]]:
    """User properties of each run of messages that has come."""
    runs = [each for each in client.packets() if isinstance(each, Publishes)]
    return [decode_mqtt(run.properties).user for run in runs]


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("expiry_s", [0, 60])
def test_they_are_user_properties_to_mqtt_of_what_amqp_publishes(qos: int, expiry_s: int) -> None:
    """RabbitMQ adds them to what AMQP clients are given alone."""
    edge = interceptors(InterceptorConfig(OVERWRITE, OVERWRITE, sent=True))
    mqtt = MqttEdge(edge=edge)
    client, old, amqp = mqtt.connect("c", expiry_s=expiry_s), mqtt.connect("old", 4), edge.connect()
    for each in (client, old):
        each.subscribe("t", options=qos)
    edge.advance(1)
    amqp.publish(b"x", exchange="amq.topic", queue="t", properties=Properties(delivery_mode=2))
    now = str(START_MS + 1_000)
    added = [("timestamp_in_ms", now), (SENT, now), ("x-routed-by", "node")]
    assert user_properties(client) == [added]
    assert old.messages() == [("t", b"x", qos)]


@pytest.mark.parametrize("config", [KEEP, OVERWRITE])
@pytest.mark.parametrize(
    "said",
    [
        [],
        [("a", "b"), ("c", "d")],
        [("timestamp_in_ms", "7"), ("x-routed-by", "me")],
        [("x-routed-by", "me"), ("b", "1"), ("b", "2"), ("a", "3")],
    ],
)
def test_what_mqtt_sends_to_mqtt_comes_out_as_it_came_in(
    config: str, said: list[tuple[str, str]]
) -> None:
    """S5 3.3.2-17: user properties are unaltered.  AMQP clients have the headers of the node."""
    edge = interceptors(InterceptorConfig(config, config, sent=True))
    amqp, mqtt = edge.connect(), MqttEdge(edge=edge)
    amqp.declare()
    amqp.bind("q", "amq.topic", "t")
    publisher, client = mqtt.connect("p"), mqtt.connect("c")
    client.subscribe("t")
    properties = encode_mqtt(MqttProperties(user=said))
    publisher.send(Publish(b"t", b"x", 1, retain=True, packet_id=1, properties=properties))
    assert user_properties(client) == [said]
    late = mqtt.connect("late")
    late.subscribe("t")
    assert user_properties(late) == [said]
    (arrival,) = got(amqp)
    headers, is_kept = headers_of(arrival), config == KEEP and ("x-routed-by", "me") in said
    assert headers["x-routed-by"] == (("S", b"me") if is_kept else NODE)
    assert "timestamp_in_ms" in headers
