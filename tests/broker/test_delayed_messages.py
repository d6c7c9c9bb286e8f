"""x-delayed-message with a real client, on a node that is alone.

There is no oracle: Debian has no package of the plugin.  What is expected is what README.md and
src/ of github.com/rabbitmq/rabbitmq-delayed-message-exchange (4.2) say, or docs/compatibility.md
where we do better.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractQueue, HeadersType
from aiormq.exceptions import ChannelAccessRefused, ChannelPreconditionFailed, PublishError
from pamqp.common import FieldTable, FieldValue

from fluffle.broker.access.limits import VhostLimits
from fluffle.broker.base.errors import AccessRefused
from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.definitions.changes import set_vhost
from tests.broker.cluster.queues.test_quorum_queues import Inbox
from tests.broker.composition.test_single_node import Scene
from tests.support.cluster_nodes import ClusterNode
from tests.support.deadlines import soon
from tests.support.exports import export_all
from tests.support.ports import LOOPBACK

DELAYED = "x-delayed-message"
LATER_MS = 3_600_000
ONE_QUEUE = VhostLimits(max_queues=1)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    node = ClusterNode(Config(listen=ListenAddress(LOOPBACK, 0), data_dir=tmp_path / "node"))
    await node.start()
    async with AsyncExitStack() as stack:
        yield Scene(node, stack)
    await node.stop()


async def declare(
    channel: AbstractChannel, name: str = "x", inner: str = "direct", **said: object
) -> AbstractExchange:
    arguments: FieldTable = {"x-delayed-type": inner}
    arguments |= {key.replace("_", "-"): value for key, value in said.items()}  # type: ignore[misc]
    return await channel.declare_exchange(name, DELAYED, durable=True, arguments=arguments)


async def bound(
    channel: AbstractChannel, name: str = "q", exchange: str = "x", key: str = "k", kind: str = ""
) -> AbstractQueue:
    arguments: FieldTable = {"x-queue-type": kind or "classic"}
    queue = await channel.declare_queue(name, durable=True, arguments=arguments)
    await queue.bind(exchange, key)
    return queue


async def send(
    exchange: AbstractExchange,
    body: bytes,
    delay: FieldValue = None,
    key: str = "k",
    *,
    headers: HeadersType | None = None,
    expiration_s: float | None = None,
) -> None:
    delayed: HeadersType = {} if delay is None else {"x-delay": delay}
    message = aio_pika.Message(
        body, delivery_mode=2, headers={**delayed, **(headers or {})}, expiration=expiration_s
    )
    async with soon():
        await exchange.publish(message, key)


async def inbox_of(queue: AbstractQueue) -> Inbox:
    inbox = Inbox()
    await queue.consume(inbox.take, no_ack=True)
    return inbox


async def returning(scene: Scene) -> AbstractChannel:
    """A channel that raises what is returned."""
    channel = await scene.channel()
    return await channel._connection.channel(on_return_raises=True)  # type: ignore[attr-defined, no-any-return]


async def ready(channel: AbstractChannel) -> int:
    """How many messages are in the queue they are to come to."""
    count = (await channel.declare_queue("q", passive=True)).declaration_result.message_count
    assert count is not None
    return count


async def waiting(scene: Scene, exchange: str = "x") -> int:
    """How many messages an exchange holds."""
    row = await scene.node.ask("queues.show", name=f"amq.delayed.{exchange}", vhost="/")
    count = row["messages"]
    assert isinstance(count, int)
    return count


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_messages_come_in_the_order_of_their_times(scene: Scene, kind: str) -> None:
    channel = await scene.channel()
    exchange = await declare(channel)
    inbox = await inbox_of(await bound(channel, kind=kind))
    clock = scene.node.node._environment.clock
    began_ms = clock.now_ms()
    await send(exchange, b"later", 400)
    await send(exchange, b"sooner", 150)
    await send(exchange, b"now")
    async with soon():
        await inbox.has(3)
    assert clock.now_ms() - began_ms >= 400
    assert inbox.bodies == [b"now", b"sooner", b"later"]
    assert [message.headers.get("x-delay") for message in inbox.messages] == [None, -150, -400]
    assert {message.exchange for message in inbox.messages} == {"x"}
    assert {message.routing_key for message in inbox.messages} == {"k"}
    assert all("x-death" not in message.headers for message in inbox.messages)
    await until_waiting(scene, 0)


async def test_selectors_are_asked_when_it_is_time(scene: Scene) -> None:
    channel = await scene.channel()
    exchange = await declare(channel, inner="x-jms-topic")
    queue = await channel.declare_queue("q", durable=True)
    selector = "{'and',{'=',{'ident',<<\"n\">>},1},{'<',{'ident',<<\"x-delay\">>},0}}."
    await queue.bind("x", "k", arguments={"rjms_erlang_selector": selector})
    inbox = await inbox_of(queue)
    await send(exchange, b"for nobody", 50, headers={"n": 2})
    await send(exchange, b"not delayed", headers={"n": 1})
    await send(exchange, b"selected", 100, headers={"n": 1})
    async with soon():
        await inbox.has(1)
    assert inbox.bodies == [b"selected"]
    await until_waiting(scene, 0)


async def until_waiting(scene: Scene, count: int) -> None:
    """Wait until so many messages wait: the count falls a little after a message has come."""
    async with soon():
        while await waiting(scene) != count:
            pass


@pytest.mark.parametrize("delay", [0, -5, 2**32, 1.0e10, "soon", True, None, "0"])
async def test_what_is_no_delay_is_routed_at_once(scene: Scene, delay: FieldValue) -> None:
    channel = await scene.channel()
    exchange = await declare(channel)
    inbox = await inbox_of(await bound(channel))
    await send(exchange, b"now", delay)
    async with soon():
        await inbox.has(1)
    assert inbox.messages[0].headers.get("x-delay") == delay
    await until_waiting(scene, 0)


@pytest.mark.parametrize("delay", ["60", 60.9, 60])
async def test_other_types_of_delays(scene: Scene, delay: FieldValue) -> None:
    channel = await scene.channel()
    exchange = await declare(channel)
    inbox = await inbox_of(await bound(channel))
    await send(exchange, b"1", delay)
    async with soon():
        await inbox.has(1)
    assert inbox.messages[0].headers["x-delay"] == -60


@pytest.mark.parametrize("kill", [False, True], ids=["stop", "kill"])
async def test_what_is_confirmed_comes_after_a_restart(scene: Scene, *, kill: bool) -> None:
    channel = await scene.channel()
    exchange = await declare(channel)
    await bound(channel)
    together = (send(exchange, b"%d" % number, 1_500 - 100 * number) for number in range(10))
    await asyncio.gather(*together)
    await send(exchange, b"much later", LATER_MS)
    await scene.restart(kill=kill)
    channel = await scene.channel()
    inbox = await inbox_of(await bound(channel))
    async with soon():
        await inbox.has(10)
    assert inbox.bodies == [b"%d" % number for number in reversed(range(10))]
    await until_waiting(scene, 1)


async def test_the_exchange_goes_with_what_it_holds(scene: Scene) -> None:
    channel = await scene.channel()
    exchange = await declare(channel)
    await bound(channel)
    await send(exchange, b"1", LATER_MS)
    assert await waiting(scene) == 1
    assert len(scene.node.node.parts.cluster_view.groups) == 1
    await exchange.delete()
    assert not scene.node.node.parts.cluster_view.groups
    await declare(channel)
    assert await waiting(scene) == 0


async def test_an_exchange_that_deletes_itself_takes_along_what_it_holds(scene: Scene) -> None:
    channel = await scene.channel()
    exchange = await channel.declare_exchange(
        "x", DELAYED, durable=True, auto_delete=True, arguments={"x-delayed-type": "fanout"}
    )
    queue = await bound(channel)
    await send(exchange, b"1", LATER_MS)
    await queue.delete(if_unused=False, if_empty=False)
    assert not scene.node.node.parts.cluster_view.groups


async def test_one_that_is_not_durable_ends_with_the_node(scene: Scene) -> None:
    channel = await scene.channel()
    exchange = await channel.declare_exchange(
        "x", DELAYED, durable=False, arguments={"x-delayed-type": "fanout"}
    )
    await send(exchange, b"1", LATER_MS)
    await scene.restart(kill=False)
    assert not scene.node.node.parts.cluster_view.groups
    assert "amq.delayed.x" not in scene.node.node.catalogue.vhosts["/"].queues


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "Invalid argument, 'x-delayed-type' must be an existing exchange type"),
        (
            {"x-delayed-type": 7},
            "Invalid argument, 'x-delayed-type' must be an existing exchange type",
        ),
        (
            {"x-delayed-type": DELAYED},
            "Invalid argument, 'x-delayed-message' can't be used for 'x-delayed-type'",
        ),
        ({"x-delayed-type": "no-such"}, "unknown exchange type 'no-such'"),
        (
            {"x-delayed-type": "x-recent-history", "x-recent-history-length": 0},
            "Invalid argument 0, 'x-recent-history-length' must be a positive integer",
        ),
    ],
)
async def test_what_is_no_exchange(scene: Scene, arguments: FieldTable, text: str) -> None:
    channel = await scene.channel()
    with pytest.raises(ChannelPreconditionFailed) as caught:
        await channel.declare_exchange("x", DELAYED, arguments=arguments)
    assert f"PRECONDITION_FAILED - {text}" in str(caught.value)
    assert "amq.delayed.x" not in scene.node.node.catalogue.vhosts["/"].queues


async def test_it_is_declared_again(scene: Scene) -> None:
    """The plugin compares what the inner type compares: of arguments the alternate exchange."""
    channel = await scene.channel()
    exchange = await declare(channel, alternate_exchange="a")
    await send(exchange, b"1", LATER_MS)
    await declare(channel, alternate_exchange="a")
    await declare(channel, inner="topic", alternate_exchange="a")
    assert await waiting(scene) == 1
    with pytest.raises(ChannelPreconditionFailed, match="inequivalent arg 'alternate-exchange'"):
        await declare(channel, alternate_exchange="b")


@pytest.mark.parametrize("what", ["passive", "get", "consume", "purge", "delete", "bind"])
async def test_clients_cannot_name_what_holds_them(scene: Scene, what: str) -> None:
    channel = await scene.channel()
    await declare(channel)
    queue = await channel.get_queue("amq.delayed.x", ensure=False)
    acts: dict[str, Callable[[], Awaitable[object]]] = {
        "passive": lambda: channel.declare_queue("amq.delayed.x", passive=True),
        "get": lambda: queue.get(fail=False),
        "consume": lambda: queue.consume(Inbox().take),
        "purge": queue.purge,
        "delete": lambda: queue.delete(if_unused=False, if_empty=False),
        "bind": lambda: queue.bind("amq.direct", "k"),
    }
    with pytest.raises(ChannelAccessRefused, match="holds the delayed messages of exchange 'x'"):
        await acts[what]()


async def test_what_is_published_to_its_name_goes_nowhere(scene: Scene) -> None:
    channel = await returning(scene)
    await declare(channel)
    with pytest.raises(PublishError):
        await channel.default_exchange.publish(aio_pika.Message(b"1"), "amq.delayed.x")
    assert await waiting(scene) == 0


async def test_keys_of_topics_cc_and_bcc(scene: Scene) -> None:
    channel = await scene.channel()
    exchange = await declare(channel, inner="topic")
    inboxes = [
        await inbox_of(await bound(channel, f"q{number}", key=key))
        for number, key in enumerate(["a.*", "b.#", "c"])
    ]
    await send(exchange, b"1", 80, "a.1", headers={"CC": ["b.2.3"], "BCC": ["c"]})
    async with soon():
        for inbox in inboxes:
            await inbox.has(1)
    assert all("BCC" not in inbox.messages[0].headers for inbox in inboxes)
    assert inboxes[2].messages[0].headers["CC"] == ["b.2.3"]


async def test_time_to_live_counts_from_when_a_message_is_routed(scene: Scene) -> None:
    channel = await scene.channel()
    exchange = await declare(channel)
    queue = await bound(channel)
    await send(exchange, b"1", 300, expiration_s=0.15)
    for count in (1, 0):
        async with soon():
            while await ready(channel) != count:
                pass
    assert await queue.get(fail=False) is None


async def test_exchanges_that_lead_to_it_and_that_it_leads_to(scene: Scene) -> None:
    """A message waits once on its way, even if two exchanges delay it."""
    channel = await scene.channel()
    first = await channel.declare_exchange("first", "fanout", durable=True)
    await declare(channel, "x", "fanout")
    await declare(channel, "y", "fanout")
    last = await channel.declare_exchange("last", "fanout", durable=True)
    for destination, source in (("x", "first"), ("y", "x"), ("last", "y")):
        exchange = await channel.get_exchange(destination)
        await exchange.bind(source, "")
    del last
    inbox = await inbox_of(await bound(channel, exchange="last"))
    at_once = await inbox_of(await bound(channel, "at-once", exchange="first"))
    await send(first, b"1", 200, "key")
    async with soon():
        await at_once.has(1)
        assert not inbox.messages
        await inbox.has(1)
    (message,) = inbox.messages
    assert (message.exchange, message.routing_key) == ("first", "key")
    assert message.headers["x-delay"] == -200
    assert at_once.messages[0].headers["x-delay"] == 200


async def test_what_matches_nothing_then_goes_to_the_alternate_exchange(scene: Scene) -> None:
    """And not before: the plugin sends it there at once, too, and once more when it is due."""
    channel = await scene.channel()
    await channel.declare_exchange("other", "fanout", durable=True)
    exchange = await declare(channel, alternate_exchange="other")
    inbox = await inbox_of(await bound(channel, exchange="other"))
    await send(exchange, b"1", 150)
    assert not inbox.messages
    async with soon():
        await inbox.has(1)
    assert inbox.bodies == [b"1"]


async def test_what_is_dead_may_wait(scene: Scene) -> None:
    """A retry topology: a delayed exchange as the dead-letter exchange."""
    channel = await scene.channel()
    await declare(channel, "x", "fanout")
    queue = await channel.declare_queue(
        "work", durable=True, arguments={"x-dead-letter-exchange": "x"}
    )
    inbox = await inbox_of(await bound(channel, "again"))
    await send(channel.default_exchange, b"1", 100, "work")
    got = await queue.get()
    assert got is not None
    await got.reject(requeue=False)
    async with soon():
        await inbox.has(1)
    (message,) = inbox.messages
    assert message.headers["x-delay"] == -100
    deaths = message.headers["x-death"]
    assert isinstance(deaths, list)
    assert len(deaths) == 1


async def test_a_transaction_holds_nothing_before_its_commit(scene: Scene) -> None:
    connection = await aio_pika.connect(scene.node.url)
    channel = await connection.channel(publisher_confirms=False)
    exchange = await declare(channel)
    await bound(channel)
    async with channel.transaction():
        message = aio_pika.Message(b"1", headers={"x-delay": LATER_MS})
        await exchange.publish(message, "k")
        assert await waiting(scene) == 0
    assert await waiting(scene) == 1
    await connection.close()


async def test_mandatory_messages_that_wait_are_not_returned(scene: Scene) -> None:
    channel = await returning(scene)
    exchange = await declare(channel)
    await send(exchange, b"1", LATER_MS)
    with pytest.raises(PublishError):
        await send(exchange, b"2")
    assert await waiting(scene) == 1


async def test_what_holds_them_counts_for_the_limit_of_queues(scene: Scene) -> None:
    channel = await scene.channel()
    await declare(channel)
    await scene.node.change(partial(set_vhost, scene.node.node.catalogue, "/", limits=ONE_QUEUE))
    await declare(channel)
    with pytest.raises(ChannelPreconditionFailed, match=r"queue limit in vhost '/' \(1\) is"):
        await declare(channel, "y")
    assert list(scene.node.node.catalogue.vhosts["/"].queues) == ["amq.delayed.x"]


async def test_policies_do_not_count_for_what_holds_them(scene: Scene) -> None:
    channel = await scene.channel()
    await scene.node.ask(
        "policies.set",
        name="all",
        vhost="/",
        pattern=".*",
        definition='{"message-ttl": 20, "max-length": 1, "expires": 1000}',
        applies_to="quorum_queues",
    )
    exchange = await declare(channel)
    inbox = await inbox_of(await bound(channel))
    for number in range(3):
        await send(exchange, b"%d" % number, 150)
    async with soon():
        await inbox.has(3)
    assert inbox.bodies == [b"0", b"1", b"2"]


async def test_definitions_have_the_exchange_and_not_what_holds_its_messages(scene: Scene) -> None:
    channel = await scene.channel()
    await declare(channel, inner="topic")
    await bound(channel)
    exported = export_all(scene.node.node.catalogue, "")
    assert [each["name"] for each in exported["queues"]] == ["q"]
    (exchange,) = exported["exchanges"]
    assert (exchange["type"], exchange["arguments"]) == (DELAYED, {"x-delayed-type": "topic"})


async def test_operators_see_what_waits_and_may_drop_it(scene: Scene) -> None:
    channel = await scene.channel()
    exchange = await declare(channel)
    await bound(channel)
    for number in range(3):
        await send(exchange, b"%d" % number, LATER_MS)
    rows = [row async for row in scene.node.listed("queues.list", vhost="/")]
    assert {row["name"]: row["messages"] for row in rows} == {"amq.delayed.x": 3, "q": 0}
    shown = [
        row
        async for row in scene.node.listed("queues.peek", name="amq.delayed.x", vhost="/", count=9)
    ]
    assert len(shown) == 3
    with pytest.raises(AccessRefused):
        await scene.node.ask("queues.delete", name="amq.delayed.x", vhost="/")
    dropped = await scene.node.ask("queues.purge", name="amq.delayed.x", vhost="/")
    assert dropped == {"messages": 3}
    assert await waiting(scene) == 0


async def test_many_that_are_due_at_once(scene: Scene) -> None:
    """More than are handed on together, or may be dead and not handed on yet."""
    channel = await scene.channel()
    exchange = await declare(channel)
    inbox = await inbox_of(await bound(channel, kind="quorum"))
    messages = [
        aio_pika.Message(b"%d" % number, headers={"x-delay": 800}) for number in range(3000)
    ]
    async with soon():
        await asyncio.gather(*(exchange.publish(message, "k") for message in messages))
        await inbox.has(3000)
    assert inbox.bodies == [message.body for message in messages]
    await until_waiting(scene, 0)
