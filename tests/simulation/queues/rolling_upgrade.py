"""Rule 21: an entry is of no version that a member has not announced, or cannot read.

In some runs all nodes begin with an older fluffle, and are stopped and started with a newer one in
turn, or run the newer one after any crash.  Nobody goes back, and meanwhile no queue comes to be
where it was not: a member that comes late to a log of which it cannot read all stops, as it says.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.quorum.entry_codec import FIRST_VERSION, VERSION, version_of
from fluffle.broker.queues.quorum.state import QueueImage
from fluffle.raft.config import Configuration, Member, NodeId
from fluffle.raft.log import CONFIG, DATA, Entry
from tests.simulation.facts import Violation
from tests.simulation.profile import Profile
from tests.simulation.virtual_time import SECOND_US
from tests.simulation.workload import Workload

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

UPGRADED_EVERY_S = 3

NEVER_US = 1 << 60

HURTS = ("flip", "wipe", "go back", "roll back", "relapse")
"""After these a node may have to come back to its queues as another member."""


class InstalledVersions:
    """Versions of fluffle on the machines, by the newest one that each reads."""

    def __init__(self, cluster: Cluster, chance: Random) -> None:
        self.is_mixed = chance.random() < 0.25
        self._cluster = cluster
        self._chance = chance
        first = FIRST_VERSION if self.is_mixed else VERSION
        self.reads: dict[NodeId, int] = dict.fromkeys(cluster.names, first)
        self._due = chance.sample(cluster.names, len(cluster.names)) if self.is_mixed else []
        """Nodes to upgrade, the last one next."""

    def shape(self, profile: Profile) -> None:
        """While nodes differ no queue comes to another."""
        if self.is_mixed:
            profile.workload.rates["grow or shrink"] = 0.0
            profile.fault_rates.update(dict.fromkeys(HURTS, 0.0))

    def begins_again(self, node: NodeId) -> None:
        """Start a node again, perhaps with the newer version."""
        if self._chance.random() < 0.3:
            self.reads[node] = VERSION

    def upgrade(self, workload: Workload) -> None:
        """All in turn, as an operator does it: who is next, after a while."""
        if self._due:
            delay_us = int(self._chance.expovariate(1 / UPGRADED_EVERY_S) * SECOND_US)
            self._cluster.clockwork.after(delay_us, self._upgrade, workload)

    def _upgrade(self, workload: Workload) -> None:
        if not self._due:
            return
        clockwork, down_us = self._cluster.clockwork, 0
        if not workload.is_steady:
            node, down_us = self._due.pop(), int(self._chance.random() * SECOND_US)
            self._cluster.kill(node, is_silent=False)
            self.reads[node] = VERSION
            clockwork.after(down_us, self._cluster.start, node)
        clockwork.after(down_us, self.upgrade, workload)

    def stay(self) -> None:
        """Upgrade no other node."""
        self._due.clear()


class PeerVersions:
    """Versions of entries that nodes read, as one process knows them."""

    def __init__(self, node: NodeId, reads: int) -> None:
        """`reads`: the newest that it reads itself."""
        self._node = node
        self.reads = reads
        self._others: dict[NodeId, int] = {}
        """Versions that peers reported when they were dialled last."""
        self._since_us: dict[tuple[NodeId, int], int] = {}
        """When a node has first said that it reads a version."""

    def heard(self, node: NodeId, reads: int, now_us: int) -> None:
        self._others[node] = reads
        for version in range(reads + 1):
            self._since_us.setdefault((node, version), now_us)

    def reads_of(self, node: NodeId) -> int:
        """0 of who has said nothing yet."""
        return self.reads if node == self._node else self._others.get(node, 0)

    def since_us(self, node: NodeId, version: int) -> int:
        """Since when it is known that a node reads this version."""
        if node == self._node:
            return 0 if self.reads >= version else NEVER_US
        return self._since_us.get((node, version), NEVER_US)


class EntryVersionChecks:
    """Checks of the versions of the entries of one queue.

    The first of each matters: whoever is added later has to read it in any case.

    A leader decides on what is in an entry, and in which version it is written, and proposes it
    later, when the log takes it.  A member that is added meanwhile is not asked: see `encode`.  So
    an entry may be of any version that all members of some configuration had announced since its
    leader began.
    """

    def __init__(self, definition: QueueDefinition, reads: dict[NodeId, int]) -> None:
        self._reads = reads
        self._config = Configuration.initial(definition.founders)
        self.seen: set[int] = set()
        self._term = 0
        """Term of the last entry."""
        self._lawful = FIRST_VERSION
        """Newest version that all members of a former configuration had announced while it counted
        in this term."""

    def apply(self, entry: Entry, before: QueueImage) -> None:
        """The next, and the image without it."""
        if entry.term != self._term:
            self._term, self._lawful = entry.term, FIRST_VERSION
        if entry.kind == CONFIG:
            self._lawful = max(self._lawful, self._announced(before))
            self._config = Configuration.decode(entry.payload)
        elif entry.kind == DATA:
            version = version_of(entry.payload)
            if version in self.seen:
                return
            self.seen.add(version)
            if version > self._lawful:
                self._check(entry.index, version, before)

    def _announced(self, image: QueueImage) -> int:
        """Newest version that each member has announced, and reads."""
        return min(min(self._known(member, image)) for member in self._config.members)

    def _known(self, member: Member, image: QueueImage) -> tuple[int, int]:
        """Version that a member has announced, and the one that its node reads."""
        name = f"{member.node} {member.incarnation}"
        return image.state.versions.get(name, FIRST_VERSION), self._reads[member.node]

    def _check(self, index: int, version: int, image: QueueImage) -> None:
        for member in self._config.members:
            said, reads = self._known(member, image)
            if version > min(said, reads):
                raise Violation(
                    f"rule 21: {index} is of version {version}, {member.node} {member.incarnation} "
                    f"has announced {said}, and reads {reads}"
                )
