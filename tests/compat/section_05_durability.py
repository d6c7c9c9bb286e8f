"""Content after a restart, in order or after SIGKILL: sections 3 to 7 of the rows.

A scenario yields where the broker ends and is started again; nothing of the connections before is
left then.  RabbitMQ writes down what was acknowledged or purged when it has time, so that after
SIGKILL some of it may be there again: about that only an end in order is asked.
"""

from collections.abc import Iterator

from tests.compat.scenario import End, Peer, across
from tests.compat.section_03_permissions import as_user, each, knock
from tests.compat.verbs import Speaker, speaker

PERSISTENT = 2


def keep(it: Speaker, queue: str, *bodies: str, mode: int = PERSISTENT) -> None:
    """Put messages into a queue and hear that they are safe; that is not written down."""
    keep_through(it, "", queue, *bodies, mode=mode)


def keep_through(
    it: Speaker, exchange: str, key: str, *bodies: str, mode: int = PERSISTENT
) -> None:
    with it.aside() as other:
        other.confirms()
        for body in bodies:
            other.publish(exchange, key, body, delivery_mode=mode)
        if bodies:
            other.confirmed(len(bodies))
        other.close()


def look(it: Speaker, *queues: str) -> None:
    """Ask for each on a channel of its own, which that may cost."""
    for queue in queues:
        it.another().declare(queue, passive=True)


def look_for_exchanges(it: Speaker, *exchanges: str) -> None:
    for exchange in exchanges:
        it.another().declare_exchange(exchange, passive=True)


# Exchanges and bindings


@across(End.STOP, "4")
@across(End.KILL, "4")
def exchanges(peer: Peer) -> Iterator[None]:
    """Durable ones stay as they are, the others go."""
    it = speaker(peer, "before")
    for kind in ("direct", "fanout", "topic", "headers"):
        it.declare_exchange(f"over.{kind}", kind, durable=True)
        it.declare_exchange(f"over.transient.{kind}", kind)
    it.declare_exchange("over.inner", durable=True, internal=True)
    it.declare_exchange("over.auto", durable=True, auto_delete=True)
    it.declare_exchange("over.deleted", durable=True)
    it.delete_exchange("over.deleted")
    arguments = {"alternate-exchange": "over.fanout", "x-any": "thing"}
    it.declare_exchange("over.arguments", durable=True, arguments=arguments)
    yield
    it = speaker(peer, "after")
    for kind in ("direct", "fanout", "topic", "headers"):
        look_for_exchanges(it, f"over.{kind}", f"over.transient.{kind}")
    look_for_exchanges(it, "over.inner", "over.auto", "over.deleted")
    for name in ("over.inner", "over.auto"):
        it.another().declare_exchange(name, durable=True, internal=True, auto_delete=True)
        it.another().declare_exchange(name, "topic", durable=True, auto_delete=True)
    it.another().declare_exchange("over.arguments", durable=True)
    it.another().declare_exchange("over.arguments", durable=True, arguments=arguments)
    each(it, lambda it: it.publish("over.inner", "key"))


@across(End.STOP, "4", "4.2", "4.3", "4.4")
@across(End.KILL, "4", "4.2", "4.3", "4.4")
def bindings(peer: Peer) -> Iterator[None]:
    """Bindings between durable ends survive, whatever they are made of."""
    it = speaker(peer, "before")
    it.declare("over.bound", durable=True)
    it.declare("over.bound.not", durable=True)
    it.declare("over.bound.transient")
    for kind in ("direct", "fanout", "topic", "headers"):
        it.declare_exchange(f"over.to.{kind}", kind, durable=True)
    it.declare_exchange("over.to.transient", "fanout")
    it.bind("over.bound", "over.to.direct", "a")
    it.bind("over.bound", "over.to.direct", "b")
    it.bind("over.bound", "over.to.direct", "gone")
    it.unbind("over.bound", "over.to.direct", "gone")
    it.bind("over.bound", "over.to.topic", "*.é.#")
    it.bind("over.bound", "over.to.headers", arguments={"x-match": "any", "h": 1, "i": "x"})
    it.bind("over.bound", "amq.topic", "over.#")
    it.bind("over.bound.transient", "over.to.direct", "only transient")
    it.bind("over.bound", "over.to.transient")
    it.bind_exchange("over.to.direct", "over.to.fanout")
    it.bind_exchange("over.to.transient", "over.to.fanout")
    yield
    it = speaker(peer, "after")
    for key in ("a", "b", "gone", "only transient", "over.bound"):
        it.publish("over.to.direct", key, key, mandatory=True)
    it.publish("over.to.topic", "x.é.y.z", "topic", mandatory=True)
    it.publish("over.to.topic", "é", "topic too", mandatory=True)
    it.publish("over.to.headers", "", "any", headers={"i": "x"}, mandatory=True)
    it.publish("over.to.headers", "", "none", headers={"h": 2}, mandatory=True)
    it.publish("over.to.fanout", "b", "through two", mandatory=True)
    it.publish("over.to.fanout", "c", "through none", mandatory=True)
    it.publish("amq.topic", "over.it", "predeclared", mandatory=True)
    it.settle()
    it.drain("over.bound")


@across(End.STOP, "4")
@across(End.KILL, "4")
def alternates(peer: Peer) -> Iterator[None]:
    it = speaker(peer, "before")
    it.declare_exchange("over.missed", "fanout", durable=True)
    it.declare_exchange(
        "over.missing", durable=True, arguments={"alternate-exchange": "over.missed"}
    )
    it.declare("over.missed", durable=True)
    it.bind("over.missed", "over.missed")
    yield
    it = speaker(peer, "after")
    it.publish("over.missing", "nowhere", "found", mandatory=True)
    it.settle()
    it.drain("over.missed")


# Queues


@across(End.STOP, "5.1", "5.4")
@across(End.KILL, "5.1", "5.4")
def queues(peer: Peer) -> Iterator[None]:
    """Durable ones stay as they are, with nobody who consumes; the others go."""
    it = speaker(peer, "before")
    arguments = {"x-max-length": 10_000, "x-any": "thing"}
    it.declare("over.durable", durable=True, arguments=arguments)
    it.declare("over.auto", durable=True, auto_delete=True)
    it.declare("over.transient")
    it.declare("over.deleted", durable=True)
    it.delete("over.deleted")
    it.declare("over.again", durable=True)
    keep(it, "over.again", "of the first")
    it.delete("over.again")
    it.declare("over.again", durable=True, arguments={"x-any": 1})
    it.consume("over.durable", "tag")
    yield
    it = speaker(peer, "after")
    look(it, "over.durable", "over.auto", "over.transient", "over.deleted")
    it.another().declare("over.durable", durable=True)
    it.another().declare("over.durable", arguments=arguments)
    it.another().declare("over.durable", durable=True, arguments=arguments)
    it.another().declare("over.auto", durable=True)
    it.another().declare("over.again", durable=True, arguments={"x-any": 1})
    it.another().consume("over.durable", "tag", exclusive=True)
    it.another().consume("over.durable", "tag")


@across(End.STOP, "5.4")
def purged(peer: Peer) -> Iterator[None]:
    it = speaker(peer, "before")
    it.declare("over.purged", durable=True)
    keep(it, "over.purged", "1", "2")
    it.purge("over.purged")
    keep(it, "over.purged", "3")
    yield
    note_bodies(peer, "over.purged")


@across(End.STOP, "5.1")
@across(End.KILL, "5.1")
def queues_of_a_connection(peer: Peer) -> Iterator[None]:
    """Exclusive queues go with the broker too, durable ones included."""
    it = speaker(peer, "before")
    it.declare("over.exclusive", exclusive=True)
    it.declare("over.exclusive.durable", exclusive=True, durable=True)
    keep(it, "over.exclusive.durable", "1")
    yield
    it = speaker(peer, "after")
    look(it, "over.exclusive", "over.exclusive.durable")
    it.declare("over.exclusive.durable", durable=True)


@across(End.STOP, "1.7")
@across(End.KILL, "1.7")
def the_end_of_a_connection(peer: Peer) -> Iterator[None]:
    it = speaker(peer, "idle")
    yield
    it.client.end()


# Messages


@across(End.STOP, "6", "7.6")
@across(End.KILL, "6", "7.6")
def messages(peer: Peer) -> Iterator[None]:
    """Persistent ones in durable queues stay, in their order."""
    it = speaker(peer, "before")
    it.declare("over.messages", durable=True)
    it.declare("over.messages.transient")
    for number in range(6):
        keep(it, "over.messages", f"{number}, which stays")
        keep(it, "over.messages", f"{number}, which goes", mode=1)
    keep(it, "over.messages.transient", "goes")
    yield
    it = speaker(peer, "after")
    it.drain("over.messages")
    it.another().get("over.messages.transient")


@across(End.STOP, "6", "11")
@across(End.KILL, "6", "11")
def properties(peer: Peer) -> Iterator[None]:
    """Byte for byte, bodies of all sizes too."""
    it = speaker(peer, "before")
    it.declare("over.properties", durable=True)
    it.declare_exchange("over.properties é", durable=True)
    it.bind("over.properties", "over.properties é", "key é")
    it.confirms()
    headers = {"nested": {"list": [1, "two", None, {"three": 3.5}]}, "é": b"\x00\xff", "t": True}
    it.publish(
        "over.properties é",
        "key é",
        "body é",
        headers=headers,
        content_type="text/plain",
        content_encoding="identity",
        delivery_mode=PERSISTENT,
        priority=3,
        correlation_id="correlation",
        reply_to="reply",
        message_id="id é",
        timestamp=1_700_000_000,
        type="kind",
        user_id="guest",
        app_id="app",
        cluster_id="cluster",
    )
    for size in (0, 1, 4_000, 131_064, 131_065, 300_000):
        it.publish("", "over.properties", "b" * size, delivery_mode=PERSISTENT)
    peer.note(it.confirmed(7))
    yield
    speaker(peer, "after").drain("over.properties")


@across(End.STOP, "7.5", "7.6")
def settled(peer: Peer) -> Iterator[None]:
    """Acknowledged and rejected ones are gone, the rest is in its order."""
    it = speaker(peer, "before")
    it.declare("over.settled", durable=True)
    keep(it, "over.settled", *map(str, range(10)))
    for _ in range(8):
        it.get("over.settled", no_ack=False)
    it.ack(2, multiple=True)
    it.ack(5)
    it.reject(7, requeue=False)
    it.nack(4, requeue=True)
    it.settle()
    yield
    note_bodies(peer, "over.settled")


def note_bodies(peer: Peer, queue: str) -> None:
    """Note the messages of a queue in order: RabbitMQ marks some as redelivered that are not."""
    it = speaker(peer, "after")
    while (heard := it.get(queue)).name == "Basic.GetOk":
        peer.note(heard.body)
    it.client.transcript.clear()


@across(End.STOP, "7.6")
@across(End.KILL, "7.6")
def redelivered(peer: Peer) -> Iterator[None]:
    """Messages that may have been delivered are marked; others, after an end in order, are not."""
    it = speaker(peer, "before")
    it.declare("over.redelivered", durable=True)
    keep(it, "over.redelivered", "held", "given back", "never seen", "never seen")
    for _ in range(2):
        it.get("over.redelivered", no_ack=False)
    it.nack(2, requeue=True)
    it.settle()
    yield
    speaker(peer, "after").drain("over.redelivered")


@across(End.STOP, "6.1")
@across(End.KILL, "6.1")
def confirmed(peer: Peer) -> Iterator[None]:
    """Whatever was confirmed is there, to the last, in every queue that it went to."""
    it = speaker(peer, "before")
    it.declare_exchange("over.confirmed", "fanout", durable=True)
    for queue in ("over.confirmed.1", "over.confirmed.2"):
        it.declare(queue, durable=True)
        it.bind(queue, "over.confirmed")
    keep_through(it, "over.confirmed", "", *(f"{number}" for number in range(20)))
    yield
    it = speaker(peer, "after")
    for queue in ("over.confirmed.1", "over.confirmed.2"):
        it.drain(queue)


@across(End.STOP, "6.2")
@across(End.KILL, "6.2")
def published_in_transactions(peer: Peer) -> Iterator[None]:
    """Committed messages survive, uncommitted ones do not."""
    it = speaker(peer, "before")
    it.declare("over.published", durable=True)
    it.transact()
    it.publish("", "over.published", "committed", delivery_mode=PERSISTENT)
    it.commit()
    it.publish("", "over.published", "rolled back", delivery_mode=PERSISTENT)
    it.roll_back()
    it.publish("", "over.published", "open", delivery_mode=PERSISTENT)
    it.settle()
    yield
    speaker(peer, "after").drain("over.published")


@across(End.STOP, "6.2")
def settled_in_transactions(peer: Peer) -> Iterator[None]:
    it = speaker(peer, "before")
    it.declare("over.transactions", durable=True)
    keep(it, "over.transactions", "acknowledged", "acknowledged in vain")
    it.transact()
    it.get("over.transactions", no_ack=False)
    it.ack(1)
    it.commit()
    it.get("over.transactions", no_ack=False)
    it.ack(2)
    it.settle()
    yield
    note_bodies(peer, "over.transactions")


# Users, rights and limits


@across(End.STOP, "3", "1.5")
@across(End.KILL, "3", "1.5")
def users(peer: Peer) -> Iterator[None]:
    """Passwords, rights and limits are what they were."""
    yield
    for name in ("owner", "of sha512", "of md5", "stranger", "no connection", "blank"):
        knock(peer, name, label=f"{name} knocks")
    knock(peer, "owner", "wrong", label="owner, wrong")
    knock(peer, "guest", "guest", vhost="no connections", label="no connections")
    each(
        as_user(peer, "owner"),
        lambda it: it.declare("mine.over", durable=True),
        lambda it: it.delete("mine.over"),
        lambda it: it.declare("theirs.over", durable=True),
        lambda it: it.get("theirs.q"),
    )
    each(
        as_user(peer, "reporter"),
        lambda it: it.publish("news", "reporter.it", mandatory=True),
        lambda it: it.publish("news", "other.it", mandatory=True),
    )


@across(End.STOP, "5.1")
@across(End.KILL, "5.1")
def limits_of_queues(peer: Peer) -> Iterator[None]:
    """Queues that were there before count."""
    yield
    it = speaker(peer, "after", vhost="one queue")
    it.another().declare("full", durable=True)
    it.another().declare("too many", durable=True)
