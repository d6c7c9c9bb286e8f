"""A queue that is deleted while its leader has entries under way."""

from __future__ import annotations

from fluffle.broker.cluster.queues.quorum_member import QuorumQueueMember
from tests.support.queue_nodes import QueueCluster


def test_a_queue_that_is_deleted_is_not_led_anew() -> None:
    cluster = QueueCluster()
    cluster.declare()
    cluster.hosts.settle()
    node = cluster.nodes["a"]
    group = node.hub.leading.queues[cluster.queue]
    assert isinstance(group, QuorumQueueMember)
    for other in "bc":
        cluster.hosts.network.cut("a", other)
    cluster.ask("a").publish(1)
    cluster.hosts.advance(5, step_ms=1)
    led = group.member.leadership
    assert led is not None
    assert group.member._under_way, "nobody commits it"
    node.host.delete(cluster.queue)
    cluster.hosts.advance(5, step_ms=1)
    assert led.is_over
    assert group.member.leadership is None
