"""Requests of clients and operators: reads, snapshots, moves, and what an application adds.

Every kind comes at random moments with a rate of its own.  Each asks somebody who may not be the
leader, or not any more, as in life; a refusal is an answer.  What groups are there for is the
business of a `Application`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Protocol

from fluffle.broker.cluster.ports import Links
from fluffle.raft.config import AddLearner, Change, NodeId, Promote, Remove
from fluffle.raft.group import Group
from fluffle.raft.leader import ProposalRefused
from fluffle.raft.log import GroupId
from fluffle.raft.output import Readable, Role
from tests.simulation.cluster import Cluster
from tests.simulation.facts import Violation
from tests.simulation.process import GroupServices, Process
from tests.simulation.registry import GroupSpec
from tests.simulation.virtual_time import SECOND_US

if TYPE_CHECKING:
    from tests.simulation.profile import Profile


@dataclass(slots=True)
class WorkloadProfile:
    """How often a second, in the whole cluster; 0: never."""

    rates: dict[str, float] = field(default_factory=dict)
    """Rates by the names of `KINDS`, and of those of the application."""
    groups: int = 1
    batch_max: int = 4
    padding_max: int = 200
    members: int = 3


FIRST_CONTEXT = 1 << 40
"""First context of our reads; those of others are lower."""


class Application(Protocol):
    """Application of the groups of a run.

    Kinds are called with the workload, as those of `KINDS`.
    """

    kinds: "Mapping[str, Callable[[Workload], None]]"
    fixed: Collection[GroupId]
    """Groups that are to be everywhere, always."""

    def shape(self, chance: Random, profile: "Profile") -> None:
        """Change what was drawn into what suits it."""

    def join(self, cluster: Cluster) -> None:
        """Before anything is started."""

    def promote(self, process: Process, links: Links) -> GroupServices:
        """Services of a process for its groups, in this boot."""

    def serves(self, node: NodeId) -> bool:
        """True if this node does for groups what is asked of it, or waits for something before."""

    def begin(self, workload: "Workload") -> None:
        """Make the first groups."""

    def propose(self, workload: "Workload", group: GroupId) -> None:
        """Something new for one group, if anybody leads it."""

    def unfinished(self) -> str | None:
        """At the end, when groups are well: what is not yet as it must be."""

    def end(self) -> None:
        """Everything is.  Raises `Violation`."""


class Workload:
    """Goes on until `stop`; the looking after of members goes on to the end."""

    def __init__(
        self, cluster: Cluster, profile: WorkloadProfile, application: Application
    ) -> None:
        self.cluster = cluster
        self.profile = profile
        self.chance: Random = cluster.clockwork.chance("workload")
        self.application = application
        self._is_stopped = False
        self._is_steady = False
        self.away: list[tuple[GroupSpec, NodeId]] = []
        """Members that were sent away, to come back before long."""
        self._reads: dict[int, tuple[GroupId, int]] = {}
        """Context -> group, and what was committed when it was asked for."""
        cluster.watch.read.append(self._answered)

    def start(self) -> None:
        self.application.begin(self)
        kinds = {**KINDS, **self.application.kinds}
        for name, rate in self.profile.rates.items():
            if rate:
                self._plan(kinds[name], rate)
        self._look_after()

    def stop(self) -> None:
        self.hold_still()
        self._is_stopped = True

    def hold_still(self) -> None:
        """From now on members stay where they are: a move may need somebody who is cut off."""
        self._is_steady = True
        self.bring_back()

    def move_on(self) -> None:
        self._is_steady = False

    @property
    def is_steady(self) -> bool:
        return self._is_steady

    @property
    def is_stopped(self) -> bool:
        return self._is_stopped

    def bring_back(self) -> None:
        """Want nodes again that were away."""
        for spec, node in self.away:
            spec.wanted.add(node)
        self.away.clear()

    def propose(self, group: GroupId) -> None:
        """Something new, to whoever leads."""
        self.application.propose(self, group)

    def some_group(self) -> GroupSpec | None:
        living = self.cluster.registry.living()
        return self.chance.choice(living) if living else None

    def some_mobile(self) -> GroupSpec | None:
        """A group whose members may be changed."""
        living = [
            spec
            for spec in self.cluster.registry.living()
            if spec.group not in self.application.fixed and not spec.is_defined
        ]
        chosen = self.chance.choice(living) if living else None
        return None if self._is_steady else chosen

    def _plan(self, kind: Callable[["Workload"], None], rate: float) -> None:
        delay_us = int(self.chance.expovariate(rate) * SECOND_US)
        self.cluster.clockwork.after(delay_us, self._go, kind, rate)

    def _go(self, kind: Callable[["Workload"], None], rate: float) -> None:
        if not self._is_stopped:
            kind(self)
            self._plan(kind, rate)

    # Whom to ask

    def leader(self, group: GroupId) -> Process | None:
        """Live process that leads in the latest term."""
        replicas = self.cluster.watch.facts.replicas
        found: Process | None = None
        top = 0
        for process in self.cluster.alive():
            replica = replicas[process.node].get(group)
            if replica is not None and replica.role is Role.LEADER and replica.term > top:
                found, top = process, replica.term
        return found

    def _asked(self) -> tuple[Process, GroupId] | None:
        """A group, and mostly its leader, sometimes just anybody."""
        spec = self.some_group()
        if spec is None:
            return None
        process = self.leader(spec.group)
        if process is None or self.chance.random() < 0.1:
            alive = self.cluster.alive()
            process = self.chance.choice(alive) if alive else None
        return None if process is None else (process, spec.group)

    def ask(self, call: Callable[..., None], *args: object) -> None:
        asked = self._asked()
        if asked is not None:
            process, group = asked
            process.feed(self._guarded, process, group, call, args)

    def _guarded(
        self, process: Process, group: GroupId, call: Callable[..., None], args: tuple[object, ...]
    ) -> None:
        if group in process.members:
            try:
                call(process, group, *args)
            except ProposalRefused:
                return

    # What is asked, from within a turn

    def _read(self, process: Process, group: GroupId) -> None:
        context = FIRST_CONTEXT + len(self._reads)
        self._reads[context] = group, self.cluster.watch.facts.group(group).commit
        process.multi.group(group).read_index(context)

    def _answered(self, node: str, readable: Readable) -> None:
        """17: an answer is at least as new as the question."""
        if readable.index is None or readable.context < FIRST_CONTEXT:
            return
        group, commit = self._reads[readable.context]
        applied = self.cluster.watch.facts.replicas[node][group].applied
        if readable.index < commit or applied < readable.index:
            raise Violation(
                f"inv 17: {node} may read {readable}, {applied} are applied there and {commit} "
                f"were committed when it was asked"
            )

    def _transfer(self, process: Process, group: GroupId) -> None:
        target = self.chance.choice(self.cluster.names)
        process.multi.group(group).transfer(target)

    # Looking after members

    def _look_after(self) -> None:
        """Take one step for each group towards the wanted members; and look at the disks."""
        for running in self.cluster.alive():
            machine = self.cluster.machines[running.node]
            if machine.has_damage:
                running.feed(running.scrub)
                for group in machine.damaged_groups:  # what is not live any more goes by this
                    running.feed(running.snapshot, group)
        for spec in self.cluster.registry.living():
            process = self.leader(spec.group)
            if process is not None and not spec.is_defined:
                process.feed(self._guarded, process, spec.group, self._step, (spec,))
        delay_us = int(SECOND_US * (0.1 + self.chance.random() * 0.4))
        self.cluster.clockwork.after(delay_us, self._look_after)

    def _step(self, process: Process, group: GroupId, spec: GroupSpec) -> None:
        found = process.multi.group(group)
        change = next_change(found, spec, is_hurt=is_hurt(self.cluster, spec))
        if change is not None:
            found.change(change)


def is_hurt(cluster: Cluster, spec: GroupSpec) -> bool:
    """True if a member has lost something of its disk: then nobody else is sent away."""
    stored = cluster.watch.facts.stored
    return any(
        member in spec.burnt
        or ((found := stored[member.node].get(spec.group)) is not None and bool(found.quarantine))
        or cluster.machines[member.node].is_hurt
        for member in spec.config.members
    )


def next_change(group: Group, spec: GroupSpec, *, is_hurt: bool) -> Change | None:
    """Burnt members go first; then who is missing comes, and who is not wanted goes.

    Nobody becomes one of two while a disk is hurt: without its leader such a group elects nobody.
    """
    config = group.status.config
    for member in config.members:
        if member in spec.burnt:
            return Remove(member.node)
    for learner in config.learners:
        if learner.node in spec.wanted and not (is_hurt and len(config.voters) < 2):
            return Promote(learner.node)
    for node in sorted(spec.wanted):
        if config.member_on(node) is None:
            return AddLearner(node)
    for member in config.members:
        if member.node not in spec.wanted and not is_hurt:
            return Remove(member.node)
    return None


# What comes by itself


def read(workload: Workload) -> None:
    workload.ask(workload._read)


def transfer(workload: Workload) -> None:
    workload.ask(workload._transfer)


def compact(workload: Workload) -> None:
    """Anybody makes a snapshot of what it has."""
    alive, spec = workload.cluster.alive(), workload.some_group()
    if alive and spec is not None:
        process = workload.chance.choice(alive)
        process.feed(process.snapshot, spec.group)


def move(workload: Workload) -> None:
    """Other members are wanted: one more, one less, or another."""
    spec, chance = workload.some_mobile(), workload.chance
    if spec is None:
        return
    outside = sorted(set(workload.cluster.names) - spec.wanted)
    what = chance.random()
    if outside and what < 0.7:
        spec.wanted.add(chance.choice(outside))
    if len(spec.wanted) > 1 and what > 0.3:
        spec.wanted.discard(chance.choice(sorted(spec.wanted)))


def rejoin(workload: Workload) -> None:
    """A member leaves, and is wanted again before long: it comes back as another incarnation."""
    spec, chance = workload.some_mobile(), workload.chance
    if spec is None or len(spec.wanted) == 1:
        return
    node = chance.choice(sorted(spec.wanted))
    spec.wanted.discard(node)
    workload.away.append((spec, node))
    workload.cluster.clockwork.after(int(SECOND_US * chance.random()), workload.bring_back)


KINDS: dict[str, Callable[[Workload], None]] = {
    "read": read,
    "transfer": transfer,
    "compact": compact,
    "move": move,
    "rejoin": rejoin,
}
