"""Rates and the past, with a clock that is moved."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluffle.broker.runtime.background import Task
from fluffle.broker.statistics.report import Row, SampleWindow, SampleWindows
from fluffle.broker.statistics.statistics import PIECE
from fluffle.protocol.methods import Basic, make
from tests.support.edge import Client, Edge

MINUTE = SampleWindows(SampleWindow(60, 5), SampleWindow(60, 5), SampleWindow(60, 5))


def start() -> tuple[Edge, Client]:
    edge = Edge()
    edge.count()
    edge.clockwork.start()
    edge.run()
    return edge, edge.connect()


def rate(row: Row, name: str) -> float:
    value: float = row["message_stats"][f"{name}_details"]["rate"]
    return value


def test_counts_are_those_of_now_and_rates_those_of_the_last_look() -> None:
    edge, client = start()
    client.declare()
    client.publish(b"1", b"2")
    row = edge.statistics.of_queue("/", "q")
    assert (row["message_stats"]["publish"], rate(row, "publish")) == (2, 0.0)
    edge.advance(5)
    client.publish(b"3")
    for row in (edge.statistics.of_queue("/", "q"), edge.statistics.totals()):
        assert (row["message_stats"]["publish"], rate(row, "publish")) == (3, 0.4)
    edge.advance(5)
    assert rate(edge.statistics.of_queue("/", "q"), "publish") == 0.2
    edge.advance(5)
    assert rate(edge.statistics.of_queue("/", "q"), "publish") == 0.0


def test_a_queue_grows_and_shrinks() -> None:
    edge, client = start()
    client.declare()
    client.publish(*[b"x"] * 10)
    edge.advance(5)
    row = edge.statistics.of_queue("/", "q")
    assert row["messages_details"] == row["messages_ready_details"] == {"rate": 2.0}
    assert row["messages_unacknowledged_details"] == {"rate": 0.0}
    client.consume(prefetch=5)
    client.ack(2, multiple=True)
    edge.advance(5)
    row = edge.statistics.of_queue("/", "q")
    assert row["messages_details"] == {"rate": -0.4}
    assert row["messages_ready_details"] == {"rate": -1.4}
    assert row["messages_unacknowledged_details"] == {"rate": 1.0}
    whole = next(edge.statistics.of_vhosts(["/"]))
    assert (whole["messages"], whole["messages_ready"], whole["messages_unacknowledged"]) == (
        8,
        3,
        5,
    )
    totals = edge.statistics.totals()["queue_totals"]
    assert totals == {name: whole[name] for name in totals}


def test_what_was_there_before_the_first_look_has_not_come_just_now() -> None:
    edge = Edge()
    edge.count()
    client = edge.connect()
    client.declare()
    client.publish(*[b"x"] * 10)
    edge.clockwork.start()
    edge.run()
    assert edge.statistics.of_queue("/", "q")["messages_details"] == {"rate": 0.0}
    edge.advance(5)
    assert edge.statistics.of_queue("/", "q")["messages_details"] == {"rate": 0.0}


def test_samples_are_of_stretches_of_the_wall_clock() -> None:
    edge, client = start()
    client.declare()
    for _ in range(4):
        client.publish(b"x")
        edge.advance(5)
    details = edge.statistics.of_queue("/", "q", MINUTE)["message_stats"]["publish_details"]
    assert [each["sample"] for each in details["samples"]] == [4, 3, 2, 1] + [0] * 9
    assert details["samples"][0]["timestamp"] == 1_020_000  # the wall clock began at 1,000 s
    assert (details["rate"], details["avg_rate"]) == (0.2, 4 / 60)


def test_connections_count_their_bytes() -> None:
    edge, client = start()
    before = edge.statistics.of_connection(client.connection)
    sent = sum(map(len, client.transport.writes))
    assert (before["send_oct"], before["send_cnt"]) == (sent, len(client.transport.writes))
    client.declare()
    edge.advance(5)
    row = edge.statistics.of_connection(client.connection)
    assert row["recv_oct"] > before["recv_oct"] > 100
    assert row["recv_cnt"] == before["recv_cnt"] + 1
    assert row["recv_oct_details"] == {"rate": row["recv_oct"] / 5}
    assert row["send_pend"] == 0
    whole = next(edge.statistics.of_vhosts(["/"]))
    assert (whole["recv_oct"], whole["send_oct"]) == (row["recv_oct"], row["send_oct"])
    client.close()
    assert edge.statistics.observer.connections == {}
    assert next(edge.statistics.of_vhosts(["/"]))["recv_oct"] > row["recv_oct"]


def test_a_socket_that_does_not_drain_shows_what_is_left() -> None:
    edge, client = start()
    client.transport.is_stuck = True
    client.send(b"\x08\0\0\0\0\0\0\xce")
    client.connection.send(make(Basic.CancelOk, consumer_tag="x"))
    edge.run()
    assert edge.statistics.of_connection(client.connection)["send_pend"] > 0


def test_what_comes_and_goes_is_counted() -> None:
    edge, client = start()
    client.declare("a")
    client.declare("a")
    client.declare("b")
    client.delete("b")
    edge.connect().close()
    edge.advance(5)
    churn = edge.statistics.churn()
    assert {name: value for name, value in churn.items() if isinstance(value, int)} == {
        "connection_created": 2, "connection_closed": 1,
        "channel_created": 2, "channel_closed": 1,
        "queue_declared": 3, "queue_created": 2, "queue_deleted": 1,
    }  # fmt: skip
    assert churn["queue_declared_details"] == {"rate": 0.6}


def test_what_came_and_went_with_a_virtual_host_has_happened_all_the_same() -> None:
    edge, _client = start()
    vhost = edge.editor.vhost("gone")
    vhost.counts.declared = vhost.counts.created = 3
    edge.advance(5)
    edge.editor.delete_vhost("gone")
    assert edge.statistics.churn()["queue_declared"] == 3
    edge.advance(5)
    assert edge.statistics.churn()["queue_declared"] == 3
    assert vhost not in edge.statistics.counters.vhosts


def test_a_look_holds_nobody_up() -> None:
    """Its pieces are of a bounded number of objects, however many there are."""
    edge, client = start()
    for number in range(3 * PIECE):
        client.declare(f"q{number}", auto_delete=True)
    edge.scheduler.now_s += 5
    pieces = list(look(edge))
    assert len(pieces) >= 3
    vhost_counters = edge.statistics.counters.vhosts[edge.vhost]
    assert (vhost_counters.queues, vhost_counters.of_lengths) == ({}, {}), "idle queues cost memory"


def look(edge: Edge) -> Task:
    return edge.statistics._sampler.look()


def test_a_look_that_is_late_tells_rates_of_the_time_that_has_passed() -> None:
    edge, client = start()
    client.declare()
    client.publish(*[b"x"] * 30)
    edge.scheduler.now_s += 15
    list(look(edge))
    assert rate(edge.statistics.of_queue("/", "q"), "publish") == 2.0


def test_nothing_is_looked_at_once_it_has_been_stopped() -> None:
    edge, client = start()
    client.declare()
    client.publish(b"1")
    edge.clockwork.stop()
    edge.advance(60)
    assert rate(edge.statistics.of_queue("/", "q"), "publish") == 0.0


def test_the_next_look_comes_though_one_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    edge, client = start()
    client.declare()

    def broken() -> None:
        raise ValueError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(edge.statistics.counters.__class__, "enter_all", lambda _self: broken())
        edge.advance(5)
    client.publish(b"1")
    edge.advance(5)
    assert rate(edge.statistics.of_queue("/", "q"), "publish") == 0.1


STEPS = st.lists(
    st.tuples(st.sampled_from(["publish", "get", "ack", "wait"]), st.integers(1, 9)), max_size=30
)


@settings(max_examples=20, deadline=None)
@given(steps=STEPS)
def test_counts_and_samples_are_those_of_a_list_of_events(steps: list[tuple[str, int]]) -> None:
    edge, client = start()
    client.declare()
    events: list[tuple[int, str]] = []
    tags = 0
    for what, count in [*steps, ("wait", 1)]:
        for _ in range(count):
            now_ms = round(edge.scheduler.now_s * 1_000) + 1_000_000
            if what == "wait":
                edge.advance(5)
            elif what == "publish":
                client.publish(b"x")
                events.append((now_ms, "publish"))
            elif what == "get" and client.ready_count():
                client.call(make(Basic.Get, queue="q"), Basic.GetOk)
                events.append((now_ms, "get"))
                tags += 1
            elif what == "ack" and tags > sum(name == "ack" for _at, name in events):
                client.ack(1 + sum(name == "ack" for _at, name in events))
                events.append((now_ms, "ack"))
    stats = edge.statistics.of_queue("/", "q", MINUTE).get("message_stats", {})
    for name in ("publish", "get", "ack"):
        check(stats, name, [at for at, each in events if each == name])


def check(stats: dict[str, Any], name: str, events_ms: list[int]) -> None:
    """The last minute is exact: a sample counts what has happened before its time."""
    assert stats.get(name, 0) == len(events_ms)
    for each in stats.get(f"{name}_details", {}).get("samples", ()):
        assert each["sample"] == sum(at < each["timestamp"] for at in events_ms), each


def test_nodes_that_were_asked_at_random_agree_with_their_sum() -> None:
    """Each part of a channel's work is in the counts of all that it belongs to."""
    random = Random(7)
    edge, client = start()
    for channel in (2, 3):
        client.open_channel(channel)
    for name in ("a", "b"):
        client.declare(name)
        client.bind(name, "amq.fanout")
    for _ in range(200):
        where = random.choice(
            [{"queue": "a"}, {"queue": "b"}, {"exchange": "amq.fanout"}, {"queue": "no"}]
        )
        client.publish(b"x", channel=random.randint(1, 3), **where)
        if random.random() < 0.2:
            edge.advance(random.choice([1, 5]))
            sums_agree(edge, client)
    sums_agree(edge, client)


def sums_agree(edge: Edge, client: Client) -> None:
    statistics = edge.statistics
    published = [
        statistics.of_channel(channel).get("message_stats", {}).get("publish", 0)
        for channel in client.connection.channels
    ]
    total = statistics.totals().get("message_stats", {}).get("publish", 0)
    exchanges = [
        statistics.of_exchange("/", name).get("message_stats", {}) for name in ("", "amq.fanout")
    ]
    queues = [statistics.of_queue("/", name).get("message_stats", {}) for name in ("a", "b")]
    assert total == sum(published) == sum(each.get("publish_in", 0) for each in exchanges)
    out = sum(each.get("publish_out", 0) for each in exchanges)
    assert out == sum(each.get("publish", 0) for each in queues)


def test_when_a_queue_was_used_last_is_known_to_a_look() -> None:
    edge, client = start()
    client.declare()
    used_at = [edge.statistics.use_of_queue("/", "q")]

    def later() -> str:
        edge.advance(5)
        used_at.append(edge.statistics.use_of_queue("/", "q"))
        return str(used_at[-1]["used_at"])

    assert used_at == [{}]
    found = later()
    assert later() == found
    client.publish(b"1")
    now = edge.statistics.use_of_queue("/", "q")["used_at"]
    assert now > found
    published = later()
    assert published > now
    assert later() == published
    client.call(make(Basic.Get, queue="q"), Basic.GetOk)
    assert later() == later() > published
    assert edge.statistics.use_of_queue("/", "nowhere") == {}


def test_a_queue_that_is_declared_anew_was_not_used_before() -> None:
    edge, client = start()
    client.declare()
    edge.advance(5)
    client.delete()
    client.declare()
    assert edge.statistics.use_of_queue("/", "q") == {}


def test_a_channel_is_idle_once_it_has_done_nothing_for_a_while() -> None:
    edge, client = start()

    def idle_since() -> str | None:
        (channel,) = client.connection.channels
        since: str | None = edge.statistics.of_channel(channel).get("idle_since")
        return since

    assert idle_since() is None
    client.publish(b"1")
    assert idle_since() is None
    edge.advance(5)
    assert idle_since() is None
    edge.advance(10)
    idle = idle_since()
    assert idle is not None
    edge.advance(5)
    assert idle_since() == idle
    client.publish(b"2")
    assert idle_since() is None
