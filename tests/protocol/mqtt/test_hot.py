"""The hot functions do what slow and obvious ones do, on good bytes, cut ones and wrong ones."""

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.protocol.mqtt.codes import (
    MQTT_3_1_1,
    MQTT_5,
    RECEIVED,
    RELEASED,
    PacketType,
    ReasonCode,
)
from fluffle.protocol.mqtt.hot import (
    ALIKE_MIN,
    JOINED_BYTES_MAX,
    build_acks,
    build_publishes,
    measure_body,
    scan_acks,
    scan_publishes,
)
from fluffle.protocol.mqtt.packets import Ack, Publish, encode, publish_flags
from fluffle.protocol.mqtt.wire import encode_varint

TOPIC, PROPERTIES = b"\x00\x03a/b", {4: b"", 5: b"\x02\x01\x01"}
RAW = {4: b"", 5: b"\x01\x01"}
PACKET_BYTES_MAX = 400

Taken = tuple[int, list[bytes], list[int]]
"""Where a scan stopped, payloads and identifiers."""


def publish(payload: bytes, qos: int, packet_id: int, version: int) -> bytes:
    packet = Publish(b"a/b", payload, qos, packet_id=packet_id, properties=RAW[version])
    return encode(packet, version)


def read_length(rest: bytes) -> tuple[int, int] | None:
    """The remaining length behind the first octet, and how long it is itself."""
    for size in range(1, 5):
        octets = rest[1 : 1 + size]
        if len(octets) == size and octets[-1] < 0x80:
            return sum((octet & 0x7F) << 7 * at for at, octet in enumerate(octets)), size
    return None


def slow_scan(buffer: bytes, start: int, version: int, count_max: int) -> Taken:
    payloads: list[bytes] = []
    ids: list[int] = []
    rest = buffer[start:]
    first = rest[0]
    while len(payloads) < count_max and rest and rest[0] == first:
        measured = read_length(rest)
        if measured is None:
            break
        size, length_bytes = measured
        end = 1 + length_bytes + size
        body = rest[1 + length_bytes : end]
        if len(rest) < end or end > PACKET_BYTES_MAX or not body.startswith(TOPIC):
            break
        behind = body[len(TOPIC) :]
        if first & 0b110:
            if len(behind) < 2 or behind[:2] == b"\0\0":
                break
            packet_id, behind = int.from_bytes(behind[:2], "big"), behind[2:]
        else:
            packet_id = 0
        if not behind.startswith(PROPERTIES[version]):
            break
        payloads.append(behind[len(PROPERTIES[version]) :])
        ids += [packet_id] if packet_id else []
        rest = rest[end:]
    return len(buffer) - len(rest), payloads, ids


def scan(buffer: bytes, start: int, version: int, count_max: int) -> Taken:
    payloads: list[bytes] = []
    ids: list[int] = []
    stop = scan_publishes(
        buffer,
        start,
        TOPIC,
        PROPERTIES[version],
        packet_bytes_max=PACKET_BYTES_MAX,
        count_max=count_max,
        payloads=payloads,
        packet_ids=ids,
    )
    return stop, payloads, ids


SIZES = st.sampled_from([0, 1, 5, 5, 5, 116, 117, 118, 130, 130, 390, 400])
RUNS = st.lists(st.tuples(SIZES, st.integers(1, 3 * ALIKE_MIN)), min_size=1, max_size=4)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
@given(runs=RUNS, data=st.data())
def test_scan_publishes_equals_the_slow_one(
    version: int, qos: int, runs: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Through runs of one size, changes of it, cuts, and octets that are others."""
    number = 0
    sent = bytearray(data.draw(st.binary(max_size=3)))
    start = len(sent)
    for size, count in runs:
        for _ in range(count):
            number += 1
            sent += publish(bytes([number % 256]) * size, qos, number, version)
    for at in data.draw(st.lists(st.integers(start + 1, len(sent) - 1), max_size=2)):
        sent[at] = data.draw(st.integers(0, 255))
    stop = data.draw(st.just(len(sent)) | st.integers(start + 1, len(sent)))
    count_max = data.draw(st.just(1000) | st.integers(1, 20))
    buffer = bytes(sent[:stop])
    assert scan(buffer, start, version, count_max) == slow_scan(buffer, start, version, count_max)


def test_any_octet_wrong_in_a_run() -> None:
    sent = b"".join(publish(b"xy", 1, number, 5) for number in range(255, 255 + 3 * ALIKE_MIN))
    for at in range(1, len(sent)):
        for change in (1, 0x80, 0xFF):
            wrong = sent[:at] + bytes((sent[at] ^ change,)) + sent[at + 1 :]
            assert scan(wrong, 0, 5, 1000) == slow_scan(wrong, 0, 5, 1000)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 2**28 - 1])
def test_lengths(size: int) -> None:
    octets = encode_varint(size)
    assert measure_body(b"\x30" + octets, 1) == (1 + len(octets), size)
    for stop in range(1, len(octets)):
        assert measure_body(b"\x30" + octets[:stop], 1)[1] == -1
    assert measure_body(b"\x30\x80\x80\x80\x80", 1)[1] == -2


IDS = st.lists(st.integers(1, 0xFFFF), max_size=100)
KINDS = [PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBREL, PacketType.PUBCOMP]


@pytest.mark.parametrize("kind", KINDS)
@given(ids=IDS, junk=st.binary(max_size=5), behind=st.binary(max_size=5))
def test_acks_are_built_and_scanned(
    kind: PacketType, ids: list[int], junk: bytes, behind: bytes
) -> None:
    sent = b"".join(encode(Ack(kind, packet_id), MQTT_3_1_1) for packet_id in ids)
    assert build_acks(kind, ids) == sent
    if ids:
        expected = ids if behind[:2] != sent[:2] else None
        found = list(scan_acks(junk + sent + behind, len(junk)))
        assert found[: len(ids)] == ids
        assert expected is None or found == expected


@pytest.mark.parametrize("kind", KINDS)
@given(ids=IDS, code=st.sampled_from(sorted(RECEIVED | RELEASED)))
def test_acks_with_codes_are_built(kind: PacketType, ids: list[int], code: ReasonCode) -> None:
    sent = b"".join(encode(Ack(kind, packet_id, code), MQTT_5) for packet_id in ids)
    assert build_acks(kind, ids, code) == sent


def slow_scan_acks(buffer: bytes) -> list[int]:
    ids = []
    head, size = buffer[:2], 2 + buffer[1]
    for at in range(0, len(buffer) - size + 1, size):
        packet_id = int.from_bytes(buffer[at + 2 : at + 4], "big")
        if buffer[at : at + 2] != head or not packet_id or any(buffer[at + 4 : at + size]):
            break
        ids.append(packet_id)
    return ids


@pytest.mark.parametrize("tail", [b"", b"\x00", b"\x00\x00"])
@given(
    count=st.integers(1, 5 * ALIKE_MIN),
    changes=st.lists(st.tuples(st.integers(2, 30 * ALIKE_MIN), st.integers(0, 255)), max_size=2),
    cut=st.integers(0, 4),
)
def test_scan_acks_equals_the_slow_one(
    tail: bytes, count: int, changes: list[tuple[int, int]], cut: int
) -> None:
    head = bytes((0x40, 2 + len(tail)))
    sent = bytearray(b"".join(head + pack(">H", number + 200) + tail for number in range(count)))
    for at, octet in changes:
        sent[max(2, at % len(sent))] = octet
    buffer = bytes(sent[: max(2, len(sent) - cut)])
    assert list(scan_acks(buffer, 0)) == slow_scan_acks(buffer)


def test_an_identifier_like_a_head_does_not_end_a_run() -> None:
    sent = pack(">BBH", 0x40, 2, 1) + pack(">BBH", 0x40, 2, 0x4002)
    assert list(scan_acks(sent + bytes(4), 0)) == [1, 0x4002]
    assert list(scan_acks(sent + b"\x40\x02\0\0", 0)) == [1, 0x4002]


def test_ranges_of_identifiers() -> None:
    assert build_acks(PacketType.PUBACK, range(1, 3)) == b"\x40\x02\x00\x01\x40\x02\x00\x02"
    assert build_acks(PacketType.PUBREL, (0x1234,)) == b"\x62\x02\x12\x34"
    assert build_acks(PacketType.PUBREL, ()) == b""


PAYLOAD_BYTES = st.sampled_from([0, 3, 3, 3, 130, JOINED_BYTES_MAX, JOINED_BYTES_MAX + 1])


@pytest.mark.parametrize("version", [3, 4, 5])
@given(
    sizes=st.lists(PAYLOAD_BYTES, max_size=6),
    qos=st.integers(0, 2),
    flag=st.booleans(),
    raw=st.sampled_from([b"", b"\x01\x01", b"\x03\x01\x00" + b"x" * 256]),
)
def test_publishes_are_built_as_packets_are(
    version: int, sizes: list[int], qos: int, flag: bool, raw: bytes
) -> None:
    payloads = [bytes([at]) * size for at, size in enumerate(sizes)]
    packet_ids = range(7, 7 + len(payloads)) if qos else ()
    out: list[bytes] = [b"before"]
    flags = publish_flags(qos, retain=flag, dup=not flag)
    build_publishes(out, b"a/b", raw, payloads, flags=flags, version=version, packet_ids=packet_ids)
    packets = [
        Publish(b"a/b", payload, qos, flag, not flag, 7 + at if qos else 0, raw)
        for at, payload in enumerate(payloads)
    ]
    expected = b"".join(encode(packet, version) for packet in packets)
    assert b"".join(out) == b"before" + expected


@pytest.mark.parametrize("packet_ids", [(), range(1, 101)])
def test_small_messages_are_one_piece_and_large_ones_are_not_copied(packet_ids: range) -> None:
    out: list[bytes] = []
    flags = publish_flags(1 if packet_ids else 0)
    small, large = [b"x"] * 100, [b"y" * (JOINED_BYTES_MAX + 1)] * 100
    for payloads in (small, large):
        build_publishes(
            out, b"a", b"", payloads, flags=flags, version=MQTT_5, packet_ids=packet_ids
        )
    assert len(out[0]) == 100 * (9 if packet_ids else 7)
    assert sum(piece is large[0] for piece in out) == 100
