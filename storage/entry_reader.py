"""Reader of entries, put together from their parts within one view.  Every byte is checked."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from fluffle.storage.disk import View
from fluffle.storage.errors import Corrupt, CorruptEntry
from fluffle.storage.layout import (
    PART_BYTES,
    SEQUENCE,
    Bytes,
    Part,
    Record,
    Table,
    cold_head,
    cold_index,
    cold_key,
    cold_part,
    cold_piece,
    row_of,
    sequence_of,
)


@dataclass(slots=True)
class StoredEntry:
    """Entry of a log as it was appended."""

    index: int
    tag: int
    payload: bytes


EntryHead = tuple[int, int, int]
"""Index, tag and size in bytes of an entry that has not been read.  A start makes one for each."""


class HotRecords:
    """Hot records of a view; the last one is kept, because neighbours are asked for next."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._record: Record | None = None

    def at(self, sequence: int) -> Record | None:
        """Return the record with a sequence number; None if it has left the hot window."""
        if self._record is None or self._record.sequence != sequence:
            value = self._view.get(Table.HOT, SEQUENCE.pack(sequence))
            self._record = None if value is None else Record(sequence, value)
        return self._record

    def known(self, place: int) -> EntryHead | None:
        """Return the head of the entry at `place`, unchecked."""
        record = self.at(sequence_of(place))
        row = record and record.part(row_of(place))
        return (row.part.index, row.part.tag, row.part.size_bytes) if row else None

    def tag_of_whole(self, place: int) -> int | None:
        """Return the tag of the entry at `place`, its bytes checked; None if it is not in one
        part."""
        record = self.at(sequence_of(place))
        row = record and record.part(row_of(place))
        if record is None or not row or row.part.size_bytes > PART_BYTES:
            return None
        record.piece(row)
        return row.part.tag

    def parts(self, place: int) -> Iterator[tuple[Part, Bytes]]:
        """Iterate over the parts from `place` on, into the records that follow."""
        sequence, number = sequence_of(place), row_of(place)
        while (record := self.at(sequence)) is not None:
            while (row := record.part(number)) is not None:
                yield row.part, record.piece(row)
                number += 1
            sequence, number = sequence + 1, 0


def missing_entry(group: int, index: int) -> CorruptEntry:
    """Return the error for an entry that is not where it was put."""
    return CorruptEntry(f"group {group} index {index}", "it is missing", group, index)


def missing_record(sequence: int) -> Corrupt:
    """Return the error for a hot record that is not there, though it has not left the window."""
    return Corrupt(f"table hot, record {sequence}", "it is missing")


def cold_heads(view: View, group: int, first: int, stop: int) -> Iterator[EntryHead]:
    """Return the heads of the cold entries in a stretch; the heads of their parts are checked."""
    for key, value in view.scan(Table.COLD, cold_key(group, first), cold_key(group, stop)):
        index, number, tag, size_bytes = cold_head(key, value)
        if number == 0:
            yield index, tag, size_bytes


def cold_parts(view: View, group: int, first: int, stop: int) -> Iterator[tuple[Part, Bytes]]:
    """Return all parts of the cold entries in a stretch."""
    for key, value in view.scan(Table.COLD, cold_key(group, first), cold_key(group, stop)):
        part = cold_part(key, value)
        yield part, cold_piece(part, value)


def cold_survey(
    view: View, group: int, first: int, stop: int, checked_from: int
) -> Iterator[tuple[int, int | None]]:
    """Return index and tag of each cold entry in a stretch, without a tag if it is damaged.

    From `checked_from` on every byte is read, below only the heads.
    """
    stretch = view.scan(Table.COLD, cold_key(group, first), cold_key(group, stop))
    for (_, index), items in groupby(stretch, lambda item: cold_index(item[0])):
        try:
            yield index, _checked_tag(items, with_bytes=index >= checked_from)
        except Corrupt:
            yield index, None


def _checked_tag(items: Iterator[tuple[Bytes, Bytes]], *, with_bytes: bool) -> int:
    """Return the tag of the entry that has these parts.  Raises `Corrupt`."""
    tag = size = number = 0
    for number, (key, value) in enumerate(items, start=1):
        part = cold_part(key, value)
        if part.number != number - 1:
            raise missing_entry(part.group, part.index)
        if with_bytes:
            cold_piece(part, value)
        tag, size = part.tag, part.size_bytes
    if number != max(1, -(-size // PART_BYTES)):
        raise Corrupt("table cold", f"{number} parts of an entry of {size} bytes")
    return tag


def assemble(parts: Iterator[tuple[Part, Bytes]]) -> Iterator[StoredEntry]:
    """Assemble entries from the parts of each in order.  Raises `Corrupt` if one is missing."""
    for head, piece in parts:
        if head.number:
            what = "the parts before it are missing"
            raise CorruptEntry(head.name, what, head.group, head.index)
        pieces, size = [piece], len(piece)
        while size < head.size_bytes:
            part, piece = next(parts, (None, b""))
            if part is None or not _is_next(head, part, len(pieces)):
                what = f"its part {len(pieces)} is missing"
                raise CorruptEntry(head.name, what, head.group, head.index)
            pieces.append(piece)
            size += len(piece)
        yield StoredEntry(head.index, head.tag, b"".join(pieces))


def _is_next(head: Part, part: Part, number: int) -> bool:
    return (part.group, part.index, part.number) == (head.group, head.index, number)
