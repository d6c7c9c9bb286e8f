"""Messages of Raft as frames: encoded, checked, and by which traffic class each goes.

    frame    [message, message, ...]                msgpack, as everything below
    message  [number of its class, field, field, ...]      the place in `MESSAGES`, from 0
    entry    [index, term, kind, payload]

Fields stand in the order of their class, without names.  Which kinds of values they are is read
from the classes, so a new message needs nothing here.  Bodies are most of what goes between nodes,
and each goes to several: a frame that holds large ones is a list of parts, the bodies as they are
and what stands between them.

Decoding believes nothing: whatever is not exactly such a frame raises `BadFrame`.  Consensus takes
for granted what any sender of its own kind keeps to: entries that follow one another,
configurations that can be read.  A peer that is broken, or of another version, must not end this
node, so `check` looks at its messages before they go in.  Whether what they say is *true* no node
can see here.

    URGENT   pings, votes, answers        small; what they say is true in any order
    NORMAL   appends                      in order among themselves
    BULK     snapshots, and appends to a follower that are read from the disk

Appends of a group that overtake others are refused by the follower, and sent again.  So all of a
group go as BULK to a follower that is being caught up, also those that come from memory, until
nothing of it waits there any more.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from operator import attrgetter, itemgetter
from struct import Struct
from typing import Any, cast, get_type_hints

import msgpack

from fluffle.broker.cluster.ports import Links, Payload, TrafficClass
from fluffle.raft.config import Configuration, Member, NodeId
from fluffle.raft.log import CONFIG, Entry, GroupId, size_of
from fluffle.raft.messages import (
    MESSAGES,
    AppendRequest,
    GroupUnknown,
    Message,
    Ping,
    SnapshotChunk,
    SnapshotOffer,
)
from fluffle.raft.ranges import Ranges

APART_BYTES_MIN = 4_096
"""From this size on a part more costs less than a copy."""

TEXT_ERRORS = "surrogateescape"
"""Names may hold octets that are not UTF-8."""

FRAME_BYTES_MAX = 1 << 20
"""Bytes of entries and state in one frame; a message that is larger goes alone."""

NUMBER_MAX = 1 << 62
"""No index, term, round or size gets so far; beyond it, adding one might not fit on the disk."""

BIN_16, BIN_32 = Struct(">BH"), Struct(">BI")

BIN_16_TAG, BIN_32_TAG = 0xC5, 0xC6

BIN_16_BYTES_MAX = 0xFFFF

PACKER_BYTES = 4_096

_KINDS: dict[Any, type] = {int: int, bool: bool, bytes: bytes, Sequence[Entry]: list}
"""The annotation of a field -> what msgpack makes of its value."""

_ENTRY_KINDS = (int, int, int, bytes)


class BadFrame(Exception):
    """Bytes that are no frame of messages; says what is wrong with them."""


class _Layout:
    """How the fields of one class are written and read."""

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
    """Encode messages as one frame."""
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
    """Decode a msgpack frame.  Raises `BadFrame`."""
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
    """True if all are numbers: to Python, true and false are numbers as well."""
    return all(type(each) is int and each >= 0 for each in fields)


def pack_apart(value: Any) -> list[bytes]:
    """Pack lists, tuples and plain values as `msgpack.packb` does, but in parts."""
    parts: list[bytes] = []
    packer = msgpack.Packer(autoreset=False, unicode_errors=TEXT_ERRORS, buf_size=PACKER_BYTES)
    _pack(value, packer, parts)
    parts.append(packer.bytes())
    return parts


def _pack(value: Any, packer: msgpack.Packer, parts: list[bytes]) -> None:
    if isinstance(value, list | tuple):
        packer.pack_array_header(len(value))
        for each in value:
            _pack(each, packer, parts)
    elif isinstance(value, bytes) and len(value) >= APART_BYTES_MIN:
        parts += (packer.bytes() + _head(len(value)), value)
        packer.reset()
    else:
        packer.pack(value)


def _head(size_bytes: int) -> bytes:
    """Msgpack header of a binary of `size_bytes`."""
    if size_bytes <= BIN_16_BYTES_MAX:
        return BIN_16.pack(BIN_16_TAG, size_bytes)
    return BIN_32.pack(BIN_32_TAG, size_bytes)


def check(messages: Iterable[Message]) -> None:
    """Raises `BadFrame` for the first that makes no sense."""
    for message in messages:
        if isinstance(message, GroupUnknown):
            continue
        if isinstance(message, Ping):
            if max(message.sent_ms, message.wall_ms, message.common_ms) >= NUMBER_MAX:
                raise BadFrame("Ping: a time that never comes")
            continue
        find_wrong = _FIND_WRONG.get(type(message))
        wrong = None if find_wrong is None else find_wrong(message)
        if not 0 < message.term < NUMBER_MAX:
            wrong = f"term {message.term}"
        if wrong is not None:
            raise BadFrame(f"{type(message).__name__}: {wrong}")


def _wrong_append(message: AppendRequest) -> str | None:
    if not message.entries:
        return None if message.previous_index < NUMBER_MAX else "an index that no log reaches"
    first = message.entries[0]
    if first.index != message.previous_index + 1 or first.term < message.previous_term:
        return f"entries from {first.index} behind {message.previous_index}"
    before = first.index - 1
    for entry in message.entries:
        before += 1
        if entry.index != before:
            return f"entry {entry.index} in the place of {before}"
    return _wrong_entries(message.entries, message.term)


def _wrong_entries(entries: Sequence[Entry], term: int) -> str | None:
    """Text about entries that do not rise in index and term, or are beyond the sender's term; else
    None."""
    last = entries[-1]
    if last.term > term or last.index >= NUMBER_MAX:
        return f"an entry of term {last.term} and index {last.index} in term {term}"
    before = entries[0]
    for entry in entries[1:]:
        if entry.term < before.term or entry.index <= before.index:
            return f"entry {entry.index} of term {entry.term} behind {before.index}"
        before = entry
    for entry in entries:
        if entry.kind == CONFIG and (wrong := _wrong_config(entry.payload)) is not None:
            return wrong
    return None


def _wrong_config(payload: bytes) -> str | None:
    try:
        config = Configuration.decode(payload)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return f"a configuration that cannot be read: {error!r}"
    if all(map(_is_member, config.members)) and _is_number(config.top_incarnation):
        return None
    return "a configuration with members that are none"


def _is_member(member: Member) -> bool:
    return type(member.node) is str and _is_number(member.incarnation)


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value < NUMBER_MAX


def _wrong_offer(message: SnapshotOffer) -> str | None:
    try:
        live = list(Ranges.from_bytes(message.live))
    except ValueError as error:
        return f"live ranges that cannot be read: {error}"
    if not 0 < message.index < NUMBER_MAX or (live and live[-1][1] > message.index + 1):
        return f"what is live at {message.index} ends with {live[-1:]}"
    if (live and live[0][0] < 1) or message.index_term > message.term:
        return f"a snapshot of term {message.index_term}"
    return _wrong_config(message.config)


def _wrong_chunk(message: SnapshotChunk) -> str | None:
    entries = message.entries
    is_within = message.entries_through <= message.index < NUMBER_MAX and (
        not entries
        or (
            message.entries_from <= entries[0].index
            and entries[-1].index <= message.entries_through
        )
    )
    if not is_within:
        return f"entries up to {message.entries_through} of {message.index}"
    return _wrong_entries(entries, message.term) if entries else None


_FIND_WRONG: dict[type, Callable[[Any], str | None]] = {
    AppendRequest: _wrong_append,
    SnapshotOffer: _wrong_offer,
    SnapshotChunk: _wrong_chunk,
}


class TrafficClasses:
    """Remembers which followers are being caught up."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._catching_up: dict[NodeId, set[GroupId]] = {}
        """Groups whose appends to a node go as BULK."""
        self._pages: set[tuple[GroupId, int]] = set()
        """Group, and index of the first entry, of what was read from the disk in this turn."""

    def was_read(self, group: GroupId, first: int) -> None:
        """Entries from `first` on were read: an append that begins with them is a catching up."""
        self._pages.add((group, first))

    def frames(
        self, node: NodeId, messages: Sequence[Message]
    ) -> list[tuple[TrafficClass, list[Message]]]:
        """Frames for a node in this turn, in order within each traffic class."""
        if len(messages) == 1:
            return [(self._class_of(node, messages[0]), list(messages))]
        traffic_classes: dict[TrafficClass, list[Message]] = {}
        for message in messages:
            traffic_classes.setdefault(self._class_of(node, message), []).append(message)
        return [
            (traffic, frame)
            for traffic in sorted(traffic_classes)
            for frame in _split(traffic_classes[traffic])
        ]

    def end_turn(self) -> None:
        """All of its messages are sent."""
        if self._pages:
            self._pages.clear()
        for node in list(self._catching_up):
            if not self._links.waiting_bytes(node, TrafficClass.BULK):
                del self._catching_up[node]

    def _class_of(self, node: NodeId, message: Message) -> TrafficClass:
        if isinstance(message, SnapshotOffer | SnapshotChunk):
            return TrafficClass.BULK
        if not isinstance(message, AppendRequest):
            return TrafficClass.URGENT
        catching_up = self._catching_up.get(node)
        if catching_up is not None and message.group in catching_up:
            return TrafficClass.BULK
        if message.entries and (message.group, message.previous_index + 1) in self._pages:
            self._catching_up.setdefault(node, set()).add(message.group)
            return TrafficClass.BULK
        return TrafficClass.NORMAL


def _split(messages: list[Message]) -> list[list[Message]]:
    """Split messages into frames of limited size."""
    if len(messages) == 1:
        return [messages]
    frames: list[list[Message]] = []
    size_bytes = 0
    for message in messages:
        message_bytes = _bytes_of(message)
        size_bytes += message_bytes
        if not frames or size_bytes > FRAME_BYTES_MAX:
            frames.append([])
            size_bytes = message_bytes
        frames[-1].append(message)
    return frames


def _bytes_of(message: Message) -> int:
    """Bytes of the parts of a message that can be large."""
    if isinstance(message, AppendRequest):
        return sum(map(size_of, message.entries))
    if isinstance(message, SnapshotChunk):
        return sum(map(size_of, message.entries)) + len(message.state)
    return len(message.live) if isinstance(message, SnapshotOffer) else 0
