"""Head and images of a Raft group on disk, besides its entries: the table raft, and writes to it.

    kind      slot  part          content
    ---------------------------------------------------------------------
    1 head       0  0             all that is small, as JSON: see `Head`
    2 image   0, 1  0, 1, 2 ...   live ranges, then the state, in parts of `PART_BYTES`
    3 owner      0  a log         nothing: that log is the group's

An entry of a group is an entry of one of its logs, at the same index; term and kind are in the tag.

Heads lie together, so that an election of a thousand groups dirties few pages.  A group's image is
in one slot; in the other comes the one that a leader sends, so that nothing is copied when it is
installed.  That a log is owned is written once, when it is made: a group whose head is damaged or
gone is known by it, and what is left of it can be found.

A write of a group changes its head at once, and adds to a batch what makes that durable; the head
itself is added once, at the end.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from fluffle.raft.config import Configuration, Member
from fluffle.raft.log import GroupId, HardState, Quarantine, SnapshotMeta
from fluffle.raft.log_store import NewSnapshot, Staged
from fluffle.raft.ranges import Ranges
from fluffle.storage.disk import Disk, View
from fluffle.storage.entry_reader import StoredEntry
from fluffle.storage.errors import Corrupt
from fluffle.storage.layout import (
    INDEX_END,
    PART_BYTES,
    Bytes,
    Table,
    cold_key,
    cold_value,
    cut,
    raft_content,
    raft_key,
    raft_place,
    raft_value,
)
from fluffle.storage.log import GroupLogs
from fluffle.storage.store import Batch

HEAD, IMAGE, OWNER = 1, 2, 3

SLICE = 1024
"""No view looks at more values before it ends."""

KIND_BITS = 8
"""Bits of the kind in the tag of an entry; its term has the 56 before them, which are enough for an
election a microsecond."""


def term_of(tag: int) -> int:
    return tag >> KIND_BITS


def kind_of(tag: int) -> int:
    return tag & (1 << KIND_BITS) - 1


# Heads


@dataclass(frozen=True, slots=True)
class ImageHead:
    """Head of a snapshot without its live ranges, which may be long, and without its state."""

    index: int
    term: int
    config: Configuration
    live_bytes: int
    state_bytes: int
    state_crc: int

    @property
    def size_bytes(self) -> int:
        return self.live_bytes + self.state_bytes

    @property
    def identity(self) -> tuple[int, int, int, int]:
        """Identity as in `SnapshotMeta.identity`."""
        return self.index, self.term, self.state_bytes, self.state_crc

    @staticmethod
    def of(meta: SnapshotMeta, live_bytes: int) -> "ImageHead":
        return ImageHead(
            meta.index, meta.term, meta.config, live_bytes, meta.state_bytes, meta.state_crc
        )

    def meta(self, live: Ranges) -> SnapshotMeta:
        return SnapshotMeta(
            self.index, self.term, self.config, live, self.state_bytes, self.state_crc
        )


EMPTY_IMAGE = ImageHead(0, 0, Configuration(), 0, 0, 0)
"""The snapshot of an empty log."""


@dataclass(slots=True)
class StagedHead:
    """Head of a snapshot that comes from a leader, as far as it has come."""

    image: ImageHead
    image_bytes: int
    """How much of live ranges and state is there."""
    log: int
    """Where its entries are; 0 if there are none yet."""
    entries_through: int
    tail: bytes = b""
    """Last part of the image if it is not full: it will be written again."""

    @property
    def state_bytes(self) -> int:
        """Bytes of the state that are there."""
        return self.image_bytes - self.image.live_bytes


@dataclass(slots=True)
class Head:
    """Head of a group: all that is small of it."""

    incarnation: int
    hard_state: HardState
    logs: list[int]
    """Numbers of logs of this node, never empty; of two entries at one index the one in the later
    log counts.  Entries are appended to the last."""
    slot: int
    """Where the image is."""
    image: ImageHead
    quarantine: Quarantine | None = None
    staged: StagedHead | None = None
    installed_by: int = 0
    """Token of the last write that added a log.  Only in memory."""
    deleted_by: int = 0
    """Token of the last write that deleted entries at or below the floor.  Only in memory."""

    def encode(self) -> bytes:
        fields = {
            "incarnation": self.incarnation,
            "hard_state": self.hard_state,
            "logs": self.logs,
            "slot": self.slot,
            "image": _image_fields(self.image),
            "quarantine": self.quarantine,
            "staged": self.staged and _staged_fields(self.staged),
        }
        return json.dumps(fields, separators=(",", ":")).encode()

    @staticmethod
    def decode(content: bytes) -> "Head":
        """Decode what `encode` made."""
        fields = json.loads(content)
        term, vote = fields["hard_state"]
        quarantine, staged = fields["quarantine"], fields["staged"]
        return Head(
            fields["incarnation"],
            HardState(term, vote and Member(*vote)),
            fields["logs"],
            fields["slot"],
            _image_head(fields["image"]),
            quarantine and Quarantine(*quarantine),
            staged and StagedHead(_image_head(staged[0]), *staged[1:]),
        )


def _image_fields(image: ImageHead) -> list[Any]:
    config = image.config.encode().decode()
    return [
        image.index, image.term, config, image.live_bytes, image.state_bytes, image.state_crc
    ]  # fmt: skip


def _staged_fields(staged: StagedHead) -> list[Any]:
    return [_image_fields(staged.image), staged.image_bytes, staged.log, staged.entries_through]


def _image_head(fields: list[Any]) -> ImageHead:
    index, term, config, live_bytes, state_bytes, state_crc = fields
    return ImageHead(index, term, Configuration.decode(config), live_bytes, state_bytes, state_crc)


def joined(remembered: Quarantine | None, found: Quarantine, *, is_last_whole: bool) -> Quarantine:
    """Join a remembered quarantine with damage found now in a log whose last entry may be read or
    not.

    Only then is it known to be of the term that was found: see `Quarantine.renewed`.
    """
    if remembered is None:
        return found
    if is_last_whole:
        return remembered.renewed(found)
    return remembered.renewed(found)._replace(last=max(remembered.last, found.last))


# Reading


class Heads:
    """Reader of the table raft."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def heads(self) -> Iterator[tuple[int, Head | None]]:
        """Iterate over every group in order, without its head if that is damaged."""
        for key, value in self._walk(HEAD):
            yield raft_place(key)[1], _head(key, value)

    def owned(self) -> Iterator[tuple[int, int]]:
        """Iterate over each log that is a Raft group's, behind that group."""
        for key, _ in self._walk(OWNER):
            _, group, _, log = raft_place(key)
            yield group, log

    def image(self, group: int, slot: int, first: int, stop: int) -> bytes:
        """Read bytes `first` up to `stop` of an image that has at least so many.  Raises
        `Corrupt`."""
        with self._disk.view() as view:
            return _image_bytes(view, group, slot, first, stop)

    def state(self, group: int, offset: int, size: int) -> bytes:
        """Read a piece of the state of the snapshot that is on disk now.  Raises `Corrupt`.

        Head and image in one view: another may be on its way, in the same place.
        """
        key = raft_key(HEAD, group)
        with self._disk.view() as view:
            value = view.get(Table.RAFT, key)
            if value is None:
                return b""
            head = Head.decode(raft_content(key, value))
            first = head.image.live_bytes + offset
            stop = min(first + size, head.image.size_bytes)
            return _image_bytes(view, group, head.slot, first, stop)

    def image_keys(self, group: int) -> list[bytes]:
        """Return the keys of all parts of a group's images that are there."""
        return [key for key, _ in self._walk(IMAGE, group)]

    def _walk(self, kind: int, group: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over keys and values of a kind, of one group or of all; not the bytes of
        images."""
        first = raft_key(kind, group or 0)
        stop = raft_key(kind + 1, 0) if group is None else raft_key(kind, group, 255)
        is_large = kind == IMAGE
        while True:
            with self._disk.view() as view:
                found = islice(view.scan(Table.RAFT, first, stop), SLICE)
                items = [(bytes(key), b"" if is_large else bytes(value)) for key, value in found]
            yield from items
            if len(items) < SLICE:
                return
            first = items[-1][0] + b"\0"


def _image_bytes(view: View, group: int, slot: int, first: int, stop: int) -> bytes:
    pieces = []
    for part in range(first // PART_BYTES, -(-stop // PART_BYTES)):
        key = raft_key(IMAGE, group, slot, part)
        value = view.get(Table.RAFT, key)
        if value is None:
            raise Corrupt(f"table raft, image of group {group}, part {part}", "it is missing")
        pieces.append(raft_content(key, value))
    start = first % PART_BYTES
    return b"".join(pieces)[start : start + stop - first]


def _head(key: bytes, value: bytes) -> Head | None:
    try:
        return Head.decode(raft_content(key, value))
    except Corrupt:
        return None


# Keys and values


def head_value(group: int, head: Head) -> tuple[bytes, bytes]:
    """Return key and value of a group's head."""
    key = raft_key(HEAD, group)
    return key, raft_value(key, head.encode())


def owner_value(group: int, log: int) -> tuple[bytes, bytes]:
    """Return key and value that say whose a log is."""
    key = raft_key(OWNER, group, 0, log)
    return key, raft_value(key, b"")


def image_values(
    group: int, slot: int, image: Bytes, start: int = 0
) -> Iterator[tuple[bytes, bytes]]:
    """Return keys and values of an image's bytes from `start` on, which is where a part begins."""
    for at in range(0, len(image), PART_BYTES):
        key = raft_key(IMAGE, group, slot, (start + at) // PART_BYTES)
        yield key, raft_value(key, image[at : at + PART_BYTES])


def image_keys(group: int, slot: int, first: int, stop: int) -> list[bytes]:
    """Return the keys of the parts that an image of `stop` bytes has and one of `first` has not."""
    parts = range(-(-first // PART_BYTES), -(-stop // PART_BYTES))
    return [raft_key(IMAGE, group, slot, part) for part in parts]


# Writing


def create(batch: Batch, group: GroupId, incarnation: int, log: GroupLogs) -> Head:
    """Create the head of a group that is made, with a log of its own."""
    return Head(incarnation, HardState(0, None), [_new_log(batch, group, log)], 0, EMPTY_IMAGE)


def _new_log(batch: Batch, group: GroupId, log: GroupLogs) -> int:
    number = log.unused_group()
    batch.write(Table.RAFT, *owner_value(group, number))
    return number


def _give_up_log(batch: Batch, group: GroupId, number: int) -> None:
    batch.delete(number, 0, INDEX_END)
    batch.erase(Table.RAFT, owner_value(group, number)[0])


def drop(batch: Batch, group: GroupId, head: Head) -> None:
    """Drop everything of a group."""
    discard(batch, group, head)
    for number in head.logs:
        _give_up_log(batch, group, number)
    _erase_image(batch, group, head.slot, 0, head.image.size_bytes)
    batch.erase(Table.RAFT, raft_key(HEAD, group))


def drop_lost(batch: Batch, group: GroupId, logs: list[int], keys: list[bytes]) -> None:
    """Drop everything of a group that has no head: its logs and the parts of its images."""
    for number in logs:
        _give_up_log(batch, group, number)
    for key in keys:
        batch.erase(Table.RAFT, key)
    batch.erase(Table.RAFT, raft_key(HEAD, group))


def delete(batch: Batch, head: Head, first: int, stop: int) -> None:
    """Delete entries of a group, whichever log they are in."""
    for number in head.logs:
        batch.delete(number, first, stop)


def rewrite(batch: Batch, number: int, entry: StoredEntry, payload: bytes) -> None:
    """Give a cold entry of a log another payload, which is no longer than the one before."""
    parts = cut(number, entry.index, entry.tag, payload)
    for part, piece in parts:
        key = cold_key(number, entry.index, part.number)
        batch.write(Table.COLD, key, cold_value(part, piece))
    before = max(1, -(-len(entry.payload) // PART_BYTES))
    for part_number in range(len(parts), before):
        batch.erase(Table.COLD, cold_key(number, entry.index, part_number))


def retire_logs(batch: Batch, group: GroupId, head: Head, log: GroupLogs) -> None:
    """Give up logs that are empty and will not be appended to.

    Nothing may be under way that was submitted when one of them was the last.
    """
    for number in head.logs[:-1]:
        first, stop = log.bounds(number)
        if first == stop:
            head.logs.remove(number)
            _give_up_log(batch, group, number)


# Snapshots


def replace_image(batch: Batch, group: GroupId, head: Head, snapshot: NewSnapshot) -> None:
    """Replace the former snapshot by this node's own, in the same slot."""
    live = snapshot.meta.live.to_bytes()
    image = ImageHead.of(snapshot.meta, len(live))
    content = memoryview(live + snapshot.state if live else snapshot.state)
    for key, value in image_values(group, head.slot, content):
        batch.write(Table.RAFT, key, value)
    _erase_image(batch, group, head.slot, image.size_bytes, head.image.size_bytes)
    head.image = image


def install(batch: Batch, group: GroupId, head: Head, meta: SnapshotMeta) -> None:
    """Make what was staged the group's snapshot, or, at index 0, have none."""
    _erase_image(batch, group, head.slot, 0, head.image.size_bytes)
    if meta.index == 0:
        discard(batch, group, head)
        head.image = ImageHead.of(meta, 0)
        return
    staged, head.staged = head.staged, None
    if staged is None or staged.image.identity != meta.identity:
        raise ValueError(f"group {group}: the snapshot at {meta.index} was not staged")
    if staged.image_bytes != staged.image.size_bytes:
        raise ValueError(f"group {group}: not all of the snapshot at {meta.index} was staged")
    head.slot = 1 - head.slot
    head.image = staged.image
    if staged.log:
        head.logs = [*head.logs, staged.log]


def stage(batch: Batch, group: GroupId, head: Head, piece: Staged, log: GroupLogs) -> None:
    """Stage a piece of a leader's snapshot: its entries into a log, its bytes behind those
    before."""
    staged, content = head.staged, piece.state
    if (
        staged is None
        or staged.image.identity != piece.meta.identity
        or staged.state_bytes != piece.offset
    ):
        if piece.offset:
            raise ValueError(f"group {group}: a piece at {piece.offset} does not follow")
        staged = _begin_staged(batch, group, head, piece)
        content = piece.meta.live.to_bytes() + content
    if piece.entries and not staged.log:
        staged.log = _new_log(batch, group, log)
    for entry in piece.entries:
        tag = entry.term << KIND_BITS | entry.kind
        batch.append(staged.log, entry.index, entry.payload, tag=tag)
    staged.entries_through = piece.entries_through
    bytes_with_tail = staged.tail + content
    start = staged.image_bytes - len(staged.tail)
    for key, value in image_values(group, 1 - head.slot, bytes_with_tail, start):
        batch.write(Table.RAFT, key, value)
    staged.image_bytes += len(content)
    staged.tail = bytes_with_tail[len(bytes_with_tail) // PART_BYTES * PART_BYTES :]


def _begin_staged(batch: Batch, group: GroupId, head: Head, piece: Staged) -> StagedHead:
    """Begin another staged snapshot: of what was staged before only the entries stay."""
    log = 0
    if head.staged is not None:
        log = head.staged.log
        _erase_image(batch, group, 1 - head.slot, 0, head.staged.image_bytes)
    live_bytes = len(piece.meta.live.to_bytes())
    head.staged = StagedHead(ImageHead.of(piece.meta, live_bytes), 0, log, 0)
    return head.staged


def discard(batch: Batch, group: GroupId, head: Head) -> None:
    """Discard what is staged."""
    staged, head.staged = head.staged, None
    if staged is not None:
        _erase_image(batch, group, 1 - head.slot, 0, staged.image_bytes)
        if staged.log:
            _give_up_log(batch, group, staged.log)


def _erase_image(batch: Batch, group: GroupId, slot: int, first: int, stop: int) -> None:
    """Erase the parts that an image of `stop` bytes has and one of `first` has not."""
    for key in image_keys(group, slot, first, stop):
        batch.erase(Table.RAFT, key)
