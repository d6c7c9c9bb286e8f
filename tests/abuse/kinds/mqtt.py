"""Bad clients of MQTT: nonsense, silence, numbers out of range, crowds, and clients that flood."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from random import Random

from fluffle.protocol.mqtt.codes import MQTT_3_1_1, MQTT_5, PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import (
    Ack,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Publish,
    Subscribe,
    encode,
)
from fluffle.protocol.mqtt.properties import Properties, PropertyId, encode_properties
from tests.abuse.target import AttackContext, UnexpectedAnswer
from tests.support.mqtt_socket import MqttSocket, MqttSocketClosed

HANDSHAKE_S = 10
KEEP_ALIVE_S = 1
CROWD = 50
"""Clients that connect at the same time."""
FLOOD_S = 0.5
PIECE_BYTES = 1 << 18
UNREAD_BYTES = 20_000


def accepted(context: AttackContext, version: int = MQTT_5) -> MqttSocket:
    """A connection on which nothing was said."""
    assert context.target.mqtt is not None
    return MqttSocket(context.raw(context.target.mqtt), version)


def let_in(context: AttackContext, client_id: str = "", **terms: object) -> MqttSocket:
    """A client that has been let in."""
    client = accepted(context)
    client.connect(client_id, **terms)
    return client


def ends(client: MqttSocket, *codes: ReasonCode) -> None:
    """The connection ends, with one of these codes if there are any."""
    heard = None
    try:
        while True:
            heard = client.next()
    except TimeoutError:
        raise UnexpectedAnswer(f"nothing was said instead of {codes or 'the end'}") from None
    except (MqttSocketClosed, OSError):
        pass
    finally:
        client.close()
    code = heard.code if isinstance(heard, Disconnect | Connack) else None
    if codes and code not in codes:
        raise UnexpectedAnswer(f"{heard} instead of {codes}")


def garbage(context: AttackContext, chance: Random) -> None:
    """Bytes that are no CONNECT."""
    client = accepted(context)
    client.send_bytes(chance.choice((b"GET / HTTP/1.1\r\n\r\n", bytes(64), chance.randbytes(64))))
    client.send_bytes(b"\xff" * 16)
    ends(client)


def slow_handshakes(context: AttackContext, chance: Random) -> None:
    """A CONNECT that stops on the way."""
    client = accepted(context)
    octets = encode(Connect(MQTT_5, "slow"), MQTT_5)
    client.send_bytes(octets[: chance.randrange(len(octets))])
    context.keep(client.socket, HANDSHAKE_S, "a CONNECT that stopped on the way")


def silent_clients(context: AttackContext, _chance: Random) -> None:
    """A client that vanished: it has a keep alive interval, and says nothing."""
    client = let_in(context, keep_alive_s=KEEP_ALIVE_S)
    context.keep(client.socket, 3 * KEEP_ALIVE_S, "a silent client")


def numbers_out_of_range(context: AttackContext, chance: Random) -> None:
    """Identifiers and aliases that may not be, in one packet."""
    alias = Properties({PropertyId.TOPIC_ALIAS: chance.choice((17, 65_535))})
    packet, codes = chance.choice(
        (
            (
                encode(Publish(b"t", b"", 1, packet_id=1), MQTT_5).replace(b"t\0\1", b"t\0\0"),
                (ReasonCode.PROTOCOL_ERROR, ReasonCode.MALFORMED_PACKET),
            ),
            (
                encode(Publish(b"t", b"", properties=encode_properties(alias)), MQTT_5),
                (ReasonCode.TOPIC_ALIAS_INVALID,),
            ),
            (encode(Publish(b"a/+", b""), MQTT_5), (ReasonCode.TOPIC_NAME_INVALID,)),
            (
                b"".join(
                    encode(Publish(b"t", b"", 2, packet_id=number), MQTT_5)
                    for number in range(1, 3_000)
                ),
                (ReasonCode.RECEIVE_MAXIMUM_EXCEEDED,),
            ),
            (b"\x30\xff\xff\xff\xff\x7f", (ReasonCode.MALFORMED_PACKET,)),
        )
    )
    client = let_in(context)
    client.send_bytes(packet)
    ends(client, *codes)


def unknown_acknowledgements(context: AttackContext, _chance: Random) -> None:
    """Answers to what was never asked: each is answered, or passed over."""
    client = let_in(context)
    for number in (1, 0xFFFF):
        client.send(Ack(PacketType.PUBACK, number), Ack(PacketType.PUBCOMP, number))
        client.send(Ack(PacketType.PUBREL, number))
        heard = client.next()
        if not isinstance(heard, Ack) or heard.code is not ReasonCode.PACKET_IDENTIFIER_NOT_FOUND:
            raise UnexpectedAnswer(f"PUBREL of nothing was answered by {heard}")
    client.close()


def never_reads(context: AttackContext, _chance: Random) -> None:
    """A subscriber that reads nothing, beside a publisher who is not held up by that."""
    topic = f"unread/{time.monotonic_ns()}"
    reader = let_in(context)
    reader.send(Subscribe(1, [(topic, 0)]))
    reader.next()
    publisher = let_in(context)
    for number in range(1, 101):
        publisher.send(Publish(topic.encode(), bytes(UNREAD_BYTES), 1, packet_id=number))
        publisher.next()
    publisher.close()
    context.keep(reader.socket, float("inf"), "")


def crowds(context: AttackContext, chance: Random) -> None:
    """Clients that all connect at the same time, are cut off, and come back to their sessions."""
    name = chance.randrange(4)
    for _ in range(2):
        clients = [accepted(context) for _ in range(CROWD)]
        for number, client in enumerate(clients):
            client.send(client.connect_packet(f"crowd-{name}-{number}", expiry_s=30))
        for client in clients:
            with suppress(MqttSocketClosed, ConnectionError):  # another crowd takes it over
                client.next()
        for client in clients:
            client.close()


def takeovers(context: AttackContext, _chance: Random) -> None:
    """Clients that take each other over."""
    name = f"two-{time.monotonic_ns()}"
    before = let_in(context, name)
    for _ in range(10):
        client = let_in(context, name)
        ends(before, ReasonCode.SESSION_TAKEN_OVER)
        before = client
    before.close()


def websockets(context: AttackContext, chance: Random) -> None:
    """Upgrades and frames that no browser sends."""
    assert context.target.mqtt_ws is not None
    upgrade = (
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
    )
    sent = chance.choice(
        (
            b"GET /nowhere HTTP/1.1\r\n\r\n",
            b"\x00" * 64 + b"\r\n\r\n",
            b"GET /ws HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
            upgrade + b"\x82\x05hello",  # not masked
            upgrade + b"\x81\x85\0\0\0\0hello",  # text
            upgrade + b"\x82\xff" + b"\x7f" + b"\xff" * 7 + bytes(4),  # without end
            upgrade + b"\xf2\x80\0\0\0\0",  # reserved bits
            upgrade + b"\x89\xfe\x01\x00" + bytes(4 + 256),  # a ping that is too long
        )
    )
    sock = context.raw(context.target.mqtt_ws)
    with sock:
        with suppress(OSError):
            sock.sendall(sent)
        try:
            while sock.recv(65_536):
                pass
        except TimeoutError:
            raise UnexpectedAnswer(f"the socket was not closed: {sent[-20:]!r}") from None
        except OSError:
            pass


# Floods

Flood = Callable[[], Iterator[bytes]]


def messages(*, qos: int, retain: bool = False) -> Iterator[bytes]:
    """Messages of 3.1.1 to topics that change: of 5.0 no more than its maximum may be under way."""
    for number in count():
        yield b"".join(
            encode(
                Publish(b"flood/%d" % (number % 50), b"x", qos, retain, packet_id=at if qos else 0),
                MQTT_3_1_1,
            )
            + (encode(Ack(PacketType.PUBREL, at), MQTT_3_1_1) if qos == 2 else b"")
            for at in range(1, 101)
        )


def filters() -> Iterator[bytes]:
    """Subscriptions, each with a filter of its own."""
    for number in count():
        names = [(f"flood/{number}/{at}/+/#", 0) for at in range(100)]
        yield encode(Subscribe(1, names), MQTT_5)


def properties() -> Iterator[bytes]:
    """Messages with thousands of user properties."""
    raw = encode_properties(Properties(user=[("k", str(at)) for at in range(2_000)]))
    while True:
        yield encode(Publish(b"flood/properties", b"x", properties=raw), MQTT_5)


def pings() -> Iterator[bytes]:
    while True:
        yield encode(Pingreq(), MQTT_5) * 10_000


def flood(context: AttackContext, _chance: Random, *, version: int, blocks_of: Flood) -> None:
    """Send as much as the node takes for a moment; all that it answers is read."""
    client, blocks = accepted(context, version), blocks_of()
    client.connect("")
    block, until_s = memoryview(next(blocks)), time.monotonic() + FLOOD_S
    client.socket.setblocking(False)
    while time.monotonic() < until_s:
        with suppress(BlockingIOError):
            block = block[client.socket.send(block[:PIECE_BYTES]) :]
        with suppress(BlockingIOError):
            if not client.socket.recv(PIECE_BYTES):
                raise UnexpectedAnswer("the flooder was cut off")
        block = block or memoryview(next(blocks))
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


FLOODS: Mapping[str, tuple[int, Flood]] = {
    "QoS 0": (MQTT_3_1_1, partial(messages, qos=0)),
    "QoS 1": (MQTT_3_1_1, partial(messages, qos=1)),
    "QoS 2": (MQTT_3_1_1, partial(messages, qos=2)),
    "retained": (MQTT_3_1_1, partial(messages, qos=0, retain=True)),
    "filters": (MQTT_5, filters),
    "2,000 properties": (MQTT_5, properties),
    "pings": (MQTT_5, pings),
}

KINDS: Mapping[str, Callable[[AttackContext, Random], None]] = {
    "mqtt garbage": garbage,
    "mqtt slow handshakes": slow_handshakes,
    "mqtt silent clients": silent_clients,
    "mqtt numbers out of range": numbers_out_of_range,
    "mqtt unknown acknowledgements": unknown_acknowledgements,
    "mqtt who never reads": never_reads,
    "mqtt crowds that reconnect": crowds,
    "mqtt takeovers": takeovers,
    "mqtt websockets": websockets,
    **{
        f"flood: mqtt {name}": partial(flood, version=version, blocks_of=blocks_of)
        for name, (version, blocks_of) in FLOODS.items()
    },
}
