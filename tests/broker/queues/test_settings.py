"""Settings of queues: arguments and policies, each by itself and together."""

from __future__ import annotations

from typing import Any

import pytest

from fluffle.broker.queues.arguments import DURATION_MS_MAX, DeliveryGuarantee, QueueSpec, QueueType
from fluffle.broker.queues.settings import (
    DEFAULTS,
    EXPIRY_GRACE_MS,
    SETTING_RULES,
    DeadLetterStrategy,
    DelayedRetry,
    Overflow,
    QueueSettings,
    settings_of,
)
from fluffle.protocol.wire import Field, FieldTable
from tests.support.queue_arguments import queue_arguments

CLASSIC, QUORUM = QueueType.CLASSIC, QueueType.QUORUM


def settings(
    arguments: FieldTable, policy: dict[str, Any] | None = None, queue_type: QueueType = CLASSIC
) -> QueueSettings:
    return settings_of(QueueSpec("q", queue_type=queue_type, arguments=arguments), policy or {})


def test_who_says_nothing_has_the_defaults() -> None:
    assert settings({}) is DEFAULTS
    assert (
        settings(queue_arguments(queue_type="quorum", unheard_of=5), {"ha-mode": "all"}) is DEFAULTS
    )
    assert (DEFAULTS.delivery_limit, *DEFAULTS.limits) == (20, None, None, Overflow.DROP_HEAD)


@pytest.mark.parametrize("queue_type", [CLASSIC, QUORUM])
def test_a_policy_says_what_arguments_say(queue_type: QueueType) -> None:
    said: dict[str, Any] = {
        "expires": 60_000,
        "message-ttl": 0,
        "dead-letter-exchange": "",
        "dead-letter-routing-key": "dead",
        "max-length": 100,
        "max-length-bytes": 1 << 40,
        "overflow": "reject-publish",
        "consumer-timeout": 0,
        "delayed-retry-type": "all",
        "delayed-retry-min": 1,
        "delayed-retry-max": 2,
    }
    expected = QueueSettings(
        expires_ms=60_000,
        message_ttl_ms=0,
        dead_letter_exchange="",
        dead_letter_routing_key="dead",
        max_length=100,
        max_length_bytes=1 << 40,
        overflow=Overflow.REJECT_PUBLISH,
        consumer_timeout_ms=0,
        delayed_retry=DelayedRetry.ALL,
        delayed_retry_min_ms=1,
        delayed_retry_max_ms=2,
    )
    arguments = queue_arguments(**{key.replace("-", "_"): value for key, value in said.items()})
    assert settings({}, said, queue_type) == expected
    assert settings(arguments, {}, queue_type) == expected
    assert settings(arguments, said, queue_type) == expected


@pytest.mark.parametrize(
    ("key", "policy", "argument", "expected"),
    [
        ("expires", 5, 7, 5),
        ("expires", 7, 5, 5),
        ("message-ttl", 0, 5, 0),
        ("max-length", 9, 8, 8),
        ("max-length-bytes", 8, 9, 8),
        ("consumer-timeout", 8, 9, 8),
        ("delayed-retry-min", 3, 4, 3),
        ("delayed-retry-max", 4, 3, 3),
        ("dead-letter-exchange", "policy", "argument", "argument"),
        ("delivery-limit", 5, 7, 5),
        ("delivery-limit", 7, 5, 5),
        ("delivery-limit", -1, 7, 7),
        ("delivery-limit", 7, -1, 7),
        ("delivery-limit", -3, -1, None),
        ("delivery-limit", 30, None, 30),
        ("delivery-limit", None, -1, None),
        ("delayed-retry-type", "all", "failed", DelayedRetry.ALL),
        ("max-length", 10**30, None, 2**63 - 1),
    ],
)
def test_who_is_right(key: str, policy: Any, argument: Any, expected: Any) -> None:
    arguments = queue_arguments(**{key.replace("-", "_"): argument})
    in_force = settings(arguments, {} if policy is None else {key: policy}, QUORUM)
    assert expected in {getattr(in_force, name) for name in QueueSettings.__slots__}
    assert in_force == settings({}, {key: -1 if expected is None else expected}, QUORUM)


def test_about_overflow_types_of_queues_differ() -> None:
    arguments, policy = (
        queue_arguments(max_length=5, overflow="reject-publish"),
        {"overflow": "drop-head"},
    )
    classic, quorum = settings(arguments, policy), settings(arguments, policy, QUORUM)
    assert classic.limits == (5, None, Overflow.REJECT_PUBLISH)
    assert quorum.limits == (5, None, Overflow.DROP_HEAD)


def test_quorum_queues_cannot_dead_letter_what_they_refuse() -> None:
    policy = {"overflow": "reject-publish-dlx", "max-length": 5}
    assert settings({}, policy).overflow is Overflow.REJECT_PUBLISH_DLX
    assert settings({}, policy, QUORUM).overflow is Overflow.DROP_HEAD


@pytest.mark.parametrize(
    ("overflow", "expected"),
    [
        (None, DeadLetterStrategy.AT_MOST_ONCE),
        ("drop-head", DeadLetterStrategy.AT_MOST_ONCE),
        ("reject-publish", DeadLetterStrategy.AT_LEAST_ONCE),
    ],
)
def test_nothing_that_is_dropped_is_dead_lettered_at_least_once(
    overflow: str | None, expected: DeadLetterStrategy
) -> None:
    arguments = queue_arguments(dead_letter_strategy="at-least-once", overflow=overflow)
    in_force = settings(arguments, {"dead-letter-exchange": "dlx"}, QUORUM)
    assert in_force.dead_letter_strategy is expected


def test_without_an_exchange_nothing_is_dead_lettered() -> None:
    policy = {"dead-letter-routing-key": "key", "dead-letter-strategy": "at-least-once"}
    assert settings({}, policy | {"overflow": "drop-head"}, QUORUM) == DEFAULTS


@pytest.mark.parametrize("value", [("S", b"any"), ("t", True), ("d", 1.5), ("V", None)])
def test_an_argument_that_cannot_be_is_as_if_it_was_not_there(value: Field) -> None:
    """RabbitMQ 4.3 takes its default for what is no number; 4.0.5 takes that for no limit."""
    assert settings({"x-delivery-limit": value}, queue_type=QUORUM).delivery_limit == 20
    in_force = settings({"x-delayed-retry-type": value, "x-delayed-retry-min": value})
    assert in_force is DEFAULTS


@pytest.mark.parametrize(
    "policy",
    [
        {"max-length": -1},
        {"max-length": "5"},
        {"message-ttl": True},
        {"overflow": "never"},
        {"overflow": []},
        {"dead-letter-exchange": 5},
        {"delivery-limit": 1.5},
    ],
)
def test_a_policy_that_nobody_has_checked_does_no_harm(policy: dict[str, Any]) -> None:
    assert settings({}, policy, QUORUM) == DEFAULTS


@pytest.mark.parametrize(
    ("key", "said_ms"),
    [
        ("expires", DURATION_MS_MAX + 1),
        ("expires", 10**30),
        ("message-ttl", DURATION_MS_MAX + 1),
        ("consumer-timeout", DURATION_MS_MAX + 1),
        ("delayed-retry-min", DURATION_MS_MAX + 1),
        ("delayed-retry-max", 2**63 - 1),
    ],
)
def test_nothing_lasts_longer_than_ten_years(key: str, said_ms: int) -> None:
    """RabbitMQ 4.0.5 takes such policies, as `rabbit_policies:validate_policy` says."""
    in_force = settings({}, {key: said_ms}, QUORUM)
    assert getattr(in_force, SETTING_RULES[key].field) == DURATION_MS_MAX
    if said_ms < 2**63:
        assert settings({f"x-{key}": ("l", said_ms)}, queue_type=QUORUM) == in_force


def test_of_members_it_is_the_larger_number() -> None:
    arguments = queue_arguments(quorum_target_group_size=5)
    for policy, expected in ((3, 5), (7, 7)):
        in_force = settings(arguments, {"target-group-size": policy}, QUORUM)
        assert in_force.target_group_size == expected


def test_names_may_be_no_utf_8() -> None:
    assert settings({"x-dead-letter-exchange": ("S", b"\xff")}).dead_letter_exchange == "\udcff"


@pytest.mark.parametrize("guarantee", DeliveryGuarantee)
def test_a_queue_of_sessions_is_unused_for_longer_than_it_says(
    guarantee: DeliveryGuarantee,
) -> None:
    """The queue needs nothing else for that: rows of earlier versions and imports have no more."""
    spec = QueueSpec("q", guarantee=guarantee, arguments=queue_arguments(expires=1000))
    grace_ms = EXPIRY_GRACE_MS if guarantee.takes_keys else 0
    assert settings_of(spec).expires_ms == 1000 + grace_ms
