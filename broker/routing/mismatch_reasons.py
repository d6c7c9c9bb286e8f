"""Why a binding does not match a message, in words: one function an exchange type.

Nobody routes by these; a test holds them against the matchers: there is a reason exactly where a
binding does not match.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from fluffle.broker.routing.bindings import Binding
from fluffle.broker.routing.headers import X_MATCH, HeadersCondition, given_by
from fluffle.broker.routing.jms_selector import FALSE, TRUE
from fluffle.broker.routing.jms_topic import JMS_TOPIC, headers_of, selector_of
from fluffle.broker.routing.topic import ANY_WORDS, ONE_WORD, words_of
from fluffle.protocol.properties import Properties
from fluffle.protocol.terms import term
from fluffle.protocol.types import Field

PLACES_MAX = 3
"""So many are named where something should have been."""

Reason: TypeAlias = Callable[[Binding, Sequence[str], Properties | None], str]
"""(the binding, routing keys, properties); empty if it matches."""


def of_direct(binding: Binding, routing_keys: Sequence[str], _properties: object) -> str:
    if binding.routing_key in routing_keys:
        return ""
    return f"the routing key is {' or '.join(map(repr, routing_keys))}"


def of_fanout(_binding: Binding, _routing_keys: object, _properties: object) -> str:
    return ""


def of_topic(binding: Binding, routing_keys: Sequence[str], _properties: object) -> str:
    reasons = [of_pattern(binding.routing_key, key) for key in routing_keys]
    if not all(reasons):
        return ""
    if len(reasons) == 1:
        return reasons[0]
    pairs = zip(routing_keys, reasons, strict=True)
    return "; ".join(f"with {key!r}, {reason}" for key, reason in pairs)


def of_pattern(pattern: str, key: str) -> str:
    """Where a routing key leaves a binding key of a topic exchange."""
    words = words_of(key)
    reached = {0}
    """How many words of the key can stand for what has been seen of the pattern."""
    for wanted in words_of(pattern):
        if wanted == ANY_WORDS:
            reached = set(range(min(reached), len(words) + 1))
            continue
        behind = {at + 1 for at in reached if at < len(words) and wanted in (ONE_WORD, words[at])}
        if not behind:
            return f"where {wanted!r} should be there is {places(words, reached)}"
        reached = behind
    if len(words) in reached:
        return ""
    return f"{'.'.join(words[max(reached) :])!r} is left over at the end"


def places(words: Sequence[str], reached: set[int]) -> str:
    """What stands at some places of a key."""
    found = [repr(words[at]) for at in sorted(reached) if at < len(words)]
    if not found:
        return "the end of the key"
    shown = [*dict.fromkeys(found)][:PLACES_MAX]
    return " or ".join(shown) + (" and so on" if len(shown) < len({*found}) else "")


def of_headers(binding: Binding, _routing_keys: object, properties: Properties | None) -> str:
    condition, given = HeadersCondition(binding.arguments), given_by(properties)
    if condition.holds(given):
        return ""
    headers = (properties and properties.headers) or {}
    lacking = [
        of_header(name, binding.arguments[name], headers) for name in condition.lacking(given)
    ]
    return "; ".join(lacking) or f"{X_MATCH} is any, and there is nothing to match"


def of_header(name: str, wanted: Field, headers: Mapping[str, Field]) -> str:
    if name not in headers:
        return f"header {name!r} is absent"
    return f"header {name!r} is {shown(headers[name])}, not {shown(wanted)}"


def shown(field: Field) -> str:
    """A value as people write it."""
    _tag, value = field
    return repr(value.decode(errors="replace")) if isinstance(value, bytes) else term(value)


def of_selector(binding: Binding, _routing_keys: object, properties: Properties | None) -> str:
    found = selector_of(binding)(headers_of(properties))
    if found == TRUE:
        return ""
    return "the selector is false" if found == FALSE else "the selector is neither true nor false"


def of_chance(_binding: Binding, _routing_keys: object, _properties: object) -> str:
    return "another one was drawn"


def of_local_chance(_binding: Binding, _routing_keys: object, _properties: object) -> str:
    return "another one was drawn, or its queue is not on this node"


def of_hash(_binding: Binding, _routing_keys: object, _properties: object) -> str:
    return "what is hashed leads to another one"


REASONS: Mapping[str, Reason] = {
    "direct": of_direct,
    "fanout": of_fanout,
    "topic": of_topic,
    "headers": of_headers,
    JMS_TOPIC: of_selector,
    "x-recent-history": of_fanout,
    "x-random": of_chance,
    "x-local-random": of_local_chance,
    "x-consistent-hash": of_hash,
    "x-modulus-hash": of_hash,
}
"""By exchange type."""
