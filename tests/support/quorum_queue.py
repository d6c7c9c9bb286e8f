"""A quorum queue of a cluster inside a test, and what is in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel
from pamqp.common import FieldTable

from fluffle.broker import Cluster

QUORUM: FieldTable = {"x-queue-type": "quorum"}

ChannelAt = Callable[[Cluster, int], Awaitable[AbstractChannel]]


async def declare(cluster: Cluster, channel: AbstractChannel) -> None:
    """`orders`, led by node 0."""
    await channel.declare_queue("orders", durable=True, arguments=QUORUM)
    if await cluster.leader("orders") != 0:
        await cluster.move_leader("orders", 0)


async def publish(channel: AbstractChannel, *bodies: bytes) -> None:
    """Return once they are confirmed."""
    for body in bodies:
        message = Message(body, delivery_mode=DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, "orders")


async def bodies(cluster: Cluster) -> list[bytes]:
    return [message.body for message in await cluster.vhost().messages("orders")]
