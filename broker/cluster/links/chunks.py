"""Frames as chunks on the wire and back, and the queue in which they wait to be sent.

    WHOLE   tag, kind, size (4)               a frame that fits into one chunk
    FIRST   tag, kind, size (4), total (4)    the beginning of one that does not
    MORE    tag, kind, size (4), offset (4)   what follows, from that offset, of the same class
    HEARTBEAT    tag, 0, 0 (4)                nothing: a sign of life
    ACK     tag, 0, count (4)                 so many bytes of that class have been read

The first three are followed by `size` bytes of the frame.  A tag is the shape in its high half, the
traffic class in the low one.  The end that receives frames sends nothing but the last two.  Each
class has at most one frame that is not whole yet, so chunks of three frames may alternate, and
the sender can put something urgent between any two.

Decoding believes nothing: what is not exactly such a sequence is a fault, behind which nothing is
read.  It holds no more than has come: a claimed total reserves nothing.

**Order.**  URGENT goes before everything, so what waits in it is behind one chunk at most.  NORMAL
goes before BULK, but a quarter of what both send is BULK, so that a node that is catching up gets
there while others work.  A frame is cut as it goes out; until then it is the payload as it was
given.

**Bounds.**  What is under way of NORMAL and of BULK, given out and not acknowledged, is bounded: an
urgent frame has no more than that before it, wherever it lies and however busy the other end is.
Without, it would be the megabytes that the kernels at both ends take (benchmarks.links).  What
waits is bounded, too: what does not fit is not taken, and its caller sees to that.  No frame counts
for more than half of its class: one of which less waits takes any frame, however large an operator
lets messages be, and a sender that looks first is never refused.
"""

from collections import deque
from collections.abc import Collection, Mapping
from struct import Struct

from fluffle.broker.cluster.ports import Payload, TrafficClass

CHUNK_BYTES_MAX = 262_144
"""Bytes of a frame in one chunk: at 1 Gbit/s an urgent frame waits two milliseconds behind it."""

SMALL_CHUNK_BYTES = 4_096
"""Parts of a frame that come one after the other and are smaller are kept as one."""

ACK_BYTES = 256 << 10
"""Read of a class before that is said; a small part of what may be under way (`WINDOW_BYTES`)."""

URGENT, NORMAL, BULK = TrafficClass

WINDOW_BYTES = {NORMAL: 4 << 20, BULK: 1 << 20}
"""Under way, or a piece more.  1 MiB keeps 1 GB/s busy if there and back takes a millisecond."""

NORMAL_SHARE_BYTES = 3 * CHUNK_BYTES_MAX
"""Bytes of NORMAL frames to one chunk of BULK, while both wait."""

FRAME_COST_BYTES = 128
"""Bytes that a waiting frame counts beside its payload, so that empty ones are bounded, too."""

WHOLE, FIRST, MORE, HEARTBEAT, ACK = 0x10, 0x20, 0x30, 0x40, 0x50
"""Shapes."""

_SHAPE, _TRAFFIC_CLASS = 0xF0, 0x0F

_SIGNS = frozenset((HEARTBEAT, ACK))

_short = Struct(">BBI")

_long = Struct(">BBII")

_HEADS = {
    HEARTBEAT: _short,
    **{shape | traffic: _short for shape in (WHOLE, ACK) for traffic in TrafficClass},
    **{shape | traffic: _long for shape in (FIRST, MORE) for traffic in TrafficClass},
}
"""Tag -> how the head is laid out; there are no other tags."""

HEARTBEAT_CHUNK = _short.pack(HEARTBEAT, 0, 0)


class OutgoingFrame:
    """A frame that is cut as it goes out; nothing of it is copied."""

    __slots__ = ("_at", "_kind", "_parts", "_skipped", "gone", "total")

    def __init__(self, kind: int, payload: Payload) -> None:
        self._kind = kind
        self._parts = parts = (payload,) if isinstance(payload, bytes) else payload
        self._at = 0
        """Index of the part that is next."""
        self._skipped = 0
        """How much of that part has gone."""
        self.gone = 0
        """Bytes of the frame that were taken."""
        self.total = sum(map(len, parts))

    def piece(self, traffic: int) -> list[bytes | memoryview]:
        """The next piece: its head, and its content in parts."""
        total, start = self.total, self.gone
        if total <= CHUNK_BYTES_MAX:
            self.gone = total
            return [_short.pack(WHOLE | traffic, self._kind, total), *self._parts]
        size = min(CHUNK_BYTES_MAX, total - start)  # mutant: LI1
        self.gone += size
        if start:
            return [_long.pack(MORE | traffic, self._kind, size, start), *self._cut(size)]
        return [_long.pack(FIRST | traffic, self._kind, size, total), *self._cut(size)]

    def _cut(self, size: int) -> list[memoryview]:
        """Next `size` bytes."""
        cut = []
        while size:
            part = memoryview(self._parts[self._at])[self._skipped : self._skipped + size]
            cut.append(part)
            size -= len(part)
            self._skipped += len(part)
            if self._skipped == len(self._parts[self._at]):
                self._at, self._skipped = self._at + 1, 0
        return cut


class BadChunk(Exception):
    """Bytes that are no piece, or one that cannot come now; says what is wrong with them."""


class IncomingFrame:
    """A frame of which not everything has come."""

    __slots__ = ("_parts", "have", "kind", "total")

    def __init__(self, kind: int, total: int) -> None:
        self.kind = kind
        self.total = total
        self.have = 0
        """Bytes that have come."""
        self._parts: list[bytes | memoryview] = []
        """These, in order."""

    def add(self, data: bytes, start: int, stop: int) -> None:
        """Append the bytes of a read from `start` up to `stop`.

        Crumbs are joined, so that small reads cost no more than large ones.  What is most of a read
        stays where it is, for it is copied once it is whole.
        """
        size = stop - start
        self.have += size
        if 2 * size > len(data) >= SMALL_CHUNK_BYTES:
            self._parts.append(memoryview(data)[start:stop])
            return
        part, last = data[start:stop], self._parts[-1] if self._parts else None
        if size < SMALL_CHUNK_BYTES and isinstance(last, bytes) and len(last) < SMALL_CHUNK_BYTES:
            self._parts[-1] = last + part
        else:
            self._parts.append(part)

    def payload(self) -> bytes:
        """All of it."""
        return b"".join(self._parts)


class ChunkDecoder:
    """Bytes in, whole frames out; one for each connection."""

    def __init__(self, kinds: Collection[int], *, frame_bytes_max: int) -> None:
        """Frames of other kinds are a fault.  With none this is the end that sends them."""
        self._kinds = kinds
        self._frame_bytes_max = frame_bytes_max
        self._unfinished: dict[int, IncomingFrame] = {}
        """Unfinished frames by traffic class."""
        self._traffic = 0
        """Traffic class of the chunk that is being read."""
        self._missing = 0
        """Bytes of that piece that are still to come."""
        self._rest = b""
        """Bytes of a chunk's head that has not arrived whole."""
        self._unsaid = [0 for _ in TrafficClass]
        """Bytes of each class that were read and not acknowledged."""
        self.is_ack_due = False
        """True if `acknowledge` has enough to say."""
        self.acknowledged = [0 for _ in TrafficClass]
        """Bytes that the peer has acknowledged, by class; the caller that handles them resets them
        to 0."""
        self.fault: str | None = None
        """Fault of the stream, after which nothing is read."""

    @property
    def held_bytes(self) -> int:
        """Bytes of unfinished frames and heads."""
        held = sum(frame.have for frame in self._unfinished.values())
        return len(self._rest) + held

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """(kind, payload) of each frame that is whole by now.  Look at `fault` afterwards."""
        frames: list[tuple[int, bytes]] = []
        if self.fault is None:
            if self._rest:
                data, self._rest = self._rest + data, b""
            try:
                self._read(data, frames)
            except BadChunk as error:
                self.fault = str(error)
                self._unfinished.clear()
        return frames

    def acknowledge(self) -> bytes:
        """Acknowledgements to send for what was read, if it is enough."""
        said = b""
        self.is_ack_due = False
        for traffic, size in enumerate(self._unsaid):
            if size >= ACK_BYTES:
                said += _short.pack(ACK | traffic, 0, size)
                self._unsaid[traffic] = 0
        return said

    def _read(self, data: bytes, frames: list[tuple[int, bytes]]) -> None:
        at, end = 0, len(data)
        while at < end:
            if self._missing:
                at = self._fill(data, at, frames)
                continue
            head = _HEADS.get(data[at])
            if head is None:
                raise BadChunk(f"a tag of {data[at]}")
            if end - at < head.size:
                self._rest = data[at:]
                return
            tag, kind, size, *number = head.unpack_from(data, at)
            at += head.size
            shape, traffic = tag & _SHAPE, tag & _TRAFFIC_CLASS
            if shape in _SIGNS:
                self._on_sign(shape, traffic, kind, size)
                continue
            is_simple = shape == WHOLE and not self._unfinished and size <= CHUNK_BYTES_MAX
            if not is_simple or kind not in self._kinds:
                self._check(shape, traffic, kind, size, *number)
            if shape == WHOLE and size <= end - at:
                # Most frames are whole in a read: a slice of it, because that is faster than to
                # keep them first (benchmarks.links).
                frames.append((kind, data[at : at + size]))
                self._unsaid[traffic] += size
                self.is_ack_due |= self._unsaid[traffic] >= ACK_BYTES
                at += size
                continue
            if shape != MORE:
                self._unfinished[traffic] = IncomingFrame(kind, number[0] if number else size)
            self._traffic = traffic
            self._missing = size

    def _check(self, shape: int, traffic: int, kind: int, size: int, number: int = 0) -> None:
        """Check that this chunk may come now.  Raises `BadChunk`."""
        if kind not in self._kinds:
            raise BadChunk(f"a frame of kind {kind}")
        if size > CHUNK_BYTES_MAX:
            raise BadChunk(f"a piece of {size} bytes")
        frame = self._unfinished.get(traffic)
        if shape == MORE:
            self._check_more(frame, kind, size, number)
        elif frame is not None:
            raise BadChunk("a frame within another")
        elif shape == FIRST and not 0 < size < number <= self._frame_bytes_max:
            raise BadChunk(f"the first {size} bytes of a frame of {number}")

    def _on_sign(self, shape: int, traffic: int, kind: int, count: int) -> None:
        """Handle a chunk without content.  Raises `BadChunk`."""
        if kind or (shape == HEARTBEAT and count):
            raise BadChunk("a sign that holds something")
        if shape == ACK:
            if self._kinds:
                raise BadChunk("an acknowledgement of what was never sent")
            self.acknowledged[traffic] += count

    def _check_more(self, frame: IncomingFrame | None, kind: int, size: int, offset: int) -> None:
        if frame is None:
            raise BadChunk("more of a frame that never began")
        have = frame.have
        if kind != frame.kind or offset != have or not 0 < size <= frame.total - have:
            raise BadChunk(
                f"{size} bytes of kind {kind} at {offset}, behind {have} of {frame.total} of kind "
                f"{frame.kind}"
            )

    def _fill(self, data: bytes, at: int, frames: list[tuple[int, bytes]]) -> int:
        """Take content of the piece that is being read; where what follows it begins."""
        frame = self._unfinished[self._traffic]
        stop = min(at + self._missing, len(data))
        self._missing -= stop - at
        self._unsaid[self._traffic] += stop - at
        self.is_ack_due |= self._unsaid[self._traffic] >= ACK_BYTES
        frame.add(data, at, stop)
        if frame.have == frame.total:
            frames.append((frame.kind, frame.payload()))
            del self._unfinished[self._traffic]
        return stop


class LinkSendQueue:
    """Send queue of a link: frames in, chunks out."""

    def __init__(self, bytes_max: Mapping[TrafficClass, int]) -> None:
        self._bytes_max = [bytes_max[traffic] for traffic in TrafficClass]
        self._frames: list[deque[OutgoingFrame]] = [deque() for _ in TrafficClass]
        """Frames by traffic class."""
        self._normal_bytes = 0
        """Taken of NORMAL since the last piece of BULK."""
        self._under_way = [0 for _ in TrafficClass]
        """Taken and not acknowledged, by class."""
        self.waiting_bytes = [0 for _ in TrafficClass]
        """Bytes put and not taken, by class; each frame with its cost."""

    def put(self, traffic: TrafficClass, kind: int, payload: Payload) -> bool:
        """True if there is room for it, in which case it has been taken."""
        frame, waiting = OutgoingFrame(kind, payload), self.waiting_bytes[traffic]
        size = frame.total + FRAME_COST_BYTES
        limit = self._bytes_max[traffic]
        if waiting and waiting + min(size, limit // 2) > limit:
            return False
        self._frames[traffic].append(frame)
        self.waiting_bytes[traffic] = waiting + size
        return True

    def take(self, enough_bytes: int) -> list[bytes | memoryview]:
        """Chunks to send next, up to `enough_bytes` or all there are.

        The last piece may exceed `enough_bytes` by all but one byte of it.
        """
        taken: list[bytes | memoryview] = []
        taken_bytes = 0
        while (
            taken_bytes < enough_bytes
            and any(self._frames)
            and (traffic := self._next_class()) is not None
        ):
            frames = self._frames[traffic]
            frame = frames[0]
            before = frame.gone
            piece = frame.piece(traffic)
            taken += piece
            size = frame.gone - before
            taken_bytes += len(piece[0]) + size
            self._under_way[traffic] += size
            self.waiting_bytes[traffic] -= size
            if frame.gone == frame.total:
                frames.popleft()
                self.waiting_bytes[traffic] -= FRAME_COST_BYTES
            if traffic is NORMAL:
                self._normal_bytes += size
            elif traffic is BULK:
                self._normal_bytes = 0
        return taken

    def acknowledge(self, traffic: TrafficClass, size: int) -> None:
        """Count acknowledged bytes.  ValueError if so many were not under way."""
        if size > self._under_way[traffic]:
            raise ValueError(f"{size} bytes are acknowledged of {self._under_way[traffic]}")
        self._under_way[traffic] -= size

    @property
    def is_held_back(self) -> bool:
        """True if something waits for an acknowledgement."""
        return any(self._frames[traffic] and not self._may_go(traffic) for traffic in WINDOW_BYTES)

    def _may_go(self, traffic: TrafficClass) -> bool:
        return self._under_way[traffic] < WINDOW_BYTES[traffic]  # mutant: LI2

    def _next_class(self) -> TrafficClass | None:
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
