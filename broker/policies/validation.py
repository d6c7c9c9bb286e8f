"""Validation of policies: RabbitMQ's rules, with its texts.

It says all that is wrong with the fields of a policy, but of a definition only the first, in the
order of the keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any, NamedTuple

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.patterns.patterns import UnusablePattern, check_steady
from fluffle.broker.policies.policies import APPLIES_TO, EVERYWHERE
from fluffle.broker.queues.arguments import CACHE_SIZE_MAX
from fluffle.broker.queues.settings import (
    DeadLetterStrategy,
    DelayedRetry,
    Overflow,
    is_count,
    is_number,
    is_of,
    is_positive,
    is_text,
    is_truth,
)
from fluffle.protocol import terms


def term(value: Any) -> str:
    """Format a value of JSON as RabbitMQ prints Erlang terms: `~tp`, without line breaks."""
    match value:
        case None:
            return "null"
        case str():
            return terms.term(value.encode(errors="surrogateescape"))
        case list():
            return "[" + ",".join(map(term, value)) + "]"
        case dict():
            items = (f"{term(key)} => {term(item)}" for key, item in sorted(value.items()))
            return "#{" + ",".join(items) + "}"
        case _:
            return terms.term(value)


def proplist(fields: dict[str, Any]) -> str:
    """Format an object at the top, which RabbitMQ has as a list of pairs."""
    return "[" + ",".join(f"{{{term(key)},{term(value)}}}" for key, value in fields.items()) + "]"


SEGMENT_BYTES_MAX = 3_000_000_000
FIELDS = ("priority", "pattern", "apply-to", "definition")
"""Fields in RabbitMQ's order of checks; the last wrong one is reported first."""


class PolicyKey(NamedTuple):
    """Key of a policy definition: its valid values, and how an invalid one is reported."""

    is_valid: Callable[[Any], bool]
    what: str
    hint: str = ""


def between(least: int, most: int) -> Callable[[object], bool]:
    return lambda value: is_number(value) and least <= value <= most  # type: ignore[operator]


def word_of(*words: object) -> Callable[[object], bool]:
    return lambda value: not isinstance(value, bool) and value in words


def is_age(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9]*[1-9][0-9]*[YMDhms]", value) is not None


POLICY_KEYS: Mapping[str, PolicyKey] = {
    "alternate-exchange": PolicyKey(is_text, "alternate exchange name"),
    "consumer-timeout": PolicyKey(is_count, "consumer timeout"),
    "dead-letter-exchange": PolicyKey(is_text, "dead letter exchange name"),
    "dead-letter-routing-key": PolicyKey(is_text, "dead letter routing key"),
    "dead-letter-strategy": PolicyKey(is_of(DeadLetterStrategy), "dead letter strategy"),
    "delayed-retry-max": PolicyKey(is_count, "delayed retry max"),
    "delayed-retry-min": PolicyKey(is_count, "delayed retry min"),
    "delayed-retry-type": PolicyKey(is_of(DelayedRetry), "delayed retry type"),
    "delivery-limit": PolicyKey(is_number, "delivery limit"),
    "expires": PolicyKey(is_positive, "queue expiry"),
    "initial-cluster-size": PolicyKey(is_count, "cluster size"),
    "max-age": PolicyKey(is_age, "max age"),
    "max-in-memory-bytes": PolicyKey(is_count, "maximum memory in bytes"),
    "max-in-memory-length": PolicyKey(is_count, "maximum memory in bytes"),
    "max-length": PolicyKey(is_count, "maximum length"),
    "max-length-bytes": PolicyKey(is_count, "maximum length in bytes"),
    "message-ttl": PolicyKey(is_count, "message TTL"),
    "overflow": PolicyKey(is_of(Overflow), "overflow value"),
    "queue-leader-locator": PolicyKey(
        word_of("client-local", "balanced", "random", "least-leaders"), "queue leader locator value"
    ),
    "queue-master-locator": PolicyKey(
        word_of("client-local", "random", "min-masters"), "master locator"
    ),
    "queue-mode": PolicyKey(word_of("default", "lazy"), "queue-mode value"),
    "queue-version": PolicyKey(word_of(1, 2), "queue-version value"),
    "stream-filter-size-bytes": PolicyKey(
        between(16, 255), "filter size", ". Valid range is 16-255"
    ),
    "stream-max-segment-size-bytes": PolicyKey(between(0, SEGMENT_BYTES_MAX), "segment size"),
    "target-group-size": PolicyKey(is_positive, "qq target count value"),
    "x-cache-size": PolicyKey(between(1, CACHE_SIZE_MAX), "cache size"),
    "x-cache-ttl": PolicyKey(is_positive, "cache TTL"),
    "x-message-deduplication": PolicyKey(is_truth, "message deduplication"),
}
"""Keys that a policy may have."""

OPERATOR_POLICY_KEYS = frozenset(
    {
        "consumer-timeout",
        "delayed-retry-max",
        "delayed-retry-min",
        "delivery-limit",
        "expires",
        "max-in-memory-bytes",
        "max-in-memory-length",
        "max-length",
        "max-length-bytes",
        "message-ttl",
        "overflow",
        "queue-master-locator",
        "queue-version",
        "target-group-size",
    }
)
"""Keys that an operator policy may have."""


def check_policy(name: str, fields: object, keys: frozenset[str] | None = None) -> None:
    """Check the fields of a policy: `pattern`, `definition`, `priority`, `apply-to`.

    `keys` are those it may have in its definition; None: all.  PreconditionFailed.
    """
    if not isinstance(fields, dict):
        raise failed([f"{name} not a list {term(fields)}"])
    found = list(problems(name, fields, POLICY_KEYS.keys() if keys is None else keys))
    strange = {key: value for key, value in sorted(fields.items()) if key not in FIELDS}
    if strange:
        found.append(f"Unrecognised terms {proplist(strange)} in {name}")
    if found:
        raise failed(found[::-1])


def failed(problems: list[str]) -> PreconditionFailed:
    """Return one error for all problems."""
    return PreconditionFailed("\n".join(["Validation failed\n", *problems, ""]))


def problems(name: str, fields: Mapping[str, Any], keys: Container[str]) -> Iterator[str]:
    """Yield what is wrong, a sentence each."""
    for key in FIELDS:
        if key in fields:
            problem = CHECKS[key](fields[key], keys)
            if problem is not None:
                yield problem
        elif key != "apply-to":
            yield f'Key "{key}" not found in {name}'


def priority_problem(value: object, _keys: Container[str]) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return None
    return f"priority should be a number, actually was {term(value)}"


def pattern_problem(value: object, _keys: Container[str]) -> str | None:
    """Describe what is wrong with a pattern; PCRE has other words for the same.

    It is searched for in the names of all queues and exchanges, so it must not take long.
    """
    if not isinstance(value, str):
        return f"pattern should be a binary but was {term(value)}"
    try:
        check_steady(value or EVERYWHERE)
    except UnusablePattern as error:
        return f"pattern should be regular expression but is invalid: {error}"
    return None


def applies_to_problem(value: object, _keys: Container[str]) -> str | None:
    if isinstance(value, str) and value in APPLIES_TO:
        return None
    return (
        f"apply-to '{value}' unrecognised; should be one of: 'queues', 'classic_queues',  "
        "'quorum_queues', 'streams', 'exchanges', or 'all'"
    )


def definition_problem(value: object, keys: Container[str]) -> str | None:
    if not isinstance(value, dict):
        return f"definition must be a dictionary: {term(value)}"
    if not value:
        return "no policy provided"
    for key, item in sorted(value.items()):
        if key in keys and not POLICY_KEYS[key].is_valid(item):
            return f"{term(item)} is not a valid {POLICY_KEYS[key].what}{POLICY_KEYS[key].hint}"
    unknown = {key: item for key, item in sorted(value.items()) if key not in keys}
    return f"{proplist(unknown)} are not recognised policy settings" if unknown else None


CHECKS: Mapping[str, Callable[[Any, Container[str]], str | None]] = {
    "priority": priority_problem,
    "pattern": pattern_problem,
    "apply-to": applies_to_problem,
    "definition": definition_problem,
}
