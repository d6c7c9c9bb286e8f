"""Section 15: what is there of a quorum queue after a restart of the only node, in order or not."""

from collections.abc import Iterator

from tests.compat.scenario import End, Peer, across
from tests.compat.section_05_durability import keep, look
from tests.compat.verbs import speaker

QUORUM = {"x-queue-type": "quorum"}


@across(End.STOP, "15", "5.4")
@across(End.KILL, "15", "5.4")
def quorum_queues(peer: Peer) -> Iterator[None]:
    """Quorum queues stay as they are, and others may consume.

    Nobody asks how many do: RabbitMQ counts those of a node that was killed for a while.
    """
    it = speaker(peer, "before")
    arguments = {**QUORUM, "x-max-length": 10_000, "x-delivery-limit": 2}
    for queue in (
        "over.quorum",
        "over.quorum.deleted",
        "over.quorum.again",
        "over.quorum.consumed",
    ):
        it.declare(queue, arguments, durable=True)
    keep(it, "over.quorum.again", "of the first")
    it.delete("over.quorum.deleted", "over.quorum.again")
    it.declare("over.quorum.again", QUORUM, durable=True)
    it.consume("over.quorum.consumed", "tag")
    yield
    it = speaker(peer, "after")
    look(it, "over.quorum", "over.quorum.deleted", "over.quorum.again")
    it.another().declare("over.quorum", durable=True)
    it.another().declare("over.quorum", arguments, durable=True)
    it.consume("over.quorum.consumed", "tag")
    it.cancel("tag")
    it.delete("over.quorum", "over.quorum.again", "over.quorum.consumed")


@across(End.STOP, "15")
@across(End.KILL, "15")
def quorum_messages(peer: Peer) -> Iterator[None]:
    """Whatever was confirmed is there, persistent or not, and what was settled is not."""
    it = speaker(peer, "before")
    for queue in ("over.quorum.kept", "over.quorum.purged"):
        it.declare(queue, QUORUM, durable=True)
    keep(it, "over.quorum.purged", "0", "1")
    it.purge("over.quorum.purged")
    keep(it, "over.quorum.kept", *map(str, range(6)))
    keep(it, "over.quorum.kept", "transient", mode=1)
    for _ in range(4):
        it.get("over.quorum.kept", no_ack=False)
    it.ack(1)
    it.reject(2, requeue=False)
    it.reject(3, requeue=True)
    it.settle()
    yield
    it = speaker(peer, "after")
    it.drain("over.quorum.purged")
    it.drain("over.quorum.kept")
    it.delete("over.quorum.purged", "over.quorum.kept")


@across(End.STOP, "15", "9")
@across(End.KILL, "15", "9")
def quorum_counts(peer: Peer) -> Iterator[None]:
    """How often a message was given back counts across a restart: then it dies."""
    it = speaker(peer, "before")
    it.declare("over.quorum.grave", QUORUM, durable=True)
    limited = {
        **QUORUM,
        "x-delivery-limit": 2,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "over.quorum.grave",
    }
    it.declare("over.quorum.limited", limited, durable=True)
    keep(it, "over.quorum.limited", "worn out")
    for tag in (1, 2):
        it.get("over.quorum.limited", no_ack=False)
        it.reject(tag, requeue=True)
        it.settle()
    yield
    it = speaker(peer, "after")
    it.get("over.quorum.limited", no_ack=False)
    it.reject(1, requeue=True)
    it.settle()
    it.get("over.quorum.limited")
    it.consume("over.quorum.grave", "grave", no_ack=True)
    it.expect("Basic.Deliver")
    it.without_times()
    it.delete("over.quorum.limited", "over.quorum.grave")
