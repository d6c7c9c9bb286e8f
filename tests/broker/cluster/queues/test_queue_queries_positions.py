"""A quorum queue that has lost most of its members goes on with one, if an operator says so."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aio_pika.exceptions import DeliveryError
from click.testing import Result

from fluffle.broker.admin.force_shrink import newer
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.cluster.queues.queue_queries import LogPosition
from tests.broker.cli.running_node import run
from tests.broker.cluster.queues.test_membership import Q, drained, is_on
from tests.broker.cluster.queues.test_quorum_queues import Inbox, Scene, publish
from tests.support.cluster_nodes import ClusterNode, running_cluster, until

pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """Five nodes, of which the queue has three: with two of these all is still agreed on."""
    five = running_cluster(tmp_path, 5, is_cuttable=True)
    async with five as nodes, AsyncExitStack() as stack:
        scene = Scene(nodes, stack)
        await scene.declare("a")
        await is_on(scene, "abc")
        yield scene


async def is_lost(scene: Scene, *names: str) -> None:
    """These are killed, and all others know it."""
    for name in names:
        await scene.nodes[name].kill()
    await until(
        lambda: (
            not any(
                node.cluster.absent.is_alive(name) for node in scene.nodes.running for name in names
            )
        )
    )


async def checked(node: ClusterNode) -> dict[str, Any]:
    """Row of the check before."""
    (row,) = [row async for row in node.listed("queues.check_force_shrink", **Q)]
    return row


async def refusal(node: ClusterNode) -> str:
    with pytest.raises(BrokerError) as refused:
        await node.ask("queues.force_shrink", **Q)
    assert (await checked(node))["refused"] == refused.value.explanation
    return refused.value.explanation


async def test_a_queue_goes_on_with_its_last_member(scene: Scene) -> None:
    nodes = scene.nodes
    await publish(await scene.channel("d"), b"1", b"2")
    await is_lost(scene, "b", "c")
    row = await checked(nodes["a"])
    assert (row["given_up"], row["reachable"], row["refused"]) == (["b", "c"], [], "")
    assert row["last_index"] >= row["commit_index"] > 0
    await nodes["a"].ask("queues.force_shrink", **Q)
    await is_on(scene, "a")
    await publish(await scene.channel("e"), b"3")
    assert await drained(scene, "d", 3) == [b"1", b"2", b"3"]


async def test_given_up_members_are_gone_when_they_come_back(scene: Scene) -> None:
    """Both together, so that they would be a majority of those that were."""
    nodes = scene.nodes
    await publish(await scene.channel("d"), b"1")
    await is_lost(scene, "b", "c")
    await nodes["a"].ask("queues.force_shrink", **Q)
    await scene.is_led_by("a")
    await publish(await scene.channel("e"), b"2")
    await nodes.start("bc")
    await is_on(scene, "a")
    await publish(await scene.channel("b"), b"3")
    await nodes["c"].ask("queues.add_member", **Q, node="c")
    await is_on(scene, "ac")
    assert await drained(scene, "b", 3) == [b"1", b"2", b"3"]


async def test_what_only_the_others_have_is_lost_and_their_clients_go_on(scene: Scene) -> None:
    """A node knows what was confirmed to it: its stream must not wait for what nobody has."""
    nodes = scene.nodes
    channel, inbox = await scene.channel("d"), Inbox()
    await (await (await scene.channel("e")).get_queue("q")).consume(inbox.take)
    await publish(channel, b"1")
    await inbox.has(1)
    nodes.cut("a", "b")
    nodes.cut("a", "c")
    await until(lambda: scene.leader() in ("b", "c"))
    await publish(channel, *(b"lost %d" % number for number in range(20)))
    await inbox.has(21)
    await is_lost(scene, "b", "c")
    await nodes["a"].ask("queues.force_shrink", **Q)
    with pytest.raises(DeliveryError):  # it is said to be lost that was asked in between
        await publish(channel, b"refused")
    await publish(channel, b"2")
    await inbox.has(22)
    assert inbox.bodies[-1] == b"2"
    for message in inbox.messages:
        await message.ack()  # what was lost is nobody's any more, and no reason for a close
    await publish(channel, b"3")
    await inbox.has(23)
    await inbox.messages[-1].ack()
    assert await scene.nodes["e"].ask("queues.delete", **Q) == {"messages": 0}


async def test_it_outlives_a_restart_before_anything_was_done(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """The definition is enough: the node acts on it when it learns of it."""
    nodes = scene.nodes
    await publish(await scene.channel("d"), b"1")
    await is_lost(scene, "b", "c")
    await until(lambda: scene.leader() == "")
    hosting = nodes["a"].cluster.quorum_members
    hosting.force_single_member = lambda _queue, _incarnation: None
    await nodes["a"].ask("queues.force_shrink", **Q)
    assert "queue_forced_single_member" in caplog.messages
    assert scene.leader() == ""
    await nodes["a"].kill()
    await nodes["a"].start()
    await is_on(scene, "a")
    await nodes["a"].stop()
    await nodes["a"].start()
    assert await drained(scene, "d", 1) == [b"1"]


async def test_it_is_refused_where_something_better_can_be_done(scene: Scene) -> None:
    nodes = scene.nodes
    assert "loses nothing" in await refusal(nodes["a"])
    assert "has no member on this node; it has on a, b, c" in await refusal(nodes["d"])
    await is_lost(scene, "b", "c")
    await nodes["a"].ask("queues.force_shrink", **Q)
    await is_on(scene, "a")
    assert "is on this node alone" in await refusal(nodes["a"])
    await is_lost(scene, "e")
    assert "use `fluffle salvage`" in await refusal(nodes["a"])


async def test_the_command_says_what_may_be_lost_and_asks(scene: Scene) -> None:
    def command(*words: str, answer: str = "") -> Result:
        place = str(scene.nodes["a"].config.data_dir)
        return run("queues", "force-shrink", *words, "--data-dir", place, input=answer)

    healthy = await asyncio.to_thread(command, "q")
    assert (healthy.exit_code, "loses nothing" in healthy.stderr) == (1, True)
    assert "no queue" in (await asyncio.to_thread(command, "--all")).output
    await publish(await scene.channel("d"), b"1")
    await is_lost(scene, "b", "c")
    asked = await asyncio.to_thread(command, "--all", answer="n\n")
    assert asked.exit_code == 1
    assert re.search(
        r"queue 'q' in vhost '/' ends here with entry \d+; given up: b, c", asked.output
    )
    assert len(scene.nodes["a"].node.catalogue.vhosts["/"].queues["q"].definition.members) == 3
    done = await asyncio.to_thread(command, "q", answer="y\n")
    assert done.exit_code == 0, done.output
    await is_on(scene, "a")


@pytest.mark.parametrize("words", [(), ("q", "--all")])
def test_one_queue_is_named_or_all(words: tuple[str, ...]) -> None:
    assert run("queues", "force-shrink", *words).exit_code == 2


@pytest.mark.parametrize(
    ("own", "others", "better"),
    [
        (LogPosition(2, 9), {}, None),
        (LogPosition(2, 9), {"b": LogPosition(2, 9), "c": LogPosition(1, 50)}, None),
        (LogPosition(2, 9), {"b": LogPosition(2, 10), "c": LogPosition(3, 1)}, "c"),
        (None, {"b": LogPosition(0, 0)}, "b"),
    ],
)
def test_a_later_term_is_more_and_then_a_longer_log(
    own: LogPosition | None, others: dict[str, LogPosition], better: str | None
) -> None:
    assert newer(own, others) == better
