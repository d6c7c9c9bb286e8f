"""An example of each rule that streams keep."""

from __future__ import annotations

import pytest

from fluffle.broker.cluster.queue_sessions import events as happened
from fluffle.broker.cluster.queue_sessions import messages as m
from fluffle.broker.cluster.queue_sessions import replies, session_client
from fluffle.broker.cluster.queue_sessions.session_server import CONSUMER_DISCONNECTED_MS
from fluffle.broker.queues.delivery import Outcome
from fluffle.broker.queues.quorum import effects as e
from tests.broker.cluster.queue_sessions.world import GROUP, World
from tests.broker.queues.quorum.leading import full, quorum


def holding(count: int = 1) -> World:
    """A consumer of the near edge has messages in hands."""
    world = World()
    world.attach("near")
    world.publish("near", count)
    world.rest()
    assert len(world.ghost.hands) == count
    return world


def test_an_ack_before_a_close_outlives_the_leader() -> None:
    world = holding()
    world.settle("near", world.in_hands("near"))
    world.end_channel("near", 1)
    world.change_leader()
    world.rest()
    assert world.led.image.state.live_count == 0


REJECTING = full(2)


def test_what_was_refused_is_not_confirmed_when_it_is_asked_again() -> None:
    """Rule 4: the leader that refused it is gone before its edge has heard of that.

    The message with which there are too many was taken.
    """
    world = World(("near",), spec=REJECTING)
    world.rest()
    world.publish("near", 5)
    world.arrive()
    world.change_leader(kept=1)
    world.rest()
    assert world.ghost.confirmed == {b"body 0", b"body 1", b"body 2"}
    assert world.ghost.refused == {b"body 3", b"body 4"}


def settled_too_late() -> World:
    """The near edge settles what its leader has taken back, and the answer is committed."""
    world = holding()
    world.cut("near")
    world.settle("near", world.in_hands("near"))
    world.now_ms += CONSUMER_DISCONNECTED_MS
    world.tick()
    world.commit()
    world.link("near")
    while not world.led.proposals:
        world.arrive()
    world.commit()
    return world


def test_a_settlement_that_did_not_count_is_told_so_by_each_leader_that_it_is_asked_of() -> None:
    """Rule 4: those that knew of it are gone before its edge has heard of that."""
    world = settled_too_late()
    world.lose_all("near")
    world.change_leader()
    world.change_leader()  # with an image that was a snapshot
    world.rest()
    assert happened.SettleFailed(3) in world.clients["near"].heard
    assert world.led.image.state.waiting_count == 1


def test_a_settlement_that_did_not_count_is_told_so_also_by_who_led_before() -> None:
    world = settled_too_late()
    world.change_leader()
    world.rest()
    assert happened.SettleFailed(3) in world.clients["near"].heard


def test_an_end_of_an_earlier_hand_out_ends_no_later_one() -> None:
    """Rule 5: a message comes back, and to the same consumer again."""
    world = holding()
    world.settle("near", world.in_hands("near"), Outcome.NACK_REQUEUED)
    world.rest()
    (token,) = world.in_hands("near")
    assert token.ordinal == 1
    asking = world.clients["near"].edge
    asking.ask(m.Settle(asking.pending.next, Outcome.ACKED, [token._replace(ordinal=0)]))
    world.rest()
    assert world.in_hands("near") == [token]
    assert world.led.image.state.held_count == 1


def test_what_edges_of_a_queue_that_is_gone_say_means_nothing_to_the_next() -> None:
    """Rule 22: one of the same name has another id, and terms from 1 on."""
    world = World(("near",))
    world.rest()
    world.publish("near", 2)
    world.link("near")
    world.delete()
    world.rest()
    assert world.led.image.state.next_sequence == 1


def test_what_the_leader_of_a_queue_that_is_gone_said_means_nothing_to_the_next() -> None:
    world = World(("near",))
    world.rest()
    world.publish("near", 2)
    world.arrive()
    world.commit()
    world.delete()
    world.publish("near", 2)
    while not world.wire("near", to_leader=False).is_empty:
        world.arrive(1)
    world.rest()
    assert world.ghost.confirmed == {b"body 2", b"body 3"}


def test_what_one_asks_stays_in_order_from_leader_to_leader() -> None:
    """Rule 24: on the leader's own node, and on the next one's."""
    world = World()
    world.rest()
    for node in ("near", "left"):
        world.publish(node, 2)
        world.arrive()
    world.change_leader(kept=1)
    for node in ("near", "left"):
        world.publish(node, 2)
    world.change_leader()
    world.rest()
    assert len(world.ghost.confirmed) == 8


def test_what_comes_too_soon_is_not_done_before_what_is_in_front_of_it() -> None:
    world = World(("near",))
    world.rest()
    world.publish("near")
    world.publish("near")
    world.wire("near", to_leader=True).links[-1].popleft()
    world.arrive()
    assert not world.led.proposals
    world.rest()
    assert len(world.ghost.confirmed) == 2


def test_a_new_leader_takes_nothing_from_a_consumer_that_is_there() -> None:
    world = holding(3)
    world.change_leader()
    world.rest()
    assert len(world.ghost.hands) == 3
    assert not world.ghost.back


def test_what_was_handed_out_and_never_arrived_comes_from_the_next_leader_unflagged() -> None:
    world = World()
    world.attach("near")
    world.rest()
    world.publish("near", 2)
    world.arrive()
    world.commit()
    world.change_leader()
    world.rest()
    assert len(world.ghost.hands) == 2
    assert not world.ghost.back


def test_a_consumer_whose_answer_comes_in_front_of_the_record_stays() -> None:
    world = World(("near",))
    consumer = world.attach("near")
    world.arrive()
    world.arrive()
    world.link("near")
    world.commit()
    world.commit()  # the session, and the consumer: its answer leaves over the new link,
    world.drop()  # while the record, which is in front of it, was on the old one
    world.publish("near")
    world.rest()
    assert world.clients["near"].consumers == [consumer]
    assert len(world.ghost.hands) == 1


def test_a_leadership_that_begins_anew_in_its_term_is_heard_from_its_first_frame() -> None:
    world = holding(2)
    assert world.clients["near"].edge.received > 1
    world.publish("near")
    world.arrive()
    world.lead_anew()  # the publish is not taken
    world.turn_to_leader("near")
    world.rest()
    assert world.clients["near"].edge.reign == (1, 2)
    assert len(world.ghost.confirmed) == len(world.ghost.hands) == 3


def test_what_the_leadership_before_said_does_not_count_as_of_the_next_one() -> None:
    world = World(("near",))
    world.attach("near")
    world.rest()
    world.change_leader()
    world.arrive()
    for _ in range(2):
        world.publish("near")
        world.arrive()
        world.commit()  # the record of this leadership and deliveries are on their way
    world.lead_anew()
    world.turn_to_leader("near")
    world.rest()
    world.publish("near")
    world.rest()
    assert len(world.ghost.hands) == 3


def test_an_edge_that_has_not_heard_of_it_is_told_when_it_asks() -> None:
    world = holding()
    world.lead_anew()
    world.lose_all("near")  # it would be told without asking, but that is not repeated
    world.publish("near")
    world.arrive()
    (misled,) = world.arrive()
    assert misled == happened.WrongLeader(1, "right", 2)
    world.rest()
    assert world.clients["near"].edge.reign == (1, 2)


def test_an_edge_that_waits_to_be_served_hears_who_leads_without_asking() -> None:
    world = World(("near",))
    world.attach("near")
    world.rest()
    world.lead_anew()
    world.arrive()
    assert world.clients["near"].edge.reign == (1, 2)


def test_a_get_does_not_wait_for_a_message_whose_end_is_under_way() -> None:
    world = World(("near",))
    world.publish("near")
    world.get("near", 1)
    world.rest()
    world.get("near", 1)
    world.settle("near", world.in_hands("near"))
    world.hurry("near")
    world.arrive()
    world.change_leader(kept=1)  # the get is on record, and the settlement is not
    world.rest()
    assert world.led.image.state.live_count == 0


def test_a_consumer_is_given_no_more_than_it_takes_though_a_backlog_waits() -> None:
    for no_ack in (False, True):
        world = World(("near",))
        world.attach("near", credit=3, no_ack=no_ack)
        world.rest()
        world.publish("near", 50)
        world.arrive()
        while world.led.proposals:
            world.commit()  # what was handed out is on its way: nothing of it has arrived
        assert len(world.ghost.handed) == 3


@pytest.mark.parametrize("priority", [-(1 << 63), (1 << 63) - 1])
def test_a_consumer_may_have_any_priority(priority: int) -> None:
    world = World(("near",))
    near = world.clients["near"]
    number = near.attach(credit=1, no_ack=False, prefetch=0, priority=priority)
    world.rest()
    assert near.consumers == [number]


def test_a_silent_node_keeps_what_it_holds_for_a_minute_and_its_session_for_good() -> None:
    world = holding()
    world.cut("near")
    world.now_ms += CONSUMER_DISCONNECTED_MS - 1
    world.tick()
    assert not world.led.proposals
    world.now_ms += 1
    world.tick()
    world.rest()
    assert (world.ghost.hands, world.clients["near"].consumers) == ({}, [])
    assert len(world.led.image.state.sessions) == 2


@pytest.mark.parametrize("timeout_ms", [0, 5_000, 3 * CONSUMER_DISCONNECTED_MS])
def test_a_queue_says_how_long_a_silent_node_keeps_what_it_holds(timeout_ms: int) -> None:
    world = World(spec=quorum(consumer_disconnected_timeout=timeout_ms))
    world.attach("near")
    world.publish("near", 1)
    world.rest()
    world.cut("near")
    if timeout_ms:
        world.now_ms += timeout_ms - 1
        world.tick()
        assert not world.led.proposals
        world.now_ms += 1
    world.tick()
    world.rest()
    assert (world.ghost.hands, world.clients["near"].consumers) == ({}, [])


def test_a_node_that_is_removed_is_told_nothing_more_and_holds_nothing() -> None:
    world = holding()
    world.led.sessions.release([e.NotTaken(1, 1, 1)])
    world.led.sessions.removed("near")
    assert [
        node for node, _frame in world.led.sessions.output(lambda _node: True) if node == "near"
    ] == []
    world.led.turn()
    while world.led.proposals:
        world.commit()
    state = world.led.image.state
    assert (state.held_count, state.returned.count) == (0, 1)
    assert [session.id.node for session in state.sessions.values()] == ["left"]


def test_the_next_leader_takes_from_a_node_what_another_has_since() -> None:
    world = holding()
    world.cut("near")
    world.now_ms += CONSUMER_DISCONNECTED_MS
    world.tick()
    while world.led.proposals:
        world.commit()
    world.attach("left")
    while world.led.proposals:
        world.commit()
    world.change_leader()
    world.rest()
    assert world.in_hands("near") == []
    assert len(world.in_hands("left")) == 1


def test_a_new_life_ends_the_sessions_of_the_old_one_at_once() -> None:
    world = holding()
    world.restart("near", counter=0)
    world.rest()
    state = world.led.image.state
    assert (state.held_count, state.returned.count) == (0, 1)


def test_a_tombstone_says_nothing_of_what_is_pending_and_revokes_what_is_held() -> None:
    world = holding()
    world.cut("near")
    first = world.publish("near", 2)
    events = world.clients["near"].edge.deleted()
    assert events[0] == happened.PublishUndecided(first, 2)
    assert [type(event) for event in events[1:]] == [happened.Revoked, happened.Cancelled]


def test_a_lost_session_nacks_what_is_pending_and_another_begins() -> None:
    world = holding()
    own, near = world.led.own, world.clients["near"].edge
    first = world.publish("near")
    lost = m.LeaderFrame(
        GROUP, *own.reign, own.boot, near.boot, 1, near.opening, 0, [m.SessionLost()]
    )
    events = replies.apply_frame(near, lost)
    assert events[0] == happened.PublishRefused(first, 1)
    assert (near.session, near.pending.next) == (2, 1)


def test_a_queue_without_a_leader_pauses_clients_and_forgets_nothing() -> None:
    world = holding()
    world.cut("near")
    near = world.clients["near"].edge
    world.settle("near", world.in_hands("near"))
    while len(near.pending) < session_client.OPERATIONS_MAX:
        assert not near.is_full
        world.publish("near")
    assert near.is_full
    world.rest()
    assert not near.is_full
