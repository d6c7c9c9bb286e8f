"""x-consumer-disconnected-timeout: how long consumers behind a partition keep what they hold."""

from __future__ import annotations

import pytest

from fluffle.broker.cluster.queue_sessions.session_server import (
    CONSUMER_DISCONNECTED_MS as A_MINUTE,
)
from fluffle.raft.leader import ProposalRefused
from tests.support.queue_nodes import QueueCluster

TICK_MS = 1_000
"""A leader looks once in so many."""


def parted(timeout_ms: int | None) -> QueueCluster:
    """A consumer at c has a message in hands, and nobody reaches c any more."""
    cluster = QueueCluster()
    cluster.declare(consumer_disconnected_timeout=timeout_ms)
    cluster.hosts.settle()
    cluster.ask("c").attach(credit=1, no_ack=False, prefetch=1)
    cluster.ask("b").publish(1)
    cluster.hosts.advance(1_000, step_ms=100)
    assert len(cluster.clients["c"].in_hands()) == 1
    for name in "ab":
        cluster.hosts.network.cut("c", name)
    return cluster


def held_and_ready(cluster: QueueCluster) -> tuple[int, int]:
    """Held and ready messages, on record at the majority."""
    groups = (cluster.nodes[name].hosting.groups[cluster.queue] for name in "ab")
    states = [group.replica.image.state for group in groups]
    (reported,) = {(state.held_count, state.waiting_count) for state in states}
    return reported


@pytest.mark.parametrize("timeout_ms", [None, 0, 5_000, 2 * A_MINUTE])
def test_what_is_behind_a_partition_comes_back_then(timeout_ms: int | None) -> None:
    cluster = parted(timeout_ms)
    wait_ms = A_MINUTE if timeout_ms is None else timeout_ms
    if wait_ms:
        cluster.hosts.advance(wait_ms - TICK_MS, step_ms=100)
        assert held_and_ready(cluster) == (1, 0)
    cluster.hosts.advance(3 * TICK_MS, step_ms=100)
    assert held_and_ready(cluster) == (0, 1)


def test_whoever_is_reached_before_keeps_it() -> None:
    cluster = parted(5_000)
    cluster.hosts.advance(3_000, step_ms=100)
    cluster.hosts.network.connect_all("c")
    cluster.hosts.advance(10_000, step_ms=100)
    assert held_and_ready(cluster) == (1, 0)
    assert len(cluster.clients["c"].in_hands()) == 1


def test_the_next_leader_goes_by_it_too() -> None:
    """Later leaders do not know since when the node is unreachable, and count from their
    election."""
    cluster = parted(5_000)
    cluster.hosts.advance(2_000, step_ms=100)
    refused: list[ProposalRefused] = []
    cluster.nodes["a"].host.group(cluster.queue).transfer("b", refused.append)
    cluster.hosts.advance(2_000, step_ms=100)
    assert (cluster.leader(), refused) == ("b", [])
    assert held_and_ready(cluster) == (1, 0)
    cluster.hosts.advance(5_000 + TICK_MS, step_ms=100)
    assert held_and_ready(cluster) == (0, 1)
