"""The three functions that run once a message: scan publishes, scan acks, build deliveries.

Rule 1: plain built-in types in and out, so that a compiled twin can replace this file.
Rule 2: what is not the common shape is left to the caller: a scan stops in front of it.

A message's content is kept in *canonical form*: its header frame and its one body frame,
both numbered for channel 1 (see `properties`).  Most clients publish on channel 1 and send
a body in one frame, so for them the canonical form is one slice of what was received.
"""

from collections.abc import Callable
from itertools import chain, repeat
from struct import Struct

FRAME_END = 0xCE
CLASS_BASIC = 60
CHANNEL_1 = b"\x00\x01"

HEADER_FRAME_BYTES_MIN = 22
"""Frame header 7, class 2, weight 2, body size 8, property flags 2, frame end 1."""

NO_HEAD = (b"", 0)

HEAD_BYTES_MAX = 1024
"""Longer ones, which have headers of some size, are measured each time: memory is dearer."""

ACK_FRAME_BYTES = 21

unpack_header = Struct(">BHIHHQ").unpack_from
unpack_body = Struct(">BHI").unpack_from
iter_acks = Struct(">11sQBB").iter_unpack
pack_tag = Struct(">Q").pack
pack_kind = Struct(">BH").pack
unpack_size = Struct(">I").unpack_from


def scan_publishes(
    buffer: bytes,
    start: int,
    method: bytes,
    payload_bytes_max: int,
    append: Callable[[bytes], None],
    *,
    heads: dict[bytes, tuple[bytes, int]],
) -> tuple[int, int]:
    """Append the canonical content of each publish that repeats `method` from `start` on.

    `method` is a basic.publish frame and `buffer[start:]` begins with it.  Takes messages as
    long as their properties are those of the first one, and all are empty or none is.  Returns
    where it stopped and how many it took; stops before anything incomplete, split over several
    body frames, larger than `payload_bytes_max` or malformed.  `heads` remembers for the next
    scans, by method, what stood before a body and the length of that body, unless it is long.
    """
    begins = buffer.startswith
    head, body_bytes = heads.get(method, NO_HEAD)
    if not head or not begins(head, start):
        head, body_bytes = measure_head(buffer, start, method, payload_bytes_max)
        if not head:
            return start, 0
        if len(head) <= HEAD_BYTES_MAX:
            heads[method] = head, body_bytes
    head_bytes = len(head)
    message_bytes = head_bytes + body_bytes + 1 if body_bytes else head_bytes
    is_canonical = method[1:3] == CHANNEL_1
    canonical_head = b"" if is_canonical else renumber_head(head[len(method) :])
    method_bytes, length = len(method), len(buffer)
    unpack_parts, front, middle = None, b"", b""
    position, count = start, 0
    while True:
        # One comparison covers the method, the header and the body frame's head: because it
        # is faster (benchmarks/micro, scan_publishes) than unpacking each of them again.
        if not begins(head, position):
            if not (body_bytes and begins(method, position) and position + head_bytes <= length):
                break
            if unpack_parts is None:
                unpack_parts = Struct(f">11sQ{head_bytes - method_bytes - 23}sI").unpack_from
                front, _, middle, _ = unpack_parts(head, method_bytes)
            found_front, announced, found_middle, body_bytes = unpack_parts(
                buffer, position + method_bytes
            )
            is_alike = (found_front, found_middle, announced) == (front, middle, body_bytes)
            if not is_alike or not 0 < body_bytes <= payload_bytes_max:
                break
            head = buffer[position : position + head_bytes]
            message_bytes = head_bytes + body_bytes + 1
            canonical_head = b"" if is_canonical else renumber_head(head[method_bytes:])
        end = position + message_bytes
        if end > length or buffer[end - 1] != FRAME_END:
            break
        if is_canonical:
            append(buffer[position + method_bytes : end])
        else:
            append(canonical_head + buffer[position + head_bytes : end])
        count += 1
        position = end
    return position, count


def measure_head(
    buffer: bytes, position: int, method: bytes, payload_bytes_max: int
) -> tuple[bytes, int]:
    """All that stands before a message's body, and the length of the body.

    That is the method, the header frame and, unless the body is empty, the head of the one body
    frame.  Empty and 0 when it is not whole and well-formed.
    """
    header_at = position + len(method)
    if header_at + HEADER_FRAME_BYTES_MIN > len(buffer):
        return NO_HEAD
    kind, channel, size, class_id, weight, body_bytes = unpack_header(buffer, header_at)
    header_end = header_at + 8 + size
    head_end = header_end + 7 if body_bytes else header_end
    if (
        (kind, class_id, weight) != (2, CLASS_BASIC, 0)
        or buffer[header_at + 1 : header_at + 3] != method[1:3]
        or not 14 <= size <= payload_bytes_max >= body_bytes
        or head_end > len(buffer)
        or buffer[header_end - 1] != FRAME_END
        or (body_bytes and unpack_body(buffer, header_end) != (3, channel, body_bytes))
    ):
        return NO_HEAD
    return buffer[position:head_end], body_bytes


def renumber_head(head: bytes) -> bytes:
    """A header frame, and the head of a body frame if there is one, numbered for channel 1."""
    end_of_header = 8 + unpack_size(head, 3)[0]
    header = b"\x02" + CHANNEL_1 + head[3:end_of_header]
    if end_of_header == len(head):
        return header
    return header + b"\x03" + CHANNEL_1 + head[-4:]


def scan_acks(buffer: bytes, start: int, head: bytes) -> tuple[int, int]:
    """Read the run of single basic.acks with rising tags that begins at `start`.

    `head` is the first eleven bytes of such a frame.  Returns the first tag and how many
    follow one another; 0 and 0 when the frame at `start` is no whole single ack.
    """
    frames = (len(buffer) - start) // ACK_FRAME_BYTES
    first = expected = 0
    view = memoryview(buffer)[start : start + frames * ACK_FRAME_BYTES]
    for found, tag, multiple, end in iter_acks(view):
        if found != head or multiple or end != FRAME_END or (tag != expected and expected):
            break
        if not expected:
            if not tag:
                break
            first = tag
        expected = tag + 1
    return first, expected - first


def build_deliveries(
    out: list[bytes], prefix: bytes, first_tag: int, tail: bytes, contents: list[bytes]
) -> None:
    """Add the basic.deliver frames and contents of one run to `out`, for channel 1.

    A deliver frame is `prefix`, the delivery tag, `tail`; tags rise from `first_tag`.
    """
    tags = map(pack_tag, range(first_tag, first_tag + len(contents)))
    out.extend(chain.from_iterable(zip(repeat(prefix), tags, repeat(tail), contents, strict=False)))


def build_mixed_deliveries(
    out: list[bytes],
    prefixes: list[bytes],
    first_tag: int,
    tails: list[bytes],
    contents: list[bytes],
) -> None:
    """As `build_deliveries`, for messages that do not share what surrounds the delivery tag."""
    tags = map(pack_tag, range(first_tag, first_tag + len(contents)))
    out.extend(chain.from_iterable(zip(prefixes, tags, tails, contents, strict=True)))


def renumber(contents: list[bytes], channel: int) -> list[bytes]:
    """The same contents with their frames numbered for `channel`."""
    header, body = pack_kind(2, channel), pack_kind(3, channel)
    renumbered = []
    for content in contents:
        end_of_header = 8 + unpack_size(content, 3)[0]
        if end_of_header == len(content):
            renumbered.append(header + content[3:])
        else:
            renumbered.append(
                header + content[3:end_of_header] + body + content[end_of_header + 3 :]
            )
    return renumbered
