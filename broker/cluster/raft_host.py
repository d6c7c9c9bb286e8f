"""The groups of a node, run: everything that comes in gathers, one turn does all of it.

    frames, links, durable tokens, time, what groups are asked --> inbox
                                                                     |
         +---------- turn: tick, feed, output once ------------------+
         v
    messages by class, persist, roles, restores, applies, configs, led, answers, reads ...

The daemon, the embedded cluster and the simulator run `RaftHost`; what differs is behind the ports.

    frames, commits, timers --> RaftHost.feed --> Turn: queues pumped, consensus, record --> store

`HostLoop` runs it in an event loop.  The host's turn is then a part of the node's `Turn`, after the
queues, so that what they propose is in it, and before the commit begins, so that journals on this
disk and logs of Raft share one.

No turn takes in more than `STEPS_MAX`: what is left is for the next, in the same order.

Answers of followers, and what is on disk, are heard before the turn, and ask for one only if
something follows from them but messages, which leave at once.

Rule 1: an output is done in the order of its fields, and nothing else is sent but those.
Rule 2: nothing is called from outside a turn but through `Schedule`; what is called from within
one may ask for anything, and gets it in the next.
Rule 3: an exception ends the node, whatever it is: what the output held would be lost.  Frames are
looked at before they get so far; nothing that a peer sends is one.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from fluffle.broker.base.clock import EventLoop
from fluffle.broker.base.logs import event
from fluffle.broker.cluster.codec import BadFrame, TrafficClasses, check, decode, encode
from fluffle.broker.cluster.common_time import CommonTime
from fluffle.broker.cluster.group_background import GroupBackground, HostLimits
from fluffle.broker.cluster.hosted_group import HostedGroup, RejectedLog
from fluffle.broker.cluster.ports import (
    ClockExchange,
    FrameKind,
    GroupOwner,
    Links,
    OnLink,
    Schedule,
)
from fluffle.broker.runtime.turn import Turn, do_nothing
from fluffle.raft.config import Configuration, NodeId
from fluffle.raft.log import GroupId, size_of
from fluffle.raft.log_store import DamagedLog, LogStore
from fluffle.raft.messages import AppendAccepted, AppendRequest, Message, SnapshotChunk
from fluffle.raft.multiraft import MultiRaft
from fluffle.raft.output import (
    AbsentMember,
    Apply,
    Output,
    Restore,
    Role,
    RoleChange,
)
from fluffle.raft.state import Chance
from fluffle.raft.tuning import Tuning
from fluffle.storage.raft_log import RaftLog
from fluffle.storage.store import Store

logger = logging.getLogger(__name__)


class DiskSpace:
    """Free space of the disk as last reported; see `LogStore`."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self.has_room = self.may_grow = self.takes_entries = True
        self.is_needed = True
        """True if some group has no majority with room without this node."""
        self.on_no_room: Callable[[], object] = do_nothing
        """Called when there is none any more, maybe from within a turn."""

    def look(self) -> None:
        """Read the space of the disk.

        Several parts of a node do, so what has changed since a call is no news of anybody's own.
        """
        store, had_room = self._store, self.has_room
        self.has_room = has_room = store.has_room
        if had_room and has_room:
            return
        self.may_grow = has_room or store.may_grow
        self.takes_entries = has_room or store.takes_entries
        if had_room:
            self.on_no_room()

    @property
    def follows(self) -> bool:
        """True if entries of leaders elsewhere are taken: as long as there is room for any where
        they cannot be committed without, else only as long as there is some for more."""
        return self.takes_entries if self.is_needed else self.may_grow


RESIGNATIONS_MAX = 8
"""Resignations in a row, after which every better candidate has had its turn."""

STEPS_MAX = 1024
"""Messages that are taken in, and other calls that are made, in one turn.  A hundred busy queues
bring some hundred: what they bring together must not become two turns, for a turn is what costs
(benchmarks/compare --suite quorum, f16)."""

Call = tuple[Callable[..., object], tuple[object, ...]]


class RaftHostEnvironment(NamedTuple):
    """The parts of a node that its Raft host uses."""

    store: LogStore
    links: Links
    schedule: Schedule
    owner: GroupOwner
    day: ClockExchange
    on_fatal: Callable[[Exception], None]
    """The node must end: this host does nothing any more."""


class RaftHost:
    """The Raft groups on this node, and the turns in which they are run.

    Used from one thread.  `start` comes first; frames and link changes may come before it.
    """

    def __init__(self, multi: MultiRaft, ports: RaftHostEnvironment, settings: HostLimits) -> None:
        """`multi` is new: this node's name, its boot and its chance are in it."""
        self._multi = multi
        self._store = ports.store
        self._links = ports.links
        self._schedule = ports.schedule
        self._owner = ports.owner
        self._clock_exchange = ports.day
        self._on_fatal = ports.on_fatal
        self._groups: dict[GroupId, HostedGroup] = {}
        self._traffic_classes = TrafficClasses(ports.links)
        self._background = GroupBackground(
            multi, ports.store, self._groups, self._traffic_classes, settings
        )
        self.snapshots = self._background.snapshots
        """Groups that owe a snapshot."""
        self.rewrite = self._background.rewrite
        """See `GroupBackground`."""
        self._absent: set[AbsentMember] = set()
        """Members that are not here, of which that is not said yet."""
        self._inbox: deque[Call] = deque()
        self._asked: deque[Call] = deque()
        """Calls that other parts of the node made on groups."""
        self._steps = 0
        """How many of this turn are done, or were before it."""
        self.is_disk_awaited = False
        """Set by a caller that wants a turn, whatever follows, once the write under way is on
        disk."""
        self._is_turn_asked = False
        self._is_work_asked = False
        self._is_over = False
        self._wake_at_ms: int | None = None
        """The earliest wake that was asked for and has not come."""
        self.submitted = self.durable = 0
        """The last write that the disk was given, and the last of them that is on it."""
        self.space = DiskSpace(ports.store)
        self.leader_changes = 0
        """How often a group was found to have another leader, or the same anew: for metrics."""

    @property
    def mistakes(self) -> Mapping[NodeId, int]:
        """How often each node was suspected, and was there: for metrics."""
        return self._multi.mistakes

    def start(self, *, are_asleep: bool = False) -> list[GroupId]:
        """Load what is on disk; returns the groups that are lost there, and are not here.

        Each of these must be deleted, and may come back as another member only.  `are_asleep`: see
        `MultiRaft.load`.
        """
        loaded = self._store.load()
        self._store.on_durable = self._on_durable
        self._multi.load(loaded.groups, are_asleep=are_asleep)
        for found in loaded.groups:
            self._add(found.group, found.incarnation)
        self._background.start(self._schedule.now_ms(), self._damaged)
        self.feed(_nothing)
        return loaded.lost

    def stop(self) -> None:
        """Take no turn any more; whatever is waited for ends with an unknown outcome.

        What was submitted is the store's, which can be closed now.
        """
        self._is_over = True
        self._background.stop()
        self._inbox.clear()
        for hosted in self._groups.values():
            hosted.on_gone()
        while self._asked:
            call, args = self._asked.popleft()
            call(*args)  # they are refused, for the groups are gone

    # Groups

    def __contains__(self, group: GroupId) -> bool:
        return group in self._groups

    @property
    def groups(self) -> Mapping[GroupId, HostedGroup]:
        """All that are here, as they change."""
        return self._groups

    def group(self, group: GroupId) -> HostedGroup:
        """Raises `KeyError` if it is not here, or not yet."""
        return self._groups[group]

    def create(
        self, group: GroupId, incarnation: int, config: Configuration, first: NodeId | None = None
    ) -> None:
        """Be a member, in the next turn, of a group that was never here: see `MultiRaft.create`."""
        self.feed(self._create, group, incarnation, config, first)

    def delete(self, group: GroupId) -> None:
        """Forget a group and its data, in the next turn: see `MultiRaft.delete`."""
        self.feed(self._delete, group)

    def _create(
        self, group: GroupId, incarnation: int, config: Configuration, first: NodeId | None
    ) -> None:
        self._multi.create(group, incarnation, config, first)
        self._add(group, incarnation)

    def _add(self, group: GroupId, incarnation: int) -> None:
        machine = self._owner.make_machine(group)
        self._groups[group] = HostedGroup(group, incarnation, machine, self._multi, self._ask)

    def _delete(self, group: GroupId) -> None:
        self._multi.delete(group)
        self.snapshots.forget(group)
        hosted = self._groups.pop(group, None)
        if hosted is not None:
            hosted.on_gone()

    def read_entry(self, group: GroupId, index: int) -> bytes:
        """The payload of an entry that is applied and live.  Raises `DamagedLog`."""
        found = self._store.read(group, index, index + 1, 1)
        if not found:
            raise DamagedLog(group, index)
        return found[0].payload

    # What comes in

    def feed(self, call: Callable[..., object], *args: object) -> None:
        """Have something done in the next turn that has time, behind what was fed before."""
        if not self._is_over:
            self._inbox.append((call, args))
            self._ask_turn()

    def _ask(self, call: Callable[..., object], *args: object) -> None:
        """Likewise, behind what is taken in with the same turn."""
        if self._is_over:
            call(*args)
        else:
            self._asked.append((call, args))
            self._ask_turn()

    def _ask_turn(self) -> None:
        if not self._is_turn_asked:
            self._is_turn_asked = True
            self._schedule.turn_soon()

    def receive(self, node: NodeId, frame: bytes) -> None:
        """A frame of consensus, over the link that is up.

        Answers of followers are heard at once, if nothing waits in front of them.
        """
        try:
            messages = decode(frame)
            check(messages)
        except BadFrame as bad:
            self._owner.refused(node, str(bad))
            return
        are_answers = set(map(type, messages)) <= {AppendAccepted}
        if self._inbox or self._steps >= STEPS_MAX or not are_answers:
            self.feed(self._receive, node, messages)
        elif not self._is_over:
            self._steps += len(messages)
            self._hear(self._multi.receive, node, messages)

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        self.feed(self._multi.link_up if is_up else self._multi.link_down, node)

    def _on_durable(self, token: int) -> None:
        self.durable = token
        if self._is_over:
            return
        if self.is_disk_awaited:
            self.is_disk_awaited = False
            self._ask_turn()
        self._hear(self._multi.durable, token)

    def _hear(self, call: Callable[..., object], *args: object) -> None:
        """Have consensus hear what mostly is one of three: that a node has an entry on disk.

        What a follower answers is sent at once.  There is a turn if something else follows from it,
        because a turn for each is a tenth of what it costs to send one message at a time
        (benchmarks.compare --suite quorum, c16).
        """
        try:
            call(*args)
            for node, messages in self._multi.take_messages().items():
                self._send(node, messages)
        except Exception as error:  # noqa: BLE001 - rule 3
            self._fail(error)
        else:
            if self._multi.is_output_due:
                self._ask_turn()

    def _receive(self, node: NodeId, messages: list[Message]) -> None:
        self._steps += len(messages)
        if not self.space.follows:
            messages = without_entries(node, messages, self._followed_as)
        self._multi.receive(node, messages)

    def _followed_as(self, group: GroupId) -> tuple[int, NodeId | None]:
        hosted = self._groups.get(group)
        return hosted.followed if hosted is not None else (0, None)

    # Called by the schedule

    def turn(self) -> None:
        """Take a turn.  Never raises; `on_fatal` is called."""
        self._is_turn_asked = False
        if self._is_over:
            return
        try:
            self._take_turn()
        except Exception as error:  # noqa: BLE001 - rule 3
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._on_fatal(error)
        self.stop()

    def work(self) -> None:
        """Have a slice of what is not urgent done in the next turn."""
        self._is_work_asked = False
        self.feed(self._work)

    def wake(self, at_ms: int) -> None:
        """A time that was asked for has come."""
        if self._wake_at_ms == at_ms:
            self._wake_at_ms = None
            self.feed(_nothing)

    def _take_turn(self) -> None:
        multi, space, snapshots = self._multi, self.space, self.snapshots
        space.look()
        if snapshots.is_short or not space.has_room:  # mutant: N4
            multi.has_room = space.takes_entries
            snapshots.is_short = not space.has_room
            snapshots.is_full = not space.takes_entries
        now_ms = self._schedule.now_ms()
        multi.tick(now_ms)
        unread: Collection[NodeId] = ()
        if self._inbox:
            self._take(self._inbox)
        if self._inbox:
            unread = {str(args[0]) for call, args in self._inbox if call == self._receive}
        if self._asked:
            self._take(self._asked)
        if self._inbox or self._asked:
            self._ask_turn()
        self._steps = 0
        self._do(multi.output(unread))
        self._traffic_classes.end_turn()
        work_ms = None if self._is_work_asked else self._background.due_ms(now_ms)
        if work_ms is not None and work_ms <= now_ms:
            self._is_work_asked = True
            self._schedule.work_soon()
            work_ms = None
        self._plan_wake(multi.deadline_ms, work_ms)

    def _take(self, calls: deque[Call]) -> None:
        """Run the calls that are queued by now, within the limit of a turn."""
        self._steps = 0
        for _ in range(len(calls)):
            if self._steps >= STEPS_MAX or not calls:
                break
            call, args = calls.popleft()
            self._steps += 1
            call(*args)

    def _work(self) -> None:
        self._background.do_slice(self._schedule.now_ms())

    def _plan_wake(self, turn_ms: int | None, work_ms: int | None) -> None:
        """Be woken for whichever comes first, unless that is going to happen anyway."""
        wanted_ms = work_ms if turn_ms is None else turn_ms
        if wanted_ms is None:
            return
        if work_ms is not None and work_ms < wanted_ms:
            wanted_ms = work_ms
        if self._wake_at_ms is None or wanted_ms < self._wake_at_ms:
            self._wake_at_ms = wanted_ms
            self._schedule.wake_at(wanted_ms)

    # What goes out

    def _do(self, output: Output) -> None:
        """The effects of a turn, in the order of its fields."""
        for node, messages in output.messages.items():
            self._send(node, messages)
        if output.persist is not None:
            self.submitted = output.persist.token
            self._store.submit(output.persist)
        for change in output.roles:
            self._on_role(change)
        for restore in output.restores:
            self._restore(restore)
        for apply in output.applies:
            self._apply(apply)
        for config in output.configs:
            self._owner.configured(config)
        for led in output.led:
            self._groups[led.group].on_led(led.term)
        for readable in output.readable:
            if (hosted := self._groups.get(readable.group)) is not None:
                hosted.on_readable(readable)
        for read in output.reads:
            self._background.read(read)
        for group in output.snapshots_wanted:
            self._background.want_snapshot(group)
        for verdict in output.verdicts:
            self._owner.judged(verdict)
        for echo in output.echoes:
            self._clock_exchange.heard(echo)
        for absent in output.absent:
            self._on_absent(absent)
        for node, group in output.unknown:
            self._owner.unknown(node, group)

    def _on_absent(self, absent: AbsentMember) -> None:
        """Say that a member is not here once this node knows that there is none to be."""
        if absent not in self._absent:
            self._absent.add(absent)
            self._owner.when_known(absent.group, partial(self._deny, absent))

    def _deny(self, absent: AbsentMember) -> None:
        self._absent.discard(absent)
        self.feed(self._multi.deny, absent)

    def _send(self, node: NodeId, messages: list[Message]) -> None:
        if self._links.is_up(node):
            for traffic, frame in self._traffic_classes.frames(node, messages):
                self._links.send(node, FrameKind.CONSENSUS, encode(frame), traffic=traffic)

    def _on_role(self, change: RoleChange) -> None:
        """Handle a change of role; a member without an image, which gets none, resigns."""
        hosted = self._groups[change.group]
        if change.leader is not None and hosted.followed != (change.term, change.leader):
            self.leader_changes += 1
        hosted.on_role(change)
        if hosted.misfit is not None and hosted.misfit.is_again:
            self._resign(hosted, hosted.misfit)

    def _resign(self, hosted: HostedGroup, misfit: RejectedLog) -> None:
        """If it leads.  Where no node can serve, one has to lead all the same."""
        is_leading = hosted.status.role is Role.LEADER
        if is_leading and misfit.resignations < RESIGNATIONS_MAX:
            misfit.resignations += 1
            self.feed(self._begin_repair, hosted.group, misfit.index)

    def _restore(self, restore: Restore) -> None:
        """A state that cannot be read is damage: the image waits for another."""
        group, snapshot = restore.group, restore.snapshot
        hosted, index = self._groups[group], snapshot.index
        if (misfit := hosted.misfit) is not None and misfit.is_again:
            if snapshot.index < misfit.needs:
                return
            hosted.misfit = None
        try:
            state = self._store.read_state(group, 0, snapshot.state_bytes)
            hosted.on_restore(snapshot, state)
        except DamagedLog:
            self._lose_image(hosted)
            self.feed(self._damaged, group, index)
        except ValueError as error:
            self._misfit(hosted, RejectedLog(str(error), index, snapshot.index + 1))
        else:
            self.snapshots.taken(group, snapshot.state_bytes)

    def _apply(self, apply: Apply) -> None:
        """Entries that do not fit the image are damage: they come again, to an image made anew."""
        hosted = self._groups.get(apply.group)
        if hosted is None or not hosted.is_restored:
            return  # deleted in this turn; or what it would be applied to is damaged
        try:
            hosted.on_apply(apply.entries)
        except ValueError as error:
            entries = apply.entries
            self._misfit(hosted, RejectedLog(str(error), entries[0].index, entries[-1].index))
            return
        hosted.on_applied(apply.entries)
        self.snapshots.applied(apply.group, sum(map(size_of, apply.entries)))
        if hosted.raft.applied(hosted.applied):
            self.feed(_nothing)

    def _lose_image(self, hosted: HostedGroup) -> None:
        """Nothing is done with it any more until it is restored."""
        hosted.is_restored = False
        self.snapshots.forget(hosted.group)

    def _misfit(self, hosted: HostedGroup, found: RejectedLog) -> None:
        """Handle a log that the image rejects: fetch it anew once; with nothing to fetch, give
        up."""
        self._lose_image(hosted)
        before, hosted.misfit = hosted.misfit, found
        found.is_again = not found.index or (before is not None and before.wrong == found.wrong)
        if found.is_again:
            self._owner.given_up(hosted.group, found.wrong)
            self._resign(hosted, found)
        else:
            self.feed(self._damaged, hosted.group, found.index, found.wrong)

    def _damaged(self, group: GroupId, index: int, wrong: str = "it cannot be read") -> None:
        """From within a turn."""
        if group in self._groups:
            self._owner.damaged(group, index, wrong)
            self._begin_repair(group, index)

    def _begin_repair(self, group: GroupId, index: int) -> None:
        if (hosted := self._groups.get(group)) is not None:
            hosted.raft.damaged(max(1, index))


def _nothing() -> None:
    """Do nothing: the turn is wanted for its tick."""


FollowedAs = Callable[[GroupId], tuple[int, NodeId | None]]
"""Term and leader of a group, as far as its member here knows."""


def without_entries(
    node: NodeId, messages: Sequence[Message], followed_as: FollowedAs
) -> list[Message]:
    """Messages of a node without those that would add entries to the disk.

    Votes and the like are small, and go on.  Entries are asked for again by the leader, ever more
    rarely, so that dropping them is like losing them: the others are a majority, or nothing is
    committed.  The leader must be known, or this node would stand for elections itself.
    """
    kept: list[Message] = []
    for message in messages:
        if isinstance(message, AppendRequest) and message.entries:
            if followed_as(message.group) != (message.term, node):
                kept.append(replace(message, entries=[]))
        elif not isinstance(message, SnapshotChunk):
            kept.append(message)
    return kept


OnPayload = Callable[[NodeId, bytes], None]


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
            self._refused(node, f"there is no receiver of frames of kind {kind:d}")
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
        """`turn`: its `begin_commit` must flush the store, as that of `Commits` does."""
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
        """True until `stop` is called."""
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


def log_refused(node: NodeId, reason: str) -> None:
    """Log a frame of another node that this node rejects, with the reason."""
    event(logger, logging.ERROR, "frame_rejected", node=node, reason=reason)
