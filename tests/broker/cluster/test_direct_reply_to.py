"""Direct reply-to where requester and responder are at different nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiormq
import pytest
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp.commands import Basic
from pamqp.common import FieldTable

from fluffle.broker.base.message import Origin
from fluffle.broker.cluster.codec import BadFrame, pack
from fluffle.broker.cluster.direct_reply_to import (
    FRAME_BYTES_MAX,
    LONE_BYTES_MAX,
    REPLY_TIMEOUT_S,
    RemoteReplies,
    mark_of,
)
from fluffle.broker.queues.queue_api import Deferred, DeliveryBatch
from tests.support.cluster_nodes import ClusterNodes, running_cluster, until
from tests.support.deadlines import soon
from tests.support.fakes import Scheduler
from tests.support.frames import FakeSender

REPLY_TO = "amq.rabbitmq.reply-to"
QUORUM: FieldTable = {"x-queue-type": "quorum"}


class Scene:
    def __init__(self, nodes: ClusterNodes, stack: AsyncExitStack) -> None:
        self.nodes = nodes
        self._stack = stack

    async def channel(self, node: str, *, confirms: bool = True) -> aiormq.abc.AbstractChannel:
        connection = await aiormq.connect(self.nodes[node].url)
        self._stack.push_async_callback(connection.close)
        return await connection.channel(publisher_confirms=confirms)

    async def is_there(self, node: str, name: str) -> bool:
        channel = await self.channel(node)
        try:
            found = await channel.queue_declare(name, passive=True)
        except ChannelNotFoundEntity:
            return False
        assert (found.message_count, found.consumer_count) == (0, 1)
        return True


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with running_cluster(tmp_path) as three, AsyncExitStack() as stack:
        await three.meet()
        yield Scene(three, stack)


class Requester:
    """Requester at a node, for a queue of any type; `name` is where it is answered."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
        self.name = ""

    async def ask(self, scene: Scene, node: str) -> None:
        self.channel = await scene.channel(node)
        await self.channel.queue_declare("requests", durable=True, arguments=QUORUM)
        await self.channel.basic_consume(
            REPLY_TO, self.heard.put, no_ack=True, consumer_tag="replies"
        )
        asked = Basic.Properties(reply_to=REPLY_TO)
        await self.channel.basic_publish(b"?", routing_key="requests", properties=asked)
        message = await self.channel.basic_get("requests", no_ack=True)
        self.name = message.header.properties.reply_to or ""

    async def bodies(self, count: int) -> list[bytes]:
        async with soon():
            return [(await self.heard.get()).body for _ in range(count)]


async def test_answers_come_from_any_node(scene: Scene) -> None:
    requester = Requester()
    await requester.ask(scene, "a")
    large = b"x" * (3 * FRAME_BYTES_MAX)
    for node in "abc":
        assert await scene.is_there(node, requester.name)
        responder = await scene.channel(node)
        for body in (b"1", large, b"2"):
            properties = Basic.Properties(correlation_id="7")
            confirmed = await responder.basic_publish(
                body, routing_key=requester.name, properties=properties, mandatory=True
            )
            assert isinstance(confirmed, Basic.Ack)
        assert await requester.bodies(3) == [b"1", large, b"2"]
    responder = await scene.channel("b")
    await responder.basic_publish(b"3", routing_key=requester.name)
    message = await requester.heard.get()
    assert (message.exchange, message.routing_key) == ("", requester.name)
    assert not message.redelivered


async def test_a_transaction_answers_at_its_commit(scene: Scene) -> None:
    requester = Requester()
    await requester.ask(scene, "a")
    responder = await scene.channel("b", confirms=False)
    await responder.tx_select()
    await responder.basic_publish(b"forgotten", routing_key=requester.name)
    await responder.tx_rollback()
    await responder.basic_publish(b"told", routing_key=requester.name)
    await responder.tx_commit()
    assert await requester.bodies(1) == [b"told"]


async def test_who_is_gone_is_there_for_no_node_and_hears_nothing(scene: Scene) -> None:
    requester = Requester()
    await requester.ask(scene, "a")
    responder = await scene.channel("b")
    await responder.basic_publish(b"1", routing_key=requester.name)
    assert await requester.bodies(1) == [b"1"]
    await requester.channel.basic_cancel("replies")
    for node in "abc":
        assert not await scene.is_there(node, requester.name)
    late = await responder.basic_publish(b"late", routing_key=requester.name, mandatory=True)
    assert isinstance(late, Basic.Ack)
    await scene.nodes["a"].kill()
    await until(lambda: not scene.nodes["b"].cluster.links.is_up("a"))
    assert not await scene.is_there("b", requester.name)
    late = await responder.basic_publish(b"late", routing_key=requester.name)
    assert isinstance(late, Basic.Ack)
    assert requester.heard.empty()


# Without nodes


class Here:
    """The requesters of one node."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self.reported: list[tuple[str, str, str, bytes]] = []

    def has(self, name: str) -> bool:
        return name in self._names

    def deliver_reply(self, name: str, origins: list[Origin], contents: list[bytes]) -> None:
        for origin, content in zip(origins, contents, strict=True):
            self.reported.append((name, origin.exchange, origin.routing_key, content))


class Pair:
    """Two nodes; `reached` is what a reaches."""

    def __init__(self) -> None:
        self.reached = ["b"]
        self.wire: list[bytes] = []
        self.loop = Scheduler()
        self.there = Here("asked")
        self.a = RemoteReplies("a", Here(), FakeSender("a", self._put, self.reached), self.loop)
        self.b = RemoteReplies("b", self.there, FakeSender("b", self._put, ["a"]), self.loop)
        self.heard: list[bool] = []

    def _put(self, frame: tuple[str, str, bytes]) -> None:
        self.wire.append(frame[2])

    def ask(self, name: str) -> None:
        answer = self.a.is_there(name)
        assert isinstance(answer, Deferred)
        answer.then(self.heard.append, lambda error: None)


def handed(requester: object, *contents: bytes) -> DeliveryBatch:
    origin = Origin("", "k\udcff")
    numbers = range(1, len(contents) + 1)
    return DeliveryBatch(
        requester,  # type: ignore[arg-type]
        [origin] * len(contents),
        list(contents),
        numbers,
        redelivered=False,
    )


@pytest.mark.parametrize(
    ("sizes", "frames"),
    [((1, 1, 1), 1), ((FRAME_BYTES_MAX, 1), 2), ((LONE_BYTES_MAX + 1,), 0)],
)
def test_answers_are_sent_together_but_for_large_ones(sizes: tuple[int, ...], frames: int) -> None:
    pair, name = Pair(), f"{REPLY_TO}.x.{mark_of('b')}"
    requester = pair.a.requester(name)
    assert requester is not None
    requester.deliver(handed(requester, *map(bytes, sizes)))
    assert len(pair.wire) == frames
    for frame in pair.wire:
        pair.b.receive("a", frame)
    sent = sizes if frames else ()
    assert pair.there.reported == [(name, "", "k\udcff", bytes(size)) for size in sent]


def test_names_of_this_node_and_of_nobody_are_not_sent_anywhere() -> None:
    pair = Pair()
    assert pair.a.requester(f"x.{mark_of('a')}") is None
    stranger = pair.a.requester("x.nobody")
    assert stranger is not None
    stranger.deliver(handed(stranger, b"1"))
    pair.reached.clear()
    requester = pair.a.requester(f"x.{mark_of('b')}")
    assert requester is not None
    requester.deliver(handed(requester, b"1"))
    assert pair.a.is_there(f"x.{mark_of('b')}") is False
    assert pair.wire == []


def test_a_node_that_is_silent_or_away_has_nobody() -> None:
    pair, name = Pair(), f"x.{mark_of('b')}"
    pair.ask(name)
    pair.loop.advance(REPLY_TIMEOUT_S - 0.001)
    assert pair.heard == []
    pair.loop.advance(0.001)
    assert pair.heard == [False]
    pair.b.receive("a", pair.wire[0])
    pair.a.receive("b", pair.wire[1])
    pair.ask(name)
    pair.a.link_changed("c", False)
    assert pair.heard == [False]
    pair.a.link_changed("b", False)
    assert pair.heard == [False, False]


def test_only_who_was_asked_answers() -> None:
    pair = Pair()
    pair.ask(f"x.{mark_of('b')}")
    pair.a.receive("c", pack(2, 1, True))
    assert pair.heard == []
    pair.a.receive("b", pack(2, 1, True))
    pair.a.receive("b", pack(2, 1, False))
    assert pair.heard == [True]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        pack(3),
        pack(0, "name", []),
        pack(0, "name", [5]),
        pack(0, "name", [("", "k")]),
        pack(0, "name", [("", "k", "text")]),
        pack(0, "name", [(1, "k", b"")]),
        pack(0, b"name", [("", "k", b"")]),
        pack(1, "1", "name"),
        pack(2, 1, 1),
    ],
)
def test_what_cannot_be_read_is_refused(payload: bytes) -> None:
    pair = Pair()
    with pytest.raises(BadFrame, match="its answer cannot be read"):
        pair.b.receive("a", payload)
    assert pair.there.reported == []
