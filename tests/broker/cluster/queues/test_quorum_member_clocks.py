"""Queue time where the clocks of nodes are an hour apart, whoever leads, and whatever is set."""

from __future__ import annotations

from functools import partial
from itertools import chain, repeat
from pathlib import Path

import pytest

from fluffle.broker.base.clock import SystemClock
from fluffle.broker.cluster.queues.quorum_member import QuorumQueueMember
from tests.broker.metrics.test_groups import of, scrape
from tests.support.cluster_nodes import running_cluster, until
from tests.support.queue_nodes import QueueCluster

HOUR_MS = 3_600_000
STEP_MS = 10
"""Time step of a `QueueCluster`: its round trips seem to take so long, or nothing."""


class Watched:
    """A queue, and how far its time is from that of the cluster."""

    def __init__(self, cluster: QueueCluster, leader: str) -> None:
        self.cluster = cluster
        cluster.declare(leader=leader)
        cluster.hosts.advance(1_000)
        self.zero_ms = self.stamp_ms() - cluster.hosts.now_ms

    def stamp_ms(self) -> int:
        """Queue time of an entry written now."""
        self.cluster.ask(self.cluster.leader()).publish(1)
        self.cluster.hosts.settle()
        machine = self.cluster.nodes[self.cluster.leader()].hosting.groups[self.cluster.queue]
        assert isinstance(machine, QuorumQueueMember)
        return machine.replica.image.state.queue_time_ms

    def off_ms(self) -> int:
        """How much more of queue time has passed than of time."""
        return self.stamp_ms() - self.cluster.hosts.now_ms - self.zero_ms

    def has_led(self, name: str) -> None:
        """Have a node lead, by killing whoever does if there is no other way."""
        if self.cluster.leader() != name:
            refused: list[object] = []
            leader = self.cluster.nodes[self.cluster.leader()]
            leader.host.group(self.cluster.queue).transfer(name, refused.append)
            self.cluster.hosts.advance(1_000)
            assert (self.cluster.leader(), refused) == (name, [])


@pytest.mark.parametrize("ahead_ms", [HOUR_MS, -HOUR_MS])
def test_queue_time_runs_with_time_whoever_leads(ahead_ms: int) -> None:
    queue = Watched(QueueCluster(b=ahead_ms), leader="a")
    for leader in "bcabac":
        queue.has_led(leader)
        assert abs(queue.off_ms()) <= STEP_MS
        queue.cluster.hosts.advance(5_000, step_ms=250)
        assert abs(queue.off_ms()) <= STEP_MS


def test_queue_time_runs_with_time_when_all_clocks_differ_and_nodes_come_and_go() -> None:
    cluster = QueueCluster(a=0, b=HOUR_MS, c=2 * HOUR_MS)
    queue = Watched(cluster, leader="b")
    for name in "bacb":
        queue.has_led(name)
        cluster.nodes[name].kill()
        cluster.hosts.advance(3_000)
        assert abs(queue.off_ms()) <= 2 * STEP_MS
        cluster.nodes[name].start()
        cluster.hear_of_it(name)
        cluster.hosts.advance(3_000)
        assert abs(queue.off_ms()) <= 2 * STEP_MS


@pytest.mark.parametrize("by_ms", [HOUR_MS, -HOUR_MS])
def test_queue_time_does_not_heed_that_the_clock_of_its_leader_is_set(by_ms: int) -> None:
    queue = Watched(QueueCluster(), leader="a")
    queue.cluster.nodes["a"].clock.ahead_ms += by_ms
    assert abs(queue.off_ms()) <= STEP_MS
    queue.has_led("b")
    assert abs(queue.off_ms()) <= STEP_MS


class FastClock(SystemClock):
    """An hour ahead."""

    def wall_ms(self) -> int:
        return super().wall_ms() + HOUR_MS


async def test_operators_see_whose_clock_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clocks = chain([FastClock()], repeat(SystemClock()))
    monkeypatch.setattr("fluffle.broker.cluster.cluster.SystemClock", partial(next, clocks))
    async with running_cluster(tmp_path) as three:
        await until(lambda: all(len(node.cluster.common_time.ahead_ms()) == 3 for node in three))
        fast = ""
        for node in three:
            rows = [row async for row in node.listed("cluster.status")]
            ahead_ms = [row["clock_ahead_ms"] for row in rows]
            assert sorted(round(each, -3) for each in ahead_ms) == [0, 0, HOUR_MS]
            fast = rows[ahead_ms.index(max(ahead_ms))]["node"]
            samples = scrape(node)
            assert round(of(samples, "fluffle_clock_ahead_seconds", node=fast)) == 3_600
        assert {fields["node"] for fields in logged(caplog, "clock_skewed")} == {fast}
        now_ms = SystemClock().wall_ms()
        for node in three:
            assert abs(node.cluster.common_time.wall_ms() - now_ms) < 1_000


def logged(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, object]]:
    """The fields of all lines of that name."""
    return [
        record.fluffle_fields  # type: ignore[attr-defined]
        for record in caplog.records
        if record.getMessage() == name
    ]
