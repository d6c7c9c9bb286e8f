"""Transactions of thousands: committed and rolled back in steps, with others served in between."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from fluffle.broker.base.errors import AccessRefused
from fluffle.broker.core import publisher as publisher_module
from fluffle.broker.core.route_lookup import RoutedBatch
from fluffle.broker.protocols.amqp091 import transaction as transaction_module
from fluffle.broker.protocols.amqp091.channel import Channel as ServerChannel
from fluffle.broker.protocols.amqp091.transaction import COST_IN_ONE_GO
from fluffle.broker.runtime.turn import SHARE_S
from fluffle.protocol.methods import Basic, Channel, Queue, Tx, encode_method, make
from fluffle.protocol.properties import Properties
from fluffle.storage.disk import Disk, MemoryDisk
from tests.storage.support import ManualWriter
from tests.support.edge import Client, Edge, publish_frames
from tests.support.fairness import turns
from tests.support.store import open_store

QUEUES = ("q0", "q1", "q2", "q3")
KEYS = "abc"
PUBLISHED = 3_000
IN_EACH = {"q0": 1_000, "q1": 2_000, "q2": 2_000, "q3": 1_000}
UNACKED = 5_000


def slow(edge: Edge) -> Edge:
    """An edge where every look at the clock takes a quarter of a share."""
    passed = count()
    edge.services.connections.shares.now_s = lambda: next(passed) * SHARE_S / 4
    return edge


@pytest.fixture(autouse=True)
def little_is_undone_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction_module, "UNDONE_AT_ONCE", 50)


@pytest.fixture
def edge() -> Edge:
    return slow(Edge())


def messages(number: int, *, durable: bool = False) -> bytes:
    """Frames of `number` messages, each for two queues; of neighbours one is the same."""
    properties = Properties(delivery_mode=1 + durable)
    return b"".join(
        publish_frames(b"%d" % at, KEYS[at % 3], exchange="amq.direct", properties=properties)
        for at in range(number)
    )


def publisher(edge: Edge, *, durable: bool = False) -> Client:
    """A client in a transaction, with queues of which each key leads to two."""
    client = edge.connect()
    for at, queue in enumerate(QUEUES):
        client.declare(queue, durable=durable)
        for key in KEYS[max(0, at - 1) : at + 1]:
            client.bind(queue, "amq.direct", key)
    client.call(Tx.Select(), Tx.SelectOk)
    return client


def counts(edge: Edge) -> dict[str, int]:
    """How many messages wait in each queue."""
    return {queue: edge.vhost.queues[queue].ready_count for queue in QUEUES}


def holder(edge: Edge) -> Client:
    """A client that has acknowledged every other of its messages in a transaction, one by one."""
    client = edge.connect()
    client.declare()
    for _ in range(5):
        client.publish(*[b"x"] * (UNACKED // 5))
    client.call(Tx.Select(), Tx.SelectOk)
    client.consume()
    assert len(client.bodies()) == UNACKED
    client.send(*(encode_method(1, Basic.Ack(tag)) for tag in range(2, UNACKED + 1, 2)))
    edge.run()
    return client


def in_flight(edge: Edge) -> int:
    return edge.vhost.queues["q"].in_flight


# Commits


def test_thousands_are_published_in_steps_and_nothing_overtakes(edge: Edge) -> None:
    client, other = publisher(edge), edge.connect()
    client.send(messages(PUBLISHED))
    client.feed(
        encode_method(1, Tx.Commit()),
        *(encode_method(1, make(Queue.Declare, queue=queue, passive=True)) for queue in QUEUES),
    )
    assert turns(edge, client, other) > 10
    edge.run()
    assert client.names() == ["Tx.CommitOk", *["Queue.DeclareOk"] * 4]
    assert counts(edge) == IN_EACH
    client.send(encode_method(1, Basic.Get(queue="q1", no_ack=True)) * IN_EACH["q1"])
    numbers = [int(body) for body in client.bodies(Basic.GetOk)]
    assert numbers == [at for at in range(PUBLISHED) if at % 3 < 2]


def test_thousands_are_settled_in_steps(edge: Edge) -> None:
    client, other = holder(edge), edge.connect()
    client.feed(encode_method(1, Tx.Commit()))
    assert turns(edge, client, other) > 4
    assert client.names() == ["Tx.CommitOk"]
    assert in_flight(edge) == UNACKED // 2


def begun(edge: Edge, client: Client) -> None:
    """Until a commit has published something."""
    client.feed(encode_method(1, Tx.Commit()))
    while not sum(counts(edge).values()):
        edge.scheduler.turn()
    assert client.connection.input.work is not None
    assert counts(edge) != IN_EACH


def test_a_commit_that_has_published_something_is_done_though_the_connection_goes(
    edge: Edge,
) -> None:
    client = publisher(edge)
    client.send(messages(PUBLISHED))
    begun(edge, client)
    client.transport.lose()
    assert client.connection.input.work is None
    edge.run()
    assert counts(edge) == IN_EACH


def test_with_all_that_it_settles(edge: Edge) -> None:
    publisher(edge)
    client = holder(edge)
    client.send(messages(PUBLISHED))
    begun(edge, client)
    client.transport.lose()
    edge.run()
    assert counts(edge) == IN_EACH
    queue = edge.vhost.queues["q"]
    assert (queue.in_flight, queue.ready_count) == (0, UNACKED // 2)


def test_a_channel_that_is_closed_meanwhile_hears_no_more_of_it(edge: Edge) -> None:
    client = publisher(edge)
    client.send(
        messages(PUBLISHED),
        publish_frames(b"returned", "nowhere", mandatory=True),
    )
    begun(edge, client)
    (committing,) = client.connection.channels
    committing.refuse(AccessRefused("no"))
    edge.run()
    assert client.names() == ["Channel.Close"]
    assert counts(edge) == IN_EACH


def test_a_queue_that_goes_meanwhile_makes_the_commit_a_partial_one(edge: Edge) -> None:
    client, other = publisher(edge), edge.connect()
    client.send(messages(PUBLISHED))
    begun(edge, client)
    other.delete("q3")
    edge.run()
    client.expect_channel_closed(406, "PRECONDITION_FAILED - partial tx completion")
    assert edge.vhost.queues["q2"].ready_count == IN_EACH["q2"]


def test_nor_does_one_hear_of_it_that_is_closed_in_the_last_step(edge: Edge) -> None:
    client = publisher(edge)
    client.send(messages(2))
    at_put(client, 2, lambda channel: channel.refuse(AccessRefused("no")))
    client.send(encode_method(1, Tx.Commit()))
    assert client.names() == ["Channel.Close"]
    assert sum(counts(edge).values()) == 4


def test_nothing_more_is_done_for_a_channel_that_is_closed_in_a_step(edge: Edge) -> None:
    """The rest of the commit belongs to a closed channel."""
    client = publisher(edge)
    client.send(messages(PUBLISHED))
    at_put(client, 100, lambda channel: channel.refuse(AccessRefused("no")))
    edge.services.connections.shares.now_s = lambda: 0.0
    client.feed(encode_method(1, Tx.Commit()))
    assert sum(counts(edge).values()) < 500
    edge.run()
    assert client.names() == ["Channel.Close"]
    assert counts(edge) == IN_EACH


class ActAt:
    """An `EnqueueObserver` that has something happen to a channel, once."""

    def __init__(
        self, number: int, channel: ServerChannel, act: Callable[[ServerChannel], None]
    ) -> None:
        self._number = number
        self._channel = channel
        self._act = act
        self._calls = count(1)

    def enqueued(self, routed: RoutedBatch) -> None:
        if next(self._calls) == self._number:
            self._act(self._channel)


def at_put(client: Client, number: int, act: Callable[[ServerChannel], None]) -> None:
    """Have something happen when the batch of that number is put into its queues."""
    (channel,) = client.connection.channels
    channel.publisher.observer = ActAt(number, channel, act)


def fail(_channel: ServerChannel) -> None:
    raise RuntimeError("a bug")


@pytest.mark.parametrize("is_lost", [False, True])
def test_what_an_error_in_a_commit_leaves_unsettled_goes_back(edge: Edge, *, is_lost: bool) -> None:
    """The connection ends with it, or has ended by then."""
    publisher(edge)
    client = holder(edge)
    client.send(messages(PUBLISHED))
    at_put(client, 1_000, fail)
    begun(edge, client)
    if is_lost:
        client.transport.lose()
    edge.run()
    assert is_lost or client.names() == ["Connection.Close"]
    queue = edge.vhost.queues["q"]
    assert (queue.in_flight, queue.ready_count) == (0, UNACKED)


def test_messages_that_are_returned_are_published_in_steps_too(edge: Edge) -> None:
    client, other = edge.connect(), edge.connect()
    client.call(Tx.Select(), Tx.SelectOk)
    sent = publish_frames(b"", "nowhere", mandatory=True) * 8
    for _ in range(400):
        client.send(sent)
    client.feed(encode_method(1, Tx.Commit()))
    assert turns(edge, client, other) > 3
    edge.run()
    assert client.names() == [*["Basic.Return"] * 3_200, "Tx.CommitOk"]


def test_a_queue_that_goes_between_the_steps_of_one_message_counts_like_one_between_messages(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (publisher_module, transaction_module):
        monkeypatch.setattr(module, "TARGETS_AT_ONCE", 1)
    client, other = edge.connect(), edge.connect()
    queues = [f"q{number}" for number in range(40)]
    for queue in queues:
        client.declare(queue)
        client.bind(queue, "amq.fanout")
    client.call(Tx.Select(), Tx.SelectOk)
    client.publish(b"x", exchange="amq.fanout")
    client.feed(encode_method(1, Tx.Commit()))
    filled = [queue for queue in queues if edge.vhost.queues[queue].ready_count]
    assert len(filled) < 40
    last = next(queue for queue in reversed(queues) if queue not in filled)
    other.feed(encode_method(1, Queue.Delete(queue=last)))
    assert last not in edge.vhost.queues
    edge.run()
    client.expect_channel_closed(406, "PRECONDITION_FAILED - partial tx completion")
    assert sum(queue.ready_count for queue in edge.vhost.queues.values()) == 39


def test_what_a_commit_has_done_is_not_counted_as_open_any_more(edge: Edge) -> None:
    publisher(edge)
    client = holder(edge)
    client.send(messages(PUBLISHED))
    (committing,) = client.connection.channels
    transaction = committing.transaction
    assert transaction is not None
    assert (transaction.message_count, transaction.settled_count) == (PUBLISHED, UNACKED // 2)
    client.send(encode_method(1, Tx.Commit()))
    assert (transaction.message_count, transaction.settled_count) == (0, 0)


class Harness:
    """An edge whose disk is moved by hand."""

    def __init__(self) -> None:
        self.writer: ManualWriter
        self.edge = slow(Edge(store=open_store(MemoryDisk(), self._make_writer)))

    def _make_writer(self, disk: Disk, done: object) -> ManualWriter:
        self.writer = ManualWriter(disk, done)  # type: ignore[arg-type]
        return self.writer

    def publisher(self) -> Client:
        edge, client = self.edge, self.edge.connect()
        for at, queue in enumerate(QUEUES):
            client.send(encode_method(1, make(Queue.Declare, queue=queue, durable=True)))
            for key in KEYS[max(0, at - 1) : at + 1]:
                bind = make(Queue.Bind, queue=queue, exchange="amq.direct", routing_key=key)
                client.send(encode_method(1, bind))
        client.send(encode_method(1, Tx.Select()))
        self.write_all()
        assert client.names()[-1] == "Tx.SelectOk"
        assert edge.services.runtime.commits.unwritten_bytes == 0
        return client

    def write_all(self) -> None:
        self.edge.run()
        while self.edge.services.runtime.commits.is_running:
            assert self.writer.step()
            self.edge.run()


def test_commit_ok_comes_once_the_last_of_it_is_on_disk() -> None:
    harness = Harness()
    client = harness.publisher()
    client.send(messages(PUBLISHED, durable=True))
    client.feed(encode_method(1, Tx.Commit()))
    harness.edge.run()
    commits = harness.edge.services.runtime.commits
    assert counts(harness.edge) == IN_EACH
    ticket = commits.ticket
    assert commits.durable < ticket - 1, "the first of it is being written, the last is not"
    while commits.durable < ticket:
        client.expect_nothing()
        assert harness.writer.step()
        harness.edge.run()
    assert client.names() == ["Tx.CommitOk"]


def test_a_channel_that_closes_amid_a_commit_vouches_for_what_is_recorded_of_it() -> None:
    harness = Harness()
    client = harness.publisher()
    client.send(messages(PUBLISHED, durable=True))
    commits = harness.edge.services.runtime.commits
    first = commits.ticket
    assert commits.durable < first
    begun(harness.edge, client)
    (committing,) = client.connection.channels
    committing.refuse(AccessRefused("no"))
    harness.edge.run()
    while commits.durable < first:
        client.expect_nothing()
        assert harness.writer.step()
        harness.edge.run()
    assert client.names() == ["Channel.Close"]


def test_a_small_transaction_is_in_one_commit_of_the_disk() -> None:
    harness = Harness()
    client = harness.publisher()
    client.send(messages(COST_IN_ONE_GO // 2, durable=True))
    before = harness.edge.services.runtime.commits.ticket
    client.feed(encode_method(1, Tx.Commit()))
    assert sum(counts(harness.edge).values()) == COST_IN_ONE_GO
    harness.write_all()
    assert client.names() == ["Tx.CommitOk"]
    assert harness.edge.services.runtime.commits.durable == before


# Rollbacks, and ends


def test_thousands_are_rolled_back_in_steps(edge: Edge) -> None:
    publisher(edge)
    client, other = holder(edge), edge.connect()
    client.send(messages(PUBLISHED))
    client.feed(
        encode_method(1, Tx.Rollback()), encode_method(1, Basic.Ack(UNACKED, multiple=True))
    )
    assert turns(edge, client, other) > 4
    edge.run()
    assert client.names() == ["Tx.RollbackOk"]
    client.call(Tx.Commit(), Tx.CommitOk)
    assert in_flight(edge) == 0
    assert sum(counts(edge).values()) == 0


def test_what_was_acknowledged_together_is_rolled_back_in_steps(edge: Edge) -> None:
    client, other = edge.connect(), edge.connect()
    client.declare()
    client.publish(*[b"x"] * 1_000)
    client.call(Tx.Select(), Tx.SelectOk)
    client.send(encode_method(1, Basic.Get(queue="q")) * 1_000)
    assert len(client.bodies(Basic.GetOk)) == 1_000
    client.ack(0, multiple=True)
    client.feed(encode_method(1, Tx.Rollback()))
    assert turns(edge, client, other) > 3
    assert client.names() == ["Tx.RollbackOk"]
    client.ack(500, multiple=True)
    client.call(Tx.Commit(), Tx.CommitOk)
    assert in_flight(edge) == 500
    client.ack(0, multiple=True)
    client.call(Tx.Commit(), Tx.CommitOk)
    assert in_flight(edge) == 0


def test_a_rollback_that_is_cut_short_loses_nothing(edge: Edge) -> None:
    client = holder(edge)
    client.feed(encode_method(1, Tx.Rollback()))
    edge.scheduler.turn()
    assert client.connection.input.work is not None
    client.transport.lose()
    edge.run()
    queue = edge.vhost.queues["q"]
    assert (queue.in_flight, queue.ready_count) == (0, UNACKED)


def test_an_open_transaction_of_thousands_goes_back_in_steps_with_its_channel(edge: Edge) -> None:
    client = holder(edge)
    client.transport.lose()
    queue = edge.vhost.queues["q"]
    assert queue.ready_count < UNACKED
    edge.run()
    assert (queue.in_flight, queue.ready_count) == (0, UNACKED)
    other = edge.connect()
    other.consume(no_ack=True)
    assert len(other.bodies()) == UNACKED


def test_thousands_are_acknowledged_together_in_steps(edge: Edge) -> None:
    client, other = holder(edge), edge.connect()
    client.feed(encode_method(1, Basic.Ack(UNACKED - 1, multiple=True)))
    assert turns(edge, client, other) > 2
    assert in_flight(edge) == UNACKED
    client.call(Tx.Rollback(), Tx.RollbackOk)
    client.ack(UNACKED, multiple=True)
    client.call(Tx.Commit(), Tx.CommitOk)
    assert in_flight(edge) == 0


def test_a_large_transaction_that_is_given_up_by_its_client_ends_in_order(edge: Edge) -> None:
    client = holder(edge)
    client.call(
        make(Channel.Close, reply_code=200, reply_text="", class_id=0, method_id=0),
        Channel.CloseOk,
    )
    queue = edge.vhost.queues["q"]
    assert (queue.in_flight, queue.ready_count) == (0, UNACKED)
