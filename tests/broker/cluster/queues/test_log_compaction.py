"""Compaction: one live message does not keep its whole entry on the disks."""

from __future__ import annotations

import pytest

from fluffle.broker.cluster import group_background
from fluffle.broker.cluster.queues.log_compaction import LOOK_S, LOOKS_MAX
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum import messages as m
from fluffle.raft.log import DATA
from tests.support.queue_nodes import QueueCluster, QueueNode
from tests.support.raft_memory import MemoryRaftLog

BODY_BYTES = 1_000
COUNT = 100


@pytest.fixture
def cluster() -> QueueCluster:
    """A consumer at b holds one message of each entry."""
    return consumed({1, 1 + COUNT, 3 * COUNT})


def consumed(stuck: set[int]) -> QueueCluster:
    """A queue of three entries of a hundred messages; of these, from 1, all but some are gone."""
    cluster = QueueCluster()
    cluster.declare()
    cluster.hosts.settle()
    cluster.ask("b").attach(credit=1_000, no_ack=False, prefetch=1_000)
    for _ in range(3):
        cluster.ask("b").publish(COUNT, BODY_BYTES)
        cluster.hosts.settle()
    client = cluster.ask("b")
    tokens = [
        m.Token(token.holder, token.ordinal, range(number, number + 1))
        for token in client.in_hands()
        for number in token.run
        if number not in stuck
    ]
    client.settle(tokens, Outcome.ACKED)
    cluster.hosts.advance(100)
    return cluster


def body_bytes(node: QueueNode, queue: int) -> int:
    """Bytes of all entries on its disk."""
    group = node.image.groups[queue]
    return sum(len(entry.payload) for entry in group.entries.values() if entry.kind == DATA)


def take_snapshots(cluster: QueueCluster, looks: int = 3) -> None:
    for node in cluster.nodes.values():
        node.snapshot(cluster.queue)
    cluster.hosts.settle()
    cluster.hosts.advance(int(looks * LOOK_S * 1_000))


def test_one_message_of_each_hundred_keeps_no_more_than_itself(cluster: QueueCluster) -> None:
    nodes = [*cluster.nodes.values()]
    assert all(body_bytes(node, cluster.queue) > 3 * COUNT * BODY_BYTES for node in nodes)
    take_snapshots(cluster)
    assert all(body_bytes(node, cluster.queue) < 10 * BODY_BYTES for node in nodes)
    before = {node.name: node.image.groups[cluster.queue].entries.copy() for node in nodes}
    take_snapshots(cluster)
    after = {node.name: node.image.groups[cluster.queue].entries for node in nodes}
    assert after == before, "it is done once"


def test_what_is_left_is_handed_out_by_whoever_leads_next(cluster: QueueCluster) -> None:
    take_snapshots(cluster)
    cluster.nodes[cluster.leader()].kill()
    cluster.hosts.advance(3_000)
    client = cluster.ask("b")
    client.settle(client.in_hands(), Outcome.NACK_REQUEUED)
    cluster.hosts.advance(3_000)
    held = sorted(number for token in client.in_hands() for number in token.run)
    assert held == [1, 1 + COUNT, 3 * COUNT]


def test_what_cannot_be_rewritten_is_left_after_a_while(
    cluster: QueueCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until another snapshot finds it."""
    nodes = [*cluster.nodes.values()]
    for node in nodes:
        monkeypatch.setattr(node.host, "rewrite", lambda *_: False)
    take_snapshots(cluster, LOOKS_MAX + 5)
    assert all(body_bytes(node, cluster.queue) > 3 * COUNT * BODY_BYTES for node in nodes)
    assert not any(node.hosting.compaction._due for node in nodes)
    monkeypatch.undo()
    cluster.ask("b").publish(1)
    cluster.hosts.advance(100)
    take_snapshots(cluster)
    assert all(body_bytes(node, cluster.queue) < 10 * BODY_BYTES for node in nodes)


def test_where_there_is_room_for_votes_only_nothing_is_rewritten(cluster: QueueCluster) -> None:
    nodes = [*cluster.nodes.values()]
    for node in nodes:
        node.snapshot(cluster.queue)
    cluster.hosts.settle()
    for node in nodes:
        node.store.has_room = node.store.may_grow = node.store.takes_entries = False
    cluster.hosts.advance(int(3 * LOOK_S * 1_000))
    assert all(body_bytes(node, cluster.queue) > 3 * COUNT * BODY_BYTES for node in nodes)
    for node in nodes:
        node.store.has_room = node.store.may_grow = node.store.takes_entries = True
    cluster.hosts.advance(int(3 * LOOK_S * 1_000))
    assert all(body_bytes(node, cluster.queue) < 10 * BODY_BYTES for node in nodes)


@pytest.fixture
def full() -> QueueCluster:
    """All disks have room for votes only; all messages are dead, and no snapshot says so."""
    cluster = consumed(set())
    for node in cluster.nodes.values():
        assert body_bytes(node, cluster.queue) > 3 * COUNT * BODY_BYTES
        node.store.has_room = node.store.may_grow = node.store.takes_entries = False
    return cluster


def test_where_there_is_room_for_votes_only_what_is_dead_is_freed(full: QueueCluster) -> None:
    """However much was applied."""
    full.hosts.advance(10_000)
    assert [body_bytes(node, full.queue) for node in full.nodes.values()] == [0] * 3


def test_where_there_is_room_for_votes_only_no_large_state_is_written(
    full: QueueCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state may have grown since the last snapshot."""
    monkeypatch.setattr(group_background, "FULL_BYTES", 10)
    nodes = [*full.nodes.values()]
    before = [node.host.group(full.queue).status.floor for node in nodes]
    full.hosts.advance(10_000)
    assert [node.host.group(full.queue).status.floor for node in nodes] == before
    for node in nodes:
        node.store.takes_entries = True
    full.hosts.advance(10_000)
    assert [body_bytes(node, full.queue) for node in nodes] == [0] * 3


def test_a_node_that_has_ended_looks_for_nothing(
    cluster: QueueCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process may go on without the node, and its store is closed."""
    asked: list[object] = []

    def rewrite(store: MemoryRaftLog, *_args: object) -> bool:
        asked.append(store)
        return False

    monkeypatch.setattr(MemoryRaftLog, "rewrite", rewrite)
    for node in cluster.nodes.values():
        node.snapshot(cluster.queue)
    cluster.hosts.settle()
    ended = cluster.nodes["c"]
    ended.host.stop()
    cluster.hosts.advance(int(3 * LOOK_S * 1_000))
    assert cluster.nodes["a"].store in asked
    assert ended.store not in asked
    group = next(iter(ended.host.groups))
    assert not ended.host.rewrite(group, 1, bytes), "whoever asks"
    assert ended.store not in asked
