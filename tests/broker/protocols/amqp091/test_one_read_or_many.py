"""Messages that come in one read are treated as they are when each comes alone."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from fluffle.protocol.methods import Basic, Queue, Tx, encode_method, make, pamqp_table
from fluffle.protocol.properties import Properties
from fluffle.protocol.wire import to_table
from tests.support.edge import Client, Edge, publish_frames

CHANNELS = (1, 2)
MODES = ("plain", "confirm", "tx")
PROPERTIES = (
    Properties(),
    Properties(delivery_mode=2),
    Properties(message_id="1"),
    Properties(message_id="2"),
    *(Properties(expiration=each) for each in ("60000", "900000", "+7000", "70000")),
    Properties(user_id="guest"),
    *(Properties(headers=to_table({"n": number})) for number in (1, 2)),
    Properties(headers=to_table({"n": 1}), delivery_mode=2),
    Properties(headers=to_table({"CC": [b"a"]})),
    Properties(headers=to_table({"BCC": [b"b"]})),
)
REFUSED = (
    Properties(user_id="alice"),
    *(Properties(expiration=each) for each in ("soon", "-1", "1_000", "", "999999999999")),
)


class Way(NamedTuple):
    """Fields of a basic.publish frame."""

    channel: int
    exchange: str
    routing_key: str
    mandatory: bool


Messages: TypeAlias = list[tuple[Way, Properties]]

WAYS = st.builds(
    Way,
    channel=st.sampled_from(CHANNELS),
    exchange=st.sampled_from(["amq.headers", "amq.topic", "amq.fanout", ""]),
    routing_key=st.sampled_from(["a", "b", "none"]),
    mandatory=st.booleans(),
)


@st.composite
def messages_of_few_ways(draw: st.DrawFn) -> Messages:
    """Messages of so few ways that they are taken together."""
    ways = draw(st.lists(WAYS, min_size=1, max_size=3))
    properties = st.sampled_from(PROPERTIES * 4 + REFUSED)
    return draw(st.lists(st.tuples(st.sampled_from(ways), properties), max_size=12))


def prepared(mode: str) -> Client:
    """A client with queues at the end of many ways, and channels in that mode."""
    client = Edge().connect()
    for name in "ab":
        client.declare(name, durable=name == "a")
        client.bind(name, "amq.topic", name)
    client.bind("a", "amq.fanout")
    table = pamqp_table(to_table({"n": 1}))
    client.call(make(Queue.Bind, queue="b", exchange="amq.headers", arguments=table), Queue.BindOk)
    for channel in CHANNELS:
        if channel > 1:
            client.open_channel(channel)
        if mode == "confirm":
            client.confirm_select(channel)
        elif mode == "tx":
            client.call(make(Tx.Select), Tx.SelectOk, channel)
    return client


def heard(client: Client) -> list[object]:
    """Methods received on each channel, and the confirmed numbers."""
    reported: dict[int, list[str]] = {channel: [] for channel in CHANNELS}
    confirmed: dict[int, set[int]] = {channel: set() for channel in CHANNELS}
    for arrival in client.arrivals():
        if arrival.method.name == "Basic.Ack":
            tag = arrival.method["delivery_tag"]
            assert isinstance(tag, int)
            lowest = 1 if arrival.method["multiple"] else tag
            confirmed[arrival.channel].update(range(lowest, tag + 1))
        else:
            reported[arrival.channel].append(f"{arrival} {arrival.header!r} {arrival.body!r}")
            if arrival.method.name == "Channel.Close":
                confirmed[arrival.channel].clear()  # how many went before is a matter of time
    return [reported, confirmed]


def outcome(mode: str, reads: list[bytes]) -> list[object]:
    """Answers to the publisher and content of the queues after these reads, made twice."""
    client = prepared(mode)
    for read in reads * 2:  # the second time it is known how each message begins
        client.feed(read)
        client.edge.run()
    if mode == "tx":
        client.send(*(encode_method(channel, make(Tx.Commit)) for channel in CHANNELS))
    found = heard(client)
    reader = client.edge.connect()
    for queue in "ab":
        reader.send(encode_method(1, Basic.Get(queue=queue, no_ack=True)) * 50)
        found.append(
            [f"{arrival} {arrival.header!r} {arrival.body!r}" for arrival in reader.arrivals()]
        )
    return found


@given(messages=messages_of_few_ways(), mode=st.sampled_from(MODES))
def test_messages_of_one_read_are_treated_as_alone(messages: Messages, mode: str) -> None:
    frames = [
        publish_frames(
            b"%d" % (number % 10),
            way.routing_key,
            way.channel,
            exchange=way.exchange,
            mandatory=way.mandatory,
            properties=properties,
        )
        for number, (way, properties) in enumerate(messages)
    ]
    assert outcome(mode, [b"".join(frames)]) == outcome(mode, frames)
