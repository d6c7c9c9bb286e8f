"""What the clients of a crash run do, each until its connection ends.

queue     published by            consumed by
steady    batches                 in_order: alone, giving nothing back
busy      batches, one by one     in_order, multiple, shuffled, polled
mixed     transactions, batches   shuffled, transactional
large     large (100 KiB)         in_order
fan.a, b  fanned                  multiple, polled
fan.t     fanned                  nobody: transient, as are the messages of `passing`
churn     churned                 churned: declared, bound, purged, deleted
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeAlias

from fluffle.protocol.methods import Exchange, Queue, make
from tests.crash.history import (
    Clearing,
    ClearingAsked,
    ClearingDone,
    DeclareAsked,
    Declared,
)
from tests.crash.witness import Target, Witness

FAN, TOPIC = "crash.fan", "crash.topic"
STEADY, BUSY, MIXED, LARGE, DEEP, LEAKY = "steady", "busy", "mixed", "large", "deep", "leaky"
FANNED = ("fan.a", "fan.b")
TRANSIENT = "fan.t"
CHURN = "churn"
DURABLE = (STEADY, BUSY, MIXED, LARGE, DEEP, LEAKY, *FANNED)

NOWHERE = Target("", "no such queue", ())
TO_FAN = Target(FAN, "", (*FANNED, TRANSIENT))
LARGE_BYTES = 100 * 1024
DEEP_BYTES = 8 * 1024
DEEP_MESSAGES = 2_000
"""16 MiB: a queue keeps about ten segments of one MiB in memory."""

Role: TypeAlias = Callable[[Witness, Random], None]


def to(queue: str) -> Target:
    """Through the default exchange."""
    return Target("", queue, (queue,))


def set_up(witness: Witness) -> None:
    """Declare what is not there; the checker knows what should be."""
    witness.call(make(Exchange.Declare, exchange=FAN, exchange_type="fanout", durable=True))
    witness.call(make(Exchange.Declare, exchange=TOPIC, exchange_type="topic", durable=True))
    for queue in DURABLE:
        if not witness.is_there(queue):
            declare(witness, queue)
            if queue in FANNED:
                witness.call(make(Queue.Bind, queue=queue, exchange=FAN))
    if not witness.is_there(TRANSIENT):
        declare(witness, TRANSIENT, durable=False)
    witness.call(make(Queue.Bind, queue=TRANSIENT, exchange=FAN))


def declare(witness: Witness, queue: str, *, durable: bool = True) -> None:
    witness.note(DeclareAsked(queue))
    witness.call(make(Queue.Declare, queue=queue, durable=durable))
    witness.note(Declared(queue))


# Publishers


def batches(witness: Witness, random: Random) -> None:
    """Many at once, to queues at random, with a few batches unconfirmed."""
    witness.confirm_select()
    while True:
        count = random.randint(1, 40)
        targets = [to(random.choice((STEADY, STEADY, BUSY, MIXED, LEAKY))) for _ in range(count)]
        witness.publish(targets, random.choice((0, 30, 2_000)))
        witness.await_confirms(open_max=random.choice((0, 20, 80)))


def one_by_one(witness: Witness, random: Random) -> None:
    """Each after the confirm of the one before; some go nowhere and come back."""
    witness.confirm_select()
    while True:
        witness.publish([random.choice((to(BUSY), to(BUSY), to(BUSY), NOWHERE))], 30)
        witness.await_confirms()


def transactions(witness: Witness, random: Random) -> None:
    witness.tx_select()
    while True:
        targets = [random.choice((to(MIXED), to(MIXED), NOWHERE)) for _ in range(8)]
        witness.publish(targets, 100)
        if random.random() < 0.2:
            witness.roll_back()
        else:
            witness.commit()


def large(witness: Witness, random: Random) -> None:
    witness.confirm_select()
    while True:
        witness.publish([to(LARGE)] * random.randint(1, 4), LARGE_BYTES)
        witness.await_confirms(open_max=2)


def fanned(witness: Witness, random: Random) -> None:
    """To two durable queues and a transient one."""
    witness.confirm_select()
    while True:
        witness.publish([TO_FAN] * random.randint(1, 10), random.choice((0, 500)))
        witness.await_confirms(open_max=10)


def passing(witness: Witness, random: Random) -> None:
    """Transient messages among the others, in a queue that stays."""
    witness.confirm_select()
    while True:
        witness.publish([to(BUSY)] * random.randint(1, 5), 30, persistent=False)
        witness.publish([to(BUSY)], 30)
        witness.await_confirms()


def deep(witness: Witness, random: Random) -> None:
    """Fills a queue that is not deep yet; reads one that is, from the disk."""
    if witness.ready_count(DEEP) > DEEP_MESSAGES:
        in_order(DEEP)(witness, random)
    witness.confirm_select()
    while True:
        witness.publish([to(DEEP)] * 50, DEEP_BYTES)
        witness.await_confirms(open_max=200)


# Consumers


def in_order(queue: str) -> Role:
    """Acknowledges one by one, and makes sure of it now and then."""

    def consume(witness: Witness, random: Random) -> None:
        witness.consume(queue, prefetch=20)
        while True:
            witness.ack(*witness.await_held(random.randint(1, 10)))
            if random.random() < 0.3:
                witness.make_sure()

    return consume


def multiple(queue: str) -> Role:
    """Acknowledges all up to one; now and then it closes the channel with the rest in hand."""

    def consume(witness: Witness, random: Random) -> None:
        while True:
            witness.consume(queue, prefetch=50)
            for _ in range(random.randint(5, 30)):
                tags = witness.await_held(random.randint(1, 50))
                witness.ack_up_to(random.choice(tags))
                if random.random() < 0.3:
                    witness.make_sure()
            witness.reopen_channel()

    return consume


def shuffled(queue: str) -> Role:
    """Acknowledges out of order, rejects some and gives some back."""

    def consume(witness: Witness, random: Random) -> None:
        witness.consume(queue, prefetch=30)
        while True:
            tags = witness.await_held(random.randint(2, 30))
            random.shuffle(tags)
            witness.ack(*tags[1::2])
            witness.reject(*tags[:1])
            witness.requeue(*tags[4::8])
            if random.random() < 0.3:
                witness.make_sure()

    return consume


def polled(queue: str) -> Role:
    """basic.get; the next answer vouches for the acknowledgement of the one before."""

    def consume(witness: Witness, random: Random) -> None:
        while True:
            tag = witness.get(queue)
            if tag is None:
                witness.make_sure()
            elif random.random() < 0.1:
                witness.requeue(tag)
            else:
                witness.ack(tag)

    return consume


def unacknowledged(witness: Witness, _random: Random) -> None:
    """Hears no answer after the first message, so that nothing is vouched for."""
    witness.consume(LEAKY, prefetch=0, no_ack=True)
    while True:
        witness.await_held(1)
        witness.let_go()


def transactional(queue: str) -> Role:
    """Acknowledges and publishes in one transaction, and sometimes thinks better of it."""

    def consume(witness: Witness, random: Random) -> None:
        witness.tx_select()
        witness.consume(queue, prefetch=20)
        while True:
            tags = witness.await_held(random.randint(1, 10))
            witness.publish([to(BUSY)], 50)
            if random.random() < 0.2:
                witness.roll_back(tags)
            else:
                witness.commit(tags)

    return consume


def churned(witness: Witness, random: Random) -> None:
    """Declares, binds, fills, reads, purges and deletes a queue that nobody else uses."""
    churned_through = Target(TOPIC, f"{CHURN}.key", (CHURN,))
    gone_through = churned_through._replace(queues=())
    if not witness.is_there(CHURN):
        declare(witness, CHURN)
    while True:
        witness.confirm_select()
        witness.call(make(Queue.Bind, 0, CHURN, TOPIC, f"{CHURN}.#"))
        for _ in range(random.randint(1, 4)):
            witness.publish([churned_through] * random.randint(1, 20), 200)
            witness.await_confirms(open_max=random.choice((0, 5)))
            for _ in range(random.randint(0, 6)):
                tag = witness.get(CHURN)
                if tag is not None and random.random() < 0.8:
                    witness.ack(tag)
            if random.random() < 0.3:
                witness.note(ClearingAsked(CHURN, Clearing.PURGE))
                witness.call(make(Queue.Purge, queue=CHURN))
                witness.note(ClearingDone(CHURN, Clearing.PURGE))
        if random.random() < 0.5:
            witness.call(make(Queue.Unbind, 0, CHURN, TOPIC, f"{CHURN}.#"))
            witness.publish([gone_through], 200)
            witness.await_confirms()
        if random.random() < 0.4:
            witness.note(ClearingAsked(CHURN, Clearing.DELETE))
            witness.call(make(Queue.Delete, queue=CHURN))
            witness.note(ClearingDone(CHURN, Clearing.DELETE))
            witness.reopen_channel()
            declare(witness, CHURN)
        else:
            witness.reopen_channel()


ROLES: dict[str, Role] = {
    "batches": batches,
    "one-by-one": one_by_one,
    "transactions": transactions,
    "large": large,
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
    "churned": churned,
}
