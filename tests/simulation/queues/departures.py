"""Departures: all clients of a queue that expires leave while its followers' disks stand still.

Its leader decides that they are gone, and that is not committed for longer than the queue is to be
there without them, though the leader is sure that it leads: heartbeats need no disk.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from fluffle.protocol.types import FieldTable
from fluffle.raft.records import GroupId
from tests.simulation.queues.station import Station
from tests.simulation.virtual_time import MS_US
from tests.simulation.workload import Workload

if TYPE_CHECKING:
    from tests.simulation.queues.town import Town

SHARE = 0.2
"""Of runs that have such a queue."""
QUEUE = "expiring"
EXPIRES_MS = 1_000
ARGUMENTS: FieldTable = {"x-queue-type": ("S", b"quorum"), "x-expires": ("l", EXPIRES_MS)}
STALL_MS = EXPIRES_MS + 500
"""For how long disks stand still."""
LOOK_MS = 300, 1_200
"""Shortest and longest time from one step to the next; it comes, is used, and left."""


class Departures:
    """Departures of one run."""

    def __init__(self, town: Town, chance: Random) -> None:
        self._town = town
        self._chance = chance

    def begin(self, workload: Workload) -> None:
        self._workload = workload
        if self._chance.random() < SHARE:
            self._later()

    def _later(self) -> None:
        after_us = self._chance.randint(*LOOK_MS) * MS_US
        self._town.cluster.clockwork.after(after_us, self._look)

    def _look(self) -> None:
        if self._workload.is_stopped:
            return
        stations = self._town.open_stations()
        if stations and not self._workload.is_steady:
            self._step(self._chance.choice(stations))
        self._later()

    def _step(self, station: Station) -> None:
        queue = station.defining.vhost.queues.get(QUEUE) if station.defining.vhost else None
        if queue is None:
            station.defining.declare(QUEUE, ARGUMENTS)
            return
        group = queue.definition.id
        if (client := station.clients.get(group)) is None:
            return
        if self._town.book(group).idleness.has_consumers:
            self._depart(group)
        else:
            client.attach(no_ack=False, prefetch=1)

    def _depart(self, group: GroupId) -> None:
        cluster, leader = self._town.cluster, self._workload.leader(group)
        if leader is None:
            return
        for voter in cluster.registry.groups[group].config.voters:
            if voter.node != leader.node:
                disk = cluster.machines[voter.node].disk
                disk.is_stalled = True
                cluster.clockwork.after(STALL_MS * MS_US, disk.resume)
        for station in self._town.stations():
            if (client := station.clients.get(group)) is not None:
                client.leave()
