"""Definitions of several nodes in one thread: commits and frames come by hand.

Consensus is left out: whoever is said to lead appends to the one log.  What the nodes do with it is
real, down to the exchanges and queues.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from fluffle.broker.access.access import Access
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.cluster.hosted_group import OnEntryOutcome, OnReadable
from fluffle.broker.cluster.metadata_group import ReplicatedMetadata
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.changes import set_vhost
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.metadata.change import Change
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.raft.config import Configuration
from fluffle.raft.log import DATA, Entry, SnapshotMeta
from fluffle.raft.ranges import Ranges
from tests.support.definitions import Editor, VhostEditor
from tests.support.fakes import ScheduledClock, Scheduler
from tests.support.frames import FakeSender
from tests.support.queue_host import FakeTurn

READ = b"read "
"""In front of frames that are about the read index; none of the others begins so."""

ROUNDS_MAX = 10_000
"""Rounds of frames and commits until a cluster comes to rest, at most."""


def nobody_is_served(_queue: object) -> None:
    """No message comes here."""


class Outcome:
    """Outcome of a change: whether it was done, or why not."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def done(self) -> None:
        self.heard.append("done")

    def failed(self, error: BrokerError) -> None:
        self.heard.append(error.reply_text)


class ReadSender(FakeSender):
    """Sends the frames of read indexes, of which only some versions know."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        super().__init__(name, cluster.frames.append)
        self._cluster = cluster

    def understands(self, node: str) -> bool:
        del node
        return self._cluster.is_read

    def send(self, node: str, payload: bytes) -> None:
        if self._cluster.is_read:
            super().send(node, READ + payload)


class Node:
    """Process on a node of the cluster."""

    def __init__(self, cluster: Cluster, name: str, boot: int) -> None:
        self.cluster = cluster
        self.name = name
        self.boot = boot
        self.applied = 0
        """Index of the last entry."""
        self.is_paused = False
        """True if it does not hear of what is committed."""
        self.catalogue = Catalogue(
            Access(), {}, lambda vhost: VirtualHost(vhost, LocalQueues(FakeTurn()))
        )
        self.metadata = ReplicatedMetadata(
            name,
            boot,
            self.catalogue.apply,
            sender=FakeSender(name, cluster.frames.append),
            read_sender=ReadSender(cluster, name),
            loop=cluster.scheduler,
            clock=ScheduledClock(cluster.scheduler),
        )
        self.metadata.log = self
        self.metadata.restore(snapshot_meta(0, b""), b"")
        self.editor = Editor(self.catalogue)
        self.editor.metadata = self.metadata

    # As the log of the metadata group

    @property
    def may_grow(self) -> bool:
        return self.cluster.may_grow

    def propose(self, payload: bytes, on_outcome: OnEntryOutcome) -> None:
        del on_outcome
        if self.cluster.leader == self.name and self.cluster.nodes[self.name] is self:
            log = self.cluster.log
            log.append(Entry(len(log) + 1, self.cluster.term, DATA, payload))

    def read_index(self, done: OnReadable) -> None:
        """The leader has applied all that there is in the log once it is asked."""
        cluster = self.cluster

        def answer() -> None:
            leads = cluster.leader == self.name and cluster.nodes[self.name] is self
            done(len(cluster.log) if leads else None)

        cluster.scheduler.call_soon(answer)

    def inside(self, vhost: str = "/") -> VhostEditor:
        return VhostEditor(self.catalogue.vhosts[vhost], self.editor)

    def ask(self, decide: Callable[[], Change]) -> Outcome:
        """Ask for a change as a waiting client does."""
        outcome = Outcome()
        self.metadata.change(decide, outcome.done, outcome.failed)
        return outcome

    def catch_up(self) -> bool:
        """Apply what has been committed; whether there was anything."""
        entries = self.cluster.log[self.applied :]
        self.applied += len(entries)
        if entries:
            self.metadata.apply(entries)
        return bool(entries)

    def catch_up_by_snapshot(self) -> None:
        """Get the state of one that is as far as any."""
        ahead = max(self.cluster.nodes.values(), key=lambda node: node.applied)
        if ahead.applied > self.applied:
            state = b"".join(ahead.metadata.snapshot()[1])
            self.metadata.restore(snapshot_meta(ahead.applied, state), state)
            self.applied = ahead.applied


class Cluster:
    """Nodes, the log they share, and the frames between them."""

    def __init__(self, names: str = "abc") -> None:
        self.scheduler = Scheduler()
        self.log: list[Entry] = []
        self.is_read = True
        """True if all are of a version in which the read index is asked for."""
        self.may_grow = True
        """True if there is room on the disks."""
        self.frames: deque[tuple[str, str, bytes]] = deque()
        self.leader: str | None = None
        self.term = 0
        self.nodes: dict[str, Node] = {}
        for name in names:
            self.start(name)

    def start(self, name: str) -> Node:
        """A new process, in the place of one that dies, if there is one: it has its log."""
        before = self.nodes.get(name)
        node = self.nodes[name] = Node(self, name, before.boot + 1 if before else 1)
        if self.leader == name:
            self.lead(None)
        elif self.term:
            node.metadata.followed(self.term, self.leader)
        return node

    def elect(self, name: str) -> None:
        """Make a node the leader as all know it, before it has applied everything."""
        self.leader = name
        self.term += 1
        for node in self.nodes.values():
            node.metadata.followed(self.term, name)

    def lead(self, name: str | None) -> None:
        """Make a node the leader, or none; it has applied everything."""
        self.leader = name
        self.term += 1
        for node in self.nodes.values():
            node.metadata.followed(self.term, None)
        self.scheduler.run()
        for node in self.nodes.values():
            if node.name == name:
                node.catch_up()
                node.metadata.followed(self.term, name)
                node.metadata.led(self.term)
            else:
                node.metadata.followed(self.term, name)

    def deliver(self) -> bool:
        """The oldest frame; whether there was any."""
        if not self.frames:
            return False
        sender, receiver, payload = self.frames.popleft()
        metadata = self.nodes[receiver].metadata
        if payload.startswith(READ):
            metadata.reads.receive(sender, payload.removeprefix(READ))
        else:
            metadata.receive(sender, payload)
        return True

    def commit(self) -> bool:
        """Let all who hear of it apply what is in the log; whether there was anything."""
        nodes = [node for node in self.nodes.values() if not node.is_paused]
        return sum(node.catch_up() for node in nodes) > 0

    def settle(self) -> None:
        """Until nothing happens any more, unless time passes."""
        for _ in range(ROUNDS_MAX):
            self.scheduler.run()
            if not (self.deliver() or self.commit()):
                return
        raise AssertionError("the cluster does not come to rest")

    def advance(self, seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            self.scheduler.advance(0.5)
            self.settle()


def snapshot_meta(index: int, state: bytes) -> SnapshotMeta:
    return SnapshotMeta(index, 1, Configuration(), Ranges(), len(state), 0)


def led_by_a() -> Cluster:
    """Nodes that a leads, with a virtual host."""
    cluster = Cluster()
    cluster.lead("a")
    cluster.nodes["b"].editor.have(lambda: set_vhost(cluster.nodes["b"].catalogue, "/"))
    cluster.settle()
    return cluster
