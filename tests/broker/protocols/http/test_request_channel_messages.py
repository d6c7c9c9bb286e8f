"""Requests that publish or get count as clients: for observers, limits, counters and taps."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest

from fluffle.broker.access.limits import UserLimits
from fluffle.broker.base.errors import NotAllowed, PreconditionFailed
from fluffle.broker.base.traffic import AMQP_091
from fluffle.broker.config.config import OVERWRITE, InterceptorConfig, Limits
from fluffle.broker.core.client import (
    channel_row,
    connection_row,
)
from fluffle.broker.core.firehose import Firehose
from fluffle.broker.core.interceptors import Interceptors
from fluffle.broker.protocols.http.request_channel import (
    HttpClient,
    MessageChannel,
    RequestGetter,
    check_may_open,
)
from fluffle.broker.queues.queue_api import Outcome, OverdueDeliveries
from fluffle.broker.vhosts.vhost import set_tracer
from fluffle.protocol.properties import decode_properties, raw_properties
from tests.broker.protocols.http.test_request_channel import ENDS, Node
from tests.support.observers import ChannelRecorder, FailingObserver, NodeRecorder


def channel_of(node: Node) -> MessageChannel:
    user = node.edge.access.users["guest"]
    return MessageChannel(node.edge.services, HttpClient(user, ENDS), user, node.edge.vhost)


def begin_and_end(channel: MessageChannel) -> None:
    channel.begin()
    channel.end()


def opened(node: Node) -> MessageChannel:
    channel = channel_of(node)
    channel.begin()
    return channel


async def publish(node: Node, channel: MessageChannel, routing_key: str = "q") -> bool:
    return await node.outcome(channel.publish("", routing_key, b"\0\0", b"body"))


async def test_what_it_does_is_observed_and_counted() -> None:
    node, seen = Node(), ChannelRecorder()
    services, usage = node.edge.services, node.edge.access.usage
    node.edge.services = replace(services, observers=(NodeRecorder(seen),))
    node.edge.connect().declare("q")
    before, seen.seen[:] = sum(map(len, usage.here.values())), []
    channel = opened(node)
    assert await publish(node, channel)
    assert await node.outcome(channel.get("q")) is not None
    assert await node.outcome(channel.get("q")) is None
    await node.outcome(channel.settle_all(Outcome.ACKED))
    channel.end()
    node.edge.run()
    lost = ("LOST", 0)
    assert seen.seen == [("enqueued", 1), ("got", "q"), ("got", None), ("ACKED", 1), lost]
    traffic = services.runtime.traffic
    messages = traffic.of(AMQP_091)
    assert (messages.received, messages.received_confirm, messages.confirmed) == (1, 1, 1)
    counts = messages.from_queues
    assert (counts.got_manual_ack, counts.get_empty, counts.acknowledged) == (1, 1, 1)
    assert (traffic.connections_opened, traffic.connections_closed) == (2, 1)
    assert (traffic.channels_opened, traffic.channels_closed) == (2, 1)
    assert sum(map(len, usage.here.values())) == before


async def test_what_it_has_not_settled_goes_back() -> None:
    node = Node()
    client = node.edge.connect()
    client.declare("q")
    channel = opened(node)
    await publish(node, channel)
    assert await node.outcome(channel.get("q")) is not None
    assert client.ready_count("q") == 0
    channel.end()
    node.edge.run()
    assert client.ready_count("q") == 1


async def test_the_firehose_has_copies() -> None:
    node = Node()
    client = node.edge.connect()
    client.declare("q")
    client.declare("copies")
    client.bind("copies", "amq.rabbitmq.trace", "#")
    set_tracer(node.edge.vhost, "firehose", Firehose(node.edge.vhost, "node"))
    channel = opened(node)
    await publish(node, channel)
    await node.outcome(channel.get("q"))
    set_tracer(node.edge.vhost, "firehose", None)
    found = [await node.outcome(channel.get("copies")) for _ in range(2)]
    keys = [each.origin.routing_key for each in found if each is not None]
    assert keys == ["publish.", "deliver.q"]
    headers = [decode_properties(raw_properties(each.content)).headers for each in found if each]
    shown = ("S", b"10.0.0.1:4711 -> 10.0.0.2:15672"), ("I", 1)
    for each in headers:
        assert each is not None
        assert (each["connection"], each["channel"]) == shown


async def test_messages_are_intercepted_both_ways() -> None:
    node = Node()
    config = InterceptorConfig(received=OVERWRITE, routing_node=None, sent=True)
    interceptors = Interceptors(config, "node", lambda: 7_999)
    node.edge.services = replace(node.edge.services, interceptors=interceptors)
    node.edge.connect().declare("q")
    channel = opened(node)
    await publish(node, channel)
    got = await node.outcome(channel.get("q"))
    assert got is not None
    headers = decode_properties(raw_properties(got.content)).headers
    assert headers == {
        "timestamp_in_ms": ("l", 7_999),
        "x-opt-rabbitmq-sent-time": ("l", 7_999),
    }


async def test_who_holds_a_message_for_too_long_is_refused_from_then_on() -> None:
    node = Node()
    client = node.edge.connect()
    client.declare("q")
    channel = opened(node)
    await publish(node, channel)
    getter = RequestGetter(channel, node.edge.vhost.queues["q"], no_ack=False)
    held = getter.queue.get(getter)
    getter.overdue(OverdueDeliveries([held], held_ms=9, timeout_ms=7))  # type: ignore[list-item]
    assert client.ready_count("q") == 1
    with pytest.raises(PreconditionFailed, match="on channel 1 timed out"):
        await node.outcome(channel.get("q"))


async def test_limits_are_those_of_clients() -> None:
    node = Node()
    services = node.edge.services
    user = node.edge.access.users["guest"]
    await check_may_open(services, user, "/")
    with pytest.raises(NotAllowed, match="vhost no not found"):
        await check_may_open(services, user, "no")
    limited = replace(user, limits=UserLimits(max_channels=0))
    node.edge.access.users["guest"] = limited
    with pytest.raises(NotAllowed, match="reached the maximum allowed user limit of"):
        await check_may_open(services, limited, "/")
    node.edge.access.users["guest"] = user
    full = replace(services, limits=Limits(connections_max=0))
    with pytest.raises(NotAllowed, match=r"node connection limit \(0\) is reached"):
        await check_may_open(full, user, "/")
    small = replace(services, limits=Limits(message_bytes_max=3))
    node.edge.services = small
    with pytest.raises(PreconditionFailed, match="message size 4 is larger"):
        await publish(node, opened(node))


ALL_STEPS = ["opened", "channel opened", "channel closed", "closed"]


@pytest.mark.parametrize(
    ("step", "before", "behind"),
    [
        ("opened", ["opened", "closed"], ["opened"]),
        (
            "channel opened",
            ["opened", "channel opened", "channel closed", "closed"],
            ["opened", "channel opened", "closed"],
        ),
        ("channel closed", ALL_STEPS, ALL_STEPS),
        ("closed", ALL_STEPS, ALL_STEPS),
    ],
)
async def test_an_observer_that_fails_leaves_nothing_open(
    step: str, before: list[str], behind: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither counts of what is open, nor an observer that heard of a beginning and no end."""
    node, first, failing = Node(), FailingObserver(""), FailingObserver(step)
    services, usage = node.edge.services, node.edge.access.usage
    node.edge.services = replace(services, observers=(first, failing))
    counts = sum(map(len, usage.here.values()))
    channel = channel_of(node)
    is_at_start = step.endswith("opened")
    with pytest.raises(RuntimeError, match=step) if is_at_start else nullcontext():
        begin_and_end(channel)
    assert caplog.messages == ([] if is_at_start else ["a listener failed"])
    assert services.owners.has_ended(channel.session.owner)
    assert sum(map(len, usage.here.values())) == counts
    traffic = services.runtime.traffic
    assert (traffic.connections_opened, traffic.channels_opened) == (
        traffic.connections_closed,
        traffic.channels_closed,
    )
    assert not services.connections.requests
    assert (first.steps, failing.steps) == (before, behind)


async def test_a_channel_publishes_one_message() -> None:
    node = Node()
    node.edge.connect().declare("q")
    channel = opened(node)
    await publish(node, channel)
    with pytest.raises(AssertionError, match="one message"):
        await publish(node, channel)


async def test_it_is_listed_as_a_direct_connection_while_it_lasts() -> None:
    node = Node()
    services = node.edge.services
    channel = opened(node)
    (client,) = services.connections.requests
    row = connection_row("node", client)
    assert (row["name"], row["type"], row["protocol"]) == (
        "10.0.0.1:4711 -> 10.0.0.2:15672",
        "direct",
        "Direct 0-9-1",
    )
    assert (row["user"], row["vhost"], row["channels"], row["state"]) == (
        "guest",
        "/",
        1,
        "running",
    )
    (listed,) = client.channels
    assert channel_row("node", client, listed)["name"] == f"{row['name']} (1)"
    channel.end()
    assert not services.connections.requests
