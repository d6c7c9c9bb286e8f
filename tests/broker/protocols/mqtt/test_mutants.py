"""Mistakes in MQTT sessions, and that each is found: by the model of two clients, by a node that is
killed at each step, or by a test of the one thing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from fluffle.protocol.mqtt.codes import PacketType
from fluffle.protocol.mqtt.packets import Publish
from tests.broker.cluster import test_client_takeover
from tests.broker.protocols.mqtt import (
    test_channel,
    test_due_wills,
    test_noted_runs,
    test_packet_keeper,
    test_retained_messages,
    test_session_adoption,
    test_session_ends,
    test_session_kills,
    test_session_machine,
    test_session_moves,
    test_subscribe_methods,
    test_traffic,
)
from tests.broker.queues.quorum import test_leadership
from tests.mutants.mutant import Mutant
from tests.mutants.registry import FAMILIES
from tests.support.mqtt_edge import MqttEdge
from tests.support.mqtt_model import MqttWorld

SEEDS = range(24)
"""Walks of the model that are enough for each mistake that it finds."""


def walk_in_vain() -> None:
    for seed in SEEDS:
        test_session_machine.walk(seed, 150)


kill_at_each_step = partial(
    test_session_kills.test_the_node_is_killed_once_at_each_step, qos=2, is_lazy=True
)


def kill_and_move_at_each_step() -> None:
    for fault in test_session_moves.FAULTS:
        for is_lazy in (False, True):
            test_session_moves.test_one_fault_at_each_step(fault, qos=2, is_lazy=is_lazy)


begin_anew_elsewhere = (
    test_session_moves.test_who_starts_anew_at_another_node_takes_over_the_session_that_ends
)
record_the_end_late = (
    test_session_moves.test_the_end_of_a_connection_is_not_on_record_of_a_session_that_has_moved
)
adopt = test_session_adoption.test_sessions_of_a_lost_node_are_adopted_when_something_is_due


def retain_twice_in_a_read() -> None:
    client = MqttEdge().connect("a")
    client.send(Publish(b"t", b"old", retain=True), Publish(b"t", b"new", retain=True))
    client.subscribe("t", options=0)
    assert client.messages() == [("t", b"new", 0)]


def watched(will: int) -> MqttWorld:
    """A client with a will, and another that is sent it."""
    world = MqttWorld()
    world.connect("b")
    world.read("b")
    world.subscribe("b", "#", 1)
    world.connect("a", will=will)
    world.run()
    return world


def take_leave() -> None:
    world = watched(will=0)
    world.disconnect("a")
    world.finish()


def come_back() -> None:
    world = watched(will=20)
    world.cut("a")
    world.advance(7)
    world.connect("a")
    world.advance(60)
    world.finish()


def stay_away() -> None:
    world = MqttWorld()
    world.connect("a", expiry_s=100)
    world.cut("a")
    world.advance(107)
    world.finish()


SEEN_BY: dict[str, Callable[[], None]] = {
    **dict.fromkeys(
        ("MQ2", "MQ3", "MQ4", "MQ5", "MQ6", "MQ14", "MQ25", "MQ32", "MQ33"), kill_at_each_step
    ),
    "MQ8": retain_twice_in_a_read,
    "MQ11": partial(
        test_session_machine.test_a_message_is_sent_again_with_the_qos_that_it_had,
        before=2,
        after=1,
        is_killed=False,
    ),
    "MQ22": test_session_machine.test_retained_messages_go_on_once_pubcomp_is_durable,
    "MQ29": come_back,
    "MQ30": take_leave,
    "MQ31": stay_away,
    "MQ36": test_packet_keeper.test_a_change_has_all_that_was_asked_for_before_it,
    "MQ37": test_packet_keeper.test_a_session_taken_elsewhere_keeps_no_other_waiting,
    "MQ39": test_client_takeover.who_came_later_stays,
    "MQ43": test_packet_keeper.begin_anew_while_receipts_wait,
    "MQ41": test_leadership.take_the_place_of_another,
    "MQ42": test_leadership.take_the_place_of_another,
    "MQ40": test_client_takeover.who_came_later_stays,
    "MQ38": test_packet_keeper.test_a_session_taken_elsewhere_keeps_no_other_waiting,
    **dict.fromkeys(("MQ51", "MQ53", "MQ57"), kill_and_move_at_each_step),
    "MQ52": test_session_moves.test_a_retained_message_whose_node_is_lost_is_released_elsewhere,
    "MQ54": test_session_moves.test_a_session_that_has_moved_is_not_remembered_where_it_was,
    "MQ56": record_the_end_late,
    "MQ55": begin_anew_elsewhere,
    "MQ58": test_session_adoption.test_a_session_that_has_moved_meanwhile_is_left_alone,
    "MQ59": adopt,
    "MQ60": adopt,
    "MQ61": partial(test_session_moves.test_a_message_is_answered_once_it_is_retained, qos=2),
    "MQ63": test_session_moves.overtake_before_it_is_answered,
    "MQ73": partial(
        test_due_wills.test_the_end_of_a_connection_says_nothing_of_the_next_one,
        is_heard_late=True,
    ),
    "MQ74": test_due_wills.test_who_connects_twice_at_once_does_not_publish_its_own_will,
    "MQ75": test_due_wills.test_a_will_that_another_node_has_to_publish_stays_on_record,
    "MQ76": partial(test_due_wills.test_a_will_that_cannot_be_published_is_forgotten, user="guest"),
    "MQ77": test_due_wills.test_wills_of_a_lost_node_are_adopted_in_parts,
    "MQ78": partial(test_due_wills.kill_at_each_step, is_back=True),
    "MQ80": test_due_wills.test_a_will_is_on_record_until_it_is_retained,
    "MQ79": test_due_wills.test_a_will_is_on_record_until_its_queues_say_that_they_have_it,
    "MQ64": partial(test_channel.test_a_session_ends_with_its_queue, is_away=True),
    "MQ65": test_channel.test_a_queue_of_qos_0_is_made_anew_when_its_disk_is_lost,
    "MQ62": partial(test_session_moves.test_a_message_is_answered_once_it_is_retained, qos=1),
    "MQ71": test_traffic.test_what_takes_steps_to_convert_has_a_topic_too_long_too,
    "MQ72": partial(
        test_session_moves.test_who_comes_elsewhere_ends_a_session_that_ends_with_its_connection,
        delay_s=0,
    ),
    "MQ66": test_session_ends.test_a_session_that_ends_while_another_client_is_refused_is_deleted,
    **dict.fromkeys(
        ("MQ67", "MQ68"),
        test_subscribe_methods.test_queues_are_kept_as_long_as_their_session_has_asked_for_last,
    ),
    "MQ69": partial(
        test_retained_messages.test_only_the_message_of_a_run_that_is_not_retained_is_refused,
        kind=PacketType.PUBREC,
        qos=2,
    ),
    "MQ70": test_noted_runs.test_only_the_message_that_is_not_retained_is_refused,
}
"""The test of what walks seldom do: in those a node is killed when all is durable."""


@FAMILIES["mqtt"].each()
def test_it_is_found(mutant: Mutant) -> None:
    find = SEEN_BY.get(mutant.number, walk_in_vain)
    with mutant.in_place(), pytest.raises(AssertionError):
        find()


def test_where_nothing_is_wrong_nothing_is_found() -> None:
    for find in dict.fromkeys(SEEN_BY.values()):
        find()
