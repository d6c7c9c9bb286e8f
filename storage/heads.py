"""Head and images of a Raft group on disk, besides its entries: the table raft.

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
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from fluffle.raft.config import Config, Member
from fluffle.raft.log_store import Write
from fluffle.raft.ranges import Ranges
from fluffle.raft.records import HardState, Quarantine, SnapshotMeta
from fluffle.storage.disk import Disk, View
from fluffle.storage.errors import Corrupt
from fluffle.storage.layout import (
    PART_BYTES,
    Table,
    raft_content,
    raft_key,
    raft_place,
    raft_value,
)

HEAD, IMAGE, OWNER = 1, 2, 3

SLICE = 1024
"""No view looks at more values before it ends."""

KIND_BITS = 8


def tag_of(term: int, kind: int) -> int:
    """Return the tag of an entry.  Terms have 56 bits: enough for an election a microsecond."""
    return term << KIND_BITS | kind


def term_of(tag: int) -> int:
    return tag >> KIND_BITS


def kind_of(tag: int) -> int:
    return tag & (1 << KIND_BITS) - 1


@dataclass(frozen=True, slots=True)
class ImageHead:
    """Head of a snapshot without its live ranges, which may be long, and without its state."""

    index: int
    term: int
    config: Config
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


EMPTY_IMAGE = ImageHead(0, 0, Config(), 0, 0, 0)
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
    """What is in the last part of the image, if it is not full: it will be written again."""

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
    return ImageHead(index, term, Config.decode(config), live_bytes, state_bytes, state_crc)


class Heads:
    """Reader of the table raft."""

    __slots__ = ("_disk",)

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


def changes_head(write: Write) -> bool:
    """Tell whether the head of its group is written with a write."""
    return (
        write.hard_state is not None
        or write.snapshot is not None
        or write.created_as is not None
        or write.new_incarnation is not None
        or write.install is not None
        or write.quarantine is not None
        or write.discard_staged
        or write.is_repaired
        or bool(write.staged)
    )


def head_value(group: int, head: Head) -> tuple[bytes, bytes]:
    """Return key and value of a group's head."""
    key = raft_key(HEAD, group)
    return key, raft_value(key, head.encode())


def owner_value(group: int, log: int) -> tuple[bytes, bytes]:
    """Return key and value that say whose a log is."""
    key = raft_key(OWNER, group, 0, log)
    return key, raft_value(key, b"")


def image_values(
    group: int, slot: int, image: bytes, start: int = 0
) -> Iterator[tuple[bytes, bytes]]:
    """Return keys and values of an image's bytes from `start` on, which is where a part begins."""
    for at in range(0, len(image), PART_BYTES):
        key = raft_key(IMAGE, group, slot, (start + at) // PART_BYTES)
        yield key, raft_value(key, image[at : at + PART_BYTES])


def image_keys(group: int, slot: int, first: int, stop: int) -> list[bytes]:
    """Return the keys of the parts that an image of `stop` bytes has and one of `first` has not."""
    parts = range(-(-first // PART_BYTES), -(-stop // PART_BYTES))
    return [raft_key(IMAGE, group, slot, part) for part in parts]
