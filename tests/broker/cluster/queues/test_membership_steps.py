"""Next change of a queue's members: the request of its leader, with nothing else running."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from fluffle.broker.cluster.hosted_group import HostedGroup, OnEntryOutcome
from fluffle.broker.cluster.queues.membership import (
    LOOKS_APART_MAX,
    UNKNOWN_MAX,
    WISH_LOOKS,
    LedGroups,
    QueueMembership,
)
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.quorum.messages import SessionBoot
from fluffle.raft.config import AddLearner, Change, Configuration, Member, NodeId, Promote, Remove
from fluffle.raft.leader import ProposalRefused
from fluffle.raft.state import ProgressState
from tests.support.cluster_view import FakeClusterView
from tests.support.fakes import Timer


class Asked:
    """A group that is led here, and what it is asked for."""

    def __init__(self, config: Configuration) -> None:
        self.configs = [config]
        self.steps: list[Change] = []
        self.to: list[NodeId] = []
        self.transfer_targets: list[NodeId] = []
        self.progress = {member.node: (ProgressState.REPLICATE, 9) for member in config.members}
        self.is_led = True
        self.members: QueueMembership
        """Membership that makes the requests."""
        self.looks: list[Callable[[], None]] = []
        """Looks that are to come later."""

    @property
    def raft(self) -> Asked:
        """Itself, to be looked at."""
        return self

    def call_soon(self, call: Callable[[], None]) -> None:
        self.looks.append(call)

    def call_later(self, _after_s: float, call: Callable[[], None]) -> Timer:
        self.looks.append(call)
        return Timer(call)

    def change(self, step: Change, _on_outcome: OnEntryOutcome) -> None:
        self.steps.append(step)

    def transfer(self, node: NodeId, _refused: Callable[[ProposalRefused], None]) -> None:
        self.to.append(node)


class FiveNodes(FakeClusterView):
    """The cluster of node a, which is there, and of b to e."""

    def __init__(self, incarnations: dict[NodeId, int], away: str, full: str) -> None:
        super().__init__("a", SessionBoot(1, 1), incarnations)
        self.there = set("bcde") - {*away}
        self.full = full

    def is_alive(self, node: NodeId) -> bool:
        return node in self.there

    def may_lead(self, node: NodeId) -> bool:
        return node in self.there and node not in self.full


class LedHere(LedGroups):
    """Leaders of one group, as long as it is led here."""

    def __init__(self, group: Asked) -> None:
        self.group = group

    def led(self, _queue: int) -> HostedGroup | None:
        return cast("HostedGroup", self.group) if self.group.is_led else None

    def leader(self, _queue: int) -> NodeId:
        return "a"


def asked(
    voters: str,
    wanted: str,
    *,
    learners: str = "",
    lost: str = "",
    away: str = "",
    full: str = "",
    successors: str = "",
) -> Asked:
    """Requests of node a, which leads.  All nodes from a to e are up, except those in `away`.

    `successors`: who lacks little of the log.  `full`: whose disk is.
    """
    config = Configuration(
        voters=tuple(Member(node, 1) for node in voters),
        learners=tuple(Member(node, 1) for node in learners),
    )
    group = Asked(config)
    group.transfer_targets = [*successors]
    members = tuple((node, 1) for node in sorted(voters + learners))
    definition = QueueDefinition(
        QueueSpec("q", durable=True, queue_type=QueueType.QUORUM),
        id=7,
        members=members,
        lives=members,
        wanted=tuple(wanted),
    )
    cluster = FiveNodes({node: 2 if node in lost else 1 for node in "abcde"}, away, full)
    group.members = QueueMembership(cluster, LedHere(group), group, {})
    group.members.define("/", definition)
    group.members.look(7)
    return group


@pytest.mark.parametrize(
    ("group", "steps"),
    [
        (asked("abc", "abcd"), [AddLearner("d")]),
        (asked("abc", "abcd", learners="d"), [Promote("d")]),
        (asked("abc", "abd"), [AddLearner("d"), Remove("c")]),
        (asked("abc", "ab", away="c"), [Remove("c")]),
        (asked("abc", "abc", lost="c"), [Remove("c")]),
        (asked("ab", "a"), [Remove("b")]),
    ],
)
def test_one_comes_or_goes(group: Asked, steps: list[Change]) -> None:
    assert group.steps == steps


@pytest.mark.parametrize(
    ("group", "steps"),
    [
        (asked("abc", "ac", lost="c"), [Remove("c")]),
        (asked("abc", "ad", learners="d", lost="c"), [Promote("d"), Remove("c")]),
        (asked("abc", "ac", away="c"), []),
        (asked("abcde", "abcd", away="de"), [Remove("e")]),
    ],
)
def test_nobody_goes_without_whom_the_others_are_no_majority(
    group: Asked, steps: list[Change]
) -> None:
    """The rest would never be a majority again: its members would wait for a node without data."""
    assert group.steps == steps


def say_unknown(group: Asked, times: int) -> None:
    """Node c says that it has no such member."""
    for _ in range(times):
        group.members.unknown("c", 7)


def test_who_says_too_often_that_it_is_no_member_is_replaced() -> None:
    """Whatever it had on disk before, it has not answered since."""
    group = asked("abc", "abc")
    say_unknown(group, UNKNOWN_MAX)
    group.members.look(7)
    assert group.steps == []
    say_unknown(group, 1)
    group.members.look(7)
    assert group.steps == [Remove("c")]


def test_who_has_come_to_be_a_member_since_is_not_replaced() -> None:
    """That member may be needed for a majority."""
    group = asked("abc", "abc")
    group.progress["c"] = ProgressState.PROBE, 0
    say_unknown(group, UNKNOWN_MAX + 1)
    group.progress["c"] = ProgressState.REPLICATE, 0
    group.members.look(7)
    assert group.steps == []
    group.progress["c"] = ProgressState.PROBE, 0
    say_unknown(group, UNKNOWN_MAX)
    group.members.look(7)
    assert group.steps == [], "it is counted anew"


def test_what_a_leader_has_heard_is_nothing_to_its_next_time() -> None:
    group = asked("abc", "abc")
    say_unknown(group, UNKNOWN_MAX + 1)
    group.is_led = False
    group.members.leader_changed(7)
    group.is_led = True
    group.members.leader_changed(7)
    group.members.look(7)
    assert group.steps == []


@pytest.mark.parametrize(
    ("group", "to"),
    [
        (asked("abc", "bc", successors="cb"), ["c"]),
        (asked("abc", "bc", successors="bc", lost="b"), ["c"]),
        (asked("abcd", "bc", successors="dbc"), ["b"]),
        (asked("abc", "bc", successors="bc", full="b"), ["c"]),
        (asked("abc", "bc", successors="bc", full="bc"), []),
        (asked("abc", "bc"), []),
        (asked("abc", "abc", successors="bc"), []),
    ],
)
def test_a_leader_that_is_to_go_hands_over_to_who_has_most_of_the_log(
    group: Asked, to: list[NodeId]
) -> None:
    assert group.to == to


def tries(group: Asked, looks: int) -> list[str]:
    """Nodes asked at each look, the first included."""
    tried = ["".join(group.to)]
    for _ in range(looks):
        group.to.clear()
        (look,) = group.looks
        group.looks.clear()
        look()
        tried.append("".join(group.to))
    return tried


def test_a_leader_that_is_to_go_tries_one_after_the_other_and_ever_less() -> None:
    """The other node may still come to lead, and the queue rests during each try."""
    tried = tries(asked("abc", "bc", successors="bc"), looks=1_000)
    assert tried[:16] == ["b", "c", "", "b", "", "", "", "c", *[""] * 7, "b"]
    count = len([node for node in tried[500:] if node])
    assert 500 // LOOKS_APART_MAX <= count <= 500 // LOOKS_APART_MAX + 1


def test_a_leader_that_is_to_go_waits_until_another_lacks_little() -> None:
    group = asked("abc", "bc")
    assert tries(group, looks=10) == [""] * 11
    group.transfer_targets = ["c"]
    assert tries(group, looks=1) == ["", "c"]


def test_a_leader_that_nobody_can_take_over_from_waits_until_somebody_comes() -> None:
    assert asked("ab", "b", away="b").looks == []


def wished(group: Asked, leader: NodeId) -> list[str]:
    """Nodes asked at each look, until looking ends."""
    _vhost, definition = group.members.defined[7]
    group.looks.clear()
    group.members.redefine(definition._replace(leader=leader))
    tried = ["".join(group.to)]
    while group.looks:
        group.to.clear()
        looks, group.looks = group.looks, []
        for look in looks:
            look()
        tried.append("".join(group.to))
    return tried


def test_a_wish_for_a_leader_that_does_not_come_to_lead_is_tried_ever_less() -> None:
    """The queue rests during each try: twenty of them were most of ten seconds."""
    tried = wished(asked("abc", "abc", successors="bc"), "b")
    assert [at for at, node in enumerate(tried) if node] == [0, 1, 3, 7, 15]
    assert len(tried) == WISH_LOOKS + 1


def test_a_wish_for_a_leader_whose_disk_is_full_is_not_tried() -> None:
    """The leader would hand the queue back at once."""
    assert set(wished(asked("abc", "abc", successors="bc", full="b"), "b")) == {""}


def test_a_wish_for_another_leader_waits_until_that_lacks_little() -> None:
    group = asked("abc", "abc", successors="c")
    _vhost, definition = group.members.defined[7]
    group.members.redefine(definition._replace(leader="b"))
    assert group.to == []
    group.transfer_targets = ["c", "b"]
    for look in [*group.looks]:
        look()
    assert group.to == ["b"]
