"""At the end of a run: of two consumers who have room, all goes to the one of higher priority."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from fluffle.broker.cluster.ports import METADATA_GROUP
from fluffle.broker.queues.queue_api import Outcome
from tests.simulation.facts import Violation
from tests.simulation.queues.queue_clients import ConsumerSink, QueueClients

if TYPE_CHECKING:
    from tests.simulation.queues.queue_cluster import QueueCluster

MESSAGES = 10
"""Fewer than any consumer has room for."""
STILL = 4
"""So many looks in a row at which nothing is under way: leaders know then how much there is room
for."""


PATIENT_MS = 1 << 40
"""Neither is to lose what it has got before all is handed out."""


class ConsumerPriorityCheck:
    """Check of a queue, one step at each look, until it is decided."""

    def __init__(self, queue_cluster: QueueCluster, chance: Random) -> None:
        self._queue_cluster = queue_cluster
        self._chance = chance
        self._clients: list[QueueClients] = []
        """All of the queue."""
        self._low: ConsumerSink
        self._high: ConsumerSink
        self._first = 0
        """First of the messages that are for them."""
        self._still = 0
        self._begun = self._published = self._is_over = False

    def look(self) -> str | None:
        """Reason to wait; None when it is over."""
        if self._is_over:
            return None
        if not self._begun and not self._begin():
            self._is_over = True
            return None
        if any(len(client.session.pending) for client in self._clients):
            self._still = 0
        self._still += 1
        if self._still > STILL:
            self._still = 0
            self._step()
        return "two consumers compete"

    def _begin(self) -> bool:
        """Attach the two consumers, the only ones, one before the other."""
        living = [each.group for each in self._queue_cluster.cluster.registry.living()]
        groups = [group for group in living if group != METADATA_GROUP]
        queue_nodes = self._queue_cluster.queue_nodes()
        if not groups:
            return False
        group = self._chance.choice(groups)
        self._clients = [queue_node.clients[group] for queue_node in queue_nodes]
        for client in self._clients:
            client.leave()
        priorities = self._chance.sample((0, 5), 2)
        for priority in priorities:
            client = self._chance.choice(self._clients)
            made = client.attach(no_ack=False, prefetch=0, priority=priority, timeout_ms=PATIENT_MS)
            if priority:
                self._high = made
            else:
                self._low = made
        self._begun = True
        return True

    def _step(self) -> None:
        checker = self._queue_cluster.checkers[self._clients[0].session.group]
        if not self._published:
            self._published = True
            self._first = checker.image.state.next_sequence
            self._chance.choice(self._clients).publish(MESSAGES)
            return
        high = self._high.clients.session.keys[self._high.number]
        for sequence in range(self._first, self._first + MESSAGES):
            holder = checker.holders.get(sequence)
            if holder not in (None, high):  # or there was no room for it
                raise Violation(f"priorities: {sequence} is handed to {holder}, not to {high}")
        for client in self._clients:
            if held := client.in_hands():
                client.settle(held, Outcome.ACKED)
        self._is_over = True
