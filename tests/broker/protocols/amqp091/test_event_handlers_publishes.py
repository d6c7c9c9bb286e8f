"""basic.publish from frame to queue: routes and facts that are remembered, returns, confirms."""

from __future__ import annotations

import pytest

from fluffle.broker.base.message import Origin
from fluffle.broker.config.config import Limits
from fluffle.broker.core import property_facts
from fluffle.broker.core.property_facts import PropertyFacts, read_facts
from fluffle.broker.core.route_lookup import REMEMBERED_MAX, CachedRoute, RouteCache
from fluffle.broker.core.session import REMEMBERED_WHEN_SHORT_MAX
from fluffle.broker.protocols.amqp091 import event_handlers
from fluffle.broker.queues import engine
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.publish_target import EnqueueResult
from fluffle.protocol.methods import Basic, Confirm, Exchange, Queue, Tx, encode_method, make
from fluffle.protocol.properties import Properties, decode_properties
from fluffle.protocol.steps import Steps
from fluffle.protocol.wire import to_table
from tests.support.edge import Arrival, Client, Edge, publish_frames
from tests.support.queue_host import FakeQueueHost


def properties_of(arrival: Arrival) -> Properties:
    """Properties of a message that a client has received."""
    return decode_properties(arrival.header[12:])


def split_frames(data: bytes) -> list[bytes]:
    """Whole frames, one by one."""
    frames = []
    while data:
        end = 8 + int.from_bytes(data[3:7])
        frames.append(data[:end])
        data = data[end:]
    return frames


def get(client: Client, queue: str = "q", channel: int = 1) -> Arrival:
    """Take the next message of a queue."""
    client.send(encode_method(channel, Basic.Get(queue=queue, no_ack=True)))
    arrival = client.take(channel)
    assert isinstance(arrival.method, Basic.GetOk)
    return arrival


# Content


@pytest.mark.parametrize("channel", [1, 2, 65_535])
@pytest.mark.parametrize("size", [0, 1, 8_184, 8_185, 20_000])
def test_a_body_comes_out_as_it_went_in(channel: int, size: int) -> None:
    edge = Edge()
    publisher, consumer = edge.connect(), edge.connect(frame_bytes_max=8_192)
    if channel > 1:
        publisher.open_channel(channel)
        consumer.open_channel(channel)
    publisher.declare()
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    wanted = Properties(content_type="text/plain", headers=to_table({"n": 7}))
    for frame_bytes_max in (8_192, 131_072):
        publisher.publish(body, channel=channel, properties=wanted, frame_bytes_max=frame_bytes_max)
    consumer.consume(channel=channel)
    arrivals = consumer.arrivals()
    assert len(arrivals) == 2
    for arrival in arrivals:
        assert (arrival.channel, arrival.body) == (channel, body)
        assert properties_of(arrival) == wanted
        pieces = [len(piece) for piece in arrival.body_frames]
        assert all(piece == 8_184 for piece in pieces[:-1])


def test_messages_of_two_channels_may_alternate_frame_by_frame() -> None:
    client = Edge().connect()
    client.open_channel(2)
    client.declare()
    frames = [
        split_frames(publish_frames(octet * 30, channel=channel, frame_bytes_max=8 + 10))
        for channel, octet in ((1, b"a"), (2, b"b"))
    ]
    for one, two in zip(*frames, strict=True):
        client.send(one, two)
    assert (get(client).body, get(client).body) == (b"a" * 30, b"b" * 30)


def test_a_message_beyond_the_limit_closes_its_channel() -> None:
    client = Edge(Limits(message_bytes_max=10_000)).connect()
    client.declare()
    client.publish(b"x" * 10_000, b"y" * 10_001, b"z")
    close = client.expect_channel_closed(
        406, "PRECONDITION_FAILED - message size 10001 is larger than configured max size 10000"
    )
    assert (close.class_id, close.method_id) == (60, 40)
    client.open_channel(2)
    assert client.ready_count(channel=2) == 1


# Refusals


def test_immediate_is_not_implemented() -> None:
    client = Edge().connect()
    client.publish(b"x", immediate=True)
    client.expect_closed(540, "NOT_IMPLEMENTED - immediate=true", ids=(60, 40))


def test_an_exchange_that_does_not_exist() -> None:
    client = Edge().connect()
    client.publish(b"x", exchange="none")
    client.expect_channel_closed(404, "NOT_FOUND - no exchange 'none' in vhost '/'")


def test_an_internal_exchange_is_not_for_clients() -> None:
    client = Edge().connect()
    declare = Exchange.Declare(exchange="inner", exchange_type="fanout", internal=True)
    client.call(declare, Exchange.DeclareOk)
    client.publish(b"x", exchange="inner")
    client.expect_channel_closed(403, "cannot publish to internal exchange 'inner' in vhost '/'")


@pytest.mark.parametrize(
    ("properties", "text"),
    [
        (Properties(expiration="soon"), "invalid expiration 'soon': no_integer"),
        (Properties(headers=to_table({"CC": "q"})), 'unacceptable_type_in_header,"CC",longstr'),
        (Properties(user_id="bob"), "user_id property set to 'bob' but authenticated user was"),
        (Properties(reply_to="amq.rabbitmq.reply-to"), "fast reply consumer does not exist"),
    ],
)
def test_properties_that_are_refused_each_time(properties: Properties, text: str) -> None:
    client = Edge().connect()
    client.declare()
    for channel in (2, 3):
        client.open_channel(channel)
        client.publish(b"x", channel=channel, properties=properties)
        client.expect_channel_closed(406, text, channel)
    assert client.ready_count() == 0


def test_ones_own_user_id_is_welcome() -> None:
    client = Edge().connect()
    client.declare()
    client.publish(b"x", properties=Properties(user_id="guest"))
    assert properties_of(get(client)).user_id == "guest"


def test_properties_that_cannot_be_read_close_the_connection() -> None:
    client = Edge().connect()
    message = publish_frames(b"", properties=Properties(content_type="x"))
    client.send(message[:-3] + b"\x09x" + message[-1:])
    client.expect_closed(501, "FRAME_ERROR - ")


# Routes that are remembered


def test_a_route_follows_its_bindings() -> None:
    client = Edge().connect()
    client.declare("a")
    client.declare("b")
    client.declare_exchange("x")
    client.publish(b"1", exchange="x")
    client.bind("a", "x")
    client.publish(b"2", exchange="x")
    client.bind("b", "x")
    client.publish(b"3", exchange="x")
    client.call(Queue.Unbind(queue="a", exchange="x"), Queue.UnbindOk)
    client.publish(b"4", exchange="x")
    assert (client.ready_count("a"), client.ready_count("b")) == (2, 2)
    assert (get(client, "a").body, get(client, "b").body) == (b"2", b"3")


def test_all_of_it_may_come_in_one_read() -> None:
    client = Edge().connect()
    client.declare_exchange("x")
    message = publish_frames(b"m", exchange="x", mandatory=True)
    client.send(
        message,
        encode_method(1, Queue.Declare(queue="q")),
        message,
        encode_method(1, Queue.Bind(queue="q", exchange="x")),
        message,
        encode_method(1, Queue.Delete(queue="q")),
        message,
        encode_method(1, Exchange.Delete(exchange="x")),
        message,
    )
    assert client.names() == [
        "Basic.Return",
        "Queue.DeclareOk",
        "Basic.Return",
        "Queue.BindOk",
        "Queue.DeleteOk",
        "Basic.Return",
        "Exchange.DeleteOk",
        "Channel.Close",
    ]


def test_a_queue_that_is_made_anew_gets_what_comes_then() -> None:
    client = Edge().connect()
    client.declare()
    client.publish(b"old")
    assert client.delete().message_count == 1
    client.publish(b"between")
    client.declare()
    client.publish(b"new")
    assert client.ready_count() == 1
    assert get(client).body == b"new"


def test_another_connection_may_change_the_route() -> None:
    edge = Edge()
    publisher, other = edge.connect(), edge.connect()
    publisher.declare()
    publisher.publish(b"1")
    other.delete()
    publisher.publish(b"2", mandatory=True)
    assert publisher.names() == ["Basic.Return"]
    other.declare()
    publisher.publish(b"3", mandatory=True)
    publisher.expect_nothing()
    assert other.ready_count() == 1


def test_an_exchange_that_is_deleted_is_missed_at_once() -> None:
    client = Edge().connect()
    client.declare_exchange("x")
    client.publish(b"1", exchange="x")
    client.call(Exchange.Delete(exchange="x"), Exchange.DeleteOk)
    client.publish(b"2", exchange="x")
    client.expect_channel_closed(404, "NOT_FOUND - no exchange 'x' in vhost '/'")


def test_headers_decide_message_by_message() -> None:
    client = Edge().connect()
    client.declare_exchange("h", "headers")
    for colour in ("red", "blue"):
        client.declare(colour)
        arguments = to_table({"colour": colour})
        bind = make(Queue.Bind, queue=colour, exchange="h", arguments=arguments)  # type: ignore[arg-type]
        client.call(bind, Queue.BindOk)
    for colour in ("red", "blue", "red", "green"):
        properties = Properties(headers=to_table({"colour": colour}))
        client.publish(b"x", exchange="h", properties=properties)
    assert (client.ready_count("red"), client.ready_count("blue")) == (2, 1)


def test_routes_are_decided_once_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Edge().connect()
    client.declare()
    decided: list[bytes] = []

    def counted(routes: RouteCache, method_frame: bytes) -> Steps[CachedRoute]:
        decided.append(method_frame)
        return search(routes, method_frame)

    search = event_handlers.search_route
    monkeypatch.setattr(event_handlers, "search_route", counted)
    for body in (b"1", b"2", b"3"):
        client.publish(body)
        client.publish(body, queue="elsewhere")
    assert len(decided) == 2
    client.publish(b"4", exchange="amq.fanout")
    assert len(decided) == 3
    client.declare("another")
    client.publish(b"5")
    client.publish(b"5", exchange="amq.fanout")
    assert len(decided) == 4
    client.bind("another", "amq.fanout")
    client.publish(b"6")
    client.publish(b"6", exchange="amq.fanout")
    assert len(decided) == 5
    assert (client.ready_count(), client.ready_count("another")) == (5, 1)


def test_facts_are_read_once_for_equal_properties(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Edge().connect()
    client.declare()
    read: list[bytes] = []

    def counted(raw: bytes) -> PropertyFacts:
        read.append(raw)
        return read_facts(raw)

    monkeypatch.setattr(property_facts, "read_facts", counted)
    for number in (1, 2, 1, 2, 1):
        client.publish(b"x", properties=Properties(delivery_mode=number, message_id=str(number)))
    assert len(read) == 2


def test_a_connection_remembers_a_bounded_number() -> None:
    client = Edge().connect()
    client.declare("k7")
    client.confirm_select()
    for first in range(0, 3 * REMEMBERED_MAX, 512):
        client.send(
            *(
                publish_frames(b"", f"k{n}", properties=Properties(message_id=str(n)))
                for n in range(first, first + 512)
            )
        )
    client.arrivals()
    session = client.connection._session
    assert session is not None
    assert len(session.route_cache.by_key) <= REMEMBERED_MAX
    assert len(session.facts) <= REMEMBERED_MAX
    client.publish(b"", queue="k7")
    assert client.names() == ["Basic.Ack"]
    assert client.ready_count("k7") == 2


def test_who_remembers_much_forgets_it_when_memory_is_short() -> None:
    edge = Edge()
    client, other = edge.connect(), edge.connect()
    for each, count in ((client, REMEMBERED_WHEN_SHORT_MAX + 1), (other, 3)):
        each.confirm_select()
        for n in range(count):
            each.declare(f"q{n}")
            each.publish(b"", queue=f"q{n}", properties=Properties(delivery_mode=n))
            each.expect(Basic.Ack)
    edge.services.connections.relieve()
    assert remembered(client) == (0, 0, 0, 0)
    few = remembered(other)
    assert min(few) > 0
    for each in (client, other):
        each.publish(b"", queue="q1", properties=Properties(delivery_mode=1))
        each.expect(Basic.Ack)
    assert remembered(other) == few
    assert client.ready_count("q1") == 4


def remembered(client: Client) -> tuple[int, ...]:
    connection = client.connection
    assert connection.session is not None
    session, heads = connection.session, connection.reader._heads
    return (
        len(session.route_cache.by_key),
        len(session.facts),
        len(session.rights._remembered),
        len(heads),
    )


# CC and BCC


def test_cc_and_bcc_lead_elsewhere_too_and_bcc_is_not_shown() -> None:
    client = Edge().connect()
    for name in ("to", "cc", "bcc"):
        client.declare(name)
    headers = to_table({"CC": ["cc", "to"], "BCC": ["bcc"], "n": 1})
    client.publish(b"x", b"y", queue="to", properties=Properties(headers=headers))
    for name in ("to", "cc", "bcc"):
        assert client.ready_count(name) == 2
        arrival = get(client, name)
        assert arrival.body == b"x"
        assert properties_of(arrival).headers == to_table({"CC": ["cc", "to"], "n": 1})


# Returns and confirms


def test_what_is_mandatory_and_unroutable_comes_back_whole() -> None:
    client = Edge().connect()
    client.open_channel(9)
    wanted = Properties(content_type="text/plain")
    client.publish(b"", b"x" * 200_000, queue="none", channel=9, mandatory=True, properties=wanted)
    for body in (b"", b"x" * 200_000):
        arrival = client.take(9)
        returned = arrival.method
        assert isinstance(returned, Basic.Return)
        assert (returned.reply_code, returned.reply_text) == (312, "NO_ROUTE")
        assert (returned.exchange, returned.routing_key) == ("", "none")
        assert arrival.body == body
        assert properties_of(arrival) == wanted
    client.expect_nothing()


def test_a_return_comes_before_its_confirm() -> None:
    client = Edge().connect()
    client.confirm_select()
    client.publish(b"1", b"2", queue="none", mandatory=True)
    assert client.names() == ["Basic.Return", "Basic.Return", "Basic.Ack"]


def test_confirms_of_a_read_are_one() -> None:
    client = Edge().connect()
    client.declare()
    client.confirm_select()
    client.send(*(publish_frames(b"x", key) for key in ("q", "none", "q", "q")))
    ack = client.expect(Basic.Ack)
    assert (ack.delivery_tag, ack.multiple) == (4, True)
    client.publish(b"x")
    ack = client.expect(Basic.Ack)
    assert (ack.delivery_tag, ack.multiple) == (5, False)
    client.expect_nothing()


def test_channels_count_their_own_publishes() -> None:
    client = Edge().connect()
    client.open_channel(2)
    for channel in (1, 2):
        client.confirm_select(channel)
    client.send(*(publish_frames(b"x", channel=channel) for channel in (1, 2, 2, 1, 2)))
    assert (client.expect(Basic.Ack, 1).delivery_tag, client.expect(Basic.Ack, 2).delivery_tag) == (
        2,
        3,
    )


def test_numbers_begin_with_confirm_select_and_go_on_when_it_is_repeated() -> None:
    client = Edge().connect()
    client.publish(b"x", b"y")
    client.confirm_select()
    client.publish(b"x")
    assert client.expect(Basic.Ack).delivery_tag == 1
    client.confirm_select()
    client.publish(b"x")
    assert client.expect(Basic.Ack).delivery_tag == 2


def test_confirm_select_can_be_silent() -> None:
    client = Edge().connect()
    client.send(encode_method(1, Confirm.Select(nowait=True)))
    client.expect_nothing()
    client.publish(b"x")
    client.expect(Basic.Ack)


def test_a_channel_that_is_closed_confirms_no_more() -> None:
    client = Edge().connect()
    client.declare()
    client.confirm_select()
    client.send(publish_frames(b"x"), publish_frames(b"x", exchange="none"))
    assert client.names() == ["Channel.Close"]


def test_tx_and_confirms_exclude_each_other() -> None:
    client = Edge().connect()
    client.call(Tx.Select(), Tx.SelectOk)
    client.send(encode_method(1, Confirm.Select()))
    client.expect_channel_closed(406, "cannot switch from tx to confirm mode")


class FullQueue(engine.Queue):
    """A queue that refuses what is published to it."""

    def enqueue(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool = False,
        expiration_ms: Lifetimes = None,
    ) -> EnqueueResult:
        return EnqueueResult.REJECTED


def test_what_one_queue_refuses_is_nacked_and_the_others_keep_it() -> None:
    client = Edge().connect()
    client.declare_exchange("ex")
    for name in ("q", "full"):
        client.declare(name)
        client.bind(name, "ex")
    vhost = client.edge.vhost
    vhost.queues["full"] = FullQueue(QueueSpec("full"), FakeQueueHost())
    client.confirm_select()
    client.send(
        publish_frames(b"1") + publish_frames(b"2", exchange="ex") * 2 + publish_frames(b"4")
    )
    answers = [(a.method.name, a.method["delivery_tag"]) for a in client.arrivals()]
    assert answers == [
        ("Basic.Ack", 1),
        ("Basic.Ack", 4),
        ("Basic.Nack", 2),
        ("Basic.Nack", 3),
    ]
    assert client.ready_count() == 4
