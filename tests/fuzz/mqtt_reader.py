"""Both ends of an MQTT connection given any bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from fluffle.protocol.mqtt.codes import MQTT_3_1_1, MQTT_5
from fluffle.protocol.mqtt.packets import Connect, Publish, encode
from fluffle.protocol.mqtt.reader import WORK_BYTES_MAX, ClientReader, Reader, Violation
from tests.protocol.mqtt.packet_samples import (
    EXAMPLES,
    PACKET_BYTES_MAX,
    VERSIONS,
    is_of_broker,
    octets,
    open_reader,
    packets_of,
    read_all,
)


def mqtt_reader(data: bytes) -> None:
    """Events or one violation, at both ends of a connection and in all versions; the same however
    it is cut; what is read can be written, and is the same again.

    The first byte says at which end, the next say where to cut.
    """
    kind, cuts, sent = data[:1], data[1:4], data[4:]
    make_reader = MQTT_READERS[(kind[0] if kind else 0) % len(MQTT_READERS)]
    places = sorted(place * (len(sent) + 1) // 256 for place in cuts)
    pieces = [sent[start:stop] for start, stop in pairwise([0, *places, len(sent)])]
    reader = make_reader()
    whole = read_all(reader, sent)
    violations = [at for at, event in enumerate(whole) if isinstance(event, Violation)]
    assert violations in ([], [len(whole) - 1]), "a reader goes on behind a violation"
    assert read_all(make_reader(), *pieces) == whole
    good = whole[: violations[0]] if violations else whole
    packets = [packet for event in good for packet in packets_of(event)]
    again = b"".join(encode(packet, reader.version) for packet in packets)
    assert read_all(make_reader(), again) == good


MQTT_READERS: Sequence[Callable[[], Reader]] = [
    partial(Reader, PACKET_BYTES_MAX),
    *(partial(open_reader, version) for version in VERSIONS),
    *(partial(ClientReader, PACKET_BYTES_MAX, version) for version in VERSIONS),
]
"""Readers of a client before its CONNECT, of clients after it, and of brokers."""


def mqtt_seeds() -> list[bytes]:
    """All examples of each version at each end, and a client from its first packet on; and what
    takes more work to read than is done at once."""
    cuts = bytes((9, 99, 199))
    seeds = []
    for version in VERSIONS:
        ends: dict[bool, list[bytes]] = {False: [], True: []}
        first = encode(Connect(version, "c"), version)
        for of_version, packet, text in EXAMPLES:
            if of_version in (version, MQTT_3_1_1) and not isinstance(packet, Connect):
                sent = octets(text) if of_version == version else encode(packet, version)
                ends[is_of_broker(packet)].append(sent)
        at = 1 + VERSIONS.index(version)
        client = b"".join(ends[False])
        seeds += [bytes((0,)) + cuts + first + client, bytes((at,)) + cuts + client]
        seeds.append(bytes((at + len(VERSIONS),)) + cuts + b"".join(ends[True]))
    long_topic = encode(Publish(b"t" * WORK_BYTES_MAX, b"x", 1, packet_id=1), MQTT_3_1_1)
    seeds.append(bytes((1 + VERSIONS.index(MQTT_3_1_1),)) + cuts + 2 * long_topic)
    own_properties = (
        Publish(b"a", b"x", 1, packet_id=number, properties=b"\x09\x00\xc8" + b"%0200d" % number)
        for number in range(1, 2 * WORK_BYTES_MAX // 200)
    )
    own = b"".join(encode(packet, MQTT_5) for packet in own_properties)
    seeds.append(bytes((1 + VERSIONS.index(MQTT_5),)) + cuts + own)
    return seeds
