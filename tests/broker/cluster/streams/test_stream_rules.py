"""An example of each rule that streams keep."""

from __future__ import annotations

import pytest

from fluffle.broker.cluster.streams import edge, hearing
from fluffle.broker.cluster.streams import events as happened
from fluffle.broker.cluster.streams import messages as m
from fluffle.broker.cluster.streams.sessions import CONSUMER_DISCONNECTED_MS
from tests.broker.cluster.streams.world import GROUP, World


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


def test_an_edge_that_has_not_heard_of_it_is_told_when_it_asks() -> None:
    world = holding()
    world.lead_anew()
    world.publish("near")
    world.arrive()
    (misled,) = world.arrive()
    assert misled == happened.Misled(1, "right", 2)
    world.rest()
    assert world.clients["near"].edge.reign == (1, 2)


def test_a_get_does_not_wait_for_a_message_whose_end_is_under_way() -> None:
    world = World(("near",))
    world.publish("near")
    world.get("near", 1)
    world.rest()
    world.get("near", 1)
    world.settle("near", world.in_hands("near"))
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


def test_a_new_life_ends_the_sessions_of_the_old_one_at_once() -> None:
    world = holding()
    world.restart("near", counter=0)
    world.rest()
    state = world.led.image.state
    assert (state.held_count, state.returned.count) == (0, 1)


def test_a_tombstone_confirms_what_is_pending_and_revokes_what_is_held() -> None:
    world = holding()
    world.cut("near")
    first = world.publish("near", 2)
    events = world.clients["near"].edge.deleted()
    assert events[0] == happened.Confirmed(first, 2)
    assert [type(event) for event in events[1:]] == [happened.Revoked, happened.Cancelled]


def test_a_lost_session_nacks_what_is_pending_and_another_begins() -> None:
    world = holding()
    own, near = world.led.own, world.clients["near"].edge
    first = world.publish("near")
    lost = m.LeaderFrame(
        GROUP, *own.reign, own.boot, near.boot, 1, near.opening, 0, [m.SessionLost()]
    )
    events = hearing.hear(near, lost)
    assert events[0] == happened.Refused(first, 1)
    assert (near.session, near.pending.next) == (2, 1)


def test_a_queue_without_a_leader_pauses_clients_and_forgets_nothing() -> None:
    world = holding()
    world.cut("near")
    near = world.clients["near"].edge
    world.settle("near", world.in_hands("near"))
    while not near.is_full:
        world.publish("near")
    assert len(near.pending) == edge.OPERATIONS_MAX
    world.rest()
    assert not near.is_full
