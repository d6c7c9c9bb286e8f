"""Faults with clients of MQTT, and what they have said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from fluffle.broker import Broker, Cluster
from fluffle.broker.base.errors import PreconditionFailed, SyntaxFailure
from fluffle.broker.testing.faults.mqtt import PacketSplitter
from fluffle.broker.testing.vhost import Vhost
from fluffle.protocol.mqtt.codes import MQTT_3_1_1, MQTT_5, PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import (
    Ack,
    Connack,
    Disconnect,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    encode,
)
from fluffle.protocol.mqtt.properties import Properties, PropertyId, encode_properties
from fluffle.protocol.mqtt.reader import Acks, Publishes
from tests.support.cluster_nodes import until
from tests.support.deadlines import DEADLINE_S
from tests.support.mqtt_line import MqttLine, mqtt_line

HOUR_S = 3600
VERSIONS = pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5])


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker() as broker:
        yield broker


@pytest.fixture
async def vhost(broker: Broker) -> Vhost:
    return await broker.add_vhost("own")


def message(payload: bytes, qos: int = 1, packet_id: int = 1, topic: bytes = b"t") -> Publish:
    return Publish(topic, payload, qos, packet_id=packet_id if qos else 0)


async def payloads(line: MqttLine, count: int = 1) -> list[tuple[bytes, bool]]:
    """Payloads of the next `count` messages, and whether they have DUP; all are acknowledged."""
    found: list[tuple[bytes, bool]] = []
    while len(found) < count:
        event = await line.next()
        assert isinstance(event, Publishes), event
        found += [(payload, event.dup) for payload in event.payloads]
        line.send(*(Ack(PacketType.PUBACK, packet_id) for packet_id in event.packet_ids))
    return found


# Cuts


@VERSIONS
async def test_a_connection_is_cut_before_the_acknowledgement(vhost: Vhost, version: int) -> None:
    await vhost.faults.cut_before("PUBACK")
    async with mqtt_line(vhost.mqtt_url, "s", version=version) as subscriber:
        await subscriber.subscribe("t")
        async with mqtt_line(vhost.mqtt_url, "p", version=version) as publisher:
            publisher.send(message(b"1"))
            assert await publisher.next() is None
        assert await payloads(subscriber) == [(b"1", False)], "it was taken"
        assert vhost.faults.in_effect == []
        assert ": cut before PUBACK 1 of the broker\n" in await vhost.timeline()
        async with mqtt_line(vhost.mqtt_url, "p", version=version) as publisher:
            publisher.send(message(b"2"))
            assert await publisher.next() == Acks(PacketType.PUBACK, [1])


async def test_what_comes_before_the_cut_passes(vhost: Vhost) -> None:
    async with mqtt_line(vhost.mqtt_url, "p") as line:
        await vhost.faults.cut_before("PINGRESP")
        line.send(message(b"1"), Pingreq(), message(b"2", packet_id=2))
        heard = [await line.next(), await line.next()]
    assert heard in ([Acks(PacketType.PUBACK, [1]), None], [None, None])
    seen = await vhost.packets(client="p")
    assert next(each.packet for each in seen if each.sent_by == "broker") == "CONNACK"
    assert "PINGRESP" not in [each.packet for each in seen]


async def test_a_message_of_qos_2_is_taken_once_though_its_end_is_cut_off(vhost: Vhost) -> None:
    async with mqtt_line(vhost.mqtt_url, "s") as subscriber:
        await subscriber.subscribe("t")
        await vhost.faults.cut_before("PUBCOMP")
        async with mqtt_line(vhost.mqtt_url, "p", expiry_s=HOUR_S) as line:
            line.send(message(b"1", qos=2))
            assert await line.next() == Acks(PacketType.PUBREC, [1])
            line.send(Ack(PacketType.PUBREL, 1))
            assert await line.next() is None
        async with mqtt_line(vhost.mqtt_url, "p", expiry_s=HOUR_S) as line:
            assert line.connack.session_present
            line.send(Ack(PacketType.PUBREL, 1))
            answer = await line.next()
            assert isinstance(answer, Ack)
            assert answer.code is ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
        assert await payloads(subscriber) == [(b"1", False)]
    assert len(await vhost.packets("PUBREL", client="p", sent_by="client")) == 2


@VERSIONS
async def test_an_acknowledgement_that_does_not_come_in_has_the_message_come_again(
    vhost: Vhost, version: int
) -> None:
    await vhost.faults.cut_before("PUBACK", sent_by="client", client="s")
    async with mqtt_line(vhost.mqtt_url, "s", version=version, expiry_s=HOUR_S) as line:
        await line.subscribe("t")
        async with mqtt_line(vhost.mqtt_url, "p") as publisher:
            publisher.send(message(b"1"))
            assert await publisher.next() == Acks(PacketType.PUBACK, [1])
        assert await payloads(line) == [(b"1", False)]
        assert await line.next() is None
    async with mqtt_line(vhost.mqtt_url, "s", version=version, expiry_s=HOUR_S) as line:
        assert await payloads(line) == [(b"1", True)]
        await vhost.expect("mqtt-subscription-sqos1", count=0, within=DEADLINE_S)


# Duplicates, withheld answers


async def test_a_message_comes_twice_before_5(vhost: Vhost) -> None:
    await vhost.faults.duplicate_next(client="s")
    async with mqtt_line(vhost.mqtt_url, "s", version=MQTT_3_1_1) as line:
        await line.subscribe("t")
        line.send(message(b"0", qos=0), message(b"1"), message(b"2", packet_id=2))
        heard = [await line.next() for _ in range(5)]
        came = [each for each in heard if isinstance(each, Publishes)]
        found = [(payload, each.dup) for each in came for payload in each.payloads]
        assert found == [(b"0", False), (b"1", False), (b"1", True), (b"2", False)]
    assert ": PUBLISH 1 of the broker is sent twice\n" in await vhost.timeline()


async def test_a_message_comes_again_when_a_client_of_5_is_back(vhost: Vhost) -> None:
    await vhost.faults.duplicate_next()
    async with mqtt_line(vhost.mqtt_url, "s", expiry_s=HOUR_S) as line:
        await line.subscribe("t")
        async with mqtt_line(vhost.mqtt_url, "p") as publisher:
            publisher.send(message(b"1"))
            assert await publisher.next() == Acks(PacketType.PUBACK, [1])
        assert await payloads(line) == [(b"1", False)]
        assert await line.next() is None
    text = await vhost.timeline()
    assert ": cut before PUBACK 1 of the client, for the message to come again\n" in text
    async with mqtt_line(vhost.mqtt_url, "s", expiry_s=HOUR_S) as line:
        assert await payloads(line) == [(b"1", True)]


async def test_a_message_of_qos_2_comes_twice_before_5(vhost: Vhost) -> None:
    await vhost.faults.duplicate_next(client="s")
    async with mqtt_line(vhost.mqtt_url, "s", version=MQTT_3_1_1) as line:
        await line.subscribe("t", 2)
        async with mqtt_line(vhost.mqtt_url, "p") as publisher:
            publisher.send(message(b"1", qos=2))
            assert await publisher.next() == Acks(PacketType.PUBREC, [1])
        for is_again in (False, True):
            event = await line.next()
            assert isinstance(event, Publishes)
            assert (event.packet_ids, event.dup) == ([1], is_again)
        for _ in range(2):
            line.send(Ack(PacketType.PUBREC, 1))
            assert await line.next() == Acks(PacketType.PUBREL, [1])
        line.send(Ack(PacketType.PUBCOMP, 1), Pingreq())
        assert await line.next() == Pingresp()


async def test_a_message_of_qos_2_comes_again_when_a_client_of_5_is_back(vhost: Vhost) -> None:
    await vhost.faults.duplicate_next(client="s")
    for is_again in (False, True):
        async with mqtt_line(vhost.mqtt_url, "s", expiry_s=HOUR_S) as line:
            if not is_again:
                await line.subscribe("t", 2)
                line.send(message(b"1", qos=2))
            event = await line.next()
            while not isinstance(event, Publishes):
                assert event == Acks(PacketType.PUBREC, [1])
                event = await line.next()
            assert (event.packet_ids, event.dup) == ([1], is_again)
            line.send(Ack(PacketType.PUBREC, 1))
            answer = await line.next()
            if answer == Acks(PacketType.PUBREC, [1]):  # to what it has published
                answer = await line.next()
            assert answer == (Acks(PacketType.PUBREL, [1]) if is_again else None)


async def test_acknowledgements_are_held_back_and_late(broker: Broker, vhost: Vhost) -> None:
    async with mqtt_line(vhost.mqtt_url, "p") as line:
        await vhost.faults.hold_confirms()
        line.send(message(b"1"), message(b"2", qos=2, packet_id=2), Pingreq())
        assert await line.next() == Pingresp()
        await vhost.faults.release_confirms()
        assert await line.next() == Acks(PacketType.PUBACK, [1])
        assert await line.next() == Acks(PacketType.PUBREC, [2])
        await vhost.faults.hold_confirms(seconds=60)
        line.send(message(b"3"), Pingreq())
        assert await line.next() == Pingresp()
        await broker.clock.advance(seconds=61)
        assert await line.next() == Acks(PacketType.PUBACK, [1])


async def test_a_connection_that_is_frozen_is_not_read(vhost: Vhost) -> None:
    async with mqtt_line(vhost.mqtt_url, "p") as line:
        connection = await vhost.clients.connection("p")
        assert (connection.client_id, connection.protocol) == ("p", "MQTT 5-0")
        assert connection.channels == []
        await connection.freeze()
        line.send(message(b"1"))
        await connection.thaw()
        assert await line.next() == Acks(PacketType.PUBACK, [1])
        await (await vhost.clients.connection("p")).reset()
        assert await line.next() is None


# Refusals, and the end


@pytest.mark.parametrize(("version", "code"), [(MQTT_5, ReasonCode.SERVER_BUSY), (MQTT_3_1_1, 3)])
async def test_a_client_is_refused(vhost: Vhost, version: int, code: int) -> None:
    await vhost.faults.refuse_next("CONNECT", ReasonCode.SERVER_BUSY, client="a")
    async with mqtt_line(vhost.mqtt_url, "b", version=version) as line:
        assert line.connack.code is ReasonCode.SUCCESS
    async with mqtt_line(vhost.mqtt_url, "a", version=version) as line:
        assert await line.next() is None
    (seen,) = await vhost.packets("CONNACK", client="a")
    assert seen.code == code
    async with mqtt_line(vhost.mqtt_url, "a", version=version) as line:
        assert line.connack.code is ReasonCode.SUCCESS


async def test_requests_are_refused_by_a_code(vhost: Vhost) -> None:
    quota = ReasonCode.QUOTA_EXCEEDED
    async with mqtt_line(vhost.mqtt_url, "a") as line:
        await vhost.faults.refuse_next("SUBSCRIBE", 0x97)
        line.send(Subscribe(1, [("a", 1), ("b", 1)]))
        assert await line.next() == Suback(1, [quota, quota])
        assert await vhost.queues() == {}, "nothing has come of it"
        await vhost.faults.refuse_next("UNSUBSCRIBE", 0x80)
        line.send(Unsubscribe(2, ["a"]))
        assert await line.next() == Unsuback(2, [ReasonCode.UNSPECIFIED_ERROR])
        await vhost.faults.refuse_next("PUBLISH", 0x97, count=2)
        line.send(message(b"0", qos=0), message(b"1"), message(b"2", qos=2, packet_id=2))
        assert await line.next() == Ack(PacketType.PUBACK, 1, quota)
        assert await line.next() == Ack(PacketType.PUBREC, 2, quota)
        line.send(message(b"3", packet_id=3))
        assert await line.next() == Acks(PacketType.PUBACK, [3])
    text = await vhost.timeline()
    assert ": SUBSCRIBE 1 of the client is refused by 0x97\n" in text
    assert ": PUBLISH 2 of the client is refused by 0x97\n" in text


async def test_before_5_a_publish_that_is_refused_is_not_answered(vhost: Vhost) -> None:
    async with mqtt_line(vhost.mqtt_url, "a", version=MQTT_3_1_1) as line:
        await vhost.faults.refuse_next("PUBLISH", 0x97)
        line.send(message(b"1"), message(b"2", packet_id=2))
        assert await line.next() == Acks(PacketType.PUBACK, [2])


async def test_a_queue_that_refuses_is_heard_of_by_mqtt(vhost: Vhost) -> None:
    """AMQP clients see the same fault."""
    async with mqtt_line(vhost.mqtt_url, "a") as line:
        await line.subscribe("t")
        await vhost.faults.nack_next(queue="mqtt-subscription-aqos1")
        line.send(message(b"1"))
        assert await line.next() == Ack(PacketType.PUBACK, 1, ReasonCode.QUOTA_EXCEEDED)


def refusal(code: ReasonCode, text: str) -> Disconnect:
    """DISCONNECT with a reason."""
    return Disconnect(code, Properties({PropertyId.REASON_STRING: text}))


async def test_a_client_is_disconnected_with_a_code(vhost: Vhost) -> None:
    async with mqtt_line(vhost.mqtt_url, "a") as line:
        connection = await vhost.clients.connection("a")
        with pytest.raises(SyntaxFailure, match="'code' is for clients of MQTT, and one of"):
            await connection.close(code=0x01)
        await connection.close(code=0x8B)
        assert await line.next() == refusal(
            ReasonCode.SERVER_SHUTTING_DOWN, "closed by the operator"
        )
        assert await line.next() is None


async def test_logins_are_refused(broker: Broker, vhost: Vhost) -> None:
    await vhost.faults.refuse_logins()
    connecting = asyncio.create_task(connack_code(vhost))
    await vhost.expect_packets("CONNECT", client="a", within=DEADLINE_S)
    await broker.clients_clock.advance(seconds=5)
    assert await connecting is ReasonCode.BAD_USER_NAME_OR_PASSWORD


async def connack_code(vhost: Vhost) -> ReasonCode:
    async with mqtt_line(vhost.mqtt_url, "a") as line:
        return line.connack.code


# Sessions and limits


@VERSIONS
async def test_a_session_is_lost(vhost: Vhost, version: int) -> None:
    async with (
        mqtt_line(vhost.mqtt_url, "a", version=version, expiry_s=HOUR_S) as line,
        mqtt_line(vhost.mqtt_url, "b", version=version, expiry_s=HOUR_S) as other,
    ):
        await line.subscribe("t")
        assert await vhost.faults.lose_sessions(client="a") == 1
        assert await line.next() is None
        other.send(Pingreq())
        assert await other.next() == Pingresp()
    async with mqtt_line(vhost.mqtt_url, "a", version=version, expiry_s=HOUR_S) as line:
        assert line.connack == Connack(properties=line.connack.properties)
        assert not line.connack.session_present
        sessions = await vhost.sessions()
        assert (sessions["a"]["subscriptions"], sessions["a"]["queues"]) == ([], [])
    await until(lambda: not len(vhost._parts.connections))
    assert await vhost.faults.lose_sessions() == 2
    async with mqtt_line(vhost.mqtt_url, "b", version=version, expiry_s=HOUR_S) as line:
        assert not line.connack.session_present


async def test_other_limits_hold_in_one_virtual_host(broker: Broker, vhost: Vhost) -> None:
    await vhost.faults.limit(receive_maximum=1, maximum_packet_size=100, keep_alive=10)
    async with (
        mqtt_line(broker.mqtt_url, "a") as free,
        mqtt_line(vhost.mqtt_url, "a") as line,
    ):
        fields = line.connack.properties.values
        names = (
            PropertyId.RECEIVE_MAXIMUM,
            PropertyId.MAXIMUM_PACKET_SIZE,
            PropertyId.SERVER_KEEP_ALIVE,
        )
        assert [fields.get(each) for each in names] == [1, 100, 10]
        for each in (free, line):
            each.send(message(bytes(200)))
        assert await free.next() == Acks(PacketType.PUBACK, [1])
        assert await line.next() == refusal(
            ReasonCode.PACKET_TOO_LARGE, "PUBLISH of 209 bytes is too large"
        )
    async with mqtt_line(vhost.mqtt_url, "a") as line:
        line.send(*(message(b"", qos=2, packet_id=number) for number in (1, 2)))
        heard = [await line.next(), await line.next()]
        assert refusal(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED, "too many under way") in heard
    await vhost.faults.mend()
    async with mqtt_line(vhost.mqtt_url, "a") as line:
        assert line.connack.properties.integer(PropertyId.RECEIVE_MAXIMUM, 1) > 1


async def test_a_fault_is_for_clients_of_its_virtual_host(broker: Broker, vhost: Vhost) -> None:
    await vhost.faults.refuse_next("CONNECT", 0x88)
    await vhost.faults.cut_before("PUBACK")
    async with mqtt_line(broker.mqtt_url, "a") as line:
        line.send(message(b"1"))
        assert await line.next() == Acks(PacketType.PUBACK, [1])
    assert len(vhost.faults.in_effect) == 2
    await vhost.faults.mend()
    assert vhost.faults.in_effect == []
    async with mqtt_line(vhost.mqtt_url, "a") as line:
        assert line.connack.code is ReasonCode.SUCCESS


async def test_what_a_fault_is_asked_for_is_looked_at(vhost: Vhost) -> None:
    with pytest.raises(SyntaxFailure, match="a broker sends no CONNECT, but: CONNACK"):
        await vhost.faults.cut_before("CONNECT")
    with pytest.raises(SyntaxFailure, match="must be broker or client"):
        await vhost.faults.cut_before("PUBACK", sent_by="nobody")
    with pytest.raises(SyntaxFailure, match="'packet' is one of: CONNECT, PUBLISH"):
        await vhost.faults.refuse_next("PINGREQ", 0x97)
    with pytest.raises(SyntaxFailure, match=r"SUBSCRIBE is refused by one of 0x80 \(UNSPEC"):
        await vhost.faults.refuse_next("SUBSCRIBE", 0x01)
    with pytest.raises(SyntaxFailure, match="at least 1"):
        await vhost.faults.duplicate_next(0)
    with pytest.raises(SyntaxFailure, match="say one of: receive_maximum, maximum_packet_size"):
        await vhost.faults.limit()
    async with mqtt_line(vhost.mqtt_url, "a") as line:
        await line.subscribe("t")
        consumer = await vhost.clients.consumer("mqtt-subscription-aqos1")
        with pytest.raises(PreconditionFailed, match="duplicate_next"):
            await consumer.redeliver()


async def test_a_broker_that_is_unkind_sends_mqtt_in_pieces() -> None:
    async with Broker() as broker, mqtt_line(broker.mqtt_url, "a") as line:
        await broker.faults.unkind(1)
        (tap,) = broker.scope().taps()
        assert tap.pieces is not None
        await line.subscribe("t", 0)
        line.send(message(bytes(300), qos=0))
        event = await line.next()
        assert isinstance(event, Publishes)
        assert event.payloads == [bytes(300)]
        await broker.faults.mend()
        assert tap.pieces is None


async def test_a_request_that_is_malformed_is_refused_by_the_broker(vhost: Vhost) -> None:
    async with mqtt_line(vhost.mqtt_url, "a") as line:
        await vhost.faults.refuse_next("SUBSCRIBE", 0x97)
        line.send_bytes(b"\x82\x02\0\x01")
        end = await line.next()
        assert isinstance(end, Disconnect)
        assert end.code.is_error


# What was said


async def test_packets_are_seen(vhost: Vhost) -> None:
    async with mqtt_line(vhost.mqtt_url, "a", expiry_s=HOUR_S) as line:
        await line.subscribe("t/+")
        line.send(message(b"1", topic=b"t/1"), message(b"2", qos=0, topic=b"u"))
        (subscribed,) = await vhost.expect_packets("SUBSCRIBE", topic="t/+", within=DEADLINE_S)
        assert subscribed.filters == ("t/+",)
        (first,) = await vhost.expect_packets("PUBLISH", topic="t/1", within=DEADLINE_S)
        assert (first.client, first.payload, first.qos, first.packet_id) == ("a", b"1", 1, 1)
        assert (first.dup, first.retain) == (False, False)
        (acked,) = await vhost.expect_packets("PUBACK", sent_by="broker", within=DEADLINE_S)
        assert (acked.packet_id, acked.code) == (1, 0)
        (granted,) = await vhost.packets("SUBACK")
        assert granted.code == 1
        await vhost.expect_packets("PUBLISH", client="a", count=2, within=DEADLINE_S)
        with pytest.raises(AssertionError, match=r"0 of 1 PUBREL within 0\.01 s; there are:"):
            await vhost.expect_packets("PUBREL", within=0.01)
        with pytest.raises(AssertionError, match="there are no packets at all"):
            await vhost.expect_packets("PUBLISH", client="b", within=0.01)
        session = (await vhost.sessions())["a"]
        assert [each["topic_filter"] for each in session["subscriptions"]] == ["t/+"]
    (present,) = await vhost.packets("CONNACK")
    assert not present.session_present


LONG = b"meters/of/the/house/7"


async def test_a_topic_is_seen_where_an_alias_stands_for_it(vhost: Vhost) -> None:
    alias = encode_properties(Properties({PropertyId.TOPIC_ALIAS: 1}))
    async with mqtt_line(vhost.mqtt_url, "a", aliases_max=10) as line:
        await line.subscribe(LONG.decode(), 0)
        for topic in (LONG, b"", b""):
            line.send(Publish(topic, b"1", properties=alias))
            event = await line.next()
            assert isinstance(event, Publishes)
            assert event.topic == LONG
        for sender in ("client", "broker"):
            seen = await vhost.packets("PUBLISH", topic=LONG.decode(), sent_by=sender)
            assert [each.payload for each in seen] == [b"1"] * 3


async def test_an_alias_holds_though_the_packet_that_says_it_is_refused(vhost: Vhost) -> None:
    alias = encode_properties(Properties({PropertyId.TOPIC_ALIAS: 1}))
    async with mqtt_line(vhost.mqtt_url, "a") as line:
        await vhost.faults.refuse_next("PUBLISH", 0x97, count=2)
        for number, topic in enumerate((LONG, b"", b"", b""), 1):
            line.send(Publish(topic, b"", 1, packet_id=number, properties=alias))
        quota = ReasonCode.QUOTA_EXCEEDED
        assert await line.next() == Ack(PacketType.PUBACK, 1, quota)
        assert await line.next() == Ack(PacketType.PUBACK, 2, quota)
        heard = await line.next()
        while heard == Acks(PacketType.PUBACK, [3]):
            heard = await line.next()
        assert heard in (Acks(PacketType.PUBACK, [4]), Acks(PacketType.PUBACK, [3, 4]))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("receive_maximum", 0),
        ("receive_maximum", 70_000),
        ("maximum_packet_size", 0),
        ("topic_alias_maximum", 65_536),
        ("session_expiry", -1),
        ("keep_alive", 0),
    ],
)
async def test_a_limit_is_one_that_connack_can_say(vhost: Vhost, name: str, wrong: int) -> None:
    with pytest.raises(SyntaxFailure, match=f"'{name}' is from [01] to [0-9]+, not {wrong}"):
        await vhost.faults.limit(**{name: wrong})
    assert vhost.faults.in_effect == []


async def test_nothing_is_seen_of_a_virtual_host_that_is_not_there(broker: Broker) -> None:
    vhost = await broker.add_vhost("gone")
    url = vhost.mqtt_url
    await broker.delete_vhost("gone")
    await broker.clients_clock.advance(seconds=1)
    line = MqttLine(await asyncio.open_connection(url.host, url.port), MQTT_5)
    line.send(Pingreq())
    assert await line.next() is None
    line.close()
    assert "gone" not in broker.recorder.seen


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_packets_come_in_pieces_and_bytes_that_are_none_pass(step: int) -> None:
    sizes = {1: 0, 2: 1, 3: 200, 4: 70_000}
    packets = [encode(message(bytes(sizes[number]), 1, number), MQTT_5) for number in sizes]
    data, splitter = b"".join(packets), PacketSplitter()
    found = [
        packet for at in range(0, len(data), step) for packet in splitter.feed(data[at : at + step])
    ]
    assert [packet.data for packet in found] == packets
    assert [packet.packet_id for packet in found] == [*sizes]
    for rubbish in (b"\0\0", b"\x30\xff\xff\xff\xff\x01"):
        assert b"".join(each.data for each in splitter.feed(rubbish + b"more")) == rubbish + b"more"
        splitter = PacketSplitter()


async def test_faults_and_packets_of_each_node_of_a_cluster() -> None:
    async with Cluster(nodes=3) as cluster:
        await cluster[1].faults.cut_before("PUBACK")
        async with (
            mqtt_line(cluster.mqtt_urls[0], "a", expiry_s=HOUR_S) as line,
            mqtt_line(cluster.mqtt_urls[1], "b") as cut,
        ):
            await line.subscribe("t")
            cut.send(message(b"1"))
            assert await cut.next() is None
            assert await payloads(line) == [(b"1", False)]
            line.send(message(b"2", topic=b"u"))
            assert await line.next() == Acks(PacketType.PUBACK, [1])
        vhost = cluster.vhost()
        assert (await vhost.sessions())["a"]["queues"] == ["mqtt-subscription-aqos1"]
        seen = await vhost.packets("CONNECT")
        assert [each.client for each in seen] == ["a", "b"]
        await cluster.partition({0}, {1, 2})
        async with mqtt_line(cluster.mqtt_urls[2], "c") as line:
            line.send(message(b"3"))
            assert await line.next() is not None
        await cluster.heal()
