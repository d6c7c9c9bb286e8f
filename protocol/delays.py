"""Delay of a message before it is routed: its header x-delay, in milliseconds.

    x-delay     of any integer type; a float, cut off; a string that is an integer
                from 1 to 2**32 - 1: it waits so long
                anything else, or not there: it does not wait

What has waited says so by the number below zero, as a `long`, and does not wait again.
Source: RabbitMQ's plugin rabbitmq_delayed_message_exchange 4.2, which has a crash for strings that
are no integers, and does not know integers of one signed octet, which is how some clients send what
is less than 128.
"""

import re

from fluffle.protocol.headers import with_headers
from fluffle.protocol.properties import decode_properties
from fluffle.protocol.types import FieldTable

X_DELAY = "x-delay"
DELAY_MS_MAX = (1 << 32) - 1
"""For how long a timer of Erlang can be set."""

_INTEGERS = frozenset("bBsuIilL")
_FLOATS = frozenset("fd")
_STRINGS = frozenset("Sx")
_INTEGER = re.compile(rb"[+-]?[0-9]{1,20}")
_NAME = X_DELAY.encode()


def delay_of(headers: FieldTable | None) -> int:
    """Return how many milliseconds a message with these headers is to wait; 0 for none."""
    tag, value = (headers or {}).get(X_DELAY, ("V", None))
    delay_ms = 0
    if (
        (tag in _INTEGERS and isinstance(value, int))
        or (tag in _FLOATS and isinstance(value, float))
        or (tag in _STRINGS and isinstance(value, bytes) and _INTEGER.fullmatch(value))
    ):
        delay_ms = int(value)
    return delay_ms if 0 < delay_ms <= DELAY_MS_MAX else 0


def delay_in(raw: bytes) -> int:
    """Return the delay in well-formed raw properties."""
    return delay_of(decode_properties(raw).headers) if _NAME in raw else 0


def waited(raw: bytes) -> bytes:
    """Return raw properties of a message that has waited for its time."""
    delay_ms = delay_in(raw)
    return with_headers(raw, {X_DELAY: ("l", -delay_ms)}) if delay_ms else raw
