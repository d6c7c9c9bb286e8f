"""Section 1, frames: their shape, their order, and methods that cannot be read."""

import struct
from collections.abc import Mapping

from fluffle.protocol.methods import Basic, Channel, Queue, encode_method, make
from fluffle.protocol.spec import FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD
from tests.compat.scenario import Peer, scenario
from tests.support.client import Client, raw_frame

PUBLISH = encode_method(1, make(Basic.Publish, exchange="", routing_key="nowhere"))
MESSAGE_BYTES_MAX = 16 * 1024 * 1024


def header(body_bytes: int, *, class_id: int = 60, weight: int = 0, flags: int = 0) -> bytes:
    """A content header frame for channel 1, without properties."""
    return raw_frame(FRAME_HEADER, 1, struct.pack(">HHQH", class_id, weight, body_bytes, flags))


def body(octets: bytes) -> bytes:
    return raw_frame(FRAME_BODY, 1, octets)


def method(class_id: int, method_id: int, arguments: bytes = b"") -> bytes:
    return struct.pack(">HH", class_id, method_id) + arguments


def each_on_its_own(peer: Peer, sent: Mapping[str, bytes]) -> None:
    """Send the bytes of each from a client of its own, with channel 1 open; hear what it earns."""
    for name, octets in sent.items():
        client = peer.client(name)
        client.channel(1)
        client.channel(2)
        client.send_bytes(octets)
        client.settle(2)
        if not client.transcript:
            client.transcript.append("nothing is said")


def queue_for(peer: Peer, queue: str, *, frame_max: int = 131_072) -> Client:
    """A client with an exclusive queue on channel 1, which goes with it."""
    client = peer.client(f"frame_max {frame_max}", frame_max=frame_max)
    client.call(client.channel(1), make(Queue.Declare, queue=queue, exclusive=True))
    return client


def frames_of_get(peer: Peer, client: Client, queue: str) -> None:
    """Get a message and note the frames in which it comes."""
    client.send(1, make(Basic.Get, queue=queue, no_ack=True))
    client.frame()
    content_header = client.frame()
    (missing,) = struct.unpack_from(">Q", content_header.payload, 4)
    sizes = []
    while missing:
        sizes.append(len(client.frame().payload))
        missing -= sizes[-1]
    peer.note(f"a header of {len(content_header.payload)} bytes, bodies of {sizes}")


# The frame itself


@scenario("1.8")
def frames_that_are_malformed(peer: Peer) -> None:
    opening = method(20, 10, b"\0")
    sent = {
        "end octet": raw_frame(FRAME_METHOD, 2, opening, end=b"\xcf"),
        "end octet of a heartbeat": raw_frame(FRAME_HEARTBEAT, 0, b"", end=b"\0"),
        "kind 0": raw_frame(0, 1, b""),
        "kind 4": raw_frame(4, 1, b"x"),
        "kind 9": raw_frame(9, 0, b""),
        "kind 255": raw_frame(255, 1, b"x"),
        "heartbeat on a channel": raw_frame(FRAME_HEARTBEAT, 1, b""),
        "heartbeat with a payload": raw_frame(FRAME_HEARTBEAT, 0, b"x"),
        "empty method": raw_frame(FRAME_METHOD, 1, b""),
        "half a method": raw_frame(FRAME_METHOD, 1, b"\0\x14\0"),
    }
    each_on_its_own(peer, sent)


@scenario("1.8")
def frames_that_are_too_large(peer: Peer) -> None:
    for frame_max in (8_192, 131_072):
        client = peer.client(f"frame_max {frame_max}", frame_max=frame_max)
        client.channel(1)
        client.send_bytes(PUBLISH + header(2 * frame_max) + body(bytes(frame_max - 8 + 9)))
        client.end()


@scenario("1.8")
def frames_that_are_a_little_too_large_are_taken(peer: Peer) -> None:
    queue = "a_little_too_large"
    client = queue_for(peer, queue, frame_max=8_192)
    publish = encode_method(1, make(Basic.Publish, exchange="", routing_key=queue))
    for excess in (0, 1, 8):
        octets = bytes(8_192 - 8 + excess)
        client.send_bytes(publish + header(len(octets)) + body(octets))
        frames_of_get(peer, client, queue)


@scenario("1.8")
def a_frame_too_large_for_the_handshake(peer: Peer) -> None:
    client = peer.connect()
    client.send_bytes(b"AMQP\0\0\x09\x01")
    client.next()
    client.transcript.clear()
    client.send_bytes(raw_frame(FRAME_METHOD, 0, method(10, 11, bytes(8_192 + 9))))
    client.end()


# The order of frames


@scenario("1.8")
def content_out_of_order(peer: Peer) -> None:
    opening = encode_method(1, make(Channel.Flow, active=True))
    sent = {
        "header without a method": header(4),
        "body without a method": body(b"body"),
        "body without a header": PUBLISH + body(b"body"),
        "method for a header": PUBLISH + opening,
        "publish for a header": PUBLISH + PUBLISH,
        "method for a body": PUBLISH + header(4) + opening,
        "header for a body": PUBLISH + header(4) + header(4),
        "method between bodies": PUBLISH + header(4) + body(b"bo") + opening,
        "body after the last": PUBLISH + header(4) + body(b"body") + body(b"more"),
    }
    each_on_its_own(peer, sent)


@scenario("1.8")
def content_headers_that_are_wrong(peer: Peer) -> None:
    sent = {
        "another class": PUBLISH + header(4, class_id=50),
        "another class, empty": PUBLISH + header(0, class_id=50),
        "truncated": PUBLISH + raw_frame(FRAME_HEADER, 1, bytes((0, 60, 0, 0))),
        "empty": PUBLISH + raw_frame(FRAME_HEADER, 1, b""),
    }
    each_on_its_own(peer, sent)


@scenario("1.8")
def a_weight_that_is_not_zero(peer: Peer) -> None:
    each_on_its_own(peer, {"weight 1": PUBLISH + header(4, weight=1)})


@scenario("1.8")
def bodies_longer_than_announced(peer: Peer) -> None:
    sent = {
        "one byte more": PUBLISH + header(3) + body(b"body"),
        "in the second frame": PUBLISH + header(6) + body(b"body") + body(b"body"),
    }
    each_on_its_own(peer, sent)


@scenario("1.8")
def absurd_sizes(peer: Peer) -> None:
    sent = {
        "512 MiB and a byte": PUBLISH + header(536_870_912 + 1),
        "2^63": PUBLISH + header(1 << 63),
        "2^64 - 1": PUBLISH + header((1 << 64) - 1),
    }
    each_on_its_own(peer, sent)


@scenario("1.8")
def other_channels_and_heartbeats_between_the_frames_of_a_message(peer: Peer) -> None:
    queue = "frames_between_frames"
    client = queue_for(peer, queue)
    client.channel(2)
    publish = make(Basic.Publish, exchange="", routing_key=queue)
    first = (encode_method(1, publish), header(8), body(b"on "), body(b"one, 1"[:5]))
    payload = struct.pack(">HHQH", 60, 0, 6, 0)
    second = (
        encode_method(2, publish),
        raw_frame(FRAME_HEADER, 2, payload),
        raw_frame(FRAME_BODY, 2, b"on "),
        raw_frame(FRAME_BODY, 2, b"two"),
    )
    beat = raw_frame(FRAME_HEARTBEAT, 0, b"")
    for one, other in zip(first, second, strict=True):
        client.send_bytes(one + beat + other)
    client.settle(1)
    client.settle(2)
    bodies = {client.call(1, make(Basic.Get, queue=queue, no_ack=True)).body for _ in range(2)}
    client.transcript.clear()
    peer.note(sorted(bodies))


# Bodies


@scenario("1.8")
def bodies_in_any_number_of_frames(peer: Peer) -> None:
    queue = "any_number_of_frames"
    client = queue_for(peer, queue)
    publish = encode_method(1, make(Basic.Publish, exchange="", routing_key=queue))
    contents = {
        "no body": header(0),
        "one frame": header(4) + body(b"body"),
        "a frame a byte": header(4) + b"".join(body(bytes((octet,))) for octet in b"body"),
        "empty frames": header(4) + body(b"") + body(b"bo") + body(b"") + body(b"dy"),
    }
    for name, content in contents.items():
        peer.note(name)
        client.send_bytes(publish + content)
        frames_of_get(peer, client, queue)


@scenario("1.8")
def a_body_is_delivered_in_frames_of_the_size_agreed(peer: Peer) -> None:
    for frame_max in (8_192, 131_072):
        queue = f"frames_of_{frame_max}"
        client = queue_for(peer, queue, frame_max=frame_max)
        whole = frame_max - 8
        for body_bytes in (whole - 1, whole, whole + 1, 3 * whole, 3 * whole + 1):
            for position in range(0, body_bytes, whole):
                if not position:
                    publish = make(Basic.Publish, exchange="", routing_key=queue)
                    client.send_bytes(encode_method(1, publish) + header(body_bytes))
                client.send_bytes(body(bytes(min(whole, body_bytes - position))))
            frames_of_get(peer, client, queue)
        client.transcript.clear()


@scenario("1.8", "6")
def the_largest_message(peer: Peer) -> None:
    queue = "the_largest_message"
    client = queue_for(peer, queue)
    client.publish(1, "", queue, b"x" * MESSAGE_BYTES_MAX)
    client.call(1, make(Basic.Get, queue=queue, no_ack=True))
    client.publish(1, "", queue, b"x" * (MESSAGE_BYTES_MAX + 1))
    client.settle(1)
    client.call(2, make(Channel.Open))


# Methods that cannot be read


@scenario("1.8")
def methods_that_do_not_exist(peer: Peer) -> None:
    sent = {
        "class 99": raw_frame(FRAME_METHOD, 1, method(99, 1)),
        "basic.99": raw_frame(FRAME_METHOD, 1, method(60, 99)),
        "class 99 on channel 0": raw_frame(FRAME_METHOD, 0, method(99, 1)),
        "connection.99 on channel 0": raw_frame(FRAME_METHOD, 0, method(10, 99)),
        "on a channel that is not open": raw_frame(FRAME_METHOD, 7, method(99, 1)),
    }
    each_on_its_own(peer, sent)


@scenario("1.8")
def arguments_that_cannot_be_read(peer: Peer) -> None:
    declare = encode_method(1, make(Queue.Declare, queue="arguments"))[7:-1]
    ack = encode_method(1, make(Basic.Ack, delivery_tag=1))[7:-1]
    publish = PUBLISH[7:-1]
    payloads = {
        "declare without arguments": method(50, 10),
        "declare cut short": declare[:-1],
        "declare with more": declare + b"\0",
        "declare, name not UTF-8": declare.replace(b"arguments", b"\xffrguments"),
        "declare, name too long": method(50, 10, b"\0\0\xffshort"),
        "ack cut short": ack[:-1],
        "ack with more": ack + b"\0",
        "publish cut short": publish[:-1],
        "publish with more": publish + b"\0",
        "publish, key not UTF-8": publish.replace(b"nowhere", b"nowher\xff"),
        "declare with a broken table": declare[:-4] + b"\0\0\0\x05\1k?12",
        "declare with a table cut short": declare[:-4] + b"\0\0\0\x09\1kS\0\0",
    }
    sent = {name: raw_frame(FRAME_METHOD, 1, payload) for name, payload in payloads.items()}
    for name in sent:
        if name.startswith("publish"):
            sent[name] += header(0)
    each_on_its_own(peer, sent)


@scenario("1.8", "4.2")
def a_routing_key_of_any_bytes(peer: Peer) -> None:
    queue = "a_routing_key_of_any_bytes"
    client = queue_for(peer, queue)
    client.call(1, make(Queue.Bind, queue=queue, exchange="amq.fanout", routing_key=""))
    key = b"\x00\xff\xc3("
    publish = method(60, 40, b"\0\0\x0aamq.fanout" + bytes((len(key),)) + key + b"\0")
    client.send_bytes(raw_frame(FRAME_METHOD, 1, publish) + header(0))
    client.send(1, make(Basic.Get, queue=queue, no_ack=True))
    peer.note(client.frame().payload)
