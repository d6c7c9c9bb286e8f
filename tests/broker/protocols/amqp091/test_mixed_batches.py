"""Messages with various basic.publish frames that come in one read: sorted, and yet in order."""

from __future__ import annotations

from fluffle.broker.queues import engine
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.publish_target import EnqueueResult
from fluffle.protocol.methods import Basic, Queue, encode_method, make, pamqp_table
from fluffle.protocol.properties import Properties
from fluffle.protocol.wire import to_table
from tests.support.edge import Client, Edge, publish_frames
from tests.support.queue_host import FakeQueueHost


class FullQueue(engine.Queue):
    """A queue that refuses what is published to it."""

    def enqueue(self, *_messages: object, **_how: object) -> EnqueueResult:
        return EnqueueResult.REJECTED


def keys_of(client: Client, queue: str) -> list[tuple[str, bytes]]:
    """Routing keys and bodies of what is in a queue, in order."""
    client.send(encode_method(1, Basic.Get(queue=queue, no_ack=True)) * client.ready_count(queue))
    return [(str(arrival.method["routing_key"]), arrival.body) for arrival in client.arrivals()]


def test_messages_under_several_keys_stay_in_order() -> None:
    client = Edge().connect()
    client.declare_exchange("ex", "topic")
    for queue, pattern in (("q", "a.*"), ("other", "b.*")):
        client.declare(queue)
        client.bind(queue, "ex", pattern)
    keys = ["a.1", "b.1", "a.2", "b.2", "a.1", "none", "a.3"]
    frames = [publish_frames(b"%d" % number, key, exchange="ex") for number, key in enumerate(keys)]
    for _ in range(2):  # the second time all routes are known
        client.send(*frames)
        assert keys_of(client, "q") == [("a.1", b"0"), ("a.2", b"2"), ("a.1", b"4"), ("a.3", b"6")]
        assert keys_of(client, "other") == [("b.1", b"1"), ("b.2", b"3")]


def test_messages_to_queues_that_overlap_stay_in_order() -> None:
    client = Edge().connect()
    for queue in ("q", "other"):
        client.declare(queue)
        client.bind(queue, "amq.fanout")
    to_both, to_one = (b"1", "", "amq.fanout"), (b"2", "q", "")
    frames = [publish_frames(body, key, exchange=ex) for body, key, ex in (to_both, to_one)]
    for _ in range(2):
        client.send(*(frames * 3))
        assert [body for _key, body in keys_of(client, "q")] == [b"1", b"2"] * 3
        assert [body for _key, body in keys_of(client, "other")] == [b"1"] * 3


def test_what_stands_before_a_refused_message_is_published() -> None:
    edge = Edge()
    client = edge.connect()
    client.declare("a")
    client.declare("b")
    client.send(publish_frames(b"x", "a"), publish_frames(b"x", "b"))  # both are known now
    bad = publish_frames(b"x", "a", exchange="none")
    client.send(*[publish_frames(b"x", key) for key in "abba"], bad, publish_frames(b"x", "a"))
    assert client.names() == ["Channel.Close"]
    assert [edge.vhost.queues[name].ready_count for name in "ab"] == [3, 3]


def test_each_message_of_a_batch_has_its_own_answer() -> None:
    client = Edge().connect()
    client.declare("q")
    client.declare("full")
    queues = client.edge.vhost.queues
    queues["full"] = FullQueue(QueueSpec("full"), FakeQueueHost())
    client.edge.vhost.epoch += 1
    client.confirm_select()
    frames = [publish_frames(b"x", key) for key in ("q", "full", "q", "q", "full")]
    for first in (1, 6):
        client.send(*frames)
        answers = [(a.method.name, a.method["delivery_tag"]) for a in client.arrivals()]
        assert sorted(answers) == sorted(
            [
                ("Basic.Ack", first),
                ("Basic.Ack", first + 2),
                ("Basic.Ack", first + 3),
                ("Basic.Nack", first + 1),
                ("Basic.Nack", first + 4),
            ]
        )


def test_mandatory_messages_come_back_from_a_mixed_batch() -> None:
    client = Edge().connect()
    client.declare("q")
    frames = [publish_frames(b"x", key, mandatory=True) for key in ("q", "none", "q", "nowhere")]
    for _ in range(2):
        client.send(*frames)
        returned = [arrival.method["routing_key"] for arrival in client.arrivals()]
        assert returned == ["none", "nowhere"]


def test_the_exchange_is_asked_for_before_the_properties_are_read() -> None:
    client = Edge().connect()
    wrong = Properties(expiration="soon")
    client.send(publish_frames(b"x", exchange="none", properties=wrong))
    client.expect_channel_closed(404, "no exchange 'none' in vhost '/'")
    client.open_channel(2)
    client.send(publish_frames(b"x", channel=2, properties=wrong))
    client.expect_channel_closed(406, "invalid expiration 'soon': no_integer", channel=2)


def test_a_headers_exchange_looks_at_the_headers_of_each_message() -> None:
    """Though those of messages that come together are not compared for any other."""
    client = Edge().connect()
    for colour in ("red", "blue"):
        client.declare(colour)
        table = pamqp_table(to_table({"colour": colour}))
        bind = make(Queue.Bind, queue=colour, exchange="amq.headers", arguments=table)
        client.call(bind, Queue.BindOk)
    colours = ["red", "blue", "none", "blue", "red", "red"]
    for keys in (["k"] * 6, [*"ababab"]):
        client.send(
            *(
                publish_frames(
                    b"%d" % number,
                    key,
                    exchange="amq.headers",
                    properties=Properties(headers=to_table({"colour": colour})),
                )
                for number, (key, colour) in enumerate(zip(keys, colours, strict=True))
            )
        )
        assert [body for _key, body in keys_of(client, "red")] == [b"0", b"4", b"5"]
        assert [body for _key, body in keys_of(client, "blue")] == [b"1", b"3"]


def test_headers_that_route_are_seen_among_others() -> None:
    client = Edge().connect()
    client.declare("q")
    client.declare("copy")
    plain = Properties(headers=to_table({"id": "1"}))
    copied = Properties(headers=to_table({"CC": [b"copy"]}))
    frames = [publish_frames(b"x", properties=found) for found in (plain, copied, plain)]
    for count in (1, 2):
        client.send(*frames)
        assert (client.ready_count("q"), client.ready_count("copy")) == (3 * count, count)


def test_a_headers_exchange_tells_bare_messages_from_others() -> None:
    """The matcher reads more than what is compared, so a bare message proves nothing."""
    client = Edge().connect()
    client.declare("q")
    table = pamqp_table(to_table({"colour": "red"}))
    bind = make(Queue.Bind, queue="q", exchange="amq.headers", arguments=table)
    client.call(bind, Queue.BindOk)
    kinds = (Properties(), Properties(headers=to_table({"colour": "red"})))
    frames = [
        publish_frames(b"%d" % number, exchange="amq.headers", properties=kinds[number % 2])
        for number in range(4)
    ]
    for _ in range(2):  # the second time it is known how each of them begins
        client.send(*frames)
        assert [body for _key, body in keys_of(client, "q")] == [b"1", b"3"]
