"""Streams between edges and leaders, from end to end: an example of each rule."""

from __future__ import annotations

from tests.broker.cluster.queue_sessions.session_harness import SessionHarness


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
