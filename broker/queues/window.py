"""The keys of messages that a queue has taken lately, by which it knows those that come again.

    a key    digest:16  until:8      in the queue's time; 0: for as long as there is room

A digest stands for what the key says, so that each costs the same; that two keys have one is as
likely as that a disk lies.  So written, keys go to logs and snapshots, and come back the same.
"""

from __future__ import annotations

from collections import OrderedDict
from struct import Struct

DIGEST_BYTES = 16
KEY = Struct(f">{DIGEST_BYTES}sQ")


class Window:
    """Keys in the order in which they came, each once.  Everything here costs a constant."""

    __slots__ = ("_until_ms",)

    def __init__(self) -> None:
        self._until_ms: OrderedDict[bytes, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until_ms)

    def __contains__(self, digest: bytes) -> bool:
        """Whether a key is there, though its time may be over."""
        return digest in self._until_ms

    def knows(self, digest: bytes, now_ms: int) -> bool:
        """Whether a key is there whose time is not over."""
        until_ms = self._until_ms.get(digest)
        return until_ms is not None and (not until_ms or now_ms < until_ms)

    def add(self, packed: bytes) -> None:
        """These are the newest now, also those that were there.  `struct.error` for no keys."""
        until = self._until_ms
        for digest, until_ms in KEY.iter_unpack(packed):
            until[digest] = until_ms
            until.move_to_end(digest)

    def keep(self, count: int) -> None:
        """The oldest go, if there are more."""
        while len(self._until_ms) > count:
            self._until_ms.popitem(last=False)

    def drop_over(self, now_ms: int) -> None:
        """The oldest go, as far as their time is over: those behind one whose is not stay."""
        while self._until_ms:
            digest, until_ms = next(iter(self._until_ms.items()))
            if not until_ms or now_ms < until_ms:
                return
            del self._until_ms[digest]

    def packed(self) -> bytes:
        """All of them, the oldest first."""
        return b"".join(KEY.pack(*each) for each in self._until_ms.items())


def window_of(packed: bytes) -> Window:
    """What was packed.  `struct.error` for no keys."""
    window = Window()
    window.add(packed)
    return window
