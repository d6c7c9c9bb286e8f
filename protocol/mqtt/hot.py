"""The four functions that run once a message: scan publishes and acks, build publishes and acks.

Rule 1: plain built-in types in and out, so that a compiled twin can replace this file.
Rule 2: what is not the common shape is left to the caller: a scan stops in front of it.

A PUBLISH is its first octet, its remaining length, its topic, an identifier if its QoS is not 0,
properties in MQTT 5.0, and its payload.  Those of a run differ in length, identifier and payload.
"""

import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, groupby, repeat
from struct import Struct
from typing import Any, TypeAlias

from fluffle.protocol.mqtt.codes import MQTT_5
from fluffle.protocol.mqtt.wire import encode_varint, pack_u16, unpack_u16

PUBLISH, PUBREL = 3 << 4, 6
PUBREL_FLAGS, QOS_MASK = 0b0010, 0b0110

ACK_BYTES = 4
"""Size of an acknowledgement without a code: first octet, remaining length 2, identifier."""

ID_ZERO = b"\x00\x00"

ALIKE_MIN, ALIKE_MAX = 8, 1024
"""Packets of one length that are taken together: first, and at most.  As many again as were alike
are tried next."""

JOINED_BYTES_MAX = 2048
"""Longer payloads are not copied into one piece with what is around them."""

Cut: TypeAlias = Callable[[memoryview], Iterator[tuple[Any, ...]]]
"""Cuts packets of one length into what is before the identifier, identifier, properties, payload.

Without an identifier what is before it has the properties in it."""

OUT_OF_ORDER = sys.byteorder == "little"
"""True if numbers in memory have another order than on the wire."""


def scan_publishes(
    buffer: bytes,
    start: int,
    topic: bytes,
    properties: bytes,
    *,
    packet_bytes_max: int,
    count_max: int,
    payloads: list[bytes],
    packet_ids: list[int],
) -> int:
    """Take the PUBLISH packets from `start` on that begin with the octet there and have the same
    topic and properties, both given with their length: payload and identifier of each.

    Returns where it stopped: behind `count_max` packets, or before one that is otherwise, not
    whole, longer than `packet_bytes_max`, or malformed.
    """
    begins, length = buffer.startswith, len(buffer)
    first = buffer[start]
    has_id = first & QOS_MASK > 0
    head, tail = (topic, properties) if has_id else (topic + properties, b"")
    head_bytes, tail_bytes, id_bytes = len(head), len(tail), 2 if has_id else 0
    fixed_bytes = head_bytes + id_bytes + tail_bytes
    position, left, last_size = start, count_max, -1
    while left > 0 and position + 1 < length and buffer[position] == first:
        body_at, size = position + 2, buffer[position + 1]
        if size > 0x7F:
            body_at, size = measure_body(buffer, position + 1)
        end = body_at + size
        if (
            size < fixed_bytes
            or end > length
            or end - position > packet_bytes_max
            or not begins(head, body_at)
            or (tail and not begins(tail, body_at + head_bytes + 2))
        ):
            break
        if has_id:
            (packet_id,) = unpack_u16(buffer, body_at + head_bytes)
            if not packet_id:
                break
            packet_ids.append(packet_id)
        payloads.append(buffer[body_at + fixed_bytes : end])
        left -= 1
        if size == last_size and left >= ALIKE_MIN:
            cut = cutter(body_at - position + head_bytes, id_bytes, tail_bytes, size - fixed_bytes)
            view = memoryview(buffer)[position : position + (left + 1) * (end - position)]
            taken = take_alike(view, end - position, cut, payloads, packet_ids)
            left -= taken
            end += taken * (end - position)
        position, last_size = end, size
    return position


def measure_body(buffer: bytes, position: int) -> tuple[int, int]:
    """Read the remaining length at `position`: where the body begins, and how long it is.

    -1 as its length if that is not known yet; -2 if it is malformed.
    """
    size = shift = 0
    for at in range(position, min(position + 4, len(buffer))):
        octet = buffer[at]
        size |= (octet & 0x7F) << shift
        if octet < 0x80:
            return at + 1, size
        shift += 7
    return position, -2 if shift == 28 else -1


def take_alike(
    view: memoryview, packet_bytes: int, cut: Cut, payloads: list[bytes], packet_ids: list[int]
) -> int:
    """Take packets of one length that are like the first, which is a good one and is taken already;
    how many these are.

    It is faster to cut many at once than one after the other (benchmarks/micro, scan_publishes of
    MQTT).
    """
    position, count, most = packet_bytes, 0, ALIKE_MIN
    (first,) = cut(view[:packet_bytes])
    while some := min(most, (len(view) - position) // packet_bytes):
        columns = list(zip(*cut(view[position : position + some * packet_bytes]), strict=True))
        alike = min(map(count_alike, columns[:-1:2], first[::2]))
        if len(columns) > 2:
            ids = columns[1][:alike]
            if 0 in ids:
                alike = ids.index(0)
            packet_ids += ids[:alike]
        payloads += columns[-1][:alike]
        count += alike
        position += alike * packet_bytes
        if alike < some:
            break
        most = min(2 * most, ALIKE_MAX)
    return count


def count_alike(values: tuple[bytes, ...], wanted: bytes) -> int:
    """How many values are `wanted`, until one is not."""
    count = len(values)
    if values.count(wanted) == count:
        return count
    return next(at for at, value in enumerate(values) if value != wanted)


@lru_cache(maxsize=1024)
def cutter(head_bytes: int, id_bytes: int, properties_bytes: int, payload_bytes: int) -> Cut:
    """Return what cuts packets of one length; see `Cut`."""
    if not id_bytes:
        return Struct(f">{head_bytes + properties_bytes}s{payload_bytes}s").iter_unpack
    return Struct(f">{head_bytes}sH{properties_bytes}s{payload_bytes}s").iter_unpack


def scan_acks(buffer: bytes, start: int) -> Sequence[int]:
    """Return the identifiers of the run of equal acknowledgements of success at `start`.

    Their body is an identifier, and behind it zeros at most: the code, and the length of no
    properties.  Empty if there is none that is whole, or its identifier is 0.
    """
    ids = array("H")
    head = buffer[start : start + 2]
    packet_bytes = 2 + head[1]
    wanted = head + bytes(packet_bytes - 2)
    places = (0, 1, *range(ACK_BYTES, packet_bytes))
    position, most = start, ALIKE_MIN
    while some := min(most, (len(buffer) - position) // packet_bytes):
        chunk = buffer[position : position + some * packet_bytes]
        alike = some
        for at in places:
            found = chunk[at::packet_bytes]
            if found != wanted[at : at + 1] * some:
                alike = min(alike, next(n for n, octet in enumerate(found) if octet != wanted[at]))
        numbers = bytearray(2 * some)
        numbers[::2], numbers[1::2] = chunk[2::packet_bytes], chunk[3::packet_bytes]
        read = array("H", bytes(numbers))[:alike]
        if ID_ZERO in numbers and 0 in read:
            alike = read.index(0)
        ids += read[:alike]
        if alike < some:
            break
        position += some * packet_bytes
        most = 2 * most
    if OUT_OF_ORDER:
        ids.byteswap()
    return ids


def build_publishes(
    out: list[bytes],
    topic: bytes,
    properties: bytes,
    payloads: Sequence[bytes],
    *,
    flags: int,
    version: int,
    packet_ids: Sequence[int] = (),
) -> None:
    """Add the PUBLISH packets of one run to `out`, as one piece unless the payloads are long.

    `properties` are raw, and left out before 5.0; `flags` is the lower half of the first octet;
    `packet_ids` has one a payload, unless the QoS is 0: then it is empty.
    """
    head = pack_u16(len(topic)) + topic
    tail = encode_varint(len(properties)) + properties if version >= MQTT_5 else b""
    octet = bytes((PUBLISH | flags,))
    fixed_bytes = len(head) + len(tail) + (2 if packet_ids else 0)
    for size, start, stop in split_by_length(payloads):
        some = payloads[start:stop]
        before = octet + encode_varint(fixed_bytes + size) + head
        if not packet_ids:
            before += tail
            if size > JOINED_BYTES_MAX:
                out.extend(chain.from_iterable(zip(repeat(before), some, strict=False)))
            else:
                out.append(before + before.join(some))
            continue
        ids = packet_ids[start:stop]
        if size > JOINED_BYTES_MAX:
            packed = map(pack_u16, ids)
            pieces = zip(repeat(before), packed, repeat(tail), some, strict=False)
            out.extend(chain.from_iterable(pieces))
        else:
            pack = packer(len(before), len(tail), size)
            out.append(b"".join(map(pack, repeat(before), ids, repeat(tail), some)))


def split_by_length(payloads: Sequence[bytes]) -> Iterator[tuple[int, int, int]]:
    """Split payloads where their length changes: length, start and end of each stretch."""
    if len(set(map(len, payloads))) == 1:
        yield len(payloads[0]), 0, len(payloads)
        return
    start = 0
    for size, same in groupby(map(len, payloads)):
        stop = start + sum(1 for _ in same)
        yield size, start, stop
        start = stop


@lru_cache(maxsize=1024)
def packer(head_bytes: int, tail_bytes: int, payload_bytes: int) -> Callable[..., bytes]:
    """Return what makes a packet of what is before its identifier, this, properties, payload."""
    return Struct(f">{head_bytes}sH{tail_bytes}s{payload_bytes}s").pack


def build_acks(kind: int, packet_ids: Sequence[int], code: int = 0) -> bytes:
    """Return acknowledgements of one type of packets, without a code unless that says something;
    codes are known in 5.0 alone."""
    ids = array("H", packet_ids)
    if OUT_OF_ORDER:
        ids.byteswap()
    octet = kind << 4 | (PUBREL_FLAGS if kind == PUBREL else 0)
    if not code:
        built = array("H", bytes((octet, ACK_BYTES - 2))) * (2 * len(ids))
        built[1::2] = ids
        return built.tobytes()
    numbers = ids.tobytes()
    acks = bytearray(bytes((octet, ACK_BYTES - 1, 0, 0, code)) * len(ids))
    acks[2 :: ACK_BYTES + 1], acks[3 :: ACK_BYTES + 1] = numbers[::2], numbers[1::2]
    return bytes(acks)
