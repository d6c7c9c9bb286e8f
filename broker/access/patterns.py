"""Patterns of permissions: RabbitMQ's regular expressions, read by Python.

RabbitMQ searches names, as octets, for a pattern of PCRE that need not match the whole; an empty
one matches the empty name alone.  What cannot be read matches nothing: a right is not given by
mistake.  How others than the commonest are searched for is in `searching`.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TypeAlias

EMPTY = "^$"
SHOWN_MAX = 200

Finds: TypeAlias = Callable[[bytes], bool]
"""Whether an expression matches somewhere in a name."""


class UnusablePattern(ValueError):
    """A regular expression that cannot be read, or not be run in bounded time."""


def in_all(_name: bytes) -> bool:
    """What an expression finds that may match nothing."""
    return True


COMMONEST: Mapping[str, Finds] = {".*": in_all}
"""Most nodes have no other: for these nothing has to be imported."""


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> Finds:
    """What searches names for an expression.  UnusablePattern."""
    if pattern in COMMONEST:
        return COMMONEST[pattern]
    from fluffle.broker.access.pattern_syntax import NotRead  # noqa: PLC0415  slow, and for most
    from fluffle.broker.access.searching import searching  # noqa: PLC0415  nodes there is no need

    try:
        return searching((pattern or EMPTY).encode(errors="surrogateescape"))
    except (re.error, OverflowError, RecursionError, NotRead) as error:
        shown = pattern if len(pattern) <= SHOWN_MAX else f"{pattern[:SHOWN_MAX]}…"
        raise UnusablePattern(f"cannot use the regular expression '{shown}': {error}") from error


def found(pattern: str, name: str) -> bool:
    """Whether `name` holds what `pattern` looks for; never for a pattern that cannot be read."""
    try:
        expression = compiled(pattern)
    except UnusablePattern:
        return False
    return expression(name.encode(errors="surrogateescape"))


def expanded(pattern: str, variables: Mapping[str, str]) -> str:
    """The pattern with each `{name}` replaced by its value, in which nothing is special."""
    for name, value in variables.items():
        pattern = pattern.replace(f"{{{name}}}", re.escape(value))
    return pattern
