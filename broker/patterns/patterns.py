"""Patterns of permissions: RabbitMQ's regular expressions, read by Python.

RabbitMQ searches names, as octets, for a pattern of PCRE that need not match the whole; an empty
one matches the empty name alone.  What cannot be read matches nothing: a right is not given by
mistake.  How others than the commonest are searched for is in `search`.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple, TypeAlias

EMPTY = "^$"
SHOWN_MAX = 200

Finds: TypeAlias = Callable[[bytes], bool]
"""Function that says if an expression matches somewhere in a name."""


class UnusablePattern(ValueError):
    """A regular expression that cannot be read, or not be run in bounded time."""


class NameSearch(NamedTuple):
    """How names are searched for an expression."""

    finds: Finds
    is_steady: bool
    """True if it takes a tenth of a millisecond, or little more, whatever the name."""


def in_all(_name: bytes) -> bool:
    """Match every name."""
    return True


COMMONEST: Mapping[str, NameSearch] = {".*": NameSearch(in_all, is_steady=True)}
"""Most nodes have no other: for these nothing has to be imported."""


@lru_cache(maxsize=1024)
def searching_for(pattern: str) -> NameSearch:
    """Return the search for an expression of rights or policies.  UnusablePattern."""
    return read(pattern)


def read(pattern: str) -> NameSearch:
    """Parse an expression and choose its search.  UnusablePattern."""
    if pattern in COMMONEST:
        return COMMONEST[pattern]
    from fluffle.broker.patterns.search import searching  # noqa: PLC0415  slow, and most nodes
    from fluffle.broker.patterns.syntax import UnsupportedSyntax  # noqa: PLC0415  need none of it

    try:
        finds, is_steady = searching((pattern or EMPTY).encode(errors="surrogateescape"))
        return NameSearch(finds, is_steady=is_steady)
    except (re.error, OverflowError, RecursionError, UnsupportedSyntax) as error:
        raise unusable(pattern, str(error)) from error


def compiled(pattern: str) -> Finds:
    """Return the function that searches names for an expression.  UnusablePattern."""
    return searching_for(pattern).finds


def compiled_once(pattern: str) -> Finds:
    """Return the search as `compiled` does, and do not remember it: a megabyte for some, and any
    user may ask for thousands.  UnusablePattern."""
    return read(pattern).finds


def check_steady(pattern: str) -> None:
    """UnusablePattern, too, for what is not to be searched for in thousands of names."""
    if not searching_for(pattern).is_steady:
        raise unusable(pattern, "it has too many ways to match")


def unusable(pattern: str, reason: str) -> UnusablePattern:
    """Return the error for a pattern that cannot be used."""
    shown = pattern if len(pattern) <= SHOWN_MAX else f"{pattern[:SHOWN_MAX]}…"
    return UnusablePattern(f"cannot use the regular expression '{shown}': {reason}")


def found(pattern: str, name: str) -> bool:
    """True if `name` holds what `pattern` looks for; never for a pattern that cannot be read."""
    try:
        expression = compiled(pattern)
    except UnusablePattern:
        return False
    return expression(name.encode(errors="surrogateescape"))


def expanded(pattern: str, variables: Mapping[str, str]) -> str:
    """Return the pattern with each `{name}` replaced by its value, in which nothing is special."""
    for name, value in variables.items():
        pattern = pattern.replace(f"{{{name}}}", re.escape(value))
    return pattern
