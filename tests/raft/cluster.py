"""A cluster in memory, moved by hand: every message, write and millisecond is a step of the test.

The image of a group is the list of what was applied; its snapshot is that list, and every entry
stays live unless a test says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from random import Random

from fluffle.raft.config import Configuration, NodeId
from fluffle.raft.group import Group, Status
from fluffle.raft.leader import ProposalRefused
from fluffle.raft.log import DATA, GroupId
from fluffle.raft.log_store import DamagedLog
from fluffle.raft.messages import Message, Ping
from fluffle.raft.multiraft import MultiRaft
from fluffle.raft.output import Output, ReadEntries, ReadState, Role
from fluffle.raft.ranges import Ranges
from fluffle.raft.tuning import Tuning
from tests.raft.disk import Disk

GROUP = 285
"""a is the first to stand for it, then b, c, d and e."""

Sent = tuple[NodeId, NodeId, Message]
"""From, to, what."""


class Host:
    """Process of a node with its disk."""

    def __init__(self, name: NodeId, cluster: Cluster) -> None:
        self.name = name
        self.cluster = cluster
        self.disk = Disk()
        self.boot = 0
        self.is_up = False
        self.applied: dict[GroupId, list[tuple[int, int, bytes]]] = {}
        """Index, term and payload of the data in each image."""

    def start(self, *, are_asleep: bool = False) -> None:
        self.boot += 1
        self.is_up = True
        self.applied = {}
        self.raft = MultiRaft(
            self.name, self.boot, self.cluster.tuning, Random(f"{self.name} {self.boot}")
        )
        self.raft.load(self.disk.load(), are_asleep=are_asleep)
        self.raft.tick(self.cluster.now_ms)

    def crash(self) -> None:
        self.is_up = False
        self.disk.crash()

    def group(self, group: GroupId = GROUP) -> Group:
        return self.raft.group(group)

    def status(self, group: GroupId = GROUP) -> Status:
        return self.raft.group(group).status

    def do(self, act: Callable[[], object] | None = None) -> Output:
        """Run one turn."""
        self.raft.tick(self.cluster.now_ms)
        if act is not None:
            act()
        output = self.raft.output()
        self.cluster.on_output(self, output)
        for node, messages in output.messages.items():
            for message in messages:
                self.cluster.send(self.name, node, message)
        if output.persist is not None:
            self.disk.submit(output.persist)
        for restore in output.restores:
            size, items = restore.snapshot.state_bytes, []
            if restore.snapshot.index:
                items = json.loads(self.disk.read_state(restore.group, 0, size))
            self.applied[restore.group] = [(i, t, bytes.fromhex(p)) for i, t, p in items]
        again: list[Callable[[], object]] = [partial(self._read, read) for read in output.reads]
        again += [partial(self.raft.deny, absent) for absent in output.absent]
        for apply in output.applies:
            image = self.applied[apply.group]
            image += [(e.index, e.term, e.payload) for e in apply.entries if e.kind == DATA]
            last, group = apply.entries[-1].index, self.raft.group(apply.group)
            again.append(partial(group.applied, last))
        if again:
            self.do(lambda: [each() for each in again])
        for wanted in output.snapshots_wanted:
            with suppress(ProposalRefused):
                self.snapshot(wanted)
        return output

    def _read(self, read: ReadEntries | ReadState) -> None:
        group = self.raft.group(read.group)
        try:
            if isinstance(read, ReadEntries):
                found = self.disk.read(read.group, read.first, read.stop, read.bytes_max)
                group.entries_read(read.number, found)
            else:
                group.state_read(
                    read.number, self.disk.read_state(read.group, read.offset, read.size)
                )
        except DamagedLog as damage:
            group.damaged(damage.index)

    def sync(self) -> bool:
        """Make one write durable, and tell."""
        if not self.disk.submitted:
            return False
        token = self.disk.sync()
        self.do(lambda: self.raft.durable(token))
        return True

    def snapshot(self, group: GroupId = GROUP, dead: Iterable[int] = ()) -> None:
        """Take a snapshot of all that is applied; `dead` are indexes that are done with.

        What an earlier one left out is off the disk, and so stays out.
        """
        before, items = self.disk.groups[group].snapshot, self.applied[group]
        assert before is not None
        gone = {*dead, *(i for i, *_ in items if i <= before.index and i not in before.live)}
        live = Ranges.joined((index, index + 1) for index, _, _ in items if index not in gone)
        state = json.dumps([(i, t, p.hex()) for i, t, p in items]).encode()
        index = self.status(group).applied
        self.do(lambda: self.group(group).compact(index, live, state))


class Cluster:
    """Hosts and the messages between them."""

    def __init__(self, names: str = "abc", *, tuning: Tuning | None = None) -> None:
        self.on_output: Callable[[Host, Output], object] = lambda host, output: None
        """Callback for each turn's output, before anything of it is done."""
        self.now_ms = 1_000
        self.tuning = tuning or Tuning()
        self.network: list[Sent] = []
        self.cut: set[tuple[NodeId, NodeId]] = set()
        """Directions in which everything is lost."""
        self.hosts = {name: Host(name, self) for name in names}
        for host in self.hosts.values():
            host.start()
        self.link_all()

    def __getitem__(self, name: NodeId) -> Host:
        return self.hosts[name]

    @property
    def up(self) -> list[Host]:
        return [host for host in self.hosts.values() if host.is_up]

    def link_all(self) -> None:
        for host in self.up:
            for other in self.up:
                if host is not other:
                    host.do(partial(host.raft.link_up, other.name))

    def create(self, names: str = "abc", group: GroupId = GROUP) -> None:
        config = Configuration.initial(names)
        for name in names:
            host = self.hosts[name]
            host.do(partial(host.raft.create, group, 1, config))

    # The network

    def send(self, source: NodeId, target: NodeId, message: Message) -> None:
        assert source != target, f"{source} speaks to itself: {message}"
        if (source, target) not in self.cut and self.hosts[target].is_up:
            self.network.append((source, target, message))

    def partition(self, *sides: str) -> None:
        """Nodes on different sides cannot reach each other; what is under way is lost."""
        side = {name: at for at, names in enumerate(sides) for name in names}
        self.cut = {(a, b) for a in side for b in side if side[a] != side[b]}
        self.network = [sent for sent in self.network if (sent[0], sent[1]) not in self.cut]

    def heal(self) -> None:
        self.cut = set()

    def deliver(self, at: int = 0) -> None:
        source, target, message = self.network.pop(at)
        host = self.hosts[target]
        if host.is_up:
            host.do(lambda: host.raft.receive(source, [message]))

    def drop(self, kind: type[Message]) -> int:
        """Lose what is under way of one kind; how many there were."""
        before = len(self.network)
        self.network = [sent for sent in self.network if not isinstance(sent[2], kind)]
        return before - len(self.network)

    # Time

    def settle(self, limit: int = 100_000) -> None:
        """Deliver and sync until nothing is left to do without time passing."""
        for _ in range(limit):
            if self.network:
                self.deliver()
            elif not any(host.sync() for host in self.up):
                return
        raise AssertionError(f"does not settle: {self.network[:5]}")

    def advance(self, ms: int, *, step_ms: int = 10) -> None:
        """Let time pass, delivering everything as it comes."""
        end_ms = self.now_ms + ms
        self.settle()
        while self.now_ms < end_ms:
            self.now_ms = min(end_ms, self.now_ms + step_ms)
            for host in self.up:
                host.do()
            self.settle()

    # Looking

    def leader(self, group: GroupId = GROUP) -> Host | None:
        """The one of the greatest term."""
        leaders = [
            host
            for host in self.up
            if group in host.raft and host.status(group).role is Role.LEADER
        ]
        return max(leaders, key=lambda host: host.status(group).term, default=None)

    def led(self, group: GroupId = GROUP) -> Host:
        leader = self.leader(group)
        assert leader is not None, "nobody leads"
        return leader

    def elect(self, name: NodeId | None = None, group: GroupId = GROUP) -> Host:
        """Let time pass until there is a leader; then have `name` lead."""
        for _ in range(100):
            if self.leader(group) is not None:
                break
            self.advance(50)
        self.advance(300)
        leader = self.led(group)
        if name is not None and leader.name != name:
            leader.do(partial(leader.group(group).transfer, name))
            self.advance(300)
            leader = self.led(group)
            assert leader.name == name
        return leader

    def propose(self, *payloads: str, group: GroupId = GROUP) -> None:
        leader = self.led(group)
        for payload in payloads:
            leader.do(partial(leader.group(group).propose, payload.encode()))

    def data(self, name: NodeId, group: GroupId = GROUP) -> list[str]:
        """Applied payloads of a group on a node."""
        return [payload.decode() for _, _, payload in self.hosts[name].applied[group]]

    def quiet(self) -> bool:
        """True if nothing is under way but pings."""
        return all(isinstance(message, Ping) for *_, message in self.network)
