"""Placement of quorum queues by operators and arguments, on whole nodes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aio_pika.abc import AbstractChannel
from pamqp.common import FieldTable

from fluffle.broker.config.config import Config, QuorumConfig
from fluffle.storage.raft_log import ROOM_BYTES_MIN, RaftLog
from tests.broker.cluster.queues.test_membership import Q, drained, is_led_as_wanted, is_on
from tests.broker.cluster.queues.test_quorum_queues import Inbox, Scene, publish, scene
from tests.support.cluster_nodes import make_calm, running_cluster, until
from tests.support.deadlines import DEADLINE_S

__all__ = ["scene"]


async def declare(channel: AbstractChannel, name: str, **arguments: str | int) -> None:
    """A quorum queue; `_` stands for `-`."""
    table: FieldTable = {"x-queue-type": "quorum"}
    for key, value in arguments.items():
        table["x-" + key.replace("_", "-")] = value
    await channel.declare_queue(name, durable=True, arguments=table)


@pytest.mark.parametrize("name", "abc")
async def test_a_deleted_queue_had_as_many_messages_as_its_leader_says(
    scene: Scene, name: str
) -> None:
    await scene.declare("a")
    assert await is_led_as_wanted(scene) == "a"
    await publish(await scene.channel("b"), b"1", b"2", b"3")
    assert await scene.nodes[name].ask("queues.delete", **Q) == {"messages": 3}


@pytest.fixture
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    make_calm(monkeypatch)


@pytest.mark.usefixtures("_calm")
@pytest.mark.parametrize("locator", ["balanced", "random", "least-leaders", "min-masters"])
async def test_leaders_are_balanced_where_a_queue_asks_for_it(scene: Scene, locator: str) -> None:
    channel = await scene.channel("a")
    names = [f"q{number}" for number in range(6)]
    for name in names:
        await declare(channel, name, queue_leader_locator=locator)
        await is_led_as_wanted(scene, name)
    assert Counter(map(scene.leader, names)) == dict.fromkeys("abc", 2)


@asynccontextmanager
async def scene_with(tmp_path: Path, config: QuorumConfig) -> AsyncIterator[Scene]:
    """Three nodes whose operator has said this."""
    nodes = running_cluster(tmp_path, config=Config(quorum=config))
    async with nodes as three, AsyncExitStack() as stack:
        yield Scene(three, stack)


@pytest.mark.usefixtures("_calm")
async def test_leaders_are_balanced_where_the_operator_asks_for_it(tmp_path: Path) -> None:
    async with scene_with(tmp_path, QuorumConfig("balanced")) as scene:
        channel = await scene.channel("a")
        names = ("q1", "q2", "q3")
        for name in names:
            await declare(channel, name)
            await is_led_as_wanted(scene, name)
        assert sorted(map(scene.leader, names)) == [*"abc"]
        await declare(channel, "here", queue_leader_locator="client-local")
        assert await is_led_as_wanted(scene, "here") == "a"


@pytest.mark.usefixtures("_calm")
async def test_leaders_are_balanced_where_a_policy_asks_for_it(scene: Scene) -> None:
    """A policy overrides an argument, and moves no leader later."""
    definition = '{"queue-leader-locator": "balanced"}'
    await scene.nodes["b"].ask(
        "policies.set", vhost="/", name="p", pattern="^q", definition=definition
    )
    channel = await scene.channel("a")
    names = ("q1", "q2", "q3")
    for name in names:
        await declare(channel, name, queue_leader_locator="client-local")
        await is_led_as_wanted(scene, name)
    assert sorted(map(scene.leader, names)) == [*"abc"]
    await declare(channel, "other")
    assert await is_led_as_wanted(scene, "other") == "a"


async def test_a_new_queue_has_as_many_members_as_the_operator_says(tmp_path: Path) -> None:
    async with scene_with(tmp_path, QuorumConfig(initial_group_size=1)) as scene:
        channel = await scene.channel("b")
        await declare(channel, "q")
        await declare(channel, "r", quorum_initial_group_size=3)
        await is_on(scene, "b")
        queues = scene.nodes["c"].node.catalogue.vhosts["/"].queues
        assert [len(queues[name].definition.members) for name in ("q", "r")] == [1, 3]


async def test_a_queue_grows_to_its_target(tmp_path: Path) -> None:
    """That of the operator, or of its argument if that is more."""
    config = QuorumConfig(
        initial_group_size=1, reconciliation=True, reconciliation_interval_s=1, target_group_size=1
    )
    async with scene_with(tmp_path, config) as scene:
        channel = await scene.channel("b")
        await declare(channel, "small")
        await declare(channel, "q", quorum_target_group_size=3)
        await publish(channel, b"1")
        await is_on(scene, "abc")
        assert await drained(scene, "c", 1) == [b"1"]
        small = scene.nodes["c"].node.catalogue.vhosts["/"].queues["small"].definition
        assert small.wanted == ("b",)


async def test_a_leader_whose_disk_is_full_has_another_lead_until_there_is_room(
    scene: Scene,
) -> None:
    await scene.declare("a")
    assert await is_led_as_wanted(scene) == "a"
    a = scene.nodes["a"].cluster
    log = a.running.host._store
    assert isinstance(log, RaftLog)
    log._room_bytes_min = 1 << 62
    await until(lambda: scene.leader() in ("b", "c"))
    await publish(await scene.channel("b"), b"1", b"2")
    await until(lambda: not a.metadata.leads)
    await scene.nodes["b"].ask("queues.add_member", **Q, node="b")  # which it is
    log._room_bytes_min = ROOM_BYTES_MIN
    await scene.is_led_by("a")
    assert await drained(scene, "a", 2) == [b"1", b"2"]


def fill(scene: Scene, room_bytes_min: int) -> None:
    """All disks have as much free as before, and that is too little."""
    for node in scene.nodes:
        log = node.cluster.running.host._store
        assert isinstance(log, RaftLog)
        log._room_bytes_min = room_bytes_min


def are_held_back(scene: Scene) -> list[bool]:
    return [bool(node.node._services.alarms.reason) for node in scene.nodes]


async def test_consumers_make_room_when_all_disks_are_full(scene: Scene) -> None:
    for name in ("q", "r"):
        await scene.declare("a", name)
        await is_led_as_wanted(scene, name)
        await publish(await scene.channel("b"), b"1", b"2", b"3", b"4", to=name)
    consumer, publisher = await scene.channel("c"), await scene.channel("b")
    fill(scene, 1 << 62)
    await until(lambda: are_held_back(scene) == [True] * 3)
    publishing = asyncio.ensure_future(publish(publisher, b"5"))
    queue = await consumer.get_queue("q")
    inbox = Inbox()
    await queue.consume(inbox.take)
    await inbox.has(2)
    for message in inbox.messages[:2]:
        await message.ack()
    other = await (await scene.channel("a")).get_queue("r")
    assert other.declaration_result.message_count == 4
    got = await other.get(timeout=DEADLINE_S)
    assert got is not None
    await got.ack()
    assert (await other.purge()).message_count == 3
    await other.delete(if_unused=False, if_empty=False)
    assert not publishing.done()
    fill(scene, ROOM_BYTES_MIN)
    await publishing
    await inbox.has(5)
    for message in inbox.messages[2:]:
        await message.ack()
    assert inbox.bodies == [b"1", b"2", b"3", b"4", b"5"]
    assert (await scene.declare("b")).declaration_result.message_count == 0


@pytest.mark.parametrize(
    ("kind", "to", "is_wanted_back"),
    [
        ("quorum", "quorum", False),
        ("quorum", "quorum", True),
        ("classic", "quorum", False),
        ("quorum", "classic", True),
    ],
)
async def test_what_dies_when_all_disks_are_full_is_not_lost(
    scene: Scene, kind: str, to: str, *, is_wanted_back: bool
) -> None:
    """Messages wanted back have failed too often."""
    publisher, consumer = await scene.channel("b"), await scene.channel("c")
    await publisher.declare_queue("dead", durable=True, arguments={"x-queue-type": to})
    arguments: FieldTable = {
        "x-queue-type": kind, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead",
    }  # fmt: skip
    if is_wanted_back:
        arguments["x-delivery-limit"] = 0
    queue = await publisher.declare_queue("q", durable=True, arguments=arguments)
    await publish(publisher, b"1", b"2", b"3")
    inbox, dead = Inbox(), Inbox()
    await queue.consume(inbox.take)
    await inbox.has(3)
    fill(scene, 1 << 62)
    await until(lambda: are_held_back(scene) == [True] * 3)
    for message in inbox.messages:
        await message.reject(requeue=is_wanted_back)
    await (await consumer.get_queue("dead")).consume(dead.take)
    await until(lambda: {*dead.bodies} == {b"1", b"2", b"3"})
