"""Functions that run once a message at most: scan publishes and acks, build deliveries, confirms.

Rule 1: plain built-in types in and out, so that a compiled twin can replace this file.
Rule 2: what is not the common shape is left to the caller: a scan stops in front of it.

A message's content is kept in *canonical form*: its header frame and its one body frame,
both numbered for channel 1 (see `properties`).  Most clients publish on channel 1 and send
a body in one frame, so for them the canonical form is one slice of what was received.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain, repeat
from struct import Struct
from typing import Any, TypeAlias

from fluffle.protocol.properties import outline

FRAME_END = 0xCE
CLASS_BASIC = 60
BASIC_ACK, BASIC_NACK = 60 << 16 | 80, 60 << 16 | 120
"""Class and method, as a frame has them."""
SETTLED_BYTES = 13
"""Size of a basic.ack, or of a basic.nack, in its frame."""
REQUEUE_BIT = 2
CHANNEL_1 = b"\x00\x01"
HEADER_1, BODY_1 = b"\x02\x00\x01", b"\x03\x00\x01"
"""The first bytes of a header frame and of a body frame for channel 1."""

HEADER_FRAME_BYTES_MIN = 22
"""Frame header 7, class 2, weight 2, body size 8, property flags 2, frame end 1."""

PROPERTIES_AT = 19
"""Where raw properties begin in a header frame, behind what `unpack_header` reads."""

BODY_SIZE_END = 19
"""Where the size of the body ends in a header frame: messages that begin alike up to there are as
long as each other."""

HEAD_BYTES_MAX = 1024
"""Longer ones, which have headers of some size, are measured each time: memory is dearer."""

MEASURED_BYTES_MAX = 1 << 14
"""How much of messages that begin like none before is measured in one scan.  It takes three
milliseconds if they are made to be slow."""

ALIKE_MIN, ALIKE_MAX = 128, 1024
"""So many messages are compared together first and at most: fewer cost more than one after the
other, and more might be in vain.  As many again as were alike are tried next."""

FIRST_LOOKS = (ALIKE_MIN - 1, 61)
LOOKS = (2, 111, 3, 31, 4, 17, 5, 91, 7, 46)
"""At these a look is taken before, and at the last."""

VARYING_MAX = 40
"""Messages are if no more octets of each may be any."""

Unpack: TypeAlias = Callable[[bytes, int], tuple[Any, ...]]

Free: TypeAlias = tuple[tuple[int, int], ...]
"""Where values stand in raw properties that the broker does not read."""

Head: TypeAlias = tuple[bytes, bytes, bytes, int, Unpack, tuple[Any, ...], Free]
"""Head of a message in front of its body: method, header frame and, unless the body is empty, the
head of the one body frame.  Then the method alone; the channel and the outline of the properties;
the length of the body; what reads the parts behind the method that others of its kind share, with
these; and where others of its kind differ."""

UNLIKE: Head = (b"", b"", b"", 0, Struct("").unpack_from, (), ())
"""Head that matches no message, which has to be measured."""

Walk: TypeAlias = Callable[[memoryview], Iterator[tuple[Any, ...]]]
"""Reads the same of one message after the other."""

FRAME_HEAD_BYTES = 7
ACK_FRAME_BYTES = 21
ACKS_MIN = 12
"""Fewer are read one after the other."""
TAG_AT = 11
TAG_MAX = (1 << 64) - 1
END_OF_ACK = bytes((0, FRAME_END))
"""Behind the tag of a single one."""
LAST_OCTET_BEFORE_END = len(END_OF_ACK) + 1
ALL_OCTETS = bytes(range(0x100))

unpack_header = Struct(">BHIHHQ").unpack_from
unpack_body = Struct(">BHI").unpack_from
iter_acks = Struct(">11sQBB").iter_unpack
pack_tag = Struct(">Q").pack
unpack_tag = Struct(">Q").unpack_from
pack_kind = Struct(">BH").pack
pack_settled = Struct(">BHIIQBB").pack
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
    larger than `payload_bytes_max` or malformed; and behind MEASURED_BYTES_MAX.
    """
    begins, length = buffer.startswith, len(buffer)
    channel = buffer[start + 1 : start + 3]
    position, content_bytes, likeness, measured_bytes = start, 0, b"", 0
    known = find_head(buffer, start, payload_bytes_max, heads)
    if known is None or known is UNLIKE:
        known = measure_head(buffer, start, payload_bytes_max, heads)
    while known is not None and (position == start or known[2] == likeness):
        head, method, likeness, body_bytes, *_ = known
        content_at, body_at = position + len(method), position + len(head)
        end = body_at + body_bytes + 1 if body_bytes else body_at
        if end > length or buffer[end - 1] != FRAME_END:
            break
        if begins(buffer[position : content_at + BODY_SIZE_END], end):
            taken = take_alike(buffer, position, end - position, known)
            contents += taken
            methods += [method] * len(taken)
            content_bytes += len(taken) * (end - content_at)
            position += len(taken) * (end - position)
        else:
            if channel == CHANNEL_1:
                contents.append(buffer[content_at:end])
            else:
                contents.append(renumber_head(buffer, content_at) + buffer[body_at:end])
            methods.append(method)
            content_bytes += end - content_at
            position = end
        known = find_head(buffer, position, payload_bytes_max, heads)
        if known is UNLIKE and measured_bytes < MEASURED_BYTES_MAX:
            known = measure_head(buffer, position, payload_bytes_max, heads)
            measured_bytes += len(known[0]) if known is not None else 0
    return position, content_bytes, likeness[2:]


def take_alike(buffer: bytes, start: int, message_bytes: int, known: Head) -> list[bytes]:
    """Return the contents of the message at `start`, which is whole, and of those right behind it
    that differ from it only in what is not read and in their bodies.

    Nothing is done in Python for each but one comparison, because it is faster (benchmarks/micro,
    scan_publishes).
    """
    head, method, _likeness, body_bytes, _unpack, _common, free = known
    header_bytes = len(head) - len(method) - (FRAME_HEAD_BYTES if body_bytes else 0)
    iter_read, iter_contents, iter_frames = strides(len(method), header_bytes, free, body_bytes)
    stop = len(buffer) - (len(buffer) - start) % message_bytes
    begins, run, count = buffer.startswith, memoryview(buffer)[start:stop], 1
    read = iter_read(run)
    first = next(read)
    far, near = FIRST_LOOKS
    if begins(method, start + far * message_bytes) and begins(method, start + near * message_bytes):
        places = varying_at(len(method), len(head), free, body_bytes)
        count = count_alike(buffer, start, stop, message_bytes, places)
        read = iter_read(run[count * message_bytes :])
    for each in read:
        if each != first:
            break
        count += 1
    run = run[: count * message_bytes]
    if begins(CHANNEL_1, start + 1):
        return list(chain.from_iterable(iter_contents(run)))
    if body_bytes:
        return [HEADER_1 + header + BODY_1 + body for header, body in iter_frames(run)]
    return [HEADER_1 + header for (header,) in iter_frames(run)]


def count_alike(
    buffer: bytes, start: int, stop: int, message_bytes: int, places: tuple[int, ...] | None
) -> int:
    """Return how many messages from `start` on are surely alike but for what stands at some places,
    of those up to `stop` that would all be as long; one at least.

    They are made of the first, and compared together, because it is faster (benchmarks/micro,
    scan_publishes); but in vain if one differs, so that a look is taken at some before.
    """
    if places is None:
        return 1
    first = buffer[start : start + message_bytes]
    begin = first[: places[0]] if places else first
    for place in LOOKS:
        if not buffer.startswith(begin, start + place * message_bytes):
            return 1
    count, at, most = 0, start, ALIKE_MIN
    while (rest := (stop - at) // message_bytes) >= ALIKE_MIN:
        some = most if rest >= most + ALIKE_MIN else rest
        if not buffer.startswith(begin, at + (some - 1) * message_bytes):
            break
        run, alike = buffer[at : at + some * message_bytes], bytearray(first * some)
        for place in places:
            alike[place::message_bytes] = run[place::message_bytes]
        if run != alike:
            break
        count, at = count + some, at + some * message_bytes
        most = min(2 * most, ALIKE_MAX)
    return count or 1


@lru_cache(maxsize=1024)
def varying_at(
    method_bytes: int, head_bytes: int, free: Free, body_bytes: int
) -> tuple[int, ...] | None:
    """Return which octets of a message are not read, if they are few."""
    if sum(stop - start for start, stop in free) + body_bytes > VARYING_MAX:
        return None
    at = method_bytes + PROPERTIES_AT
    parts = [range(at + start, at + stop) for start, stop in free]
    return tuple(chain(*parts, range(head_bytes, head_bytes + body_bytes)))


def measure_message(
    buffer: bytes, start: int, payload_bytes_max: int, *, heads: dict[bytes, Head]
) -> int:
    """Return how long the message is whose basic.publish frame begins at `start`, with all its
    frames.

    0 if that is not known yet, or if it is none that `scan_publishes` takes.
    """
    known = find_head(buffer, start, payload_bytes_max, heads)
    if known is None or known is UNLIKE:
        known = measure_head(buffer, start, payload_bytes_max, heads)
    if known is None:
        return 0
    head, _, _, body_bytes, *_ = known
    return len(head) + body_bytes + 1 if body_bytes else len(head)


def find_head(
    buffer: bytes, position: int, payload_bytes_max: int, heads: dict[bytes, Head]
) -> Head | None:
    """Return how the message at `position` begins, if one with the same method and a header of the
    same size is known; UNLIKE if that begins otherwise.

    What stands in the buffer may differ from it in octets that are not read.
    """
    length = len(buffer)
    if length - position < FRAME_HEAD_BYTES:
        return None
    key = buffer[position : position + unpack_size(buffer, position + 3)[0] + 8 + FRAME_HEAD_BYTES]
    known = heads.get(key)
    if known is None or buffer.startswith(known[0], position):
        return known
    head, method, likeness, body_bytes, unpack, common, free = known
    if position + len(head) <= length:
        parts = unpack(buffer, position + len(method))
        if parts == common:
            return known
        found_bytes = parts[-1]
        common = (common[0], found_bytes, *common[2:-1], found_bytes)
        if body_bytes and parts == common and 0 < found_bytes <= payload_bytes_max:
            head = buffer[position : position + len(head)]
            known = heads[key] = head, method, likeness, found_bytes, unpack, common, free
            return known
    return UNLIKE


def measure_head(
    buffer: bytes, position: int, payload_bytes_max: int, heads: dict[bytes, Head]
) -> Head | None:
    """Return how the message at `position`, which a basic.publish frame begins, begins.

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
    essence, places = outline(buffer[header_at + PROPERTIES_AT : header_end - 1])
    free = tuple(places)
    likeness = channel_number + essence
    if len(head) > HEAD_BYTES_MAX:
        return head, method, likeness, body_bytes, unpack_header, (), free
    unpack = unpacker(header_end - header_at, free, has_body=body_bytes > 0)
    found = head, method, likeness, body_bytes, unpack, unpack(head, len(method)), free
    heads[buffer[position : header_at + FRAME_HEAD_BYTES]] = found
    return found


@lru_cache(maxsize=1024)
def strides(
    method_bytes: int, header_bytes: int, free: Free, body_bytes: int
) -> tuple[Walk, Walk, Walk]:
    """Functions for messages of one length: one reads of each all but the `free` parts of its
    properties and its body; one cuts out its content; and one cuts out of that the parts of its
    frames behind the channel number."""
    pieces, at = [">"], 0
    properties_at = method_bytes + PROPERTIES_AT
    for start, stop in free:
        pieces.append(f"{properties_at + start - at}s{stop - start}x")
        at = properties_at + stop
    head_bytes = method_bytes + header_bytes
    if body_bytes:
        pieces.append(f"{head_bytes + FRAME_HEAD_BYTES - at}s{body_bytes}xB")
        frame_bytes = FRAME_HEAD_BYTES + body_bytes + 1
        content = f"{header_bytes + frame_bytes}s"
        frames = f"{header_bytes - 3}s3x{frame_bytes - 3}s"
    else:
        pieces.append(f"{head_bytes - at}s")
        content, frames = f"{header_bytes}s", f"{header_bytes - 3}s"
    cut_contents, cut_frames = (
        Struct(f">{method_bytes}x{content}"),
        Struct(f">{method_bytes + 3}x{frames}"),
    )
    return Struct("".join(pieces)).iter_unpack, cut_contents.iter_unpack, cut_frames.iter_unpack


@lru_cache(maxsize=1024)
def unpacker(header_bytes: int, free: Free, *, has_body: bool) -> Unpack:
    """Reads a header frame, and the head of the body frame behind it, without the `free` parts of
    the properties: the second value is the length of the body, and so is the last."""
    pieces, at = [">11sQ"], PROPERTIES_AT
    for start, stop in free:
        pieces.append(f"{PROPERTIES_AT + start - at}s{stop - start}x")
        at = PROPERTIES_AT + stop
    pieces.append(f"{header_bytes - at + 3}sI" if has_body else f"{header_bytes - at}s")
    return Struct("".join(pieces)).unpack_from


def renumber_head(buffer: bytes, start: int) -> bytes:
    """Return the header frame at `start`, and the head of a body frame if one follows, for channel
    1."""
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
    if frames >= ACKS_MIN:
        (tag,) = unpack_tag(buffer, start + TAG_AT)
        if count := count_acks(buffer, start, frames, head, tag):
            first, expected = tag, tag + count
    done = (expected - first) * ACK_FRAME_BYTES
    view = memoryview(buffer)[start + done : start + frames * ACK_FRAME_BYTES]
    for found, tag, multiple, end in iter_acks(view):
        if found != head or multiple or end != FRAME_END or (tag != expected and expected):
            break
        if not expected:
            if not tag:
                break
            first = tag
        expected = tag + 1
    return first, expected - first


def count_acks(buffer: bytes, start: int, frames: int, head: bytes, first_tag: int) -> int:
    """Number of the `frames` frames that are certainly single acks with consecutive tags from
    `first_tag`.

    They are made and compared together as long as only the last octet of the tag differs, because
    it is faster (benchmarks/micro, scan_acks) by a factor of six.
    """
    count, tag = 0, first_tag
    while frames - count >= ACKS_MIN and 0 < tag <= TAG_MAX:
        octet, at = tag & 0xFF, start + count * ACK_FRAME_BYTES
        alike = min(frames - count, 0x100 - octet)
        stop = at + alike * ACK_FRAME_BYTES
        if buffer[stop - LAST_OCTET_BEFORE_END] != octet + alike - 1:
            break
        acks = bytearray((head + pack_tag(tag) + END_OF_ACK) * alike)
        acks[TAG_AT + 7 :: ACK_FRAME_BYTES] = ALL_OCTETS[octet : octet + alike]
        if buffer[at:stop] != acks:
            break
        count += alike
        tag += alike
    return count


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
    """Build deliveries as `build_deliveries` does, for messages that do not share what surrounds
    the delivery tag."""
    tags = map(pack_tag, range(first_tag, first_tag + len(contents)))
    out.extend(chain.from_iterable(zip(prefixes, tags, tails, contents, strict=True)))


def ack_frame(channel: int, delivery_tag: int, *, multiple: bool) -> bytes:
    """Return a basic.ack, to a publisher in confirm mode."""
    return pack_settled(1, channel, SETTLED_BYTES, BASIC_ACK, delivery_tag, multiple, FRAME_END)


def nack_frame(channel: int, delivery_tag: int, *, multiple: bool) -> bytes:
    """Return a basic.nack, to a publisher in confirm mode; `requeue` is set, as RabbitMQ sends
    it."""
    bits = multiple | REQUEUE_BIT
    return pack_settled(1, channel, SETTLED_BYTES, BASIC_NACK, delivery_tag, bits, FRAME_END)


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
