"""Checks of the values of queue and consumer arguments: one function a kind of argument.

Each is given the argument and the table it stands in, returns the value as the broker keeps it, and
raises `InvalidArgument` with the reason that RabbitMQ gives.
"""

import re
from collections.abc import Callable

from fluffle.protocol.terms import escaped, text
from fluffle.protocol.types import Field, FieldTable, FieldValue
from fluffle.protocol.wire import TYPE_NAMES

DEAD_LETTER_EXCHANGE = "x-dead-letter-exchange"

DURATION_MS_MAX = 315_360_000_000
"""Ten years: RabbitMQ's limit for what becomes a timer."""

CACHE_SIZE_MAX = 100_000
"""x-cache-size: all of it is in each snapshot of a quorum queue."""

MAX_PRIORITY_MAX = 255
"""x-max-priority: a priority is one octet of the wire."""

DEFAULT_DELIVERY_LIMIT = 20
"""RabbitMQ's, of a quorum queue that is declared without one."""

INTEGER_TAGS = frozenset("bBsuIilL")


class InvalidArgument(Exception):
    """Why a value is refused, as the Erlang term that RabbitMQ prints."""


Check = Callable[[Field, FieldTable], object]
"""(the argument, all of them) -> its value; raises `InvalidArgument`."""


def integer(argument: Field, _table: FieldTable) -> int:
    tag, value = argument
    if not isinstance(value, int) or tag not in INTEGER_TAGS:
        raise InvalidArgument(f'"expected integer, got {TYPE_NAMES[tag]}"')
    return value


def non_negative(argument: Field, table: FieldTable) -> int:
    value = integer(argument, table)
    if value < 0:
        raise InvalidArgument(f"{{value_negative,{value}}}")
    return value


def positive(argument: Field, table: FieldTable) -> int:
    value = non_negative(argument, table)
    if value == 0:
        raise InvalidArgument("{value_zero,0}")
    return value


def duration(argument: Field, table: FieldTable) -> int:
    value = non_negative(argument, table)
    if value > DURATION_MS_MAX:
        raise InvalidArgument(f"{{value_too_large,{value}}}")
    return value


def positive_duration(argument: Field, table: FieldTable) -> int:
    positive(argument, table)
    return duration(argument, table)


def cache_size(argument: Field, table: FieldTable) -> int:
    value = positive(argument, table)
    if value > CACHE_SIZE_MAX:
        raise InvalidArgument(f"{{value_too_large,{value}}}")
    return value


def max_priority(argument: Field, table: FieldTable) -> int:
    value = non_negative(argument, table)
    if value > MAX_PRIORITY_MAX:
        raise InvalidArgument(f"{{max_value_exceeded,{value}}}")
    return value


def queue_version(argument: Field, table: FieldTable) -> int:
    value = non_negative(argument, table)
    if value != 2:
        raise InvalidArgument(f"\"unsupported queue version '{value}'\"")
    return value


def boolean(argument: Field, _table: FieldTable) -> bool:
    tag, value = argument
    if not isinstance(value, bool):
        raise InvalidArgument(f"{{unacceptable_type,{TYPE_NAMES[tag]}}}")
    return value


def string(argument: Field, _table: FieldTable) -> str:
    tag, value = argument
    if not isinstance(value, bytes) or tag != "S":
        raise InvalidArgument(f"{{unacceptable_type,{TYPE_NAMES[tag]}}}")
    return value.decode(errors="surrogateescape")


def dead_letter_routing_key(argument: Field, table: FieldTable) -> str:
    value = string(argument, table)
    if DEAD_LETTER_EXCHANGE not in table:
        raise InvalidArgument("routing_key_but_no_dlx_defined")
    return value


def max_age(argument: Field, table: FieldTable) -> str:
    value = string(argument, table)
    if re.fullmatch("0*[1-9][0-9]*[YMDhms]", value) is None:
        raise InvalidArgument("invalid_max_age")
    return value


def one_of(*words: str, refusal: str) -> Check:
    """One of `words`; a `{}` in the refusal stands for the word that came."""

    def check(argument: Field, table: FieldTable) -> str:
        value = string(argument, table)
        if value not in words:
            raise InvalidArgument(refusal.format(escaped(text(argument[1]))))
        return value

    return check


def anything(argument: Field, _table: FieldTable) -> FieldValue:
    return argument[1]
