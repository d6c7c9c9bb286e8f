"""Other settings of a led queue: see `leading` for what is checked all along."""

from __future__ import annotations

import pytest
from msgpack import packb

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.entry_codec import decode, encode_settings, settings_on_record
from fluffle.broker.queues.quorum.facts import Dropped, InvalidEntry, SpecChanged
from fluffle.broker.queues.settings import DeadLetterStrategy, DelayedRetry, Overflow, QueueSettings
from tests.broker.queues.quorum.entry_harness import EntryHarness, bodies
from tests.broker.queues.quorum.leader_harness import quorum


def test_a_specification_that_is_older_is_never_said() -> None:
    harness = EntryHarness()
    new, newer = QueueSettings(max_length=5), QueueSettings(max_length=7)
    harness.led.change_settings(5, new)
    harness.led.change_settings(4, QueueSettings(max_length=4))
    harness.led.publish(harness.session(), 1, *bodies(1))
    harness.settle_down()
    assert harness.led.queue.settings == new
    harness.led.change_settings(5, newer)
    harness.led.change_settings(6, new)
    harness.led.change_settings(7, newer)
    harness.settle_down()
    state = harness.image.state
    assert (state.revision, settings_on_record(state.spec, harness.spec)) == (7, newer)
    assert decode(harness.log[-1]).revision == 5
    assert len(harness.log) == 2, "what is so is not said"


def test_other_settings_hold_for_what_is_decided_behind_them() -> None:
    harness = EntryHarness()
    session = harness.session()
    harness.led.publish(session, 1, *bodies(3))
    harness.settle_down()
    harness.led.change_settings(1, QueueSettings(max_length=2))
    harness.turn()
    kinds = [type(fact) for fact in harness.facts()]
    assert kinds == [SpecChanged, Dropped]
    harness.led.change_settings(2, QueueSettings(max_length=1, overflow=Overflow.REJECT_PUBLISH))
    harness.led.publish(session, 4, *bodies(1))
    harness.settle_down()
    message = [
        message
        for message in harness.take_messages()
        if isinstance(message, m.DoneReply | m.RejectedReply)
    ]
    assert message == [m.DoneReply(1, 3), m.RejectedReply(4, 1)]
    assert harness.image.state.waiting_count == 2


def test_the_next_leader_goes_by_what_is_on_record() -> None:
    harness = EntryHarness(quorum(max_length=9))
    harness.led.change_settings(3, QueueSettings(max_length=2, delivery_limit=None))
    harness.settle_down()
    for _ in range(2):
        harness.change_leader(0, is_elsewhere=True)
        assert harness.led.queue.settings == QueueSettings(max_length=2, delivery_limit=None)
    harness.led.change_settings(2, QueueSettings(max_length=9))
    assert harness.led.queue.settings.max_length == 2, "what it knows is older"


def test_who_is_alone_counts_its_settings_itself() -> None:
    harness = EntryHarness()
    harness.led.change_settings(None, QueueSettings(max_length=2))
    harness.led.change_settings(None, QueueSettings(max_length=2))
    harness.led.change_settings(None, QueueSettings(max_length=3))
    harness.settle_down()
    harness.led.change_settings(None, QueueSettings())
    harness.settle_down()
    state = harness.image.state
    assert (state.revision, settings_on_record(state.spec, harness.spec)) == (3, QueueSettings())


EVERYTHING = QueueSettings(
    expires_ms=1,
    message_ttl_ms=2,
    dead_letter_exchange="dlx \udcff",
    dead_letter_routing_key="",
    dead_letter_strategy=DeadLetterStrategy.AT_LEAST_ONCE,
    max_length=0,
    max_length_bytes=1 << 62,
    overflow=Overflow.REJECT_PUBLISH,
    delivery_limit=None,
    consumer_timeout_ms=3,
    consumer_disconnected_timeout_ms=4,
    delayed_retry=DelayedRetry.FAILED,
    delayed_retry_min_ms=5,
    delayed_retry_max_ms=6,
)


@pytest.mark.parametrize("settings", [EVERYTHING, QueueSettings()])
def test_settings_are_read_as_they_were_written(settings: QueueSettings) -> None:
    assert settings_on_record(encode_settings(settings), quorum(max_length=3)) == settings


def test_what_is_not_on_record_is_what_the_arguments_say() -> None:
    assert settings_on_record(b"", quorum(max_length=3)) == QueueSettings(max_length=3)


def test_a_setting_of_a_later_version_is_left_out() -> None:
    assert settings_on_record(packb({"max_length": 1, "colour": 2}), QueueSpec("q")) == (
        QueueSettings(max_length=1)
    )


@pytest.mark.parametrize("name", ["dead_letter_strategy", "delayed_retry", "overflow"])
def test_a_word_of_a_later_version_is_left_out(name: str) -> None:
    assert settings_on_record(packb({"max_length": 1, name: "later"}), QueueSpec("q")) == (
        QueueSettings(max_length=1)
    )


@pytest.mark.parametrize(
    "encoded",
    [
        b"\xc1",
        packb([1]),
        packb(5),
        packb({"max_length": "5"}),
        packb({"max_length": True}),
        packb({"overflow": 1}),
        packb({"delayed_retry": []}),
    ],
)
def test_what_nobody_wrote_is_refused(encoded: bytes) -> None:
    with pytest.raises(InvalidEntry, match="settings that are none"):
        settings_on_record(encoded, QueueSpec("q"))
