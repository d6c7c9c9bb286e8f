"""x-recent-history and x-local-random exchanges of several nodes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import aio_pika
import aio_pika.abc
import msgpack
import pytest

from fluffle.broker.base.message import MessageAnnotations, Origin
from fluffle.broker.cluster.history_replication import (
    FRAME_BYTES_MAX,
    KEPT,
    HistoryReplication,
    Row,
    packed,
    unpacked,
)
from fluffle.broker.routing.recent_history import HistoryMessage
from tests.support.cluster_nodes import ClusterNode, running_cluster, until
from tests.support.deadlines import soon


def kept(node: ClusterNode) -> list[bytes]:
    """The bodies that an exchange keeps on a node, as far as the test tells them apart."""
    exchange = node.node.catalogue.vhosts["/"].topology.find("recent")
    if exchange is None or exchange.history is None:
        return []
    return [message.content[-2:-1] for message in exchange.history]


def has(node: ClusterNode, bodies: list[bytes]) -> bool:
    return kept(node) == bodies


async def publish(node: ClusterNode, *bodies: bytes) -> None:
    async with await aio_pika.connect(node.url) as connection:
        channel = await connection.channel()
        arguments: dict[str, aio_pika.abc.FieldValue] = {"x-recent-history-length": 3}
        exchange = await channel.declare_exchange(
            "recent", "x-recent-history", durable=True, arguments=arguments
        )
        for body in bodies:
            await exchange.publish(aio_pika.Message(body), "k", mandatory=False)


async def test_what_one_node_keeps_all_keep(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as three:
        await publish(three["a"], b"1", b"2")
        for node in three:
            await until(partial(has, node, [b"1", b"2"]))
        await three["c"].kill()
        await publish(three["b"], b"3", b"4")
        await until(partial(has, three["a"], [b"2", b"3", b"4"]))
        await three["c"].start()
        await until(partial(has, three["c"], [b"2", b"3", b"4"]))
        await three["a"].kill()
        async with await aio_pika.connect(three["c"].url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue("q", durable=True)
            await queue.bind("recent")
            bodies = [(await queue.get(no_ack=True)).body for _ in range(3)]
        assert bodies == [b"2", b"3", b"4"]


async def test_keys_of_bcc_lead_on_from_another_node_than_the_one_that_kept_the_message(
    tmp_path: Path,
) -> None:
    async with running_cluster(tmp_path) as three:
        await publish(three["a"])
        async with await aio_pika.connect(three["a"].url) as connection:
            recent = await (await connection.channel()).get_exchange("recent")
            headers: aio_pika.abc.HeadersType = {"CC": ["seen"], "BCC": ["blind"]}
            message = aio_pika.Message(b"x", headers=headers)
            await recent.publish(message, "own", mandatory=False)
        await until(partial(has, three["b"], [b"x"]))
        async with await aio_pika.connect(three["b"].url) as connection:
            channel = await connection.channel()
            dead = {
                key: await channel.declare_queue(f"dead {key}", durable=True)
                for key in ("own", "seen", "blind")
            }
            for key, queue in dead.items():
                await queue.bind("amq.direct", key)
            arguments: dict[str, aio_pika.abc.FieldValue] = {"x-dead-letter-exchange": "amq.direct"}
            queue = await channel.declare_queue("q", durable=True, arguments=arguments)
            await queue.bind("recent")
            await (await queue.get()).reject(requeue=False)
            for queue in dead.values():
                async with soon(), queue.iterator(no_ack=True) as messages:
                    dead_headers: Any = (await anext(messages)).headers
                assert "BCC" not in dead_headers
                assert dead_headers["x-death"][0]["routing-keys"] == ["own", "seen"]


async def test_a_local_random_exchange_leads_to_queues_of_the_node_alone(tmp_path: Path) -> None:
    async with (
        running_cluster(tmp_path) as three,
        await aio_pika.connect(three["a"].url) as here,
        await aio_pika.connect(three["b"].url) as there,
    ):
        channel, other = await here.channel(), await there.channel(on_return_raises=True)
        exchange = await channel.declare_exchange("local", "x-local-random")
        queue = await channel.declare_queue("q", exclusive=True)
        await queue.bind(exchange, "")
        await exchange.publish(aio_pika.Message(b"here"), "any")
        assert (await queue.get(no_ack=True)).body == b"here"
        elsewhere = await other.get_exchange("local")
        with pytest.raises(aio_pika.exceptions.DeliveryError):
            await elsewhere.publish(aio_pika.Message(b"there"), "any")


@pytest.mark.parametrize("count", [0, 1, 5])
def test_messages_come_out_as_they_went_in(count: int) -> None:
    origin = Origin("x", "k\udcff", MessageAnnotations.DIED, ("blind\udcff", "b"), b"\0\xff")
    message = HistoryMessage(origin, bytes(FRAME_BYTES_MAX // 2 - 1), ("a",), True)
    rows = [("v", "x", message)] * count
    frames = list(packed(KEPT, rows))
    assert len(frames) == max(1, -(-count // 2))
    found: list[Row] = []
    for frame in frames:
        kind, part = msgpack.unpackb(frame, unicode_errors="surrogateescape")
        assert kind == KEPT
        found += unpacked(part)
    shown = [(v, x, vars_of(m.origin), *m[1:]) for v, x, m in found]
    assert shown == [("v", "x", vars_of(origin), *message[1:])] * count


def vars_of(origin: Origin) -> tuple[object, ...]:
    return (
        origin.exchange, origin.routing_key, origin.past, origin.blind_keys, origin.annotations
    )  # fmt: skip


def test_the_message_behind_one_with_keys_of_bcc_and_annotations_has_none() -> None:
    origins = [Origin("x", "k", blind_keys=("b",)), Origin("x", "k"),
               Origin("x", "k", annotations=b"a"), Origin("x", "k")]  # fmt: skip
    messages = [HistoryMessage(origin, b"", (), False) for origin in origins]
    (frame,) = packed(KEPT, [("v", "x", message) for message in messages])
    _kind, part = msgpack.unpackb(frame)
    found = [(each.origin.blind_keys, each.origin.annotations) for _v, _x, each in unpacked(part)]
    assert found == [(("b",), b""), ((), b""), ((), b"a"), ((), b"")]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        msgpack.packb(5),
        msgpack.packb((KEPT, 5)),
        msgpack.packb((KEPT, [("v", "x")])),
        msgpack.packb((KEPT, [("v", "x", "x", "k", 9, b"", [], True)])),
        msgpack.packb((KEPT, [("v", "x", "x", "k", 0, "text", [], True)])),
    ],
)
def test_what_cannot_be_read_is_refused(payload: bytes) -> None:
    refused: list[tuple[str, str]] = []
    histories = HistoryReplication(lambda *said: refused.append(said))
    histories.receive("b", payload)
    assert refused == [("b", "what it has kept cannot be read")]
