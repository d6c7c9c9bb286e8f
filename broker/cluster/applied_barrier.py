"""Changes are answered once every node that clients can reach has them.

    change --> applied here --> asked of each other node: are you as far? --> done

Who has heard that his queue is there goes to another node, and publishes to it: there a message
for a queue that is not known yet would go nowhere.  RabbitMQ answers once all nodes have agreed.

A node that does not answer in time is waited for again only when it has said that it is as far: one
that is paused costs one answer `WAIT_S`, and none for ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from fluffle.broker.base.callbacks import call_listener
from fluffle.broker.base.clock import EventLoop
from fluffle.broker.cluster.codec import BadFrame
from fluffle.broker.cluster.metadata_group import Failed, ReplicatedMetadata
from fluffle.broker.cluster.ports import FrameSender
from fluffle.broker.metadata.metadata import Decide, ignore_done
from fluffle.raft.config import NodeId

WAIT_S = 1.0
"""Longer than a node needs that is only busy, and short for a caller that waits."""

ASK = 0
ANSWER = 1
FRAME_BYTES = 9


class WaitingChange(NamedTuple):
    """A change applied here with this revision, whose caller waits until the peers have it."""

    revision: int
    done: Callable[[], None]


class PeerRevision:
    """Another node, while there is a link to it."""

    def __init__(self) -> None:
        self.reached = 0
        """Revision up to which the node has applied everything."""
        self.asked = 0
        """The highest that it was asked for over this link."""
        self.is_late = False
        """True if it has not answered in time, and is not waited for."""


class AppliedBarrier:
    """A `Metadata` over the one that all nodes share."""

    def __init__(self, inner: ReplicatedMetadata, sender: FrameSender, loop: EventLoop) -> None:
        self._inner = inner
        self._sender = sender
        self._loop = loop
        self._others: dict[NodeId, PeerRevision] = {}
        """Nodes to which a link is up."""
        self._waiting: deque[WaitingChange] = deque()
        """Invariant: rising revisions."""
        self._wanted: dict[NodeId, int] = {}
        """Highest revision that a node asked for and was not sent yet, by node."""
        self._informed: set[NodeId] = set()
        """The nodes that have asked, and were sent the revision."""
        self._is_asking = False
        """True if the next turn asks."""
        self._is_timing = False
        inner.on_applied = self._applied

    # Metadata

    def change(self, decide: Decide, done: Callable[[], None], failed: Failed) -> None:
        self._inner.change(decide, partial(self._applied_here, done), failed)

    def ensure(
        self, decide: Decide, done: Callable[[], None] = ignore_done, late: Failed | None = None
    ) -> None:
        """Change definitions; done once it is applied here, since no client waits for it."""
        self._inner.ensure(decide, done, late)

    # Who waits

    def _applied_here(self, done: Callable[[], None]) -> None:
        revision = self._inner.state.last_revision
        if not self._behind(revision):
            done()
            return
        self._waiting.append(WaitingChange(revision, done))
        if not self._is_asking:
            self._is_asking = True
            self._loop.call_soon(self._ask)
        self._time()

    def _behind(self, revision: int) -> list[NodeId]:
        """Nodes whose answer is awaited and that have not applied `revision` yet."""
        return [
            name
            for name, other in self._others.items()
            if other.reached < revision and not other.is_late  # mutant: E1
        ]

    def _ask(self) -> None:
        """Once for all that wait."""
        self._is_asking = False
        if self._waiting:
            revision = self._waiting[-1].revision
            for name in self._behind(revision):
                self._ask_of(name, revision)

    def _ask_of(self, name: NodeId, revision: int) -> None:
        other = self._others[name]
        if other.asked < revision:
            other.asked = revision
            self._sender.send(name, frame(ASK, revision))

    def _look(self) -> None:
        """Answer the changes that do not wait for any node any more."""
        while self._waiting and not self._behind(self._waiting[0].revision):
            call_listener(self._waiting.popleft().done)

    def _time(self) -> None:
        if self._waiting and not self._is_timing:
            self._is_timing = True
            late = partial(self._give_up, self._waiting[-1].revision)
            self._loop.call_later(WAIT_S, late)

    def _give_up(self, revision: int) -> None:
        """Stop waiting for nodes that have not applied `revision` in time."""
        self._is_timing = False
        if self._waiting and self._waiting[0].revision <= revision:
            for name in self._behind(self._waiting[0].revision):
                self._others[name].is_late = True
            self._look()
        self._time()

    # The others

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        """Ask again over a new link; do not wait for a node without one."""
        if is_up:
            self._others[node] = PeerRevision()
            if self._waiting:
                self._ask_of(node, self._waiting[-1].revision)
            if node in self._informed:
                self._wanted.setdefault(node, 0)  # that may be lost with the link before
            self._applied()
        else:
            self._others.pop(node, None)
            self._look()

    def receive(self, node: NodeId, payload: bytes) -> None:
        """Take a question or an answer of another node.  Raises `BadFrame`."""
        revision = int.from_bytes(payload[1:], "big")
        if len(payload) != FRAME_BYTES or payload[0] not in (ASK, ANSWER):
            raise BadFrame("it asks for no revision, and answers with none")
        if payload[0] == ASK:
            self._wanted[node] = max(self._wanted.get(node, 0), revision)
            self._applied()
        elif node in self._others:
            other = self._others[node]
            other.reached = max(other.reached, revision)
            other.is_late = other.is_late and other.reached < other.asked
            self._look()

    def _applied(self) -> None:
        """Definitions may have changed here: send the revision to the nodes that have asked."""
        revision = self._inner.state.last_revision
        wanted = self._wanted.items()
        ready = [node for node, least in wanted if least <= revision and node in self._others]
        for node in ready:
            del self._wanted[node]
            self._informed.add(node)
            self._sender.send(node, frame(ANSWER, revision))


def frame(kind: int, revision: int) -> bytes:
    return bytes((kind,)) + revision.to_bytes(FRAME_BYTES - 1, "big")
