"""Long work is done in steps: others are served in between, and order and errors stay."""

from __future__ import annotations

import gc
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, pairwise, product
from typing import cast

import pytest

from fluffle.broker.access.access import Permission
from fluffle.broker.base.errors import AccessRefused
from fluffle.broker.core import settlement
from fluffle.broker.core.output_buffer import BURST_BYTES, RUN_BYTES_MIN
from fluffle.broker.core.publisher import TARGETS_AT_ONCE
from fluffle.broker.protocols.amqp091 import basic_methods
from fluffle.broker.protocols.amqp091.connection import Connection
from fluffle.broker.queues.publish_target import PublishTarget
from fluffle.broker.queues.queue_api import QueueHandle
from fluffle.broker.routing.bindings import DestinationKind
from fluffle.broker.runtime.turn import SHARE_S
from fluffle.protocol.methods import (
    Basic,
    Channel,
    Confirm,
    Exchange,
    Method,
    Queue,
    Tx,
    encode_method,
    make,
    pamqp_table,
)
from fluffle.protocol.properties import Properties
from fluffle.protocol.spec import FRAME_BODY, FRAME_HEADER
from fluffle.protocol.wire import to_table
from tests.support.client import raw_frame
from tests.support.edge import Client, Edge, publish_frames
from tests.support.fairness import turns
from tests.support.read_barrier import ManualReadBarrier

LARGE = Properties(headers=to_table({f"{number:05}": number for number in range(6_000)}))
WORDS = ".".join(["a"] * 120)
EMPTY_BODIES = raw_frame(FRAME_BODY, 1, b"") * 30_000
OCTETS = raw_frame(FRAME_BODY, 1, b"x") * 20_000
BEGUN = encode_method(1, make(Basic.Publish, exchange="", routing_key="nowhere"))
HEADER = raw_frame(FRAME_HEADER, 1, bytes((0, 60)) + bytes(8) + b"\xff\xff" + bytes(2))


@pytest.fixture(autouse=True)
def few_are_settled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (settlement, basic_methods):
        monkeypatch.setattr(module, "SETTLED_AT_ONCE", 100)


@pytest.fixture
def edge() -> Edge:
    """Where every look at the clock takes a quarter of a share."""
    made = Edge()
    passed = count()
    made.services.connections.shares.now_s = lambda: next(passed) * SHARE_S / 4
    return made


def costly_bindings() -> Iterator[str]:
    """Binding keys of which each may stand anywhere in WORDS."""
    return (".".join((*prefix, "#", "a", "#", "z")) for prefix in product("a*", repeat=8))


def with_topics(edge: Edge) -> Client:
    client = edge.connect()
    client.declare()
    client.declare_exchange("topics", "topic")
    keys = [*costly_bindings(), "#"]
    client.send(
        *(
            encode_method(
                1,
                make(Queue.Bind, queue="q", exchange="topics", routing_key=key, nowait=True),
            )
            for key in keys
        )
    )
    edge.run()
    return client


@pytest.mark.parametrize("frames", [EMPTY_BODIES, OCTETS])
def test_frames_that_come_to_nothing_are_cut_into_turns(edge: Edge, frames: bytes) -> None:
    flooder, other = edge.connect(), edge.connect()
    flooder.feed(BEGUN + HEADER + frames)
    assert turns(edge, flooder, other) > 2


def test_a_share_counts_over_reads_until_somebody_else_acts(edge: Edge) -> None:
    """A loop reads a socket again and again while there is more."""
    flooder, other = edge.connect(), edge.connect()
    flooder.send(BEGUN + HEADER)
    body = raw_frame(FRAME_BODY, 1, b"x")
    reads = 0
    while flooder.transport.is_reading():
        flooder.feed(body)
        reads += 1
    assert reads < 4
    edge.run()
    flooder.feed(body)
    other.feed(encode_method(1, Queue.Declare(queue="mine")))
    assert flooder.transport.is_reading()


def test_who_has_acted_last_is_forgotten_when_it_goes(edge: Edge) -> None:
    client = edge.connect()
    shares = edge.services.connections.shares
    shares.begin(client.connection, 0)
    client.transport.lose()
    edge.run()
    assert not any(held is client.connection for held in gc.get_referents(shares))


def test_large_headers_are_read_in_steps_and_in_order(edge: Edge) -> None:
    flooder, other = edge.connect(), edge.connect()
    flooder.declare()
    flooder.feed(
        publish_frames(b"1", properties=LARGE),
        publish_frames(b"2"),
        encode_method(1, Basic.Get(queue="q", no_ack=True)) * 2,
    )
    assert turns(edge, flooder, other) > 4
    first, second = flooder.arrivals()
    assert (first.body, second.body) == (b"1", b"2")


def test_what_is_wrong_with_large_headers_is_said(edge: Edge) -> None:
    client = edge.connect()
    frames = bytearray(publish_frames(b"1", properties=LARGE))
    at = frames.index(b"05000l") + 5
    frames[at] = ord("?")
    client.send(bytes(frames))
    client.expect_closed(501, "unknown field type 63")


def test_thousands_of_keys_lead_to_each_queue_once(edge: Edge) -> None:
    flooder, other = edge.connect(), edge.connect()
    flooder.declare()
    flooder.declare("last")
    keys = ["q", *(f"nobody {number}" for number in range(4_000)), "last", "q"]
    properties = Properties(headers=to_table({"CC": list(keys)}))
    flooder.feed(publish_frames(b"x", "nowhere", properties=properties))
    assert turns(edge, flooder, other) > 2
    assert (other.ready_count("q"), other.ready_count("last")) == (1, 1)


def test_a_long_walk_over_topics_is_left_and_taken_up_again(edge: Edge) -> None:
    flooder, other = with_topics(edge), edge.connect()
    flooder.send(encode_method(1, make(Confirm.Select, nowait=True)))
    sent = [publish_frames(b"x", f"{WORDS}.{number}", exchange="topics") for number in range(3)]
    flooder.feed(*sent, publish_frames(b"y", "short", exchange="topics"))
    assert turns(edge, flooder, other) > 20
    edge.run()
    assert flooder.expect(Basic.Ack).delivery_tag == 1
    flooder.arrivals()
    flooder.send(encode_method(1, Basic.Get(queue="q", no_ack=True)) * 4)
    assert flooder.bodies(Basic.GetOk) == [b"x", b"x", b"x", b"y"]


def begun_walk(edge: Edge) -> tuple[Client, Client]:
    """A publisher whose message is on its way, and another client."""
    flooder, other = with_topics(edge), edge.connect()
    flooder.feed(publish_frames(b"x", WORDS, exchange="topics"))
    edge.scheduler.turn()
    assert flooder.connection.input.work is not None
    return flooder, other


def test_a_queue_that_goes_meanwhile_gets_nothing(edge: Edge) -> None:
    flooder, other = begun_walk(edge)
    other.delete("q")
    assert flooder.connection.input.work is None
    assert flooder.transport.is_reading()
    flooder.expect_nothing()


def test_nor_one_that_goes_while_the_headers_are_read(edge: Edge) -> None:
    flooder, other = edge.connect(), edge.connect()
    flooder.declare("q", durable=True)
    flooder.declare("r")
    flooder.bind("q", "amq.fanout")
    flooder.bind("r", "amq.fanout")
    large = replace(LARGE, delivery_mode=2)
    flooder.feed(publish_frames(b"x", exchange="amq.fanout", properties=large))
    edge.scheduler.turn()
    assert flooder.connection.input.work is not None
    gone = edge.vhost.queues["q"]
    other.delete("q")
    assert other.ready_count("r") == 1
    assert gone.ready_count == 0


def test_a_walk_ends_with_its_connection(edge: Edge) -> None:
    flooder, other = begun_walk(edge)
    flooder.transport.lose()
    edge.run()
    assert flooder.connection.input.work is None
    assert other.ready_count() == 0


def test_a_walk_ends_when_its_client_breaks_off_though_it_is_not_read(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No loop says so of a socket while it is not read: the connection looks itself."""
    flooder, other = begun_walk(edge)
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with accepted:
            monkeypatch.setattr(flooder.transport, "get_extra_info", {"socket": accepted}.get)
            edge.scheduler.turn()
            assert flooder.connection.input.work is not None
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            edge.run()
    assert flooder.transport.was_aborted
    assert flooder.connection.input.work is None
    assert other.ready_count() == 0


def test_a_walk_ends_with_its_channel(edge: Edge) -> None:
    flooder, other = begun_walk(edge)
    session = flooder.connection.session
    assert session is not None
    (walking,) = flooder.connection.channels
    walking.refuse(AccessRefused("no"))
    edge.run()
    assert flooder.expect(Channel.Close).reply_code == 403
    assert flooder.connection.input.work is None
    assert other.ready_count() == 0


def test_what_was_found_is_not_kept_if_rights_change_meanwhile(edge: Edge) -> None:
    flooder, other = begun_walk(edge)
    session = flooder.connection.session
    assert session is not None
    edge.editor.put_permission("guest", "/", Permission(".*", "", ".*"))
    assert session.route_cache.by_key == {}
    edge.run()
    assert other.ready_count() == 1
    assert session.route_cache.by_key == {}
    flooder.publish(b"x", queue=WORDS, exchange="topics")
    assert flooder.expect(Channel.Close).reply_code == 403


def test_a_binding_that_comes_meanwhile_counts_for_the_next(edge: Edge) -> None:
    flooder, other = begun_walk(edge)
    other.declare("late")
    other.bind("late", "topics", WORDS)
    edge.run()
    flooder.publish(b"y", queue=WORDS, exchange="topics")
    assert other.ready_count("q") == 2
    assert other.ready_count("late") >= 1


def test_a_walk_that_leads_nowhere_is_in_doubt_until_all_is_known(edge: Edge) -> None:
    read_barrier = ManualReadBarrier()
    with_topics(edge)
    edge.services = replace(edge.services, read_barrier=read_barrier)
    flooder, other = edge.connect(), edge.connect()
    unbind = make(Queue.Unbind, queue="q", exchange="topics", routing_key="#")
    flooder.call(unbind, Queue.UnbindOk)
    flooder.confirm_select()
    flooder.publish(b"x", b"y", queue=WORDS, exchange="topics")
    flooder.expect_nothing()
    other.bind("q", "topics", WORDS)
    assert len(read_barrier) == 1
    read_barrier.confirm()
    edge.run()
    assert flooder.expect(Basic.Ack).delivery_tag == 2
    assert other.ready_count() == 2
    assert len(read_barrier) == 0


QUEUES = 3_000


def with_many_queues(edge: Edge, *, durable: bool = False) -> tuple[Client, Client]:
    """A publisher in confirm mode to a fanout exchange, and another client."""
    flooder, other = edge.connect(), edge.connect()
    for number in range(QUEUES):
        name = f"q{number}"
        flooder.send(
            encode_method(1, make(Queue.Declare, queue=name, durable=durable, nowait=True)),
            encode_method(1, make(Queue.Bind, queue=name, exchange="amq.fanout", nowait=True)),
        )
    edge.run()
    flooder.confirm_select()
    return flooder, other


def last_confirmed(client: Client) -> int:
    """Up to which message all are confirmed."""
    acks = [each.method for each in client.arrivals()]
    tags = [ack.delivery_tag or 0 for ack in acks if isinstance(ack, Basic.Ack)]
    return tags[-1]


def filled(edge: Edge) -> int:
    """How many queues have a message."""
    return sum(queue.ready_count > 0 for queue in edge.vhost.queues.values())


@pytest.mark.parametrize("durable", [False, True])
def test_a_message_for_thousands_of_queues_is_put_into_some_at_a_time(
    edge: Edge, *, durable: bool
) -> None:
    flooder, other = with_many_queues(edge, durable=durable)
    properties = Properties(delivery_mode=1 + durable)
    flooder.feed(publish_frames(b"x", exchange="amq.fanout", properties=properties))
    seen = [filled(edge)]
    while seen[-1] < QUEUES:
        flooder.expect_nothing()
        edge.scheduler.turn()
        seen.append(filled(edge))
    assert max(after - before for before, after in pairwise([0, *seen])) <= 4 * TARGETS_AT_ONCE
    edge.run()
    assert flooder.expect(Basic.Ack).delivery_tag == 1
    assert {queue.ready_count for queue in edge.vhost.queues.values()} == {1}
    assert other.ready_count("q0") == 1


def test_messages_for_thousands_of_queues_stay_in_order(edge: Edge) -> None:
    flooder, _other = with_many_queues(edge)
    bodies = [b"1", b"2", b"3"]
    flooder.feed(*(publish_frames(body, exchange="amq.fanout") for body in bodies))
    edge.run()
    assert last_confirmed(flooder) == 3
    for name in ("q0", f"q{QUEUES - 1}"):
        flooder.send(encode_method(1, Basic.Get(queue=name, no_ack=True)) * 3)
        assert flooder.bodies(Basic.GetOk) == bodies


def begun_putting(edge: Edge) -> tuple[Client, Client]:
    """A publisher whose message is in some of its queues, and another client."""
    flooder, other = with_many_queues(edge)
    flooder.feed(publish_frames(b"x", exchange="amq.fanout"), publish_frames(b"y", "q0"))
    while not filled(edge):
        edge.scheduler.turn()
    assert filled(edge) < QUEUES
    return flooder, other


class Full:
    """A queue that takes no more for now."""

    is_full = True

    def __init__(self, queue: QueueHandle) -> None:
        self.blocked_publishers = queue.blocked_publishers


def test_a_message_that_is_in_some_queues_gets_into_all_though_its_publisher_goes(
    edge: Edge,
) -> None:
    """But nothing that came behind it."""
    flooder, _other = begun_putting(edge)
    flooder.transport.lose()
    assert flooder.connection.input.work is None
    edge.run()
    assert {queue.ready_count for queue in edge.vhost.queues.values()} == {1}


def test_nobody_who_has_gone_waits_for_a_queue_that_is_full(edge: Edge) -> None:
    client = edge.connect()
    client.declare()
    full = edge.vhost.queues["q"]
    session = client.connection.session
    assert session is not None
    client.transport.lose()
    edge.run()
    session.client.on_behind(cast(PublishTarget, Full(full)), 1)
    assert full.blocked_publishers == []


def test_nor_for_a_disk_that_is_behind(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    client = edge.connect()
    session, waiting = client.connection.session, list[object]()
    assert session is not None
    monkeypatch.setattr(
        type(edge.services.runtime.commits),
        "when_caught_up",
        lambda _commits, act: waiting.append(act),
    )
    session.client.on_disk_behind()
    assert len(waiting) == 1
    client.transport.lose()
    edge.run()
    session.client.on_disk_behind()
    assert len(waiting) == 1


def test_or_its_channel_is_closed(edge: Edge) -> None:
    flooder, _other = begun_putting(edge)
    (putting,) = flooder.connection.channels
    putting.refuse(AccessRefused("no"))
    edge.run()
    assert flooder.expect(Channel.Close).reply_code == 403
    assert {queue.ready_count for queue in edge.vhost.queues.values()} == {1}


def test_queues_that_go_while_a_message_is_put_into_others_are_passed_over(edge: Edge) -> None:
    flooder, other = begun_putting(edge)
    last = f"q{QUEUES - 1}"
    gone = edge.vhost.queues[last]
    other.delete(last)
    edge.run()
    assert last_confirmed(flooder) == 2
    assert gone.ready_count == 0
    assert filled(edge) == QUEUES - 1


def test_routes_of_a_batch_to_many_queues_together_are_taken_apart(edge: Edge) -> None:
    """Each of them leads to few enough."""
    flooder, other = edge.connect(), edge.connect()
    for number in range(TARGETS_AT_ONCE + 2):
        flooder.send(
            encode_method(1, make(Queue.Declare, queue=f"q{number}", nowait=True)),
            encode_method(
                1,
                make(
                    Queue.Bind,
                    queue=f"q{number}",
                    exchange="amq.direct",
                    routing_key=str(number % 2),
                    nowait=True,
                ),
            ),
        )
    edge.run()
    flooder.feed(*(publish_frames(b"x", key, exchange="amq.direct") for key in "01" * 8))
    assert turns(edge, flooder, other) > 1
    assert {edge.vhost.queues[f"q{n}"].ready_count for n in range(TARGETS_AT_ONCE + 2)} == {8}


def test_large_arguments_are_read_in_steps_and_in_order(edge: Edge) -> None:
    flooder, other = edge.connect(), edge.connect()
    table = pamqp_table(to_table({f"x{number:05}": number for number in range(6_000)}))
    flooder.feed(
        encode_method(1, make(Queue.Declare, queue="large", arguments=table)),
        encode_method(1, make(Queue.Declare, queue="large", passive=True)),
    )
    assert turns(edge, flooder, other) >= 4
    assert flooder.names() == ["Queue.DeclareOk"] * 2
    assert len(edge.vhost.queues["large"].spec.arguments) == 6_000


def test_large_arguments_that_have_waited_are_read_in_steps(edge: Edge) -> None:
    read_barrier = ManualReadBarrier()
    edge.services = replace(edge.services, read_barrier=read_barrier)
    flooder, other = edge.connect(), edge.connect()
    table = pamqp_table(to_table({f"x{number:05}": number for number in range(6_000)}))
    flooder.feed(
        encode_method(1, make(Queue.Delete, queue="elsewhere")),
        encode_method(1, make(Queue.Declare, queue="nowhere", passive=True, arguments=table)),
    )
    read_barrier.confirm()
    assert turns(edge, flooder, other) >= 4
    assert flooder.names() == ["Queue.DeleteOk", "Channel.Close"]
    assert len(read_barrier) == 0


def test_what_is_large_and_wrong_is_said(edge: Edge) -> None:
    client = edge.connect()
    table = pamqp_table(to_table({f"x{number:05}": number for number in range(6_000)}))
    frame = bytearray(encode_method(1, make(Queue.Declare, queue="large", arguments=table)))
    frame[frame.index(b"x05000l") + 6] = ord("?")
    client.send(bytes(frame))
    client.expect_closed(501, "cannot decode")


UNACKED = 5_000


def holding(edge: Edge) -> tuple[Client, Client]:
    """A consumer that has acknowledged every other of its messages, and another client."""
    holder, other = edge.connect(), edge.connect()
    holder.declare()
    for _ in range(5):
        holder.publish(*[b"x"] * (UNACKED // 5))
    edge.run()
    holder.consume()
    assert len(holder.bodies()) == UNACKED
    holder.send(*(encode_method(1, Basic.Ack(tag)) for tag in range(2, UNACKED, 2)))
    edge.run()
    return holder, other


LEFT = UNACKED // 2 + 1


@pytest.mark.parametrize(
    ("method", "left"),
    [
        (Basic.Ack(UNACKED, multiple=True), 0),
        (Basic.Nack(0, multiple=True, requeue=False), 0),
        (Basic.Nack(0, multiple=True, requeue=True), LEFT),
        (Basic.RecoverAsync(requeue=True), LEFT),
    ],
)
def test_thousands_of_messages_are_settled_in_steps(edge: Edge, method: Method, left: int) -> None:
    holder, other = holding(edge)
    holder.send(encode_method(1, Basic.Cancel("c")))
    holder.expect(Basic.CancelOk)
    holder.feed(encode_method(1, method))
    assert turns(edge, holder, other) > 4
    assert holder.ready_count() == left
    holder.expect_nothing()


def test_a_recover_is_answered_when_all_has_gone_back(edge: Edge) -> None:
    holder, other = holding(edge)
    holder.send(encode_method(1, Basic.Cancel("c")))
    holder.expect(Basic.CancelOk)
    holder.feed(encode_method(1, Basic.Recover(requeue=True)))
    while not (heard := holder.names()):
        edge.scheduler.turn()
    assert heard == ["Basic.RecoverOk"]
    assert other.ready_count() == LEFT


def returning(edge: Edge) -> tuple[Client, Client]:
    """Another who is about to commit that thousands of messages go back, and a message."""
    holder, other = holding(edge)
    holder.call(Tx.Select(), Tx.SelectOk)
    holder.send(encode_method(1, Basic.Cancel("c")), encode_method(1, Basic.Ack(1)))
    holder.expect(Basic.CancelOk)
    holder.send(encode_method(1, Basic.Nack(0, multiple=True, requeue=True)))
    holder.publish(b"y")
    return holder, other


def test_a_commit_gives_back_thousands_in_steps(edge: Edge) -> None:
    holder, other = returning(edge)
    holder.feed(encode_method(1, Tx.Commit()))
    assert turns(edge, holder, other) > 4
    assert holder.names() == ["Tx.CommitOk"]
    assert other.ready_count() == LEFT


def test_a_commit_that_is_cut_short_publishes_nothing_and_loses_nothing(edge: Edge) -> None:
    holder, other = returning(edge)
    holder.feed(encode_method(1, Tx.Commit()))
    assert holder.connection.input.work is not None
    holder.transport.lose()
    edge.run()
    assert other.ready_count() == LEFT
    other.consume(no_ack=True)
    assert other.bodies() == [b"x"] * LEFT


def test_what_is_not_settled_yet_goes_back_with_its_channel(edge: Edge) -> None:
    holder, other = holding(edge)
    holder.feed(encode_method(1, Basic.Nack(0, multiple=True, requeue=False)))
    assert holder.connection.input.work is not None
    holder.transport.lose()
    edge.run()
    assert 0 < other.ready_count() < LEFT


def test_a_channel_that_ends_gives_back_thousands_in_steps(edge: Edge) -> None:
    holder, other = holding(edge)
    holder.transport.lose()
    assert other.ready_count() < LEFT
    edge.run()
    assert other.ready_count() == LEFT


def test_messages_without_neighbours_are_handed_out_some_at_a_time(edge: Edge) -> None:
    holder, other = holding(edge)
    holder.transport.lose()
    edge.run()
    other.send(encode_method(1, make(Basic.Qos, prefetch_count=0)))
    other.arrivals()
    other.feed(encode_method(1, make(Basic.Consume, queue="q", consumer_tag="c", no_ack=True)))
    in_turns, left = list[int](), LEFT
    while left:
        edge.scheduler.turn()
        in_turns.append(sum(each.method.name == "Basic.Deliver" for each in other.arrivals()))
        left -= in_turns[-1]
    assert max(in_turns) <= 2 * BURST_BYTES // RUN_BYTES_MIN, "the first read has a turn, too"


def test_a_bug_in_a_step_ends_its_connection_alone(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    flooder, other = begun_walk(edge)

    def fails(_work: object) -> bool:
        raise RuntimeError("a bug")

    assert isinstance(flooder.connection, Connection)
    monkeypatch.setattr("fluffle.broker.core.input_queue.LongEvent.go_on", fails)
    edge.run()
    flooder.expect_closed(541)
    other.declare("mine")


@pytest.mark.parametrize("method", [Exchange.Delete(exchange="topics"), Queue.Delete(queue="q")])
def test_thousands_of_bindings_go_at_once_and_are_cleared_away_in_steps(
    edge: Edge, method: Method
) -> None:
    client = edge.connect()
    client.declare()
    client.declare("r")
    client.declare_exchange("topics", "topic")
    binds = (make(Queue.Bind, exchange="topics", nowait=True, queue="q", routing_key=f"{key}.#")
             for key in range(2_000))  # fmt: skip
    client.feed(b"".join(encode_method(1, bind) for bind in binds))
    edge.run()
    client.bind("r", "topics", "7.#")
    exchange = edge.vhost.topology.find("topics")
    assert exchange is not None
    held = exchange.matcher
    client.feed(encode_method(1, method))
    client.take()  # its answer
    assert len(held) > 1_000, "nobody waits for it"
    assert not edge.vhost.topology.bindings_to(DestinationKind.QUEUE, "q")
    edge.run()
    assert len(held) == (1 if isinstance(method, Queue.Delete) else 0)
