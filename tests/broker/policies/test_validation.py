"""Validation of policies, in RabbitMQ's words: tests/compat asks it for the same."""

from __future__ import annotations

from typing import Any

import pytest

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.policies.validation import OPERATOR_POLICY_KEYS, POLICY_KEYS, check_policy

GOOD: dict[str, Any] = {
    "pattern": "^q",
    "definition": {"max-length": 5},
    "priority": 0,
    "apply-to": "all",
}


def refusal(fields: object, keys: frozenset[str] | None = None) -> list[str]:
    """Problems in the refusal."""
    with pytest.raises(PreconditionFailed) as refused:
        check_policy("p", fields, keys)
    first, empty, *problems, last = refused.value.explanation.split("\n")
    assert (first, empty, last) == ("Validation failed", "", "")
    return problems


def of_definition(definition: object, keys: frozenset[str] | None = None) -> list[str]:
    return refusal(GOOD | {"definition": definition}, keys)


def test_a_policy_may_be_good() -> None:
    check_policy("p", GOOD)
    check_policy("p", GOOD, OPERATOR_POLICY_KEYS)
    check_policy("p", {key: GOOD[key] for key in ("pattern", "definition", "priority")})


@pytest.mark.parametrize(
    ("definition", "text"),
    [
        ({}, "no policy provided"),
        ([], "definition must be a dictionary: []"),
        (5, "definition must be a dictionary: 5"),
        ({"max-length": -1}, "-1 is not a valid maximum length"),
        ({"max-length": "5"}, '<<"5">> is not a valid maximum length'),
        ({"max-length": 1000.0}, "1.0e3 is not a valid maximum length"),
        ({"max-length": {"a": 1}}, '#{<<"a">> => 1} is not a valid maximum length'),
        ({"max-length": ["ä", 1]}, '[<<"ä"/utf8>>,1] is not a valid maximum length'),
        ({"message-ttl": True}, "true is not a valid message TTL"),
        ({"overflow": None}, "null is not a valid overflow value"),
        ({"expires": 0, "max-length": 1.5}, "0 is not a valid queue expiry"),
        ({"foo": 1}, '[{<<"foo">>,1}] are not recognised policy settings'),
        ({"foo": 1, "max-length": -1}, "-1 is not a valid maximum length"),
        (
            {"foo": 1, "bar": {"a": [1, None, True]}},
            '[{<<"bar">>,#{<<"a">> => [1,null,true]}},{<<"foo">>,1}]'
            " are not recognised policy settings",
        ),
        ({"target-group-size": 0}, "0 is not a valid qq target count value"),
        (
            {"stream-filter-size-bytes": 3},
            "3 is not a valid filter size. Valid range is 16-255",
        ),
        ({"max-age": "0D"}, '<<"0D">> is not a valid max age'),
        ({"queue-version": True}, "true is not a valid queue-version value"),
    ],
)
def test_bad_definitions(definition: object, text: str) -> None:
    assert of_definition(definition) == [text]


@pytest.mark.parametrize("key", POLICY_KEYS)
def test_no_key_takes_everything(key: str) -> None:
    [text] = of_definition({key: []})
    assert text.startswith("[] is not a valid ")


@pytest.mark.parametrize("key", sorted(POLICY_KEYS.keys() - OPERATOR_POLICY_KEYS))
def test_operators_may_say_less(key: str) -> None:
    text = f'[{{<<"{key}">>,1}}] are not recognised policy settings'
    assert of_definition({key: 1, "max-length": 5}, OPERATOR_POLICY_KEYS) == [text]


def test_all_fields_that_are_wrong_are_reported() -> None:
    fields = {"pattern": "(", "definition": {}, "priority": "1", "apply-to": "foo", "more": 1}
    strange, definition, applies_to, pattern, priority = refusal(fields)
    assert strange == 'Unrecognised terms [{<<"more">>,1}] in p'
    assert definition == "no policy provided"
    assert applies_to == (
        "apply-to 'foo' unrecognised; should be one of: 'queues', 'classic_queues',  "
        "'quorum_queues', 'streams', 'exchanges', or 'all'"
    )
    assert pattern.startswith("pattern should be regular expression but is invalid: ")
    assert priority == 'priority should be a number, actually was <<"1">>'


def test_a_pattern_that_takes_long_is_refused() -> None:
    """The pattern would be matched with the names of all queues and exchanges."""
    fields = {"pattern": ".*a.{20}b", "definition": {"max-length": 1}, "priority": 0}
    assert refusal(fields) == [
        "pattern should be regular expression but is invalid: cannot use the regular expression "
        "'.*a.{20}b': it has too many ways to match"
    ]
    check_policy("p", {**fields, "pattern": "^(a+)+$"})


def test_what_is_missing_is_reported() -> None:
    assert refusal({}) == [
        'Key "definition" not found in p',
        'Key "pattern" not found in p',
        'Key "priority" not found in p',
    ]
    assert refusal("x") == ['p not a list <<"x">>']
    assert refusal(GOOD | {"pattern": 5}) == ["pattern should be a binary but was 5"]
