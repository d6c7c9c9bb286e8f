"""queues.statistics and exchanges.statistics: what several nodes have counted becomes one row."""

from __future__ import annotations

from typing import Any

import pytest

from fluffle.broker import Cluster
from fluffle.broker.admin.context import NodeContext, Row
from fluffle.broker.admin.dispatch import VERBS, Dispatcher
from fluffle.broker.admin.local_client import rows
from fluffle.broker.runtime.turn import raise_it
from fluffle.broker.statistics.report import NO_PAST, SampleWindows
from tests.broker.admin.verb_harness import VerbHarness


class Counted:
    """Fake of `Statistics`, as far as these verbs need it."""

    def __init__(self, publishes: int = 1) -> None:
        self.publishes = publishes
        self.asked: list[SampleWindows] = []

    def of_queue(self, vhost: str, name: str, ages: SampleWindows = NO_PAST) -> Row:
        self.asked.append(ages)
        if name == "idle":
            return {}
        rate = {"rate": self.publishes / 5}
        return {"message_stats": {"publish": self.publishes, "publish_details": rate}, "in": vhost}

    def of_exchange(self, vhost: str, name: str, ages: SampleWindows = NO_PAST) -> Row:
        rate = {"rate": self.publishes / 5}
        stats = {"publish_in": self.publishes, "publish_in_details": rate}
        return {"message_stats": stats} if name == "amq.topic" else {}


def counting(desk: VerbHarness) -> Counted:
    counted = Counted()
    statistics: Any = counted
    desk.context = desk.context._replace(statistics=statistics)
    desk.dispatcher = Dispatcher(desk.context, VERBS, raise_it)
    return counted


@pytest.mark.parametrize("verb", ["queues.counted", "queues.statistics"])
def test_each_queue_that_has_seen_anything_is_reported(verb: str) -> None:
    desk = VerbHarness()
    counted = counting(desk)
    client = desk.edge.connect()
    for name in ("q", "idle", "r"):
        client.declare(name)
    stats = {"publish": 1, "publish_details": {"rate": 0.2}}
    of_all = [{"vhost": "/", "name": name, "message_stats": stats, "in": "/"} for name in "qr"]
    assert desk.rows(verb) == of_all
    assert desk.rows(verb, vhost="/", name="r") == of_all[1:]
    assert desk.rows(verb, name="idle") == []
    assert counted.asked[-1] == NO_PAST
    desk.rows(verb, ages={"msg_rates_age": 60, "msg_rates_incr": "5"})
    assert counted.asked[-1].messages == (60, 5)


@pytest.mark.parametrize("verb", ["exchanges.counted", "exchanges.statistics"])
def test_each_exchange_likewise(verb: str) -> None:
    desk = VerbHarness()
    counting(desk)
    stats = {"publish_in": 1, "publish_in_details": {"rate": 0.2}}
    row = {"vhost": "/", "name": "amq.topic", "message_stats": stats}
    assert desk.rows(verb) == [row]


@pytest.mark.parametrize("verb", ["queues.counted", "queues.statistics"])
def test_what_cannot_be_asked_for_is_refused(verb: str) -> None:
    desk = VerbHarness()
    counting(desk)
    assert desk.refusal(verb, vhost="v") == "NOT_FOUND: vhost 'v' does not exist"
    ages = {"lengths_age": 9999, "lengths_incr": 5}
    refusal = desk.refusal(verb, ages=ages)
    assert refusal == "SYNTAX_ERROR: Invalid range parameters: age 9999, incr 5"


@pytest.mark.parametrize("verb", ["queues.counted", "queues.statistics"])
def test_where_nobody_counts_there_is_nothing(verb: str) -> None:
    desk = VerbHarness()
    desk.edge.connect().declare("q")
    assert desk.rows(verb) == []


async def test_what_all_nodes_have_counted_is_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_node(context: NodeContext) -> Counted:
        return Counted(10 ** int(context.config.node_name.removeprefix("node")))

    monkeypatch.setattr(NodeContext, "statistics", property(of_node))
    async with Cluster(nodes=3) as cluster:
        for each in map(cluster.__getitem__, range(3)):
            assert each.node.cluster is not None
            each.node.cluster.rpc_client.reply_timeout_s = 60.0
        for node in range(3):
            (row,) = await rows(cluster[node].node.parts, "exchanges.statistics", vhost="/")
            stats = {"publish_in": 111, "publish_in_details": {"rate": pytest.approx(22.2)}}
            assert row == {"vhost": "/", "name": "amq.topic", "message_stats": stats}
        await cluster.kill(2)
        (row,) = await rows(cluster[0].node.parts, "exchanges.statistics", name="amq.topic")
        assert row["message_stats"]["publish_in"] == 11
