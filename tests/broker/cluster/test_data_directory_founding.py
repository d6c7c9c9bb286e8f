"""A node that was alone founds a cluster with what it has."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from pamqp.common import FieldTable

from fluffle.broker.access.limits import VhostSettings
from fluffle.broker.admin.dispatch import VERBS
from fluffle.broker.base.errors import StartFailed
from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.base.message import NEVER_EXPIRES_MS, RetainedMessage
from fluffle.broker.cli.node import shown_cluster
from fluffle.broker.cluster.data_directory import parts_of
from fluffle.broker.cluster.queues.quorum_member import QuorumQueueMember
from fluffle.broker.config.config import ClusterConfig, Config, ListenAddress
from fluffle.broker.metadata.change import Fact, Kind
from tests.broker.cluster.queues.test_quorum_queues import Inbox, publish
from tests.broker.cluster.test_cluster import define
from tests.broker.cluster.test_membership import are_voters, let_in
from tests.support.cluster_nodes import SECRET, ClusterNode, ClusterNodes, ports_of_nodes, until
from tests.support.deadlines import soon
from tests.support.ports import LOOPBACK, free_ports

pytestmark = pytest.mark.usefixtures("hasty")

QUORUM: FieldTable = {"x-queue-type": "quorum"}


class Scene:
    """A node that is alone, later of a cluster, and the connections to it."""

    def __init__(self, data_dir: Path, stack: AsyncExitStack) -> None:
        (port,) = free_ports(1)
        self._address = ListenAddress(LOOPBACK, port)
        config = Config(node_name="any", data_dir=data_dir, listen=ListenAddress(LOOPBACK, 0))
        self.node = ClusterNode(config)
        self._stack = stack

    async def channel(self) -> AbstractChannel:
        connection = await aio_pika.connect(self.node.url)
        self._stack.push_async_callback(connection.close)
        return await connection.channel()

    def configured(self, name: str, *others: str) -> ClusterNode:
        """The same node with the options of a cluster: who founds it, `name` first."""
        peers = {other: ListenAddress(LOOPBACK, 1) for other in others} | {name: self._address}
        cluster = ClusterConfig(peers, SECRET, listen=self._address)
        return ClusterNode(replace(self.node.config, node_name=name, cluster=cluster))

    async def found(self) -> ClusterNodes:
        """Start it as the only node of a cluster."""
        self.node = self.configured("a")
        await self.node.start()
        return ClusterNodes({"a": self.node})


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        scene = Scene(tmp_path / "node", stack)
        await scene.node.start()
        yield scene
        if scene.node.is_running:
            await scene.node.stop()


async def bodies(channel: AbstractChannel, name: str) -> list[bytes]:
    """All messages of a queue; each is acknowledged."""
    queue = await channel.get_queue(name)
    found = []
    async with soon():
        while (message := await queue.get(fail=False)) is not None:
            await message.ack()
            found.append(message.body)
    await channel.declare_queue(name, passive=True)
    return found


async def fill(scene: Scene) -> None:
    """Queues of both types with messages, bound to an exchange, and somebody who holds one."""
    channel = await scene.channel()
    exchange = await channel.declare_exchange("x", "fanout", durable=True)
    for name, arguments in (("classic", None), ("quorum", QUORUM)):
        queue = await channel.declare_queue(name, durable=True, arguments=arguments)
        await queue.bind(exchange)
        await publish(channel, b"1", b"2", to=name)
    await channel.declare_queue("gone", durable=True, arguments=QUORUM)
    await channel.queue_delete("gone")
    inbox = Inbox()
    await channel.set_qos(1)
    await (await channel.get_queue("quorum")).consume(inbox.take)
    await inbox.has(1)


@pytest.mark.parametrize("kill", [False, True], ids=["stop", "kill"])
async def test_all_that_it_has_is_there_in_the_cluster(scene: Scene, *, kill: bool) -> None:
    await fill(scene)
    await (scene.node.kill() if kill else scene.node.stop())
    nodes = await scene.found()
    assert scene.node.roles() == {"a": "running leader"}
    channel = await scene.channel()
    await publish_to_exchange(channel)
    assert await bodies(channel, "classic") == [b"1", b"2", b"3"]
    await until(lambda: quorum_ready(scene) == 3)
    assert await bodies(channel, "quorum") == [b"1", b"2", b"3"]
    await publish(channel, b"4", to="quorum")
    await publish(channel, b"4", to="classic")

    await nodes["a"].kill()  # now as one of the cluster
    await nodes["a"].start()
    nodes.grow("b")
    await let_in(nodes, "b", by="a")
    await nodes["b"].start()
    await are_voters(nodes["a"], "ab")
    (grown,) = await nodes["a"].rows("queues.grow", node="b")
    assert grown["result"] == "changed"
    queue = nodes["b"].node.catalogue.vhosts["/"].queues["quorum"]
    await until(lambda: dict(queue.definition.members).keys() == {"a", "b"})
    connection = await aio_pika.connect(nodes["b"].url)
    channel = await connection.channel()
    assert await bodies(channel, "quorum") == [b"4"]
    assert await bodies(channel, "classic") == [b"4"]
    await connection.close()
    await nodes["b"].stop()


async def publish_to_exchange(channel: AbstractChannel) -> None:
    exchange = await channel.get_exchange("x")
    async with soon():
        await exchange.publish(aio_pika.Message(b"3", delivery_mode=2), "")


def quorum_ready(scene: Scene) -> int:
    queue = scene.node.node.catalogue.vhosts["/"].queues["quorum"]
    here = queue.local_counts
    return here.ready if here is not None else -1


@pytest.mark.parametrize(
    ("name", "others", "advice"),
    [
        ("a", ("b", "c"), r"name 'a' first in the --peers of all nodes .* they join it"),
        ("d", ("b", "c"), r"cannot be joined with what others begin with"),
    ],
)
async def test_what_others_would_have_to_agree_on_is_refused(
    scene: Scene, name: str, others: tuple[str, ...], advice: str
) -> None:
    """And nothing has changed: it can go on alone, or found it by itself."""
    await fill(scene)
    await scene.node.stop()
    node = scene.configured(name, *others)
    node.begin()
    with pytest.raises(StartFailed, match=advice):
        await node.started()
    await scene.node.start()
    assert await bodies(await scene.channel(), "classic") == [b"1", b"2"]
    await scene.node.stop()
    await scene.found()
    assert await bodies(await scene.channel(), "quorum") == [b"1", b"2"]


async def test_a_queue_goes_by_the_policies_of_either(scene: Scene) -> None:
    """A node that is alone has counted them; those of the cluster count as newer."""
    await fill(scene)

    async def has(max_length: int) -> None:
        said = json.dumps({"max-length": max_length})
        await scene.node.ask("policies.set", name="p", vhost="/", pattern="quorum", definition=said)
        await until(lambda: max_length_of(scene) == max_length)

    for max_length in (5, 6, 7):
        await has(max_length)
    await scene.node.stop()
    await scene.found()
    await until(lambda: max_length_of(scene) == 7)
    await has(8)
    await scene.node.kill()
    await scene.node.start()
    await until(lambda: max_length_of(scene) == 8)


def max_length_of(scene: Scene) -> int | None:
    """Maximum length by which the quorum queue's leader acts."""
    node = scene.node.node
    [group] = [
        hosted.machine
        for hosted in node.parts.cluster_view.groups.values()
        if isinstance(hosted.machine, QuorumQueueMember)
    ]
    led = group.replica.leadership
    return led.queue.settings.max_length if led is not None else None


async def test_who_is_to_join_takes_nothing_along(scene: Scene) -> None:
    await scene.node.stop()
    node = scene.configured("a")
    assert node.config.cluster is not None
    cluster = replace(node.config.cluster, peers={"b": ListenAddress(LOOPBACK, 1)})
    joining = ClusterNode(replace(node.config, cluster=cluster))
    joining.begin()
    with pytest.raises(StartFailed, match="has definitions of its own; name an empty --data-dir"):
        await joining.started()


async def test_it_cannot_be_alone_again(scene: Scene) -> None:
    await scene.node.stop()
    alone = scene.node
    nodes = await scene.found()
    await nodes.stop()
    alone.begin()
    with pytest.raises(StartFailed, match="holds the data of node 'a' of a cluster"):
        await alone.started()


async def test_three_that_take_data_along_are_three_clusters_and_all_say_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is the first of its own list, so that nothing tells it apart from a founder."""
    caplog.set_level(logging.ERROR)
    ports = ports_of_nodes(3)
    addresses = {name: ListenAddress(LOOPBACK, port) for name, port in ports.items()}
    nodes = ClusterNodes({})
    for name in ports:
        config = Config(node_name=name, data_dir=tmp_path / name, listen=ListenAddress(LOOPBACK, 0))
        alone = ClusterNode(config)
        await alone.start()
        await define(alone, f"of-{name}")
        await alone.stop()
        peers = {name: addresses[name]} | addresses
        cluster = ClusterConfig(peers, SECRET, listen=addresses[name])
        nodes.nodes[name] = ClusterNode(replace(config, cluster=cluster))
    await nodes.start()
    try:
        for node in nodes:
            others = ports.keys() - {node.name}
            await until(lambda: {*node.cluster.links.apart} == others)  # noqa: B023
            assert [each.node for each in node.cluster.metadata_config.voters] == [node.name]
            met = f"cluster_split: met {', '.join(sorted(others))}"
            assert met in shown_cluster(VERBS["status"].act(node.node.parts)["cluster"])
            assert met in [row["hindrance"] async for row in node.listed("cluster.status")]
            vhosts = node.node.catalogue.vhosts
            assert [name for name in ports if f"v-of-{name}" in vhosts] == [node.name]
        said = [
            getattr(record, FIELDS_ATTRIBUTE)
            for record in caplog.records
            if record.getMessage() == "cluster_split"
        ]
        assert {fields.get("node") or fields["peer"] for fields in said} == ports.keys()
        assert all("of the OTHER one with empty" in fields["advice"] for fields in said)
    finally:
        await nodes.stop()


def test_no_entry_of_what_is_taken_along_is_very_large() -> None:
    message = RetainedMessage(bytes(300_000), b"", "guest", 0, NEVER_EXPIRES_MS)
    small = [Fact(Kind.VHOST, (str(number),), VhostSettings()) for number in range(300)]
    large = [Fact(Kind.RETAINED, ("/", str(number)), message) for number in range(8)]
    parts = list(parts_of([*small, *large, *small[:1]]))
    assert [fact for part in parts for fact in part] == [*small, *large, *small[:1]]
    assert [len(part) for part in parts] == [256, 47, 3, 3]
    huge = large[0]._replace(value=message._replace(content=bytes(2_000_000)))
    assert list(parts_of([huge, huge])) == [(huge,), (huge,)]
