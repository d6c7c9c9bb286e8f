"""Liveness of the nodes: as this node sees them, as the others do, and whether they are a majority.

Suspected is not gone: a node that cannot be reached may go on serving its clients.  It is *dead*
if its host says that it does not run, or if no node has seen it for long.  That a link between two
nodes is cut says nothing of either, so the others are asked before a node is forgotten:

    question  [0, number]
    answer    [1, number, node ...]    those that the node which is asked sees

Without a majority of the metadata group nothing fails at once: what is asked for waits, and
clients do not know why.  So each loss of the majority, and each return, is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

from fluffle.broker.base.clock import EventLoop
from fluffle.broker.base.logs import event
from fluffle.broker.cluster.codec import BadFrame, pack, unpack
from fluffle.broker.cluster.rpc import Gather, OnAnswers
from fluffle.raft.config import Configuration, Member, NodeId, is_majority, majority_of
from fluffle.raft.output import LivenessVerdict

DEAD_AFTER_MS = 60_000
"""Time until an unseen node counts as dead, as RabbitMQ's consumer_disconnected_timeout."""

SEEN_AFTER_MS = 5_000
"""Links with all that are there are up long before: a second try included."""

logger = logging.getLogger(__name__)


class AbsentNodes:
    """Nodes of the cluster to which there is no link, and what is known of each."""

    def __init__(
        self, node: NodeId, now_ms: Callable[[], int], is_not_running: Callable[[NodeId], bool]
    ) -> None:
        """`node` is this one; `is_not_running`: whether the host of a node has said so last."""
        self._node = node
        self._now_ms = now_ms
        self._is_not_running = is_not_running
        self._began_ms = now_ms()
        self._alive: set[NodeId] = set()
        self._away_since_ms: dict[NodeId, int] = {}

    def judged(self, verdict: LivenessVerdict) -> None:
        """Record a verdict; a node that was never heard of counts as away from now on."""
        if verdict.is_alive:
            self._alive.add(verdict.node)
            self._away_since_ms.pop(verdict.node, None)
        else:
            self._alive.discard(verdict.node)
            self._away_since_ms.setdefault(verdict.node, self._now_ms())

    @property
    def alive(self) -> Collection[NodeId]:
        """Nodes believed to be alive."""
        return self._alive

    def is_alive(self, node: NodeId) -> bool:
        """True if it is believed to be."""
        return node in self._alive

    def is_dead(self, node: NodeId) -> bool:
        """True if nothing that ends with its process is of any use any more.

        A node sends no pings to itself, so this one is not among those that are seen.
        """
        if node == self._node or node in self._alive:
            return False
        since_ms = self._away_since_ms.get(node, self._began_ms)
        return self._is_not_running(node) or self._now_ms() - since_ms >= DEAD_AFTER_MS


class PeerViews:
    """The questions of one node that have no answer yet, and the answers to others."""

    def __init__(
        self,
        absent: AbsentNodes,
        send: Callable[[NodeId, bytes], None],
        loop: EventLoop,
    ) -> None:
        """`send`: to the `receive` of another node; may be lost."""
        self._absent = absent
        self._send = send
        self._polls: Gather[frozenset[NodeId]] = Gather(send, loop)

    def ask(self, nodes: Collection[NodeId], done: OnAnswers[frozenset[NodeId]]) -> None:
        """Call `done` once, within seconds and not before this returns, with the nodes that those
        see that answered."""
        self._polls.ask(nodes, lambda number: pack(0, number), done)

    @property
    def asked(self) -> int:
        """How often."""
        return self._polls.asked

    def receive(self, node: NodeId, payload: bytes) -> None:
        """A question or an answer.  Raises `BadFrame`."""
        kind, number, seen = unpacked(payload)
        if kind == 1:
            self._polls.answered(node, number, seen)
        else:
            self._send(node, pack(1, number, *sorted(self._absent.alive)))


def unpacked(payload: bytes) -> tuple[int, int, frozenset[NodeId]]:
    """Raises `BadFrame`."""
    row = unpack(payload)
    if (
        type(row) is not list
        or row[:1] not in ([0], [1])
        or [type(each) for each in row] != [int, int, *[str] * (len(row) - 2)]
    ):
        raise BadFrame(f"{row!r:.40} for the nodes that are seen")
    return row[0], row[1], frozenset(row[2:])


class MetadataNodes(Protocol):
    """The nodes of a cluster, as one of them knows them."""

    @property
    def metadata_config(self) -> Configuration:
        """Configuration of the metadata group."""

    def is_here(self, node: NodeId) -> bool:
        """True if a node seems to be alive; this one is."""


@dataclass(slots=True, eq=False)
class MajorityMonitor:
    """Majority as one node sees it, from its join on: there was one then, perhaps seen through its
    link with the leader alone.
    """

    _nodes: MetadataNodes
    _now_ms: Callable[[], int]
    _since_ms: int | None = field(default=None, init=False)
    """When it has looked first, since there were voters that it had not seen as such."""
    _is_seen: bool = field(default=False, init=False)
    """True if this node has ever seen all that make one, or should have by now."""
    _voters: frozenset[Member] = field(default_factory=frozenset, init=False)
    """The voters at the last look."""
    is_there: bool = True
    """True if there was a majority at the last look."""

    def look(self) -> None:
        """Say what is otherwise than at the last look."""
        voters = self._nodes.metadata_config.voters
        alive = {voter for voter in voters if self._nodes.is_here(voter.node)}
        is_there = not voters or is_majority(alive, voters)
        if not self._voters.issuperset(
            voters
        ):  # one that has just joined may not have been heard yet
            self._is_seen, self._since_ms = False, None
        self._voters = frozenset(voters)
        self._is_seen = self._is_seen or is_there or self._has_looked_for_long()
        if is_there == self.is_there or not self._is_seen:
            return
        self.is_there = is_there
        up = ",".join(sorted(voter.node for voter in alive))
        if is_there:
            event(logger, logging.INFO, "majority_regained", up=up)
            return
        away = ",".join(sorted(voter.node for voter in voters if voter not in alive))
        advice = (
            f"until {majority_of(len(voters))} of {len(voters)} nodes see each other nothing is "
            "defined or changed: start those that are away, or look why there is no link to them; "
            "if their disks are lost for good, `fluffle salvage`"
        )
        event(logger, logging.WARNING, "majority_lost", up=up, away=away, advice=advice)

    def _has_looked_for_long(self) -> bool:
        now_ms = self._now_ms()
        if self._since_ms is None:
            self._since_ms = now_ms
        return now_ms - self._since_ms >= SEEN_AFTER_MS
