"""Raft of a node, all its groups: messages, writes and time in, one output a turn out.

A group that was touched is dirty; `output` flushes the dirty ones, each once, and puts what they
write into one `Persist`.  Verdicts on nodes go to all groups, which is the only time, but for the
start, that idle ones are looked at.

Groups for which something comes in have their turn at once; of those that have only news to hear,
or whose time has come, so many as `Tuning.groups_max` has room for: the others are for the next
turn, which is wanted at once then, so that pings go out in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from fluffle.raft import (
    corruption,
    election,
    follower,
    force_single_member,
    leader,
    leader_query,
    replication,
    snapshot_receiver,
    snapshot_sender,
    turn,
)
from fluffle.raft.config import Config, Member, NodeId
from fluffle.raft.failure_detector import FailureDetector
from fluffle.raft.group import Group
from fluffle.raft.group_scheduler import GroupScheduler, NodeNews
from fluffle.raft.log import Log
from fluffle.raft.log_store import Persist, RecoveredGroup, Write
from fluffle.raft.messages import (
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    GroupMessage,
    GroupUnknown,
    LeaderQuery,
    Message,
    NotLeading,
    Ping,
    PreVoteRequest,
    PreVoteResponse,
    RepairRequest,
    SnapshotChunk,
    SnapshotOffer,
    SnapshotProgress,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from fluffle.raft.node import Node
from fluffle.raft.output import AbsentMember, Output, Role, Verdict
from fluffle.raft.ranges import Ranges
from fluffle.raft.records import Chance, GroupId, HardState, SnapshotMeta
from fluffle.raft.state import GroupState
from fluffle.raft.tuning import Tuning

Handler = Callable[[GroupState, NodeId, Any], None]

FROM_A_LEADER: dict[type[GroupMessage], Handler] = {
    AppendRequest: follower.on_append_request,
    SnapshotOffer: snapshot_receiver.on_snapshot_offer,
    SnapshotChunk: snapshot_receiver.on_snapshot_chunk,
}

ANY_ROLE: dict[type[GroupMessage], Handler] = {
    PreVoteRequest: election.on_pre_vote_request,
    VoteRequest: election.on_vote_request,
    LeaderQuery: leader_query.on_leader_query,
}
"""For every role; the terms of the first two are those of elections that may never be held."""

HANDLERS: dict[Role, dict[type[GroupMessage], Handler]] = {
    Role.FOLLOWER: {
        **FROM_A_LEADER,
        TimeoutNow: election.on_timeout_now,
        NotLeading: leader_query.on_not_leading,
    },
    Role.PRE_CANDIDATE: {
        **FROM_A_LEADER,
        TimeoutNow: election.on_timeout_now,
        PreVoteResponse: election.on_pre_vote_response,
    },
    Role.CANDIDATE: {
        **FROM_A_LEADER,
        VoteResponse: election.on_vote_response,
    },
    Role.LEADER: {
        AppendAccepted: replication.on_append_accepted,
        AppendRejected: replication.on_append_rejected,
        RepairRequest: replication.on_repair_request,
        SnapshotProgress: snapshot_sender.on_snapshot_progress,
    },
}
"""For each role; a message that is not in the table of a role means nothing to it."""


def step(state: GroupState, node: NodeId, message: GroupMessage) -> None:
    """Take a message of this group that came from `node`, for this incarnation."""
    kind = type(message)
    handler = ANY_ROLE.get(kind)
    if handler is not None:
        handler(state, node, message)
        return
    if message.term > state.term and not is_proposed_term(message):
        state.become_follower(message.term, None)
    elif message.term < state.term:
        on_old_term(state, node, message)
        return
    handler = HANDLERS[state.role].get(kind)
    if handler is not None:
        handler(state, node, message)


def is_proposed_term(message: GroupMessage) -> bool:
    """Tell whether a message names a term that was only asked for: a pre-vote that was granted."""
    return isinstance(message, PreVoteResponse) and message.is_granted


def on_old_term(state: GroupState, node: NodeId, message: GroupMessage) -> None:
    """Answer a message of an old term, which counts for nothing: its leader must hear that it is
    over (Raft §5.1).

    By whatever it says: one that has left the group has nothing more to say than `TimeoutNow`.
    """
    if type(message) in FROM_A_LEADER or type(message) is TimeoutNow:  # mutant: M14a M14b M42
        follower.send_term(state, node, message.sender)


class MultiRaft:
    """Used from one thread.  In each turn `tick` comes first and `output` last.

    What followers answer, and what is `durable`, may come before the turn: nothing of it is a
    matter of time.
    """

    __slots__ = (
        "_boots",
        "_drops",
        "_failure_detector",
        "_groups",
        "_node",
        "_under_way",
        "scheduler",
    )  # fmt: skip

    def __init__(self, name: NodeId, boot: int, tuning: Tuning, chance: Chance) -> None:
        """`boot` is greater than at any earlier start of this node, and on its disk."""
        self._node = Node(name, tuning, chance)
        self._failure_detector = FailureDetector(boot, tuning)
        self._groups: dict[GroupId, GroupState] = {}
        self._boots: dict[NodeId, int] = {}
        """In which life a node was alive last."""
        self._drops: list[Write] = []
        self._under_way: deque[tuple[int, list[GroupState]]] = deque()
        """Who writes under which token."""
        self.scheduler = GroupScheduler(self._node, self._groups)
        """What groups have to hear and to do, while there are many: to `wake` and `attend` them."""

    # Groups

    def load(self, groups: Iterable[RecoveredGroup], *, are_asleep: bool = False) -> None:
        """Load what the disk has, once, before anything else.

        Those that are asleep answer whatever comes for them, and do nothing by themselves before
        that, or before the `scheduler` wakes or attends to them.
        """
        for found in groups:
            log = Log(found.snapshot, found.terms, found.last_index)
            me = Member(self._node.name, found.incarnation)
            state = GroupState(self._node, found.group, me, log, found.hard_state)
            for entry in found.configs:  # mutant: M20
                state.configs.append(entry.index, Config.decode(entry.payload))
            if found.quarantine is not None:
                corruption.resume(state, found.quarantine)
            if found.staged is not None:
                state.receiver = snapshot_receiver.resume(found.staged)
                if found.quarantine is not None:
                    state.drop_receiver()  # it may not have been asked for what is damaged
            self._groups[found.group] = state
        self.scheduler.found()
        if not are_asleep:
            self.scheduler.wake()

    def create(
        self, group: GroupId, incarnation: int, config: Config, first: NodeId | None = None
    ) -> None:
        """Create a member of a group that was never here, nor any earlier one under its id.

        Members of the initial configuration all give the same one, and incarnation 1.  Who is added
        later gives an empty one, and the incarnation by which it was added.

        `first`: the founder who is to lead the first term; all founders give the same, whenever
        they hear of the group.  So no vote is needed: see `election.start_first_term`.
        """
        assert group not in self._groups, f"group {group} is here"
        snapshot = SnapshotMeta(0, 0, config, Ranges(), 0, 0)
        me = Member(self._node.name, incarnation)
        state = GroupState(self._node, group, me, Log(snapshot), HardState(0, None))
        state.pending().created_as = incarnation
        state.pending().install = snapshot
        self._groups[group] = state
        if first is not None:
            election.start_first_term(state, first)

    def delete(self, group: GroupId) -> None:
        """Forget a group and all its data, be it here or `lost` on disk.

        Only on a committed tombstone for this very id, or when this member's removal is committed.
        """
        state = self._groups.pop(group, None)
        if state is not None:
            leader.on_deleted(state)
            state.become_follower(state.term, None)
            self._node.dirty.pop(state, None)
            self._node.output.forget_image(group)
            self.scheduler.forget(state)
            if state.write is not None and state.write.created_as is not None:
                return  # it never was on its way to the disk
        self._drops.append(Write(group, is_drop=True))

    def force_single_member(self, group: GroupId, incarnation: int) -> None:
        """Make this the only member of a group, under a new incarnation, with what is here.

        Only if that was agreed on elsewhere, for good: the others must delete what they have.  If
        what is here is damaged, or nothing, no member will lead.
        """
        state = self._groups.get(group)
        if state is not None and force_single_member.may_force(state):
            force_single_member.force(state, incarnation)

    def group(self, group: GroupId) -> Group:
        """Return the group.  Raises `KeyError` if it is not here."""
        return Group(self._groups[group])

    def __contains__(self, group: GroupId) -> bool:
        return group in self._groups

    # What comes in

    def tick(self, now_ms: int, day_ms: tuple[int, int] = (0, 0)) -> None:
        """Take the time, which holds as long as this turn lasts; it never goes back.

        `day_ms`: what pings say of the time of day: `Ping.wall_ms` and `Ping.common_ms`.
        """
        self._failure_detector.day_ms = day_ms
        self._node.now_ms = max(now_ms, self._node.now_ms)
        self._failure_detector.tick(self._node.now_ms)
        self._apply_verdicts()

    def receive(self, node: NodeId, messages: Sequence[Message]) -> None:
        """Take messages from another node, in the order they came."""
        for message in messages:
            if isinstance(message, Ping):
                self._failure_detector.on_ping(node, message)
                self._apply_verdicts()
            elif isinstance(message, GroupUnknown):
                self._on_group_unknown(node, message)
            else:
                self._step(node, message)

    def _step(self, node: NodeId, message: GroupMessage) -> None:
        state = self._groups.get(message.group)
        if state is not None:
            self.scheduler.deliver_news(state)
        known = state.me.incarnation if state is not None else 0
        if message.receiver > known:
            self._node.output.absent.append(AbsentMember(node, message.group, message.receiver))
        elif state is not None and message.receiver == known:
            step(state, node, message)
        elif state is not None and message.term < state.term:  # mutant: M48
            # For whom this node was before: all may have become others while one still led.
            on_old_term(state, node, message)

    def deny(self, absent: AbsentMember) -> None:
        """Say to the sender of a message that its receiver is not here, if it still is not."""
        state = self._groups.get(absent.group)
        known = state.me.incarnation if state is not None else 0
        if absent.incarnation > known:
            self._node.send(absent.sender, GroupUnknown(absent.group, absent.incarnation))

    def _on_group_unknown(self, node: NodeId, message: GroupUnknown) -> None:
        state = self._groups.get(message.group)
        if state is not None:
            leader_query.on_group_unknown(state, node, message.incarnation)
        self._node.output.unknown.append((node, message.group))

    def link_up(self, node: NodeId) -> None:
        """Note that messages can be sent to a node, over a link that is new."""
        self._failure_detector.link_up(node)
        self._apply_verdicts()
        self.scheduler.add_link_news(node)

    def link_down(self, node: NodeId) -> None:
        """Note that a link is gone and could not be opened again at once."""
        self._failure_detector.link_down(node)
        self._apply_verdicts()

    def forget_node(self, node: NodeId) -> None:
        """Forget a node that was removed for good: its lives count no more, should one come under
        its name."""
        self._failure_detector.forget(node)
        self._apply_verdicts()
        self._boots.pop(node, None)

    def durable(self, token: int) -> None:
        """Note that everything up to the `Persist` with this token is on disk."""
        while self._under_way and self._under_way[0][0] <= token:
            at, states = self._under_way.popleft()
            for state in states:
                if self._groups.get(state.group) is state:
                    turn.on_durable(state, at)

    @property
    def has_room(self) -> bool:
        return self._node.has_room

    @has_room.setter
    def has_room(self, has_room: bool) -> None:
        """Whether the disk admits proposals; all else goes on without."""
        self._node.has_room = has_room

    # What goes out

    @property
    def mistakes(self) -> Mapping[NodeId, int]:
        """Return how often each node was suspected for its silence, and was there."""
        return self._failure_detector.mistakes

    @property
    def now_ms(self) -> int:
        """Time as of the last `tick`."""
        return self._node.now_ms

    @property
    def deadline_ms(self) -> int | None:
        """Return when `tick` is wanted at the latest, if nothing else comes in before."""
        if self.scheduler.is_waiting:
            return self._node.now_ms  # there was too much for one turn
        ping_ms, alarm_ms = self._failure_detector.deadline_ms, self._node.next_alarm_ms
        if ping_ms is None or alarm_ms is None:
            return alarm_ms if ping_ms is None else ping_ms
        return min(ping_ms, alarm_ms)

    @property
    def is_output_due(self) -> bool:
        """Whether anything follows from what came in since the last output."""
        output = self._node.output
        return bool(self._node.dirty or output.messages or output.absent)

    def output(self, unread: Collection[NodeId] = ()) -> Output:
        """End the turn: return the output of what came in, and of some of what the `scheduler` has
        to run.

        `unread`: nodes from which something has come that was not received; they are not silent.
        """
        node = self._node
        self._failure_detector.suspect(unread)
        self._apply_verdicts()
        self.scheduler.run_some()
        persist = Persist(node.token, self._drops)
        self._drops = []
        writers: list[GroupState] = []
        while node.dirty:
            state = next(iter(node.dirty))
            turn.flush(state)
            del node.dirty[state]
            if (write := turn.write(state, node.token)) is not None:
                persist.writes.append(write)
                writers.append(state)
        if persist.writes:
            node.output.persist = persist
            self._under_way.append((node.token, writers))
            node.token += 1
        output, node.output = node.output, Output()
        return output

    def _apply_verdicts(self) -> None:
        liveness = self._failure_detector
        if liveness.pings:
            for node, ping in liveness.pings:
                self._node.send(node, ping)
            liveness.pings.clear()
        if liveness.echoes:
            self._node.output.echoes += liveness.echoes
            liveness.echoes.clear()
        if liveness.verdicts:
            verdicts, liveness.verdicts = liveness.verdicts, []
            for verdict in verdicts:
                self._apply_verdict(verdict)

    def _apply_verdict(self, verdict: Verdict) -> None:
        """Add a verdict to the news of all groups."""
        node, is_alive = verdict.node, verdict.is_alive
        self._node.output.verdicts.append(verdict)
        self._node.set_alive(node, is_alive=is_alive)
        is_new_life = is_alive and self._boots.get(node, verdict.boot) != verdict.boot
        if is_alive:
            self._boots[node] = verdict.boot
        self.scheduler.add_node_news(NodeNews(node, is_alive, is_new_life))
