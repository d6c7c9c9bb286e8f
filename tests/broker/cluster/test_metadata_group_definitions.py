"""Definitions that several nodes share: decided on each, the same on all, and done once."""

from __future__ import annotations

from functools import partial

import pytest

from fluffle.broker.access.access import Permission, User, put_permission, put_user
from fluffle.broker.access.limits import VhostLimits
from fluffle.broker.base.client_session import ClientSession
from fluffle.broker.cluster.metadata_group import ATTEMPTS_MAX
from fluffle.broker.definitions.changes import dismantling, doom, set_vhost
from fluffle.broker.durability.change_codec import encode_proposals
from fluffle.broker.metadata.change import Change
from fluffle.broker.queues.arguments import DeliveryGuarantee
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.vhosts.client_sessions import keep_session
from tests.support.definition_digest import digest_of
from tests.support.metadata_changes import (
    bind,
    contents,
    declare,
    declare_exchange,
    delete,
    root,
    to_queue,
    unbind,
)
from tests.support.metadata_cluster import Cluster, Node, Outcome, led_by_a, snapshot_meta


@pytest.fixture
def cluster() -> Cluster:
    return led_by_a()


@pytest.fixture
def a(cluster: Cluster) -> Node:
    return cluster.nodes["a"]


@pytest.fixture
def b(cluster: Cluster) -> Node:
    return cluster.nodes["b"]


@pytest.fixture
def c(cluster: Cluster) -> Node:
    return cluster.nodes["c"]


def queues_of(cluster: Cluster) -> list[list[str]]:
    return [sorted(node.catalogue.vhosts["/"].queues) for node in cluster.nodes.values()]


def test_what_was_agreed_on_before_is_there_once_it_is_confirmed(
    cluster: Cluster, b: Node, c: Node
) -> None:
    c.is_paused = True
    b.ask(declare(b))
    cluster.settle()
    outcome = Outcome()
    c.metadata.reads.ask(outcome.done)
    cluster.settle()
    assert (outcome.heard, queues_of(cluster)) == ([], [["q"], ["q"], []])
    cluster.lead(None)
    cluster.advance(60)
    cluster.lead("b")
    c.is_paused = False
    cluster.settle()
    assert (outcome.heard, queues_of(cluster)) == (["done"], [["q"]] * 3)
    assert len({digest_of(node.metadata.state) for node in cluster.nodes.values()}) == 1


def test_who_was_elected_keeps_what_comes_before_it_may_lead(cluster: Cluster, b: Node) -> None:
    outcome = b.ask(declare(b))
    cluster.elect("c")
    cluster.settle()
    assert outcome.heard == []
    cluster.nodes["c"].metadata.led(cluster.term)
    cluster.settle()
    assert outcome.heard == ["done"]


def test_what_was_kept_is_forgotten_with_the_election(cluster: Cluster, b: Node) -> None:
    outcome = b.ask(declare(b))
    cluster.elect("c")
    cluster.settle()
    cluster.lead("a")
    cluster.settle()
    assert outcome.heard == ["done"]
    entries = len(cluster.log)
    cluster.elect("c")
    cluster.nodes["c"].metadata.led(cluster.term)
    cluster.settle()
    assert len(cluster.log) == entries


@pytest.mark.parametrize("name", "abc")
def test_a_change_is_done_when_it_is_applied_where_it_was_asked_for(
    cluster: Cluster, name: str
) -> None:
    node = cluster.nodes[name]
    node.is_paused = True
    outcome = node.ask(declare(node))
    cluster.settle()
    assert outcome.heard == []
    node.is_paused = False
    cluster.settle()
    assert outcome.heard == ["done"]
    assert queues_of(cluster) == [["q"]] * 3


def test_what_is_so_already_is_answered_once_that_is_known(cluster: Cluster, b: Node) -> None:
    b.ask(declare(b))
    cluster.settle()
    entries = len(cluster.log)
    cluster.lead(None)
    outcome = b.ask(declare(b))
    cluster.settle()
    assert outcome.heard == []
    cluster.lead("c")
    cluster.settle()
    assert (outcome.heard, len(cluster.log)) == (["done"], entries)


def test_what_is_so_here_no_more_elsewhere_is_decided_anew(
    cluster: Cluster, b: Node, c: Node
) -> None:
    b.ask(declare(b))
    cluster.settle()
    c.is_paused = True
    b.ask(delete(b))
    cluster.settle()
    outcome = c.ask(declare(c))
    cluster.settle()
    assert outcome.heard == []
    c.is_paused = False
    cluster.settle()
    assert (outcome.heard, queues_of(cluster)) == (["done"], [["q"]] * 3)


@pytest.mark.parametrize("is_read", [True, False])
def test_what_is_not_here_and_is_elsewhere_is_deleted(
    cluster: Cluster, b: Node, c: Node, is_read: bool
) -> None:
    """Also where a leader of an earlier version is asked nothing: by an entry in the log."""
    cluster.is_read = is_read
    c.is_paused = True
    b.ask(declare(b))
    cluster.settle()
    outcome = c.ask(delete(c))
    cluster.settle()
    assert outcome.heard == []
    c.is_paused = False
    cluster.settle()
    assert (outcome.heard, queues_of(cluster)) == (["done"], [[]] * 3)


def test_who_cannot_know_is_notified_in_time(cluster: Cluster, c: Node) -> None:
    cluster.lead(None)
    outcome = c.ask(delete(c))
    cluster.advance(29)
    assert outcome.heard == []
    cluster.advance(2)
    assert len(outcome.heard) == 1
    assert "no majority of the cluster has confirmed" in outcome.heard[0]


def test_two_who_declare_the_same_both_have_it(cluster: Cluster, b: Node, c: Node) -> None:
    outcomes = [node.ask(declare(node)) for node in (b, c)]
    cluster.settle()
    assert [outcome.heard for outcome in outcomes] == [["done"]] * 2
    assert queues_of(cluster) == [["q"]] * 3


def test_who_declares_another_of_that_name_is_refused(cluster: Cluster, b: Node, c: Node) -> None:
    outcomes = [b.ask(declare(b)), c.ask(declare(c, durable=True))]
    cluster.settle()
    assert outcomes[0].heard == ["done"]
    (text,) = outcomes[1].heard
    assert text.startswith("PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q'")


def test_the_last_place_is_given_once(cluster: Cluster, a: Node, b: Node, c: Node) -> None:
    a.ask(lambda: set_vhost(a.catalogue, "/", limits=VhostLimits(max_queues=1)))
    cluster.settle()
    outcomes = [b.ask(declare(b, "q")), c.ask(declare(c, "r"))]
    cluster.settle()
    heard = sorted(text for outcome in outcomes for text in outcome.heard)
    assert [text[:40] for text in heard] == ["PRECONDITION_FAILED - cannot declare que", "done"]


def test_a_binding_that_was_answered_is_not_lost_to_a_deletion_unseen(
    cluster: Cluster, a: Node, b: Node, c: Node
) -> None:
    a.ask(declare(a))
    cluster.settle()
    bound, deleted = b.ask(bind(b, to_queue("amq.topic", "q"))), c.ask(delete(c))
    cluster.settle()
    assert [bound.heard, deleted.heard] == [["done"]] * 2
    for node in cluster.nodes.values():
        assert list(node.catalogue.vhosts["/"].topology.bindings) == []


def test_a_mistake_of_ours_is_reported_to_who_waits(
    cluster: Cluster, b: Node, c: Node, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0

    def decide() -> Change:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise RuntimeError("a bug")
        return declare(b)()

    c.ask(declare(c))
    cluster.scheduler.run()
    outcome = b.ask(decide)
    cluster.settle()
    assert outcome.heard == ["INTERNAL_ERROR - the broker failed, see its log"]
    assert "a bug" in caplog.text


def test_who_never_gets_through_does_not_fill_the_log(cluster: Cluster, b: Node) -> None:
    late = declare(b)().puts[0]._replace(key=("nowhere", "q"))
    outcome = b.ask(lambda: Change(puts=(late,)))
    before = len(cluster.log)
    cluster.advance(20)
    assert len(cluster.log) - before <= 20 * ATTEMPTS_MAX
    cluster.advance(15)
    assert len(outcome.heard) == 1
    assert cluster.scheduler.timer_count == 0


def test_an_auto_delete_exchange_goes_with_its_last_two_bindings(
    cluster: Cluster, a: Node, b: Node, c: Node
) -> None:
    """Two nodes take one each, and each sees that of the other."""
    bindings = [to_queue("x", "q", key) for key in ("1", "2")]
    for decide in (
        declare(a),
        declare_exchange(a, ExchangeSpec("x", auto_delete=True)),
        *(bind(a, binding) for binding in bindings),
    ):
        a.ask(decide)
        cluster.settle()
    outcomes = [node.ask(unbind(node, each)) for node, each in zip((b, c), bindings, strict=True)]
    cluster.settle()
    assert [outcome.heard for outcome in outcomes] == [["done"]] * 2
    assert [node.catalogue.vhosts["/"].topology.find("x") for node in (a, b, c)] == [None] * 3


def test_a_virtual_host_that_is_doomed_goes_whatever_comes_into_it(
    cluster: Cluster, a: Node, b: Node
) -> None:
    late = b.ask(declare(b))
    a.ask(lambda: doom(a.catalogue, "/"))
    cluster.settle()
    for decide in dismantling(a.catalogue, "/"):
        a.metadata.ensure(decide)
    cluster.settle()
    assert late.heard == ["NOT_FOUND - there is no vhost"]
    for node in cluster.nodes.values():
        assert (node.catalogue.vhosts, node.catalogue.doomed) == ({}, {})
        assert len(node.metadata.state) == 0


def test_a_virtual_host_is_deleted_with_the_session_of_a_client_and_its_queue(
    cluster: Cluster, a: Node
) -> None:
    """Nothing may be put into it any more: the session is not ended before it goes."""
    vhost, kept = root(a), ClientSession("u", 60, 1, "a", b"")
    for decide in (
        partial(keep_session, vhost, "c", kept),
        declare(a, "mqtt-subscription-cqos1", guarantee=DeliveryGuarantee.EXACTLY_ONCE),
        partial(doom, a.catalogue, "/"),
    ):
        a.ask(decide)
        cluster.settle()
    for decide in dismantling(a.catalogue, "/"):
        outcome = a.ask(decide)
        cluster.settle()
        assert outcome.heard == ["done"]
    for node in cluster.nodes.values():
        assert len(node.metadata.state) == 0


def test_who_finishes_a_deletion_late_takes_nothing_from_what_came_again(
    cluster: Cluster, a: Node, c: Node
) -> None:
    def grant() -> Change:
        return put_permission("u", "/", Permission())

    for decide in (lambda: put_user(User("u")), grant, lambda: doom(a.catalogue, "/")):
        a.ask(decide)
        cluster.settle()
    c.metadata.ensure(next(dismantling(c.catalogue, "/")))
    cluster.scheduler.run()
    late = cluster.frames.popleft()
    for decide in dismantling(a.catalogue, "/"):
        a.metadata.ensure(decide)
        cluster.settle()
    for decide in (lambda: set_vhost(a.catalogue, "/"), grant):
        a.ask(decide)
        cluster.settle()
    cluster.frames.append(late)
    cluster.settle()
    assert [("u", "/") in node.catalogue.access.permissions for node in (a, c)] == [True] * 2


# On the way


def test_what_a_leader_took_with_it_is_proposed_again(cluster: Cluster, b: Node) -> None:
    outcome = b.ask(declare(b))
    cluster.scheduler.run()
    cluster.frames.clear()
    cluster.lead("c")
    cluster.settle()
    assert outcome.heard == ["done"]


def test_who_comes_to_lead_proposes_what_waits_here(cluster: Cluster, b: Node) -> None:
    cluster.lead(None)
    outcome = b.ask(declare(b))
    cluster.settle()
    cluster.lead("b")
    cluster.settle()
    assert outcome.heard == ["done"]


def test_where_there_is_little_room_definitions_go_and_do_not_come(
    cluster: Cluster, b: Node
) -> None:
    b.ask(declare(b))
    cluster.settle()
    cluster.may_grow = False
    comes, goes = b.ask(declare(b, "r")), b.ask(delete(b))
    cluster.settle()
    assert (comes.heard, goes.heard) == ([], ["done"])
    assert queues_of(cluster) == [[]] * 3
    cluster.may_grow = True
    cluster.advance(2)
    assert comes.heard == ["done"]


def test_a_frame_that_is_lost_is_sent_again_after_a_while(cluster: Cluster, b: Node) -> None:
    outcome = b.ask(declare(b))
    cluster.scheduler.run()
    cluster.frames.clear()
    cluster.settle()
    assert outcome.heard == []
    cluster.advance(1.5)
    assert outcome.heard == ["done"]


def test_it_is_sent_more_and_more_seldom(cluster: Cluster, b: Node) -> None:
    b.ask(declare(b))
    cluster.scheduler.advance(29)
    assert len(cluster.frames) == 1 + 5
    cluster.settle()
    assert queues_of(cluster) == [["q"]] * 3


def test_a_new_link_to_the_leader_is_used_at_once(cluster: Cluster, b: Node) -> None:
    outcome = b.ask(declare(b))
    cluster.scheduler.run()
    cluster.frames.clear()
    b.metadata.link_changed("c", True)
    cluster.settle()
    assert outcome.heard == []
    b.metadata.link_changed("a", True)
    cluster.settle()
    assert outcome.heard == ["done"]


def test_what_comes_twice_counts_once(cluster: Cluster, b: Node) -> None:
    """Even if what it rests on is as it was then."""
    b.ask(declare(b))
    cluster.scheduler.run()
    frame = cluster.frames[0]
    cluster.settle()
    b.ask(delete(b))
    cluster.frames.append(frame)
    cluster.settle()
    cluster.frames.append(frame)
    cluster.settle()
    assert queues_of(cluster) == [[]] * 3


def test_what_was_on_its_way_when_its_node_ended_may_still_come(cluster: Cluster, b: Node) -> None:
    """But not after the next process on that node has changed anything."""
    b.ask(declare(b, "early"))
    cluster.scheduler.run()
    early = cluster.frames.popleft()
    b.ask(declare(b, "late"))
    cluster.scheduler.run()
    late = cluster.frames.popleft()
    cluster.frames.append(early)
    again = cluster.start("b")
    cluster.settle()
    again.ask(declare(again, "new"))
    cluster.settle()
    cluster.frames.append(late)
    cluster.settle()
    assert queues_of(cluster) == [["early", "new"]] * 3


@pytest.mark.parametrize(
    ("sender", "payload"),
    [("b", b"garbage"), ("c", encode_proposals([])[:1]), ("b", None)],
)
def test_frames_that_are_none_change_nothing(
    cluster: Cluster, a: Node, c: Node, sender: str, payload: bytes | None
) -> None:
    if payload is None:  # in the name of another
        c.ask(declare(c))
        cluster.scheduler.run()
        *_, payload = cluster.frames.popleft()
    before = len(cluster.log)
    a.metadata.receive(sender, payload)
    cluster.settle()
    assert len(cluster.log) == before


def test_without_a_leader_who_waits_hears_in_time(cluster: Cluster, b: Node) -> None:
    cluster.lead(None)
    outcome, owed, patient = b.ask(declare(b)), Outcome(), Outcome()
    b.metadata.ensure(declare(b, "owed"), owed.done, owed.failed)
    b.metadata.ensure(declare(b, "patient"), patient.done)
    cluster.advance(29)
    assert (outcome.heard, owed.heard) == ([], [])
    cluster.advance(3)
    for heard in (outcome.heard, owed.heard):
        (text,) = heard
        assert text.startswith("INTERNAL_ERROR - the operation timed out")
    assert patient.heard == [], "nothing has come true"
    assert queues_of(cluster) == [[]] * 3
    cluster.lead("c")
    cluster.advance(2)
    assert queues_of(cluster) == [["owed", "patient"]] * 3
    assert (len(outcome.heard), len(owed.heard), patient.heard) == (1, 1, ["done"])


def test_what_was_given_up_does_not_come_true_behind_something_later(
    cluster: Cluster, b: Node
) -> None:
    b.ask(declare(b))
    cluster.scheduler.run()
    frame = cluster.frames[0]
    cluster.lead(None)
    cluster.advance(32)
    cluster.lead("a")
    b.ask(declare(b, "r"))
    cluster.settle()
    cluster.frames.append(frame)
    cluster.settle()
    assert queues_of(cluster) == [["r"]] * 3


def test_nobody_looks_at_the_clock_without_a_reason(cluster: Cluster, b: Node) -> None:
    b.ask(declare(b))
    cluster.advance(5)
    assert cluster.scheduler.timer_count == 0


# Snapshots


def test_an_image_that_begins_anew_with_an_older_snapshot_takes_nothing_away(
    cluster: Cluster, b: Node
) -> None:
    b.ask(declare(b, "old"))
    cluster.settle()
    index, state = b.applied, b"".join(b.metadata.snapshot()[1])
    b.ask(declare(b, "new"))
    cluster.settle()
    queues = dict(b.catalogue.vhosts["/"].queues)
    b.metadata.restore(snapshot_meta(index, state), state)
    assert b.catalogue.vhosts["/"].queues == queues
    b.applied = index
    b.catch_up()
    assert b.catalogue.vhosts["/"].queues == queues
    b.ask(delete(b, "new"))
    cluster.settle()
    assert queues_of(cluster) == [["old"]] * 3
    b.metadata.restore(snapshot_meta(0, b""), b"")
    assert queues_of(cluster) == [["old"]] * 3
    b.applied = 0
    b.ask(declare(b, "newest"))
    b.catch_up()
    cluster.settle()
    assert queues_of(cluster) == [["newest", "old"]] * 3


def test_who_was_away_gets_a_snapshot_and_what_he_waited_for(
    cluster: Cluster, a: Node, c: Node
) -> None:
    for decide in (declare(a, "old"), declare(a, "anew"), declare_exchange(a, ExchangeSpec("x"))):
        a.ask(decide)
        cluster.settle()
    kept, anew = (c.catalogue.vhosts["/"].queues[name] for name in ("old", "anew"))
    c.is_paused = True
    asked = c.ask(declare(c, "mine")), c.ask(declare(c, "taken", durable=True))
    a.ask(declare(a, "taken"))
    for decide in (delete(a, "anew"), bind(a, to_queue("x", "old"))):
        cluster.settle()
        a.ask(decide)
    cluster.settle()
    a.ask(declare(a, "anew"))
    cluster.settle()
    c.catch_up_by_snapshot()
    c.is_paused = False
    cluster.settle()
    vhost = c.catalogue.vhosts["/"]
    assert sorted(vhost.queues) == ["anew", "mine", "old", "taken"]
    assert vhost.queues["old"] is kept
    assert vhost.queues["anew"] is not anew
    assert vhost.route("x", ["k"], None)[0] == (kept,)
    assert [outcome.heard[0][:40] for outcome in asked] == [
        "done",
        "PRECONDITION_FAILED - inequivalent arg '",
    ]
    assert digest_of(c.metadata.state) == digest_of(a.metadata.state)


@pytest.mark.parametrize("seen", ["nothing", "its doom", "its end"])
@pytest.mark.parametrize("comes_again", [False, True])
def test_a_virtual_host_that_went_meanwhile(
    cluster: Cluster, a: Node, c: Node, seen: str, comes_again: bool
) -> None:
    """And one that came again under its name has nothing of it."""
    for decide in (declare(a), declare(a, "r"), bind(a, to_queue("amq.topic", "q"))):
        a.ask(decide)
        cluster.settle()
    old = c.catalogue.vhosts["/"]
    c.is_paused = seen == "nothing"
    a.ask(lambda: doom(a.catalogue, "/"))
    cluster.settle()
    c.is_paused = seen != "its end"
    for decide in dismantling(a.catalogue, "/"):
        a.metadata.ensure(decide)
        cluster.settle()
    if comes_again:
        a.ask(lambda: set_vhost(a.catalogue, "/"))
        cluster.settle()
        a.ask(declare(a, "new"))
        cluster.settle()
    c.catch_up_by_snapshot()
    assert c.catalogue.doomed == {}
    assert contents(c) == contents(a)
    assert (list(c.catalogue.vhosts) == ["/"]) is comes_again
    if comes_again and seen != "nothing":
        assert c.catalogue.vhosts["/"] is not old


def test_a_state_that_cannot_be_read_changes_nothing(cluster: Cluster, b: Node) -> None:
    b.ask(declare(b))
    cluster.settle()
    before = digest_of(b.metadata.state)
    with pytest.raises(ValueError, match="no state of definitions"):
        b.metadata.restore(snapshot_meta(5, b""), b"\x01\xc1")
    assert digest_of(b.metadata.state) == before
