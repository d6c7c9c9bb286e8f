"""Headers that a broker reads and adds: how often a message was handed out in vain, how long it
waits before it is routed, and what else it is given.

What the client has put into its headers stays as it is, byte for byte; but as in RabbitMQ, the
fields are in the order of their keys then, and of several with one key only the first is left, or
the broker's.

    x-acquired-count    long    how often it was handed out before; absent if never
    x-delivery-count    long    how often of these that was counted as a failure; absent if never
    x-delay             of any integer type; a float, cut off; a string that is an integer
                                from 1 to 2**32 - 1: it waits so many milliseconds
                                anything else, or not there: it does not wait

What has waited says so by the number below zero, as a `long`, and does not wait again.

Sources: RabbitMQ 4.3 (until 4.2 there is only x-delivery-count, with the first meaning), and its
plugin rabbitmq_delayed_message_exchange 4.2, which has a crash for strings that are no integers,
and does not know integers of one signed octet, which is how some clients send what is less than
128.
"""

import re
from collections.abc import Iterable
from dataclasses import replace

from fluffle.protocol.properties import (
    FLAG_HEADERS,
    Properties,
    decode_properties,
    encode_properties,
    join_properties,
    raw_properties,
    replace_properties,
    split_properties,
)
from fluffle.protocol.wire import Field, FieldTable, encode_table, join_table, split_table

X_DELAY = "x-delay"

DELAY_MS_MAX = (1 << 32) - 1
"""Longest time of an Erlang timer."""

_INTEGERS = frozenset("bBsuIilL")
_FLOATS = frozenset("fd")
_STRINGS = frozenset("Sx")
_INTEGER = re.compile(rb"[+-]?[0-9]{1,20}")
_NAME = X_DELAY.encode()


def counted(contents: Iterable[bytes], acquired: int, failed: int) -> list[bytes]:
    """Canonical contents of messages that were handed out before, all of them equally often."""
    added: FieldTable = {"x-acquired-count": ("l", acquired)}
    if failed:
        added["x-delivery-count"] = ("l", failed)
    known: dict[bytes, bytes] = {}
    changed = []
    for content in contents:
        raw = raw_properties(content)
        if raw not in known:
            known[raw] = with_headers(raw, added)
        changed.append(replace_properties(content, known[raw]))
    return changed


def long_strings(array: list[Field]) -> tuple[str, ...]:
    """Return the long strings in the array of a field, as text: what routing keys in headers
    are."""
    return tuple(
        text.decode(errors="surrogateescape")
        for tag, text in array
        if tag == "S" and isinstance(text, bytes)
    )


def without_bcc(properties: Properties) -> bytes:
    """Return raw properties without the header that no consumer may see."""
    kept = {name: field for name, field in (properties.headers or {}).items() if name != "BCC"}
    return encode_properties(replace(properties, headers=kept))


class PropertyOverlay:
    """Properties that a broker adds to messages: `over` in the place of those of a message, `under`
    where it has none.  Of headers each is one by itself."""

    __slots__ = ("_over", "_over_fields", "_under", "_under_fields")

    def __init__(self, over: Properties, under: Properties) -> None:
        self._over, self._over_fields = _apart(over)
        self._under, self._under_fields = _apart(under)

    def on(self, raw: bytes) -> bytes:
        """Well-formed raw properties with them."""
        values = split_properties(raw)
        fields = split_table(values[FLAG_HEADERS]) if FLAG_HEADERS in values else []
        headers = _in_order([*self._over_fields, *fields, *self._under_fields])
        return join_properties({**self._under, **values, **self._over, FLAG_HEADERS: headers})


def _apart(properties: Properties) -> tuple[dict[int, bytes], list[tuple[bytes, bytes]]]:
    """Values without the headers, and the fields of these."""
    values = split_properties(encode_properties(properties))
    headers = values.pop(FLAG_HEADERS, None)
    return values, split_table(headers) if headers else []


def with_headers(raw: bytes, added: FieldTable) -> bytes:
    """Return well-formed raw properties with more headers, which take the place of those of
    their keys."""
    values = split_properties(raw)
    fields = split_table(encode_table(added))
    if FLAG_HEADERS in values:
        fields += split_table(values[FLAG_HEADERS])
    values[FLAG_HEADERS] = _in_order(fields)
    return join_properties(values)


def _in_order(fields: list[tuple[bytes, bytes]]) -> bytes:
    """Return a table sorted by key, with the first field of each."""
    first = dict(reversed(fields))
    return join_table(first[key] for key in sorted(first))


# Delays


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
