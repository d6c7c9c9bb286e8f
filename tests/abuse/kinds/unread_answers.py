"""Attacks that make the node keep things: answers that are not read, messages that are held."""

from __future__ import annotations

from random import Random

from fluffle.protocol.methods import Basic, Queue, Tx, encode_method, make
from tests.abuse.target import AttackContext, RogueClient
from tests.support.edge import publish_frames

MESSAGE = bytes(10_000)


def with_backlog(context: AttackContext, count: int, heartbeat: int = 0) -> tuple[RogueClient, str]:
    """A rogue with an exclusive queue in which so many messages wait."""
    rogue = context.log_in(1, heartbeat=heartbeat)
    queue = rogue.declare()
    for _ in range(count):
        rogue.client.publish(1, "", queue, MESSAGE)
    rogue.client.settle(1)
    return rogue, queue


def never_reads_deliveries(context: AttackContext, _chance: Random) -> None:
    """Consume without reading; heartbeats do not come either."""
    rogue, queue = with_backlog(context, 500, heartbeat=1)
    rogue.client.send(1, make(Basic.Consume, queue=queue, consumer_tag="c", no_ack=True))
    rogue.leave_open(3, "a consumer that reads nothing and is silent")


def never_reads_gets(context: AttackContext, _chance: Random) -> None:
    """Ask for message after message and read none: only what fits into a socket is sent."""
    rogue, queue = with_backlog(context, 200)
    get = encode_method(1, make(Basic.Get, queue=queue, no_ack=False))
    nack = encode_method(1, make(Basic.Nack, delivery_tag=0, multiple=True, requeue=True))
    rogue.pour((get * 100 + nack) * 200)
    rogue.leave_open()


def never_reads_declares(context: AttackContext, _chance: Random) -> None:
    """Declare a queue passively again and again, without reading."""
    rogue = context.log_in(1)
    queue = rogue.declare()
    declare = encode_method(1, make(Queue.Declare, queue=queue, passive=True, exclusive=True))
    rogue.pour(declare * 50_000)
    rogue.leave_open()


def never_reads_returns(context: AttackContext, _chance: Random) -> None:
    """Publish mandatory messages that cannot be routed, and read none of those returned."""
    rogue = context.log_in(1)
    rogue.pour(publish_frames(bytes(1_000), "nowhere", mandatory=True) * 10_000)
    rogue.leave_open()


def endless_transactions(context: AttackContext, _chance: Random) -> None:
    """Publish into a transaction that is never committed."""
    with context.log_in(1) as rogue:
        rogue.call(1, make(Tx.Select))
        queue = rogue.declare()
        for _ in range(800):
            rogue.client.publish(1, "", queue, MESSAGE)
        rogue.client.settle(1)


def unacked_growth(context: AttackContext, chance: Random) -> None:
    """Take every message, acknowledge nothing, and disconnect."""
    rogue, queue = with_backlog(context, 300)
    with rogue:
        rogue.call(1, make(Basic.Qos, prefetch_count=chance.choice((0, 65_535))))
        rogue.call(1, make(Basic.Consume, queue=queue, consumer_tag="c"))
        rogue.client.expect("Basic.Deliver", 300)
        rogue.client.heard.clear()


def unfinished_messages(context: AttackContext, _chance: Random) -> None:
    """Messages that are begun on many channels and never ended."""
    channels = range(1, 21)
    with context.log_in(*channels) as rogue:
        for number in channels:
            rogue.send(publish_frames(bytes(200_000), "nowhere", number)[:100_000])


KINDS = {
    "never reads deliveries": never_reads_deliveries,
    "never reads gets": never_reads_gets,
    "never reads declares": never_reads_declares,
    "never reads returns": never_reads_returns,
    "endless transactions": endless_transactions,
    "unacked growth": unacked_growth,
    "unfinished messages": unfinished_messages,
}
