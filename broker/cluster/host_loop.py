"""The host of a node in its event loop: turns, frames by their kind, groups by their owner.

    frames, commits, timers --> RaftHost.feed --> Turn: queues pumped, consensus, record --> store

The host's turn is a part of the node's `Turn`, after the queues, so that what they propose is in
it, and before the commit begins, so that journals on this disk and logs of Raft share one.  One
group holds the definitions of the cluster; all others are those of queues.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

from fluffle.broker.base.clock import EventLoop
from fluffle.broker.base.logs import event
from fluffle.broker.cluster.codec import BadFrame
from fluffle.broker.cluster.common_time import CommonTime
from fluffle.broker.cluster.group_background import HostLimits
from fluffle.broker.cluster.ports import (
    METADATA_GROUP,
    FrameKind,
    GroupOwner,
    Links,
    Machine,
    OnLink,
)
from fluffle.broker.cluster.raft_host import RaftHost, RaftHostEnvironment
from fluffle.broker.metadata.metadata import ReadBarrier
from fluffle.broker.runtime.turn import Turn, do_nothing
from fluffle.raft.config import NodeId
from fluffle.raft.log import GroupId
from fluffle.raft.multiraft import MultiRaft
from fluffle.raft.output import ConfigChange, LivenessVerdict
from fluffle.raft.state import Chance
from fluffle.raft.tuning import Tuning
from fluffle.storage.raft_log import RaftLog
from fluffle.storage.store import Store

OnPayload = Callable[[NodeId, bytes], None]

logger = logging.getLogger(__name__)


class FrameDispatch:
    """Takes the two hooks of a node's links, and passes on.

    Frames of a kind without a receiver come from a node of a later version; they are dropped and
    reported to `refused`, as is what its receiver calls a `BadFrame`.
    """

    def __init__(self, links: Links, refused: Callable[[NodeId, str], None]) -> None:
        self._refused = refused
        self.takers: dict[FrameKind, OnPayload] = {}
        """Handlers by kind of frame; each is added before the links open."""
        self.link_listeners: list[OnLink] = []
        """Called in this order."""
        self.accept_listeners: list[Callable[[NodeId], None]] = []
        """Called with a node that has dialled this one, before its first frame."""
        self.strangers: Collection[NodeId] = ()
        """Nodes that help to found another cluster, as they change: they have nothing to say to the
        groups of this one, and are heard in frames of formation alone."""
        links.on_frame = self._on_frame
        links.on_link = self._on_link

    def _on_frame(self, node: NodeId, kind: FrameKind, payload: bytes) -> None:
        taker = self.takers.get(kind)
        if node in self.strangers and kind is not FrameKind.FORMATION:
            return
        if taker is None:
            self._refused(node, f"nobody takes frames of kind {kind:d}")
        else:
            try:
                taker(node, payload)
            except BadFrame as bad:
                self._refused(node, str(bad))

    def _on_link(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        for listener in self.link_listeners:
            listener(node, is_up)


class HostIdentity(NamedTuple):
    """Name and boot of a node, in this run of its process."""

    node: NodeId
    boot: int
    """Greater than at any earlier start, and on disk already."""
    chance: Chance


class LoopSchedule:
    """A `Schedule` of the loop that a node runs in."""

    def __init__(self, turn: Turn, loop: EventLoop, clock: CommonTime) -> None:
        self._turn = turn
        self._loop = loop
        self.now_ms = clock.now_ms
        self.host: RaftHost | None = None
        """Set before anything is asked for; None again when it has stopped."""
        self.is_turn_due = False
        self.is_turn_coming = False
        """True if it is taken in this turn of the node, if it is due."""

    def turn_soon(self) -> None:
        self.is_turn_due = True
        if not self.is_turn_coming:
            self._turn.touch_consensus()

    def work_soon(self) -> None:
        self._loop.call_soon(self._work)

    def wake_at(self, at_ms: int) -> None:
        delay_s = max(0, at_ms - self.now_ms()) / 1_000
        self._loop.call_later(delay_s, lambda: self._wake(at_ms))

    def _work(self) -> None:
        if self.host is not None:
            self.host.work()

    def _wake(self, at_ms: int) -> None:
        if self.host is None:
            return
        if self.now_ms() < at_ms:
            self.wake_at(at_ms)  # the loop's clock is a little ahead of ours
        else:
            self.host.wake(at_ms)


class HostLoop:
    """The `RaftHost` of a node, run in the turns of its event loop.

    `start` is called before the links open.
    """

    def __init__(
        self,
        identity: HostIdentity,
        store: Store,
        turn: Turn,
        links: Links,
        owner: GroupOwner,
        *,
        clock: CommonTime,
        loop: EventLoop,
        on_fatal: Callable[[Exception], None],
        tuning: Tuning | None = None,
        settings: HostLimits | None = None,
    ) -> None:
        """`turn`: its `record` must flush the store, as that of `Commits` does."""
        self._turn = turn
        self._schedule = schedule = LoopSchedule(turn, loop, clock)
        self._multi = multi = MultiRaft(
            identity.node, identity.boot, tuning or Tuning(), identity.chance, clock.ping_times_ms
        )
        log = RaftLog(store, flush=turn.touch_commit)
        ports = RaftHostEnvironment(log, links, schedule, owner, clock, on_fatal)
        self.host = RaftHost(multi, ports, settings or HostLimits())
        schedule.host = self.host
        self.before: list[Callable[[], None]] = []
        """Functions called before the groups' turn: their proposals are part of it.  A caller
        that adds one touches the node's `Turn` when there is work."""
        self.after: list[Callable[[], None]] = []
        """Functions called after the groups' turn, with its results."""
        self.switch = FrameDispatch(links, owner.refused)
        self.switch.takers[FrameKind.CONSENSUS] = self.host.receive
        self.switch.link_listeners.append(self.host.link_changed)

    @property
    def is_running(self) -> bool:
        """Until `stop`."""
        return self._schedule.host is not None

    def start(self, *, are_asleep: bool = False) -> list[GroupId]:
        """Take up what is on disk: see `RaftHost.start`."""
        self._turn.consensus = self._take_turn
        return self.host.start(are_asleep=are_asleep)

    def wake(self) -> None:
        """Have all groups begin that have not yet."""
        self.host.feed(self._multi.scheduler.wake)

    def _take_turn(self) -> None:
        schedule = self._schedule
        schedule.is_turn_coming = True
        for act in self.before:
            act()
        schedule.is_turn_coming = False
        if schedule.is_turn_due:
            schedule.is_turn_due = False
            self.host.turn()
        for act in self.after:
            act()

    def forget_node(self, node: NodeId) -> None:
        """Forget a node that left the cluster: a new node of that name starts anew."""
        self.host.feed(self._multi.forget_node, node)

    def link_accepted(self, node: NodeId) -> None:
        """A node has dialled this one: answers may be lost with its link before."""
        self.host.feed(self._multi.scheduler.add_link_news, node)
        for listener in self.switch.accept_listeners:
            listener(node)

    def hasten(self, group: GroupId) -> None:
        """Attend to a group at once, for a caller waits: see `GroupScheduler.attend`."""
        self.host.feed(self._multi.scheduler.attend, group)

    def force_single_member(self, group: GroupId, incarnation: int) -> None:
        """In the next turn: see `MultiRaft.force_single_member`."""
        self.host.group(group).incarnation = incarnation
        self.host.feed(self._multi.force_single_member, group, incarnation)

    def stop(self) -> None:
        """Before the store is closed, which makes durable what was submitted."""
        self._schedule.host = None
        self._turn.consensus = do_nothing
        self.host.stop()


class NodesListener(Protocol):
    """Listener for changes of the nodes of the cluster."""

    def judged(self, verdict: LivenessVerdict) -> None:
        """Handle a change of liveness, as `GroupOwner.judged`."""

    def configured(self) -> None:
        """A configuration of the metadata group is committed."""

    def unknown(self, node: NodeId) -> None:
        """A node says that it does not have the metadata group."""


@dataclass(slots=True, eq=False)
class GroupOwnerDispatch:
    """A `GroupOwner` that asks the one whose group it is."""

    _metadata: Machine
    _hosting: GroupOwner
    _nodes: NodesListener
    _read_barrier: ReadBarrier
    """Knowledge of definitions, and so of the groups of queues."""

    def make_machine(self, group: GroupId) -> Machine:
        return self._metadata if group == METADATA_GROUP else self._hosting.make_machine(group)

    def configured(self, change: ConfigChange) -> None:
        if change.group == METADATA_GROUP:
            self._nodes.configured()
        else:
            self._hosting.configured(change)

    def judged(self, verdict: LivenessVerdict) -> None:
        event(
            logger,
            logging.INFO if verdict.is_alive else logging.WARNING,
            "node_alive" if verdict.is_alive else "node_suspected",
            node=verdict.node,
            boot=verdict.boot,
        )
        self._nodes.judged(verdict)
        self._hosting.judged(verdict)

    def when_known(self, group: GroupId, act: Callable[[], None]) -> None:
        if group == METADATA_GROUP:
            act()
        else:
            self._read_barrier.ask(partial(self._hosting.when_known, group, act))  # mutant: AB1

    def unknown(self, node: NodeId, group: GroupId) -> None:
        if group == METADATA_GROUP:
            self._nodes.unknown(node)
        else:
            self._hosting.unknown(node, group)

    def damaged(self, group: GroupId, index: int, wrong: str) -> None:
        if group == METADATA_GROUP:
            event(logger, logging.ERROR, "log_damaged", group=group, index=index, wrong=wrong)
        else:
            self._hosting.damaged(group, index, wrong)

    def given_up(self, group: GroupId, wrong: str) -> None:
        if group == METADATA_GROUP:
            event(logger, logging.ERROR, "log_rejected", group=group, wrong=wrong)
        else:
            self._hosting.given_up(group, wrong)

    def refused(self, node: NodeId, reason: str) -> None:
        log_refused(node, reason)


def log_refused(node: NodeId, reason: str) -> None:
    """A frame of a node is not one of ours."""
    event(logger, logging.ERROR, "frame_rejected", node=node, reason=reason)
