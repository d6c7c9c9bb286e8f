"""Publishers that are faster than the consumers of a queue that is led elsewhere."""

from __future__ import annotations

import pytest

from fluffle.broker.core.read_control import OWED_MESSAGES_MAX, SECONDS_PER_MESSAGE
from fluffle.broker.queues.engine import BEHIND_MESSAGES
from tests.broker.cluster.queues.far import Rig
from tests.support.edge import Client


@pytest.fixture
def rig() -> Rig:
    return Rig()


def behind(rig: Rig) -> Client:
    """A consumer with all that it takes at a time, and a publisher that has put in far more."""
    consumer = rig.node.connect()
    consumer.consume(prefetch=1_000)
    rig.client.publish(*[b"m"] * (BEHIND_MESSAGES + 2_000))
    assert rig.client.transport.is_reading()  # it was told only now
    rig.client.publish(*[b"m"] * OWED_MESSAGES_MAX)
    return consumer


def test_a_publisher_waits_until_the_queue_has_handed_out_what_it_put_in(rig: Rig) -> None:
    consumer = behind(rig)
    assert not rig.client.transport.is_reading()
    consumer.ack(1_000, multiple=True)
    assert not rig.client.transport.is_reading()
    for handed_out in range(2_000, BEHIND_MESSAGES, 1_000):
        consumer.ack(handed_out, multiple=True)
    assert rig.client.transport.is_reading()
    assert rig.queue.blocked_publishers == rig.far.led.leadership.queue.blocked_publishers == []


def test_a_publisher_waits_for_a_time_in_proportion_at_most(rig: Rig) -> None:
    behind(rig)
    rig.node.advance(OWED_MESSAGES_MAX * SECONDS_PER_MESSAGE)
    assert rig.client.transport.is_reading()


def test_a_publisher_need_not_wait_when_nobody_consumes_any_more(rig: Rig) -> None:
    consumer = behind(rig)
    consumer.arrivals()
    consumer.close()
    rig.run()
    assert rig.client.transport.is_reading()
    rig.client.publish(b"m")
    assert rig.client.transport.is_reading()


def test_what_waits_at_another_leader_is_nobodys_debt(rig: Rig) -> None:
    behind(rig)
    rig.far.elect()
    rig.run()
    assert not rig.queue.is_behind


def test_whose_session_has_ended_owes_nothing(rig: Rig) -> None:
    behind(rig)
    blocked_publishers = rig.far.led.leadership.queue.blocked_publishers
    assert len(blocked_publishers) == 1
    rig.far.forget_node()
    assert blocked_publishers == []
