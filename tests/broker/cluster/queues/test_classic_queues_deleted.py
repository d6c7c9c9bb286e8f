"""The remains of queues of a cluster that were deleted, at their home and elsewhere: nothing."""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path

from fluffle.broker.cluster.queues.classic_queues import ClassicQueueHost
from fluffle.broker.cluster.queues.session_queue import SessionQueue
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.queues.engine import Queue
from fluffle.broker.vhosts.queue_changes import declare_queue, delete_queue
from tests.support.cluster_nodes import ClusterNode, running_cluster

PARTS = (Queue, SessionQueue, ClassicQueueHost)


def parts_there() -> Counter[str]:
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, PARTS))


async def declare_and_delete(node: ClusterNode, name: str) -> None:
    """All nodes know of both."""
    vhost = node.node.catalogue.vhosts["/"]
    await node.change(lambda: declare_queue(vhost, Declaration(name), None))
    await node.change(lambda: delete_queue(vhost, vhost.queues[name]))


async def test_a_deleted_queue_needs_no_collector(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as three:
        await declare_and_delete(three["a"], "first")
        await three.agree()
        gc.collect()
        gc.disable()
        try:
            before = parts_there()
            for node in three:
                await declare_and_delete(node, f"of {node.name}")
            await three.agree()
            assert parts_there() == before
        finally:
            gc.enable()
