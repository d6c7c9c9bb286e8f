"""Deaths of messages, and their headers: x-death and the six that go with it.

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
Source: RabbitMQ 4.0 to 4.3.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple, TypeAlias, cast

from fluffle.protocol.headers import with_headers
from fluffle.protocol.properties import (
    FLAG_EXPIRATION,
    FLAG_HEADERS,
    join_properties,
    split_properties,
)
from fluffle.protocol.wire import Field, FieldTable, read_table, to_field, to_table

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
