"""Read index: how a node learns that it knows all that was answered, and which answers it must not
believe."""

from __future__ import annotations

import pytest

from fluffle.broker.cluster.codec import BadFrame
from fluffle.broker.cluster.read_index import ASK, FRAME_BYTES
from tests.support.metadata_changes import declare
from tests.support.metadata_cluster import Cluster, Outcome, led_by_a


def asked(cluster: Cluster, name: str) -> Outcome:
    outcome = Outcome()
    cluster.nodes[name].metadata.reads.ask(outcome.done)
    return outcome


def test_no_read_is_answered_before_earlier_answers_are_applied() -> None:
    cluster = led_by_a()
    cluster.nodes["c"].is_paused = True
    cluster.nodes["b"].ask(declare(cluster.nodes["b"]))
    cluster.settle()
    outcome = asked(cluster, "c")
    cluster.settle()
    assert outcome.heard == []
    cluster.nodes["c"].is_paused = False
    cluster.settle()
    assert outcome.heard == ["done"]


def test_who_leads_no_more_and_has_not_heard_of_it_knows_nothing() -> None:
    cluster = led_by_a()
    cluster.leader = "b"
    outcome = asked(cluster, "a")
    cluster.settle()
    assert cluster.nodes["a"].metadata.leads
    assert outcome.heard == []
    cluster.lead("b")
    cluster.settle()
    assert outcome.heard == ["done"]


def test_who_asks_while_a_round_is_under_way_waits_for_the_next() -> None:
    """Answers after the start of the round may not be known at its end."""
    cluster = led_by_a()
    b, c = cluster.nodes["b"], cluster.nodes["c"]
    first = asked(cluster, "c")
    cluster.scheduler.run()
    while cluster.deliver():  # a has been asked, and has answered
        cluster.scheduler.run()
        if cluster.frames and cluster.frames[0][0] == "a":
            break
    kept, c.is_paused = cluster.frames.popleft(), True
    b.ask(declare(b))
    cluster.settle()
    second = asked(cluster, "c")
    cluster.frames.append(kept)
    cluster.settle()
    assert (first.heard, second.heard) == (["done"], [])
    c.is_paused = False
    cluster.settle()
    assert second.heard == ["done"]


def test_what_an_earlier_start_was_answered_counts_for_no_round_of_this_one() -> None:
    """The leader may answer late: once it has heard from a majority."""
    cluster = led_by_a()
    asked(cluster, "c")
    cluster.scheduler.run()
    while cluster.frames[0][0] != "a":
        cluster.deliver()
        cluster.scheduler.run()
    late = cluster.frames.popleft()
    c = cluster.start("c")
    cluster.settle()
    c.is_paused = True
    cluster.nodes["b"].ask(declare(cluster.nodes["b"]))
    cluster.settle()
    outcome = asked(cluster, "c")
    cluster.scheduler.run()
    cluster.frames.appendleft(late)
    cluster.settle()
    assert outcome.heard == []
    c.is_paused = False
    cluster.settle()
    assert outcome.heard == ["done"]


def test_a_round_whose_frame_is_lost_is_asked_for_again() -> None:
    cluster = led_by_a()
    outcome = asked(cluster, "c")
    cluster.scheduler.run()
    cluster.frames.clear()
    cluster.settle()
    assert outcome.heard == []
    cluster.advance(2)
    assert outcome.heard == ["done"]


def test_many_who_ask_at_once_are_one_round() -> None:
    cluster = led_by_a()
    reads = cluster.nodes["c"].metadata.reads
    before = reads.begun
    outcomes = [asked(cluster, "c") for _ in range(100)]
    cluster.settle()
    assert all(each.heard == ["done"] for each in outcomes)
    assert (reads.begun, reads.confirmed) == (before + 1, before + 1)


def test_what_is_no_frame_of_ours_is_refused() -> None:
    reads = led_by_a().nodes["c"].metadata.reads
    for payload in (b"", bytes((ASK,)), bytes((7,)) * FRAME_BYTES):
        with pytest.raises(BadFrame):
            reads.receive("a", payload)


EXAMPLES = (
    test_no_read_is_answered_before_earlier_answers_are_applied,
    test_who_leads_no_more_and_has_not_heard_of_it_knows_nothing,
    test_who_asks_while_a_round_is_under_way_waits_for_the_next,
    test_what_an_earlier_start_was_answered_counts_for_no_round_of_this_one,
)
"""Tests that find mistakes which need a rare coincidence: see the simulator."""
