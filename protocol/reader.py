"""Reader of a socket's bytes: frames, content assembly, runs of the hot methods.

    0      1         3             7                  size+7
    +------+---------+-------------+------------------+-----+
    | kind | channel |    size     |     payload      | CE  |    AMQP 0-9-1 §2.3.5, §4.2.3
    +------+---------+-------------+------------------+-----+

What it saw are events, a batch at a time; nothing else is called an event.

Rule 1: this file knows two methods, basic.publish and basic.ack, because they come in runs.
Rule 2: it decides nothing about channels or phases; that is for the receiver of the events.
Rule 3: it keeps no reference to a read buffer beyond an unfinished frame, unless it is waiting.
Rule 4: what it keeps is bounded: one frame, or a message no longer than one, and other messages
that are not whole up to a limit.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from struct import Struct
from typing import TypeAlias

from fluffle.protocol.hot import (
    ACK_FRAME_BYTES,
    HEAD_BYTES_MAX,
    Head,
    measure_message,
    scan_acks,
    scan_publishes,
)
from fluffle.protocol.properties import outline, raw_properties
from fluffle.protocol.spec import (
    CLASS_BASIC,
    FRAME_BODY,
    FRAME_END,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_OVERHEAD_BYTES,
    METHOD_PUBLISH,
    PROTOCOL_HEADER,
    ProtocolError,
    ReplyCode,
)


@dataclass(slots=True)
class Publishes:
    """Messages that came one after another on a channel, and of whose properties a broker reads
    the same."""

    channel: int
    methods: list[bytes]
    """The basic.publish frame of each as received: the key under which routes are remembered."""
    contents: list[bytes]
    """Each message's content in canonical form (see `properties`)."""
    content_bytes: int
    """The summed length of `contents`."""
    outline: bytes
    """Properties that a broker reads, packed (see `properties`)."""


@dataclass(slots=True)
class MessageStarted:
    """Start of a message that is not whole yet: what is wrong with it shows now."""

    channel: int


@dataclass(slots=True)
class Acks:
    """basic.ack: every tag from `first` to `last`, or (`multiple`) all up to `last`."""

    channel: int
    first: int
    last: int
    multiple: bool


@dataclass(slots=True)
class MethodReceived:
    """Any other method: its payload from the class id on, not decoded yet."""

    channel: int
    payload: bytes


@dataclass(slots=True)
class Oversized:
    """A message beyond the size limit; its body was discarded as it came."""

    channel: int
    body_bytes: int


@dataclass(slots=True)
class HeaderReceived:
    """The eight bytes that open a connection, right or wrong."""

    header: bytes
    channel: int = 0


@dataclass(slots=True)
class Violation:
    """Bytes that AMQP does not allow; always the last event, nothing behind it was read."""

    channel: int
    error: ProtocolError


Event: TypeAlias = (
    Publishes | MessageStarted | Acks | MethodReceived | Oversized | HeaderReceived | Violation
)


def method_ids(event: Event) -> tuple[int, int]:
    """Return the class and method id that an error about this event names; 0 and 0 without a
    method."""
    if isinstance(event, MethodReceived):
        payload = event.payload
        return int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:4], "big")
    return METHOD_IDS.get(type(event), (0, 0))


METHOD_IDS: dict[type[Event], tuple[int, int]] = {
    Publishes: (60, 40),
    MessageStarted: (60, 40),
    Oversized: (60, 40),
    Acks: (60, 80),
}


CONTENT_BYTES_MAX = 536_870_912
"""The largest body AMQP peers of RabbitMQ may announce; beyond, the connection is closed."""

OVERSHOOT_BYTES = 8
"""RabbitMQ lets a frame be this much larger than negotiated."""

HEADS_MAX = 1024
"""Publishers that use more exchanges and routing keys at once are read a little slower."""

EVENTS_MAX = 256
"""Read at once: a read holds some ten thousand small frames, and as objects they would cost much
more memory than as bytes, and hold up the other connections."""

WORK_BYTES_MAX = 1 << 15
"""How much is looked at before the reader stops, which takes some milliseconds at most."""

FRAME_WORK_BYTES = 32
"""Work that each frame unlike the one before adds to that: a read may hold tens of
thousands of them."""

PART_BYTES_MIN = 4096
"""Smaller body frames of an unfinished message are joined as they come."""

PART_OVERHEAD_BYTES = 64
"""The cost of a part of an unfinished message beside its payload."""

PUBLISH = b"\x00\x3c\x00\x28"
ACK = b"\x00\x3c\x00\x50"

unpack_frame = Struct(">BHI").unpack_from
unpack_header = Struct(">HHQH").unpack_from
unpack_ack = Struct(">QB").unpack_from
pack_frame = Struct(">BHI").pack


@dataclass(slots=True, eq=False)
class Assembly:
    """Message whose header or body has not come whole: the road for uncommon shapes."""

    method_frame: bytes
    held_bytes: int = 0
    """Bytes kept of it."""
    header: bytes = b""
    body_bytes: int = 0
    body_bytes_missing: int = 0
    parts: list[bytes | bytearray] = field(default_factory=list)
    """The body so far; stays empty when the message is over the size limit."""

    def add(self, payload: bytes) -> int:
        """Keep more of the body; how many bytes that costs."""
        last = self.parts[-1] if self.parts else None
        if isinstance(last, bytearray) and len(last) < PART_BYTES_MIN:
            last += payload
            return len(payload)
        self.parts.append(payload if len(payload) >= PART_BYTES_MIN else bytearray(payload))
        return len(payload) + PART_OVERHEAD_BYTES

    def content(self) -> bytes:
        """Content of the message in canonical form."""
        header = pack_frame(FRAME_HEADER, 1, len(self.header)) + self.header + b"\xce"
        if not self.body_bytes:
            return header
        return b"".join([header, pack_frame(FRAME_BODY, 1, self.body_bytes), *self.parts, b"\xce"])


class Reader:
    """Splits what a peer sends into events.  After a Violation it reads no more.

    It stops after EVENTS_MAX of them, or some milliseconds, and goes on with `go_on`.

    Until `open` there are no messages, and methods come one at a time, because the answer to one
    (a higher frame limit, or `open`) changes how the next is read.
    """

    __slots__ = (
        "_assemblies",
        "_awaited_bytes",
        "_events",
        "_heads",
        "_is_closing",
        "_is_negotiating",
        "_message_bytes_max",
        "_missing_bytes",
        "_open",
        "_pending",
        "_rest",
        "_rest_at",
        "_unfinished_bytes",
        "_unfinished_bytes_max",
        "_work_bytes",
        "frame_bytes_max",
        "is_broken",
        "is_waiting",
    )

    def __init__(
        self, *, frame_bytes_max: int, message_bytes_max: int, unfinished_bytes_max: int
    ) -> None:
        self.frame_bytes_max = frame_bytes_max
        """Frames may be this large in all; raised once the connection has been tuned."""
        self.is_waiting = False
        """True if there is more to read in what was fed: `go_on` once the events are acted on."""
        self.is_broken = False
        """True if there was a Violation, so that nothing can be read any more."""
        self._is_negotiating = True
        self._is_closing = False
        self._message_bytes_max = message_bytes_max
        self._unfinished_bytes_max = unfinished_bytes_max
        self._unfinished_bytes = 0
        """Bytes kept of all unfinished messages."""
        self._pending: list[bytes] = []
        """The start of an unfinished frame, in the pieces in which it came."""
        self._missing_bytes = 0
        """Bytes that the unfinished frame lacks at least: until then pieces are only collected."""
        self._awaited_bytes = 0
        """Bytes missing of a message that is no longer than a frame may be, and is kept like
        one."""
        self._open = False
        self._assemblies: dict[int, Assembly] = {}
        self._heads: dict[bytes, Head] = {}
        """How messages began (see `scan_publishes`)."""
        self._events: list[Event] = []
        self._work_bytes = 0
        """Bytes worth of work since it was fed, or asked to go on."""
        self._rest, self._rest_at = b"", 0
        """The bytes that it goes on with, and where, while it is waiting."""

    @property
    def is_amid(self) -> bool:
        """True if the last of what was fed is not whole: a frame, or a message."""
        return bool(self._pending or self._assemblies)

    def open(self) -> None:
        """Let the peer use channels from now on."""
        self._is_negotiating = False

    def close(self) -> None:
        """Read only methods from now on; messages that are not whole are dropped."""
        self._is_negotiating, self._is_closing = False, True
        self._assemblies.clear()
        self._unfinished_bytes = 0

    def discard(self) -> None:
        """Drop all that was fed: nothing will be read any more."""
        self.close()
        self.is_broken, self.is_waiting = True, False
        self._pending.clear()
        self._heads.clear()
        self._events = []
        self._rest = b""

    def forget_beyond(self, count: int) -> None:
        """Forget how messages began if more than `count` beginnings are remembered."""
        if len(self._heads) > count:
            self._heads.clear()

    def go_on(self) -> list[Event]:
        """Yield what there is to read in what was fed already."""
        return self.feed(b"")

    def feed(self, data: bytes) -> list[Event]:
        """Decode events that `data` completes, in order; less if the reader `is_waiting`."""
        events: list[Event] = []
        self._events = events
        self._work_bytes = 0
        was_waiting, self.is_waiting = self.is_waiting, False
        if self.is_broken:
            return events
        position = 0
        if was_waiting:
            rest, position, self._rest = self._rest, self._rest_at, b""
            data, position = (rest[position:] + data, 0) if data else (rest, position)
        elif self._pending:
            if len(data) < self._missing_bytes:
                self._pending.append(data)
                self._missing_bytes -= len(data)
                return events
            data, position = self._go_on(data)
        if not self._open:
            if len(data) < len(PROTOCOL_HEADER):
                self._keep(data, missing_bytes=len(PROTOCOL_HEADER) - len(data))
                return events
            self._open = True
            position = len(PROTOCOL_HEADER)
            events.append(HeaderReceived(data[:position]))
        position = self._frames(data, position)
        if self.is_waiting:
            self._rest, self._rest_at = data, position
        elif position < len(data):
            self._keep(data[position:], missing_bytes=self._missing(data, position))
        return events

    def _go_on(self, data: bytes) -> tuple[bytes, int]:
        """Read what is pending, with what it lacked; in what to go on then, and where.

        Nothing more of `data` is copied, if that made it whole.
        """
        is_free = self._open and not self._is_negotiating
        missing = max(self._missing_bytes, 0) if is_free else 0
        begun = b"".join((*self._pending, data[:missing]))
        self._pending.clear()
        position = self._frames(begun, 0) if missing else 0
        if position == len(begun):
            return data, len(data) if self.is_broken else missing
        return begun[position:] + data[missing:], 0

    def _keep(self, rest: bytes, *, missing_bytes: int) -> None:
        if rest:
            self._pending.append(rest)
            self._missing_bytes = missing_bytes

    def _missing(self, buffer: bytes, position: int) -> int:
        """Return how many bytes are missing of what begins at `position`, as far as is known."""
        if self._awaited_bytes:
            return self._awaited_bytes
        have = len(buffer) - position
        if have < FRAME_OVERHEAD_BYTES:
            return FRAME_OVERHEAD_BYTES - have
        size: int = unpack_frame(buffer, position)[2]
        return FRAME_OVERHEAD_BYTES + size - have

    def _frames(self, buffer: bytes, position: int) -> int:
        self._awaited_bytes = 0
        length = len(buffer)
        payload_bytes_max = self.frame_bytes_max - FRAME_OVERHEAD_BYTES
        while length - position >= FRAME_OVERHEAD_BYTES and not self._is_held_up:
            kind, channel, size = unpack_frame(buffer, position)
            end = position + FRAME_OVERHEAD_BYTES + size
            try:
                if size > payload_bytes_max + OVERSHOOT_BYTES:
                    raise frame_too_large(kind, size, payload_bytes_max)
                if end > length:
                    break
                if buffer[end - 1] != FRAME_END:
                    raise ProtocolError(
                        ReplyCode.FRAME_ERROR, f"frame end octet is {buffer[end - 1]}, not 206"
                    )
                if len(self._events) >= EVENTS_MAX or self._work_bytes >= WORK_BYTES_MAX:
                    self.is_waiting = True
                    break
                if kind == FRAME_METHOD:
                    position = self._method(buffer, position, end, channel)
                    continue
                self._work_bytes += FRAME_WORK_BYTES
                FRAMES.get(kind, unknown_kind)(self, channel, buffer[position + 7 : end - 1])
            except ProtocolError as error:
                self._events.append(Violation(channel, error))
                self.is_broken = True
                return length
            position = end
        return position

    @property
    def _is_held_up(self) -> bool:
        """True if nothing more is read of what was fed, for now."""
        return self.is_waiting or self._awaited_bytes > 0

    def _method(self, buffer: bytes, position: int, end: int, channel: int) -> int:
        """Read the method at `position` and the run of its like behind it; where that ends."""
        if self._assemblies and channel in self._assemblies:
            raise out_of_order(self._assemblies[channel])
        signature = buffer[position + 7 : position + 11]
        if signature == PUBLISH and not self._is_negotiating:
            return self._publishes(buffer, position, end, channel)
        if signature == ACK and end - position == ACK_FRAME_BYTES:
            first, count = scan_acks(buffer, position, buffer[position : position + 11])
            if count:
                self._events.append(Acks(channel, first, first + count - 1, multiple=False))
                return position + count * ACK_FRAME_BYTES
            tag, bits = unpack_ack(buffer, position + 11)
            self._events.append(Acks(channel, tag, tag, multiple=bool(bits & 1)))
            return end
        self._events.append(MethodReceived(channel, buffer[position + 7 : end - 1]))
        self.is_waiting = self._is_negotiating and end < len(buffer)
        return end

    def _publishes(self, buffer: bytes, position: int, end: int, channel: int) -> int:
        if self._is_closing:
            return end
        methods: list[bytes] = []
        contents: list[bytes] = []
        whole_bytes_max = min(self.frame_bytes_max - FRAME_OVERHEAD_BYTES, self._message_bytes_max)
        if len(self._heads) >= HEADS_MAX:
            self._heads.clear()
        stop, content_bytes, read = scan_publishes(
            buffer, position, whole_bytes_max, methods, contents, heads=self._heads
        )
        self._work_bytes += FRAME_WORK_BYTES + min(stop - position, HEAD_BYTES_MAX)
        if not contents:
            self._events.append(MessageStarted(channel))
            whole_bytes = measure_message(buffer, position, whole_bytes_max, heads=self._heads)
            if len(buffer) - position < whole_bytes <= self.frame_bytes_max:
                self._awaited_bytes = whole_bytes - (len(buffer) - position)
                return position
            method = buffer[position:end]
            assembly = self._assemblies[channel] = Assembly(method)
            self._hold(assembly, len(method))
            return end
        last = self._events[-1] if self._events else None
        if isinstance(last, Publishes) and (last.methods[-1], last.outline) == (methods[0], read):
            last.methods += methods
            last.contents += contents
            last.content_bytes += content_bytes
        else:
            self._events.append(Publishes(channel, methods, contents, content_bytes, read))
        return stop

    def _assembly(self, channel: int) -> Assembly | None:
        """Return the message that a header or body belongs to; None if it is passed over."""
        assembly = self._assemblies.get(channel)
        if assembly is None and not self._is_closing:
            raise unexpected_frame("expected method frame, got non method frame instead")
        return assembly

    def _hold(self, assembly: Assembly, size_bytes: int) -> None:
        """Account for what is kept of a message that is not whole."""
        assembly.held_bytes += size_bytes
        self._unfinished_bytes += size_bytes
        if self._unfinished_bytes > self._unfinished_bytes_max:
            raise ProtocolError(
                ReplyCode.RESOURCE_ERROR,
                f"unfinished messages exceed {self._unfinished_bytes_max} bytes on this connection",
            )

    def _header(self, channel: int, payload: bytes) -> None:
        assembly = self._assembly(channel)
        if assembly is None:
            return
        if assembly.header:
            raise out_of_order(assembly)
        if len(payload) < 14:
            raise ProtocolError(ReplyCode.FRAME_ERROR, "content header is truncated")
        class_id, weight, body_bytes, _flags = unpack_header(payload)
        if class_id != CLASS_BASIC:
            raise incomplete(
                f"expected content header for class 60, got one for class {class_id} instead"
            )
        if weight:
            raise out_of_order(assembly)  # RabbitMQ takes it for no content header at all
        if body_bytes > CONTENT_BYTES_MAX:
            raise ProtocolError(
                ReplyCode.FRAME_ERROR,
                f"content body size {body_bytes} exceeds maximum allowed size {CONTENT_BYTES_MAX}",
            )
        assembly.header = payload
        self._hold(assembly, len(payload))
        assembly.body_bytes = assembly.body_bytes_missing = body_bytes
        if not body_bytes:
            self._complete(channel, assembly)

    def _body(self, channel: int, payload: bytes) -> None:
        assembly = self._assembly(channel)
        if assembly is None:
            return
        if not assembly.header:
            raise out_of_order(assembly)
        if len(payload) > assembly.body_bytes_missing:
            raise ProtocolError(
                ReplyCode.FRAME_ERROR,
                f"content body is longer than the {assembly.body_bytes} bytes announced",
            )
        assembly.body_bytes_missing -= len(payload)
        if payload and assembly.body_bytes <= self._message_bytes_max:
            self._hold(assembly, assembly.add(payload))
        if not assembly.body_bytes_missing:
            self._complete(channel, assembly)

    def _complete(self, channel: int, assembly: Assembly) -> None:
        del self._assemblies[channel]
        self._unfinished_bytes -= assembly.held_bytes
        if assembly.body_bytes > self._message_bytes_max:
            self._events.append(Oversized(channel, assembly.body_bytes))
            return
        content = assembly.content()
        read, _free = outline(raw_properties(content))
        self._events.append(
            Publishes(channel, [assembly.method_frame], [content], len(content), read)
        )

    def _heartbeat(self, channel: int, payload: bytes) -> None:
        if channel:
            raise unexpected_frame("heartbeat frame on a channel other than 0")
        if payload:
            raise ProtocolError(ReplyCode.FRAME_ERROR, "heartbeat frame is not empty")


FRAMES: dict[int, Callable[[Reader, int, bytes], None]] = {
    FRAME_HEADER: Reader._header,
    FRAME_BODY: Reader._body,
    FRAME_HEARTBEAT: Reader._heartbeat,
}


def unknown_kind(_reader: Reader, _channel: int, _payload: bytes) -> None:
    raise ProtocolError(ReplyCode.FRAME_ERROR, "unknown frame type")


def unexpected_frame(explanation: str) -> ProtocolError:
    return ProtocolError(ReplyCode.UNEXPECTED_FRAME, explanation)


def out_of_order(assembly: Assembly) -> ProtocolError:
    """Error for a frame other than the header, or the body, that a message needs next."""
    if assembly.header:
        return incomplete("expected content body, got non content body frame instead")
    return incomplete("expected content header for class 60, got non content header frame instead")


def incomplete(explanation: str) -> ProtocolError:
    """Return the error, as `unexpected_frame` does, about the basic.publish whose message is not
    whole yet."""
    return ProtocolError(
        ReplyCode.UNEXPECTED_FRAME, explanation, class_id=CLASS_BASIC, method_id=METHOD_PUBLISH
    )


def frame_too_large(kind: int, size: int, payload_bytes_max: int) -> ProtocolError:
    return ProtocolError(
        ReplyCode.FRAME_ERROR,
        f"type {kind}, payload of {size} bytes is larger than {payload_bytes_max}",
    )
