"""One first-in-first-out lane of a queue: what is ready, and what came back.

    returned  ->  ready            the head is at the left; returned messages go first, because
    (heap)        (segments)       each of them is older than everything that is ready

A segment holds messages with consecutive sequence numbers.  A message costs its bytes and two
pointers, to them and to its origin; the segment around it is shared by a thousand.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush, heapreplace

from fluffle.broker.message import Origin

SEGMENT_MESSAGES_MAX = 1024
SEGMENT_BYTES_MAX = 1_048_576
"""A segment is not extended beyond these, because its memory goes when all of it has been read."""


class Segment:
    """Ready messages, the first `head` of them already taken."""

    __slots__ = ("content_bytes", "contents", "first_sequence", "head", "origins")

    def __init__(
        self, origins: list[Origin], contents: list[bytes], content_bytes: int, first_sequence: int
    ) -> None:
        self.origins = origins
        """Invariant, here and in every run: one a content."""
        self.contents = contents
        self.content_bytes = content_bytes
        """The summed length of all contents, taken or not: for the mean, not for accounts."""
        self.first_sequence = first_sequence
        self.head = 0


class Returned:
    """Messages that came back together, in rising sequence; read from `head` on."""

    __slots__ = ("contents", "head", "origins", "sequences")

    def __init__(
        self, origins: list[Origin], contents: list[bytes], sequences: Sequence[int]
    ) -> None:
        self.origins = origins
        self.contents = contents
        self.sequences = sequences
        self.head = 0

    @property
    def oldest(self) -> int:
        return self.sequences[self.head]

    def __lt__(self, other: "Returned") -> bool:
        return self.oldest < other.oldest


class Taken:
    """Messages taken off the head of a lane together."""

    __slots__ = ("contents", "origins", "redelivered", "sequences")

    def __init__(
        self,
        origins: list[Origin],
        contents: list[bytes],
        sequences: Sequence[int],
        *,
        redelivered: bool,
    ) -> None:
        self.origins = origins
        self.contents = contents
        self.sequences = sequences
        self.redelivered = redelivered


class Lane:
    """Messages in order; returned ones go back to their original place."""

    __slots__ = ("_ready", "_returned", "count")

    def __init__(self) -> None:
        self._ready: deque[Segment] = deque()
        self._returned: list[Returned] = []
        self.count = 0
        """Messages that can be taken."""

    def append(
        self, origin: Origin, contents: list[bytes], content_bytes: int, first_sequence: int
    ) -> None:
        """Add messages at the end, numbered from `first_sequence`, which is beyond all before.

        The caller keeps `contents` and must not change it.
        """
        count = len(contents)
        tail = self._ready[-1] if self._ready else None
        if (
            tail is not None
            and tail.first_sequence + len(tail.contents) == first_sequence
            and len(tail.contents) + count <= SEGMENT_MESSAGES_MAX
            and tail.content_bytes + content_bytes <= SEGMENT_BYTES_MAX
        ):
            tail.contents += contents
            tail.origins += [origin] * count
            tail.content_bytes += content_bytes
        else:
            self._ready.append(
                Segment([origin] * count, contents[:], content_bytes, first_sequence)
            )
        self.count += count

    def give_back(
        self, origins: list[Origin], contents: list[bytes], sequences: Sequence[int]
    ) -> None:
        """Put messages back to their original place.  `sequences` rises, one a content."""
        heappush(self._returned, Returned(origins, contents, sequences))
        self.count += len(contents)

    def available(self, bytes_max: int) -> int:
        """How many `take` would give at most, keeping to about `bytes_max` but at least one."""
        if self._returned:
            return self._oldest_returned()  # it went out in one run, so it is not too large
        segment = self._ready[0]
        mean_bytes = segment.content_bytes // len(segment.contents) + 1
        return min(len(segment.contents) - segment.head, bytes_max // mean_bytes or 1)

    def take(self, count: int) -> Taken:
        """The next messages, at most `count`; the lane must not be empty."""
        if self._returned:
            return self._take_returned(count)
        segment = self._ready[0]
        start = segment.head
        stop = min(start + count, len(segment.contents))
        first = segment.first_sequence
        origins, contents = segment.origins, segment.contents
        if stop - start < len(contents):
            origins, contents = origins[start:stop], contents[start:stop]
        segment.head = stop
        if stop == len(segment.contents):
            self._ready.popleft()
        self.count -= stop - start
        return Taken(origins, contents, range(first + start, first + stop), redelivered=False)

    def _oldest_returned(self) -> int:
        """How many messages of the foremost returned run are older than those of every other."""
        run, rivals = self._returned[0], self._returned[1:3]
        stop = len(run.contents)
        if rivals:
            stop = bisect_left(run.sequences, min(rivals).oldest, lo=run.head)
        return stop - run.head

    def _take_returned(self, count: int) -> Taken:
        run = self._returned[0]
        start = run.head
        stop = start + min(count, self._oldest_returned())
        run.head = stop
        if stop < len(run.contents):
            heapreplace(self._returned, run)
        else:
            heappop(self._returned)
        self.count -= stop - start
        return Taken(
            run.origins[start:stop],
            run.contents[start:stop],
            run.sequences[start:stop],
            redelivered=True,
        )

    def clear(self) -> int:
        """Forget every message that can be taken; how many there were."""
        dropped, self.count = self.count, 0
        self._ready.clear()
        self._returned.clear()
        return dropped
