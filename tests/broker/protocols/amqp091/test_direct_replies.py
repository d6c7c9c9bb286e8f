"""Direct reply-to between two connections: a request, an answer, and what ends it."""

from __future__ import annotations

from fluffle.broker.core.direct_reply_to import UNREAD_BYTES_MAX
from fluffle.broker.core.input_queue import OWED_MESSAGES_MAX
from fluffle.protocol.methods import Basic, Channel, Queue, encode_method, make
from fluffle.protocol.properties import Properties, decode_properties
from tests.support.edge import Arrival, Client, Edge

REPLY_TO = "amq.rabbitmq.reply-to"
CONSUME = make(Basic.Consume, queue=REPLY_TO, consumer_tag="replies", no_ack=True)
CANCEL = Basic.Cancel("replies")


def requester(edge: Edge, channel: int = 1) -> Client:
    client = edge.connect()
    if channel > 1:
        client.open_channel(channel)
    client.call(CONSUME, Basic.ConsumeOk, channel)
    return client


def request(client: Client, server: Client, channel: int = 1) -> str:
    """Publish a request; the reply-to that its receiver sees."""
    server.declare("requests")
    properties = Properties(reply_to=REPLY_TO, correlation_id="7")
    client.publish(b"?", queue="requests", channel=channel, properties=properties)
    server.send(encode_method(1, Basic.Get(queue="requests", no_ack=True)))
    seen = decode_properties(server.take().header[12:])
    assert seen.correlation_id == "7"
    assert seen.reply_to is not None
    return seen.reply_to


def answer(client: Client, channel: int = 1) -> Arrival:
    arrival = client.take(channel)
    assert isinstance(arrival.method, Basic.Deliver)
    return arrival


def test_an_answer_reaches_the_channel_that_asked() -> None:
    edge = Edge()
    client, server = requester(edge, channel=3), edge.connect()
    name = request(client, server, channel=3)
    assert name.startswith(REPLY_TO + ".")
    server.publish(b"!", queue=name, mandatory=True)
    arrival = answer(client, channel=3)
    assert (arrival.body, arrival.method["consumer_tag"]) == (b"!", "replies")
    assert (arrival.method["exchange"], arrival.method["routing_key"]) == ("", name)
    server.expect_nothing()


def test_an_answer_may_be_a_copy() -> None:
    edge = Edge()
    client, server = requester(edge), edge.connect()
    name = request(client, server)
    copies = Properties(headers={"CC": ("A", [("S", name.encode())])})
    server.publish(b"!", queue="nowhere", properties=copies)
    assert answer(client).body == b"!"


def test_an_answer_to_nobody_is_dropped_and_counts_as_routed() -> None:
    edge = Edge()
    client, server = requester(edge), edge.connect()
    name = request(client, server)
    server.publish(b"1", queue=name)
    assert answer(client).body == b"1"
    client.call(CANCEL, Basic.CancelOk)
    server.publish(b"2", queue=name, mandatory=True)
    client.expect_nothing()
    server.expect_nothing()
    client.call(CONSUME, Basic.ConsumeOk)
    server.publish(b"3", queue=name)
    client.expect_nothing()
    server.publish(b"4", queue=request(client, server))
    assert answer(client).body == b"4"


def test_answers_to_a_channel_or_a_connection_that_is_gone_are_dropped() -> None:
    edge = Edge()
    client, server = requester(edge), edge.connect()
    name = request(client, server)
    client.call(Channel.Close(200, "", 0, 0), Channel.CloseOk)
    server.publish(b"1", queue=name)
    client.expect_nothing()
    client.open_channel()
    client.call(CONSUME, Basic.ConsumeOk)
    name = request(client, server)
    client.transport.lose()
    server.publish(b"2", queue=name)
    server.expect_nothing()
    assert not edge.services.replies.is_alive(name)


def test_a_server_can_ask_whether_its_requester_is_there() -> None:
    edge = Edge()
    client, server = requester(edge), edge.connect()
    name = request(client, server)
    ok = server.call(make(Queue.Declare, queue=name), Queue.DeclareOk)
    assert (ok.queue, ok.message_count, ok.consumer_count) == (name, 0, 1)
    client.call(CANCEL, Basic.CancelOk)
    server.send(encode_method(1, make(Queue.Declare, queue=name)))
    server.expect_channel_closed(404, "NOT_FOUND - no queue ")


def test_a_requester_does_not_acknowledge_and_is_one_a_channel() -> None:
    edge = Edge()
    client = edge.connect()
    client.send(encode_method(1, make(Basic.Consume, queue=REPLY_TO)))
    client.expect_channel_closed(406, "PRECONDITION_FAILED - reply consumer cannot acknowledge")
    client = requester(edge)
    client.send(encode_method(1, make(Basic.Consume, queue=REPLY_TO, no_ack=True)))
    client.expect_channel_closed(406, "PRECONDITION_FAILED - reply consumer already set")


def test_its_tag_is_used_once() -> None:
    client = requester(Edge())
    client.declare()
    client.send(encode_method(1, make(Basic.Consume, queue="q", consumer_tag="replies")))
    client.expect_closed(530, "NOT_ALLOWED - attempt to reuse consumer tag 'replies'")


def test_its_name_cannot_be_bound() -> None:
    edge = Edge()
    client, server = requester(edge), edge.connect()
    name = request(client, server)
    server.send(encode_method(1, Queue.Bind(queue=name, exchange="amq.fanout")))
    server.expect_channel_closed(403, "ACCESS_REFUSED - cannot bind or unbind to a volatile")


def test_a_requester_that_does_not_read_is_answered_so_far_and_no_further() -> None:
    """The requester gets further replies when it reads again; its responders are never blocked."""
    edge = Edge()
    client, server = requester(edge), edge.connect()
    name = request(client, server)
    client.transport.is_stuck = True
    body = b"x" * 1_000_000
    for _ in range(40):
        server.publish(body, queue=name, mandatory=True)
        edge.advance(0.1)
    unread_bytes = client.transport.get_write_buffer_size()
    assert UNREAD_BYTES_MAX < unread_bytes < UNREAD_BYTES_MAX + 4_000_000
    server.declare("another")
    client.transport.drain()
    edge.run()
    assert set(client.bodies()) == {body}
    server.publish(b"again", queue=name)
    assert client.bodies() == [b"again"]


def test_a_responder_is_slowed_by_a_requester_that_does_not_read() -> None:
    edge = Edge()
    client, server = requester(edge), edge.connect()
    name = request(client, server)
    client.transport.is_stuck = True
    server.publish(*([b"x" * 100_000] * 20), queue=name)
    assert server.transport.is_reading()
    server.publish(*[b"more"] * OWED_MESSAGES_MAX, queue=name)
    assert not server.transport.is_reading()
    edge.advance(0.1)
    assert server.transport.is_reading()
