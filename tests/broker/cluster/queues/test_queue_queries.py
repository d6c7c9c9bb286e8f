"""Messages of a queue of a cluster are seen from every node, and are none the wiser."""

from __future__ import annotations

import aio_pika
import pytest

from fluffle.broker.base.errors import BrokerError
from fluffle.broker.cluster.codec import BadFrame, pack
from fluffle.broker.cluster.queues import queue_queries
from fluffle.broker.cluster.queues.queue_queries import KINDS, PEEKED
from fluffle.broker.cluster.queues.quorum_member import QuorumQueueMember
from fluffle.broker.queues.expiry_times import NEVER_MS
from fluffle.broker.queues.queue_api import PeekedMessage, PeekRequest, PeekResult
from fluffle.broker.queues.queue_view import peek
from fluffle.protocol.properties import Properties, build_content, encode_properties
from tests.broker.admin.verb_harness import VerbHarness
from tests.broker.cluster.queues.session_queue_harness import QueueHarness
from tests.broker.cluster.queues.test_node_sessions import cluster
from tests.broker.cluster.queues.test_quorum_queues import Scene, publish, scene
from tests.broker.cluster.queues.test_quorum_queues_any_node import counts
from tests.broker.queues.queue_harness import ORIGIN
from tests.support.deadlines import soon
from tests.support.queue_nodes import QueueCluster

__all__ = ["cluster", "scene"]


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_every_node_sees_the_same(scene: Scene, queue_type: str) -> None:
    channel = await scene.channel("a")
    await channel.declare_queue("q", durable=True, arguments={"x-queue-type": queue_type})
    message = aio_pika.Message(
        b"0", headers={"wanted": "yes"}, priority=4, message_id="m", expiration=3600
    )
    await channel.default_exchange.publish(message, "q")
    await publish(channel, b"1", b"\xff\x00", "grün".encode())
    rows = {
        name: [
            row
            async for row in scene.nodes[name].listed(
                "queues.peek", name="q", vhost="/", count=9, body_bytes=3
            )
        ]
        for name in "abc"
    }
    assert rows["a"] == rows["b"] == rows["c"]
    first, *others = rows["a"]
    assert first.pop("expires_at_ms") > 0
    assert first == {
        "position": 0,
        "exchange": "",
        "routing_key": "q",
        "redelivered": False,
        "acquired_count": 0,
        "delivery_count": 0,
        "priority": 4,
        "headers": {"wanted": "yes"},
        "properties": {"delivery_mode": 1, "expiration": "3600000", "message_id": "m"},
        "payload": "0",
        "payload_encoding": "string",
        "payload_bytes": 1,
    }
    assert [(row["position"], row["payload"], row["payload_encoding"]) for row in others] == [
        (1, "1", "string"),
        (2, "/wA=", "base64"),
        (3, "gr", "string"),  # the ü is cut in two
    ]
    async with soon():
        got = await (await channel.get_queue("q")).get()
    assert got is not None
    assert (got.body, got.redelivered, got.headers.get("x-delivery-count")) == (b"0", False, None)


async def test_what_came_back_is_seen_so_by_whoever_leads_next(scene: Scene) -> None:
    """The next leader has these messages on disk only."""
    await scene.declare("a")
    channel = await scene.channel("b")
    await publish(channel, b"0", b"1", b"2")
    queue = await channel.get_queue("q")
    for _ in range(2):
        async with soon():
            got = await queue.get()
        assert got is not None
        await got.reject(requeue=True)
    await scene.is_led_by("a")
    await scene.nodes["a"].stop()
    async with soon():
        while await counts(scene, "c") != (3, 0):
            pass
    rows = [
        (row["payload"], row["redelivered"], row["acquired_count"], row["delivery_count"])
        async for row in scene.nodes["c"].listed("queues.peek", name="q", vhost="/", count=9)
    ]
    assert rows == [("0", True, 2, 2), ("1", False, 0, 0), ("2", False, 0, 0)]


def test_who_asks_in_vain_is_notified() -> None:
    harness = QueueHarness()
    harness.far.cut()
    desk = VerbHarness(edge=harness.node)
    asked = desk.dispatcher.act(
        b'{"verb": "queues.peek", "arguments": {"name": "q", "vhost": "/"}}'
    )
    page = desk.dispatcher.page(asked.result)  # type: ignore[arg-type]
    assert not isinstance(page, BrokerError)
    assert page.awaits is not None
    reported: list[None] = []
    page.awaits.then(reported.append, lambda error: pytest.fail(str(error)))
    harness.node.run()
    assert reported == [None]
    refused = desk.dispatcher.page(asked.result)  # type: ignore[arg-type]
    assert isinstance(refused, BrokerError)
    assert refused.explanation == (
        "timed out asking quorum queue 'q' in vhost '/': no leader has answered"
    )


def test_what_is_seen_is_the_same_behind_a_link() -> None:
    seen = PeekedMessage("e\udcff", "key", b"\x00\x00", b"body", 4, True, 2, 1, NEVER_MS)
    peeked = PeekResult([seen, seen], "group 3: gone")
    kind = KINDS[PEEKED]
    fields = queue_queries.fields_of(pack(1, 2, *kind.write(peeked)))[2:]
    assert kind.read(fields) == peeked
    for bad in ([], [7], ["", [1]], ["", [b"e", b"k", b"", b"", 0, 1, 0, 0, 0]]):
        with pytest.raises((BadFrame, ValueError)):
            kind.read(bad)


def test_a_leader_shows_nothing_that_may_come_to_nothing(cluster: QueueCluster) -> None:
    """More is in its engine than is on record."""
    served = cluster.nodes["a"].node_sessions.leaders.queues[cluster.queue]
    assert isinstance(served, QuorumQueueMember)
    assert served.replica.leadership is not None
    content = build_content(encode_properties(Properties()), b"1")
    queue = served.replica.leadership.queue
    queue.enqueue([ORIGIN], [content], len(content), persistent=True)
    assert queue.ready_count == 1
    assert peek(served, PeekRequest(0, 9, 9)) == PeekResult([])
    assert len(queue.peek(PeekRequest(0, 9, 9)).seen) == 1


def test_a_question_that_is_answered_leaves_no_timer(cluster: QueueCluster) -> None:
    """Each declaration and each deletion asks, and thousands of them may come at once."""
    cluster.hosts.settle()
    node = cluster.nodes["b"]
    before = node.timer_count
    answers: list[object] = []
    for _ in range(3):
        node.node_sessions.ask_counts(cluster.queue, answers.append)
    cluster.hosts.settle()
    assert answers == [(0, 0, 0, 0)] * 3
    assert node.timer_count == before
