"""A toy queue, as the image of a group: entries are put in, and settled in any order.

    payload  b"P" ...            put: the entry is live from here on
             b"S" index:8 ...    settle: these indexes, as far as they are live, are so no more

As a real queue it leaves the bodies in the log: its state has but the index and checksum of each.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence

from fluffle.raft.config import NodeId
from fluffle.raft.log import DATA, Entry, SnapshotMeta
from fluffle.raft.ranges import Ranges


def put(number: int, padding: int) -> bytes:
    """A payload no other has."""
    return b"P" + struct.pack(">Q", number) + b"." * padding


def settle(indexes: Sequence[int]) -> bytes:
    return b"S" + struct.pack(f">{len(indexes)}Q", *indexes)


class Toy:
    """A `Machine`.  Deterministic: equal entries make equal images, and so equal digests."""

    __slots__ = ("applied", "digest", "live")

    def __init__(self) -> None:
        self.applied = 0
        self.live: dict[int, int] = {}
        """Index -> checksum of the entry, in the order of indexes."""
        self.digest = 0
        """Digest of everything above and of the way to it."""

    def apply(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._apply(entry)

    def _apply(self, entry: Entry) -> None:
        assert entry.index == self.applied + 1, f"{entry.index} behind {self.applied}"
        self.applied = entry.index
        crc = zlib.crc32(entry.payload)
        self.digest = hash((self.digest, entry.index, entry.term, entry.kind, crc))
        if entry.kind != DATA:
            return
        if entry.payload.startswith(b"P"):
            self.live[entry.index] = crc
        else:
            for (index,) in struct.iter_unpack(">Q", entry.payload[1:]):
                self.live.pop(index, None)

    def led(self, term: int) -> None:
        """A toy serves nobody."""

    def followed(self, term: int, leader: NodeId | None) -> None:
        """Nor did it."""

    def snapshot(self) -> tuple[Ranges, Iterator[bytes]]:
        """Snapshot that contains live values in full, for comparison."""
        live = Ranges.joined((index, index + 1) for index in self.live)
        rows: Iterable[int] = (value for pair in self.live.items() for value in pair)
        numbers = [self.applied, self.digest & 0xFFFFFFFFFFFFFFFF, *rows]
        return live, iter((struct.pack(f">{len(numbers)}Q", *numbers),))

    def restore(self, meta: SnapshotMeta, state: bytes) -> None:
        self.applied, self.digest, self.live = 0, 0, {}
        if meta.index:
            self.applied, digest, *rows = struct.unpack(f">{len(state) // 8}Q", state)
            self.digest = digest - (1 << 64) if digest >> 63 else digest
            self.live = dict(zip(rows[::2], rows[1::2], strict=True))
