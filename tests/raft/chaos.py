"""Random runs of a cluster in memory, with the invariants that matter checked after each step.

Smaller than the simulator of `tests/simulation`, and of the core alone: it is for finding bugs
where they are made.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from random import Random

from fluffle.raft.config import AddLearner, Configuration, Member, Promote, Remove, majority_of
from fluffle.raft.leader import ProposalRefused
from fluffle.raft.log import Entry
from fluffle.raft.messages import AppendAccepted, VoteRequest, VoteResponse
from fluffle.raft.output import Output, Role
from fluffle.raft.tuning import Tuning
from tests.raft.cluster import GROUP, Cluster, Host

TUNINGS = [
    Tuning(),
    Tuning(window_messages=2, append_bytes_max=100, apply_bytes_max=100, cached_bytes=0),
    Tuning(snapshot_chunk_bytes=64, snapshot_window=2, commit_delay_ms=0),
]


class Broken(AssertionError):
    """An invariant does not hold."""


class ReferenceLog:
    """Reference log of the group: what has been committed, as no member can know it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.leaders: dict[int, str] = {}
        self.votes: dict[tuple[str, int], Member] = {}
        self.committed: dict[int, tuple[int, bytes]] = {}
        """Term and payload of each entry that was ever applied anywhere."""
        self.reads: dict[int, tuple[str, int, int]] = {}
        """Context of each that has no answer -> node, boot, and what was committed by then."""

    def see(self, host: Host, output: Output) -> None:
        for change in output.roles:
            if change.role is Role.LEADER:
                self.lead(host, change.term)
        for apply in output.applies:
            for entry in apply.entries:
                self.apply(host, entry)
        for readable in output.readable:
            *_, committed = self.reads.pop(readable.context)
            if readable.index is not None and readable.index < committed:
                raise Broken(f"{host.name} reads {readable.index}, {committed} was committed")

    def is_read_waiting(self) -> bool:
        """True if a process that has not ended owes an answer."""
        living = {(host.name, host.boot) for host in self.cluster.up}
        return any((name, boot) in living for name, boot, _ in self.reads.values())

    def lead(self, host: Host, term: int) -> None:
        if self.leaders.setdefault(term, host.name) != host.name:
            raise Broken(f"term {term} is led by {self.leaders[term]} and {host.name}")
        image = host.disk.groups[GROUP]
        missing = [i for i in self.committed if i > host.status().last]
        if missing:
            raise Broken(f"{host.name} leads term {term} without {missing}")
        for index, (entry_term, _) in self.committed.items():
            held = image.entries.get(index)
            if index > image.floor and held is not None and held.term != entry_term:
                raise Broken(f"{host.name} leads term {term} with another entry at {index}")

    def apply(self, host: Host, entry: Entry) -> None:
        what = entry.term, entry.payload
        if not self.has(host.name, entry):
            raise Broken(f"{host.name} applies {entry.index}, which is not on its disk")
        if entry.index not in self.committed:
            self.commit(host, entry)
        if self.committed[entry.index] != what:
            raise Broken(f"{host.name} applies another entry at {entry.index}")

    def commit(self, host: Host, entry: Entry) -> None:
        """Record the first application of an entry: by now a majority of its voters must have it on
        disk."""
        if entry.index - 1 not in self.committed and entry.index != 1:
            raise Broken(f"{host.name} applies {entry.index} before the one in front of it")
        self.committed[entry.index] = entry.term, entry.payload
        configs = host.raft._groups[GROUP].configs.in_use(entry.index)
        held = {node for node in self.cluster.hosts if self.has(node, entry)}
        if not any(self.is_held(config, held) for config in configs):
            raise Broken(f"entry {entry.index} was committed with only {sorted(held)} having it")

    def is_held(self, config: Configuration, held: set[str]) -> bool:
        """True if a majority of this configuration, active when the entry was counted, holds it."""
        count = sum(voter.node in held for voter in config.voters)
        return count >= majority_of(len(config.voters))

    def has(self, name: str, entry: Entry) -> bool:
        image = self.cluster[name].disk.groups.get(GROUP)
        if image is None or entry.index in image.damaged:
            return False
        held = image.entries.get(entry.index)
        return image.floor >= entry.index or (held is not None and held.term == entry.term)

    def on_wire(self) -> None:
        """Check that each message in flight is backed by the disk of its sender."""
        for source, target, message in self.cluster.network:
            image = self.cluster[source].disk.groups.get(GROUP)
            if isinstance(message, VoteResponse) and message.is_granted:
                candidate = Member(target, message.receiver)
                if self.votes.setdefault((source, message.term), candidate) != candidate:
                    raise Broken(f"{source} votes twice in term {message.term}")
            if isinstance(message, VoteRequest | VoteResponse | AppendAccepted):
                if isinstance(message, VoteResponse) and not message.is_granted:
                    continue
                if image is None or image.hard_state.term < message.term:
                    raise Broken(f"{source} says {message} and has {image and image.hard_state}")


class Chaos:
    """Run of the chaos test."""

    def __init__(self, seed: int, nodes: str = "abc") -> None:
        self.random = Random(f"chaos {seed}")
        self.cluster = Cluster(nodes, tuning=self.random.choice(TUNINGS))
        self.nodes = nodes
        self.founders = nodes[:3] if self.random.random() < 0.5 else nodes
        self.cluster.create(self.founders)
        self.reference = ReferenceLog(self.cluster)
        self.cluster.on_output = self.reference.see
        self.left: set[str] = set()
        self.number = 0
        """Number of the next proposal."""
        self.asked = 0
        """Reads."""
        self.steps: list[tuple[int, Callable[[], None]]] = [
            (40, self.deliver), (20, self.sync), (10, self.pass_time), (12, self.propose),
            (2, self.lose), (2, self.repeat), (1, self.crash), (3, self.restart),
            (1, self.partition), (2, self.heal), (1, self.snapshot), (1, self.transfer),
            (1, self.relink), (1, self.change), (2, self.read), (1, self.damage),
            (2, self.look),
        ]  # fmt: skip
        self.acts = [act for _, act in self.steps]
        self.weights = [
            weight * self.random.choice((0, 1, 1, 2)) if weight < 3 else weight
            for weight, _ in self.steps
        ]
        # Whoever is damaged needs the others: no change of members in the same run.
        without = self.change if self.random.random() < 0.5 else self.damage
        self.weights[self.acts.index(without)] = 0

    def run(self, steps: int) -> None:
        for _ in range(steps):
            act = self.random.choices(self.acts, self.weights)[0]
            act()
            self.check()
        self.finish()

    def check(self) -> None:
        self.reference.on_wire()

    # What happens

    def some(self) -> Host | None:
        return self.random.choice(self.cluster.up) if self.cluster.up else None

    def member(self) -> Host | None:
        found = [host for host in self.cluster.up if GROUP in host.raft]
        return self.random.choice(found) if found else None

    def deliver(self) -> None:
        network = self.cluster.network
        if network:
            in_order = self.random.random() < 0.8
            self.cluster.deliver(0 if in_order else self.random.randrange(len(network)))

    def sync(self) -> None:
        if (host := self.some()) is not None:
            host.sync()

    def pass_time(self) -> None:
        self.cluster.now_ms += self.random.choice((1, 10, 50, 200))
        for host in self.cluster.up:
            host.do()

    def propose(self) -> None:
        host = self.member()
        if host is not None and host.status().role is Role.LEADER:
            self.number += 1
            payload = str(self.number).encode() * self.random.choice((1, 1, 40))
            self.attempt(lambda: host.group().propose(payload), host)

    def attempt(self, act: Callable[[], object], host: Host) -> None:
        def guarded() -> None:
            with suppress(ProposalRefused):
                act()

        host.do(guarded)

    def lose(self) -> None:
        if self.cluster.network:
            self.cluster.network.pop(self.random.randrange(len(self.cluster.network)))

    def repeat(self) -> None:
        network = self.cluster.network
        if network:
            network.append(self.random.choice(network))

    def crash(self) -> None:
        if len(self.cluster.up) == len(self.nodes) or self.random.random() < 0.2:
            host = self.some()
            if host is not None:
                host.crash()
                for other in self.cluster.up:
                    other.do(partial(other.raft.link_down, host.name))

    def restart(self) -> None:
        down = [host for host in self.cluster.hosts.values() if not host.is_up]
        if down:
            host = self.random.choice(down)
            self.start(host)
            self.relink_all(host)

    def relink_all(self, host: Host) -> None:
        for other in self.cluster.up:
            if other is not host:
                other.do(partial(other.raft.link_up, host.name))
                host.do(partial(host.raft.link_up, other.name))

    def start(self, host: Host) -> None:
        """A node that never had its founding group on disk founds it again."""
        host.start()
        if GROUP not in host.raft and host.name in self.founders and host.name not in self.left:
            host.do(partial(host.raft.create, GROUP, 1, Configuration.initial(self.founders)))

    def partition(self) -> None:
        names = list(self.nodes)
        self.random.shuffle(names)
        at = self.random.randrange(1, len(names))
        if self.random.random() < 0.3:
            self.cluster.cut = {(a, b) for a in names[:at] for b in names[at:]}
        else:
            self.cluster.partition("".join(names[:at]), "".join(names[at:]))

    def heal(self) -> None:
        self.cluster.heal()

    def relink(self) -> None:
        host, other = self.some(), self.some()
        if host is not None and other is not None and host is not other:
            host.do(partial(host.raft.link_down, other.name))
            host.do(partial(host.raft.link_up, other.name))

    def snapshot(self) -> None:
        host = self.member()
        if host is None or GROUP not in host.applied:
            return
        status = host.status()
        dead = [i for i, *_ in host.applied[GROUP] if i + 5 <= status.applied and i % 3]
        if status.applied > status.floor:
            try:
                host.snapshot(dead=dead)
            except ProposalRefused:
                host.do()

    def transfer(self) -> None:
        host = self.member()
        if host is not None:
            target = self.random.choice(self.nodes)
            self.attempt(lambda: host.group().transfer(target), host)

    def change(self) -> None:
        host = self.member()
        if host is None:
            return
        node = self.random.choice(self.nodes)
        kind = self.random.choice((AddLearner, Promote, Remove))
        self.attempt(lambda: host.group().change(kind(node)), host)

    def read(self) -> None:
        host = self.member()
        if host is not None:
            self.asked += 1
            self.attempt(partial(self.ask, host, self.asked), host)

    def ask(self, host: Host, context: int) -> None:
        host.group().read_index(context)
        self.reference.reads[context] = (
            host.name,
            host.boot,
            max(self.reference.committed, default=0),
        )

    def damage(self) -> None:
        """An entry of one node, while all others are in order; noticed now or when it is read."""
        hosts = list(self.cluster.hosts.values())
        images = [host.disk.groups.get(GROUP) for host in hosts]
        if any(image is None or image.quarantine or image.damaged for image in images):
            return
        host = self.random.choice(hosts)
        # An entry that was committed: its copies were counted, and that is not to be done again.
        entries = [i for i in host.disk.groups[GROUP].entries if i in self.reference.committed]
        if not entries:
            return
        index = self.random.choice(entries)
        host.disk.groups[GROUP].damaged.add(index)
        if not host.is_up:
            return
        chance = self.random.random()
        if chance < 0.3 or host.status().applied < index:
            host.do(lambda: host.group().damaged(index))
        elif chance < 0.6:
            host.crash()
            self.start(host)
            self.relink_all(host)

    def look(self) -> None:
        host = self.member()
        if host is not None:
            self.look_at(host)

    def look_at(self, host: Host) -> None:
        """Read all that has to be there, as hosts do now and then."""
        image, meta = host.disk.groups.get(GROUP), host.group().settled_snapshot
        if image is None or meta is None:
            return
        found = [
            i for i in image.damaged & image.entries.keys() if i > meta.index or i in meta.live
        ]
        if found:
            host.do(lambda: host.group().damaged(min(found)))

    def join(self) -> None:
        """Create groups on nodes that were asked about them without having them."""
        leader = self.cluster.leader()
        if leader is None:
            return
        for member in leader.status().config.members:
            host = self.cluster[member.node]
            if not host.is_up:
                continue
            state = host.raft._groups.get(GROUP)
            if state is not None and state.me.incarnation < member.incarnation:
                host.do(partial(host.raft.delete, GROUP))
                self.left.add(host.name)
            if GROUP not in host.raft:
                host.do(partial(host.raft.create, GROUP, member.incarnation, Configuration()))

    # The end

    def finish(self) -> None:
        """Heal everything: then there is one leader, and all are equal."""
        self.cluster.heal()
        for host in self.cluster.hosts.values():
            if not host.is_up:
                self.start(host)
        self.cluster.link_all()
        for _ in range(60):
            self.cluster.advance(200, step_ms=20)
            self.join()
            self.check()
            for host in self.cluster.up:
                if GROUP in host.raft:
                    self.look_at(host)
            if self.is_calm():
                return
        found = [(host.name, host.status()) for host in self.cluster.up if GROUP in host.raft]
        raise Broken(f"does not calm down: {found}")

    def is_calm(self) -> bool:
        leader = self.cluster.leader()
        if leader is None:
            return False
        status = leader.status()
        members = [self.cluster[m.node] for m in status.config.members]
        if not all(GROUP in host.raft for host in members):
            return False
        images = [host.applied.get(GROUP) for host in members]
        same = all(image == images[0] for image in images)
        if same and any(image is None for image in images):
            return False
        done = all(
            host.status().applied == status.last and not host.status().is_quarantined
            for host in members
        )
        disks = [host.disk.groups.get(GROUP) for host in members]
        whole = all(disk and not disk.damaged & disk.entries.keys() for disk in disks)
        asleep = all(host.raft._groups[GROUP].deadline_ms is None for host in members)
        return same and done and whole and asleep and not self.reference.is_read_waiting()
