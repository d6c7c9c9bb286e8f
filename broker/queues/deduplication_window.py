"""The keys of messages that a queue has taken lately, by which it knows those that come again.

    a key    digest:16  until:8      in the queue's time; 0: for as long as there is room

A digest stands for what the key says, so that each costs the same; that two keys have one is as
likely as that a disk lies.  So written, keys go to logs and snapshots, and come back the same: so
they lie in memory, too, one behind the other, and a snapshot copies them.
"""

from __future__ import annotations

from struct import Struct

DIGEST_BYTES = 16
KEY = Struct(f">{DIGEST_BYTES}sQ")

COMPACT_KEYS = 1024
"""Keys that are known no more are let go of once there are so many of them, and they are half."""


class DeduplicationWindow:
    """Keys in the order in which they came, each once.  Everything here costs a constant."""

    __slots__ = ("_before", "_first", "_holes", "_places", "_written")

    def __init__(self) -> None:
        self._written = bytearray()
        """Keys one behind the other, with some that are known no more."""
        self._before = 0
        """How many have been let go of that were in front of these."""
        self._first = 0
        """The place of the oldest key, counted from the first that ever was."""
        self._places: dict[bytes, int] = {}
        """Where each key is, so counted."""
        self._holes: set[int] = set()
        """Places behind the first of keys that came again, and are known from there."""

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, digest: bytes) -> bool:
        """True if a key is there, though its time may be over."""
        return digest in self._places

    def knows(self, digest: bytes, now_ms: int) -> bool:
        """True if a key is there whose time is not over."""
        place = self._places.get(digest)
        return place is not None and not self._is_over(place, now_ms)

    def _is_over(self, place: int, now_ms: int) -> bool:
        _digest, until_ms = self._at(place)
        return bool(until_ms) and until_ms <= now_ms

    def _at(self, place: int) -> tuple[bytes, int]:
        digest, until_ms = KEY.unpack_from(self._written, (place - self._before) * KEY.size)
        return digest, until_ms

    def add(self, packed: bytes) -> None:
        """These are the newest now, also those that were there.  `struct.error` for no keys."""
        places, behind = self._places, self._before + len(self._written) // KEY.size
        for place, (digest, _until_ms) in enumerate(KEY.iter_unpack(packed), start=behind):
            if digest in places:
                self._holes.add(places[digest])
            places[digest] = place
        self._written += packed
        if len(self._holes) > COMPACT_KEYS + len(places):
            self._begin_with(self.packed())

    def _begin_with(self, packed: bytes) -> None:
        """These are all."""
        self._written, self._before, self._first = bytearray(), 0, 0
        self._places, self._holes = {}, set()
        self.add(packed)

    def keep(self, count: int) -> None:
        """The oldest go, if there are more."""
        if not count:
            self._begin_with(b"")
        while len(self._places) > count:
            self._drop_first()
        self._let_go()

    def drop_over(self, now_ms: int) -> None:
        """The oldest go, as far as their time is over: those behind one whose is not stay."""
        while self._places:
            self._pass_holes()
            if not self._is_over(self._first, now_ms):
                break
            self._drop_first()
        self._let_go()

    def _drop_first(self) -> None:
        self._pass_holes()
        digest, _until_ms = self._at(self._first)
        del self._places[digest]
        self._first += 1

    def _pass_holes(self) -> None:
        while self._first in self._holes:
            self._holes.remove(self._first)
            self._first += 1

    def _let_go(self) -> None:
        """Drop the bytes of keys in front of the first, once they are more than half."""
        over = self._first - self._before
        if over > COMPACT_KEYS and 2 * over * KEY.size > len(self._written):
            del self._written[: over * KEY.size]
            self._before = self._first

    def packed(self) -> bytes:
        """All of them, the oldest first."""
        pieces = list[bytearray]()
        at = self._first
        for hole in sorted(self._holes):
            pieces.append(self._between(at, hole))
            at = hole + 1
        pieces.append(self._between(at, None))
        return b"".join(pieces)

    def _between(self, place: int, stop: int | None) -> bytearray:
        end = None if stop is None else (stop - self._before) * KEY.size
        return self._written[(place - self._before) * KEY.size : end]

    def copy(self) -> DeduplicationWindow:
        """Another with the same keys, which then changes by itself."""
        other = DeduplicationWindow()
        other._written, other._before, other._first = self._written[:], self._before, self._first
        other._places, other._holes = self._places.copy(), self._holes.copy()
        return other


def window_of(packed: bytes) -> DeduplicationWindow:
    """Window of packed keys.  `struct.error` for no keys."""
    window = DeduplicationWindow()
    window.add(packed)
    return window
