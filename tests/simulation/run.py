"""Run from one seed: trouble, maybe a calm in the midst of it, then healing, and an account.

faults ... | calm: nothing changes, a majority can work | faults ... | heal | settle | idle
---------- 60 simulated seconds by default ------------------------- | as long as needed, at most
                                                                       `SETTLE_S`
"""

from collections import Counter, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from fluffle.raft.log import GroupId
from fluffle.raft.messages import Ping
from fluffle.raft.output import Output, Role
from tests.simulation import profile as profiles
from tests.simulation.checks.bounds import unaccounted
from tests.simulation.checks.snapshots import leaked
from tests.simulation.cluster import Cluster
from tests.simulation.facts import Violation
from tests.simulation.faults import (
    DRAWN_APART,
    Fault,
    Faults,
    draw_plan,
    heal,
    may_be_hurt,
    note_mended,
    pairs,
)
from tests.simulation.log_errors import fatal_logs
from tests.simulation.process import Process
from tests.simulation.registry import GroupSpec
from tests.simulation.toy_client import ToyClient
from tests.simulation.virtual_time import MS_US, SECOND_US, VirtualTime
from tests.simulation.workload import Application, Workload

NAMES = ("a", "b", "c", "d", "e")
SETTLE_S = 30
"""So long nothing may come forward: retries back off to two seconds, suspicions take one, changing
members takes several steps.  Small windows on slow links may take longer in all."""
SETTLE_MAX_S = 900
CALM_S = 15
STUCK_S = 5
"""A group that commits nothing in `CALM_S` still sends somebody the log, if that moves."""
IDLE_S = 5

Subject = Callable[[], Application]
"""Function that makes the subject of a run."""


@dataclass(slots=True)
class Account:
    """Account of a run that found nothing."""

    seed: int
    nodes: int
    events: int
    simulated_s: float
    digest: int
    commits: int
    elections: int
    settled_after_s: float
    cpu_s: float = 0.0
    """Processor time of this process; set by the caller."""
    faults: Counter[str] = field(default_factory=Counter)
    """How many of each kind were planned; whoever counts sets it."""


@dataclass(slots=True)
class Calm:
    """A group that must serve, since a majority is well."""

    spec: GroupSpec
    commit: int
    """When the calm began."""
    reach: tuple[int, int]
    """In which term all that are well have how much of the log."""
    moved_us: int
    """When that grew last, within a term."""

    def note(self, reach: tuple[int, int], now_us: int) -> None:
        if reach > self.reach:
            if reach[0] == self.reach[0]:
                self.moved_us = now_us
            self.reach = reach


class Run:
    """Everything of one run; `go` is called once."""

    def __init__(
        self,
        seed: int,
        nodes: int,
        *,
        seconds: int = 60,
        without: Collection[int] = (),
        subject: Subject = ToyClient,
    ) -> None:
        self.seed = seed
        self.seconds = seconds
        clockwork = self.clockwork = VirtualTime(seed)
        chance = clockwork.chance(f"profile of {nodes}")
        self.profile = profile = profiles.draw(chance, nodes)
        for kind in DRAWN_APART:
            profile.fault_rates[kind] = profiles.draw_rate(clockwork.chance(kind))
        self.application = subject()
        self.application.shape(chance, profile)
        self.cluster = Cluster(
            NAMES[:nodes],
            clockwork,
            profile.network,
            lambda: profiles.draw_disk(chance, profile),
            lambda: profiles.draw_machine(chance, profile),
            promote=self.application.promote,
        )
        self.application.join(self.cluster)
        self.workload = Workload(self.cluster, profile.workload, self.application)
        self.faults = Faults(self.cluster)
        self.plan = [fault for fault in self._draw_plan() if fault.number not in without]
        self.trace: deque[tuple[int, str, Any]] | None = None

    def _draw_plan(self) -> list[Fault]:
        """Two stretches of faults, with the calm between them, or one."""
        rates = self.profile.fault_rates
        drawn: list[Fault] = []
        for kinds in (rates.keys() - DRAWN_APART, *({kind} for kind in DRAWN_APART)):
            chance = self.clockwork.chance("faults" if len(kinds) > 1 else f"faults {min(kinds)}")
            for first_us, stop_us in self._stretches():
                some = {kind: rates[kind] for kind in kinds}
                drawn += draw_plan(chance, some, first_us, stop_us, len(drawn))
        return drawn

    def _stretches(self) -> list[tuple[int, int]]:
        first_us, stop_us = 2 * SECOND_US, self.seconds * SECOND_US
        if not self.profile.has_calm:
            return [(first_us, stop_us)]
        middle_us = (stop_us + first_us) // 2
        return [(first_us, middle_us), (middle_us + CALM_S * SECOND_US, stop_us)]

    def keep_trace(self, length: int) -> None:
        """Remember the last turns, to be looked at after a failure."""
        self.trace = deque(maxlen=length)
        watch, trace = self.cluster.watch, self.trace
        turned = watch.turned

        def traced(process: Process, output: Output) -> None:
            trace.append((self.clockwork.now_us, process.node, output))
            turned(process, output)

        self.cluster.on_turn = traced

    def go(self) -> Account:
        """Raises `Violation`, or whatever the code under test raises, or outlives."""
        with fatal_logs():
            return self._go()

    def _go(self) -> Account:
        clockwork, cluster = self.clockwork, self.cluster
        for name in cluster.names:
            cluster.start(name)
        self.workload.start()
        self.faults.follow(self.plan)
        stop_us = self.seconds * SECOND_US
        if self.profile.has_calm:
            clockwork.run((stop_us + 2 * SECOND_US) // 2)
            self._calm()
        clockwork.run(stop_us)
        self.faults.stop()
        self.workload.stop()
        settled_us = self._settle()
        self.application.end()
        self._idle()
        facts = cluster.watch.facts.groups.values()
        return Account(
            self.seed,
            len(cluster.names),
            clockwork.events,
            clockwork.now_us / SECOND_US,
            clockwork.digest,
            sum(group.commit for group in facts),
            sum(len(group.leaders) for group in facts),
            settled_us / SECOND_US,
        )

    # 20, weak: while a majority is well and nothing changes, work goes on

    def _calm(self) -> None:
        """A majority is well and connected; of the others nothing is said.  It must serve."""
        cluster, clockwork = self.cluster, self.clockwork
        chance = clockwork.chance("calm")
        self.faults.end_all()
        self.workload.hold_still()
        rough = cluster.network.profile
        cluster.network.profile = rough.calmed()
        names = chance.sample(cluster.names, len(cluster.names))
        core = set(names[: len(names) // 2 + 1])
        for a, b in pairs(cluster):
            if not (a in core and b in core) and chance.random() < 0.5:
                cluster.network.cut(a, b)
        for name in sorted(set(names) - core):
            if chance.random() < 0.3:
                cluster.kill(name, is_silent=chance.random() < 0.5)
        served = [
            Calm(spec, self._commit_of(spec.group), self._reach(spec, core), clockwork.now_us)
            for spec in cluster.registry.living()
            if self._can_serve(spec, core)
        ]
        end_us = clockwork.now_us + CALM_S * SECOND_US
        while clockwork.now_us < end_us:
            clockwork.run(clockwork.now_us + 500 * MS_US)
            note_mended(cluster)
            for calm in served:
                self.workload.propose(calm.spec.group)
                calm.note(self._reach(calm.spec, core), clockwork.now_us)
        for calm in served:
            spec, is_stuck = calm.spec, calm.moved_us < end_us - STUCK_S * SECOND_US
            if is_stuck and not spec.is_deleted and self._commit_of(spec.group) == calm.commit:
                raise Violation(
                    f"inv 20: group {spec.group} has not committed anything for {CALM_S} s, though "
                    f"{sorted(core)} are well and connected, of {spec.config}"
                )
        cluster.network.profile = rough
        self.workload.move_on()
        heal(cluster)

    def _can_serve(self, spec: GroupSpec, core: set[str]) -> bool:
        """True if a majority is in the core, in good order, and nobody is about to be moved."""
        voters = {voter.node for voter in spec.config.voters}
        if voters != spec.wanted or spec.config.learners:
            return False
        if not all(may_be_hurt(self.cluster, name) or len(voters) < 3 for name in voters):
            return False
        if spec.config_index < self._newest_config(spec.group):
            return False  # it counts where it is, and may not be what commits
        vital = self.cluster.registry.groups.get(self.cluster.vital or spec.group)
        if vital is None or vital is spec:
            return self._is_majority(spec, self._in_order(spec, core))
        return self._is_majority(vital, self._in_order(vital, core)) and self._is_majority(
            spec, self._serving(self._in_order(spec, core), vital, core)
        )

    def _is_majority(self, spec: GroupSpec, names: Collection[str]) -> bool:
        return 2 * len(names) > len(spec.config.voters)

    def _in_order(self, spec: GroupSpec, core: set[str]) -> list[str]:
        """Voters of the core that have what they had."""
        stored = self.cluster.watch.facts.stored
        return [
            name
            for name in sorted({voter.node for voter in spec.config.voters} & core)
            if spec.group in stored[name] and stored[name][spec.group].quarantine is None
        ]

    def _serving(self, names: list[str], vital: GroupSpec, core: set[str]) -> list[str]:
        """Nodes that serve, or come to by what the core can tell them.

        Whoever has just started takes no clients and leads nothing before it has heard of whoever
        leads the group that all others need; that one may be where only others hear of it.
        """
        leader = self.workload.leader(vital.group)
        if leader is not None and leader.node in core:
            return names
        return [name for name in names if self.application.serves(name)]

    def _reach(self, spec: GroupSpec, core: set[str]) -> tuple[int, int]:
        """A term that is led, and up to where all of the core are known to have the leader's log:
        whoever lacks much of it is sent it, bit by bit."""
        processes = [self.cluster.machines[name].process for name in sorted(core)]
        found = (process.state_of(spec.group) for process in processes if process is not None)
        led = [state for state in found if state is not None and state.leading is not None]
        if not led:
            return 0, 0
        state = max(led, key=lambda state: state.term)
        assert state.leading is not None
        peers = state.leading.peers
        return state.term, min(
            (peer.match for node, peer in peers.items() if node in core), default=0
        )

    def _newest_config(self, group: GroupId) -> int:
        """In any log, on disk or not."""
        facts = self.cluster.watch.facts
        return max(
            (
                log.configs[-1][0]
                for views in (facts.stored, facts.replicas)
                for groups in views.values()
                if group in groups and (log := groups[group].log).configs
            ),
            default=0,
        )

    def _commit_of(self, group: GroupId) -> int:
        return self.cluster.watch.facts.group(group).commit

    # 20: once everything works, everything is set right

    def _settle(self) -> int:
        """Returns how long it took."""
        clockwork, cluster = self.clockwork, self.cluster
        began_us = moved_us = clockwork.now_us
        before = 0
        asked: dict[GroupId, int] = {}
        while True:
            clockwork.run(clockwork.now_us + 250 * MS_US)
            note_mended(cluster)
            wrong = self._first_wrong() or self._first_mute(asked) or self.application.unfinished()
            if wrong is None:
                return clockwork.now_us - began_us
            done = self._work_done()
            if done > before:
                moved_us = clockwork.now_us
            before = done
            since_s = (clockwork.now_us - moved_us) / SECOND_US
            if since_s >= SETTLE_S or clockwork.now_us - began_us >= SETTLE_MAX_S * SECOND_US:
                raise Violation(
                    f"inv 20: nothing comes forward for {since_s} s without any fault: {wrong}"
                )

    def _first_mute(self, asked: dict[GroupId, int]) -> str | None:
        """Something new goes to each group that is well; `asked` is what was committed before."""
        mute: str | None = None
        for spec in self.cluster.registry.living():
            commit = self._commit_of(spec.group)
            if commit <= asked.setdefault(spec.group, commit):
                mute = f"group {spec.group} commits nothing new"
                self.workload.propose(spec.group)
        return mute

    def _work_done(self) -> int:
        """Grows while there is progress, and falls when a member begins anew: what has arrived."""
        done = 0
        for name, machine in self.cluster.machines.items():
            replicas = self.cluster.watch.facts.replicas.get(name, {})
            done += sum(replica.applied + replica.log.last for replica in replicas.values())
            for image in machine.disk.image.groups.values():
                if image.staged is not None:
                    done += image.staged.entries_through + len(image.staged.state)
        return done

    def _first_wrong(self) -> str | None:
        """Text about something that is not yet right, or None."""
        for name, machine in self.cluster.machines.items():
            if machine.is_put_back:
                return f"{name} goes on with a disk that was put back"
            if machine.damaged_groups:
                return f"group {machine.damaged_groups[0]} has damage on {name}"
        for spec in self.cluster.registry.groups.values():
            wrong = self._deleted_wrong(spec) if spec.is_deleted else self._wrong_with(spec)
            if wrong is not None:
                return f"group {spec.group} {wrong}"
        return None

    def _deleted_wrong(self, spec: GroupSpec) -> str | None:
        for process in self.cluster.alive():
            on_disk = self.cluster.machines[process.node].disk.image.groups
            if spec.group in process.members or spec.group in on_disk:
                return f"has a tombstone, and is on {process.node}"
        return None

    def _wrong_with(self, spec: GroupSpec) -> str | None:
        facts = self.cluster.watch.facts
        commit = facts.group(spec.group).commit
        if {voter.node for voter in spec.config.voters} != spec.wanted or spec.config.learners:
            return f"is to be on {sorted(spec.wanted)}, and has {spec.config}"
        leaders = []
        for process in self.cluster.alive():
            replica = facts.replicas[process.node].get(spec.group)
            if process.node not in spec.wanted:
                if replica is not None:
                    return f"is still on {process.node}"
                continue
            stored = facts.stored[process.node].get(spec.group)
            if replica is None or stored is None:
                return f"is not on {process.node}"
            if stored.quarantine is not None:
                return f"is in quarantine on {process.node}: {stored.quarantine}"
            if replica.commit != commit or replica.applied != commit:
                at = f"commit {replica.commit}, applied {replica.applied}"
                return f"has commit {commit}, {process.node} is at {at}"
            if replica.role is Role.LEADER:
                leaders.append(process.node)
                if replica.log.last != commit:
                    return f"has not committed {commit + 1} to {replica.log.last}"
        return None if len(leaders) == 1 else f"is led by {leaders}"

    # 14, 19: what is quiet costs nothing and keeps nothing

    def _idle(self) -> None:
        clockwork, cluster = self.clockwork, self.cluster
        for process in cluster.alive():
            for group in process.members:
                process.feed(process.snapshot, group)
        # Retries that are no longer needed run out, snapshots are written, commits are reported.
        clockwork.run(clockwork.now_us + 5 * SECOND_US)
        self._nothing_leaked()
        stirred: list[str] = []
        watch = cluster.watch
        turned = cluster.on_turn

        def listen(process: Process, output: Output) -> None:
            for node, messages in output.messages.items():
                if any(type(message) is not Ping for message in messages):
                    stirred.append(f"{process.node} to {node}: {messages}")
            if output.persist is not None:
                stirred.append(f"{process.node} writes {output.persist}")
            turned(process, output)

        cluster.on_turn = listen
        clockwork.run(clockwork.now_us + IDLE_S * SECOND_US)
        cluster.on_turn = watch.turned
        if stirred:
            raise Violation(f"inv 19: {len(stirred)} stirrings of idle groups, first {stirred[0]}")

    def _nothing_leaked(self) -> None:
        for process in self.cluster.alive():
            for group in process.members:
                state = process.state_of(group)
                lost = None if state is None else unaccounted(state)
                if lost is not None:
                    raise Violation(f"inv 19: {process.node} leads {group} and counts {lost}")
        for name, machine in self.cluster.machines.items():
            for group, image in machine.disk.image.groups.items():
                dead = leaked(image)
                if dead:
                    raise Violation(f"inv 14: {name} keeps {dead} of group {group}, which are dead")
