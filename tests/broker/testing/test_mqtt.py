"""MQTT at a broker inside a test: its port, its virtual hosts, and its clock."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import paho.mqtt.client
import paho.mqtt.publish
import pika
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from fluffle.broker import Broker, Cluster, ThreadedBroker
from fluffle.broker.config.config import Config, ListenAddress, MqttConfig
from fluffle.broker.testing.arguments import MqttUrl, VhostRequirements
from fluffle.broker.testing.broker import LOOPBACK
from fluffle.protocol.mqtt.codes import MQTT_3_1_1, PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import Ack, Connack, Disconnect, Publish, Will
from fluffle.protocol.mqtt.properties import Properties, PropertyId, encode_properties
from fluffle.protocol.mqtt.reader import Acks, Publishes
from tests.support.cluster_nodes import until
from tests.support.deadlines import DEADLINE_S
from tests.support.mqtt_line import mqtt_line

HOUR_S = 3600


async def test_the_parts_of_the_url_are_those_that_it_has() -> None:
    async with Broker(users={"app@home": "se:cret"}, vhosts=["a b/c"]) as broker:
        url = broker.mqtt_url
        parts = urlsplit(url)
        assert (parts.scheme, parts.hostname, parts.port) == ("mqtt", url.host, url.port)
        assert unquote(parts.username or "") == url.username == "a b/c:app@home"
        assert unquote(parts.password or "") == url.password == "se:cret"
        assert broker.vhost().mqtt_url == url == broker.vhost().mqtt_urls["app@home"]
        async with mqtt_line(url, "a") as line:
            assert line.connack.code is ReasonCode.SUCCESS


async def test_virtual_hosts_are_apart() -> None:
    wanted = VhostRequirements(users={"meter": "secret"})
    async with Broker() as broker:
        own, other = await broker.add_vhost("own", wanted), await broker.add_vhost("other")
        assert list(own.mqtt_urls) == ["meter", "guest"]
        async with mqtt_line(own.mqtt_url, "m") as line, mqtt_line(other.mqtt_url, "m") as apart:
            for each in (line, apart):
                assert each.connack.code is ReasonCode.SUCCESS
                assert await each.subscribe("#") == [1]
            line.send(Publish(b"a/b", b"1", qos=1, packet_id=1))
            heard = [await line.next(), await line.next()]
            assert Acks(PacketType.PUBACK, [1]) in heard
            apart.send(Publish(b"c", b"2"))
            message = await apart.next()
            assert isinstance(message, Publishes)
            assert (message.topic, message.payloads) == (b"c", [b"2"])
        stranger = MqttUrl("meter", "secret", broker.node.addresses["mqtt"], "other")
        async with mqtt_line(stranger, "m") as line:
            assert line.connack.code is ReasonCode.NOT_AUTHORIZED


@pytest.mark.parametrize("packet", ["PUBREC", "PUBCOMP"])
def test_paho_goes_on_with_a_message_of_qos_2_that_was_cut_off(packet: str) -> None:
    """paho comes back to its session by itself, and waits for nothing that does not come."""
    with ThreadedBroker() as broker:
        url, vhost = broker.mqtt_url, broker.vhost()
        with pika.BlockingConnection(pika.URLParameters(vhost.url)) as connection:
            channel = connection.channel()
            channel.queue_declare("events")
            channel.queue_bind("events", "amq.topic", "events")
        vhost.faults.cut_before(packet, client="counter")
        client = paho.mqtt.client.Client(
            CallbackAPIVersion.VERSION2, client_id="counter", clean_session=False
        )
        client.username_pw_set(url.username, url.password)
        client.reconnect_delay_set(min_delay=0)
        client.connect(url.host, url.port)
        client.loop_start()
        try:
            for event in (b"1", b"2"):
                sent = client.publish("events", event, qos=2)
                sent.wait_for_publish(DEADLINE_S)
                assert sent.is_published()
        finally:
            client.disconnect()
            client.loop_stop()
        assert vhost.faults.in_effect == []
        vhost.expect("events", count=2, within=DEADLINE_S)
        assert [message.body for message in vhost.messages("events")] == [b"1", b"2"]


def test_a_client_that_blocks_publishes_to_a_queue_of_amqp() -> None:
    with ThreadedBroker() as broker:
        url, vhost = broker.mqtt_url, broker.vhost()
        assert vhost.mqtt_url == url == broker.mqtt_url_of("/")
        with pika.BlockingConnection(pika.URLParameters(vhost.url)) as connection:
            channel = connection.channel()
            channel.queue_declare("measurements")
            channel.queue_bind("measurements", "amq.topic", "meters.#")
        paho.mqtt.publish.single(
            "meters/7", b"21.5", qos=1, hostname=url.host, port=url.port,
            auth={"username": url.username, "password": url.password},
        )  # fmt: skip
        vhost.expect("measurements", count=1, within=DEADLINE_S)
        (message,) = vhost.messages("measurements")
        assert (message.routing_key, message.body) == ("meters.7", b"21.5")


def test_who_speaks_no_mqtt_imports_nothing_of_it() -> None:
    """And who does has it from the first connection on."""
    code = (
        "import sys, socket\n"
        "from fluffle.broker import ThreadedBroker\n"
        "with ThreadedBroker() as broker:\n"
        "    url = broker.mqtt_url\n"
        "    print(any('protocols.mqtt' in name for name in sys.modules))\n"
        "    with socket.create_connection((url.host, url.port)) as client:\n"
        "        client.sendall(bytes.fromhex('100c00044d5154540402003c0000'))\n"
        "        print(client.recv(4).hex())\n"
        "    print('fluffle.broker.protocols.mqtt.connection' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "20020000", "True"]


async def test_a_broker_at_a_unix_socket_has_no_port_for_mqtt(tmp_path: Path) -> None:
    async with Broker(listen=tmp_path / "amqp.sock") as broker:
        assert broker.vhost().mqtt_urls == {}
        with pytest.raises(RuntimeError, match="unix socket has no port for MQTT"):
            _ = broker.mqtt_url


async def test_a_broker_keeps_to_its_own_configuration() -> None:
    mqtt = MqttConfig(listen=(ListenAddress("127.0.0.1", 0),), receive_max=3)
    async with Broker(Config(listen=LOOPBACK, mqtt=mqtt)) as broker:
        assert [name for name in broker.node.addresses if "mqtt" in name] == ["mqtt"]
        async with mqtt_line(broker.mqtt_url, "a") as line:
            assert line.connack.properties.values[PropertyId.RECEIVE_MAXIMUM] == 3
    late = Config(listen=LOOPBACK, mqtt=replace(mqtt, listen=()))
    async with Broker(late) as broker, mqtt_line(broker.mqtt_url, "a") as line:
        assert line.connack.properties.values[PropertyId.RECEIVE_MAXIMUM] == 3


# The clock


async def test_a_session_expires_when_the_clock_is_moved() -> None:
    async with Broker() as broker:
        for moved_s, is_present in ((HOUR_S - 1, True), (HOUR_S + 1, False)):
            async with mqtt_line(broker.mqtt_url, "a", expiry_s=HOUR_S):
                pass
            await until(lambda: not len(broker.node.parts.connections))
            await broker.clock.advance(seconds=moved_s)
            async with mqtt_line(broker.mqtt_url, "a", expiry_s=HOUR_S) as line:
                assert line.connack.session_present is is_present
            await until(lambda: not len(broker.node.parts.connections))


async def test_a_message_expires_when_the_clock_is_moved() -> None:
    expiry = encode_properties(Properties({PropertyId.MESSAGE_EXPIRY_INTERVAL: 60}))
    async with Broker() as broker:
        async with mqtt_line(broker.mqtt_url, "a", expiry_s=HOUR_S) as line:
            await line.subscribe("t")
        await until(lambda: not len(broker.node.parts.connections))
        async with mqtt_line(broker.mqtt_url, "b") as line:
            for number, properties in enumerate((expiry, b""), 1):
                line.send(Publish(b"t", b"%d" % number, 1, packet_id=1, properties=properties))
                assert await line.next() == Acks(PacketType.PUBACK, [1])
        await broker.clock.advance(seconds=61)
        async with mqtt_line(broker.mqtt_url, "a", expiry_s=HOUR_S) as line:
            message = await line.next()
            assert isinstance(message, Publishes)
            assert message.payloads == [b"2"]


async def test_a_will_comes_when_the_clock_is_moved() -> None:
    will = Will(b"t", b"gone", 1, delay_s=60)
    async with Broker() as broker, mqtt_line(broker.mqtt_url, "watcher") as watcher:
        await watcher.subscribe("t")
        async with mqtt_line(broker.mqtt_url, "a", expiry_s=HOUR_S, will=will):
            pass
        await until(lambda: len(broker.node.parts.connections) == 1)
        await broker.clock.advance(seconds=59)
        watcher.send(Publish(b"t", b"not yet", 1, packet_id=9))
        first = [await watcher.next(), await watcher.next()]
        assert [each.payloads for each in first if isinstance(each, Publishes)] == [[b"not yet"]]
        await broker.clock.advance(seconds=1)
        message = await watcher.next()
        assert isinstance(message, Publishes)
        assert message.payloads == [b"gone"]


async def test_a_keep_alive_is_over_when_the_clock_of_clients_is_moved() -> None:
    async with Broker() as broker, mqtt_line(broker.mqtt_url, "a", keep_alive_s=60) as line:
        await broker.clock.advance(hours=1)
        line.send(Publish(b"t", b"", 1, packet_id=1))
        assert await line.next() == Acks(PacketType.PUBACK, [1]), "it is connected still"
        await broker.clients_clock.advance(minutes=3)
        end = await line.next()
        assert isinstance(end, Disconnect)
        assert end.code is ReasonCode.KEEP_ALIVE_TIMEOUT


# What outlives a process, and a cluster


async def test_sessions_on_disk_go_on_before_a_client_comes(tmp_path: Path) -> None:
    """So a will that waits is published in its time."""
    will = Will(b"t", b"gone", 1, retain=True, delay_s=60)
    async with Broker(data_dir=tmp_path) as broker:
        async with mqtt_line(broker.mqtt_url, "a", expiry_s=HOUR_S, will=will):
            pass
        await until(lambda: not len(broker.node.parts.connections))
    async with Broker(data_dir=tmp_path) as broker:
        await broker.clock.advance(seconds=61)
        assert broker.node.catalogue.vhosts["/"].retained.find("t") is not None


async def test_each_node_of_a_cluster_has_a_port_that_it_keeps() -> None:
    async with Cluster(nodes=3) as cluster:
        urls = cluster.mqtt_urls
        assert len({url.port for url in urls}) == 3
        assert cluster.mqtt_url == urls[0] == cluster.vhost().mqtt_url
        async with mqtt_line(urls[1], "a", expiry_s=HOUR_S) as line:
            assert await line.subscribe("t") == [1]
        await cluster.kill(1)
        async with mqtt_line(urls[2], "b") as line:
            line.send(Publish(b"t", b"1", 1, packet_id=1))
            assert await line.next() == Acks(PacketType.PUBACK, [1])
        await cluster.start(1)
        assert cluster.mqtt_urls == urls
        async with mqtt_line(urls[1], "a", expiry_s=HOUR_S) as line:
            assert line.connack.session_present
            message = await line.next()
            assert isinstance(message, Publishes)
            assert message.payloads == [b"1"]
            line.send(Ack(PacketType.PUBACK, message.packet_ids[0]))


async def test_a_session_expires_in_a_cluster_when_its_clock_is_moved() -> None:
    async with Cluster(nodes=3) as cluster:
        async with mqtt_line(cluster.mqtt_url, "a", expiry_s=60):
            pass
        await cluster.nodes.until(
            lambda: not len(cluster[0].parts.connections), 10, lambda: "the client is there"
        )
        await cluster.clock.advance(seconds=61)
        async with mqtt_line(cluster.mqtt_url, "a", expiry_s=60) as line:
            assert not line.connack.session_present


async def test_a_client_of_3_1_1_has_a_session_that_lasts() -> None:
    async with Broker() as broker:
        for is_present in (False, True):
            async with mqtt_line(broker.mqtt_url, "a", version=MQTT_3_1_1, expiry_s=1) as line:
                assert line.connack == Connack(ReasonCode.SUCCESS, is_present)
            await until(lambda: not len(broker.node.parts.connections))


async def test_the_port_is_shut_with_that_of_amqp() -> None:
    async with Broker() as broker:
        url = broker.mqtt_url
        await broker.faults.refuse_connections()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(url.host, url.port)
        await broker.faults.accept_connections()
        async with mqtt_line(url, "a") as line:
            assert line.connack.code is ReasonCode.SUCCESS


async def test_a_timeline_knows_clients_by_their_names() -> None:
    async with Broker() as broker:
        vhost = broker.vhost()
        async with mqtt_line(broker.mqtt_url, "meter") as line:
            line.send(Publish(b"to/nobody", b"1", 1, packet_id=1))
            assert await line.next() == Acks(PacketType.PUBACK, [1])
            text = await vhost.timeline()
            assert "opens a connection as 'guest', named 'meter'" in text
            assert "publishes b'1' to exchange 'amq.topic' with key 'to.nobody'" in text
            assert "channel" not in text
            with pytest.raises(AssertionError, match=r"1 not closed:\n  connection 127\.0\.0\.1:"):
                await vhost.assert_no_leaked_channels(within=0.01)
        await vhost.assert_no_leaked_channels(within=DEADLINE_S)
        await vhost.assert_no_unroutable()
