"""Publishers that are faster than the consumers of a queue that is led elsewhere."""

from __future__ import annotations

import pytest

from fluffle.broker.core.input_queue import OWED_MESSAGES_MAX, SECONDS_PER_MESSAGE
from fluffle.broker.queues.engine import BEHIND_MESSAGES
from tests.broker.cluster.queues.session_queue_harness import QueueHarness
from tests.support.edge import Client


@pytest.fixture
def harness() -> QueueHarness:
    return QueueHarness()


def behind(harness: QueueHarness) -> Client:
    """A consumer with all that it takes at a time, and a publisher that has put in far more."""
    consumer = harness.node.connect()
    consumer.consume(prefetch=1_000)
    harness.client.publish(*[b"m"] * (BEHIND_MESSAGES + 2_000))
    assert harness.client.transport.is_reading()  # it heard of that only now
    harness.client.publish(*[b"m"] * OWED_MESSAGES_MAX)
    return consumer


def test_a_publisher_waits_until_the_queue_has_handed_out_what_it_put_in(
    harness: QueueHarness,
) -> None:
    consumer = behind(harness)
    assert not harness.client.transport.is_reading()
    consumer.ack(1_000, multiple=True)
    assert not harness.client.transport.is_reading()
    for handed_out in range(2_000, BEHIND_MESSAGES, 1_000):
        consumer.ack(handed_out, multiple=True)
    assert harness.client.transport.is_reading()
    assert (
        harness.queue.blocked_publishers
        == harness.far.led.leadership.queue.blocked_publishers
        == []
    )


def test_a_publisher_waits_for_a_time_in_proportion_at_most(harness: QueueHarness) -> None:
    behind(harness)
    harness.node.advance(OWED_MESSAGES_MAX * SECONDS_PER_MESSAGE)
    assert harness.client.transport.is_reading()


def test_a_publisher_need_not_wait_when_nobody_consumes_any_more(
    harness: QueueHarness,
) -> None:
    consumer = behind(harness)
    consumer.arrivals()
    consumer.close()
    harness.run()
    assert harness.client.transport.is_reading()
    harness.client.publish(b"m")
    assert harness.client.transport.is_reading()


def test_what_waits_at_another_leader_is_nobodys_debt(harness: QueueHarness) -> None:
    behind(harness)
    harness.far.elect()
    harness.run()
    assert not harness.queue.is_behind


def test_whose_session_has_ended_owes_nothing(harness: QueueHarness) -> None:
    behind(harness)
    blocked_publishers = harness.far.led.leadership.queue.blocked_publishers
    assert len(blocked_publishers) == 1
    harness.far.forget_node()
    assert blocked_publishers == []
