"""The host of a node in its event loop: turns with everybody else's, one commit for all.

    frames, commits, timers --> RaftHost.feed --> Turn: queues pumped, consensus, record --> store

The host's turn is a part of the node's `Turn`, after the queues, so that what they propose is in
it, and before the commit begins, so that journals on this disk and logs of Raft share one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fluffle.broker.cluster.common_time import CommonTime
from fluffle.broker.cluster.frame_dispatch import FrameDispatch
from fluffle.broker.cluster.host_limits import HostLimits
from fluffle.broker.cluster.ports import FrameKind, GroupOwner, Links
from fluffle.broker.cluster.raft_host import RaftHost, RaftHostEnvironment
from fluffle.broker.runtime.turn import Turn, do_nothing
from fluffle.raft.config import NodeId
from fluffle.raft.multiraft import MultiRaft
from fluffle.raft.records import Chance, GroupId
from fluffle.raft.tuning import Tuning
from fluffle.storage.raft_log import RaftLog
from fluffle.storage.store import Store


class HostIdentity(NamedTuple):
    """Name and boot of a node, in this run of its process."""

    node: NodeId
    boot: int
    """Greater than at any earlier start, and on disk already."""
    chance: Chance


class HostLoopEnvironment(NamedTuple):
    """The parts of a node that its host shares."""

    store: Store
    turn: Turn
    """Its `record` must flush the store, as that of `Commits` does."""
    links: Links
    owner: GroupOwner
    clock: CommonTime
    call_soon: Callable[[Callable[[], None]], object]
    call_later: Callable[[float, Callable[[], None]], object]
    """Seconds.  As those of the loop."""
    on_fatal: Callable[[Exception], None]


class LoopSchedule:
    """A `Schedule` of the loop that a node runs in."""

    __slots__ = ("_around", "host", "is_turn_coming", "is_turn_due")

    def __init__(self, around: HostLoopEnvironment) -> None:
        self._around = around
        self.host: RaftHost | None = None
        """Set before anything is asked for; None again when it has stopped."""
        self.is_turn_due = False
        self.is_turn_coming = False
        """Whether it is taken in this turn of the node, if it is due."""

    def now_ms(self) -> int:
        return self._around.clock.now_ms()

    def turn_soon(self) -> None:
        self.is_turn_due = True
        if not self.is_turn_coming:
            self._around.turn.touch_consensus()

    def work_soon(self) -> None:
        self._around.call_soon(self._work)

    def wake_at(self, at_ms: int) -> None:
        delay_s = max(0, at_ms - self.now_ms()) / 1_000
        self._around.call_later(delay_s, lambda: self._wake(at_ms))

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


class RunningHost:
    """A `RaftHost` with all its ports connected.  `start`, then the links may open."""

    __slots__ = ("_multi", "_schedule", "_turn", "after", "before", "host", "switch")

    def __init__(
        self,
        identity: HostIdentity,
        around: HostLoopEnvironment,
        *,
        tuning: Tuning | None = None,
        settings: HostLimits | None = None,
    ) -> None:
        self._turn = around.turn
        self._schedule = schedule = LoopSchedule(around)
        self._multi = multi = MultiRaft(
            identity.node, identity.boot, tuning or Tuning(), identity.chance
        )
        log = RaftLog(around.store, flush=around.turn.touch_record)
        ports = RaftHostEnvironment(
            log, around.links, schedule, around.owner, around.clock, around.on_fatal
        )
        self.host = RaftHost(multi, ports, settings or HostLimits())
        schedule.host = self.host
        self.before: list[Callable[[], None]] = []
        """What is done in front of the groups' turn: what it proposes is in it.  Whoever adds
        itself touches the node's `Turn` when it has something to do."""
        self.after: list[Callable[[], None]] = []
        """What is done behind it: what it has brought is told."""
        self.switch = FrameDispatch(around.links, around.owner.refused)
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
        """It is none of the cluster any more: who comes under its name begins anew."""
        self.host.feed(self._multi.forget_node, node)

    def link_accepted(self, node: NodeId) -> None:
        """A node has dialled this one: answers may be lost with its link before."""
        self.host.feed(self._multi.scheduler.add_link_news, node)

    def hasten(self, group: GroupId) -> None:
        """Somebody waits for it: see `GroupScheduler.attend`."""
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
