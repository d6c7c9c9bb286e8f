"""Record of a commit: what it appended and deleted, packed into one value.

     0         8           16       20      24
    +----------+-----------+--------+-------+-----------+-----------+-----+--------------+
    | sequence | top group | rows:4 | crc:4 | row of 40 | row of 40 | ... | pieces ...   |
    +----------+-----------+--------+-------+-----------+-----------+-----+--------------+

    row of a part      group:8 index:8 tag:8  size:4 offset:4 crc:4 number:2 kind:1 0:1
    row of a deletion  group:8 first:8 stop:8   0:4      0:4   0:4      0:2 kind:1 0:1

The record's checksum covers its head and rows, each row's the piece at `offset`; so every byte is
covered once, and what a record holds can be known without reading what it carries.  `top group`
is the greatest group id in use up to here: ids are never given twice, even if nothing of a group
is left.

A commit that is too large for one value makes several records; parts of one entry then lie in
consecutive ones.
"""

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from fluffle.storage.errors import Corrupt, CorruptEntry
from fluffle.storage.layout import Bytes, Part

HEAD = Struct(">QQII")
CHECKED_HEAD = Struct(">QQI")
ROW = Struct(">QQQIIIHBx")

KIND_PART = 1
KIND_DELETION = 2

RECORD_BYTES_MAX = 1_048_576
"""Larger values need so many neighbouring free pages that LMDB searches long for them."""

RECORD_ROWS_MAX = 65_535


def place(sequence: int, row: int) -> int:
    """Return a row of a record as one number; 0 is none, because sequence numbers begin with 1."""
    return sequence << 16 | row


def sequence_of(place: int) -> int:
    return place >> 16


def row_of(place: int) -> int:
    return place & 0xFFFF


class Deletion(NamedTuple):
    """Deletion of all entries of a group from `first` up to, not including, `stop`."""

    group: int
    first: int
    stop: int


class Row(NamedTuple):
    """Place of a part in a record."""

    part: Part
    offset: int


Change = tuple[Part, Bytes] | Deletion
"""What a commit does to logs; the order matters."""


class Packer:
    """Packs changes into as many records as they need."""

    __slots__ = ("_offset", "_pieces", "_rows", "places", "records", "sequence", "top_group")

    def __init__(self, sequence: int, top_group: int) -> None:
        self.sequence = sequence
        """Of the next record."""
        self.top_group = top_group
        self.records: list[bytes] = []
        self.places: list[int] = []
        """Where each change went, in order."""
        self._rows: list[bytes] = []
        self._pieces: list[Bytes] = []
        self._offset = 0
        """Where the next piece will lie, counted from the first."""

    def pack(self, changes: list[Change]) -> None:
        """Add changes; call `finish` when there are no more."""
        for change in changes:
            if isinstance(change, Deletion):
                self._open_row(0)
                self._rows.append(ROW.pack(*change, 0, 0, 0, 0, KIND_DELETION))
            else:
                part, piece = change
                self._open_row(len(piece))
                self._rows.append(_part_row(part, self._offset))
                self._pieces.append(piece)
                self._offset += len(piece)

    def finish(self, *, even_empty: bool = False) -> list[bytes]:
        """Return all records, the first under the sequence number this packer began with."""
        if self._rows or (even_empty and not self.records):
            self._close_record()
        return self.records

    def _open_row(self, piece_bytes: int) -> None:
        rows = len(self._rows)
        full = HEAD.size + (rows + 1) * ROW.size + self._offset + piece_bytes > RECORD_BYTES_MAX
        if rows and (full or rows == RECORD_ROWS_MAX):
            self._close_record()
        self.places.append(place(self.sequence, len(self._rows)))

    def _close_record(self) -> None:
        rows = b"".join(self._rows)
        checked = CHECKED_HEAD.pack(self.sequence, self.top_group, len(self._rows))
        head = HEAD.pack(
            self.sequence, self.top_group, len(self._rows), crc32(rows, crc32(checked))
        )
        self.records.append(b"".join((head, rows, *self._pieces)))
        self.sequence += 1
        self._rows, self._pieces, self._offset = [], [], 0


class Record:
    """Record as read.  Its parts vouch for themselves; `check` covers what lies between them."""

    __slots__ = ("_crc", "_pieces_at", "_rows", "_value", "sequence", "top_group")

    def __init__(self, sequence: int, value: Bytes) -> None:
        """`sequence` is the number it was found under.  Raises `Corrupt`."""
        self.sequence = sequence
        if len(value) < HEAD.size:
            raise self._corrupt(f"a value of {len(value)} bytes, shorter than its head")
        found, self.top_group, count, self._crc = HEAD.unpack_from(value)
        if found != sequence:
            raise self._corrupt(f"this is record {found}")
        self._value = memoryview(value)
        self._pieces_at = HEAD.size + count * ROW.size
        if len(value) < self._pieces_at:
            raise self._corrupt(f"{count} rows in a value of {len(value)} bytes")
        self._rows = self._value[HEAD.size : self._pieces_at]

    def check(self) -> None:
        """Compare head and rows with their checksum.  Raises `Corrupt`."""
        if self._crc != crc32(self._rows, crc32(self._value[: CHECKED_HEAD.size])):
            raise self._corrupt("head and rows do not match their checksum")

    @property
    def size_bytes(self) -> int:
        return len(self._value)

    def changes(self) -> Iterator[Row | Deletion]:
        """Return everything in it, in order."""
        for row in ROW.iter_unpack(self._rows):
            yield _parse(row)

    def parts(self) -> Iterator[tuple[int, Row]]:
        """Return the parts in it, each with the number of its row."""
        rows = enumerate(self.changes())
        return ((number, row) for number, row in rows if isinstance(row, Row))

    def part(self, number: int) -> Row | None:
        """Return the part in a row; None behind the last row, or if it is no part."""
        if number * ROW.size >= len(self._rows):
            return None
        row = _parse(ROW.unpack_from(self._rows, number * ROW.size))
        return row if isinstance(row, Row) else None

    def raw_piece(self, row: Row) -> memoryview:
        """Return the bytes of a part, unchecked: to be stored again with the same checksum."""
        start = self._pieces_at + row.offset
        return self._value[start : start + row.part.piece_bytes]

    def piece(self, row: Row) -> memoryview:
        """Return the bytes of a part; they live as long as the value.  Raises `Corrupt`."""
        piece = self.raw_piece(row)
        if not row.part.fits(piece):
            where, what = f"{self._where}, {row.part.name}", "the bytes do not match their checksum"
            raise CorruptEntry(where, what, row.part.group, row.part.index)
        return piece

    @property
    def _where(self) -> str:
        return f"table hot, record {self.sequence}"

    def _corrupt(self, what: str) -> Corrupt:
        return Corrupt(self._where, what)


def _part_row(part: Part, offset: int) -> bytes:
    size, crc = part.size_bytes, part.crc
    return ROW.pack(part.group, part.index, part.tag, size, offset, crc, part.number, KIND_PART)


def _parse(row: tuple[int, ...]) -> Row | Deletion:
    group, index, tag, size_bytes, offset, crc, number, kind = row
    if kind == KIND_DELETION:
        return Deletion(group, index, tag)
    return Row(Part(group, index, number, tag, size_bytes, crc), offset)
