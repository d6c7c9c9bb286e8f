"""Counters of each object after a conversation."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.statistics.counters import (
    LONG,
    OF_QUEUE,
    SHORT,
    Level,
    NumberHistory,
    NumberWidth,
    ObjectCounts,
)
from fluffle.broker.statistics.report import Row
from fluffle.broker.statistics.statistics import ByChannel
from fluffle.protocol.methods import Basic, Queue, Tx, encode_method, make
from fluffle.protocol.methods import Channel as ChannelMethods
from tests.support.edge import Client, Edge, publish_frames

FINE = 10
LEVELS = (Level(1, FINE), Level(4, 6))
CHANGES = st.lists(st.tuples(st.integers(1, 7), st.integers(-9, 2**30)), min_size=1, max_size=60)
"""After how many ticks, and by how much."""


@pytest.mark.parametrize("width", NumberWidth)
@given(start=st.integers(0, 2**40), changes=CHANGES)
def test_what_was_is_what_it_was_as_far_as_it_is_remembered(
    width: NumberWidth, start: int, changes: list[tuple[int, int]]
) -> None:
    history, tick, value = NumberHistory(2, LEVELS, width), 100, start
    known = [(tick, value)]
    history.add(tick, (value, 7))
    for ticks, by in changes:
        tick, value = tick + ticks, max(0, value + by)
        known.append((tick, value))
        history.add(tick, (value, 7))
        if width is NumberWidth.NARROW and abs(value - known[-FINE:][0][1]) >= 2**31:
            return  # more than it is made for
    for at, was in known[-FINE:]:
        assert history.at(at, (value, 7)) == [was, 7]
        assert history.at(at - 1, (value, 7))[1] == 7


@given(changes=CHANGES)
def test_of_the_older_ones_fewer_are_remembered(changes: list[tuple[int, int]]) -> None:
    """Old values are exact at the end of each stretch, and interpolated between."""
    history, tick, value = NumberHistory(1, LEVELS, NumberWidth.WIDE), 0, 0
    known = {tick: value}
    history.add(tick, (value,))
    for step, by in changes:
        for quiet in range(tick + 1, tick + step):
            known[quiet] = value
        tick, value = tick + step, value + abs(by)
        known[tick] = value
        history.add(tick, (value,))
    for at in range(max(0, tick - 4 * (6 - 2)), tick):
        was, start = history.at(at, (value,))[0], at // 4 * 4
        if at == start + 3:
            assert was == known[at]
        assert known[max(0, start - 1)] <= was <= known[min(tick, start + 3)]
    assert history.at(tick + 3, (value,)) == [value]


@pytest.mark.parametrize("levels", [SHORT, LONG])
def test_what_grows_evenly_was_growing_evenly(levels: tuple[Level, ...]) -> None:
    history = NumberHistory(1, levels, NumberWidth.WIDE)
    for tick in range(1_000, 20_000):
        history.add(tick, (12 * tick,))
    reach = levels[-1].ticks * (levels[-1].rows - 2)
    for at in range(19_999 - reach, 20_000, 7):
        assert history.at(at, (12 * 20_000,)) == [12 * at]


def test_what_did_not_change_for_long_is_no_slope() -> None:
    history = NumberHistory(1, LEVELS, NumberWidth.WIDE)
    history.add(1, (5,))
    for tick in range(100, 100 + FINE + 4):
        history.add(tick, (1_000 + tick,))
    assert history.at(99, (0,)) == [5]
    assert history.at(98, (0,)) == history.at(2, (0,)) == history.at(0, (0,)) == [5]


def test_before_the_first_look_it_was_nothing() -> None:
    counts = ObjectCounts(OF_QUEUE)
    assert list(counts.at(7)) == [0] * 9
    counts.add(0, (5,))
    counts.sample(7)
    assert counts.at(7)[0] == 5
    assert counts.at(6)[0] == counts.at(1)[0] == 0


def test_what_was_found_has_always_been_so() -> None:
    counts = ObjectCounts(OF_QUEUE)
    counts.add(0, (5,))
    counts.found(7)
    assert counts.at(3)[0] == 5


def test_an_object_has_its_bounds() -> None:
    """The documentation gives the bounds."""
    counts = ObjectCounts(OF_QUEUE)
    for tick in range(1, 10_000, 3):
        counts.add(0, (1,))
        counts.sample(tick)
    history = counts._history
    assert history is not None
    size_bytes = sum(len(rows) * rows.itemsize for rows in history._rows)
    assert size_bytes == (13 + 12) * (1 + 9) * array("I").itemsize == 1_000
    assert sum(map(sys.getsizeof, history._rows)) < 2 * size_bytes


def test_levels_reach_as_far_as_they_say() -> None:
    assert [level.ticks * (level.rows - 2) * 5 for level in LONG] == [600, 3600, 28_800, 86_400]
    assert (SHORT[0].ticks * (SHORT[0].rows - 1) * 5, SHORT[1].ticks * (SHORT[1].rows - 2) * 5) == (
        60,
        600,
    )


def start() -> tuple[Edge, Client]:
    edge = Edge()
    edge.count()
    return edge, edge.connect()


def counts(row: Row) -> dict[str, Any]:
    """The `message_stats` of a row that are not 0."""
    stats = row.get("message_stats", {})
    return {name: value for name, value in stats.items() if isinstance(value, int) and value}


def of_queue(edge: Edge, name: str = "q") -> dict[str, Any]:
    return counts(edge.statistics.of_queue("/", name))


def of_exchange(edge: Edge, name: str) -> dict[str, Any]:
    return counts(edge.statistics.of_exchange("/", name))


def of_channel(client: Client, number: int = 1) -> Row:
    channels = {channel.number: channel for channel in client.connection.channels}
    return client.edge.statistics.of_channel(channels[number])


def apart(row: Row, what: str, name: str) -> dict[str, dict[str, int]]:
    """The counts that are not 0 in `publishes` or `deliveries`, by name."""
    return {each[name]["name"]: counts({"message_stats": each["stats"]}) for each in row[what]}


class Waiting:
    """A channel that waits for confirms, and counts how often it is asked."""

    def __init__(self, edge: Edge) -> None:
        self.asked = 0
        self._counters = edge.statistics.counters
        self._counters.confirming[self] = None

    def enter(self) -> None:
        self.asked += 1
        self._counters.confirming[self] = None


def test_channels_are_asked_once_for_all_virtual_hosts() -> None:
    edge, client = start()
    client.declare()
    waiting = Waiting(edge)
    rows = edge.statistics.of_vhosts(["/", "elsewhere", "/"])
    assert [bool(row) for row in rows] == [True, False, True]
    assert waiting.asked == 1


def test_publishes_are_counted_where_they_go_in_and_out() -> None:
    edge, client = start()
    for name in ("a", "b"):
        client.declare(name)
        client.bind(name, "amq.fanout")
    client.publish(b"1", b"2", queue="a")
    client.publish(b"3", exchange="amq.fanout")
    client.publish(b"4", b"5", b"6", queue="nowhere")
    client.publish(b"7", queue="nowhere", mandatory=True)
    assert of_exchange(edge, "") == {"publish_in": 6, "publish_out": 2}
    assert of_exchange(edge, "amq.fanout") == {"publish_in": 1, "publish_out": 2}
    assert of_queue(edge, "a") == {"publish": 3}
    assert of_queue(edge, "b") == {"publish": 1}
    total = {"publish": 7, "drop_unroutable": 3, "return_unroutable": 1}
    row = of_channel(client)
    assert counts(row) == counts(next(edge.statistics.of_vhosts(["/"]))) == total
    assert counts(edge.statistics.totals()) == total
    assert apart(row, "publishes", "exchange") == {
        "": {"publish": 6, "drop_unroutable": 3, "return_unroutable": 1},
        "amq.fanout": {"publish": 1},
    }


def test_one_read_may_hold_messages_for_many() -> None:
    edge, client = start()
    for name in ("a", "b"):
        client.declare(name)
        client.bind(name, "amq.topic", "#")
    frames = [publish_frames(b"1", exchange="amq.topic", queue=key) for key in ("x", "y", "z", "x")]
    client.send(*frames, publish_frames(b"2", queue="a"), publish_frames(b"3", queue="b"))
    assert of_exchange(edge, "amq.topic") == {"publish_in": 4, "publish_out": 8}
    assert of_exchange(edge, "") == {"publish_in": 2, "publish_out": 2}
    assert of_queue(edge, "a") == of_queue(edge, "b") == {"publish": 5}


def test_deliveries_are_counted_by_how_they_are_acknowledged() -> None:
    edge, client = start()
    client.declare()
    client.publish(b"1", b"2", b"3", b"4", b"5", b"6")
    client.call(make(Basic.Get, queue="q", no_ack=True), Basic.GetOk)
    client.call(make(Basic.Get, queue="q"), Basic.GetOk)
    client.consume(prefetch=2)
    client.arrivals()
    client.ack(3, multiple=True)  # that of the get and the first of two deliveries
    client.send(encode_method(1, make(Basic.Nack, delivery_tag=4, requeue=True)))
    client.arrivals()
    client.declare("empty")
    client.call(make(Basic.Get, queue="empty"), Basic.GetEmpty)
    got = {
        "publish": 6, "get_no_ack": 1, "get": 1, "deliver": 4, "deliver_get": 6, "redeliver": 1,
        "ack": 2,
    }  # fmt: skip
    assert of_queue(edge) == got
    assert of_queue(edge, "empty") == {"get_empty": 1}
    row = of_channel(client)
    assert counts(row) == counts(edge.statistics.totals()) == got | {"get_empty": 1}
    deliveries = apart(row, "deliveries", "queue")
    assert deliveries == {
        "q": {k: v for k, v in got.items() if k != "publish"},
        "empty": {"get_empty": 1},
    }


def test_consumers_have_room_until_they_hold_what_they_may() -> None:
    edge, client = start()
    client.declare()

    def with_room() -> int | None:
        reported: int | None = edge.statistics.of_queue("/", "q").get("consumers_with_room")
        return reported

    assert with_room() is None
    client.consume(tag="a", prefetch=1)
    client.consume(tag="b", prefetch=2)
    assert with_room() == 2
    client.publish(b"1", b"2")
    assert with_room() == 1
    client.publish(b"3", b"4")
    assert with_room() == 0
    client.ack(1)
    assert with_room() == 0  # the fourth message took its room
    client.ack(2)
    assert with_room() == 1
    client.arrivals()
    client.consume(tag="c", no_ack=True)
    assert with_room() == 2


def test_what_each_channel_has_done_with_a_queue_and_an_exchange() -> None:
    edge, client = start()
    other, statistics = edge.connect(), edge.statistics
    client.declare()
    client.declare("unused")
    client.publish(b"1", b"2")
    other.publish(b"3")
    other.consume()
    client.call(make(Basic.Get, queue="unused"), Basic.GetEmpty)

    def reported(rows: Iterable[ByChannel]) -> dict[object, dict[str, int]]:
        return {
            connection: counts({"message_stats": stats}) for connection, _channel, stats in rows
        }

    one, another = client.connection, other.connection
    assert reported(statistics.publishes("/", "")) == {
        one: {"publish": 2},
        another: {"publish": 1},
    }
    assert reported(statistics.deliveries("/", "q")) == {another: {"deliver": 3, "deliver_get": 3}}
    assert reported(statistics.deliveries("/", "unused")) == {one: {"get_empty": 1}}
    for nothing in (
        statistics.publishes("/", "amq.topic"),
        statistics.publishes("nowhere", ""),
        statistics.deliveries("/", "nowhere"),
        statistics.deliveries("nowhere", "q"),
    ):
        assert reported(nothing) == {}


def test_a_consumer_without_acknowledgements() -> None:
    edge, client = start()
    client.declare()
    client.consume(no_ack=True)
    client.publish(b"1", b"2")
    assert of_queue(edge) == {"publish": 2, "deliver_no_ack": 2, "deliver_get": 2}


def test_what_nothing_has_happened_to_has_no_stats() -> None:
    edge, client = start()
    client.declare()
    statistics = edge.statistics
    assert "message_stats" not in statistics.of_queue("/", "q")
    assert statistics.of_exchange("/", "amq.direct") == {}
    assert of_channel(client) == {"publishes": [], "deliveries": []}
    assert "message_stats" not in statistics.totals()
    assert statistics.of_queue("/", "nowhere") == statistics.of_queue("nowhere", "q") == {}


def test_confirms_are_counted_once_they_are_known() -> None:
    _edge, client = start()
    client.declare()
    client.publish(b"before")
    client.confirm_select()
    client.publish(b"1", b"2")
    client.publish(b"3", exchange="amq.fanout")
    assert counts(of_channel(client)) == {"publish": 4, "confirm": 3, "drop_unroutable": 1}
    assert (
        sum(
            stats.get("confirm", 0)
            for stats in apart(of_channel(client), "publishes", "exchange").values()
        )
        == 3
    )


class Confirming:
    """A channel that waits for confirms, as the book sees it."""

    def __init__(self, edge: Edge) -> None:
        self.counters = edge.statistics.counters
        self.asked = 0
        self.counters.confirming[self] = None

    def enter(self) -> None:
        self.asked += 1
        self.counters.confirming[self] = None


def test_channels_that_wait_for_confirms_cost_nothing_for_each_object_of_a_list() -> None:
    edge, client = start()
    client.declare()
    client.publish(b"1")
    other = Confirming(edge)
    assert of_queue(edge) == {"publish": 1}
    assert of_exchange(edge, "") == {"publish_in": 1, "publish_out": 1}
    assert counts(of_channel(client)) == {"publish": 1}
    assert other.asked == 0
    assert counts(edge.statistics.totals()) == {"publish": 1}
    assert other.asked == 1


def test_what_a_channel_has_done_is_counted_when_it_ends_before_anybody_asks() -> None:
    edge, client = start()
    client.declare()
    client.publish(b"before")
    client.confirm_select()
    client.publish(b"1", b"2")
    client.arrivals()
    client.consume()
    client.ack(2, multiple=True)
    client.arrivals()
    client.call(
        make(ChannelMethods.Close, reply_code=200, reply_text="", class_id=0, method_id=0),
        ChannelMethods.CloseOk,
    )
    assert counts(edge.statistics.totals()) == {
        "publish": 3, "confirm": 2, "deliver": 3, "deliver_get": 3, "ack": 2,
    }  # fmt: skip
    assert edge.statistics.observer.channels == {}


def test_transactions_count_when_they_are_committed() -> None:
    edge, client = start()
    client.declare()
    client.call(make(Tx.Select), Tx.SelectOk)
    client.publish(b"1", b"2")
    assert of_queue(edge) == {}
    client.call(make(Tx.Rollback), Tx.RollbackOk)
    client.publish(b"3")
    client.call(make(Tx.Commit), Tx.CommitOk)
    assert of_queue(edge) == {"publish": 1}
    client.consume()
    client.ack(1)
    client.arrivals()
    assert "ack" not in of_queue(edge)
    client.call(make(Tx.Commit), Tx.CommitOk)
    assert of_queue(edge)["ack"] == 1


def test_a_queue_that_is_declared_anew_begins_at_nothing() -> None:
    edge, client = start()
    client.declare()
    client.publish(b"1", b"2")
    client.delete()
    client.declare()
    assert of_queue(edge) == {}
    client.publish(b"3")
    assert of_queue(edge) == {"publish": 1}
    assert of_exchange(edge, "") == {"publish_in": 3, "publish_out": 3}


def test_so_does_an_exchange() -> None:
    edge, client = start()
    client.declare()
    for bodies in ((b"1", b"2"), (b"3",)):
        client.declare_exchange("x")
        client.bind("q", "x")
        client.publish(*bodies, exchange="x")
        edge.editor.inside("/").delete_exchange("x")
    client.declare_exchange("x")
    assert of_exchange(edge, "x") == {}
    client.bind("q", "x")
    client.publish(b"4", exchange="x")
    assert of_exchange(edge, "x") == {"publish_in": 1, "publish_out": 1}
    assert of_queue(edge) == {"publish": 4}


def test_what_is_gone_leaves_nothing_behind() -> None:
    edge, client = start()
    edge.clockwork.start()
    client.declare_exchange("x")
    for name in ("a", "b"):
        client.declare(name)
        client.bind(name, "x")
    client.publish(b"1", exchange="x")
    client.consume("a")
    edge.advance(5)
    vhost_counters = edge.statistics.counters.vhosts[edge.vhost]
    on_channel = next(iter(edge.statistics.observer.channels.values()))
    assert (
        len(vhost_counters.queues),
        len(vhost_counters.of_lengths),
        len(vhost_counters.exchanges),
    ) == (2, 2, 1)
    assert (len(on_channel.taken), len(on_channel.published)) == (1, 1)
    client.arrivals()
    client.send(*(encode_method(1, make(Queue.Delete, queue=name)) for name in ("a", "b")))
    edge.editor.inside("/").delete_exchange("x")
    edge.advance(5)
    assert (vhost_counters.queues, vhost_counters.of_lengths, vhost_counters.exchanges) == (
        {},
        {},
        {},
    )
    assert (on_channel.taken, on_channel.published) == ({}, {})
    client.arrivals()
    client.close()
    assert (edge.statistics.observer.channels, edge.statistics.observer.connections) == ({}, {})
    assert counts(edge.statistics.totals())["publish"] == 1


def test_nobody_counts_where_nobody_asks() -> None:
    client = Edge().connect()
    channel = next(iter(client.connection.channels))
    assert (channel.observer, channel.publisher.observer) == (None, None)
