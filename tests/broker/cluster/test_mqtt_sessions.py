"""MQTT in a cluster of real nodes: messages from node to node, and sessions that move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

import pytest

from fluffle.broker.base.client_session import OUTGOING, ClientSession
from fluffle.broker.base.queue_names import shared_queue
from fluffle.broker.cluster.queue_sessions import session_server
from fluffle.broker.cluster.queues.quorum_member import QuorumQueueMember
from fluffle.broker.config.config import Config, ListenAddress, MqttConfig
from fluffle.broker.protocols.mqtt import channel, packet_handlers
from fluffle.broker.protocols.mqtt.channel import TAGS
from fluffle.broker.protocols.mqtt.connection import Connection
from fluffle.broker.protocols.mqtt.incoming_publishes import NotedRun
from fluffle.broker.protocols.mqtt.server import MqttServer
from fluffle.broker.queues.arguments import DEFAULT_DELIVERY_LIMIT
from fluffle.broker.queues.settings import EXPIRY_GRACE_MS
from fluffle.broker.vhosts.queue_changes import delete_queue
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
from tests.support.cluster_nodes import ClusterNode, running_cluster, until
from tests.support.deadlines import soon

P = TypeVar("P")
SHARED = {"name": shared_queue("g", "t"), "vhost": "/"}
CONFIG = Config(mqtt=replace(MqttConfig(), listen=(ListenAddress("127.0.0.1", 0),)))


class Line:
    """Client over a socket, which answers nothing by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._packets = ClientReader(1 << 20, MQTT_5)
        self._came: list[Event] = []
        self.connack: Connack

    def send(self, *packets: Packet) -> None:
        self._writer.write(b"".join(encode(each, MQTT_5) for each in packets))

    async def expect(self, kind: type[P]) -> P:
        async with soon():
            while not self._came:
                octets = await self._reader.read(65_536)
                assert octets, "the connection has ended"
                self._came += self._packets.feed(octets)
        packet = self._came.pop(0)
        assert isinstance(packet, kind), packet
        return packet

    async def messages(self, count: int) -> list[tuple[bytes, bytes, int]]:
        """Take so many, and answer them."""
        taken: list[tuple[bytes, bytes, int]] = []
        while len(taken) < count:
            run = await self.expect(Publishes)
            taken += [(run.topic, payload, run.qos) for payload in run.payloads]
            kind = {1: PacketType.PUBACK, 2: PacketType.PUBREC}.get(run.qos)
            if kind is not None:
                self.send(*(Ack(kind, packet_id) for packet_id in run.packet_ids))
            if run.qos == 2:
                await self.finish(len(run.packet_ids))
        return taken

    async def finish(self, count: int) -> None:
        while count:
            acks = await self.expect(Acks)
            assert acks.kind is PacketType.PUBREL
            self.send(*(Ack(PacketType.PUBCOMP, packet_id) for packet_id in acks.packet_ids))
            count -= len(acks.packet_ids)

    async def publish(self, payload: bytes, qos: int, *, retain: bool = False) -> None:
        """Publish a message, and wait until it is safe."""
        self.send(Publish(b"t", payload, qos, retain, packet_id=7 if qos else 0))
        if qos == 1:
            assert (await self.expect(Acks)).kind is PacketType.PUBACK
        elif qos == 2:
            assert (await self.expect(Acks)).kind is PacketType.PUBREC
            self.send(Ack(PacketType.PUBREL, 7))
            assert (await self.expect(Acks)).kind is PacketType.PUBCOMP

    async def subscribe(self, qos: int, topic_filter: str = "t") -> None:
        self.send(Subscribe(1, [(topic_filter, qos)]))
        assert (await self.expect(Suback)).codes == [qos]

    def close(self) -> None:
        self._writer.close()


async def unanswered(lines: Mapping[str, Line], count: int) -> dict[str, list[bytes]]:
    """Take so many messages, whoever is sent them, and answer none."""
    taken: dict[str, list[bytes]] = {name: [] for name in lines}

    async def listen(name: str) -> None:
        while True:
            taken[name] += (await lines[name].expect(Publishes)).payloads

    listeners = [asyncio.create_task(listen(name)) for name in lines]
    await until(lambda: sum(map(len, taken.values())) >= count)
    for each in listeners:
        each.cancel()
    await asyncio.wait(listeners)
    return taken


@asynccontextmanager
async def connected(
    node: ClusterNode,
    client_id: str,
    *,
    lasts: bool = True,
    expiry_s: int = 3600,
    will: Will | None = None,
) -> AsyncIterator[Line]:
    host, port = node.node.addresses["mqtt"]
    line = Line(*await asyncio.open_connection(host, port))
    properties = Properties({PropertyId.SESSION_EXPIRY_INTERVAL: expiry_s} if lasts else {})
    connect = Connect(
        MQTT_5,
        client_id,
        not lasts,
        0,
        user="guest",
        password=b"guest",
        will=will,
        properties=properties,
    )
    line.send(connect)
    line.connack = await line.expect(Connack)
    assert not line.connack.code
    try:
        yield line
    finally:
        line.close()


@pytest.mark.parametrize("lasts", [False, True])
async def test_messages_go_from_node_to_node(tmp_path: Path, *, lasts: bool) -> None:
    async with (
        running_cluster(tmp_path, config=CONFIG) as three,
        connected(three["a"], "s", lasts=lasts) as subscriber,
        connected(three["b"], "p") as publisher,
    ):
        await subscriber.subscribe(2)
        for qos in (0, 1, 2):
            payload = b"%d" % qos
            await publisher.publish(payload, qos)
            assert await subscriber.messages(1) == [(b"t", payload, qos)]


async def test_a_group_has_members_at_several_nodes(tmp_path: Path) -> None:
    """Each message comes to one of them; those of one that ends with its node to another."""
    async with running_cluster(tmp_path, config=CONFIG) as three, AsyncExitStack() as lines:
        members = {
            name: await lines.enter_async_context(connected(three[name], f"m {name}", lasts=lasts))
            for name, lasts in {"a": False, "b": True, "c": False}.items()
        }
        for line in members.values():
            await line.subscribe(2, "$share/g/t")
        publisher = await lines.enter_async_context(connected(three["c"], "p"))
        for number in range(30):
            await publisher.publish(b"%d" % number, 1)
        await until(lambda: members_of(three["b"]) == ["m a", "m b", "m c"])
        heard = await unanswered(members, 30)
        assert sorted(chain.from_iterable(heard.values())) == sorted(b"%d" % n for n in range(30))
        assert all(heard.values())
        lost = heard["a"]
        await three["a"].kill()
        again = await unanswered({name: members[name] for name in "bc"}, len(lost))
        assert sorted(chain.from_iterable(again.values())) == sorted(lost)
        await three["a"].start()
        await until(lambda: members_of(three["b"]) == ["m b", "m c"])
        for name in "bc":
            members[name].send(Unsubscribe(2, ["$share/g/t"]))
            await members[name].expect(Unsuback)
        everywhere = [three[name].node.catalogue.vhosts["/"].queues for name in "abc"]
        await until(lambda: not any(shared_queue("g", "t") in queues for queues in everywhere))


async def test_a_group_goes_on_though_the_machine_of_a_member_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New messages go to the others, and those that the member holds once its time is over."""
    async with running_cluster(tmp_path, config=CONFIG) as three, AsyncExitStack() as lines:
        members = {
            name: await lines.enter_async_context(connected(three[name], f"m {name}"))
            for name in "ab"
        }
        for line in members.values():
            await line.subscribe(1, "$share/g/t")
        publisher = await lines.enter_async_context(connected(three["c"], "p"))
        await until(lambda: members_of(three["b"]) == ["m a", "m b"])
        async with soon():
            while (await three["b"].ask("queues.show", **SHARED))["consumers"] < 2:
                pass
        for number in range(4):
            await publisher.publish(b"held %d" % number, 1)
        held = await unanswered(members, 4)
        assert all(held.values())
        lost = held["a"]
        for name in "bc":
            monkeypatch.setattr(three[name].cluster.links, "is_not_running", lambda _node: False)
        await three["a"].kill()
        await until(lambda: not any(three[name].cluster.absent.is_alive("a") for name in "bc"))
        for number in range(4):
            await publisher.publish(b"new %d" % number, 1)
        came = (await unanswered({"b": members["b"]}, 4))["b"]
        assert came == [b"new %d" % number for number in range(4)]
        monkeypatch.setattr(session_server, "CONSUMER_DISCONNECTED_MS", 1)
        assert (await unanswered({"b": members["b"]}, len(lost)))["b"] == lost


async def test_the_lost_queue_of_qos_0_ends_no_client_and_refuses_no_publisher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is at the node that its session was made at, and in use again when that is back."""
    monkeypatch.setattr(channel, "AWAY_RETRY_S", 0.01)
    async with running_cluster(tmp_path, config=CONFIG) as three:
        async with connected(three["a"], "s") as subscriber:
            await subscriber.subscribe(1)
            await subscriber.subscribe(0, "zero")
        await until(lambda: session_of(three["b"]).ended_at_ms > 0)
        await three["a"].kill()
        async with connected(three["c"], "s") as subscriber, connected(three["b"], "p") as line:
            assert subscriber.connack.session_present
            await until(lambda: consumers_at(three["c"], "s") == {TAGS[1]})
            for number in range(3):
                line.send(Publish(b"zero", b"", 1, packet_id=7))
                assert (await line.expect(Acks)).kind is PacketType.PUBACK
                payload = b"%d" % number
                await line.publish(payload, 1)
                assert await subscriber.messages(1) == [(b"t", payload, 1)]
            await three["a"].start()
            queue = three["a"].node.catalogue.vhosts["/"].queues["mqtt-subscription-sqos0"]
            await until(lambda: queue.consumer_count == 1)
            line.send(Publish(b"zero", b"again", 0))
            assert await subscriber.messages(1) == [(b"zero", b"again", 0)]


@pytest.mark.parametrize("is_connected", [False, True], ids=["away", "connected"])
async def test_a_session_goes_on_though_the_disk_of_its_queue_of_qos_0_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_connected: bool
) -> None:
    """With all of its subscriptions, and what it was sent with QoS 1."""
    monkeypatch.setattr(channel, "AWAY_RETRY_S", 0.01)
    async with running_cluster(tmp_path, config=CONFIG) as three:
        async with connected(three["a"], "s") as subscriber:
            await subscriber.subscribe(1)
            await subscriber.subscribe(0, "zero")
        await until(lambda: session_of(three["b"]).ended_at_ms > 0)
        async with AsyncExitStack() as lines:
            publisher = await lines.enter_async_context(connected(three["b"], "p"))
            if is_connected:
                subscriber = await lines.enter_async_context(connected(three["c"], "s"))
            await three["a"].kill()
            others = [three[name].cluster.absent for name in "bc"]
            await until(lambda: not any(each.is_alive("a") for each in others))
            await publisher.publish(b"kept", 1)
            await three["b"].ask("cluster.forget", name="a")
            vhosts = [three[name].node.catalogue.vhosts["/"] for name in "bc"]
            zero = "mqtt-subscription-sqos0"
            await until(lambda: all(each.queues[zero].definition.home != "a" for each in vhosts))
            if not is_connected:
                subscriber = await lines.enter_async_context(connected(three["c"], "s"))
            assert subscriber.connack.session_present
            assert await subscriber.messages(1) == [(b"t", b"kept", 1)]
            await until(lambda: consumers_at(three["c"], "s") == set(TAGS))
            publisher.send(Publish(b"zero", b"x", 0))
            assert await subscriber.messages(1) == [(b"zero", b"x", 0)]


async def test_a_session_is_gone_at_all_nodes_with_a_queue_that_is_deleted(tmp_path: Path) -> None:
    """With what it shares and has in other queues; and its node may be lost."""
    async with running_cluster(tmp_path, config=CONFIG) as three:
        async with connected(three["a"], "s") as subscriber:
            await subscriber.subscribe(1)
            await subscriber.subscribe(0, "zero")
            await subscriber.subscribe(1, "$share/g/t")
        await until(lambda: session_of(three["b"]).ended_at_ms > 0)
        await three["a"].kill()
        vhosts = [three[name].node.catalogue.vhosts["/"] for name in "bc"]
        queue = vhosts[0].queues["mqtt-subscription-sqos1"]
        await three["b"].change(lambda: delete_queue(vhosts[0], queue))
        async with connected(three["c"], "s") as subscriber:
            assert not subscriber.connack.session_present
        await until(lambda: not any(each.queues for each in vhosts))


async def test_queues_expire_as_their_session_has_asked_for_last(tmp_path: Path) -> None:
    """That is at another node, and what they hold stays."""
    names = {qos: f"mqtt-subscription-sqos{qos}" for qos in (0, 1)}
    async with running_cluster(tmp_path, config=CONFIG) as three:
        async with connected(three["a"], "s", expiry_s=100) as subscriber:
            await subscriber.subscribe(1)
            await subscriber.subscribe(0, "zero")
        await until(lambda: session_of(three["b"]).ended_at_ms > 0)
        async with connected(three["c"], "p") as publisher:
            await publisher.publish(b"kept", 1)
        async with connected(three["b"], "s", expiry_s=200) as subscriber:
            assert await subscriber.messages(1) == [(b"t", b"kept", 1)]
        everywhere = [three[name].node.catalogue.vhosts["/"].queues for name in "abc"]
        specs = [queues[name].spec for queues in everywhere for name in names.values()]
        assert all(each.arguments["x-expires"] == ("l", 200_000) for each in specs)
        assert [each.queue_type.shown for each in specs] == ["classic", "quorum"] * 3
        id_ = everywhere[0][names[1]].definition.id

        def in_force() -> list[int | None]:
            hosted = [three[name].cluster.node_sessions.leaders.queues[id_] for name in "abc"]
            members = [each for each in hosted if isinstance(each, QuorumQueueMember)]
            led = [each.replica.leadership for each in members]
            return [each.queue.settings.expires_ms for each in led if each is not None]

        await until(lambda: in_force() == [200_000 + EXPIRY_GRACE_MS])


async def test_who_subscribes_at_another_node_is_sent_what_is_retained(tmp_path: Path) -> None:
    async with (
        running_cluster(tmp_path, config=CONFIG) as three,
        connected(three["b"], "p") as publisher,
        connected(three["a"], "s") as subscriber,
    ):
        await publisher.publish(b"kept", 2, retain=True)
        await until(lambda: three["a"].node.catalogue.vhosts["/"].retained.count == 1)
        await subscriber.subscribe(2)
        assert await subscriber.messages(1) == [(b"t", b"kept", 2)]


async def test_a_session_goes_on_at_another_node_when_its_own_is_gone(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, config=CONFIG) as three:
        async with connected(three["a"], "s") as subscriber:
            assert not subscriber.connack.session_present
            await subscriber.subscribe(2)
        await until(lambda: session_of(three["b"]).ended_at_ms > 0)
        await three["a"].kill()
        async with connected(three["b"], "p") as publisher:
            for qos in (1, 2):
                await publisher.publish(b"%d" % qos, qos)
        async with connected(three["c"], "s") as subscriber:
            assert subscriber.connack.session_present
            assert await subscriber.messages(2) == [(b"t", b"1", 1), (b"t", b"2", 2)]
            await three["a"].start()
            await until(lambda: session_of(three["a"]).node == "c")
            async with connected(three["a"], "p") as publisher:
                await publisher.publish(b"again", 2)
            assert await subscriber.messages(1) == [(b"t", b"again", 2)]


async def test_a_session_that_has_moved_is_left_alone_where_it_was(tmp_path: Path) -> None:
    """And a client that is connected twice is connected where it came last."""
    will = Will(b"t", b"gone", 1, delay_s=1)
    async with running_cluster(tmp_path, config=CONFIG) as three, AsyncExitStack() as lines:
        before = await lines.enter_async_context(connected(three["a"], "s", will=will))
        await before.subscribe(1)
        after = await lines.enter_async_context(connected(three["b"], "s"))
        assert after.connack.session_present
        assert (await before.expect(Disconnect)).code is ReasonCode.SESSION_TAKEN_OVER
        assert session_of(three["b"]).node == "b"
        async with connected(three["c"], "p") as publisher:
            await publisher.publish(b"x", 1)
        assert await after.messages(1) == [(b"t", b"x", 1)]
        assert not list(sessions_at(three["a"]))


def members_of(node: ClusterNode) -> list[str]:
    """Clients that share a queue, as a node knows."""
    exchange = node.node.catalogue.vhosts["/"].topology.find("amq.topic")
    assert exchange is not None
    return sorted(exchange.members)


async def test_a_message_of_qos_2_is_there_once_though_its_node_ends_before_pubrec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is in the quorum queue of its subscriber, and its publisher does not know."""
    async with (
        running_cluster(tmp_path, config=CONFIG) as three,
        connected(three["b"], "s") as subscriber,
    ):
        await subscriber.subscribe(2)
        message = Publish(b"t", b"once", 2, packet_id=7)
        async with connected(three["a"], "p") as publisher:
            with monkeypatch.context() as patch:
                patch.setattr(NotedRun, "_one_known", lambda _run: None)
                publisher.send(message)
                assert await subscriber.messages(1) == [(b"t", b"once", 2)]
                await three["a"].kill()
        async with connected(three["c"], "p") as publisher:
            assert publisher.connack.session_present
            publisher.send(message)
            assert (await publisher.expect(Acks)).kind is PacketType.PUBREC
            publisher.send(Ack(PacketType.PUBREL, 7))
            assert (await publisher.expect(Acks)).kind is PacketType.PUBCOMP
            await publisher.publish(b"last", 2)
        assert await subscriber.messages(1) == [(b"t", b"last", 2)]


async def test_what_a_client_has_of_qos_2_does_not_come_again_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its receipt is noted, and the node ends before the message is settled."""
    async with running_cluster(tmp_path, config=CONFIG) as three:
        async with connected(three["a"], "s") as subscriber:
            await subscriber.subscribe(2)
            async with connected(three["b"], "p") as publisher:
                await publisher.publish(b"once", 2)
            run = await subscriber.expect(Publishes)
            with monkeypatch.context() as patch:
                patch.setattr(packet_handlers, "received_safely", lambda *_safely: None)
                subscriber.send(*(Ack(PacketType.PUBREC, each) for each in run.packet_ids))
                there = three["a"].node.catalogue.vhosts["/"].client_sessions
                await until(lambda: bool(there.numbers("s", OUTGOING)))
                await three["a"].kill()
        async with connected(three["c"], "s") as subscriber:
            await subscriber.finish(len(run.packet_ids))
            async with connected(three["b"], "p") as publisher:
                await publisher.publish(b"last", 2)
            assert await subscriber.messages(1) == [(b"t", b"last", 2)]


async def test_the_node_that_leads_publishes_the_wills_of_one_that_is_lost(tmp_path: Path) -> None:
    """Also one that waited for its time; the node finds that done when it is back."""
    at_once, late = Will(b"t", b"at once", 1), Will(b"t", b"late", 1, delay_s=1)
    async with (
        running_cluster(tmp_path, config=CONFIG) as three,
        connected(three["b"], "watcher") as watcher,
    ):
        await watcher.subscribe(1)
        async with connected(three["a"], "late", will=late):
            pass
        await until(lambda: session_of(three["b"], "late").ended_at_ms > 0)
        async with connected(three["a"], "s", will=at_once):
            await three["a"].kill()
            payloads = [payload for _topic, payload, _qos in await watcher.messages(2)]
            assert sorted(payloads) == [b"at once", b"late"]
        await until(lambda: not session_of(three["b"]).record)
        await three["a"].start()
        async with connected(three["a"], "p") as publisher:
            await publisher.publish(b"last", 1)
        assert await watcher.messages(1) == [(b"t", b"last", 1)]


async def test_a_session_ends_in_its_time_though_its_node_does_not_come_back(
    tmp_path: Path,
) -> None:
    async with running_cluster(tmp_path, config=CONFIG) as three:
        async with connected(three["a"], "s", expiry_s=1) as subscriber:
            await subscriber.subscribe(1)
            await three["a"].kill()
        there = three["b"].node.catalogue.vhosts["/"]
        await until(lambda: "s" not in there.client_sessions.by_client)
        assert "mqtt-subscription-sqos1" not in there.queues
        async with connected(three["b"], "s") as subscriber:
            assert not subscriber.connack.session_present


async def test_who_comes_back_elsewhere_has_the_will_of_a_lost_connection_published_once(
    tmp_path: Path,
) -> None:
    async with (
        running_cluster(tmp_path, config=CONFIG) as three,
        connected(three["b"], "watcher") as watcher,
        connected(three["a"], "s", will=Will(b"t", b"gone", 1)),
    ):
        await watcher.subscribe(1)
        await three["a"].kill()
        async with connected(three["c"], "s"), connected(three["c"], "p") as publisher:
            assert await watcher.messages(1) == [(b"t", b"gone", 1)]
            await publisher.publish(b"last", 1)
            assert await watcher.messages(1) == [(b"t", b"last", 1)]


def sessions_at(node: ClusterNode) -> list[str]:
    """Sessions of clients that are, or were last, at a node."""
    (keeper,) = node.node._services.connections.session_keepers
    return [row["client_id"] for row in keeper.session_rows() if row["client_id"] == "s"]


def consumers_at(node: ClusterNode, client_id: str) -> set[str]:
    """Tags of the consumers of a client that is connected to a node."""
    (keeper,) = node.node._services.connections.session_keepers
    assert isinstance(keeper, MqttServer)
    client = keeper.connected["/", client_id]
    assert isinstance(client, Connection)
    assert client.channel is not None
    return set(client.channel.subscriptions)


def session_of(node: ClusterNode, client_id: str = "s") -> ClientSession:
    return node.node.catalogue.vhosts["/"].client_sessions.by_client[client_id]


@pytest.mark.parametrize("qos", [1, 2])
async def test_who_comes_back_elsewhere_has_first_what_it_had_where_its_node_is_gone(
    tmp_path: Path, qos: int
) -> None:
    """At once, whether or not that node is known to be dead, and in order."""
    async with (
        running_cluster(tmp_path, config=CONFIG, is_cuttable=True) as three,
        connected(three["c"], "p") as publisher,
    ):
        await three.meet()
        async with connected(three["a"], "s") as subscriber:
            await subscriber.subscribe(qos)
            for number in range(3):
                await publisher.publish(b"%d" % number, qos)
            await unanswered({"a": subscriber}, 3)
            three.isolate("a")
            await publisher.publish(b"3", qos)
            async with connected(three["b"], "s") as subscriber:
                heard = await unanswered({"b": subscriber}, 4)
                assert heard["b"] == [b"0", b"1", b"2", b"3"]
                three.rejoin("a")


@pytest.mark.parametrize("filters", [(), ("t",)], ids=["no subscription", "a subscription"])
async def test_a_client_without_a_session_that_lasts_is_connected_where_it_came_last(
    tmp_path: Path, filters: tuple[str, ...]
) -> None:
    will = Will(b"w", b"taken over", 1)
    async with (
        running_cluster(tmp_path, config=CONFIG) as three,
        connected(three["c"], "watcher") as watcher,
        connected(three["a"], "s", lasts=False, will=will) as before,
    ):
        await three.meet()
        await watcher.subscribe(1, "w")
        for topic_filter in filters:
            await before.subscribe(1, topic_filter)
        async with connected(three["b"], "s", lasts=False) as after:
            assert (await before.expect(Disconnect)).code is ReasonCode.SESSION_TAKEN_OVER
            assert await watcher.messages(1) == [(b"w", b"taken over", 1)]
            await after.subscribe(1)
            async with connected(three["c"], "p") as publisher:
                await publisher.publish(b"x", 1)
            assert await after.messages(1) == [(b"t", b"x", 1)]


async def test_a_client_that_two_nodes_have_is_ended_where_it_came_first_once_they_meet(
    tmp_path: Path,
) -> None:
    async with (
        running_cluster(tmp_path, config=CONFIG, is_cuttable=True) as three,
        connected(three["a"], "s", lasts=False) as before,
    ):
        await three.meet()
        three.cut("a", "b")
        links = three["a"].cluster.links
        await until(lambda: not links.is_up("b"))
        async with connected(three["b"], "s", lasts=False) as after:
            three.mend("a", "b")
            assert (await before.expect(Disconnect)).code is ReasonCode.SESSION_TAKEN_OVER
            await after.subscribe(1)


async def test_a_node_without_a_port_for_mqtt_looks_after_the_sessions_of_a_lost_one(
    tmp_path: Path,
) -> None:
    """The one that leads of the two that are left has none."""
    will = Will(b"t", b"gone", 1)
    async with running_cluster(tmp_path, config=CONFIG) as three:
        for name in "bc":
            await three[name].stop()
            three[name].config = replace(three[name].config, mqtt=MqttConfig())
            await three[name].start()
        async with connected(three["a"], "s", expiry_s=1, will=will) as subscriber:
            await subscriber.subscribe(1)
            await three["a"].kill()
        there = three["b"].node.catalogue.vhosts["/"]
        await until(lambda: session_of(three["b"]).node in {"b", "c"})
        await until(lambda: "s" not in there.client_sessions.by_client)
        assert "mqtt-subscription-sqos1" not in there.queues


async def test_sessions_of_a_node_that_is_gone_end_when_the_others_have_been_started_again(
    tmp_path: Path,
) -> None:
    async with running_cluster(tmp_path, config=CONFIG) as three:
        async with connected(three["a"], "s", expiry_s=1) as subscriber:
            await subscriber.subscribe(1)
        await three.stop()
        await three.start("bc")
        there = three["b"].node.catalogue.vhosts["/"]
        await until(lambda: "s" not in there.client_sessions.by_client)


async def test_a_message_comes_however_often_its_connection_is_lost(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, config=CONFIG) as three:
        async with connected(three["a"], "s") as subscriber:
            await subscriber.subscribe(1)
            await subscriber.publish(b"one", 1)
        for _ in range(DEFAULT_DELIVERY_LIMIT + 2):
            async with connected(three["a"], "s") as subscriber:
                await subscriber.expect(Publishes)
        async with connected(three["a"], "s") as subscriber:
            assert await subscriber.messages(1) == [(b"t", b"one", 1)]
