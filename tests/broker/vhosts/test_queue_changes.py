"""What is logged of a queue that does not get what its declare asks for."""

from __future__ import annotations

from typing import Any

import pytest

from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.queues import arguments
from fluffle.broker.queues.arguments import Declaration, QueueSpec, queue_spec
from fluffle.broker.queues.settings import EffectivePolicy, QueueSettings, by_arguments, settings_of
from fluffle.broker.vhosts.queue_changes import DeclareWarnings
from fluffle.protocol.wire import to_table

DROPS = "its overflow is drop-head, and not reject-publish"
WRONG = "its value cannot be used"


def declare(noting: DeclareWarnings, name: str, **asked: Any) -> None:
    noting.new_queue(quorum(name, asked), "v")


def quorum(name: str, asked: dict[str, Any]) -> QueueSpec:
    named = {f"x-{key.replace('_', '-')}": value for key, value in asked.items()}
    table = to_table({"x-queue-type": "quorum", **named})
    return queue_spec(Declaration(name, durable=True, arguments=table), "v")


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, object]]]:
    return [(each.getMessage(), getattr(each, FIELDS_ATTRIBUTE)) for each in caplog.records]


def test_a_feature_that_is_not_in_effect_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arguments, "NOT_IN_EFFECT", {"x-expires", "x-message-ttl"})
    noting = DeclareWarnings(by_arguments)
    declare(noting, "first", expires=1)
    declare(noting, "next", expires=2, message_ttl=3)
    assert logged(caplog) == [
        ("not_yet_in_effect", {"feature": "x-expires", "queue": "first", "vhost": "v"}),
        ("not_yet_in_effect", {"feature": "x-message-ttl", "queue": "next", "vhost": "v"}),
    ]


def test_a_value_that_is_not_checked_and_not_used_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    noting = DeclareWarnings(by_arguments)
    declare(noting, "q", delayed_retry_type="foo", delayed_retry_min="1000")
    declare(noting, "r", delayed_retry_type="foo")
    declare(noting, "s", delayed_retry_type="all", delayed_retry_min=1000)
    assert logged(caplog) == [
        (
            "argument_ignored",
            {"argument": f"x-delayed-retry-{what}", "reason": WRONG, "queue": "q", "vhost": "v"},
        )
        for what in ("type", "min")
    ]


def test_a_delay_of_no_time_is_logged_unless_a_policy_says_how_long(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def by_policy(_vhost: str, spec: Any) -> QueueSettings:
        return settings_of(spec, {"delayed-retry-min": 5})

    for settings in (by_policy, by_arguments):
        declare(DeclareWarnings(settings), "q", delayed_retry_type="all")
        declare(DeclareWarnings(settings), "q", delayed_retry_type="disabled")
    reason = "x-delayed-retry-min is missing, so nothing waits"
    fields = {"argument": "x-delayed-retry-type", "reason": reason, "queue": "q", "vhost": "v"}
    assert logged(caplog) == [("argument_ignored", fields)]


@pytest.mark.parametrize(
    ("asked", "policy", "reason"),
    [
        ({"dead_letter_exchange": "x"}, {}, DROPS),
        ({}, {"dead-letter-exchange": "x"}, DROPS),
        ({"overflow": "reject-publish"}, {}, "it has no dead-letter-exchange"),
        ({"overflow": "reject-publish", "dead_letter_exchange": "x"}, {}, None),
        ({"dead_letter_exchange": "x"}, {"overflow": "reject-publish"}, None),
        ({"dead_letter_exchange": "x", "dead_letter_strategy": "at-most-once"}, {}, None),
    ],
)
def test_who_asks_that_the_dead_arrive_and_does_not_get_it_is_told_once_for_each_queue(
    caplog: pytest.LogCaptureFixture,
    asked: dict[str, Any],
    policy: EffectivePolicy,
    reason: str | None,
) -> None:
    noting = DeclareWarnings(
        lambda _vhost, spec: settings_of(spec, policy), lambda _vhost, _spec: policy
    )
    sure = {"dead_letter_strategy": "at-least-once", **asked}
    for name in ("q", "q", "r"):
        spec = quorum(name, sure)
        assert noting.settings_of("v", spec) == settings_of(spec, policy)
    assert logged(caplog) == [
        ("dead_letters_need_not_arrive", {"reason": reason, "queue": queue, "vhost": "v"})
        for queue in ("q", "r")
        if reason is not None
    ]


def test_a_policy_may_ask_for_it_too(caplog: pytest.LogCaptureFixture) -> None:
    policy = {"dead-letter-strategy": "at-least-once", "dead-letter-exchange": "x"}
    noting = DeclareWarnings(
        lambda _vhost, spec: settings_of(spec, policy), lambda _vhost, _spec: policy
    )
    noting.settings_of("v", quorum("q", {}))
    noting.settings_of("v", QueueSpec("classic"))
    assert logged(caplog) == [
        ("dead_letters_need_not_arrive", {"reason": DROPS, "queue": "q", "vhost": "v"})
    ]
