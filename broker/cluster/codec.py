"""Messages of consensus as bytes: one frame holds all that goes to one node in a turn.

    frame    [message, message, ...]                msgpack, as everything below
    message  [number of its class, field, field, ...]      the place in `MESSAGES`, from 0
    entry    [index, term, kind, payload]

Fields stand in the order of their class, without names.  Which kinds of values they are is read
from the classes, so a new message needs nothing here.

Decoding believes nothing: whatever is not exactly such a frame raises `BadFrame`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from operator import attrgetter, itemgetter
from typing import Any, cast, get_type_hints

import msgpack

from fluffle.broker.cluster.msgpack_parts import APART_BYTES_MIN, Payload, pack_apart
from fluffle.raft.messages import MESSAGES, Message
from fluffle.raft.records import CONFIG, Entry

_KINDS: dict[Any, type] = {int: int, bool: bool, bytes: bytes, Sequence[Entry]: list}
"""The annotation of a field -> what msgpack makes of its value."""
_ENTRY_KINDS = (int, int, int, bytes)


class BadFrame(Exception):
    """Bytes that are no frame of messages; says what is wrong with them."""


class _Layout:
    """How the fields of one class are written and read."""

    __slots__ = ("entries_at", "get", "kind", "kinds", "numbers")

    def __init__(self, kind: type[Message]) -> None:
        hints = get_type_hints(kind)
        names = [field.name for field in fields(kind)]
        self.kind = kind
        self.kinds = tuple(_KINDS[hints[name]] for name in names)
        self.get = attrgetter(*names)
        """A message -> the tuple of its fields."""
        self.entries_at = self.kinds.index(list) if list in self.kinds else None
        """The place of the field that holds entries."""
        self.numbers = itemgetter(*(at for at, each in enumerate(self.kinds) if each is int))
        """A row of fields -> the numbers in it."""


_LAYOUTS = tuple(_Layout(kind) for kind in MESSAGES)
_NUMBERS = {kind: number for number, kind in enumerate(MESSAGES)}
_entry_fields = attrgetter("index", "term", "kind", "payload")


def encode(messages: Iterable[Message]) -> Payload:
    """One frame."""
    rows, is_large = [], False
    for message in messages:
        number = _NUMBERS[type(message)]
        layout = _LAYOUTS[number]
        row = [number, *layout.get(message)]
        if layout.entries_at is not None:
            entries = list(map(_entry_fields, row[layout.entries_at + 1]))
            row[layout.entries_at + 1] = entries
            for *_, payload in entries:
                is_large = is_large or len(payload) >= APART_BYTES_MIN
        rows.append(row)
    return pack_apart(rows) if is_large else cast(bytes, msgpack.packb(rows))


def pack(*row: object, text_errors: str = "strict") -> bytes:
    """A small frame, as msgpack has it."""
    packed: bytes = msgpack.packb(row, unicode_errors=text_errors)
    return packed


def unpack(payload: bytes, *, text_errors: str = "strict") -> Any:
    """What is in a frame, as msgpack has it.  Raises `BadFrame`."""
    try:
        return msgpack.unpackb(payload, unicode_errors=text_errors)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise BadFrame(f"not msgpack: {error}") from error


def decode(frame: bytes) -> list[Message]:
    """The messages of a frame, in order.  Raises `BadFrame`."""
    rows = unpack(frame)
    if type(rows) is not list:
        raise BadFrame("not a list of messages")
    return [_message(row) for row in rows]


def _message(row: object) -> Message:
    if type(row) is not list or not row:
        raise BadFrame("a message that is not a list with a number")
    number, *values = row
    if type(number) is not int or not 0 <= number < len(_LAYOUTS):
        raise BadFrame(f"no message has the number {number!r}")
    layout = _LAYOUTS[number]
    if tuple(map(type, values)) != layout.kinds:
        raise BadFrame(f"the fields of a {layout.kind.__name__} are others")
    if layout.entries_at is not None:
        values[layout.entries_at] = [_entry(item) for item in values[layout.entries_at]]
    if min(layout.numbers(values)) < 0:
        raise BadFrame(f"a {layout.kind.__name__} with a number below zero")
    return layout.kind(*values)


def _entry(item: object) -> Entry:
    if type(item) is not list or tuple(map(type, item)) != _ENTRY_KINDS:
        raise BadFrame("an entry whose fields are others")
    index, term, kind, payload = item
    if index < 1 or term < 1 or not 0 <= kind <= CONFIG:
        raise BadFrame(f"an entry of index {index}, term {term} and kind {kind}")
    return Entry(index, term, kind, payload)  # mutant: M46


def are_numbers(*fields: object) -> bool:
    """To Python, true and false are numbers as well."""
    return all(type(each) is int and each >= 0 for each in fields)
