"""Read barrier: an answered change is known on every reachable node, and slow nodes are not awaited
for long."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from fluffle.broker.access.access import User, put_user
from fluffle.broker.cluster.codec import BadFrame
from fluffle.broker.cluster.metadata_group import (
    ANSWER_REVISION,
    ASK_REVISION,
    WAIT_S,
    AppliedBarrier,
    revision_frame,
)
from fluffle.broker.metadata.change import NOTHING
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.vhosts.queue_changes import declare_queue
from tests.support.cluster_nodes import running_cluster
from tests.support.frames import FakeSender
from tests.support.metadata_cluster import Cluster, Outcome


class Harness:
    """Nodes that share definitions, with links that are up, and frames that are passed by hand."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.cluster.lead("a")
        self.frames: list[tuple[str, str, bytes]] = []
        self.ends = {name: self._end(name) for name in self.cluster.nodes}
        for name in self.ends:
            for other in self.ends.keys() - {name}:
                self.ends[name].link_changed(other, True)

    def _end(self, name: str) -> AppliedBarrier:
        scheduler = self.cluster.scheduler
        sender = FakeSender(name, self._put)
        return AppliedBarrier(self.cluster.nodes[name].metadata, sender, scheduler)

    def _put(self, frame: tuple[str, str, bytes]) -> None:
        self.frames.append(frame)

    def add_user(self, at: str, user: str) -> Outcome:
        outcome = Outcome()
        self.ends[at].change(lambda: put_user(User(user)), outcome.done, outcome.failed)
        return outcome

    def find_nothing_to_do(self, at: str) -> Outcome:
        outcome = Outcome()
        self.ends[at].change(lambda: NOTHING, outcome.done, outcome.failed)
        return outcome

    def knows(self, node: str, user: str) -> bool:
        return user in self.cluster.nodes[node].catalogue.access.users

    def rest(self) -> None:
        """Pass on and apply all there is; no time passes."""
        self.cluster.settle()
        while self.frames:
            sender, receiver, payload = self.frames.pop(0)
            self.ends[receiver].receive(sender, payload)
            self.cluster.settle()


def test_the_answer_comes_when_all_have_it() -> None:
    harness = Harness()
    harness.cluster.nodes["c"].is_paused = True
    outcome = harness.add_user("b", "ann")
    harness.rest()
    assert (outcome.heard, harness.knows("b", "ann"), harness.knows("c", "ann")) == (
        [],
        True,
        False,
    )
    harness.cluster.nodes["c"].is_paused = False
    harness.rest()
    assert (outcome.heard, harness.knows("c", "ann")) == (["done"], True)


def test_what_is_so_already_is_waited_for_too() -> None:
    harness = Harness()
    harness.cluster.nodes["c"].is_paused = True
    first = harness.add_user("b", "ann")
    harness.rest()
    again = harness.find_nothing_to_do("b")
    harness.rest()
    assert (first.heard, again.heard) == ([], [])
    harness.cluster.nodes["c"].is_paused = False
    harness.rest()
    third = harness.find_nothing_to_do("b")
    harness.rest()
    assert (first.heard, again.heard, third.heard) == (["done"], ["done"], ["done"])


def test_one_that_does_not_answer_costs_one_wait() -> None:
    harness = Harness()
    harness.cluster.nodes["c"].is_paused = True
    first = harness.add_user("b", "ann")
    harness.rest()
    harness.cluster.scheduler.advance(WAIT_S)
    assert first.heard == ["done"]
    second = harness.add_user("b", "bob")
    harness.rest()
    assert second.heard == ["done"]
    harness.cluster.nodes["c"].is_paused = False
    harness.rest()
    harness.cluster.nodes["c"].is_paused = True
    third = harness.add_user("b", "cid")
    harness.rest()
    assert third.heard == []


def test_what_was_reported_over_a_link_that_is_gone_is_reported_again_over_the_next() -> None:
    """The node that has asked knows nothing of that: its own link is the one it was."""
    harness = Harness()
    outcome = harness.add_user("b", "ann")
    harness.cluster.settle()
    harness.ends["c"].receive(
        "b", revision_frame(ASK_REVISION, harness.cluster.nodes["c"].metadata.revision)
    )
    harness.frames = [sent for sent in harness.frames if sent[0] != "c"]
    harness.frames = [sent for sent in harness.frames if sent[:2] != ("b", "c")]
    harness.rest()
    assert outcome.heard == []
    harness.ends["c"].link_changed("b", True)
    harness.rest()
    assert outcome.heard == ["done"]


def test_who_says_how_far_it_was_is_waited_for_until_it_is_as_far() -> None:
    """Its answer to an earlier question may come when a later one is asked."""
    harness = Harness()
    harness.rest()
    harness.cluster.nodes["c"].is_paused = True
    before = harness.cluster.nodes["c"].metadata.revision
    outcome = harness.add_user("b", "ann")
    harness.rest()
    harness.ends["b"].receive("c", revision_frame(ANSWER_REVISION, before))
    assert outcome.heard == []
    harness.cluster.nodes["c"].is_paused = False
    harness.rest()
    assert outcome.heard == ["done"]


def test_nobody_waits_for_who_is_gone() -> None:
    harness = Harness()
    harness.cluster.nodes["c"].is_paused = True
    outcome = harness.add_user("b", "ann")
    harness.rest()
    harness.ends["b"].link_changed("c", False)
    assert outcome.heard == ["done"]


def test_a_new_link_asks_and_answers_anew() -> None:
    harness = Harness()
    harness.cluster.nodes["c"].is_paused = True
    outcome = harness.add_user("b", "ann")
    harness.cluster.settle()
    harness.frames.clear()  # lost with the link
    harness.ends["b"].link_changed("c", True)
    harness.ends["c"].link_changed("b", False)
    harness.rest()
    harness.cluster.nodes["c"].is_paused = False
    harness.rest()
    assert outcome.heard == []
    harness.ends["c"].link_changed("b", True)
    harness.ends["b"].link_changed("a", True)
    harness.rest()
    assert outcome.heard == ["done"]


@pytest.mark.parametrize(
    "payload", [b"", b"\x02" + bytes(8), revision_frame(ASK_REVISION, 1) + b"x", b"\x00"]
)
def test_what_is_no_frame_is_refused(payload: bytes) -> None:
    harness = Harness()
    with pytest.raises(BadFrame):
        harness.ends["a"].receive("b", payload)
    harness.ends["a"].receive("nobody", revision_frame(ANSWER_REVISION, 7))
    assert harness.frames == []


async def test_a_queue_is_there_for_clients_of_all_nodes(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as three:
        for number in range(20):
            for node in three:
                name = f"{node.name}{number}"
                vhost, declared = node.node.catalogue.vhosts["/"], Declaration(name, durable=True)
                await node.change(partial(declare_queue, vhost, declared, None))
                assert all(name in each.node.catalogue.vhosts["/"].queues for each in three)
