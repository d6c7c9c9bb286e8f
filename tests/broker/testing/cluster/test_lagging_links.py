"""A node that hears late: what is not there by what it knows it says only once it knows better."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import TypeVar

import aio_pika
import aiormq
import pytest
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed, DeliveryError
from aiohttp import ClientSession
from pamqp.common import FieldTable

from fluffle.broker import Cluster
from fluffle.broker.access.passwords import hashed
from fluffle.broker.admin import local_client
from fluffle.broker.admin.context import NodeContext
from fluffle.broker.admin.local_client import ask
from fluffle.broker.cluster import metadata_group
from fluffle.broker.cluster.queues import pending_replies
from fluffle.broker.config.config import Config
from fluffle.broker.testing import loop_thread
from tests.support.cluster_nodes import make_calm
from tests.support.deadlines import DEADLINE_S
from tests.support.management import GUEST, HERE, Api
from tests.support.quorum_queue import QUORUM, ChannelAt

T = TypeVar("T")

ASKED_S = 0.2
"""The time in which a node that says what it knows would have said it."""

NODES = 3

KINDS = pytest.mark.parametrize("arguments", [QUORUM, None], ids=["quorum", "classic"])

MESSAGE = Message(b"order", delivery_mode=DeliveryMode.PERSISTENT)


@pytest.fixture(autouse=True)
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    make_calm(monkeypatch)


class Scene:
    """A client of a node that hears at once, and one of a node that does not."""

    def __init__(
        self, cluster: Cluster, late: int, here: AbstractChannel, there: AbstractChannel
    ) -> None:
        """`late` is the one that does not."""
        self.cluster = cluster
        self.late = late
        self.here = here
        self.there = there

    async def lag(self) -> None:
        """From now on nothing arrives at the one that lags, and all of it when that is healed."""
        for number in {*range(NODES)} - {self.late}:
            await self.cluster.cut(number, self.late)

    @property
    def parts(self) -> tuple[NodeContext, NodeContext]:
        """The parts of the node that hears at once, and of the one that does not."""
        return self.cluster[(self.late + 2) % NODES].parts, self.cluster[self.late].parts

    async def once_heard(self, asked: Awaitable[T]) -> T:
        """The answer at the node that lags: nothing before it hears what has happened."""
        local_client = asyncio.ensure_future(asked)
        done, _ = await asyncio.wait({local_client}, timeout=ASKED_S)
        assert not done, local_client
        await self.cluster.heal()
        return await local_client

    async def ready(self, queue: str) -> int | None:
        """How many messages it has, by a node that does not lag."""
        declared = await self.here.declare_queue(queue, passive=True)
        return declared.declaration_result.message_count


@asynccontextmanager
async def lagging(channel_at: ChannelAt) -> AsyncIterator[Scene]:
    config = Config(listen=HERE, management_listen=HERE)
    async with Cluster(config, nodes=NODES) as cluster:
        leader = next(number for number in range(NODES) if leads(cluster[number].parts))
        late = (leader + 1) % NODES
        yield Scene(
            cluster, late, await channel_at(cluster, leader), await channel_at(cluster, late)
        )
        await cluster.heal()


async def ignore(_message: AbstractIncomingMessage) -> None:
    """Leave it unsettled."""


async def look_for_ever(channel: AbstractChannel) -> None:
    """Look for a queue, which may go with its last consumer."""
    while True:
        await channel.get_queue("orders")


def leads(parts: NodeContext) -> bool:
    """True if it orders what is defined."""
    return parts.cluster is not None and parts.cluster.metadata.leads


async def test_a_queue_that_was_declared_elsewhere_is_there(channel_at: ChannelAt) -> None:
    async with lagging(channel_at) as scene:
        await scene.lag()
        await scene.here.declare_queue("orders", durable=True, arguments=QUORUM)
        await scene.once_heard(scene.there.declare_queue("orders", passive=True))


async def test_an_exchange_that_was_declared_elsewhere_is_there(channel_at: ChannelAt) -> None:
    async with lagging(channel_at) as scene:
        await scene.lag()
        await scene.here.declare_exchange("events", "fanout")
        await scene.once_heard(scene.there.declare_exchange("events", passive=True))


async def test_who_consumes_what_was_declared_elsewhere_does(channel_at: ChannelAt) -> None:
    async with lagging(channel_at) as scene:
        await scene.lag()
        await scene.here.declare_queue("orders", durable=True, arguments=QUORUM)
        queue = await scene.there.get_queue("orders", ensure=False)
        await scene.once_heard(queue.consume(ignore))


@pytest.mark.parametrize("mandatory", [False, True])
async def test_what_leads_to_a_queue_elsewhere_leads_there(
    channel_at: ChannelAt, mandatory: bool
) -> None:
    async with lagging(channel_at) as scene:
        await scene.lag()
        await scene.here.declare_queue("orders", durable=True, arguments=QUORUM)
        publishing = scene.there.default_exchange.publish(MESSAGE, "orders", mandatory=mandatory)
        await scene.once_heard(publishing)
        assert await scene.ready("orders") == 1


async def test_what_is_bound_elsewhere_is_led_to(channel_at: ChannelAt) -> None:
    async with lagging(channel_at) as scene:
        exchange = await scene.here.declare_exchange("events", "fanout", durable=True)
        queue = await scene.here.declare_queue("orders", durable=True, arguments=QUORUM)
        events = await scene.there.declare_exchange("events", passive=True)
        await events.publish(MESSAGE, "")
        await scene.lag()
        await queue.bind(exchange)
        await scene.once_heard(events.publish(MESSAGE, "", mandatory=False))
        assert await scene.ready("orders") == 1


async def test_what_is_bound_elsewhere_is_not_given_to_an_alternate_exchange(
    channel_at: ChannelAt,
) -> None:
    async with lagging(channel_at) as scene:
        here = scene.here
        others = await here.declare_queue("others", durable=True, arguments=QUORUM)
        await others.bind(await here.declare_exchange("other", "fanout", durable=True))
        arguments: FieldTable = {"alternate-exchange": "other"}
        exchange = await here.declare_exchange("events", "fanout", arguments=arguments)
        queue = await here.declare_queue("orders", durable=True, arguments=QUORUM)
        events = await scene.there.declare_exchange("events", passive=True)
        await events.publish(MESSAGE, "")
        await scene.lag()
        await queue.bind(exchange)
        await scene.once_heard(events.publish(MESSAGE, ""))
        assert (await scene.ready("others"), await scene.ready("orders")) == (1, 1)


async def test_a_queue_that_was_declared_elsewhere_is_deleted(channel_at: ChannelAt) -> None:
    async with lagging(channel_at) as scene:
        await scene.lag()
        await scene.here.declare_queue("orders", durable=True, arguments=QUORUM)
        await scene.once_heard(scene.there.queue_delete("orders"))
        with pytest.raises(ChannelNotFoundEntity):
            await scene.here.declare_queue("orders", passive=True)


async def test_what_is_not_empty_is_not_deleted_as_if_it_were(channel_at: ChannelAt) -> None:
    async with lagging(channel_at) as scene:
        await scene.lag()
        await scene.here.declare_queue("orders")
        await scene.here.default_exchange.publish(MESSAGE, "orders")
        with pytest.raises(ChannelPreconditionFailed, match="not empty"):
            await scene.once_heard(scene.there.queue_delete("orders", if_empty=True))
        assert await scene.ready("orders") == 1


async def test_a_queue_that_was_deleted_elsewhere_is_declared_anew(channel_at: ChannelAt) -> None:
    async with lagging(channel_at) as scene:
        await scene.here.declare_queue("orders", durable=True, arguments=QUORUM)
        await scene.lag()
        await scene.here.queue_delete("orders")
        again = scene.there.declare_queue("orders", durable=True, arguments=QUORUM)
        await scene.once_heard(again)
        assert await scene.ready("orders") == 0


async def test_a_user_who_was_added_elsewhere_is_let_in(channel_at: ChannelAt) -> None:
    async with lagging(channel_at) as scene:
        await scene.lag()
        parts, _ = scene.parts
        await ask(parts, "users.add", name="new", password_hash=hashed(b"p").hash)
        rights = dict.fromkeys(("configure", "write", "read"), ".*")
        await ask(parts, "permissions.set", user="new", vhost="/", **rights)
        url = scene.cluster.urls[scene.late].replace("guest:guest", "new:p")
        await (await scene.once_heard(aio_pika.connect(url))).close()


async def test_what_was_declared_elsewhere_is_reported_to_operators(channel_at: ChannelAt) -> None:
    async with lagging(channel_at) as scene:
        await scene.lag()
        await scene.here.declare_queue("orders", durable=True, arguments=QUORUM)
        _, there = scene.parts
        shown = await scene.once_heard(ask(there, "queues.show", vhost="/", name="orders"))
        assert shown["name"] == "orders"


@pytest.mark.parametrize(
    ("path", "user"),
    [("queues/%2F/orders", GUEST), ("queues/%2F", GUEST), ("vhosts", ("new", "p"))],
)
async def test_what_was_defined_elsewhere_is_there_over_http(
    channel_at: ChannelAt, path: str, user: tuple[str, str]
) -> None:
    """The objects are a queue, a list of queues, and a user."""
    async with lagging(channel_at) as scene, ClientSession() as session:
        api = Api(scene.cluster[scene.late].node, session)
        assert (await api.ask("GET", "whoami"))[0] == HTTPStatus.OK
        await scene.lag()
        await scene.here.declare_queue("orders", durable=True, arguments=QUORUM)
        tags, parts = ["administrator"], scene.parts[0]
        await ask(parts, "users.add", name="new", password_hash=hashed(b"p").hash)
        await ask(parts, "users.tags", name="new", tags=tags)
        status, _ = await scene.once_heard(api.ask("GET", path, user=user))
        assert status == HTTPStatus.OK
        _, found = await api.ask("GET", path, user=user)
        assert "orders" in str(found) or user != GUEST


async def test_who_cannot_know_says_so_and_confirms_nothing(
    channel_at: ChannelAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata_group, "GIVE_UP_MS", 500)
    async with lagging(channel_at) as scene:
        await scene.cluster.partition({scene.late}, set(range(NODES)) - {scene.late})
        with pytest.raises((aiormq.AMQPError, asyncio.CancelledError), match="INTERNAL_ERROR"):
            await scene.there.default_exchange.publish(MESSAGE, "orders", mandatory=False)


async def test_what_leads_nowhere_waits_together(channel_at: ChannelAt) -> None:
    """Unroutable messages that have come by then are found together."""
    count, delay_ms = 200, 20
    async with lagging(channel_at) as scene:
        await scene.cluster.net.delay(delay_ms)
        _, there = scene.parts
        assert there.cluster is not None
        reads = there.cluster.metadata.reads
        before = reads.begun
        publish = scene.there.default_exchange.publish
        publishing = [publish(MESSAGE, f"{number}", mandatory=False) for number in range(count)]
        await asyncio.gather(*publishing)
        assert 1 <= reads.begun - before < count / 10


@KINDS
async def test_what_is_published_to_a_queue_that_was_declared_anew_is_not_lost(
    channel_at: ChannelAt, arguments: FieldTable | None
) -> None:
    """The node that lags has the one before, and learns only later that it was deleted."""
    async with lagging(channel_at) as scene:
        await scene.here.declare_queue("orders", durable=True, arguments=arguments)
        await scene.there.default_exchange.publish(MESSAGE, "orders")
        await scene.lag()
        await scene.here.queue_delete("orders")
        await scene.here.declare_queue("orders", durable=True, arguments=arguments)
        publishing = scene.there.default_exchange.publish(MESSAGE, "orders", mandatory=False)
        with pytest.raises(DeliveryError):
            await scene.once_heard(publishing)
        await scene.there.default_exchange.publish(MESSAGE, "orders")
        assert await scene.ready("orders") == 1


async def test_what_is_published_to_a_queue_that_was_deleted_is_gone_with_it(
    channel_at: ChannelAt,
) -> None:
    """The publish is confirmed, as with RabbitMQ."""
    async with lagging(channel_at) as scene:
        await scene.here.declare_queue("orders", durable=True, arguments=QUORUM)
        await scene.there.default_exchange.publish(MESSAGE, "orders")
        await scene.lag()
        await scene.here.queue_delete("orders")
        publishing = scene.there.default_exchange.publish(MESSAGE, "orders", mandatory=False)
        await scene.once_heard(publishing)


@asynccontextmanager
async def declared_anew(
    channel_at: ChannelAt, arguments: FieldTable | None
) -> AsyncIterator[tuple[Scene, AbstractQueue]]:
    """A queue with one message, as the node that lags has it after it was replaced."""
    async with lagging(channel_at) as scene:
        await scene.here.declare_queue("orders", durable=True, arguments=arguments)
        queue = await scene.there.get_queue("orders", ensure=False)
        await scene.there.default_exchange.publish(MESSAGE, "orders")
        await queue.purge()
        await scene.lag()
        await scene.here.queue_delete("orders")
        await scene.here.declare_queue("orders", durable=True, arguments=arguments)
        await scene.here.default_exchange.publish(MESSAGE, "orders")
        yield scene, queue


@KINDS
async def test_what_is_got_from_a_queue_that_was_declared_anew_is_there(
    channel_at: ChannelAt, arguments: FieldTable | None
) -> None:
    async with declared_anew(channel_at, arguments) as (scene, queue):
        message = await scene.once_heard(queue.get(fail=False))
        assert message is not None
        await message.ack()


@KINDS
async def test_a_queue_that_was_declared_anew_is_purged(
    channel_at: ChannelAt, arguments: FieldTable | None
) -> None:
    async with declared_anew(channel_at, arguments) as (scene, queue):
        assert (await scene.once_heard(queue.purge())).message_count == 1
        assert await scene.ready("orders") == 0


async def test_a_queue_that_was_declared_anew_is_purged_by_operators(
    channel_at: ChannelAt,
) -> None:
    async with declared_anew(channel_at, QUORUM) as (scene, _queue):
        _, there = scene.parts
        purged = await scene.once_heard(ask(there, "queues.purge", vhost="/", name="orders"))
        assert purged == {"messages": 1}


@KINDS
async def test_a_queue_that_was_declared_anew_has_the_consumer(
    channel_at: ChannelAt, arguments: FieldTable | None
) -> None:
    async with declared_anew(channel_at, arguments) as (scene, queue):
        inbox: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        await scene.once_heard(queue.consume(inbox.put, consumer_tag="c"))
        message = await asyncio.wait_for(inbox.get(), DEADLINE_S)
        await message.ack()
        await queue.cancel("c")
        assert await scene.ready("orders") == 0


@pytest.mark.parametrize("asked", ["get", "purge", "consume"])
async def test_who_asks_a_queue_that_was_deleted_hears_that_it_is_not_there(
    channel_at: ChannelAt, asked: str
) -> None:
    """The queue existed when the request was sent, for this node."""
    async with declared_anew(channel_at, QUORUM) as (scene, queue):
        await scene.here.queue_delete("orders")
        local_client: dict[str, Callable[[], Awaitable[object]]] = {
            "get": queue.get, "purge": queue.purge, "consume": partial(queue.consume, ignore),
        }  # fmt: skip
        with pytest.raises(ChannelNotFoundEntity, match="no queue 'orders' in vhost '/'"):
            await scene.once_heard(local_client[asked]())


async def test_a_consumer_that_was_given_up_and_comes_true_later_holds_no_queue(
    channel_at: ChannelAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The home of the queue has it at once, and its node hears too late of that."""
    async with lagging(channel_at) as scene:
        await scene.here.declare_queue("orders", auto_delete=True)
        queue = await scene.there.get_queue("orders", ensure=False)
        await scene.there.default_exchange.publish(MESSAGE, "orders")
        again = await channel_at(scene.cluster, scene.late)
        await scene.lag()
        monkeypatch.setattr(pending_replies, "ANSWER_S_MAX", ASKED_S)
        with pytest.raises(ChannelNotFoundEntity):
            await queue.consume(ignore)
        monkeypatch.undo()
        await scene.cluster.heal()
        with pytest.raises(ChannelNotFoundEntity):
            await asyncio.wait_for(look_for_ever(again), DEADLINE_S)


@pytest.mark.parametrize(
    ("method", "path", "reason"),
    [
        ("GET", "queues/%2F/nope", "no majority of the cluster has confirmed"),
        ("PUT", "vhosts/new", "no majority of the cluster has agreed"),
        ("PUT", "queues/%2F/new", "no majority of the cluster has agreed"),
    ],
)
async def test_who_cannot_know_says_why_over_http(
    channel_at: ChannelAt, monkeypatch: pytest.MonkeyPatch, method: str, path: str, reason: str
) -> None:
    """A verb that is not sure, a change by a verb, and one by AMQP within the node."""
    monkeypatch.setattr(metadata_group, "GIVE_UP_MS", 500)
    async with lagging(channel_at) as scene, ClientSession() as session:
        api = Api(scene.cluster[scene.late].node, session)
        await scene.cluster.partition({scene.late}, set(range(NODES)) - {scene.late})
        status, answer = await api.ask(method, path, json={})
        assert status == HTTPStatus.SERVICE_UNAVAILABLE
        assert answer["error"] == "timeout"
        assert reason in answer["reason"]


def test_the_cluster_says_why_before_nobody_waits_any_more() -> None:
    limits_s = (
        metadata_group.GIVE_UP_MS / 1_000,
        local_client.ANSWER_TIMEOUT_S,
        loop_thread.PATIENCE_S,
    )
    assert sorted(set(limits_s)) == list(limits_s)
