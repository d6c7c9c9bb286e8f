"""Registry of groups, as the metadata of a real cluster: which exist, where, and which are gone.

It is simply right, and nodes hear of it late.  A node creates what it is a member of, and deletes
what has a tombstone, or what it was removed from by a committed change.  A member whose disk was
lost is *burnt*: it must never be made again, but be removed and come back as another incarnation.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluffle.raft.config import Configuration, Member, NodeId
from fluffle.raft.log import GroupId
from fluffle.raft.output import ConfigChange
from tests.simulation.process import Process
from tests.simulation.virtual_time import MS_US

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster


@dataclass(slots=True)
class GroupSpec:
    """Specification of one group."""

    group: GroupId
    initial: Configuration
    wanted: set[NodeId]
    """Where it is to be; whoever looks after it makes it so, change by change."""
    config: Configuration
    """The latest that is known to be committed."""
    config_index: int = 0
    is_deleted: bool = False
    is_defined: bool = False
    """True if nodes know by themselves where it is to be, and see to it."""
    burnt: set[Member] = field(default_factory=set)


class Registry:
    """Registry of a cluster."""

    def __init__(self, cluster: "Cluster") -> None:
        self._cluster = cluster
        self._chance = cluster.clockwork.chance("registry")
        self._next_group = 1
        self.groups: dict[GroupId, GroupSpec] = {}

    def living(self) -> list[GroupSpec]:
        return [spec for spec in self.groups.values() if not spec.is_deleted]

    def create(self, nodes: list[NodeId]) -> GroupSpec:
        group, self._next_group = self._next_group, self._next_group + 1
        self.found(group, Configuration.initial(nodes))
        return self.groups[group]

    def found(self, group: GroupId, config: Configuration, *, is_defined: bool = False) -> None:
        """Record a new group with its id."""
        nodes = {voter.node for voter in config.voters}
        self.groups[group] = GroupSpec(group, config, nodes, config, is_defined=is_defined)
        self.look_into(group)

    def delete(self, spec: GroupSpec) -> None:
        """A tombstone, for good."""
        spec.is_deleted = True
        self.look_into(spec.group)

    def burn(self, node: NodeId, group: GroupId) -> None:
        """Mark this node's member of a group as lost."""
        spec = self.groups[group]
        for config in (spec.initial, spec.config):
            member = config.member_on(node)
            if member is not None:
                spec.burnt.add(member)

    def configured(self, node: NodeId, change: ConfigChange) -> None:
        """Record a committed configuration."""
        spec = self.groups[change.group]
        if change.index > spec.config_index:
            spec.config_index, spec.config = change.index, change.config
            self.look_into(change.group)

    def started(self, process: Process) -> None:
        for group in self.groups:
            self._plan(process, group)

    def look_into(self, group: GroupId) -> None:
        """Have every node compare what it has with what is so."""
        for process in self._cluster.alive():
            self._plan(process, group)

    def _plan(self, process: Process, group: GroupId) -> None:
        delay_us = int(self._chance.expovariate(1 / (50 * MS_US)))
        self._cluster.clockwork.after(delay_us, process.feed, self._compare, process, group)

    def _compare(self, process: Process, group: GroupId) -> None:
        spec = self.groups[group]
        if spec.is_defined:
            return
        had = process.members.get(group)
        member = spec.config.member_on(process.node)
        is_outdated = member is None or (had is not None and member.incarnation > had)
        if had is not None and (spec.is_deleted or is_outdated):
            if not spec.is_deleted and process.leads(group):
                # It hands over first: its node is alive, so the others would wait for it.  Unless
                # they have another leader, and removed this one while it was cut off.
                process.ask_around(group)
                self._plan(process, group)
                return
            process.services.leave(group)
            if not spec.is_deleted:
                self.look_into(group)
            return
        if had is not None or spec.is_deleted:
            return
        if member is None or member in spec.burnt:
            return
        config = spec.initial if member in spec.initial.voters else Configuration()
        process.services.join(group, member.incarnation, config)
