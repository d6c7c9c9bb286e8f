"""What clients and operators ask of groups: puts, settlements, reads, snapshots, moves, changes.

Every kind comes at random moments with a rate of its own.  Each asks somebody who may not be the
leader, or not any more, as in life; a refusal is an answer.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from fluffle.raft.config import AddLearner, Change, NodeId, Promote, Remove
from fluffle.raft.group import Group
from fluffle.raft.output import Readable, Role
from fluffle.raft.records import GroupId
from fluffle.raft.refused import Refused
from tests.simulation.clockwork import SECOND_US
from tests.simulation.cluster import Cluster
from tests.simulation.facts import Violation
from tests.simulation.process import UNASKED, Process
from tests.simulation.registry import GroupSpec
from tests.simulation.toy import put, settle

LIVE_MAX = 60
"""A backlog beyond this is settled down."""
UNCOMMITTED_MAX = 60
"""Entries that may wait for their commit before clients hold back, as with confirms."""


@dataclass(slots=True)
class WorkloadProfile:
    """How often a second, in the whole cluster; 0: never."""

    rates: dict[str, float] = field(default_factory=dict)
    """By the names of `KINDS`."""
    groups: int = 1
    batch_max: int = 4
    padding_max: int = 200
    members: int = 3


class Workload:
    """Goes on until `stop`; the looking after of members goes on to the end."""

    def __init__(self, cluster: Cluster, profile: WorkloadProfile) -> None:
        self._cluster = cluster
        self._profile = profile
        self._chance: Random = cluster.clockwork.chance("workload")
        self._is_stopped = False
        self._is_steady = False
        self.away: list[tuple[GroupSpec, NodeId]] = []
        """Members that were sent away, to come back before long."""
        self._puts = 0
        self._reads: dict[int, tuple[GroupId, int]] = {}
        """Context -> group, and what was committed when it was asked for."""
        self.accepted: dict[tuple[GroupId, int, int], bytes] = {}
        """(group, index, term) -> what was proposed there."""
        cluster.watch.read.append(self._answered)

    def start(self) -> None:
        for _ in range(self._profile.groups):
            self.create()
        for name, rate in self._profile.rates.items():
            if rate:
                self._plan(KINDS[name], rate)
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

    def bring_back(self) -> None:
        """Who is away is wanted again."""
        for spec, node in self.away:
            spec.wanted.add(node)
        self.away.clear()

    def create(self) -> None:
        """A new group, on some of the nodes."""
        count = min(self._profile.members, len(self._cluster.names))
        nodes = self._chance.sample(self._cluster.names, count)
        self._cluster.registry.create(sorted(nodes))

    def propose(self, group: GroupId) -> None:
        """One put, to whoever leads."""
        process = self._leader(group)
        if process is not None:
            process.feed(self._put, process, group, 1)

    def some_group(self) -> GroupSpec | None:
        living = self._cluster.registry.living()
        return self._chance.choice(living) if living else None

    def _plan(self, kind: Callable[["Workload"], None], rate: float) -> None:
        delay_us = int(self._chance.expovariate(rate) * SECOND_US)
        self._cluster.clockwork.after(delay_us, self._go, kind, rate)

    def _go(self, kind: Callable[["Workload"], None], rate: float) -> None:
        if not self._is_stopped:
            kind(self)
            self._plan(kind, rate)

    # Whom to ask

    def _leader(self, group: GroupId) -> Process | None:
        """Whoever leads in the latest term, of those that live."""
        replicas = self._cluster.watch.facts.replicas
        found: Process | None = None
        top = 0
        for process in self._cluster.alive():
            replica = replicas[process.node].get(group)
            if replica is not None and replica.role is Role.LEADER and replica.term > top:
                found, top = process, replica.term
        return found

    def _asked(self) -> tuple[Process, GroupId] | None:
        """A group, and mostly its leader, sometimes just anybody."""
        spec = self.some_group()
        if spec is None:
            return None
        process = self._leader(spec.group)
        if process is None or self._chance.random() < 0.1:
            alive = self._cluster.alive()
            process = self._chance.choice(alive) if alive else None
        return None if process is None else (process, spec.group)

    def _ask(self, call: Callable[..., None], *args: object) -> None:
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
            except Refused:
                return

    # What is asked, from within a turn

    def _put(self, process: Process, group: GroupId, count: int) -> None:
        if group not in process.members or self._waiting(process, group) > UNCOMMITTED_MAX:
            return
        for _ in range(count):
            self._puts += 1
            padding = int(self._chance.random() ** 4 * self._profile.padding_max)
            self._propose(process, group, put(self._puts, padding))

    def _waiting(self, process: Process, group: GroupId) -> int:
        facts = self._cluster.watch.facts
        replica = facts.replicas[process.node].get(group)
        return replica.log.last - facts.group(group).commit if replica is not None else 0

    def _settle(self, process: Process, group: GroupId) -> None:
        """Mostly the oldest, but some stay long."""
        image = process.images.get(group)
        live = image.live() if image is not None else []
        if not live:
            return
        excess = max(0, len(live) - LIVE_MAX)
        keep = self._chance.random()
        chosen = [i for n, i in enumerate(live) if n < excess or self._chance.random() > keep]
        if chosen:
            self._propose(process, group, settle(chosen))

    def _propose(self, process: Process, group: GroupId, payload: bytes) -> None:
        try:
            position = process.multi.group(group).propose(payload)
        except Refused:
            return
        self.accepted[group, position.index, position.term] = payload

    def _read(self, process: Process, group: GroupId) -> None:
        context = len(self._reads) + 1
        self._reads[context] = group, self._cluster.watch.facts.group(group).commit
        process.multi.group(group).read_index(context)

    def _answered(self, node: str, readable: Readable) -> None:
        """17: an answer is at least as new as the question."""
        if readable.index is None or readable.context == UNASKED:
            return
        group, commit = self._reads[readable.context]
        applied = self._cluster.watch.facts.replicas[node][group].applied
        if readable.index < commit or applied < readable.index:
            raise Violation(
                f"inv 17: {node} may read {readable}, {applied} are applied there and {commit} "
                f"were committed when it was asked"
            )

    def _transfer(self, process: Process, group: GroupId) -> None:
        target = self._chance.choice(self._cluster.names)
        process.multi.group(group).transfer(target)

    # Looking after members

    def _look_after(self) -> None:
        """One step for each group towards the members that are wanted; and a look at the disks."""
        for running in self._cluster.alive():
            machine = self._cluster.machines[running.node]
            if machine.has_damage:
                running.feed(running.scrub)
                for group in machine.damaged_groups:  # what is not live any more goes by this
                    running.feed(running.snapshot, group)
        for spec in self._cluster.registry.living():
            process = self._leader(spec.group)
            if process is not None:
                process.feed(self._guarded, process, spec.group, self._step, (spec,))
        delay_us = int(SECOND_US * (0.1 + self._chance.random() * 0.4))
        self._cluster.clockwork.after(delay_us, self._look_after)

    def _step(self, process: Process, group: GroupId, spec: GroupSpec) -> None:
        found = process.multi.group(group)
        change = next_change(found, spec, is_hurt=is_hurt(self._cluster, spec))
        if change is not None:
            found.change(change)


def is_hurt(cluster: Cluster, spec: GroupSpec) -> bool:
    """Whether a member has lost something of its disk: then nobody else is sent away."""
    stored = cluster.watch.facts.stored
    return any(
        member in spec.burnt
        or ((found := stored[member.node].get(spec.group)) is not None and bool(found.quarantine))
        or cluster.machines[member.node].is_hurt
        for member in spec.config.members
    )


def next_change(group: Group, spec: GroupSpec, *, is_hurt: bool) -> Change | None:
    """Burnt members go first; then who is missing comes, and who is not wanted goes."""
    config = group.status.config
    for member in config.members:
        if member in spec.burnt:
            return Remove(member.node)
    for learner in config.learners:
        if learner.node in spec.wanted:
            return Promote(learner.node)
    for node in sorted(spec.wanted):
        if config.member_on(node) is None:
            return AddLearner(node)
    for member in config.members:
        if member.node not in spec.wanted and not is_hurt:
            return Remove(member.node)
    return None


# What comes by itself


def publish(workload: Workload) -> None:
    count = 1 + int(workload._chance.random() ** 2 * workload._profile.batch_max)
    workload._ask(workload._put, count)


def settle_some(workload: Workload) -> None:
    workload._ask(workload._settle)


def read(workload: Workload) -> None:
    workload._ask(workload._read)


def transfer(workload: Workload) -> None:
    workload._ask(workload._transfer)


def compact(workload: Workload) -> None:
    """Anybody makes a snapshot of what it has."""
    alive, spec = workload._cluster.alive(), workload.some_group()
    if alive and spec is not None:
        process = workload._chance.choice(alive)
        process.feed(process.snapshot, spec.group)


def move(workload: Workload) -> None:
    """Other members are wanted: one more, one less, or another."""
    spec, chance = workload.some_group(), workload._chance
    if spec is None or workload._is_steady:
        return
    outside = sorted(set(workload._cluster.names) - spec.wanted)
    what = chance.random()
    if outside and what < 0.7:
        spec.wanted.add(chance.choice(outside))
    if len(spec.wanted) > 1 and what > 0.3:
        spec.wanted.discard(chance.choice(sorted(spec.wanted)))


def rejoin(workload: Workload) -> None:
    """A member leaves, and is wanted again before long: it comes back as another incarnation."""
    spec, chance = workload.some_group(), workload._chance
    if spec is None or workload._is_steady or len(spec.wanted) == 1:
        return
    node = chance.choice(sorted(spec.wanted))
    spec.wanted.discard(node)
    workload.away.append((spec, node))
    workload._cluster.clockwork.after(int(SECOND_US * chance.random()), workload.bring_back)


def begin_group(workload: Workload) -> None:
    if len(workload._cluster.registry.living()) < 8:
        workload.create()


def end_group(workload: Workload) -> None:
    spec = workload.some_group()
    if spec is not None and len(workload._cluster.registry.living()) > 1:
        workload._cluster.registry.delete(spec)


KINDS: dict[str, Callable[[Workload], None]] = {
    "publish": publish,
    "settle": settle_some,
    "read": read,
    "transfer": transfer,
    "compact": compact,
    "move": move,
    "rejoin": rejoin,
    "begin": begin_group,
    "end": end_group,
}
