"""The three functions that run once a message: scan publishes, scan acks, build deliveries.

Rule 1: plain built-in types in and out, so that a compiled twin can replace this file.
Rule 2: what is not the common shape is left to the caller: a scan stops in front of it.

A message's content is kept in *canonical form*: its header frame and its one body frame,
both numbered for channel 1 (see `properties`).  Most clients publish on channel 1 and send
a body in one frame, so for them the canonical form is one slice of what was received.
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import chain, repeat
from struct import Struct
from typing import Any, TypeAlias

from fluffle.protocol.properties import outline

FRAME_END = 0xCE
CLASS_BASIC = 60
CHANNEL_1 = b"\x00\x01"

HEADER_FRAME_BYTES_MIN = 22
"""Frame header 7, class 2, weight 2, body size 8, property flags 2, frame end 1."""

PROPERTIES_AT = 19
"""Where raw properties begin in a header frame, behind what `unpack_header` reads."""

HEAD_BYTES_MAX = 1024
"""Longer ones, which have headers of some size, are measured each time: memory is dearer."""

Unpack: TypeAlias = Callable[[bytes, int], tuple[Any, ...]]

Head: TypeAlias = tuple[bytes, bytes, bytes, int, Unpack, tuple[Any, ...]]
"""What stands before a body: method, header frame and, unless the body is empty, the head of the
one body frame.  Then the method alone; the channel and the outline of the properties; the length of
the body; and what reads the parts behind the method that others of its kind share, with these."""

FRAME_HEAD_BYTES = 7
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
    payload_bytes_max: int,
    methods: list[bytes],
    contents: list[bytes],
    *,
    heads: dict[bytes, Head],
) -> tuple[int, int, bytes]:
    """Take the messages from `start` on, where a basic.publish frame begins: method and content.

    Goes on while they are on the same channel and the outline of their properties is the same.
    Returns where it stopped, the length of all contents and that outline.  Stops before a message
    that begins like none in `heads`, which remembers for the next scans how messages began, by
    method and size of the header, and before anything incomplete, split over several body frames,
    larger than `payload_bytes_max` or malformed.
    """
    begins, append, length = buffer.startswith, contents.append, len(buffer)
    channel = buffer[start + 1 : start + 3]
    is_canonical = channel == CHANNEL_1
    position, content_bytes, likeness = start, 0, b""
    known = find_head(buffer, start, payload_bytes_max, heads)
    if known is None:
        known = measure_head(buffer, start, payload_bytes_max, heads)
    while known is not None and (position == start or known[2] == likeness):
        head, method, likeness, body_bytes, unpack, common = known
        content_at, body_at = len(method), len(head)
        message_bytes = body_at + body_bytes + 1 if body_bytes else body_at
        front = b""
        if not is_canonical:
            head = buffer[position : position + body_at]  # which may differ where nobody reads
            front = renumber_head(head, content_at)
        count, end = 0, position + message_bytes
        while end <= length and buffer[end - 1] == FRAME_END:
            if is_canonical:
                append(buffer[position + content_at : end])
            else:
                append(front + buffer[position + body_at : end])
            count += 1
            position = end
            # One comparison covers the method, the header and the body frame's head: because
            # it is faster (benchmarks/micro, scan_publishes) than unpacking each of them again.
            if begins(head, position):
                end = position + message_bytes
                continue
            # The same for what differs only where nobody reads: no key to be made and found.
            if (
                not begins(method, position)
                or position + body_at > length
                or unpack(buffer, position + content_at) != common
            ):
                break
            head = buffer[position : position + body_at]
            front = b"" if is_canonical else renumber_head(head, content_at)
            end = position + message_bytes
        methods += [method] * count
        content_bytes += count * (message_bytes - content_at)
        known = find_head(buffer, position, payload_bytes_max, heads) if count else None
    return position, content_bytes, likeness[2:]


def measure_message(
    buffer: bytes, start: int, payload_bytes_max: int, *, heads: dict[bytes, Head]
) -> int:
    """How long the message is whose basic.publish frame begins at `start`, with all its frames.

    0 if that is not known yet, or if it is none that `scan_publishes` takes.
    """
    known = find_head(buffer, start, payload_bytes_max, heads)
    if known is None:
        known = measure_head(buffer, start, payload_bytes_max, heads)
    if known is None:
        return 0
    head, _, _, body_bytes, _, _ = known
    return len(head) + body_bytes + 1 if body_bytes else len(head)


def find_head(
    buffer: bytes, position: int, payload_bytes_max: int, heads: dict[bytes, Head]
) -> Head | None:
    """How the message at `position` begins, if one with the same method and a header of the same
    size is known.

    What stands in the buffer may differ from it where nobody reads.
    """
    length = len(buffer)
    if length - position < FRAME_HEAD_BYTES:
        return None
    key = buffer[position : position + unpack_size(buffer, position + 3)[0] + 8 + FRAME_HEAD_BYTES]
    known = heads.get(key)
    if known is None or buffer.startswith(known[0], position):
        return known
    head, method, likeness, body_bytes, unpack, common = known
    if position + len(head) <= length:
        parts = unpack(buffer, position + len(method))
        if parts == common:
            return known
        found_bytes = parts[-1]
        common = (common[0], found_bytes, *common[2:-1], found_bytes)
        if body_bytes and parts == common and 0 < found_bytes <= payload_bytes_max:
            head = buffer[position : position + len(head)]
            known = heads[key] = head, method, likeness, found_bytes, unpack, common
            return known
    return measure_head(buffer, position, payload_bytes_max, heads)


def measure_head(
    buffer: bytes, position: int, payload_bytes_max: int, heads: dict[bytes, Head]
) -> Head | None:
    """How the message at `position`, which a basic.publish frame begins, begins.

    None when header or body frame are not whole and well-formed.  Remembered unless it is long:
    then it is compared with nothing, and `unpacker`, which remembers too, is not asked.
    """
    header_at = position + unpack_size(buffer, position + 3)[0] + 8
    if header_at + HEADER_FRAME_BYTES_MIN > len(buffer):
        return None
    kind, channel, size, class_id, weight, body_bytes = unpack_header(buffer, header_at)
    header_end = header_at + 8 + size
    head_end = header_end + 7 if body_bytes else header_end
    channel_number = buffer[position + 1 : position + 3]
    if (
        (kind, class_id, weight) != (2, CLASS_BASIC, 0)
        or buffer[header_at + 1 : header_at + 3] != channel_number
        or not 14 <= size <= payload_bytes_max >= body_bytes
        or head_end > len(buffer)
        or buffer[header_end - 1] != FRAME_END
        or (body_bytes and unpack_body(buffer, header_end) != (3, channel, body_bytes))
    ):
        return None
    method, head = buffer[position:header_at], buffer[position:head_end]
    essence, free = outline(buffer[header_at + PROPERTIES_AT : header_end - 1])
    likeness = channel_number + essence
    if len(head) > HEAD_BYTES_MAX:
        return head, method, likeness, body_bytes, unpack_header, ()
    unpack = unpacker(header_end - header_at, tuple(free), has_body=body_bytes > 0)
    found = head, method, likeness, body_bytes, unpack, unpack(head, len(method))
    heads[buffer[position : header_at + FRAME_HEAD_BYTES]] = found
    return found


@lru_cache(maxsize=1024)
def unpacker(header_bytes: int, free: tuple[tuple[int, int], ...], *, has_body: bool) -> Unpack:
    """Reads a header frame, and the head of the body frame behind it, without the `free` parts of
    the properties: the second value is the length of the body, and so is the last."""
    pieces, at = [">11sQ"], PROPERTIES_AT
    for start, stop in free:
        pieces.append(f"{PROPERTIES_AT + start - at}s{stop - start}x")
        at = PROPERTIES_AT + stop
    pieces.append(f"{header_bytes - at + 3}sI" if has_body else f"{header_bytes - at}s")
    return Struct("".join(pieces)).unpack_from


def renumber_head(buffer: bytes, start: int) -> bytes:
    """The header frame at `start`, and the head of a body frame if one follows, for channel 1."""
    end = start + 8 + unpack_size(buffer, start + 3)[0]
    header = b"\x02" + CHANNEL_1 + buffer[start + 3 : end]
    if not any(buffer[start + 11 : start + 19]):
        return header
    return header + b"\x03" + CHANNEL_1 + buffer[end + 3 : end + 7]


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
