"""Sessions between nodes and leaders of queues: an example of each rule that they keep."""

from __future__ import annotations

import pytest

from fluffle.broker.cluster.queue_sessions import events as happened
from fluffle.broker.cluster.queue_sessions import replies, session_client
from fluffle.broker.cluster.queue_sessions.session_server import CONSUMER_DISCONNECTED_MS
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum import messages as m
from tests.broker.cluster.queue_sessions.session_harness import GROUP, SessionHarness
from tests.broker.queues.quorum.leader_harness import full, quorum


def holding(count: int = 1) -> SessionHarness:
    """A consumer of the near edge has messages in hands."""
    harness = SessionHarness()
    harness.attach("near")
    harness.publish("near", count)
    harness.rest()
    assert len(harness.model.unacked) == count
    return harness


def test_an_ack_before_a_close_outlives_the_leader() -> None:
    harness = holding()
    harness.settle("near", harness.in_hands("near"))
    harness.end_channel("near", 1)
    harness.change_leader()
    harness.rest()
    assert harness.led.image.state.live_count == 0


REJECTING = full(2)


def test_what_was_refused_is_not_confirmed_when_it_is_asked_again() -> None:
    """Rule 4: the leader that refused it is gone before its edge has heard of that.

    The message with which there are too many was taken.
    """
    harness = SessionHarness(("near",), spec=REJECTING)
    harness.rest()
    harness.publish("near", 5)
    harness.arrive()
    harness.change_leader(kept=1)
    harness.rest()
    assert harness.model.confirmed == {b"body 0", b"body 1", b"body 2"}
    assert harness.model.refused == {b"body 3", b"body 4"}


def settled_too_late() -> SessionHarness:
    """The near edge settles what its leader has taken back, and the answer is committed."""
    harness = holding()
    harness.cut("near")
    harness.settle("near", harness.in_hands("near"))
    harness.now_ms += CONSUMER_DISCONNECTED_MS
    harness.tick()
    harness.commit()
    harness.link("near")
    while not harness.led.proposals:
        harness.arrive()
    harness.commit()
    return harness


def test_a_settlement_that_did_not_count_is_reported_by_each_leader_that_it_is_asked_of() -> None:
    """Rule 4: those that knew of it are gone before its edge has heard of that."""
    harness = settled_too_late()
    harness.lose_all("near")
    harness.change_leader()
    harness.change_leader()  # with an image that was a snapshot
    harness.rest()
    assert happened.SettleFailed(3) in harness.clients["near"].heard
    assert harness.led.image.state.waiting_count == 1


def test_a_settlement_that_did_not_count_is_reported_also_by_a_former_leader() -> None:
    harness = settled_too_late()
    harness.change_leader()
    harness.rest()
    assert happened.SettleFailed(3) in harness.clients["near"].heard


def test_an_end_of_an_earlier_hand_out_ends_no_later_one() -> None:
    """Rule 5: a message comes back, and to the same consumer again."""
    harness = holding()
    harness.settle("near", harness.in_hands("near"), Outcome.NACK_REQUEUED)
    harness.rest()
    (token,) = harness.in_hands("near")
    assert token.ordinal == 1
    asking = harness.clients["near"].session
    asking.ask(m.Settle(asking.pending.next, Outcome.ACKED, [token._replace(ordinal=0)]))
    harness.rest()
    assert harness.in_hands("near") == [token]
    assert harness.led.image.state.held_count == 1


def test_what_edges_of_a_queue_that_is_gone_say_means_nothing_to_the_next() -> None:
    """Rule 22: one of the same name has another id, and terms from 1 on."""
    harness = SessionHarness(("near",))
    harness.rest()
    harness.publish("near", 2)
    harness.link("near")
    harness.delete()
    harness.rest()
    assert harness.led.image.state.next_sequence == 1


def test_what_the_leader_of_a_queue_that_is_gone_said_means_nothing_to_the_next() -> None:
    harness = SessionHarness(("near",))
    harness.rest()
    harness.publish("near", 2)
    harness.arrive()
    harness.commit()
    harness.delete()
    harness.publish("near", 2)
    while not harness.wire("near", to_leader=False).is_empty:
        harness.arrive(1)
    harness.rest()
    assert harness.model.confirmed == {b"body 2", b"body 3"}


def test_what_one_asks_stays_in_order_from_leader_to_leader() -> None:
    """Rule 24: on the leader's own node, and on the next one's."""
    harness = SessionHarness()
    harness.rest()
    for node in ("near", "left"):
        harness.publish(node, 2)
        harness.arrive()
    harness.change_leader(kept=1)
    for node in ("near", "left"):
        harness.publish(node, 2)
    harness.change_leader()
    harness.rest()
    assert len(harness.model.confirmed) == 8


def test_what_comes_too_soon_is_not_done_before_what_is_in_front_of_it() -> None:
    harness = SessionHarness(("near",))
    harness.rest()
    harness.publish("near")
    harness.publish("near")
    harness.wire("near", to_leader=True).links[-1].popleft()
    harness.arrive()
    assert not harness.led.proposals
    harness.rest()
    assert len(harness.model.confirmed) == 2


def test_a_new_leader_takes_nothing_from_a_consumer_that_is_there() -> None:
    harness = holding(3)
    harness.change_leader()
    harness.rest()
    assert len(harness.model.unacked) == 3
    assert not harness.model.back


def test_what_was_handed_out_and_never_arrived_comes_from_the_next_leader_unflagged() -> None:
    harness = SessionHarness()
    harness.attach("near")
    harness.rest()
    harness.publish("near", 2)
    harness.arrive()
    harness.commit()
    harness.change_leader()
    harness.rest()
    assert len(harness.model.unacked) == 2
    assert not harness.model.back


def test_a_consumer_whose_answer_comes_in_front_of_the_record_stays() -> None:
    harness = SessionHarness(("near",))
    consumer = harness.attach("near")
    harness.arrive()
    harness.arrive()
    harness.link("near")
    harness.commit()
    harness.commit()  # the session, and the consumer: its answer leaves over the new link,
    harness.drop()  # while the record, which is in front of it, was on the old one
    harness.publish("near")
    harness.rest()
    assert harness.clients["near"].consumers == [consumer]
    assert len(harness.model.unacked) == 1


def test_a_leadership_that_begins_anew_in_its_term_is_heard_from_its_first_frame() -> None:
    harness = holding(2)
    assert harness.clients["near"].session.received > 1
    harness.publish("near")
    harness.arrive()
    harness.lead_anew()  # the publish is not taken
    harness.turn_to_leader("near")
    harness.rest()
    assert harness.clients["near"].session.leader_epoch == (1, 2)
    assert len(harness.model.confirmed) == len(harness.model.unacked) == 3


def test_what_the_leadership_before_said_does_not_count_as_of_the_next_one() -> None:
    harness = SessionHarness(("near",))
    harness.attach("near")
    harness.rest()
    harness.change_leader()
    harness.arrive()
    for _ in range(2):
        harness.publish("near")
        harness.arrive()
        harness.commit()  # the record of this leadership and deliveries are on their way
    harness.lead_anew()
    harness.turn_to_leader("near")
    harness.rest()
    harness.publish("near")
    harness.rest()
    assert len(harness.model.unacked) == 3


def test_an_edge_that_has_not_heard_of_it_is_notified_when_it_asks() -> None:
    harness = holding()
    harness.lead_anew()
    harness.lose_all("near")  # it would be reported without asking, but that is not repeated
    harness.publish("near")
    harness.arrive()
    (misled,) = harness.arrive()
    assert misled == m.NotLeader(1, "right", 2)
    harness.rest()
    assert harness.clients["near"].session.leader_epoch == (1, 2)


def test_an_edge_that_waits_to_be_served_hears_who_leads_without_asking() -> None:
    harness = SessionHarness(("near",))
    harness.attach("near")
    harness.rest()
    harness.lead_anew()
    harness.arrive()
    assert harness.clients["near"].session.leader_epoch == (1, 2)


def test_a_get_does_not_wait_for_a_message_whose_end_is_under_way() -> None:
    harness = SessionHarness(("near",))
    harness.publish("near")
    harness.get("near", 1)
    harness.rest()
    harness.get("near", 1)
    harness.settle("near", harness.in_hands("near"))
    harness.hurry("near")
    harness.arrive()
    harness.change_leader(kept=1)  # the get is on record, and the settlement is not
    harness.rest()
    assert harness.led.image.state.live_count == 0


def test_a_message_that_arrives_behind_the_end_of_its_get_comes_back() -> None:
    harness = SessionHarness(("near",))
    harness.publish("near")
    harness.rest()
    harness.get("near", 1)
    harness.arrive()
    while harness.led.proposals:
        harness.commit()
    assert len(harness.model.handed) == 1
    harness.end_channel("near", 1)
    harness.rest()
    state = harness.led.image.state
    assert (state.waiting_count, state.held_count) == (1, 0)


def test_a_consumer_is_given_no_more_than_it_takes_though_a_backlog_waits() -> None:
    for no_ack in (False, True):
        harness = SessionHarness(("near",))
        harness.attach("near", credit=3, no_ack=no_ack)
        harness.rest()
        harness.publish("near", 50)
        harness.arrive()
        while harness.led.proposals:
            harness.commit()  # what was handed out is on its way: nothing of it has arrived
        assert len(harness.model.handed) == 3


@pytest.mark.parametrize("priority", [-(1 << 63), (1 << 63) - 1])
def test_a_consumer_may_have_any_priority(priority: int) -> None:
    harness = SessionHarness(("near",))
    near = harness.clients["near"]
    number = near.attach(credit=1, no_ack=False, prefetch=0, priority=priority)
    harness.rest()
    assert near.consumers == [number]


def test_a_silent_node_keeps_what_it_holds_for_a_minute_and_its_session_for_good() -> None:
    harness = holding()
    harness.cut("near")
    harness.now_ms += CONSUMER_DISCONNECTED_MS - 1
    harness.tick()
    assert not harness.led.proposals
    harness.now_ms += 1
    harness.tick()
    harness.rest()
    assert (harness.model.unacked, harness.clients["near"].consumers) == ({}, [])
    assert len(harness.led.image.state.sessions) == 2


@pytest.mark.parametrize("timeout_ms", [0, 5_000, 3 * CONSUMER_DISCONNECTED_MS])
def test_a_queue_says_how_long_a_silent_node_keeps_what_it_holds(timeout_ms: int) -> None:
    harness = SessionHarness(spec=quorum(consumer_disconnected_timeout=timeout_ms))
    harness.attach("near")
    harness.publish("near", 1)
    harness.rest()
    harness.cut("near")
    if timeout_ms:
        harness.now_ms += timeout_ms - 1
        harness.tick()
        assert not harness.led.proposals
        harness.now_ms += 1
    harness.tick()
    harness.rest()
    assert (harness.model.unacked, harness.clients["near"].consumers) == ({}, [])


def test_a_removed_node_gets_nothing_more_and_holds_nothing() -> None:
    harness = holding()
    harness.led.sessions.release([m.Effect(1, m.RejectedReply(1, 1))])
    harness.led.sessions.removed("near")
    assert [
        node for node, _frame in harness.led.sessions.output(lambda _node: True) if node == "near"
    ] == []
    harness.led.turn()
    while harness.led.proposals:
        harness.commit()
    state = harness.led.image.state
    assert (state.held_count, state.requeued.count) == (0, 1)
    assert [session.id.node for session in state.sessions.values()] == ["left"]


def test_the_next_leader_takes_from_a_node_what_another_has_since() -> None:
    harness = holding()
    harness.cut("near")
    harness.now_ms += CONSUMER_DISCONNECTED_MS
    harness.tick()
    while harness.led.proposals:
        harness.commit()
    harness.attach("left")
    while harness.led.proposals:
        harness.commit()
    harness.change_leader()
    harness.rest()
    assert harness.in_hands("near") == []
    assert len(harness.in_hands("left")) == 1


def test_a_new_life_ends_the_sessions_of_the_old_one_at_once() -> None:
    harness = holding()
    harness.restart("near", counter=0)
    harness.rest()
    state = harness.led.image.state
    assert (state.held_count, state.requeued.count) == (0, 1)


def test_a_tombstone_says_nothing_of_what_is_pending_and_revokes_what_is_held() -> None:
    harness = holding()
    harness.cut("near")
    first = harness.publish("near", 2)
    events = harness.clients["near"].session.deleted()
    assert events[0] == happened.PublishUndecided(first, 2)
    assert [type(event) for event in events[1:]] == [
        m.RevokeNotice,
        happened.ConsumerCancelled,
    ]


def test_a_lost_session_nacks_what_is_pending_and_another_begins() -> None:
    harness = holding()
    own, near = harness.led.own, harness.clients["near"].session
    first = harness.publish("near")
    lost = m.LeaderFrame(
        GROUP, *own.leader_epoch, own.boot, near.boot, 1, near.opening, 0, [m.SessionLost()]
    )
    events = replies.apply_frame(near, lost)
    assert events[0] == happened.PublishRejected(first, 1)
    assert (near.counter, near.pending.next) == (2, 1)


def test_a_queue_without_a_leader_pauses_clients_and_forgets_nothing() -> None:
    harness = holding()
    harness.cut("near")
    near = harness.clients["near"].session
    harness.settle("near", harness.in_hands("near"))
    while len(near.pending) < session_client.OPERATIONS_MAX:
        assert not near.is_full
        harness.publish("near")
    assert near.is_full
    harness.rest()
    assert not near.is_full


def test_a_publish_is_confirmed_once_it_is_committed() -> None:
    harness = SessionHarness()
    harness.publish("near", 3)
    harness.rest()
    assert harness.model.confirmed == {b"body 0", b"body 1", b"body 2"}


def test_what_is_pending_is_asked_of_the_next_leader() -> None:
    harness = SessionHarness()
    harness.publish("near", 2)
    harness.arrive()
    harness.change_leader()
    harness.publish("near", 1)
    harness.rest()
    assert harness.model.confirmed == {b"body 0", b"body 1", b"body 2"}


def test_what_was_committed_is_not_enqueued_again_by_the_next_leader() -> None:
    harness = SessionHarness()
    harness.publish("near", 2)
    harness.arrive()
    harness.change_leader(kept=1)
    harness.rest()
    assert harness.model.confirmed == {b"body 0", b"body 1"}
    assert harness.led.image.state.next_sequence == 3
