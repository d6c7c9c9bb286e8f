"""Roles of the clients of a crash run, each until its connection ends.

queue     published by            consumed by
steady    batches                 in_order: alone, giving nothing back
busy      batches, one by one     in_order, multiple, shuffled, polled
mixed     transactions, batches   shuffled, transactional
large     large (100 KiB)         in_order
fan.a, b  fanned                  multiple, polled
fan.t     fanned                  nobody: transient, as are the messages of `passing`
churn     churned                 churned: declared, bound, purged, deleted
q.steady  batches                 in_order; these four are quorum queues
q.busy    batches, one by one     in_order, multiple, shuffled, polled
q.large   large                   in_order
q.churn   churned                 churned
"""

from __future__ import annotations

from functools import partial
from random import Random

from fluffle.broker.torture.client_group import (
    NOWHERE,
    batches,
    in_order,
    large,
    multiple,
    one_by_one,
    polled,
    shuffled,
)
from fluffle.broker.torture.history import (
    Clearing,
    ClearingAsked,
    ClearingDone,
    DeclareAsked,
    Declared,
)
from fluffle.broker.torture.recording_client import RecordedTarget, RecordingClient, Role, to
from fluffle.protocol.methods import Exchange, Queue, make, pamqp_table
from fluffle.protocol.wire import to_table
from tests.crash.transactions import Transactions

FAN, TOPIC = "crash.fan", "crash.topic"
STEADY, BUSY, MIXED, LARGE, DEEP, LEAKY = "steady", "busy", "mixed", "large", "deep", "leaky"
FANNED = ("fan.a", "fan.b")
TRANSIENT = "fan.t"
CHURN = "churn"
Q_STEADY, Q_BUSY, Q_LARGE = QUORUM = ("q.steady", "q.busy", "q.large")
CHURNS = (CHURN, "q.churn")
DURABLE = (STEADY, BUSY, MIXED, LARGE, DEEP, LEAKY, *FANNED, *QUORUM)

TO_FAN = RecordedTarget(FAN, "", (*FANNED, TRANSIENT))
DEEP_BYTES = 8 * 1024
DEEP_MESSAGES = 2_000
"""16 MiB: a queue keeps about ten segments of one MiB in memory."""


async def set_up(client: RecordingClient) -> None:
    """Declare what is not there; the checker knows what should be."""
    for exchange, kind in ((FAN, "fanout"), (TOPIC, "topic")):
        declare = make(Exchange.Declare, exchange=exchange, exchange_type=kind, durable=True)
        await client.connection.call(declare)
    for queue in DURABLE:
        if not await client.is_there(queue):
            await declare_queue(client, queue)
            if queue in FANNED:
                await client.connection.call(make(Queue.Bind, queue=queue, exchange=FAN))
    if not await client.is_there(TRANSIENT):
        await declare_queue(client, TRANSIENT, durable=False)
    await client.connection.call(make(Queue.Bind, queue=TRANSIENT, exchange=FAN))


async def declare_queue(client: RecordingClient, queue: str, *, durable: bool = True) -> None:
    client.connection.note(DeclareAsked(queue))
    kind = "quorum" if queue.startswith("q.") else "classic"
    arguments = pamqp_table(to_table({"x-queue-type": kind}))
    declare = make(Queue.Declare, queue=queue, durable=durable, arguments=arguments)
    await client.connection.call(declare)
    client.connection.note(Declared(queue))


# Publishers


async def transactions(client: RecordingClient, random: Random) -> None:
    acts = Transactions(client)
    await acts.select()
    while True:
        targets = [random.choice((to(MIXED), to(MIXED), NOWHERE)) for _ in range(8)]
        acts.publish(targets, 100)
        if random.random() < 0.2:
            await acts.roll_back()
        else:
            await acts.commit()


async def fanned(client: RecordingClient, random: Random) -> None:
    """Publish to two durable queues and a transient one."""
    await client.publisher.confirm_select()
    while True:
        client.publisher.publish([TO_FAN] * random.randint(1, 10), random.choice((0, 500)))
        await client.publisher.await_confirms(open_max=10)


async def passing(client: RecordingClient, random: Random) -> None:
    """Transient messages among the others, in a queue that stays."""
    await client.publisher.confirm_select()
    while True:
        client.publisher.publish([to(BUSY)] * random.randint(1, 5), 30, persistent=False)
        client.publisher.publish([to(BUSY)], 30)
        await client.publisher.await_confirms()


async def deep(client: RecordingClient, random: Random) -> None:
    """Fills a queue that is not deep yet; reads one that is, from the disk."""
    if await client.ready_count(DEEP) > DEEP_MESSAGES:
        await in_order(DEEP)(client, random)
    await client.publisher.confirm_select()
    while True:
        client.publisher.publish([to(DEEP)] * 50, DEEP_BYTES)
        await client.publisher.await_confirms(open_max=200)


# Consumers


async def unacknowledged(client: RecordingClient, _random: Random) -> None:
    """Publish without reading further answers, so that nothing is vouched for."""
    await client.unacked.consume(LEAKY, prefetch=0, no_ack=True)
    while True:
        await client.unacked.await_held(1)
        client.unacked.let_go()


def transactional(queue: str) -> Role:
    """Acknowledges and publishes in one transaction, and sometimes thinks better of it."""

    async def consume(client: RecordingClient, random: Random) -> None:
        acts = Transactions(client)
        await acts.select()
        await client.unacked.consume(queue, prefetch=20)
        while True:
            tags = await client.unacked.await_held(random.randint(1, 10))
            acts.publish([to(BUSY)], 50)
            if random.random() < 0.2:
                await acts.roll_back(tags)
            else:
                await acts.commit(tags)

    return consume


async def churned(queue: str, client: RecordingClient, random: Random) -> None:
    """Declares, binds, fills, reads, purges and deletes a queue that nobody else uses."""
    churned_through = RecordedTarget(TOPIC, f"{queue}.key", (queue,))
    gone_through = churned_through._replace(queues=())
    if not await client.is_there(queue):
        await declare_queue(client, queue)
    while True:
        await client.publisher.confirm_select()
        await client.connection.call(make(Queue.Bind, 0, queue, TOPIC, f"{queue}.#"))
        for _ in range(random.randint(1, 4)):
            client.publisher.publish([churned_through] * random.randint(1, 20), 200)
            await client.publisher.await_confirms(open_max=random.choice((0, 5)))
            for _ in range(random.randint(0, 6)):
                tag = await client.unacked.get(queue)
                if tag is not None and random.random() < 0.8:
                    client.unacked.ack(tag)
            if random.random() < 0.3:
                client.connection.note(ClearingAsked(queue, Clearing.PURGE))
                await client.connection.call(make(Queue.Purge, queue=queue))
                client.connection.note(ClearingDone(queue, Clearing.PURGE))
        if random.random() < 0.5:
            await client.connection.call(make(Queue.Unbind, 0, queue, TOPIC, f"{queue}.#"))
            client.publisher.publish([gone_through], 200)
            await client.publisher.await_confirms()
        if random.random() < 0.4:
            client.connection.note(ClearingAsked(queue, Clearing.DELETE))
            await client.connection.call(make(Queue.Delete, queue=queue))
            client.connection.note(ClearingDone(queue, Clearing.DELETE))
            await client.reopen_channel()
            await declare_queue(client, queue)
        else:
            await client.reopen_channel()


ROLES: dict[str, Role] = {
    "batches": batches((STEADY, STEADY, BUSY, MIXED, LEAKY)),
    "one-by-one": one_by_one(BUSY),
    "transactions": transactions,
    "large": large(LARGE),
    "deep": deep,
    "fanned": fanned,
    "passing": passing,
    "steady": in_order(STEADY),
    "orderly": in_order(BUSY),
    "multiple": multiple(BUSY),
    "shuffled": shuffled(MIXED),
    "transactional": transactional(MIXED),
    "large-reader": in_order(LARGE),
    "unacknowledged": unacknowledged,
    "fan-a": multiple(FANNED[0]),
    "fan-b": polled(FANNED[1]),
    "q-batches": batches((Q_STEADY, Q_STEADY, Q_BUSY)),
    "q-one-by-one": one_by_one(Q_BUSY),
    "q-large": large(Q_LARGE),
    "q-steady": in_order(Q_STEADY),
    "q-orderly": in_order(Q_BUSY),
    "q-multiple": multiple(Q_BUSY),
    "q-shuffled": shuffled(Q_BUSY),
    "q-polled": polled(Q_BUSY),
    "q-large-reader": in_order(Q_LARGE),
    **{f"churned-{queue}": partial(churned, queue) for queue in CHURNS},
}
