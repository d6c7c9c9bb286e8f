"""No answer before what it vouches for is on disk: confirms, tx.commit-ok, replies after an ack.

The disk is moved by hand: nothing is durable before `Harness.commit`, and `Harness.on_disk` is
what a node would find that starts now.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fluffle.broker.durability.durability import Durability
from fluffle.broker.metadata.change import Kind
from fluffle.broker.runtime.turn import Turn
from fluffle.protocol.methods import (
    Basic,
    Channel,
    Confirm,
    Connection,
    Exchange,
    Method,
    Queue,
    Tx,
    encode_method,
    make,
)
from fluffle.protocol.properties import Properties, body_of
from fluffle.storage.disk import Disk, MemoryDisk
from fluffle.storage.layout import INDEX_END
from tests.storage.support import ManualWriter
from tests.support.definitions import engine_of
from tests.support.edge import Edge, publish_frames
from tests.support.store import open_store

PERSISTENT = Properties(delivery_mode=2)


class Harness:
    """A node whose disk is moved by hand, with a client that has durable queues q and r."""

    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self._writer: ManualWriter
        self.edge = Edge(store=open_store(self.disk, self._make_writer))
        vhost = self.edge.vhost  # it has to be remembered, so that its queues can be
        self.edge.facts.put(Kind.VHOST, (vhost.name,), vhost.settings)
        self.edge.run()
        self.commit()
        self.client = self.edge.connect()
        for name in ("q", "r"):
            self.send(make(Queue.Declare, queue=name, durable=True))
            self.commit()
            self.client.expect(Queue.DeclareOk)

    def _make_writer(self, disk: Disk, wake: Callable[[], None]) -> ManualWriter:
        self._writer = ManualWriter(disk, wake)
        return self._writer

    def commit(self) -> None:
        """Do one commit, if there is anything to do, and all turns that follow from it."""
        self._writer.step()
        self.edge.run()

    def settle(self) -> list[str]:
        """Commit until there is nothing to do; the names of what came meanwhile."""
        while self._writer.step():
            self.edge.run()
        return self.client.names()

    @property
    def is_writing(self) -> bool:
        return self._writer.work is not None

    def send(self, *methods: Method, channel: int = 1) -> None:
        self.client.send(*(encode_method(channel, method) for method in methods))

    def publish(self, *bodies: bytes, queue: str = "q", exchange: str = "") -> None:
        self.client.publish(*bodies, queue=queue, exchange=exchange, properties=PERSISTENT)

    def fill(self, *bodies: bytes) -> None:
        """Have messages in q, on disk."""
        self.publish(*bodies)
        assert self.settle() == []

    def get(self) -> int:
        """The tag of the first message of q."""
        self.send(make(Basic.Get, queue="q"))
        return self.client.expect(Basic.GetOk).delivery_tag or 0

    def on_disk(self, name: str = "q") -> list[bytes]:
        """The bodies that a node would find in a queue, in order."""
        journal = engine_of(self.edge.vhost, name).journal
        assert journal is not None
        return bodies_on(self.disk, journal.groups)


def bodies_on(disk: MemoryDisk, groups: tuple[int, ...]) -> list[bytes]:
    """Messages of a queue on a disk that has lost what was not synced."""
    durability = Durability(open_store(disk.after_power_loss()), Turn(lambda _act: None))
    journal = durability.journals.reopen(groups)
    if not journal.recover().stored:
        return []
    return [body_of(content) for part in journal.load(0, INDEX_END) for content in part.contents]


@pytest.fixture
def harness() -> Harness:
    return Harness()


# Confirms


def test_a_confirm_comes_after_the_commit(harness: Harness) -> None:
    harness.client.confirm_select()
    harness.publish(b"1", b"2")
    assert (harness.client.names(), harness.on_disk()) == ([], [])
    harness.commit()
    ack = harness.client.expect(Basic.Ack)
    assert (ack.delivery_tag, ack.multiple, harness.on_disk()) == (2, True, [b"1", b"2"])


def test_what_comes_during_a_commit_is_confirmed_by_the_next(harness: Harness) -> None:
    harness.client.confirm_select()
    harness.publish(b"1")
    harness.publish(b"2")
    harness.commit()
    assert harness.client.expect(Basic.Ack).delivery_tag == 1
    harness.client.expect_nothing()
    assert harness.on_disk() == [b"1"]
    harness.commit()
    assert harness.client.expect(Basic.Ack).delivery_tag == 2


@pytest.mark.parametrize(
    ("queue", "properties"), [("q", Properties()), ("transient", PERSISTENT)], ids=["q", "message"]
)
def test_what_no_restart_brings_back_is_confirmed_at_once(
    harness: Harness, queue: str, properties: Properties
) -> None:
    harness.client.declare("transient")
    harness.client.confirm_select()
    harness.client.publish(b"1", queue=queue, properties=properties)
    assert harness.client.expect(Basic.Ack).delivery_tag == 1
    assert not harness.is_writing


def test_one_confirm_for_a_durable_and_a_transient_queue(harness: Harness) -> None:
    """The transient queue hands the message out meanwhile: that needs no disk."""
    harness.client.declare("transient")
    harness.client.declare_exchange("fan")
    for queue in ("q", "transient"):
        harness.client.bind(queue, "fan")
    harness.settle()
    harness.client.consume("transient", no_ack=True)
    harness.client.confirm_select()
    harness.publish(b"1", exchange="fan")
    assert harness.client.bodies() == [b"1"]
    harness.commit()
    assert harness.client.names() == ["Basic.Ack"]
    assert harness.settle() == []
    assert harness.on_disk() == [b"1"]


def test_one_confirm_for_two_durable_queues_after_the_commit_of_both(harness: Harness) -> None:
    harness.client.declare_exchange("fan")
    for queue in ("q", "r"):
        harness.client.bind(queue, "fan")
    harness.settle()
    harness.client.confirm_select()
    harness.publish(b"1", exchange="fan")
    harness.client.expect_nothing()
    harness.commit()
    assert harness.client.names() == ["Basic.Ack"]
    assert (harness.on_disk("q"), harness.on_disk("r")) == ([b"1"], [b"1"])


def test_a_message_that_is_acknowledged_before_it_was_written_is_confirmed(
    harness: Harness,
) -> None:
    harness.client.confirm_select()
    harness.publish(b"1")
    harness.publish(b"2")
    harness.client.consume()
    harness.client.ack(2, multiple=True)
    assert harness.settle().count("Basic.Ack") == 2
    assert harness.on_disk() == []


# Transactions


def test_commit_ok_comes_after_the_commit(harness: Harness) -> None:
    harness.client.call(Tx.Select(), Tx.SelectOk)
    harness.publish(b"1", b"2")
    harness.send(Tx.Commit())
    assert (harness.client.names(), harness.on_disk()) == ([], [])
    harness.commit()
    assert harness.client.names() == ["Tx.CommitOk"]
    assert harness.on_disk() == [b"1", b"2"]


def test_commit_ok_vouches_for_acknowledgements(harness: Harness) -> None:
    harness.fill(b"1", b"2")
    harness.client.call(Tx.Select(), Tx.SelectOk)
    harness.client.ack(harness.get())
    harness.send(Tx.Commit())
    harness.client.expect_nothing()
    harness.commit()
    assert harness.client.names() == ["Tx.CommitOk"]
    assert harness.on_disk() == [b"2"]


def test_a_transaction_that_is_rolled_back_waits_for_nothing(harness: Harness) -> None:
    harness.fill(b"1")
    harness.client.call(Tx.Select(), Tx.SelectOk)
    harness.publish(b"2")
    harness.client.ack(harness.get())
    harness.send(Tx.Rollback())
    assert harness.client.names() == ["Tx.RollbackOk"]
    assert harness.on_disk() == [b"1"]


# Replies vouch for what was done before them on their channel

REPLIED: dict[str, Method] = {
    "Basic.QosOk": make(Basic.Qos, prefetch_count=0),
    "Basic.GetEmpty": make(Basic.Get, queue="q"),
    "Basic.GetOk": make(Basic.Get, queue="r"),
    "Basic.ConsumeOk": make(Basic.Consume, queue="q", consumer_tag="tag"),
    "Basic.RecoverOk": make(Basic.Recover, requeue=True),
    "Queue.DeclareOk": make(Queue.Declare, queue="q", passive=True),
    "Confirm.SelectOk": make(Confirm.Select),
    "Channel.CloseOk": make(Channel.Close, reply_code=200, reply_text="", class_id=0, method_id=0),
}


@pytest.mark.parametrize("answer", REPLIED)
def test_a_later_reply_vouches_for_an_acknowledgement(harness: Harness, answer: str) -> None:
    harness.publish(b"r", queue="r")
    harness.fill(b"1")
    harness.client.ack(harness.get())
    harness.send(REPLIED[answer])
    assert (harness.client.names(), harness.on_disk()) == ([], [b"1"])
    harness.commit()
    assert harness.client.names() == [answer]
    assert harness.on_disk() == []


@pytest.mark.parametrize("how", [Basic.Ack, Basic.Nack, Basic.Reject])
def test_it_vouches_for_every_kind_of_end(harness: Harness, how: type[Method]) -> None:
    harness.fill(b"1")
    more = {} if how is Basic.Ack else {"requeue": False}
    harness.send(make(how, delivery_tag=harness.get(), **more), make(Basic.Qos))
    harness.client.expect_nothing()
    harness.commit()
    assert harness.client.names() == ["Basic.QosOk"]
    assert harness.on_disk() == []


def test_the_end_of_the_connection_vouches_for_all_its_channels(harness: Harness) -> None:
    harness.fill(b"1")
    harness.client.ack(harness.get())
    harness.client.send(encode_method(0, Connection.Close(200, "bye", 0, 0)))
    harness.client.expect_nothing()
    harness.commit()
    harness.client.expect(Connection.CloseOk, channel=0)
    assert harness.on_disk() == []


def test_what_another_channel_did_holds_nothing_up(harness: Harness) -> None:
    harness.fill(b"1")
    harness.client.open_channel(2)
    harness.client.ack(harness.get())
    harness.client.call(make(Basic.Qos), Basic.QosOk, channel=2)


def test_an_error_comes_after_what_it_vouches_for(harness: Harness) -> None:
    """A client may take the end of the channel for an answer to all before it."""
    harness.fill(b"1")
    harness.client.ack(harness.get())
    harness.client.ack(99)
    harness.client.expect_nothing()
    harness.commit()
    harness.client.expect_channel_closed(406)
    assert harness.on_disk() == []


# Purge and delete


def test_purge_ok_comes_after_the_commit(harness: Harness) -> None:
    harness.fill(b"1", b"2")
    harness.send(make(Queue.Purge, queue="q"))
    assert (harness.client.names(), harness.on_disk()) == ([], [b"1", b"2"])
    harness.commit()
    assert harness.client.expect(Queue.PurgeOk).message_count == 2
    assert harness.on_disk() == []


def test_a_purge_of_what_is_being_written_waits_for_its_own_commit(harness: Harness) -> None:
    harness.publish(b"1")
    harness.send(make(Queue.Purge, queue="q"))
    harness.commit()
    assert (harness.client.names(), harness.on_disk()) == ([], [b"1"])
    harness.commit()
    assert harness.client.names() == ["Queue.PurgeOk"]
    assert harness.on_disk() == []


def test_delete_ok_comes_after_the_commit(harness: Harness) -> None:
    harness.fill(b"1", b"2")
    journal = engine_of(harness.edge.vhost, "q").journal
    assert journal is not None
    harness.send(make(Queue.Delete, queue="q"))
    harness.client.expect_nothing()
    harness.commit()
    assert harness.client.expect(Queue.DeleteOk).message_count == 2
    assert bodies_on(harness.disk, journal.groups) == []


def test_of_a_mixed_batch_nothing_is_confirmed_before_what_is_recorded() -> None:
    """Every other message goes to a queue without a disk; they have numbers in between."""
    harness = Harness()
    harness.client.declare("t")
    harness.client.confirm_select()
    frames = [publish_frames(b"x", queue, properties=PERSISTENT) for queue in "tq"]
    for _ in range(2):  # the second time both routes are known, and the two are sorted
        harness.client.send(*frames)
        harness.commit()
        harness.client.arrivals()
    harness.client.send(*frames, *frames)
    assert harness.is_writing
    assert harness.client.names() == []
    harness.commit()
    assert [
        (a.method["delivery_tag"], a.method["multiple"]) for a in harness.client.arrivals()
    ] == [(8, True)]


def test_delete_ok_vouches_for_what_goes_with_a_queue_that_is_not_durable(harness: Harness) -> None:
    """Its last binding takes along an exchange that deletes itself, and that is on disk."""
    exchange = make(
        Exchange.Declare, exchange="x", exchange_type="fanout", durable=True, auto_delete=True
    )
    harness.send(
        exchange, make(Queue.Declare, queue="t"), make(Queue.Bind, queue="t", exchange="x")
    )
    harness.settle()
    harness.send(make(Queue.Delete, queue="t"))
    assert harness.edge.vhost.topology.find("x") is None
    harness.client.expect_nothing()
    harness.commit()
    harness.client.expect(Queue.DeleteOk)


# What waits is bounded


def test_messages_that_were_asked_for_do_not_pile_up_behind_a_slow_disk(harness: Harness) -> None:
    """Each get-ok vouches for the ack before it: what cannot be sent is not taken either."""
    harness.fill(*[b"x" * 600_000] * 8)
    harness.send(make(Basic.Ack, delivery_tag=harness.get()))
    harness.send(*[make(Basic.Get, queue="q")] * 7)
    harness.edge.run()
    assert harness.is_writing
    assert harness.client.names() == []
    assert harness.edge.vhost.queues["q"].in_flight == 2
    assert harness.settle() == ["Basic.GetOk"] * 7
