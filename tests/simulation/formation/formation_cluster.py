"""Nodes that form clusters: the real `Formation`, and around it as little as can show a mistake.

What stands for Raft is one election and one entry of each group: a candidate asks all founders of
the group for a vote, in frames that take the same way as those of formation; a majority has one
entry, and with that the cluster has begun.  Voters know no marks, as those of Raft do not.

    size     how many nodes the cluster is to have: grows and shrinks; an option of a new node
    crash    what is on its way to the disk is lost
    cut      frames between two sides are lost, and links go down
    wipe     a disk is lost; each that knew its node refuses it from then on
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from random import Random

from fluffle.broker.cluster.formation import Formation, Founders, Promise, is_majority
from fluffle.broker.cluster.ports import FrameKind
from fluffle.broker.config.config import ListenAddress
from tests.simulation.facts import Violation
from tests.simulation.virtual_time import MS_US, SECOND_US, VirtualTime

NAMES = "abcdefg"
SIZES = (1, 3, 5, 7)
ADDRESSES = {name: ListenAddress(name, 1) for name in NAMES}
CHAOS_S, SETTLE_S = 20, 30


@dataclass(slots=True)
class Group:
    """The part that a node has of a group of definitions."""

    founders: frozenset[str]
    voted: dict[int, str] = field(default_factory=dict)
    """The node that was voted for, by term."""
    entry: str | None = None
    """The mark of the node that has led; None: nothing is in its log."""
    is_safe: bool = True
    """True if it is on the disk: behind the promise, if that is on its way."""


@dataclass(slots=True)
class Disk:
    """The state that outlives a process."""

    promise: Promise = field(default_factory=Promise)
    group: Group | None = None
    life: int = 0
    """Another number for each disk that a node has had."""
    known: dict[str, int] = field(default_factory=dict)
    """Nodes whose disks it has met."""


class Process:
    """A `LocalNode` in a simulated process."""

    def __init__(self, cluster: FormationCluster, name: str, configured: Founders) -> None:
        self.cluster, self.name = cluster, name
        self.disk = cluster.disks[name]
        self.links: dict[str, None] = {}
        """To these, in the order in which they came up."""
        self.votes: set[str] = set()
        self.acks: set[str] = set()
        self.term = 0
        self.is_writing = False
        self.formation = Formation(name, configured, ADDRESSES[name], self.disk.promise, self)
        self.formation.start()

    # As the formation sees it

    @property
    def is_begun(self) -> bool:
        return self.disk.group is not None and self.disk.group.entry is not None

    @property
    def members(self) -> Founders | None:
        """The nodes that know what is committed, as if they heard of it at once."""
        mark = self.disk.group.entry if self.disk.group is not None else None
        registered = self.cluster.registered.get(mark or "")
        return None if registered is None else {name: ADDRESSES[name] for name in registered}

    def is_founder(self, node: str) -> bool:
        return node not in self.cluster.joining

    @property
    def linked(self) -> Collection[str]:
        return tuple(self.links)

    @property
    def marks_nearby(self) -> Collection[str]:
        cluster = self.cluster
        others = [other for other in cluster.processes if cluster.is_reached(self.name, other)]
        if any(cluster.is_remembered(self.name, other) for other in others):
            return {"?"}
        begun = [cluster.processes[other] for other in others if other in self.links]
        return {each.formation.promise.mark for each in begun if each.is_begun}

    def send(self, node: str, payload: bytes) -> None:
        def receive(there: Process) -> None:
            there.formation.receive(self.name, payload)

        self.cluster.carry(self, node, FrameKind.FORMATION, receive)

    def draw_mark(self) -> str:
        self.cluster.marks += 1
        return f"{self.name}{self.cluster.marks}"

    def keep(self, promise: Promise, done: Callable[[], None]) -> None:
        self.is_writing = True

        def kept() -> None:
            if self.cluster.processes.get(self.name) is self:
                self.is_writing = False
                self.disk.promise = promise
                if self.disk.group is not None:
                    self.disk.group.is_safe = True
                done()

        self.cluster.after_ms((0, self.cluster.slowest_ms), kept)

    def go_by(self, promise: Promise) -> None:
        group = self.disk.group
        if group is not None and group.entry is None and group.founders != {*promise.founders}:
            self.disk.group = None
        if promise.founders and self.disk.group is None:
            founders = frozenset(promise.founders)
            self.disk.group = Group(founders, is_safe=not self.is_writing)

    def reach(self, node: str, address: ListenAddress) -> None:
        """All nodes that run try to have links."""

    def admit(self, node: str, address: ListenAddress) -> None:
        """If a majority of the members agrees: those that run and are reached."""
        mark = self.formation.promise.mark
        members = self.cluster.registered[mark]
        agreed = [each for each in members if self.cluster.is_of(each, mark, self.name)]
        if is_majority(agreed, members):
            members.add(node)
            self.cluster.joining.add(node)

    # As one of a group

    def campaign(self) -> None:
        """Stand for election, or have the entry on more disks, or join."""
        group, promise = self.disk.group, self.formation.promise
        if group is None:
            self._join(promise)
        elif group.entry is None and self.name in group.founders and promise.founders:
            self.term = max(group.voted, default=0) + 1
            if self.name == group.voted.setdefault(self.term, self.name):
                self.votes = {self.name}
                self._ask_all(group, self._ask_for_vote)
                self._count_votes()
        elif group.entry is not None:
            self._ask_all(group, self._append)

    def _join(self, promise: Promise) -> None:
        """Join as a learner that gets the log from any node that it may hear."""
        for other in self.links.keys() & self.cluster.registered.get(promise.mark, set()):
            there = self.cluster.processes.get(other)
            if there is not None and there.is_begun and self.name in self.cluster.joining:
                assert there.disk.group is not None
                self.disk.group = Group(frozenset(), entry=there.disk.group.entry)
                return

    def _ask_all(self, group: Group, ask: Callable[[str], None]) -> None:
        for other in sorted(group.founders - {self.name}):
            ask(other)

    def _ask_for_vote(self, node: str) -> None:
        term = self.term

        def vote(there: Process) -> None:
            mine = there.disk.group
            if mine is None or mine.entry is not None or self.name not in mine.founders:
                return
            if mine.voted.setdefault(term, self.name) == self.name:
                there.cluster.carry(there, self.name, FrameKind.CONSENSUS, granted)

        def granted(here: Process) -> None:
            if here is self and self.term == term:
                self.votes.add(node)
                self._count_votes()

        self.cluster.carry(self, node, FrameKind.CONSENSUS, vote)

    def _count_votes(self) -> None:
        group = self.disk.group
        if group is not None and group.entry is None and is_majority(self.votes, group.founders):
            group.entry = self.formation.promise.mark
            self.acks = {self.name}
            self._count_acks()

    def _append(self, node: str) -> None:
        group = self.disk.group
        assert group is not None
        entry = group.entry
        assert entry is not None

        def append(there: Process) -> None:
            mine = there.disk.group
            if mine is None or self.name not in mine.founders or mine.entry not in (None, entry):
                return
            mine.entry = entry
            if there.formation.promise.mark != entry:
                raise Violation(f"{there.name} has an entry of {entry}, and has not promised it")
            there.cluster.carry(there, self.name, FrameKind.CONSENSUS, acknowledged)

        def acknowledged(here: Process) -> None:
            if here is self:
                self.acks.add(node)
                self._count_acks()

        self.cluster.carry(self, node, FrameKind.CONSENSUS, append)

    def _count_acks(self) -> None:
        group = self.disk.group
        assert group is not None
        if group.entry is not None and is_majority({self.name, *self.acks}, group.founders):
            self.cluster.committed(group.entry, group.founders)


class FormationCluster:
    """A run of nodes under faults."""

    def __init__(self, seed: int) -> None:
        self.clockwork = VirtualTime(seed)
        self.chance: Random = self.clockwork.chance("world")
        self.disks = {name: Disk() for name in NAMES}
        self.processes: dict[str, Process] = {}
        self.registered: dict[str, set[str]] = {}
        """The nodes of each cluster that has begun, by its mark."""
        self.joining: set[str] = set()
        """Nodes that were let in after their cluster was founded."""
        self.marks = 0
        self.size = self.chance.choice(SIZES)
        self.side: frozenset[str] = frozenset()
        """Nodes that are cut off from all others."""
        self.is_over = False
        self._arrivals: dict[tuple[str, str], int] = {}
        self._order = self.chance.choice((*["same"] * 6, *["two"] * 3, "self first"))
        """The order in which nodes are given the founders."""
        self._is_misordered = self._order != "same"
        self.slowest_ms = self.chance.choice((10, 100, 3_000))
        """The longest of all commits."""
        self._may_resize = not self._is_misordered
        self._may_wipe = self.chance.random() < 0.3

    def after_ms(self, between: tuple[int, int], call: Callable[[], None]) -> None:
        delay_us = int(self.chance.uniform(*between) * MS_US)
        self.clockwork.after(delay_us, call)

    # Links

    def is_reached(self, one: str, other: str) -> bool:
        return other in self.processes and (one in self.side) == (other in self.side)

    def is_remembered(self, one: str, other: str) -> bool:
        """True if either knows the other by a disk that it has no more."""
        disks = self.disks
        return any(
            disks[a].known.get(b, disks[b].life) != disks[b].life
            for a, b in ((one, other), (other, one))
        )

    def is_of(self, name: str, mark: str, seen_by: str) -> bool:
        there = self.processes.get(name)
        is_seen = name == seen_by or self.is_reached(seen_by, name)
        return (
            is_seen
            and there is not None
            and there.is_begun
            and there.formation.promise.mark == mark
        )

    def carry(
        self, sender: Process, node: str, kind: FrameKind, receive: Callable[[Process], None]
    ) -> None:
        """In order, unless the link goes down meanwhile."""
        there = self.processes.get(node)
        if there is None or node not in sender.links:
            return
        way = sender.name, node
        delay_us = int(self.chance.expovariate(1 / 5) * MS_US)
        at_us = max(self.clockwork.now_us + delay_us, self._arrivals.get(way, 0) + 1)
        self._arrivals[way] = at_us

        def arrive() -> None:
            is_there = self.processes.get(node) is there and node in sender.links
            is_heard = kind is FrameKind.FORMATION or sender.name not in there.formation.strangers
            if is_there and is_heard:
                receive(there)

        self.clockwork.at(at_us, arrive)

    def look(self) -> None:
        """Links come up and go down; whoever runs does what is due."""
        for process in list(self.processes.values()):
            for other in NAMES:
                self._link(process, other)
        for process in list(self.processes.values()):
            if self.chance.random() < 0.5:
                process.formation.look()
            if self.chance.random() < 0.1:
                process.campaign()
        self.after_ms((20, 200), self.look)

    def _link(self, process: Process, other: str) -> None:
        is_fit = other != process.name and self.is_reached(process.name, other)
        is_up = is_fit and not self.is_remembered(process.name, other)
        there = self.processes.get(other)
        if is_up and there is not None and other not in process.links:
            if self.are_apart(process, there) or self.chance.random() < 0.3:
                return
            self.disks[process.name].known[other] = self.disks[other].life
            process.links[other] = None
            there.formation.met(process.name, process.formation.promise.mark)
            process.formation.link_changed(other, is_up=True)
        elif not is_up and other in process.links:
            del process.links[other]
            process.formation.link_changed(other, is_up=False)

    def are_apart(self, one: Process, other: Process) -> bool:
        marks = {one.formation.promise.mark, other.formation.promise.mark}
        return one.is_begun and other.is_begun and len(marks) > 1

    # What happens

    def committed(self, mark: str, founders: frozenset[str]) -> None:
        """A majority has the first entry of a cluster."""
        self.registered.setdefault(mark, set(founders))
        if len(self.registered) > 1:
            raise Violation(f"clusters were founded apart: {sorted(self.registered)}")

    def start(self, name: str) -> None:
        if name not in self.processes:
            names = list(NAMES[: self.size])
            first = {"same": "a", "two": "b" if name in "bcf" else "a", "self first": name}
            names.sort(key=lambda each: each != first[self._order])
            configured = {each: ADDRESSES[each] for each in names}
            self.processes[name] = Process(self, name, configured)

    def crash(self, name: str) -> None:
        self.processes.pop(name, None)
        group = self.disks[name].group
        if group is not None and not group.is_safe:
            self.disks[name].group = None
        for process in self.processes.values():
            if name in process.links:
                del process.links[name]
                process.formation.link_changed(name, is_up=False)

    def happen(self) -> None:
        """Do one thing that goes wrong, or is done to the cluster."""
        if self.is_over:
            return
        wanted = NAMES[: self.size]
        name = self.chance.choice(wanted)
        act = self.chance.choice(("start", "start", "crash", "cut", "heal", "size", "wipe"))
        if act == "start":
            self.start(name)
        elif act == "crash":
            self.crash(name)
        elif act == "cut":
            self.side = frozenset(self.chance.sample(wanted, self.chance.randint(1, len(wanted))))
        elif act == "heal":
            self.side = frozenset()
        elif act == "size" and self._may_resize:
            self.size = self.chance.choice(SIZES)
        elif act == "wipe" and self._may_wipe:
            self._wipe(name)
        self.after_ms((10, 1_500), self.happen)

    def _wipe(self, name: str) -> None:
        """Once in a run, and not of the only disk that could tell of a cluster.

        What is lost with the first founder while most others never heard of its cluster is lost.
        """
        promise = self.disks[name].promise
        founders, mark = promise.founders, promise.mark
        others = [each for each in founders if each != name and self.is_promised(each, mark)]
        is_first = name == NAMES[0] or self._is_misordered
        is_reported = len(others) == len(founders) - 1 and self.size == len(founders) >= SIZES[1]
        if is_first and not is_reported:
            return
        self.crash(name)
        self.disks[name] = Disk(life=self.disks[name].life + 1)
        self._may_wipe = False
        self._may_resize = self._may_resize and not is_first

    def is_promised(self, name: str, mark: str) -> bool:
        return self.disks[name].promise.mark == mark

    def settle(self) -> None:
        """All is well from now on, and all run."""
        self.is_over = True
        self.side = frozenset()
        self.size = len(NAMES)
        for name in NAMES:
            self.start(name)

    def unfinished(self) -> str | None:
        """All that run are of one cluster, but for those that have lost their disks."""
        lost = {name for name in NAMES if self.disks[name].life}
        if lost:
            return None
        outside = [name for name, each in self.processes.items() if not each.is_begun]
        return f"{outside} are of no cluster" if outside else None


def run(seed: int) -> FormationCluster:
    """Raises `Violation`."""
    cluster = FormationCluster(seed)
    for name in NAMES[: cluster.size]:
        cluster.after_ms((0, 2_000), partial(cluster.start, name))
    cluster.look()
    cluster.happen()
    cluster.clockwork.run(CHAOS_S * SECOND_US)
    cluster.settle()
    cluster.clockwork.run((CHAOS_S + SETTLE_S) * SECOND_US)
    if left := cluster.unfinished():
        raise Violation(left)
    return cluster
