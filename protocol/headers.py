"""Headers that a broker adds to a message: how often it was handed out in vain, how it died, and
what else it is given to add.

What the client has put into its headers stays as it is, byte for byte; but as in RabbitMQ, the
fields are in the order of their keys then, and of several with one key only the first is left, or
the broker's.

    x-acquired-count    long    how often it was handed out before; absent if never
    x-delivery-count    long    how often of these that was counted as a failure; absent if never

Source: RabbitMQ 4.3.  (Until 4.2 there is only x-delivery-count, with the first meaning.)
"""

from collections.abc import Iterable
from dataclasses import replace

from fluffle.protocol.properties import (
    FLAG_HEADERS,
    Properties,
    encode_properties,
    join_properties,
    raw_properties,
    replace_properties,
    split_properties,
)
from fluffle.protocol.types import Field, FieldTable
from fluffle.protocol.wire import encode_table, join_table, split_table


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
