"""Policies in force, alone and together with arguments, compared with a simple model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.policies import policies
from fluffle.broker.policies.policies import (
    APPLIES_TO,
    NO_EFFECTIVE_POLICIES,
    Policies,
    Policy,
    PolicyTarget,
    merged,
    read_policy,
)
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.settings import settings_of
from fluffle.protocol.wire import to_table

NUMBERS = st.integers(0, 5)
NUMERIC = ["expires", "message-ttl", "max-length", "max-length-bytes"]
DEFINITIONS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(NUMERIC, NUMBERS),
        "delivery-limit": st.integers(-2, 5),
        "overflow": st.sampled_from(["drop-head", "reject-publish"]),
        "dead-letter-exchange": st.sampled_from(["a", "b"]),
    },
)


def policy(
    name: str,
    pattern: str = "",
    definition: dict[str, Any] | None = None,
    priority: float = 0,
    applies_to: str = "all",
) -> Policy:
    fields = {
        "pattern": pattern,
        "definition": definition or {"max-length": 1},
        "priority": priority,
        "apply-to": applies_to,
    }
    return read_policy(name, fields)


def name_for(policies: list[Policy], target: PolicyTarget, name: str) -> str | None:
    """Name of the policy in force."""
    kept = Policies().of("/")
    for each in policies:
        kept.put(each)
    found = kept.in_force(target, name).policy
    return None if found is None else found.name


def queue(queue_type: QueueType = QueueType.CLASSIC) -> QueueSpec:
    return QueueSpec("q", queue_type=queue_type)


def test_the_highest_priority_counts_alone() -> None:
    policies = [
        policy("low", "^q"),
        policy("high", "^q", priority=2),
        policy("other", "^x", None, 9),
    ]
    assert name_for(policies, PolicyTarget.CLASSIC, "q1") == "high"
    assert name_for(policies, PolicyTarget.CLASSIC, "x") == "other"
    assert name_for(policies, PolicyTarget.CLASSIC, "y") is None


def test_of_equal_ones_it_is_the_first_by_name_whichever_came_first() -> None:
    two = [policy("b"), policy("a"), policy("c", priority=-1)]
    assert name_for(two, PolicyTarget.QUORUM, "q") == "a"
    assert name_for(two[::-1], PolicyTarget.QUORUM, "q") == "a"


def test_priorities_may_be_fractions() -> None:
    assert (
        name_for([policy("a", priority=1), policy("b", priority=1.5)], PolicyTarget.CLASSIC, "q")
        == "b"
    )


@pytest.mark.parametrize("applies_to", APPLIES_TO)
def test_what_a_policy_applies_to(applies_to: str) -> None:
    one = [policy("p", applies_to=applies_to)]
    found = {target for target in PolicyTarget if name_for(one, target, "q")}
    assert found == APPLIES_TO[applies_to]


@pytest.mark.parametrize(
    ("key", "targets"),
    [
        ("delivery-limit", {PolicyTarget.QUORUM, PolicyTarget.STREAM}),
        ("target-group-size", {PolicyTarget.QUORUM, PolicyTarget.STREAM}),
        ("queue-mode", {PolicyTarget.CLASSIC, PolicyTarget.STREAM}),
        ("max-age", {PolicyTarget.STREAM}),
        ("expires", {PolicyTarget.CLASSIC, PolicyTarget.QUORUM, PolicyTarget.STREAM}),
    ],
)
def test_one_key_that_a_type_does_not_know_is_enough(key: str, targets: set[PolicyTarget]) -> None:
    one = policy("p", definition={"max-length": 1, key: 1}, applies_to="queues", priority=1)
    other = policy("other", applies_to="queues")
    for target in (PolicyTarget.CLASSIC, PolicyTarget.QUORUM, PolicyTarget.STREAM):
        expected = "p" if target in targets else "other"
        assert name_for([one, other], target, "q") == expected


@pytest.mark.parametrize(
    ("pattern", "name", "is_found"),
    [
        ("", "any", True),
        ("", "", True),
        ("^$", "any", False),
        ("b", "abc", True),
        (r"^(?!amq\.).*", "amq.direct", False),
        (r"^(?!amq\.).*", "mine", True),
        ("^.$", "\udcff", True),
        ("^ö$", "ö", True),
    ],
)
def test_names_are_searched_as_octets(pattern: str, name: str, is_found: bool) -> None:
    assert (name_for([policy("p", pattern)], PolicyTarget.CLASSIC, name) == "p") is is_found


def test_no_pattern_holds_anybody_up() -> None:
    hostile = policy("p", "^(a+)+$")
    assert name_for([hostile], PolicyTarget.CLASSIC, "a" * 254 + "b") is None
    assert name_for([hostile], PolicyTarget.CLASSIC, "a" * 255) == "p"


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        {},
        {"pattern": "(", "definition": {"max-length": 1}},
        {"pattern": "", "definition": {"max-length": 1}, "apply-to": "nothing"},
    ],
)
def test_what_nobody_has_checked_applies_to_nothing(fields: object) -> None:
    kept = Policies()
    kept.of("/").put(read_policy("p", fields))
    assert kept.for_queue("/", queue()).definition in (None, {})


def test_a_name_is_searched_once_until_policies_change(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[bytes] = []

    def finds(name: bytes) -> bool:
        searched.append(name)
        return True

    kept = Policies()
    kept.of("/").put(replace(policy("p", "^q"), finds=finds))
    first = kept.for_queue("/", queue())
    assert kept.for_queue("/", queue()) is first
    assert kept.for_exchange("/", "q") == first
    assert searched == [b"q", b"q"], "once as a queue, once as an exchange"
    kept.of("/").put_operators(policy("o", "^x"))
    assert kept.for_queue("/", queue()) == first
    assert len(searched) == 3
    monkeypatch.setattr(policies, "REMEMBERED_MAX", 1)
    kept.for_exchange("/", "q")
    kept.for_queue("/", queue())
    assert len(searched) == 5, "there is no room for both"


def test_a_policy_comes_changes_and_goes() -> None:
    kept = Policies()
    assert kept.for_queue("/", queue()) == NO_EFFECTIVE_POLICIES
    kept.of("/").put(policy("p", definition={"max-length": 9}))
    kept.of("/").put_operators(policy("o", definition={"max-length": 5}))
    assert kept.settings_of("/", queue()).max_length == 5
    assert kept.settings_of("other", queue()).max_length is None
    kept.of("/").put(policy("p", definition={"max-length": 3}))
    assert kept.settings_of("/", queue()).max_length == 3
    kept.of("/").remove("p")
    assert kept.settings_of("/", queue()).max_length == 5
    kept.of("/").remove_operators("o")
    assert kept.settings_of("/", queue()).max_length is None


def test_the_alternate_exchange_of_a_policy() -> None:
    kept = Policies()
    kept.of("/").put(policy("p", definition={"alternate-exchange": "x"}))
    assert (kept.alternate_of("/", "e"), kept.alternate_of("v", "e")) == ("x", None)
    kept.of("/").put(policy("p", definition={"alternate-exchange": 5}))
    assert kept.alternate_of("/", "e") is None


def model_merged(key: str, policy: Any, operator: Any) -> Any:
    """The rule as RabbitMQ's documents have it."""
    if policy is None or operator is None:
        return operator if policy is None else policy
    if key == "delivery-limit" and (policy < 0 or operator < 0):
        return max(policy, operator)
    return min(policy, operator) if key in (*NUMERIC, "delivery-limit") else operator


def model_resolved(key: str, said: Any, asked: Any, queue_type: QueueType) -> Any:
    """Expected value, if a policy and an argument are given."""
    if said is None or asked is None:
        return asked if said is None else said
    if key == "delivery-limit" and (said < 0 or asked < 0):
        return max(said, asked)
    if key in (*NUMERIC, "delivery-limit"):
        return min(said, asked)
    return said if key == "overflow" and queue_type is QueueType.QUORUM else asked


FIELDS = {
    "expires": "expires_ms",
    "message-ttl": "message_ttl_ms",
    "dead-letter-exchange": "dead_letter_exchange",
}


@given(DEFINITIONS, DEFINITIONS, DEFINITIONS, st.sampled_from([*QueueType][:2]))
def test_all_three_have_a_say(
    of_user: dict[str, Any],
    of_operator: dict[str, Any],
    arguments: dict[str, Any],
    queue_type: QueueType,
) -> None:
    together = merged(of_user, of_operator)
    keys = of_user.keys() | of_operator.keys()
    assert list(together) == sorted(keys)
    assert together == {
        key: model_merged(key, of_user.get(key), of_operator.get(key)) for key in keys
    }
    table = to_table({f"x-{key}": value for key, value in arguments.items()})
    in_force = settings_of(QueueSpec("q", queue_type=queue_type, arguments=table), together)
    for key in keys | arguments.keys():
        expected = model_resolved(key, together.get(key), arguments.get(key), queue_type)
        if key == "delivery-limit" and expected < 0:
            expected = None
        assert getattr(in_force, FIELDS.get(key, key.replace("-", "_"))) == expected


def test_a_queue_for_qos_0_of_mqtt_has_no_policy() -> None:
    kept = Policies()
    kept.of("/").put(policy("p", "^q"))
    assert kept.for_queue("/", queue()).policy is not None
    assert kept.for_queue("/", queue(QueueType.MQTT_QOS0)) == NO_EFFECTIVE_POLICIES
