"""Departures: all clients of a queue that expires leave while its followers' disks stand still.

Its leader decides that they are gone, and that is not committed for longer than the queue is to be
there without them, though the leader is sure that it leads: heartbeats need no disk.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from fluffle.protocol.wire import FieldTable
from fluffle.raft.log import GroupId
from tests.simulation.queues.queue_node import QueueNode
from tests.simulation.virtual_time import MS_US
from tests.simulation.workload import Workload

if TYPE_CHECKING:
    from tests.simulation.queues.queue_cluster import QueueCluster

SHARE = 0.2
"""Share of runs that have such a queue."""
QUEUE = "expiring"
EXPIRES_MS = 1_000
ARGUMENTS: FieldTable = {"x-queue-type": ("S", b"quorum"), "x-expires": ("l", EXPIRES_MS)}
STALL_MS = EXPIRES_MS + 500
"""Time for which disks stall."""
LOOK_MS = 300, 1_200
"""Shortest and longest time from one step to the next; it comes, is used, and left."""


class ExpiringQueues:
    """ExpiringQueues of one run."""

    def __init__(self, queue_cluster: QueueCluster, chance: Random) -> None:
        self._queue_cluster = queue_cluster
        self._chance = chance

    def begin(self, workload: Workload) -> None:
        self._workload = workload
        if self._chance.random() < SHARE:
            self._later()

    def _later(self) -> None:
        after_us = self._chance.randint(*LOOK_MS) * MS_US
        self._queue_cluster.cluster.clockwork.after(after_us, self._look)

    def _look(self) -> None:
        if self._workload.is_stopped:
            return
        queue_nodes = self._queue_cluster.open_nodes()
        if queue_nodes and not self._workload.is_steady:
            self._step(self._chance.choice(queue_nodes))
        self._later()

    def _step(self, queue_node: QueueNode) -> None:
        queue = queue_node.defining.vhost.queues.get(QUEUE) if queue_node.defining.vhost else None
        if queue is None:
            queue_node.defining.declare(QUEUE, ARGUMENTS)
            return
        group = queue.definition.id
        if (client := queue_node.clients.get(group)) is None:
            return
        if self._queue_cluster.checker(group).queue_expiry_checks.has_consumers:
            self._depart(group)
        else:
            client.attach(no_ack=False, prefetch=1)

    def _depart(self, group: GroupId) -> None:
        cluster, leader = self._queue_cluster.cluster, self._workload.leader(group)
        if leader is None:
            return
        for voter in cluster.registry.groups[group].config.voters:
            if voter.node != leader.node:
                disk = cluster.machines[voter.node].disk
                disk.is_stalled = True
                cluster.clockwork.after(STALL_MS * MS_US, disk.resume)
        for queue_node in self._queue_cluster.queue_nodes():
            if (client := queue_node.clients.get(group)) is not None:
                client.leave()
