"""All groups of a node: messages, writes and time in, one output a turn out.

A group that was touched is dirty; `output` flushes the dirty ones, each once, and puts what they
write into one `Persist`.  Verdicts on nodes go to all groups, which is the only time that idle ones
are looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from fluffle.raft import (
    campaign,
    damage,
    dispatch,
    doubt,
    going_alone,
    leading,
    receiving,
    turn,
)
from fluffle.raft.config import Config, Member, NodeId
from fluffle.raft.group import Group
from fluffle.raft.liveness import Liveness
from fluffle.raft.log import Log
from fluffle.raft.log_store import Persist, Recovered, Write
from fluffle.raft.messages import GroupMessage, GroupUnknown, Message, Ping
from fluffle.raft.node import Node
from fluffle.raft.output import Output, Role, Verdict
from fluffle.raft.ranges import Ranges
from fluffle.raft.records import Chance, GroupId, HardState, SnapshotMeta
from fluffle.raft.state import State
from fluffle.raft.tuning import Tuning


class MultiRaft:
    """Used from one thread.  In each turn `tick` comes first and `output` last."""

    __slots__ = ("_boots", "_drops", "_groups", "_liveness", "_node", "_under_way")

    def __init__(self, name: NodeId, boot: int, tuning: Tuning, chance: Chance) -> None:
        """`boot` is greater than at any earlier start of this node, and on its disk."""
        self._node = Node(name, tuning, chance)
        self._liveness = Liveness(boot, tuning)
        self._groups: dict[GroupId, State] = {}
        self._boots: dict[NodeId, int] = {}
        """In which life a node was alive last."""
        self._drops: list[Write] = []
        self._under_way: deque[tuple[int, list[State]]] = deque()
        """Who writes under which token."""

    # Groups

    def load(self, groups: Iterable[Recovered]) -> None:
        """What the disk has, once, before anything else."""
        for found in groups:
            log = Log(found.snapshot, found.terms, found.last_index)
            me = Member(self._node.name, found.incarnation)
            state = State(self._node, found.group, me, log, found.hard_state)
            for entry in found.configs:
                state.configs.append(entry.index, Config.decode(entry.payload))
            if found.quarantine is not None:
                damage.resume(state, found.quarantine)
            if found.staged is not None:
                state.receiver = receiving.resume(found.staged)
                if found.quarantine is not None:
                    state.drop_receiver()  # it may not have been asked for what is damaged
            self._groups[found.group] = state
            state.touch()

    def create(self, group: GroupId, incarnation: int, config: Config) -> None:
        """Be a member of a group that was never here, nor any earlier under its id.

        Members of the initial configuration all give the same one, and incarnation 1.  Who is added
        later gives an empty one, and the incarnation by which it was added.
        """
        assert group not in self._groups, f"group {group} is here"
        snapshot = SnapshotMeta(0, 0, config, Ranges(), 0, 0)
        me = Member(self._node.name, incarnation)
        state = State(self._node, group, me, Log(snapshot), HardState(0, None))
        state.pending().created_as = incarnation
        state.pending().install = snapshot
        self._groups[group] = state

    def delete(self, group: GroupId) -> None:
        """Forget a group and all its data, be it here or `lost` on disk.

        Only on a committed tombstone for this very id, or when this member's removal is committed.
        """
        state = self._groups.pop(group, None)
        if state is not None:
            leading.farewell(state)
            state.become_follower(state.term, None)
            self._node.dirty.pop(state, None)
            if state.write is not None and state.write.created_as is not None:
                return  # it never was on its way to the disk
        self._drops.append(Write(group, is_drop=True))

    def go_on_alone(self, group: GroupId, incarnation: int) -> None:
        """Be the only member of a group, under a new incarnation, with what is here.

        Only if that was agreed on elsewhere, for good: the others must delete what they have.  If
        what is here is damaged, or nothing, nobody will lead.
        """
        state = self._groups.get(group)
        if state is not None and going_alone.may_go_on(state):
            going_alone.go_on(state, incarnation)

    def group(self, group: GroupId) -> Group:
        """Raises `KeyError` if it is not here."""
        return Group(self._groups[group])

    def __contains__(self, group: GroupId) -> bool:
        return group in self._groups

    # What comes in

    def tick(self, now_ms: int) -> None:
        """The time, as long as this turn lasts; it never goes back."""
        self._node.now_ms = max(now_ms, self._node.now_ms)
        self._liveness.tick(self._node.now_ms)
        self._heed_liveness()

    def receive(self, node: NodeId, messages: Sequence[Message]) -> None:
        """Messages from another node, in the order they came."""
        for message in messages:
            if isinstance(message, Ping):
                self._liveness.on_ping(node, message)
                self._heed_liveness()
            elif isinstance(message, GroupUnknown):
                self._on_group_unknown(node, message)
            else:
                self._step(node, message)

    def _step(self, node: NodeId, message: GroupMessage) -> None:
        state = self._groups.get(message.group)
        known = state.me.incarnation if state is not None else 0
        if message.receiver > known:
            self._node.send(node, GroupUnknown(message.group, message.receiver))
        elif state is not None and message.receiver == known:
            dispatch.step(state, node, message)
        elif state is not None and message.term < state.term:
            # For whom this node was before: all may have become others while one still led.
            dispatch.on_old_term(state, node, message)

    def _on_group_unknown(self, node: NodeId, message: GroupUnknown) -> None:
        state = self._groups.get(message.group)
        if state is not None:
            doubt.on_group_unknown(state, node, message.incarnation)
        self._node.output.unknown.append((node, message.group))

    def link_up(self, node: NodeId) -> None:
        """Messages can be sent to a node, over a link that is new."""
        self._liveness.link_up(node)
        self._heed_liveness()

    def link_down(self, node: NodeId) -> None:
        """The link is gone and could not be opened again at once."""
        self._liveness.link_down(node)
        self._heed_liveness()

    def forget_node(self, node: NodeId) -> None:
        """It was removed for good: its lives count no more, should one come under its name."""
        self._liveness.forget(node)
        self._heed_liveness()
        self._boots.pop(node, None)

    def durable(self, token: int) -> None:
        """Everything up to the `Persist` with this token is on disk."""
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
    def deadline_ms(self) -> int | None:
        """When `tick` is wanted at the latest, if nothing else comes in before."""
        times = (self._liveness.deadline_ms, self._node.next_alarm_ms)
        return min((at_ms for at_ms in times if at_ms is not None), default=None)

    def output(self) -> Output:
        """End the turn: everything that follows from what came in."""
        node = self._node
        self._liveness.suspect()
        self._heed_liveness()
        self._ring()
        persist = Persist(node.token, self._drops)
        self._drops = []
        writers: list[State] = []
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

    def _ring(self) -> None:
        """Deadlines that have come; what has come in meanwhile was heard before, as by `suspect`.

        After a long turn many would else stand again whose votes are there already.
        """
        for group in self._node.due():
            state = self._groups.get(group)
            if state is not None:
                on_alarm(state)

    def _heed_liveness(self) -> None:
        liveness = self._liveness
        if liveness.pings:
            for node, ping in liveness.pings:
                self._node.send(node, ping)
            liveness.pings.clear()
        if liveness.verdicts:
            verdicts, liveness.verdicts = liveness.verdicts, []
            for verdict in verdicts:
                self._heed(verdict)

    def _heed(self, verdict: Verdict) -> None:
        """Tell all groups."""
        node, is_alive = verdict.node, verdict.is_alive
        self._node.output.verdicts.append(verdict)
        self._node.set_alive(node, is_alive=is_alive)
        is_new_life = is_alive and self._boots.get(node, verdict.boot) != verdict.boot
        if is_alive:
            self._boots[node] = verdict.boot
        for state in self._groups.values():
            on_verdict(state, node, is_alive=is_alive, is_new_life=is_new_life)


def on_alarm(state: State) -> None:
    """The deadline has come; or it was put off meanwhile, as mostly, or is not meant any more."""
    state.alarm_ms = None
    if state.deadline_ms is None:
        return
    if state.deadline_ms > state.node.now_ms:
        state.set_deadline(state.deadline_ms)
        return
    state.deadline_ms = None
    if state.role is Role.LEADER:
        leading.on_deadline(state)
    else:
        campaign.on_deadline(state)
    state.touch()


def on_verdict(state: State, node: NodeId, *, is_alive: bool, is_new_life: bool) -> None:
    """A node is alive, perhaps in a new life, or suspected."""
    if state.leading is not None:
        leading.on_verdict(state, node, is_alive=is_alive, is_new_life=is_new_life)
        return
    if is_new_life and state.leader == node:
        state.follow(None)
    elif is_alive and state.leader == node:
        doubt.ask_leader(state)
    if state.leader == node or not campaign.sees_leader(state):
        state.touch()  # whoever it is may be the one that a majority lacked
