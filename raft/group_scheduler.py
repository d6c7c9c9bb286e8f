"""Thousands of groups that have something to hear or to do at once: some of them in each turn.

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
    """News for a group: a node is alive, perhaps in a new life, or suspected."""

    node: NodeId
    is_alive: bool
    is_new_life: bool


class LinkNews(NamedTuple):
    """News for a group: the link from or to a node is another one."""

    node: NodeId


class GroupScheduler:
    """Of one node."""

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
        """Whether there is anybody whom something is to be told."""
        return bool(self._news)

    def found(self) -> None:
        """All groups that are here were found on the disk, and are asleep."""
        self._asleep = dict.fromkeys(self._groups.values())

    def wake(self) -> None:
        """Have all begin that have not yet."""
        self._news.add(self._asleep, None)
        self._asleep = {}

    def forget(self, state: GroupState) -> None:
        """It is deleted."""
        self._news.take(state)
        self._asleep.pop(state, None)

    def add_node_news(self, news: NodeNews) -> None:
        """Have all groups told, those first that have lost their leader.

        Those that are asleep see who is alive when they begin.
        """
        groups = [state for state in self._groups.values() if state not in self._asleep]
        self._news.add([state for state in groups if state.leader == news.node], news)
        self._news.add([state for state in groups if state.leader != news.node], news)

    def add_link_news(self, node: NodeId) -> None:
        """A link was opened from or to this node: tell those that wait for its answers."""
        groups = self._groups.values()
        awaiting = [state for state in groups if leader.awaits_answer_of(state, node)]
        self._news.add(awaiting, LinkNews(node))

    def deliver_news(self, state: GroupState) -> None:
        """All there is for one to hear."""
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
        """Somebody waits for this group: what it has to hear or to do is not put off."""
        state = self._groups.get(group)
        if state is None:
            return
        self.deliver_news(state)
        if state.deadline_ms is not None and state.deadline_ms <= self._node.now_ms:
            on_alarm(state)

    def run_some(self) -> None:
        """Deadlines that have come, and news, as far as a turn goes.

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
        """How many groups more this turn has time for: always for some, lest they wait for ever."""
        most = self._node.tuning.groups_max
        return max(most - len(self._node.dirty), most // 4, 1)


def on_alarm(state: GroupState) -> None:
    """The deadline has come; or it was put off meanwhile, as mostly, or is not meant any more."""
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
    """A node is alive, perhaps in a new life, or suspected."""
    node, is_alive, is_new_life = news
    if state.leading is not None:
        leader.on_verdict(state, node, is_alive=is_alive, is_new_life=is_new_life)
        return
    if is_new_life and state.leader == node:
        state.follow(None)
    elif is_alive and state.leader == node:
        leader_query.send_leader_query(state)
    if state.leader == node or not election.sees_leader(state):
        state.touch()  # whoever it is may be the one that a majority lacked
