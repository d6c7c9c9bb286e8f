"""Arguments of a verb, as its signature names and types them, and checks of what a request gives.

    def add(parts: Parts, *, name: str, tags: list[str] | None = None) -> Row: ...

can be asked with `{"name": "alice"}`, and with neither `{}` nor `{"name": 1}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from inspect import Parameter, signature
from math import isfinite
from types import NoneType, UnionType
from typing import Any, TypeAlias, TypeVar, get_args, get_type_hints

from fluffle.broker.access.limits import UserLimits, VhostLimits
from fluffle.broker.base.errors import SyntaxFailure
from fluffle.broker.queues.settings import is_number

NAME_BYTES_MAX = 255
"""Most bytes of a name, in AMQP and as a key of the store."""

Limits: TypeAlias = dict[str, int | None]
"""Limits by RabbitMQ's names; null is none."""
Entries: TypeAlias = list[dict[str, Any]]


def is_text(value: object) -> bool:
    """A half of a character is only taken where it stands for an octet that was no UTF-8."""
    if not isinstance(value, str):
        return False
    try:
        value.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def is_numbers(value: object) -> bool:
    return isinstance(value, list) and all(map(is_number, value))


def is_finite(value: object) -> bool:
    return is_number(value) or (isinstance(value, float) and isfinite(value))


def is_limits(value: object) -> bool:
    return isinstance(value, dict) and all(
        each is None or is_number(each) for each in value.values()
    )


def is_entries(value: object) -> bool:
    """Check for a list of objects that can be written as JSON, with text that can be encoded."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        return False
    try:
        return is_text(json.dumps(value, ensure_ascii=False))
    except RecursionError:
        return False


KINDS: Mapping[object, tuple[str, Callable[[object], bool]]] = {
    str: ("a string", is_text),
    int: ("a whole number", is_number),
    float: ("a number", is_finite),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    list[str]: (
        "a list of strings",
        lambda value: isinstance(value, list) and all(map(is_text, value)),
    ),
    list[int]: ("a list of whole numbers", is_numbers),
    list[list[int]]: (
        "a list of lists of whole numbers",
        lambda value: isinstance(value, list) and all(map(is_numbers, value)),
    ),
    Limits: ("an object of numbers", is_limits),
    Entries: ("a list of objects", is_entries),
    dict[str, Any]: ("an object", lambda value: isinstance(value, dict)),
    NoneType: ("null", lambda value: value is None),
}
"""Types that an argument can have: in words, and how they are recognized."""


@dataclass(frozen=True, slots=True)
class Argument:
    """The kinds of values that one argument of a verb may have."""

    kinds: tuple[object, ...]
    required: bool

    def check(self, name: str, value: object) -> None:
        """SyntaxFailure unless it is of one of the kinds."""
        if not any(KINDS[kind][1](value) for kind in self.kinds):
            expected = " or ".join(KINDS[kind][0] for kind in self.kinds)
            raise SyntaxFailure(f"'{name}' must be {expected}")


def arguments_of(verb: Callable[..., Any]) -> Mapping[str, Argument]:
    """Arguments of a verb by name, without the positional ones and those already bound.

    KeyError for one of a type not in KINDS.
    """
    hints = get_type_hints(verb.func if isinstance(verb, partial) else verb)
    found = {}
    for parameter in signature(verb).parameters.values():
        if parameter.kind is Parameter.KEYWORD_ONLY:
            hint = hints[parameter.name]
            kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
            assert all(kind in KINDS for kind in kinds), (verb, parameter)
            found[parameter.name] = Argument(kinds, parameter.default is Parameter.empty)
    return found


def check_arguments(taken: Mapping[str, Argument], given: Mapping[str, object]) -> None:
    """SyntaxFailure for the first thing that is wrong."""
    for name, value in given.items():
        if name not in taken:
            raise SyntaxFailure(f"there is no argument '{name}'")
        taken[name].check(name, value)
    for name, argument in taken.items():
        if argument.required and name not in given:
            raise SyntaxFailure(f"'{name}' is missing")


def check_name(what: str, name: str) -> None:
    """SyntaxFailure for what cannot name a user or a virtual host."""
    length = len(name.encode(errors="surrogateescape"))
    if not 0 < length <= NAME_BYTES_MAX:
        raise SyntaxFailure(f"the name of a {what} has 1 to {NAME_BYTES_MAX} bytes")


L = TypeVar("L", UserLimits, VhostLimits)


def changed_limits(limits: L, fields: Mapping[str, str], changes: Limits) -> L:
    """The limits with those that `changes` names; `fields` says which there are."""
    for name in changes:
        if name not in fields:
            raise SyntaxFailure(f"there is no limit '{name}'; there are {', '.join(fields)}")
    return replace(limits, **{fields[name]: value for name, value in changes.items()})
