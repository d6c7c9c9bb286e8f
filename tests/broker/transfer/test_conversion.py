"""A classic queue becomes a quorum queue on a node that is alone, with a disk and real clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractQueue
from aiormq.exceptions import ChannelPreconditionFailed

from fluffle.broker.base.errors import BrokerError, NotFound, PreconditionFailed
from fluffle.broker.cluster.queues.quorum_member import QuorumQueueMember
from fluffle.broker.node import NodeFailed
from fluffle.broker.queues.arguments import DeliveryGuarantee, QueueSpec, QueueType
from fluffle.broker.queues.queue_api import QueueHandle
from fluffle.broker.queues.settings import DEFAULTS, QueueSettings
from fluffle.broker.transfer import conversion
from fluffle.broker.transfer.conversion import Conversion, as_quorum
from tests.broker.cluster.queues.test_quorum_queues import Inbox, publish
from tests.broker.composition.test_single_node import Scene, scene
from tests.support.cluster_nodes import ClusterNode, Killed, until
from tests.support.deadlines import soon

__all__ = ["scene"]

COUNT = 2_500
BODIES = [b"%d" % number for number in range(COUNT)]
PAGE = 5_000


async def converted(node: ClusterNode, name: str = "q", **how: str) -> list[dict[str, Any]]:
    return [row async for row in node.listed("queues.convert", name=name, vhost="/", **how)]


def type_of(node: ClusterNode, name: str = "q") -> QueueType:
    return node.node.catalogue.vhosts["/"].queues[name].spec.queue_type


async def rows(node: ClusterNode, name: str = "q") -> list[dict[str, Any]]:
    """All that is ready, in order."""
    listed = node.listed("queues.peek", name=name, vhost="/", count=PAGE)
    return [row async for row in listed]


async def bodies(node: ClusterNode, name: str = "q") -> list[bytes]:
    return [row["payload"].encode() for row in await rows(node, name)]


async def declare(channel: AbstractChannel, **arguments: Any) -> AbstractQueue:
    return await channel.declare_queue("q", durable=True, arguments=arguments)


async def filled(scene: Scene, *contents: bytes, **arguments: Any) -> AbstractChannel:
    """A classic queue with messages."""
    channel = await scene.channel()
    await declare(channel, **arguments)
    await publish(channel, *contents)
    return channel


class Steps:
    """How often conversions have gone on, and what is to happen at one of these moments."""

    def __init__(self) -> None:
        self.count = 0
        self.at: Callable[[int], None] = lambda _count: None
        self.at_confirm: Callable[[], None] = lambda: None
        """When the other queue has taken some."""

    def taken(self) -> None:
        self.count += 1
        self.at(self.count)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    found, works, result = Steps(), Conversion._works, Conversion._on_outcome

    def counted(self: Conversion) -> Any:
        work = works(self)
        try:
            while True:
                goes_on = next(work)
                found.taken()
                yield goes_on
        except StopIteration:
            found.taken()

    def confirmed(self: Conversion, start: int, stop: int, *, is_accepted: bool) -> None:
        found.at_confirm()
        result(self, start, stop, is_accepted=is_accepted)

    monkeypatch.setattr(Conversion, "_works", counted)
    monkeypatch.setattr(Conversion, "_on_outcome", confirmed)
    return found


async def test_all_messages_are_there_in_order(scene: Scene) -> None:
    channel = await filled(scene, *BODIES)
    result = await converted(scene.node)
    assert result[-1] == {"copied": COUNT, "ready": COUNT, "is_over": True}
    assert type_of(scene.node) is QueueType.QUORUM
    assert await bodies(scene.node) == BODIES
    await publish(channel, b"more")
    assert (await bodies(scene.node))[-1] == b"more"


async def test_an_empty_queue(scene: Scene) -> None:
    await filled(scene)
    assert (await converted(scene.node))[-1]["ready"] == 0
    assert type_of(scene.node) is QueueType.QUORUM


@pytest.mark.parametrize("kill", [False, True], ids=["stop", "kill"])
async def test_it_is_a_quorum_queue_after_a_restart(scene: Scene, *, kill: bool) -> None:
    await filled(scene, *BODIES[:10])
    await converted(scene.node)
    await scene.restart(kill=kill)
    assert type_of(scene.node) is QueueType.QUORUM
    assert await bodies(scene.node) == BODIES[:10]


async def test_messages_are_what_they_were(scene: Scene) -> None:
    channel = await filled(scene)
    await channel.declare_queue("d", durable=True)
    await channel.declare_queue(
        "source",
        durable=True,
        arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q"},
    )
    await publish(channel, b"dead", to="source")
    await (await (await channel.get_queue("source")).get()).reject()
    exchange = channel.default_exchange
    for message in (
        aio_pika.Message(b"1", headers={"a": 1}, message_id="m", expiration=3_600),
        aio_pika.Message(b"2", priority=5, delivery_mode=1),
    ):
        await exchange.publish(message, "q")
    await until(lambda: scene.node.node.catalogue.vhosts["/"].queues["q"].ready_count == 3)
    before = await rows(scene.node)
    await converted(scene.node)
    after = {row["payload"]: row for row in await rows(scene.node)}
    assert before[0]["headers"]["x-death"], "what the broker has written"
    for row in before:
        now = after[row["payload"]]
        expires_at_ms, expired_at_ms = now.pop("expires_at_ms"), row.pop("expires_at_ms")
        assert (expires_at_ms is None) == (expired_at_ms is None)
        if expires_at_ms is not None:
            assert abs(expires_at_ms - expired_at_ms) < 5_000, "what was left of its time"
        assert now | {"position": 0} == row | {"position": 0}


async def test_what_was_handed_out_before_is_redelivered_and_in_front(scene: Scene) -> None:
    channel = await filled(scene, *BODIES[:1_500])
    other = await scene.channel()
    await other.set_qos(prefetch_count=1_200)
    inbox = Inbox()
    await (await other.get_queue("q")).consume(inbox.take)
    await inbox.has(1_200)
    await other.close()
    await until(lambda: scene.node.node.catalogue.vhosts["/"].queues["q"].ready_count == 1_500)
    await converted(scene.node)
    flags = [row["redelivered"] for row in await rows(scene.node)]
    assert await bodies(scene.node) == BODIES[:1_500]
    assert flags == [True] * 1_200 + [False] * 300
    message = await (await channel.get_queue("q")).get()
    assert message is not None
    assert (message.redelivered, message.body) == (True, b"0")


async def test_of_each_priority_in_order(scene: Scene) -> None:
    channel = await filled(scene, **{"x-max-priority": 5})
    for number in range(30):
        message = aio_pika.Message(b"%d" % number, priority=number % 3, delivery_mode=2)
        await channel.default_exchange.publish(message, "q")
    before = await bodies(scene.node)
    await converted(scene.node)
    assert await bodies(scene.node) == before
    queue = scene.node.node.catalogue.vhosts["/"].queues["q"]
    assert "x-max-priority" not in queue.spec.arguments


async def test_bindings_stay_and_lead_to_it(scene: Scene) -> None:
    channel = await filled(scene, b"1")
    exchange = await channel.declare_exchange("e", "topic", durable=True)
    await (await channel.get_queue("q")).bind(exchange, "a.#")
    message = aio_pika.Message(b"2", delivery_mode=2)
    await exchange.publish(message, "a.b")  # so that the way is remembered
    await converted(scene.node)
    await exchange.publish(message, "a.b")
    assert await bodies(scene.node) == [b"1", b"2", b"2"]


@pytest.mark.parametrize("confirms", [True, False])
async def test_publishers_go_on_and_nothing_is_lost(scene: Scene, *, confirms: bool) -> None:
    """Each in its order, and once."""
    await filled(scene, *BODIES)
    is_over = False

    async def publish_on(name: str) -> int:
        connection = await aio_pika.connect(scene.node.url)
        channel = await connection.channel(publisher_confirms=confirms)
        count = 0
        while not is_over or count < 50:
            message = aio_pika.Message(f"{name} {count}".encode(), delivery_mode=2)
            await channel.default_exchange.publish(message, "q")
            count += 1
            if not confirms:
                await asyncio.sleep(0)
        await channel.get_queue("q")  # a reply vouches for what came before
        await connection.close()
        return count

    publishing = [asyncio.ensure_future(publish_on(name)) for name in "abc"]
    await converted(scene.node)
    is_over = True
    async with soon():
        counts = await asyncio.gather(*publishing)
    expected = [f"{name} {number}".encode() for name, count in zip("abc", counts, strict=True)
                for number in range(count)]  # fmt: skip
    queue = scene.node.node.catalogue.vhosts["/"].queues["q"]
    channel = await scene.channel()
    count = COUNT + len(expected)
    async with soon():
        while (await channel.get_queue("q")).declaration_result.message_count != count:
            assert queue is scene.node.node.catalogue.vhosts["/"].queues["q"]
    inbox = Inbox()
    await (await channel.get_queue("q")).consume(inbox.take, no_ack=True)
    await inbox.has(count)
    assert inbox.bodies[:COUNT] == BODIES
    others = inbox.bodies[COUNT:]
    for name in b"abc":
        of_it = [body for body in others if body[0] == name]
        assert of_it == [body for body in expected if body[0] == name]


async def test_consumers_are_cancelled_and_consume_again(scene: Scene) -> None:
    channel = await filled(scene)
    queue, inbox = await channel.get_queue("q"), Inbox()
    underlying = await channel.get_underlay_channel()
    await queue.consume(inbox.take, consumer_tag="c")
    assert "c" in underlying.consumers  # type: ignore[attr-defined]
    await converted(scene.node)
    await until(lambda: "c" not in underlying.consumers)  # type: ignore[attr-defined]
    await queue.consume(inbox.take)
    await publish(channel, b"1")
    await inbox.has(1)


async def test_what_is_in_hands_is_waited_for(scene: Scene, steps: Steps) -> None:
    channel = await filled(scene, b"1", b"2")
    message = await (await channel.get_queue("q")).get()
    assert message is not None
    converting = asyncio.ensure_future(converted(scene.node))
    await until(lambda: steps.count > 2)
    assert type_of(scene.node) is QueueType.CLASSIC
    await publish(channel, b"3")
    await message.ack()
    async with soon():
        await converting
    assert await bodies(scene.node) == [b"2", b"3"]


async def test_it_is_given_up_if_that_takes_too_long(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "PATIENCE_MS", 0)
    channel = await filled(scene, b"1", b"2")
    queue, inbox = await channel.get_queue("q"), Inbox()
    message = await queue.get()
    assert message is not None
    with pytest.raises(PreconditionFailed, match="clients hold 1 messages of it"):
        await converted(scene.node)
    assert type_of(scene.node) is QueueType.CLASSIC
    assert scene.node.node.catalogue.vhosts["/"].successors == {}
    await message.ack()
    await queue.consume(inbox.take)
    await inbox.has(1)


@pytest.mark.parametrize(
    ("how", "arguments", "why"),
    [
        ({"durable": False}, {}, "is transient"),
        ({"auto_delete": True}, {}, "goes with its last consumer"),
        ({"exclusive": True}, {}, "is exclusive"),
        ({}, {"x-max-priority": 32}, "tells 32 priorities apart"),
        ({}, {"x-overflow": "reject-publish-dlx"}, "dead-letters what it refuses"),
        ({}, {"x-message-deduplication": True}, "takes each message once"),
        ({}, {"x-queue-type": "quorum"}, "is a quorum queue already"),
    ],
)
async def test_what_cannot_be_is_refused(
    scene: Scene, how: dict[str, bool], arguments: dict[str, Any], why: str
) -> None:
    channel = await scene.channel()
    await channel.declare_queue("q", **{"durable": True, **how}, arguments=arguments)
    before = scene.node.node.catalogue.vhosts["/"].queues["q"].definition
    with pytest.raises(PreconditionFailed, match=f"queue 'q' in vhost '/' {why}"):
        await converted(scene.node)
    assert scene.node.node.catalogue.vhosts["/"].queues["q"].definition == before


async def test_an_exchange_that_leads_to_classic_queues_alone_keeps_it_one(scene: Scene) -> None:
    """A quorum queue would get nothing from it, silently."""
    channel = await filled(scene, b"1")
    await channel.declare_exchange("local", "x-local-random")
    queue = await channel.get_queue("q")
    await queue.bind("local", "")
    with pytest.raises(PreconditionFailed, match="'q' in vhost '/' is bound to exchange 'local', "):
        await converted(scene.node)
    await queue.unbind("local", "")
    await converted(scene.node)
    assert type_of(scene.node) is QueueType.QUORUM


async def test_nor_is_it_bound_to_one_meanwhile(scene: Scene, steps: Steps) -> None:
    channel = await filled(scene, b"1")
    queue = await channel.get_queue("q")
    held = await queue.get()
    assert held is not None
    converting = asyncio.ensure_future(converted(scene.node))
    await until(lambda: steps.count > 0)
    other = await scene.channel()
    await other.declare_exchange("local", "x-local-random")
    with pytest.raises(ChannelPreconditionFailed, match="Queue type rabbit_quorum_queue not valid"):
        await (await other.get_queue("q")).bind("local", "")
    await held.reject(requeue=True)
    async with soon():
        await converting


async def test_what_it_would_be_by_a_policy_for_quorum_queues_counts(scene: Scene) -> None:
    await filled(scene, b"1")
    await deduplicate_quorum_queues(scene)
    with pytest.raises(PreconditionFailed, match="would take each message once as a quorum queue"):
        await converted(scene.node)


async def test_a_policy_that_comes_meanwhile_costs_no_message(scene: Scene, steps: Steps) -> None:
    channel = await filled(scene)
    for number in range(3):
        message = aio_pika.Message(
            b"%d" % number, delivery_mode=2, headers={"x-deduplication-header": "k"}
        )
        await channel.default_exchange.publish(message, "q")
    held = await (await channel.get_queue("q")).get()
    assert held is not None
    converting = asyncio.ensure_future(converted(scene.node))
    await until(lambda: steps.count > 0)
    await deduplicate_quorum_queues(scene)
    await held.reject(requeue=True)
    async with soon():
        await converting
    assert await bodies(scene.node) == [b"0", b"1", b"2"]


async def deduplicate_quorum_queues(scene: Scene) -> None:
    await scene.node.ask(
        "policies.set", name="p", vhost="/", pattern=".*",
        definition='{"x-message-deduplication": true}', applies_to="quorum_queues",
    )  # fmt: skip


def settings_of(scene: Scene, queue: QueueHandle) -> list[QueueSettings]:
    """Settings of a quorum queue, if it is led."""
    group = scene.node.node.parts.cluster_view.groups.get(queue.definition.id)
    if group is None:
        return []
    assert isinstance(group.machine, QuorumQueueMember)
    led = group.machine.replica.leadership
    return [led.queue.settings] if led is not None else []


async def test_its_settings_count_from_the_change_on(scene: Scene, steps: Steps) -> None:
    """Before it, what is filled neither expires nor refuses."""
    said = {"expires": 3_600_000, "message-ttl": 60_000, "max-length": COUNT}
    await filled(scene, *BODIES, **{f"x-{name}": value for name, value in said.items()})
    vhost = scene.node.node.catalogue.vhosts["/"]
    seen: list[QueueSettings] = []

    def look() -> None:
        for successor in vhost.successors.values():
            seen.extend(settings_of(scene, successor))

    steps.at_confirm = look
    await converted(scene.node)
    assert {*seen} == {QueueSettings(is_still=True)}
    assert settings_of(scene, vhost.queues["q"]) == [
        QueueSettings(expires_ms=3_600_000, message_ttl_ms=60_000, max_length=COUNT)
    ]
    assert await bodies(scene.node) == BODIES


async def test_to_what_there_is(scene: Scene) -> None:
    with pytest.raises(NotFound):
        await converted(scene.node)
    await filled(scene)
    with pytest.raises(PreconditionFailed, match="no 'stream'"):
        await converted(scene.node, queue_type="stream")


async def test_whoever_hangs_up_gives_it_up(scene: Scene, steps: Steps) -> None:
    channel = await filled(scene, *BODIES)
    result = scene.node.listed("queues.convert", name="q", vhost="/")
    await anext(result)
    await result.aclose()  # type: ignore[attr-defined]
    await until(lambda: not scene.node.node.catalogue.vhosts["/"].successors)
    assert type_of(scene.node) is QueueType.CLASSIC
    await publish(channel, b"more")
    assert await bodies(scene.node) == [*BODIES, b"more"]
    await converted(scene.node)
    assert await bodies(scene.node) == [*BODIES, b"more"]


async def test_a_purge_is_a_purge(scene: Scene, steps: Steps) -> None:
    channel = await filled(scene, *BODIES)
    vhost = scene.node.node.catalogue.vhosts["/"]

    def purge(count: int) -> None:
        if count == 3:
            vhost.queues["q"].purge()

    steps.at = purge
    with pytest.raises(PreconditionFailed, match="messages have left it"):
        await converted(scene.node)
    await publish(channel, b"more")
    assert await bodies(scene.node) == [b"more"]


async def test_a_queue_that_is_deleted_meanwhile_is_gone(scene: Scene, steps: Steps) -> None:
    channel = await filled(scene, *BODIES)
    converting = asyncio.ensure_future(converted(scene.node))
    await until(lambda: steps.count > 1)
    await channel.queue_delete("q")
    with suppress(BrokerError):
        await converting
    vhost = scene.node.node.catalogue.vhosts["/"]
    assert (vhost.queues, vhost.successors, vhost.redirects) == ({}, {}, {})
    await declare(channel)
    assert await bodies(scene.node) == []


async def died(scene: Scene) -> None:
    """Until the process has, and another."""
    with suppress(NodeFailed):
        await scene.node.node.wait_closed()
    await scene.restart(kill=True)


@pytest.mark.slow("a node starts anew for each step of a conversion")
async def test_it_is_killed_at_each_step(scene: Scene, steps: Steps) -> None:
    """The queue is one or the other, whole, and has what was confirmed meanwhile."""
    seen: set[QueueType] = set()
    published = BODIES[:1_200]
    await filled(scene, *published)
    for step in range(1, 99):
        steps.count = 0

        def kill(count: int, step: int = step) -> None:
            if count == step:
                scene.node.node.fail(Killed())

        steps.at = kill
        converting = asyncio.ensure_future(converted(scene.node))
        await until(lambda: scene.node.node.failure is not None or converting.done())  # noqa: B023
        is_done = converting.done() and converting.exception() is None
        converting.cancel()
        with suppress(BrokerError, asyncio.CancelledError, TimeoutError):
            await converting
        steps.at = lambda _count: None
        await died(scene) if not is_done else await scene.restart(kill=True)
        seen.add(type_of(scene.node))
        assert await bodies(scene.node) == published
        assert scene.node.node.catalogue.vhosts["/"].successors == {}
        if type_of(scene.node) is QueueType.QUORUM:
            break
        channel = await scene.channel()
        published = [*published, b"after %d" % step]
        await publish(channel, published[-1])
    assert seen == {QueueType.CLASSIC, QueueType.QUORUM}
    assert len(scene.node.node.parts.cluster_view.groups) == 1, "nothing is left of the tries"


def test_the_queue_of_an_mqtt_session_takes_each_message_once_as_a_quorum_queue() -> None:
    spec = QueueSpec("q", durable=True, guarantee=DeliveryGuarantee.EXACTLY_ONCE)
    quorum = as_quorum(spec, lambda _vhost, _spec: DEFAULTS, "/")
    assert quorum.queue_type is QueueType.QUORUM
    assert quorum.guarantee is DeliveryGuarantee.EXACTLY_ONCE
