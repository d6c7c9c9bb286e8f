"""Fakes around the parts of a simulated node: time, images with a digest, tapped links."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

from fluffle.broker.base.clock import EventLoop
from fluffle.broker.cluster.metadata_group import AppliedBarrier, ReplicatedMetadata
from fluffle.broker.cluster.ports import (
    FrameKind,
    Links,
    Machine,
    OnFrame,
    OnLink,
    Payload,
    TrafficClass,
)
from fluffle.raft.config import NodeId
from fluffle.raft.log import Entry, SnapshotMeta
from fluffle.raft.ranges import Ranges
from tests.simulation.facts import Violation
from tests.simulation.process import Process
from tests.support.payloads import joined


class NodeClock:
    """A `Clock`: that of the machine, and another on its wall."""

    def __init__(self, process: Process, wall_ahead_ms: Callable[[NodeId], int]) -> None:
        self._process = process
        self._ahead_ms = wall_ahead_ms

    def now_ms(self) -> int:
        return self._process.world.now_ms(self._process.node)

    def wall_ms(self) -> int:
        return self.now_ms() + self._ahead_ms(self._process.node)


class CancelledFlag:
    """Timer of something that is done later, unless it is cancelled."""

    __slots__ = ("is_cancelled",)

    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class MachineWithDigest:
    """A machine with a digest."""

    def __init__(self, machine: Machine, digest: Callable[[], int]) -> None:
        self._machine = machine
        self._digest = digest

    @property
    def digest(self) -> int:
        return self._digest()

    def restore(self, meta: SnapshotMeta, state: bytes) -> None:
        self._machine.restore(meta, state)

    def apply(self, entries: Sequence[Entry]) -> None:
        self._machine.apply(entries)

    def led(self, term: int) -> None:
        self._machine.led(term)

    def followed(self, term: int, leader: NodeId | None) -> None:
        self._machine.followed(term, leader)

    def snapshot(self) -> tuple[Ranges, Iterator[bytes]]:
        return self._machine.snapshot()


class TappedLinks:
    """`Links` on which somebody listens to streams."""

    def __init__(self, links: Links, overhear: Callable[[NodeId, bytes], None]) -> None:
        self.on_frame: OnFrame = links.on_frame
        self.on_link: OnLink = links.on_link
        self._links = links
        self._overhear = overhear

    def send(
        self, node: NodeId, kind: FrameKind, payload: Payload, *, traffic: TrafficClass
    ) -> None:
        if kind is FrameKind.SESSION:
            self._overhear(node, joined(payload))
        self._links.send(node, kind, payload, traffic=traffic)

    def is_up(self, node: NodeId) -> bool:
        return self._links.is_up(node)

    def waiting_bytes(self, node: NodeId, traffic: TrafficClass) -> int:
        return self._links.waiting_bytes(node, traffic)


class SimulatedSender:
    """A `FrameSender` of one kind over simulated links, on which all are of this version."""

    def __init__(
        self, links: Links, kind: FrameKind, traffic: TrafficClass, nodes: Collection[NodeId]
    ) -> None:
        self._links = links
        self._kind = kind
        self._lane = traffic
        self.nodes = nodes

    @property
    def reached(self) -> list[NodeId]:
        return [node for node in self.nodes if not self.hindrance(node)]

    def hindrance(self, node: NodeId) -> str:
        return "" if self._links.is_up(node) else "there is no link to it"

    def understands(self, node: NodeId) -> bool:
        del node
        return True

    def send(self, node: NodeId, payload: bytes) -> None:
        self._links.send(node, self._kind, payload, traffic=self._lane)

    def send_all(self, payload: bytes) -> None:
        for node in self.nodes:
            self.send(node, payload)


class CheckedBarrier(AppliedBarrier):
    """Barrier whose every answer is checked, and which remembers for whom none has waited."""

    def __init__(self, inner: ReplicatedMetadata, sender: SimulatedSender, loop: EventLoop) -> None:
        super().__init__(inner, sender, loop)
        self._nodes = sender.nodes
        self.unawaited: dict[NodeId, int] = {}
        """Highest revision that was answered without waiting for a node, by node: there was no link
        to it, or it was late."""

    def _applied_here(self, done: Callable[[], None]) -> None:
        super()._applied_here(partial(self._answer, self._inner.state.last_revision, done))

    def _answer(self, revision: int, done: Callable[[], None]) -> None:
        """Answer, after a check that all nodes have applied the revision."""
        for node, other in self._others.items():
            if other.reached < revision and not other.is_late:
                raise Violation(f"everywhere: {node} is at {other.reached}, and not {revision}")
        for node in self._nodes:
            if node not in self._others or self._others[node].reached < revision:
                self.unawaited[node] = max(revision, self.unawaited.get(node, 0))
        done()
