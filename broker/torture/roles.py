"""Roles of clients, each played until its connection ends or it is called off.

Functions that make a role say what it works on; a role is given its client and its chance.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import TypeAlias

from fluffle.broker.torture.publisher import Target, to
from fluffle.broker.torture.recording_client import RecordingClient

Role: TypeAlias = Callable[[RecordingClient, Random], Awaitable[None]]

NOWHERE = Target("", "no such queue", ())
EMPTY_PAUSE_S = 0.02
"""Between two looks into a queue that is empty."""


# Publishers; each waits so long after each batch, listening


def batches(queues: Sequence[str], pause_s: float = 0.0, batch_max: int = 40) -> Role:
    """Many at once, to queues at random, with a few batches unconfirmed."""

    async def publish(client: RecordingClient, random: Random) -> None:
        await client.publisher.confirm_select()
        while True:
            count = random.randint(1, batch_max)
            targets = [to(random.choice(queues)) for _ in range(count)]
            client.publisher.publish(targets, random.choice((0, 30, 2_000)))
            await client.publisher.await_confirms(random.choice((0, batch_max // 2, 2 * batch_max)))
            await client.connection.listen(pause_s)

    return publish


def one_by_one(queue: str, pause_s: float = 0.0) -> Role:
    """Publish messages, each after the confirm of the one before; some go nowhere and come back."""

    async def publish(client: RecordingClient, random: Random) -> None:
        await client.publisher.confirm_select()
        while True:
            client.publisher.publish([NOWHERE if random.random() < 0.25 else to(queue)], 30)
            await client.publisher.await_confirms()
            await client.connection.listen(pause_s)

    return publish


def large(queue: str, pause_s: float = 0.0, size: int = 100 * 1024) -> Role:
    """Bodies that go in several frames."""

    async def publish(client: RecordingClient, random: Random) -> None:
        await client.publisher.confirm_select()
        while True:
            client.publisher.publish([to(queue)] * random.randint(1, 4), size)
            await client.publisher.await_confirms(open_max=2)
            await client.connection.listen(pause_s)

    return publish


def hasty(queue: str, pause_s: float) -> Role:
    """Closes its channel now and then, with messages that are not confirmed."""

    async def publish(client: RecordingClient, random: Random) -> None:
        while True:
            await client.publisher.confirm_select()
            for _ in range(random.randint(1, 10)):
                client.publisher.publish([to(queue)] * random.randint(1, 10), 30)
                await client.publisher.await_confirms(open_max=20)
                await client.connection.listen(pause_s)
            await client.reopen_channel()

    return publish


# Consumers


def in_order(queue: str) -> Role:
    """Acknowledges one by one, and makes sure of it now and then."""

    async def consume(client: RecordingClient, random: Random) -> None:
        await client.unacked.consume(queue, prefetch=20)
        while True:
            client.unacked.ack(*await client.unacked.await_held(random.randint(1, 10)))
            if random.random() < 0.3:
                await client.unacked.make_sure()

    return consume


def multiple(queue: str) -> Role:
    """Acknowledges all up to one; now and then it closes the channel with the rest in hand."""

    async def consume(client: RecordingClient, random: Random) -> None:
        while True:
            await client.unacked.consume(queue, prefetch=50)
            for _ in range(random.randint(5, 30)):
                tags = await client.unacked.await_held(random.randint(1, 50))
                client.unacked.ack_up_to(random.choice(tags))
                if random.random() < 0.3:
                    await client.unacked.make_sure()
            await client.reopen_channel()

    return consume


def shuffled(queue: str) -> Role:
    """Acknowledges out of order, rejects some and gives some back."""

    async def consume(client: RecordingClient, random: Random) -> None:
        await client.unacked.consume(queue, prefetch=30)
        while True:
            tags = await client.unacked.await_held(random.randint(2, 30))
            random.shuffle(tags)
            client.unacked.ack(*tags[1::2])
            client.unacked.reject(*tags[:1])
            client.unacked.requeue(*tags[4::8])
            if random.random() < 0.3:
                await client.unacked.make_sure()

    return consume


def leaving(queue: str) -> Role:
    """Acknowledges what it has and closes its channel, without asking for an answer before."""

    async def consume(client: RecordingClient, random: Random) -> None:
        while True:
            await client.unacked.consume(queue, prefetch=10)
            for _ in range(random.randint(1, 10)):
                client.unacked.ack(*await client.unacked.await_held(random.randint(1, 10)))
            await client.reopen_channel()

    return consume


def polled(queue: str) -> Role:
    """Consume by basic.get; the next answer vouches for the acknowledgement of the one before."""

    async def consume(client: RecordingClient, random: Random) -> None:
        while True:
            tag = await client.unacked.get(queue)
            if tag is None:
                await client.connection.listen(EMPTY_PAUSE_S)
            elif random.random() < 0.1:
                client.unacked.requeue(tag)
            else:
                client.unacked.ack(tag)

    return consume
