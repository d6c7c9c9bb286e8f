"""Raft of a node, all its groups: messages, writes and time in, one output a turn out.

A group that was touched is dirty; `output` flushes the dirty ones, each once, and puts what they
write into one `Persist`.  Verdicts on nodes go to all groups, which is the only time, but for the
start, that idle ones are looked at.

Groups for which something comes in have their turn at once; of those that have only news to hear,
or whose time has come, so many as `Tuning.groups_max` has room for: the others are for the next
turn, which is wanted at once then, so that pings go out in between.

    asleep --- something comes for it, or the host wakes all ---> has begun <--- verdicts on nodes
                                                                      |
                                              its deadline comes -----+---> dirty

A group for which something else comes up has heard all news before that, so that each sees what
happens in the order in which it does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

from fluffle.raft import corruption, election, leader, snapshots
from fluffle.raft.config import Configuration, Member, NodeId
from fluffle.raft.election import become_single_member, may_become_single_member
from fluffle.raft.failure_detector import FailureDetector, TimesOfDay, no_times
from fluffle.raft.group import (
    Group,
    NodeNews,
    end_turn,
    on_alarm,
    on_old_term,
    on_verdict,
    on_write_durable,
    step,
    take_write,
)
from fluffle.raft.log import GroupId, HardState, Log, SnapshotMeta
from fluffle.raft.log_store import Persist, RecoveredGroup, Write
from fluffle.raft.messages import (
    GroupMessage,
    GroupUnknown,
    Message,
    Ping,
)
from fluffle.raft.output import AbsentMember, LivenessVerdict, Output
from fluffle.raft.ranges import Ranges
from fluffle.raft.state import Chance, GroupState, RaftNode
from fluffle.raft.tuning import Tuning

Receiver = TypeVar("Receiver")
News = TypeVar("News")


# News and deadlines


class PendingNews(dict[Receiver, tuple[News, ...]]):
    """News not delivered yet, oldest first, by receiver in the order in which these hear them."""

    __slots__ = ()

    def add(self, receivers: Iterable[Receiver], news: News) -> None:
        """Add news for all these receivers, in this order, behind those that wait already."""
        for receiver in receivers:
            self[receiver] = (*self.get(receiver, ()), news)

    def first(self, count: int) -> list[Receiver]:
        """Return the receivers to be served next, so many at most; `take` returns the news of
        each."""
        return list(islice(self, count))

    def take(self, receiver: Receiver) -> tuple[News, ...]:
        """Take the news of one receiver; nothing if there is none."""
        return self.pop(receiver, ())


class LinkNews(NamedTuple):
    """News that the link from or to a node is another one."""

    node: NodeId


class GroupScheduler:
    """Scheduler of the groups of one node that have news or deadlines."""

    def __init__(self, node: RaftNode, groups: Mapping[GroupId, GroupState]) -> None:
        """`groups`: all that are here, as they change."""
        self._node = node
        self._groups = groups
        self.asleep: dict[GroupState, None] = {}
        """Groups that have not started: each does once a message for it comes."""
        self.news: PendingNews[GroupState, NodeNews | LinkNews | None] = PendingNews()
        """News that groups have not received yet; None: that the node has started."""

    def found(self) -> None:
        """Put all groups that were found on the disk to sleep."""
        self.asleep = dict.fromkeys(self._groups.values())

    def wake(self) -> None:
        """Begin all groups that are still asleep."""
        self.news.add(self.asleep, None)
        self.asleep = {}

    def forget(self, state: GroupState) -> None:
        """Forget a group that is deleted."""
        self.news.take(state)
        self.asleep.pop(state, None)

    def add_node_news(self, news: NodeNews) -> None:
        """Add news about a node for all groups, first for those that have lost their leader.

        Those that are asleep see which nodes are alive when they begin.
        """
        groups = [state for state in self._groups.values() if state not in self.asleep]
        self.news.add([state for state in groups if state.leader == news.node], news)
        self.news.add([state for state in groups if state.leader != news.node], news)

    def add_link_news(self, node: NodeId) -> None:
        """Add news of a new link with a node, for groups that wait for its answers."""
        groups = self._groups.values()
        awaiting = [state for state in groups if leader.awaits_answer_of(state, node)]
        self.news.add(awaiting, LinkNews(node))

    def deliver_news(self, state: GroupState) -> None:
        """Deliver all pending news to one group."""
        if state in self.asleep:
            del self.asleep[state]
            state.touch()
        for news in self.news.take(state):
            if news is None:
                state.touch()
            elif isinstance(news, LinkNews):
                leader.on_new_link(state, news.node)
            else:
                on_verdict(state, news)

    def attend(self, group: GroupId) -> None:
        """Have a group run at once, as a caller waits for it."""
        state = self._groups.get(group)
        if state is None:
            return
        self.deliver_news(state)
        if state.deadline_ms is not None and state.deadline_ms <= self._node.now_ms:
            on_alarm(state)

    def run_some(self) -> None:
        """Run groups whose deadline has come or that have news, as far as a turn goes.

        What has come in meanwhile counts first, as in `FailureDetector.suspect`: after a long turn
        many would else stand again whose votes are there already.
        """
        alarm_ms = self._node.next_alarm_ms
        if alarm_ms is not None and alarm_ms <= self._node.now_ms:
            for group in self._node.due(self._left):
                state = self._groups.get(group)
                if state is not None:
                    self.deliver_news(state)
                    on_alarm(state)
        if self.news:
            for state in self.news.first(self._left):
                self.deliver_news(state)

    @property
    def _left(self) -> int:
        """Return how many more groups this turn has time for: always some, lest they wait for
        ever."""
        most = self._node.tuning.groups_max
        return max(most - len(self._node.dirty), most // 4, 1)


# All groups of a node


class MultiRaft:
    """Used from one thread.  In each turn `tick` comes first and `output` last.

    What followers answer, and what is `durable`, may come before the turn: nothing of it is a
    matter of time.  Messages that follow from it may be taken before `output`, too.
    """

    def __init__(
        self,
        name: NodeId,
        boot: int,
        tuning: Tuning,
        chance: Chance,
        times_of_day: TimesOfDay = no_times,
    ) -> None:
        """`boot` is greater than at any earlier start of this node, and on its disk."""
        self._node = RaftNode(name, tuning, chance)
        self._failure_detector = FailureDetector(boot, tuning, times_of_day)
        self._groups: dict[GroupId, GroupState] = {}
        self._boots: dict[NodeId, int] = {}
        """In which life a node was alive last."""
        self._drops: list[Write] = []
        self._under_way: deque[tuple[int, list[GroupState]]] = deque()
        """Groups whose writes are under way, by token."""
        self.scheduler = GroupScheduler(self._node, self._groups)
        """News and work for groups, while there are many: to `wake` and `attend` them."""

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
                state.configs.append(entry.index, Configuration.decode(entry.payload))
            if found.quarantine is not None:
                corruption.resume(state, found.quarantine)
            if found.staged is not None:
                state.receiver = snapshots.resume(found.staged)
                if found.quarantine is not None:
                    state.drop_receiver()  # it may not have been asked for what is damaged
            self._groups[found.group] = state
        self.scheduler.found()
        if not are_asleep:
            self.scheduler.wake()

    def create(
        self, group: GroupId, incarnation: int, config: Configuration, first: NodeId | None = None
    ) -> None:
        """Create a member of a group that was never here, nor any earlier one under its id.

        Members of the initial configuration all give the same one, and incarnation 1.  Who is added
        later gives an empty one, and the incarnation by which it was added.

        `first`: the founder that is to lead the first term; all founders give the same, whenever
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
        if state is not None and may_become_single_member(state):
            become_single_member(state, incarnation)

    def group(self, group: GroupId) -> Group:
        """Return the group.  Raises `KeyError` if it is not here."""
        return Group(self._groups[group])

    def __contains__(self, group: GroupId) -> bool:
        return group in self._groups

    # What comes in

    def tick(self, now_ms: int) -> None:
        """Take the time, which holds as long as this turn lasts; it never goes back."""
        node, liveness = self._node, self._failure_detector
        node.now_ms = liveness.now_ms = max(now_ms, node.now_ms)
        if liveness.deadline_ms is not None and liveness.deadline_ms <= node.now_ms:
            liveness.tick(node.now_ms)
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
        if state is not None and (self.scheduler.news or self.scheduler.asleep):
            self.scheduler.deliver_news(state)
        known = state.me.incarnation if state is not None else 0
        if message.receiver > known:
            self._node.output.absent.append(AbsentMember(node, message.group, message.receiver))
        elif state is not None and message.receiver == known:
            step(state, node, message)
        elif state is not None and message.term < state.term:  # mutant: M48
            # For the member that this node was before: all may have become others while one still
            # led.
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
            election.on_group_unknown(state, node, message.incarnation)
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
                    on_write_durable(state, at)

    @property
    def has_room(self) -> bool:
        return self._node.has_room

    @has_room.setter
    def has_room(self, has_room: bool) -> None:
        """True if the disk admits proposals; all else goes on without."""
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
        if self.scheduler.news:
            return self._node.now_ms  # there was too much for one turn
        ping_ms, alarm_ms = self._failure_detector.deadline_ms, self._node.next_alarm_ms
        if ping_ms is None or alarm_ms is None:
            return alarm_ms if ping_ms is None else ping_ms
        return min(ping_ms, alarm_ms)

    def take_messages(self) -> dict[NodeId, list[Message]]:
        """Take the messages by node that are to be sent: they need not wait for the `output`.

        What a message says is on disk is there before it is made.
        """
        output = self._node.output
        messages, output.messages = output.messages, {}
        return messages

    @property
    def is_output_due(self) -> bool:
        """True if anything follows from what came in since the last output."""
        output = self._node.output
        return bool(self._node.dirty or output.messages or output.absent)

    def output(self, unread: Collection[NodeId] = ()) -> Output:
        """End the turn: return the output of what came in, and of some of what the `scheduler` has
        to run.

        `unread`: nodes from which something has come that was not received; they are not silent.
        """
        node, liveness, scheduler = self._node, self._failure_detector, self.scheduler
        if liveness.recheck_at_ms <= node.now_ms:
            liveness.suspect(unread)
            self._apply_verdicts()
        alarm_ms = node.next_alarm_ms
        if scheduler.news or (alarm_ms is not None and alarm_ms <= node.now_ms):
            scheduler.run_some()
        persist = Persist(node.token, self._drops)
        self._drops = []
        writers: list[GroupState] = []
        while node.dirty:
            state = next(iter(node.dirty))
            end_turn(state)
            del node.dirty[state]
            if (write := take_write(state, node.token)) is not None:
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

    def _apply_verdict(self, verdict: LivenessVerdict) -> None:
        """Add a verdict to the news of all groups."""
        node, is_alive = verdict.node, verdict.is_alive
        self._node.output.verdicts.append(verdict)
        self._node.set_alive(node, is_alive=is_alive)
        is_new_life = is_alive and self._boots.get(node, verdict.boot) != verdict.boot
        if is_alive:
            self._boots[node] = verdict.boot
        self.scheduler.add_node_news(NodeNews(node, is_alive, is_new_life))
