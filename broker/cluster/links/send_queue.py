"""Send queue of one node: frames by traffic class, and the order in which they go out.

URGENT goes before everything, so what waits in it is behind one piece at most.  NORMAL goes before
BULK, but a quarter of what both send is BULK, so that a node that is catching up gets there while
others work.  A frame is cut as it goes out; until then it is the payload as it was given.

What is under way of NORMAL and of BULK, given out and not acknowledged, is bounded: an urgent frame
has no more than that before it, wherever it lies and however busy the other end is.  Without, it
would be the megabytes that the kernels at both ends take (benchmarks.links).

Each lane is bounded.  What does not fit is not taken; what that means is for the caller to say.  No
frame counts for more than half of its lane: one of which less waits takes any frame, however large
an operator lets messages be, and who looks first is never refused.
"""

from collections import deque
from collections.abc import Mapping

from fluffle.broker.cluster.links.chunks import CHUNK_BYTES_MAX, OutgoingFrame
from fluffle.broker.cluster.msgpack_parts import Payload
from fluffle.broker.cluster.ports import TrafficClass

URGENT, NORMAL, BULK = TrafficClass

WINDOW_BYTES = {NORMAL: 4 << 20, BULK: 1 << 20}
"""Under way, or a piece more.  1 MiB keeps 1 GB/s busy if there and back takes a millisecond."""
NORMAL_SHARE_BYTES = 3 * CHUNK_BYTES_MAX
"""Of NORMAL to a piece of BULK, while both wait."""
FRAME_COST_BYTES = 128
"""What a frame that waits costs beside its payload, so that empty ones are bounded, too."""


class LinkSendQueue:
    """Send queue of a link: frames in, chunks out."""

    __slots__ = (
        "_bytes_max", "_frames", "_normal_bytes", "_under_way", "waiting_bytes",
    )  # fmt: skip

    def __init__(self, bytes_max: Mapping[TrafficClass, int]) -> None:
        self._bytes_max = [bytes_max[lane] for lane in TrafficClass]
        self._frames: list[deque[OutgoingFrame]] = [deque() for _ in TrafficClass]
        """By lane."""
        self._normal_bytes = 0
        """Taken of NORMAL since the last piece of BULK."""
        self._under_way = [0 for _ in TrafficClass]
        """Taken and not acknowledged, by lane."""
        self.waiting_bytes = [0 for _ in TrafficClass]
        """What was put and not taken, by lane; each frame with its cost."""

    def put(self, lane: TrafficClass, kind: int, payload: Payload) -> bool:
        """Whether there is room for it, in which case it has been taken."""
        frame, waiting = OutgoingFrame(kind, payload), self.waiting_bytes[lane]
        size = frame.total + FRAME_COST_BYTES
        limit = self._bytes_max[lane]
        if waiting and waiting + min(size, limit // 2) > limit:
            return False
        self._frames[lane].append(frame)
        self.waiting_bytes[lane] = waiting + size
        return True

    def take(self, enough_bytes: int) -> list[bytes | memoryview]:
        """What goes out next: until it is enough, or nothing is left.

        The last piece may exceed `enough_bytes` by all but one byte of it.
        """
        taken: list[bytes | memoryview] = []
        taken_bytes = 0
        while taken_bytes < enough_bytes and (lane := self._next_lane()) is not None:
            taken_bytes += self._take_piece(lane, taken)
        return taken

    def acknowledge(self, lane: TrafficClass, size: int) -> None:
        """So much has been read.  ValueError if so much was not under way."""
        if size > self._under_way[lane]:
            raise ValueError(f"{size} bytes are acknowledged of {self._under_way[lane]}")
        self._under_way[lane] -= size

    @property
    def is_held_back(self) -> bool:
        """Whether something waits for an acknowledgement."""
        return any(self._frames[lane] and not self._may_go(lane) for lane in WINDOW_BYTES)

    def _may_go(self, lane: TrafficClass) -> bool:
        return self._under_way[lane] < WINDOW_BYTES[lane]  # mutant: LI2

    def _next_lane(self) -> TrafficClass | None:
        urgent, normal, bulk = self._frames
        if urgent:  # mutant: R20
            return URGENT
        may_bulk = bool(bulk) and self._may_go(BULK)
        if (
            normal
            and self._may_go(NORMAL)
            and not (may_bulk and self._normal_bytes >= NORMAL_SHARE_BYTES)  # mutant: LI3
        ):
            return NORMAL
        return BULK if may_bulk else None

    def _take_piece(self, lane: TrafficClass, taken: list[bytes | memoryview]) -> int:
        frames = self._frames[lane]
        frame = frames[0]
        before = frame.gone
        piece = frame.piece(lane)
        taken += piece
        size = frame.gone - before
        self._under_way[lane] += size
        self.waiting_bytes[lane] -= size
        if frame.gone == frame.total:
            frames.popleft()
            self.waiting_bytes[lane] -= FRAME_COST_BYTES
        if lane is NORMAL:
            self._normal_bytes += size
        elif lane is BULK:
            self._normal_bytes = 0
        return len(piece[0]) + size
