"""Cost of one MQTT message in each of the four functions of `protocol/mqtt/hot.py`, and in the
reader around them.

Each is called as the broker calls it: on what one read of a socket brings, or on a run.
"""

from collections.abc import Callable

from benchmarks.micro.hot import READ_BYTES, ns_per_message
from fluffle.protocol.mqtt.codes import MQTT_3_1_1, MQTT_5, PacketType
from fluffle.protocol.mqtt.hot import build_acks, build_publishes, scan_acks, scan_publishes
from fluffle.protocol.mqtt.packets import Ack, Connect, Publish, encode, publish_flags
from fluffle.protocol.mqtt.reader import Publishes, Reader
from fluffle.protocol.mqtt.wire import encode_binary

TOPIC = b"measurements/of/a/meter"
PACKET_BYTES_MAX = 1 << 20
RUN_MESSAGES = 256


def read_of(
    payload_bytes: int, *, qos: int = 0, topics: int = 1, version: int = MQTT_3_1_1, spread: int = 0
) -> tuple[int, bytes]:
    """Return about what one read brings: how many messages, and their packets.

    To so many topics in turn, and of lengths that differ by up to `spread` bytes.
    """
    packets: list[bytes] = []
    size, number = 0, 0
    while not packets or size < READ_BYTES:
        number += 1
        topic = TOPIC + str(number % topics).encode() if topics > 1 else TOPIC
        payload = b"x" * (payload_bytes + number % (spread + 1))
        packets.append(encode(Publish(topic, payload, qos, packet_id=number % 65_535 + 1), version))
        size += len(packets[-1])
    return len(packets), b"".join(packets)


def scans(*, qos: int, spread: int = 0) -> Callable[[int], float]:
    """Scan the packets of one topic, of one length or of several."""

    def measure(payload_bytes: int) -> float:
        count, read = read_of(payload_bytes, qos=qos, spread=spread)

        def call() -> int:
            payloads: list[bytes] = []
            packet_ids: list[int] = []
            scan_publishes(
                read,
                0,
                encode_binary(TOPIC),
                b"",
                packet_bytes_max=PACKET_BYTES_MAX,
                count_max=count,
                payloads=payloads,
                packet_ids=packet_ids,
            )
            if len(payloads) != count:
                raise AssertionError(f"took {len(payloads)} of {count} messages")
            return count

        return ns_per_message(call)

    return measure


def reads(*, topics: int, qos: int = 0, version: int = MQTT_3_1_1) -> Callable[[int], float]:
    """Read the packets of many topics in turn, each a run of its own."""

    def measure(payload_bytes: int) -> float:
        count, read = read_of(payload_bytes, qos=qos, topics=topics, version=version)
        reader = Reader(PACKET_BYTES_MAX)
        reader.feed(encode(Connect(version, "c"), version))
        reader.open()

        def call() -> int:
            events = reader.feed(read)
            while reader.is_waiting:
                events += reader.go_on()
            found = sum(len(event.payloads) for event in events if isinstance(event, Publishes))
            if found != count:
                raise AssertionError(f"read {found} of {count} messages")
            return count

        return ns_per_message(call)

    return measure


def acks(_payload_bytes: int) -> float:
    count = READ_BYTES // 4
    ids = [number % 65_535 + 1 for number in range(count)]
    read = b"".join(encode(Ack(PacketType.PUBACK, number), MQTT_3_1_1) for number in ids)

    def call() -> int:
        if len(scan_acks(read, 0)) != count:
            raise AssertionError("the acks were not taken as one run")
        return count

    return ns_per_message(call)


def built_acks(_payload_bytes: int) -> float:
    ids = list(range(1, RUN_MESSAGES + 1))

    def call() -> int:
        if len(build_acks(PacketType.PUBACK, ids)) != 4 * RUN_MESSAGES:
            raise AssertionError("an ack is missing")
        return RUN_MESSAGES

    return ns_per_message(call)


def builds(*, qos: int, version: int = MQTT_3_1_1) -> Callable[[int], float]:
    """Build the packets of a run, and join them into what is written to the socket."""

    def measure(payload_bytes: int) -> float:
        run = max(1, min(RUN_MESSAGES, READ_BYTES // payload_bytes))
        payloads = [b"x" * payload_bytes] * run
        flags = publish_flags(qos)
        ids = range(1, run + 1) if qos else ()

        def call() -> int:
            out: list[bytes] = []
            build_publishes(out, TOPIC, b"", payloads, flags=flags, version=version, packet_ids=ids)
            if not b"".join(out).endswith(payloads[0]):
                raise AssertionError("the last message is missing")
            return run

        return ns_per_message(call)

    return measure


BENCHES: dict[str, Callable[[int], float]] = {
    "MQTT, scan_publishes, QoS 0": scans(qos=0),
    "MQTT, scan_publishes, QoS 1": scans(qos=1),
    "MQTT, scan_publishes, QoS 0, lengths that differ": scans(qos=0, spread=9),
    "MQTT, scan_publishes, QoS 1, lengths that differ": scans(qos=1, spread=9),
    "MQTT, reader, one topic": reads(topics=1),
    "MQTT, reader, 100 topics": reads(topics=100),
    "MQTT, reader, 100 topics, QoS 1, 5.0": reads(topics=100, qos=1, version=MQTT_5),
    "MQTT, scan_acks": acks,
    "MQTT, build_acks": built_acks,
    "MQTT, build_publishes and join, QoS 0": builds(qos=0),
    "MQTT, build_publishes and join, QoS 1": builds(qos=1),
}
