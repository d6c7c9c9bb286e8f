"""Groups of toys, and what is asked of them: puts, settlements, new groups, the end of others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from random import Random

from fluffle.broker.cluster.ports import Links
from fluffle.raft.config import NodeId
from fluffle.raft.leader import ProposalRefused
from fluffle.raft.log import GroupId
from tests.simulation.cluster import Cluster
from tests.simulation.process import GroupServices, Process, Toys
from tests.simulation.profile import Profile
from tests.simulation.toy import put, settle
from tests.simulation.workload import Workload

LIVE_MAX = 60
"""A backlog beyond this is settled down."""
UNCOMMITTED_MAX = 60
"""Entries that may wait for their commit before clients hold back, as with confirms."""
GROUPS_MAX = 8


class ToyClient:
    """An `Application` of toy queues."""

    def __init__(self) -> None:
        self.kinds: Mapping[str, Callable[[Workload], None]] = {
            "publish": self.publish,
            "settle": self.settle,
            "begin": begin_group,
            "end": end_group,
        }
        self.fixed: Collection[GroupId] = ()
        self._puts = 0

    def shape(self, chance: Random, profile: Profile) -> None:
        """Keep the drawn profile."""

    def join(self, cluster: Cluster) -> None: ...

    def promote(self, process: Process, links: Links) -> GroupServices:
        return Toys(process)

    def serves(self, node: NodeId) -> bool:
        """Always True: a running node serves."""
        return True

    def begin(self, workload: Workload) -> None:
        for _ in range(workload.profile.groups):
            create(workload)

    def propose(self, workload: Workload, group: GroupId) -> None:
        """Propose one put."""
        process = workload.leader(group)
        if process is not None:
            process.feed(self._put, process, group, workload, 1)

    def unfinished(self) -> str | None:
        """Whatever is in the images is as good as anything else."""
        return None

    def end(self) -> None: ...

    def publish(self, workload: Workload) -> None:
        count = 1 + int(workload.chance.random() ** 2 * workload.profile.batch_max)
        workload.ask(self._put, workload, count)

    def settle(self, workload: Workload) -> None:
        workload.ask(self._settle, workload)

    # What is asked, from within a turn

    def _put(self, process: Process, group: GroupId, workload: Workload, count: int) -> None:
        if group not in process.members or uncommitted(workload, process, group) > UNCOMMITTED_MAX:
            return
        for _ in range(count):
            self._puts += 1
            padding = int(workload.chance.random() ** 4 * workload.profile.padding_max)
            propose(process, group, put(self._puts, padding))

    def _settle(self, process: Process, group: GroupId, workload: Workload) -> None:
        """Mostly the oldest, but some stay long."""
        image = process.images.get(group)
        live = image.live() if image is not None else []
        if not live:
            return
        excess = max(0, len(live) - LIVE_MAX)
        chance, keep = workload.chance, workload.chance.random()
        chosen = [i for n, i in enumerate(live) if n < excess or chance.random() > keep]
        if chosen:
            propose(process, group, settle(chosen))


def propose(process: Process, group: GroupId, payload: bytes) -> None:
    try:
        process.multi.group(group).propose(payload)
    except ProposalRefused:
        return


def uncommitted(workload: Workload, process: Process, group: GroupId) -> int:
    """How many entries wait."""
    facts = workload.cluster.watch.facts
    replica = facts.replicas[process.node].get(group)
    return replica.log.last - facts.group(group).commit if replica is not None else 0


def create(workload: Workload) -> None:
    """A new group, on some of the nodes."""
    names = workload.cluster.names
    count = min(workload.profile.members, len(names))
    workload.cluster.registry.create(sorted(workload.chance.sample(names, count)))


def begin_group(workload: Workload) -> None:
    if len(workload.cluster.registry.living()) < GROUPS_MAX:
        create(workload)


def end_group(workload: Workload) -> None:
    spec = workload.some_group()
    if spec is not None and len(workload.cluster.registry.living()) > 1:
        workload.cluster.registry.delete(spec)
