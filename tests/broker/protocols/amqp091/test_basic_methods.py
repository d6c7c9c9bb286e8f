"""basic.qos, consume, cancel, get, ack, nack, reject and recover, as a client sees them."""

from __future__ import annotations

import pytest

from fluffle.broker.queues.engine import Queue as Engine
from fluffle.protocol.methods import (
    Basic,
    Channel,
    Connection,
    Method,
    Queue,
    encode_method,
    make,
    pamqp_table,
)
from fluffle.protocol.wire import to_table
from tests.mutants.mutant import Mutant
from tests.mutants.registry import FAMILIES
from tests.support.edge import Client, Edge, publish_frames


def with_messages(*bodies: bytes) -> Client:
    """A client whose queue `q` holds messages."""
    client = Edge().connect()
    client.declare()
    client.publish(*bodies)
    return client


def deliveries(client: Client) -> list[tuple[int, bytes, bool]]:
    """Take everything, which must be deliveries: (tag, body, redelivered)."""
    taken = []
    for arrival in client.arrivals():
        assert isinstance(arrival.method, Basic.Deliver), str(arrival)
        method = arrival.method
        assert method.delivery_tag is not None
        taken.append((method.delivery_tag, arrival.body, method.redelivered is True))
    return taken


def send(client: Client, *methods: Method) -> None:
    client.send(*(encode_method(1, method) for method in methods))


# Consumers


def test_consume_ok_comes_before_the_first_delivery() -> None:
    client = with_messages(b"1", b"2")
    send(client, make(Basic.Consume, queue="q", consumer_tag="c"))
    assert client.names() == ["Basic.ConsumeOk", "Basic.Deliver", "Basic.Deliver"]


def test_a_delivery_says_whose_it_is_and_where_from() -> None:
    client = with_messages(b"1")
    client.consume(tag="mine")
    arrival = client.take()
    deliver = arrival.method
    assert isinstance(deliver, Basic.Deliver)
    assert (deliver.consumer_tag, deliver.delivery_tag) == ("mine", 1)
    assert (deliver.exchange, deliver.routing_key, deliver.redelivered) == ("", "q", False)


def test_nowait_is_silent_and_delivers() -> None:
    client = with_messages(b"1")
    send(client, make(Basic.Consume, queue="q", consumer_tag="c", nowait=True))
    assert client.names() == ["Basic.Deliver"]


def test_cancel_ok_comes_behind_the_last_delivery() -> None:
    client = with_messages()
    client.consume(no_ack=True)
    other = client.edge.connect()
    other.feed(publish_frames(b"1"), publish_frames(b"2"))
    client.feed(encode_method(1, Basic.Cancel("c")))
    client.edge.run()
    names = client.names()
    assert names[-1] == "Basic.CancelOk"
    assert names.count("Basic.Deliver") + client.ready_count() == 2
    other.publish(b"3")
    client.expect_nothing()


def test_a_cancelled_consumer_keeps_what_it_holds() -> None:
    client = with_messages(b"1", b"2", b"3")
    client.consume(prefetch=2)
    assert len(deliveries(client)) == 2
    client.call(Basic.Cancel("c"), Basic.CancelOk)
    assert client.ready_count() == 1
    client.ack(2, multiple=True)
    client.consume(tag="d")
    assert deliveries(client) == [(3, b"3", False)]


def test_an_unknown_tag_is_cancelled_all_the_same() -> None:
    client = Edge().connect()
    assert client.call(Basic.Cancel("nobody"), Basic.CancelOk).consumer_tag == "nobody"
    send(client, Basic.Cancel("nobody", nowait=True))
    client.expect_nothing()


def test_a_tag_is_made_for_who_has_none() -> None:
    client = with_messages()
    tags = {
        client.call(make(Basic.Consume, queue="q"), Basic.ConsumeOk).consumer_tag for _ in range(2)
    }
    assert len(tags) == 2
    assert all(str(tag).startswith("amq.ctag-") for tag in tags)


def test_a_tag_is_used_once_in_a_channel() -> None:
    client = with_messages()
    client.open_channel(2)
    client.consume(tag="c")
    client.consume(tag="c", channel=2)
    send(client, make(Basic.Consume, queue="q", consumer_tag="c"))
    client.expect_closed(530, "NOT_ALLOWED - attempt to reuse consumer tag 'c'", ids=(60, 20))


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True), (True, True)])
def test_an_exclusive_consumer_is_alone(first: bool, second: bool) -> None:
    client = with_messages()
    client.consume(tag="a", exclusive=first)
    send(client, make(Basic.Consume, queue="q", consumer_tag="b", exclusive=second))
    client.expect_channel_closed(403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use")


def test_a_queue_that_does_not_exist() -> None:
    for method in (make(Basic.Consume, queue="none"), Basic.Get(queue="none")):
        client = Edge().connect()
        send(client, method)
        client.expect_channel_closed(404, "NOT_FOUND - no queue 'none' in vhost '/'")


def test_without_a_name_it_is_the_queue_declared_last() -> None:
    client = with_messages(b"1")
    client.call(make(Basic.Consume, queue="", consumer_tag="c"), Basic.ConsumeOk)
    assert deliveries(client) == [(1, b"1", False)]
    other = client.edge.connect()
    send(other, make(Basic.Consume, queue=""))
    other.expect_channel_closed(404, "NOT_FOUND - no previously declared queue")


def test_a_consumer_hears_when_its_queue_is_deleted() -> None:
    edge = Edge()
    aware, unaware, other = edge.connect(), edge.connect(capabilities=()), edge.connect()
    other.declare()
    aware.consume(tag="a")
    unaware.consume(tag="u")
    other.delete()
    cancel = aware.expect(Basic.Cancel)
    assert (cancel.consumer_tag, cancel.nowait) == ("a", True)
    unaware.expect_nothing()
    send(aware, Basic.CancelOk("a"))
    aware.declare()
    aware.consume(tag="a")


def test_an_auto_delete_queue_goes_with_its_last_consumer() -> None:
    edge = Edge()
    one, two = edge.connect(), edge.connect()
    one.declare(auto_delete=True)
    one.consume()
    two.consume()
    one.call(Channel.Close(200, "", 0, 0), Channel.CloseOk)
    assert "q" in edge.vhost.queues
    two.call(Basic.Cancel("c"), Basic.CancelOk)
    assert "q" not in edge.vhost.queues


def test_a_higher_priority_is_served_first() -> None:
    client = with_messages()
    for tag, priority in (("low", 0), ("high", 5)):
        arguments = pamqp_table(to_table({"x-priority": priority}))
        consume = make(Basic.Consume, queue="q", consumer_tag=tag, arguments=arguments)
        client.call(Basic.Qos(prefetch_count=1), Basic.QosOk)
        client.call(consume, Basic.ConsumeOk)
    client.publish(b"1", b"2", b"3")
    assert [arrival.method["consumer_tag"] for arrival in client.arrivals()] == ["high", "low"]


# Credit


def test_prefetch_counts_for_consumers_that_start_later() -> None:
    client = with_messages(*(b"%d" % number for number in range(9)))
    client.consume(tag="two", prefetch=2)
    assert len(deliveries(client)) == 2
    client.call(Basic.Qos(prefetch_count=3), Basic.QosOk)
    client.expect_nothing()
    client.consume(tag="three")
    assert len(deliveries(client)) == 3
    client.ack(1)
    assert len(deliveries(client)) == 1


def test_a_global_prefetch_is_shared_and_counts_at_once() -> None:
    client = with_messages(*(b"%d" % number for number in range(9)))
    client.call(Basic.Qos(prefetch_count=3, global_=True), Basic.QosOk)
    client.consume(tag="a")
    assert len(deliveries(client)) == 3
    client.consume(tag="b")
    client.expect_nothing()
    client.call(Basic.Qos(prefetch_count=5, global_=True), Basic.QosOk)
    assert len(deliveries(client)) == 2
    client.ack(2, multiple=True)
    assert len(deliveries(client)) == 2
    client.call(Basic.Qos(prefetch_count=0, global_=True), Basic.QosOk)
    assert len(deliveries(client)) == 2


def test_a_global_prefetch_wakes_whoever_waits_when_one_of_them_settles() -> None:
    client = with_messages()
    client.declare("p")
    client.call(Basic.Qos(prefetch_count=1, global_=True), Basic.QosOk)
    client.consume("q", "a")
    client.consume("p", "b")
    client.publish(b"1", b"2", queue="q")
    client.publish(b"3", queue="p")
    got = []
    for tag in range(1, 4):
        (arrival,) = client.arrivals()
        got.append(arrival.body)
        client.ack(tag)
    assert sorted(got) == [b"1", b"2", b"3"]
    client.expect_nothing()


def test_prefetch_by_size_is_not_implemented() -> None:
    client = Edge().connect()
    send(client, Basic.Qos(prefetch_size=7))
    client.expect_closed(540, "NOT_IMPLEMENTED - prefetch_size!=0 (7)", ids=(60, 10))


def test_no_ack_needs_no_credit_and_leaves_nothing_unsettled() -> None:
    client = with_messages(b"1", b"2", b"3")
    client.consume(prefetch=1, no_ack=True)
    assert [tag for tag, _, _ in deliveries(client)] == [1, 2, 3]
    client.ack(1)
    client.expect_channel_closed(406, "PRECONDITION_FAILED - unknown delivery tag 1")


# Get


def test_get_tells_how_many_are_left() -> None:
    client = with_messages(b"1", b"2")
    for left in (1, 0):
        ok = client.call(Basic.Get(queue="q"), Basic.GetOk)
        assert (ok.message_count, ok.delivery_tag, ok.redelivered) == (left, 2 - left, False)
    client.call(Basic.Get(queue="q"), Basic.GetEmpty)


def test_get_and_deliveries_share_their_tags() -> None:
    client = with_messages(b"1", b"2")
    client.call(Basic.Get(queue="q"), Basic.GetOk)
    client.consume()
    assert deliveries(client) == [(2, b"2", False)]
    client.ack(2, multiple=True)
    assert client.edge.vhost.queues["q"].in_flight == 0


# Settling


@pytest.mark.parametrize(
    "settle", [Basic.Nack(1, False, True), Basic.Reject(1, True), Basic.Nack(1, True, True)]
)
def test_what_is_given_back_comes_again_to_its_place(settle: Method) -> None:
    client = with_messages(b"1", b"2", b"3")
    client.call(Basic.Get(queue="q"), Basic.GetOk)
    send(client, settle)
    client.consume()
    assert deliveries(client) == [(2, b"1", True), (3, b"2", False), (4, b"3", False)]


@pytest.mark.parametrize("settle", [Basic.Nack(2, False, False), Basic.Reject(2, False)])
def test_what_is_rejected_is_gone(settle: Method) -> None:
    client = with_messages(b"1", b"2")
    client.consume(prefetch=2)
    deliveries(client)
    send(client, settle)
    assert client.edge.vhost.queues["q"].in_flight == 1
    client.call(Channel.Close(200, "", 0, 0), Channel.CloseOk)
    client.open_channel()
    assert client.ready_count() == 1


def test_multiple_settles_everything_up_to_a_tag() -> None:
    client = with_messages(b"1", b"2", b"3", b"4")
    client.consume()
    deliveries(client)
    client.ack(3, multiple=True)
    send(client, Basic.Nack(0, True, True))
    assert deliveries(client) == [(5, b"4", True)]


@pytest.mark.parametrize(
    "settle", [Basic.Ack(3), Basic.Ack(3, True), Basic.Nack(3), Basic.Reject(3), Basic.Ack(0)]
)
def test_a_tag_that_is_unknown_closes_the_channel(settle: Method) -> None:
    client = with_messages(b"1", b"2")
    client.consume()
    deliveries(client)
    send(client, settle)
    close = client.expect_channel_closed(406, "PRECONDITION_FAILED - unknown delivery tag ")
    assert close.reply_text.endswith(str(settle["delivery_tag"]))
    assert (close.class_id, close.method_id) == (settle.index >> 16, settle.index & 0xFFFF)


def test_of_a_run_of_acks_those_before_an_unknown_one_count() -> None:
    client = with_messages(b"1", b"2", b"3")
    client.consume()
    deliveries(client)
    send(client, Basic.Ack(1), Basic.Ack(2), Basic.Ack(2), Basic.Ack(3))
    client.expect_channel_closed(406, "unknown delivery tag 2")
    client.open_channel(2)
    assert client.ready_count(channel=2) == 1


def test_recover_gives_everything_back() -> None:
    client = with_messages(b"1", b"2", b"3")
    client.consume(prefetch=2)
    assert deliveries(client) == [(1, b"1", False), (2, b"2", False)]
    send(client, Basic.Recover(True))
    client.expect(Basic.RecoverOk)
    assert deliveries(client) == [(3, b"1", True), (4, b"2", True)]
    send(client, make(Basic.RecoverAsync, requeue=True))
    assert deliveries(client) == [(5, b"1", True), (6, b"2", True)]


@pytest.mark.parametrize("cls", [Basic.Recover, Basic.RecoverAsync])
def test_recover_without_requeue_is_not_implemented(cls: type[Basic.Recover]) -> None:
    client = Edge().connect()
    send(client, make(cls, requeue=False))
    client.expect_closed(540, "NOT_IMPLEMENTED - requeue=false")


def test_tags_are_those_of_their_channel() -> None:
    client = with_messages(b"1", b"2")
    client.open_channel(2)
    client.call(Basic.Get(queue="q"), Basic.GetOk)
    client.call(Basic.Get(queue="q"), Basic.GetOk, channel=2)
    client.ack(1, channel=2)
    client.call(Channel.Close(200, "", 0, 0), Channel.CloseOk)
    client.consume(channel=2)
    (arrival,) = client.arrivals()
    assert (arrival.channel, arrival.body) == (2, b"1")


def test_acks_of_a_queue_that_is_gone_are_welcome() -> None:
    client = with_messages(b"1", b"2", b"3")
    client.consume(prefetch=2)
    deliveries(client)
    send(client, Queue.Delete(queue="q"))
    assert sorted(client.names()) == ["Basic.Cancel", "Queue.DeleteOk"]
    client.ack(1)
    send(client, Basic.Nack(2, False, True))
    client.expect_nothing()
    client.call(make(Queue.Declare, queue="q"), Queue.DeclareOk)


# A limit that consumers share


def sharing(counts: dict[str, int], no_ack: str = "") -> tuple[Client, list[bytes]]:
    """Client with a limit of one message for all consumers of a channel, and what it received
    first.

    `counts`: how many messages are in each queue, and each is the name of its queue.
    """
    client = Edge().connect()
    client.call(Basic.Qos(prefetch_count=1, global_=True), Basic.QosOk)
    for name, count in counts.items():
        client.declare(name)
        client.publish(*[name.encode()] * count, queue=name)
    for name in counts:
        consume = make(
            Basic.Consume, queue=name, consumer_tag=name, no_ack=name in no_ack, nowait=True
        )
        client.feed(encode_method(1, consume))
    client.edge.run()
    return client, client.bodies()


def test_each_queue_of_a_channel_has_its_share_of_the_room() -> None:
    client, bodies = sharing({"a": 9, "b": 9, "c": 9})
    for tag in range(1, 27):
        client.ack(tag)
        came = client.bodies()
        assert len(came) == 1
        bodies += came
    assert b"".join(bodies) == b"abc" * 9


@pytest.mark.parametrize("is_before", [True, False])
@pytest.mark.parametrize("busy", ["a", "b", "c", "abc"])
def test_a_queue_that_is_published_to_all_the_time_takes_no_more(
    busy: str, *, is_before: bool
) -> None:
    """Though what is published is in the same turn as the room that comes back."""
    client, bodies = sharing({name: 1 if name in busy else 30 for name in "abc"})
    for tag in range(1, 60):
        ack = encode_method(1, Basic.Ack(tag))
        more = b"".join(publish_frames(name.encode(), queue=name) for name in busy)
        client.send(more + ack if is_before else ack + more)
        bodies += client.bodies()
    assert [bodies.count(name.encode()) for name in "abc"] == [20, 20, 20]


def test_who_needs_not_acknowledge_gets_nothing_while_its_channel_is_full() -> None:
    client, bodies = sharing({"a": 2, "b": 2}, no_ack="b")
    assert bodies == [b"a"]
    client.publish(b"b", queue="b")
    assert client.bodies() == []
    client.ack(1)
    assert client.bodies() == [b"b", b"b", b"b", b"a"]


def test_a_consumer_that_has_ended_is_not_remembered() -> None:
    client, _bodies = sharing({"a": 2, "b": 2})
    client.call(Basic.Cancel("a"), Basic.CancelOk)
    client.delete("b")
    channels = client.connection.open_channels
    assert channels is not None
    (channel,) = channels
    assert not channel.shared_credit._takers


# What was sent before has happened before


def two_consumers(*, prefetch: int = 0) -> Client:
    """Client with consumers `a` and `b` of one empty queue."""
    client = Edge().connect()
    client.declare()
    if prefetch:
        client.call(Basic.Qos(prefetch_count=prefetch), Basic.QosOk)
    for tag in "ab":
        client.consume(tag=tag)
    return client


def in_one_read(client: Client, *methods: Method, count: int = 10) -> dict[object, int]:
    """Publish messages and do something behind them; who was delivered how many."""
    published = publish_frames(b"m") * count
    client.send(published + b"".join(encode_method(1, method) for method in methods))
    tags = [each.method["consumer_tag"] for each in client.arrivals() if each.body]
    return {tag: tags.count(tag) for tag in ("a", "b", "c")}


CONSUME = make(Basic.Consume, queue="q", consumer_tag="c")


def test_a_consumer_gets_what_was_published_before_it_was_cancelled() -> None:
    shares = in_one_read(two_consumers(), make(Basic.Cancel, consumer_tag="a"))
    assert shares == {"a": 5, "b": 5, "c": 0}


def test_a_consumer_gets_nothing_that_others_had_room_for_before() -> None:
    assert in_one_read(two_consumers(), CONSUME) == {"a": 5, "b": 5, "c": 0}


def test_so_it_is_with_the_last_one_that_is_cancelled() -> None:
    client = two_consumers()
    client.call(Basic.Cancel("b"), Basic.CancelOk)
    assert in_one_read(client, make(Basic.Cancel, consumer_tag="a")) == {"a": 10, "b": 0, "c": 0}


def test_what_is_got_purged_or_deleted_was_not_handed_out_before() -> None:
    for answer, method in {
        "Basic.GetEmpty": make(Basic.Get, queue="q"),
        "Queue.PurgeOk": make(Queue.Purge, queue="q"),
        "Queue.DeclareOk": make(Queue.Declare, queue="q", passive=True),
        "Queue.DeleteOk": make(Queue.Delete, queue="q"),
    }.items():
        client = two_consumers()
        client.send(publish_frames(b"m") * 4 + encode_method(1, method))
        arrived = client.arrivals()
        names = [each.method.name for each in arrived]
        assert names[:5] == ["Basic.Deliver"] * 4 + [answer]
        assert getattr(arrived[4].method, "message_count", 0) in (0, None)


def test_room_that_is_made_behind_a_publish_is_not_for_it() -> None:
    """Consumer `b` may have only one more of ten; `a`, which then has room, gets the rest."""
    client = two_consumers(prefetch=2)
    client.publish(b"1", b"2", b"3")
    assert [each.method["consumer_tag"] for each in client.arrivals()] == ["a", "b", "a"]
    shares = in_one_read(client, make(Basic.Ack, delivery_tag=1), count=2)
    assert shares == {"a": 1, "b": 1, "c": 0}
    client.publish(b"more")
    assert client.bodies() == []


def test_what_comes_back_is_for_who_has_room_then() -> None:
    client = two_consumers(prefetch=2)
    client.publish(b"1", b"2", b"3")
    client.names()
    back = encode_method(1, make(Basic.Reject, delivery_tag=1, requeue=True))
    client.send(publish_frames(b"4") + back)
    came = [(each.method["consumer_tag"], each.body) for each in client.arrivals()]
    assert came == [("b", b"4"), ("a", b"1")]


def test_a_limit_of_a_channel_counts_for_what_is_published_behind_it() -> None:
    client = two_consumers()
    assert in_one_read(client, make(Basic.Qos, prefetch_count=1, global_=True)) == {
        "a": 5,
        "b": 5,
        "c": 0,
    }
    client.publish(b"more")
    assert client.bodies() == []


@pytest.mark.parametrize("number", [0, 1])
def test_who_closes_gives_back_what_came_before(number: int) -> None:
    """A channel, or the connection."""
    client = two_consumers()
    other = client.edge.connect()
    other.consume(tag="c")
    kind = Channel.Close if number else Connection.Close
    client.send(publish_frames(b"m") * 9 + encode_method(number, make(kind, 200, "", 0, 0)))
    assert client.names() == ["Basic.Deliver"] * 6 + [f"{kind.name}Ok"]
    again = [bool(each.method["redelivered"]) for each in other.arrivals()]
    assert sorted(again) == [False] * 3 + [True] * 6


def test_a_settlement_asks_each_queue_once_and_only_behind_a_publish(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = two_consumers()
    other = client.edge.connect()
    other.declare("other")
    client.consume("other", tag="c")
    asked: list[str] = []
    deliver_ready = Engine.deliver_ready

    def seen(queue: Engine) -> None:
        asked.append(queue.name)
        deliver_ready(queue)

    monkeypatch.setattr(Engine, "deliver_ready", seen)
    for published, expected in (b"", []), (publish_frames(b"m"), ["other", "q"]):
        for number in range(6):
            other.publish(b"m", queue="q" if number % 2 else "other")
        client.edge.run()
        other.feed(publish_frames(b"m"), publish_frames(b"m", queue="other"))
        assert client.edge.scheduler.is_busy  # what follows is in the same turn
        client.feed(published + encode_method(1, Basic.Nack(0, multiple=True, requeue=False)))
        client.edge.run()
        assert sorted(asked) == expected
        assert len(client.arrivals()) == 8 + len(expected) // 2


@FAMILIES["consuming"].each()
def test_who_forgets_what_was_sent_before_is_found(mutant: Mutant) -> None:
    """The tests above are tested."""
    with mutant.in_place(), pytest.raises(AssertionError):
        whatever_was_sent_before()


def whatever_was_sent_before() -> None:
    test_a_consumer_gets_what_was_published_before_it_was_cancelled()
    test_what_is_got_purged_or_deleted_was_not_handed_out_before()
    test_what_comes_back_is_for_who_has_room_then()
    test_a_limit_of_a_channel_counts_for_what_is_published_behind_it()
    test_who_closes_gives_back_what_came_before(0)
    test_who_closes_gives_back_what_came_before(1)
