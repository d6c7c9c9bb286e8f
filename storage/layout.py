"""Layout of every key and value on disk.  Integers are big-endian and unsigned; numbers are widths
in bytes.

    table    key                           value
    -------------------------------------------------------------------------------------
    hot      sequence:8                    a record, see below
    cold     group:8 index:8 part:2        tag:8 size:4 crc:4 head_crc:4 piece
    catalog  kind 00 sha256(name):32       crc:4 name_size:4 name value
    raft     kind:1 group:8 slot:1 part:8  crc:4 content
    system   "format"                      format:4 crc:4

An entry of a group's log is cut into parts, so that no value needs a long stretch of free pages.
Each part carries the entry's tag and whole size, and is a value of its own once it is cold.

A record is what a commit appended and deleted, packed into one value:

     0         8           16       20      24
    +----------+-----------+--------+-------+-----------+-----------+-----+--------------+
    | sequence | top group | rows:4 | crc:4 | row of 40 | row of 40 | ... | pieces ...   |
    +----------+-----------+--------+-------+-----------+-----------+-----+--------------+

    row of a part      group:8 index:8 tag:8  size:4 offset:4 crc:4 number:2 kind:1 0:1
    row of a deletion  group:8 first:8 stop:8   0:4      0:4   0:4      0:2 kind:1 0:1

Its checksum covers its head and rows, each row's the piece at `offset`; so every byte is covered
once, and what a record holds can be known without reading what it carries.  `top group` is the
greatest group id in use up to here: ids are never given twice, even if nothing of a group is left.
A commit that is too large for one value makes several records; parts of one entry then lie in
consecutive ones.

The table raft holds what a Raft group is besides entries; its kinds are in `heads.py`.

Rule 1: a checksum covers the key as well, so that a value in the wrong place is found.
Rule 2: a part's checksum does not depend on the table it is in; moving it changes nothing.
Rule 3: a change of a shape raises `FORMAT`.

A checksum is zlib's CRC-32: it runs at a gigabyte a second and needs no further dependency.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from fluffle.storage.errors import Corrupt, CorruptEntry

FORMAT = 2
"""2 has the table raft; a store of format 1 gets it when a node opens it."""

PART_BYTES = 65_456
"""With its header and LMDB's, a part fills 16 pages of 4 KiB."""

RECORD_BYTES_MAX = 1_048_576
"""Larger values need so many neighbouring free pages that LMDB searches long for them."""

RECORD_ROWS_MAX = 65_535

INDEX_END = 2**64 - 1
"""Behind every index: no entry has it."""

Bytes = bytes | memoryview


class Table(Enum):
    """Table of the store: a named database of the environment."""

    HOT = b"hot"
    COLD = b"cold"
    CATALOG = b"catalog"
    RAFT = b"raft"
    SYSTEM = b"system"


SEQUENCE = Struct(">Q")
COLD_KEY = Struct(">QQH")
COLD_HEAD = Struct(">QII")
COLD_VALUE = Struct(">QIII")
CRC = Struct(">I")
NAME_SIZE = Struct(">I")
RAFT_KEY = Struct(">BQBQ")
FORMAT_KEY = b"format"
FORMAT_VALUE = Struct(">I")

PART = Struct(">QQHQI")
"""Fields of a part that its checksum covers, before its piece."""

HEAD = Struct(">QQII")
CHECKED_HEAD = Struct(">QQI")
ROW = Struct(">QQQIIIHBx")
KIND_PART = 1
KIND_DELETION = 2


# Parts of entries


@dataclass(slots=True)
class Part:
    """Description of one part of an entry, its bytes apart."""

    group: int
    index: int
    number: int
    """From 0."""
    tag: int
    size_bytes: int
    """Size of the whole entry."""
    crc: int
    """Checksum of all of the above and the piece."""

    @property
    def piece_bytes(self) -> int:
        """Bytes of the entry that are in this part."""
        return min(PART_BYTES, self.size_bytes - self.number * PART_BYTES)

    @property
    def name(self) -> str:
        """Name of the part as it appears in reports."""
        return f"group {self.group} index {self.index} part {self.number}"

    def fits(self, piece: Bytes) -> bool:
        """True if `piece` is what was written."""
        key = PART.pack(self.group, self.index, self.number, self.tag, self.size_bytes)
        return len(piece) == self.piece_bytes and self.crc == crc32(piece, crc32(key))


def cut(group: int, index: int, tag: int, payload: bytes) -> list[tuple[Part, Bytes]]:
    """Cut an entry into parts with their pieces; an entry without bytes has one."""
    size = len(payload)
    if size <= PART_BYTES:
        crc = crc32(payload, crc32(PART.pack(group, index, 0, tag, size)))
        return [(Part(group, index, 0, tag, size, crc), payload)]
    parts: list[tuple[Part, Bytes]] = []
    view = memoryview(payload)
    for number, at in enumerate(range(0, size, PART_BYTES)):
        piece = view[at : at + PART_BYTES]
        crc = crc32(piece, crc32(PART.pack(group, index, number, tag, size)))
        parts.append((Part(group, index, number, tag, size, crc), piece))
    return parts


# Hot: records


def sequence_number(key: Bytes) -> int:
    """Return the sequence number a record is under.  Raises `Corrupt`."""
    if len(key) != SEQUENCE.size:
        raise Corrupt(f"table hot, key {bytes(key).hex()}", "a key that was never written")
    number: int = SEQUENCE.unpack(key)[0]
    return number


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
"""Change that a commit makes to logs; the order matters."""


class Packer:
    """Packs changes into as many records as they need."""

    __slots__ = ("_offset", "_pieces", "_rows", "places", "records", "sequence", "top_group")

    def __init__(self, sequence: int, top_group: int) -> None:
        self.sequence = sequence
        """Sequence number of the next record."""
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


# Cold: parts


def cold_key(group: int, index: int, number: int = 0) -> bytes:
    return COLD_KEY.pack(group, index, number)


def cold_value(part: Part, piece: Bytes) -> bytes:
    """Return a part as a value of its own, its checksum as it was."""
    head = COLD_HEAD.pack(part.tag, part.size_bytes, part.crc)
    head_crc = crc32(head, crc32(cold_key(part.group, part.index, part.number)))
    return b"".join((head, CRC.pack(head_crc), piece))


def cold_part(key: Bytes, value: Bytes) -> Part:
    """Read and check the head of a cold value, without its piece.  Raises `Corrupt`."""
    if len(key) != COLD_KEY.size:
        raise Corrupt(f"table cold, key {bytes(key).hex()}", "a key that was never written")
    group, index, number = COLD_KEY.unpack(key)
    if len(value) < COLD_VALUE.size:
        what = f"a value of {len(value)} bytes, shorter than its head"
        raise CorruptEntry(_cold_place(group, index, number), what, group, index)
    tag, size_bytes, crc, head_crc = COLD_VALUE.unpack_from(value)
    if head_crc != crc32(value[: COLD_HEAD.size], crc32(key)):
        what = "the head does not match its checksum"
        raise CorruptEntry(_cold_place(group, index, number), what, group, index)
    return Part(group, index, number, tag, size_bytes, crc)


def cold_head(key: Bytes, value: Bytes) -> tuple[int, int, int, int]:
    """Return index, number, tag and whole size of a cold part.  Raises `Corrupt` as `cold_part`
    does."""
    if len(key) == COLD_KEY.size and len(value) >= COLD_VALUE.size:
        _, index, number = COLD_KEY.unpack(key)
        tag, size_bytes, _, head_crc = COLD_VALUE.unpack_from(value)
        if head_crc == crc32(value[: COLD_HEAD.size], crc32(key)):
            return index, number, tag, size_bytes
    part = cold_part(key, value)
    return part.index, part.number, part.tag, part.size_bytes


def _cold_place(group: int, index: int, number: int) -> str:
    return f"table cold, group {group} index {index} part {number}"


def cold_piece(part: Part, value: Bytes) -> Bytes:
    """Return the piece of a cold value whose head was read.  Raises `Corrupt`."""
    piece = value[COLD_VALUE.size :]
    if not part.fits(piece):
        where = _cold_place(part.group, part.index, part.number)
        what = "the bytes do not match their checksum"
        raise CorruptEntry(where, what, part.group, part.index)
    return piece


def cold_index(key: Bytes) -> tuple[int, int]:
    """Return group and index that a cold key says it is of, whether it is right or not.

    Raises `Corrupt` if it cannot be a key of this table.
    """
    if len(key) != COLD_KEY.size:
        raise Corrupt(f"table cold, key {bytes(key).hex()}", "a key that was never written")
    group, index, _ = COLD_KEY.unpack(key)
    return group, index


# Catalog: definitions


def catalog_prefix(kind: str) -> bytes:
    return kind.encode() + b"\0"


def catalog_key(kind: str, name: bytes) -> bytes:
    """Return the key of a definition: LMDB's keys have at most 511 bytes, and a binding's name
    has more, hence the digest."""
    return catalog_prefix(kind) + sha256(name).digest()


def catalog_value(kind: str, name: bytes, value: bytes) -> bytes:
    body = b"".join((NAME_SIZE.pack(len(name)), name, value))
    return CRC.pack(crc32(body, crc32(catalog_key(kind, name)))) + body


def catalog_item(key: Bytes, value: Bytes) -> tuple[str, bytes, bytes]:
    """Return kind, name and value of a definition.  Raises `Corrupt`."""
    key = bytes(key)
    kind = key.partition(b"\0")[0].decode(errors="replace")
    where = f"table catalog, {kind} {key[-32:].hex()}"
    name_at = CRC.size + NAME_SIZE.size
    if len(value) < name_at:
        raise Corrupt(where, f"a value of {len(value)} bytes, shorter than its head")
    (crc,), (name_size,) = CRC.unpack_from(value), NAME_SIZE.unpack_from(value, CRC.size)
    if crc != crc32(value[CRC.size :], crc32(key)):
        raise Corrupt(where, "the bytes do not match their checksum")
    return kind, bytes(value[name_at : name_at + name_size]), bytes(value[name_at + name_size :])


# Raft: heads and images


def raft_key(kind: int, group: int, slot: int = 0, part: int = 0) -> bytes:
    return RAFT_KEY.pack(kind, group, slot, part)


def raft_value(key: bytes, content: Bytes) -> bytes:
    return CRC.pack(crc32(content, crc32(key))) + content


def raft_place(key: Bytes) -> tuple[int, int, int, int]:
    """Return kind, group, slot and part of a key of the table raft.  Raises `Corrupt`."""
    if len(key) != RAFT_KEY.size:
        raise Corrupt(f"table raft, key {bytes(key).hex()}", "a key that was never written")
    kind, group, slot, part = RAFT_KEY.unpack(key)
    return kind, group, slot, part


def raft_content(key: Bytes, value: Bytes) -> bytes:
    """Return the content of a value of the table raft.  Raises `Corrupt`."""
    kind, group, slot, part = raft_place(key)
    content = bytes(value[CRC.size :])
    if bytes(value[: CRC.size]) != CRC.pack(crc32(content, crc32(key))):
        where = f"table raft, kind {kind} group {group} slot {slot} part {part}"
        raise Corrupt(where, "the bytes do not match their checksum")
    return content


# System


def format_value(number: int = FORMAT) -> bytes:
    body = FORMAT_VALUE.pack(number)
    return body + CRC.pack(crc32(body))


def format_number(value: Bytes) -> int:
    """Read the number of a format.  Raises `Corrupt`."""
    body, crc = bytes(value[: FORMAT_VALUE.size]), bytes(value[FORMAT_VALUE.size :])
    if CRC.pack(crc32(body)) != crc:
        raise Corrupt("table system, format", "the number does not match its checksum")
    number: int = FORMAT_VALUE.unpack(body)[0]
    return number
