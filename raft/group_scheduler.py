"""Scheduler of groups: when thousands have news or deadlines at once, some of them in each turn.

    asleep --- something comes for it, or the host wakes all ---> has begun <--- verdicts on nodes
                                                                      |
                                              its deadline comes -----+---> dirty

A group for which something else comes up has heard all there is before that, so that each sees
what happens in the order in which it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fluffle.raft import election, leader, leader_query
from fluffle.raft.config import NodeId
from fluffle.raft.node import Node
from fluffle.raft.output import Role
from fluffle.raft.pending_news import PendingNews
from fluffle.raft.records import GroupId
from fluffle.raft.state import GroupState


class NodeNews(NamedTuple):
    """News about a node: alive, perhaps in a new life, or suspected."""

    node: NodeId
    is_alive: bool
    is_new_life: bool


class LinkNews(NamedTuple):
    """News that the link from or to a node is another one."""

    node: NodeId


class GroupScheduler:
    """Scheduler of the groups of one node that have news or deadlines."""

    __slots__ = ("_asleep", "_groups", "_news", "_node")

    def __init__(self, node: Node, groups: Mapping[GroupId, GroupState]) -> None:
        """`groups`: all that are here, as they change."""
        self._node = node
        self._groups = groups
        self._asleep: dict[GroupState, None] = {}
        """Those that have not begun: they do once something comes for them."""
        self._news: PendingNews[GroupState, NodeNews | LinkNews | None] = PendingNews()
        """What others have not heard yet; None: that the node has begun."""

    @property
    def is_waiting(self) -> bool:
        """Whether any group has news to take."""
        return bool(self._news)

    def found(self) -> None:
        """Put all groups that were found on the disk to sleep."""
        self._asleep = dict.fromkeys(self._groups.values())

    def wake(self) -> None:
        """Begin all groups that are still asleep."""
        self._news.add(self._asleep, None)
        self._asleep = {}

    def forget(self, state: GroupState) -> None:
        """Forget a group that is deleted."""
        self._news.take(state)
        self._asleep.pop(state, None)

    def add_node_news(self, news: NodeNews) -> None:
        """Add news about a node for all groups, first for those that have lost their leader.

        Those that are asleep see who is alive when they begin.
        """
        groups = [state for state in self._groups.values() if state not in self._asleep]
        self._news.add([state for state in groups if state.leader == news.node], news)
        self._news.add([state for state in groups if state.leader != news.node], news)

    def add_link_news(self, node: NodeId) -> None:
        """Add news of a new link with a node, for groups that wait for its answers."""
        groups = self._groups.values()
        awaiting = [state for state in groups if leader.awaits_answer_of(state, node)]
        self._news.add(awaiting, LinkNews(node))

    def deliver_news(self, state: GroupState) -> None:
        """Deliver all pending news to one group."""
        if state in self._asleep:
            del self._asleep[state]
            state.touch()
        for news in self._news.take(state):
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
        if self._node.is_alarm_due:
            for group in self._node.due(self._left):
                state = self._groups.get(group)
                if state is not None:
                    self.deliver_news(state)
                    on_alarm(state)
        if self._news:
            for state in self._news.first(self._left):
                self.deliver_news(state)

    @property
    def _left(self) -> int:
        """Return how many more groups this turn has time for: always some, lest they wait for
        ever."""
        most = self._node.tuning.groups_max
        return max(most - len(self._node.dirty), most // 4, 1)


def on_alarm(state: GroupState) -> None:
    """Act on a deadline that has come; mostly it was put off meanwhile, or is not meant any
    more."""
    state.alarm_ms = None
    if state.deadline_ms is None:
        return
    if state.deadline_ms > state.node.now_ms:
        state.set_deadline(state.deadline_ms)
        return
    state.deadline_ms = None
    if state.role is Role.LEADER:
        leader.on_deadline(state)
    else:
        election.on_deadline(state)
    state.touch()


def on_verdict(state: GroupState, news: NodeNews) -> None:
    """Act on a node that is alive, perhaps in a new life, or suspected."""
    node, is_alive, is_new_life = news
    if state.leading is not None:
        leader.on_verdict(state, node, is_alive=is_alive, is_new_life=is_new_life)
        return
    if is_new_life and state.leader == node:
        state.follow(None)
    elif is_alive and state.leader == node:
        leader_query.send_leader_query(state)
    if state.leader == node or not election.sees_leader(state):
        state.touch()  # it may be the one that a majority lacked
