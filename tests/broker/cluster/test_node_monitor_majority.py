"""Log lines of a node while most of the others are away."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest

from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.cluster.node_monitor import SEEN_AFTER_MS, MajorityMonitor
from fluffle.raft.config import Configuration
from tests.broker.cluster.queues.test_quorum_queues import Scene, scene
from tests.broker.metrics.test_groups import of, scrape
from tests.support.cluster_nodes import make_calm, until
from tests.support.manual_clock import ManualClock

__all__ = ["scene"]


def said(caplog: pytest.LogCaptureFixture, *names: str) -> list[dict[str, str]]:
    """The events of these names."""
    records = [record for record in caplog.records if record.getMessage() in names]
    return [{"event": each.getMessage()} | getattr(each, FIELDS_ATTRIBUTE) for each in records]


@dataclass
class FakeNodes:
    """Nodes of a cluster, as a test says."""

    metadata_config: Configuration
    alive: set[str]

    def is_here(self, node: str) -> bool:
        return node in self.alive


def test_it_is_lost_and_regained(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    nodes = FakeNodes(Configuration(), {"a", "b", "c"})
    majority, alive = MajorityMonitor(nodes, ManualClock().now_ms), nodes.alive
    majority.look()
    nodes.metadata_config = Configuration.initial("abc")
    majority.look()
    alive -= {"c"}
    majority.look()
    assert not said(caplog, "majority_lost", "majority_regained")
    alive -= {"b"}
    for _ in range(3):
        majority.look()
    (lost,) = said(caplog, "majority_lost", "majority_regained")
    assert (lost["up"], lost["away"]) == ("a", "b,c")
    assert lost["advice"].startswith("until 2 of 3 nodes see each other nothing is defined")
    alive |= {"b"}
    for _ in range(3):
        majority.look()
    _lost, regained = said(caplog, "majority_lost", "majority_regained")
    assert regained == {"event": "majority_regained", "up": "a,b"}


def test_who_has_just_entered_may_not_see_all_yet(caplog: pytest.LogCaptureFixture) -> None:
    """The leader has let the node in: two of five are no majority."""
    clock, nodes = ManualClock(), FakeNodes(Configuration.initial("abcde"), {"a", "b"})
    majority, alive = MajorityMonitor(nodes, clock.now_ms), nodes.alive
    for _ in range(3):
        majority.look()
        clock.advance(SEEN_AFTER_MS // 3)
    assert not said(caplog, "majority_lost", "majority_regained")
    alive |= {"c"}
    majority.look()
    alive -= {"b"}
    majority.look()
    (lost,) = said(caplog, "majority_lost", "majority_regained")
    assert lost["away"] == "b,d,e"


def test_who_has_just_joined_may_not_have_been_heard_yet(caplog: pytest.LogCaptureFixture) -> None:
    """The new node of a growing cluster is suspected only once it was there."""
    caplog.set_level(logging.INFO)
    clock, nodes = ManualClock(), FakeNodes(Configuration.initial("a"), {"a"})
    majority, alive = MajorityMonitor(nodes, clock.now_ms), nodes.alive
    majority.look()
    nodes.metadata_config = Configuration.initial("ab")
    for _ in range(3):
        majority.look()
        clock.advance(SEEN_AFTER_MS // 3)
    assert not said(caplog, "majority_lost", "majority_regained")
    clock.advance(SEEN_AFTER_MS)
    majority.look()
    (lost,) = said(caplog, "majority_lost", "majority_regained")
    assert lost["away"] == "b"
    alive |= {"b"}
    majority.look()
    assert [r.levelname for r in caplog.records if "regained" in r.getMessage()] == ["INFO"]


def test_who_never_sees_a_majority_says_so(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    majority = MajorityMonitor(FakeNodes(Configuration.initial("abcde"), {"a", "b"}), clock.now_ms)
    majority.look()
    clock.advance(SEEN_AFTER_MS - 1)
    majority.look()
    assert majority.is_there
    clock.advance(1)
    majority.look()
    assert not majority.is_there
    assert len(said(caplog, "majority_lost")) == 1


@pytest.fixture
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    make_calm(monkeypatch)


@pytest.mark.usefixtures("_calm")
async def test_a_lost_majority_shows(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """Also where nothing is asked for: who is left follows the last leaders on."""
    three = scene.nodes
    leader = three["a"].cluster.metadata.leader
    assert leader is not None
    for name in ("q", "other"):
        await scene.declare(leader, name)
        await three[leader].ask("queues.transfer", name=name, vhost="/", node=leader)
        await scene.is_led_by(leader, name)
    caplog.set_level(logging.INFO)
    left, *others = sorted(three.nodes.keys() - {leader})
    node = three[left]
    node_sessions, queues = node.cluster.node_sessions, node.node.catalogue.vhosts["/"].queues
    await until(
        lambda: (
            {node_sessions.routes.leader_of(each.definition.id).node for each in queues.values()}
            == {leader}
        )
    )
    assert of(scrape(node), "fluffle_raft_groups_leaderless") == 0
    for name in (*others, leader):
        await three[name].kill()
    await until(lambda: not node.cluster.absent.alive)
    assert of(scrape(node), "fluffle_raft_groups_leaderless") == 3
    rows = [row async for row in node.listed("queues.members", name="q", vhost="/")]
    assert {row["role"] for row in rows} == {"follower"}
    await until(lambda: bool(said(caplog, "majority_lost")))
    await three[others[0]].start()
    await until(lambda: bool(said(caplog, "majority_regained")))
    await until(lambda: of(scrape(node), "fluffle_raft_groups_leaderless") == 0)
