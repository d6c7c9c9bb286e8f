"""Headers that a broker reads and adds: how often a message was handed out in vain, how long it
waits before it is routed, how it died, and what else it is given.

What the client has put into its headers stays as it is, byte for byte; but as in RabbitMQ, the
fields are in the order of their keys then, and of several with one key only the first is left, or
the broker's.

    x-acquired-count    long    how often it was handed out before; absent if never
    x-delivery-count    long    how often of these that was counted as a failure; absent if never
    x-delay             of any integer type; a float, cut off; a string that is an integer
                                from 1 to 2**32 - 1: it waits so many milliseconds
                                anything else, or not there: it does not wait

What has waited says so by the number below zero, as a `long`, and does not wait again.

A message that has died has x-death and the six headers that go with it:

    x-death                 array of tables, the latest death first: one for each queue and reason
    x-first-death-reason, -queue, -exchange     long strings, of the first death ever
    x-last-death-reason, -queue, -exchange      of the latest

A table of x-death has

    original-expiration  longstr     of the message, if it had one; its property is gone then
    count                long        deaths in this queue for this reason; what follows is of the
    reason               longstr     first of these
    queue                longstr
    time                 timestamp
    exchange             longstr     where the message was published before
    routing-keys         array       under which keys: CC included, BCC not

What a client has written under these names means nothing, and is gone with the first death.

Sources: RabbitMQ 4.3 (until 4.2 there is only x-delivery-count, with the first meaning), and its
plugin rabbitmq_delayed_message_exchange 4.2, which has a crash for strings that are no integers,
and does not know integers of one signed octet, which is how some clients send what is less than
128.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import StrEnum
from typing import NamedTuple, TypeAlias, cast

from fluffle.protocol.properties import (
    FLAG_EXPIRATION,
    FLAG_HEADERS,
    Properties,
    decode_properties,
    encode_properties,
    join_properties,
    raw_properties,
    replace_properties,
    split_properties,
)
from fluffle.protocol.wire import (
    Field,
    FieldTable,
    encode_table,
    join_table,
    read_table,
    split_table,
    to_field,
    to_table,
)

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


X_DEATH = "x-death"

Deaths: TypeAlias = list[FieldTable]
"""The tables of x-death."""


class DeathReason(StrEnum):
    """Reason of a message's death, as its headers say it."""

    REJECTED = "rejected"
    EXPIRED = "expired"
    MAXLEN = "maxlen"
    DELIVERY_LIMIT = "delivery_limit"


class Death(NamedTuple):
    """Death of a message: queue, reason, time, and where it was published."""

    queue: str
    reason: DeathReason
    time_s: int
    exchange: str
    """Where it was published."""
    routing_keys: tuple[str, ...]


def deaths_of(headers: FieldTable | None) -> Deaths:
    """Return what x-death says, where it is known that a broker has written it."""
    _tag, tables = (headers or {})[X_DEATH]
    return [cast(FieldTable, table) for _tag, table in cast(list[Field], tables)]


def died(raw: bytes, death: Death, *, again: bool) -> tuple[bytes, Deaths]:
    """Return raw properties of a message that has died, and what its x-death says now.

    `again`: it has died before, and its headers are those of a broker.
    """
    values = split_properties(raw)
    headers: FieldTable = {}
    if again:
        headers, _end = read_table(values[FLAG_HEADERS], 0)
    expiration = values.pop(FLAG_EXPIRATION, b"")
    deaths = list(_recorded(deaths_of(headers) if again else [], death, expiration[1:]))
    last = {"reason": death.reason.value, "queue": death.queue, "exchange": death.exchange}
    added = to_table({f"x-last-death-{name}": text for name, text in last.items()})
    if not again:
        added |= to_table({f"x-first-death-{name}": text for name, text in last.items()})
    added[X_DEATH] = ("A", [("F", table) for table in deaths])
    return with_headers(join_properties(values), added), deaths


def queues_of(deaths: Deaths) -> list[str]:
    """Return the queues of these deaths, the latest first."""
    return [cast(bytes, table["queue"][1]).decode(errors="surrogateescape") for table in deaths]


def is_cycle(deaths: Deaths, queue: str) -> bool:
    """True if a message that died so has come back to a queue with no client's doing.

    It has been in the queue before, and has not been rejected since.
    """
    for table, name in zip(deaths, queues_of(deaths), strict=True):
        if table["reason"][1] == DeathReason.REJECTED.encode():
            return False
        if name == queue:
            return True
    return False


def _recorded(deaths: Deaths, death: Death, expiration: bytes) -> Iterator[FieldTable]:
    """Add one death in front."""
    new = _table(death, expiration)
    same = [table for table in deaths if _is_same(table, new)]
    for table in same:
        _tag, count = table["count"]
        new = table | {"count": ("l", cast(int, count) + 1)}
    yield new
    yield from (table for table in deaths if table not in same)


def _is_same(one: FieldTable, other: FieldTable) -> bool:
    return (one["queue"], one["reason"]) == (other["queue"], other["reason"])


def _table(death: Death, expiration: bytes) -> FieldTable:
    table: FieldTable = {}
    if expiration:
        table["original-expiration"] = to_field(str(int(expiration)))
    table["count"] = ("l", 1)
    table["reason"] = to_field(death.reason.value)
    table["queue"] = to_field(death.queue)
    table["time"] = ("T", death.time_s)
    table["exchange"] = to_field(death.exchange)
    table["routing-keys"] = to_field(list(death.routing_keys))
    return table
