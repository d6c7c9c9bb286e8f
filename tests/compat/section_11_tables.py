"""Section 11, field tables and properties: every tag there and back, and what cannot be read.

Tables are written by hand, byte by byte, and what comes back is noted as bytes too, so that
nothing depends on the reader and the writer that are under test.
"""

import struct
from collections.abc import Mapping

from fluffle.protocol.methods import Basic, Exchange, Method, Queue, encode_method, make
from fluffle.protocol.spec import FRAME_BODY, FRAME_HEADER, FRAME_METHOD, PROTOCOL_HEADER
from tests.compat.scenario import Peer, scenario
from tests.support.client import Client, raw_frame

FLAG_HEADERS = 1 << 13


def long(octets: bytes) -> bytes:
    """Octets behind their length, as long strings, tables and arrays are written."""
    return struct.pack(">I", len(octets)) + octets


def short(octets: bytes) -> bytes:
    return bytes((len(octets),)) + octets


def field(key: bytes, tagged: bytes) -> bytes:
    """Encode a field of a table: its name, its tag, its value."""
    return short(key) + tagged


VALUES: Mapping[str, tuple[bytes, ...]] = {
    "t": (b"\0", b"\1"),
    "b": (b"\x80", b"\xff", b"\0", b"\x7f"),
    "B": (b"\0", b"\x80", b"\xff"),
    "s": (b"\x80\0", b"\xff\xff", b"\x7f\xff"),
    "u": (b"\0\0", b"\x80\0", b"\xff\xff"),
    "I": (b"\x80\0\0\0", b"\0\0\0\0", b"\x7f\xff\xff\xff"),
    "i": (b"\0\0\0\0", b"\x80\0\0\0", b"\xff\xff\xff\xff"),
    "l": (b"\x80" + bytes(7), bytes(8), b"\x7f" + b"\xff" * 7),
    "f": (b"\0\0\0\0", b"\x80\0\0\0", b"\x3f\xc0\0\0", b"\x7f\x7f\xff\xff", b"\0\0\0\1"),
    "d": (bytes(8), b"\x80" + bytes(7), b"\x3f\xf8" + bytes(6), b"\x7f\xef" + b"\xff" * 6),
    "D": (b"\0\0\0\0\0", b"\2\0\0\1\x3a", b"\xff\xff\xff\xff\xff"),
    "S": (long(b""), long(b"text"), long("ü€".encode()), long(b"\xff\0\xfe"), long(b"x" * 300)),
    "x": (long(b""), long(b"\xff\0\xfe")),
    "T": (bytes(8), b"\0\0\0\0\x6a\0\0\0", b"\xff" * 8),
    "F": (long(b""), long(field(b"a", b"s\0\1") + field(b"b", b"F" + long(b"")))),
    "A": (long(b""), long(b"b\1V" + b"S" + long(b"x") + b"A" + long(b"t\1"))),
    "V": (b"",),
}
"""Encoded values by tag, the ends of the range among them."""


def table_of(tag: str) -> bytes:
    """The fields of a table with every value of a tag, in the order of their keys."""
    tagged = (tag.encode() + value for value in VALUES[tag])
    return b"".join(field(b"k%d" % number, value) for number, value in enumerate(tagged))


EVERYTHING = b"".join(field(b"of " + tag.encode(), b"F" + long(table_of(tag))) for tag in VALUES)
"""The fields of a table with a table of each tag's values."""


def channel_with_queue(peer: Peer, queue: str, name: str = "client") -> Client:
    client = peer.client(name)
    client.call(client.channel(1), make(Queue.Declare, queue=queue, exclusive=True))
    client.transcript.clear()
    return client


def publish_raw(client: Client, queue: str, properties: bytes, body: bytes = b"") -> None:
    """Publish to a queue with properties as they are: flags and values."""
    publish = encode_method(1, make(Basic.Publish, exchange="", routing_key=queue))
    header = raw_frame(FRAME_HEADER, 1, struct.pack(">HHQ", 60, 0, len(body)) + properties)
    content = header + raw_frame(FRAME_BODY, 1, body) if body else header
    client.send_bytes(publish + content)


def headers(fields: bytes) -> bytes:
    """Raw properties that are headers alone."""
    return struct.pack(">H", FLAG_HEADERS) + long(fields)


def there_and_back(peer: Peer, queue: str, sent: Mapping[str, bytes]) -> None:
    """Publish each of these raw properties and note how they come back with the message."""
    client = channel_with_queue(peer, queue)
    for name, properties in sent.items():
        publish_raw(client, queue, properties)
        client.send(1, make(Basic.Get, queue=queue, no_ack=True))
        client.frame()
        returned = client.frame().payload[12:]
        peer.note(f"{name}: {'as sent' if returned == properties else returned.hex(' ', -4)}")


def is_it_read(peer: Peer, sent: Mapping[str, bytes]) -> None:
    """Publish each of these raw properties from a client of its own; note the codes of closes.

    The texts say what a reader stumbled over, which is its own affair.
    """
    for name, properties in sent.items():
        queue = f"is it read: {name}"
        client = channel_with_queue(peer, queue, name)
        publish_raw(client, queue, properties)
        client.settle(1)
        note_codes(peer, name, client)


def note_codes(peer: Peer, name: str, client: Client) -> None:
    """Note the codes of the closes that a client has heard, and nothing else of them."""
    closes = (heard.method for heard in client.heard if heard.name == "Connection.Close")
    peer.note(f"{name}: {[close.reply_code for close in closes]}")  # type: ignore[attr-defined]
    client.transcript.clear()


# Headers


@scenario("11")
def every_tag_in_headers(peer: Peer) -> None:
    there_and_back(peer, "every_tag_in_headers", {tag: headers(table_of(tag)) for tag in VALUES})


@scenario("11")
def keys_of_headers(peer: Peer) -> None:
    tables = {
        "no fields": b"",
        "empty": field(b"", b"t\1"),
        "longest": field(b"k" * 255, b"t\1"),
        "in order": field(b"A", b"t\1") + field(b"a", b"t\1") + field("ü".encode(), b"t\1"),
        "not UTF-8": field(b"\xfe", b"t\1") + field(b"\xff", b"t\1"),
        "inside, out of order": field(b"k", b"F" + long(field(b"b", b"t\1") + field(b"a", b"t\1"))),
    }
    there_and_back(peer, "keys_of_headers", {key: headers(table) for key, table in tables.items()})


@scenario("11")
def what_could_be_written_otherwise(peer: Peer) -> None:
    one, two = b"b\1", b"b\2"
    sent = {
        "bool 2": headers(field(b"k", b"t\2")),
        "L": headers(field(b"k", b"L\x80" + bytes(7))),
        "out of order": headers(field(b"b", one) + field(b"a", two) + field(b"B", one)),
        "one key twice": headers(field(b"a", one) + field(b"b", two) + field(b"a", two)),
        "flag without a property": struct.pack(">H", 1 << 1),
    }
    there_and_back(peer, "what_could_be_written_otherwise", sent)


@scenario("11")
def tables_inside_tables(peer: Peer) -> None:
    table = array = b""
    for _ in range(40):
        table = field(b"k", b"F" + long(table))
        array = b"A" + long(array)
    sent = {"tables": headers(table), "arrays": headers(field(b"k", array))}
    there_and_back(peer, "tables_inside_tables", sent)


@scenario("11")
def headers_that_cannot_be_read(peer: Peer) -> None:
    tables = {
        "tag U": long(field(b"k", b"U\0\1")),
        "tag 0": long(field(b"k", b"\0")),
        "no tag": long(short(b"k")),
        "value cut short": long(field(b"k", b"l\0")),
        "key cut short": long(b"\xffk"),
        "string beyond its table": long(field(b"k", b"S\0\0\0\x09x")),
        "table beyond its table": long(field(b"k", b"F\0\0\0\x09x")),
        "array beyond its table": long(field(b"k", b"A\0\0\0\x09t\1")),
        "bad tag inside": long(field(b"k", b"F" + long(field(b"k", b"U\0\1")))),
        "table beyond the frame": b"\0\0\0\xff" + field(b"k", b"t\1"),
        "length cut short": b"\0\0",
        "not a number": long(field(b"k", b"f\x7f\xc0\0\0")),
        "infinite": long(field(b"k", b"d\x7f\xf0" + bytes(6))),
    }
    flags = struct.pack(">H", FLAG_HEADERS)
    is_it_read(peer, {name: flags + table for name, table in tables.items()})


# Properties

TEXTS = {15: "content_type", 14: "content_encoding", 10: "correlation_id", 9: "reply_to"} | {
    7: "message_id",
    5: "type",
    3: "app_id",
    2: "cluster_id",
}
"""Properties that are short strings of any content, by the bit of their flag."""


@scenario("11")
def every_property_alone(peer: Peer) -> None:
    sent = {
        f"{name} {text!r}": struct.pack(">H", 1 << bit) + short(text)
        for bit, name in TEXTS.items()
        for text in (b"", "ü".encode(), b"\xff", b"x" * 255)
    }
    octets = {12: "delivery_mode", 11: "priority"}
    for bit, name in octets.items():
        for value in (0, 1, 2, 3, 255):
            sent[f"{name} {value}"] = struct.pack(">HB", 1 << bit, value)
    for seconds in (0, 1_700_000_000, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
        sent[f"timestamp {seconds}"] = struct.pack(">HQ", 1 << 6, seconds)
    sent["expiration"] = struct.pack(">H", 1 << 8) + short(b"60000")
    sent["user_id"] = struct.pack(">H", 1 << 4) + short(b"guest")
    there_and_back(peer, "every_property_alone", sent)


@scenario("11")
def all_properties_together(peer: Peer) -> None:
    values = (
        short(b"text/plain"),
        short(b"gzip"),
        long(field(b"k", b"t\1")),
        b"\2\5",
        short(b"correlation"),
        short(b"reply to"),
        short(b"60000"),
        short(b"message"),
        struct.pack(">Q", 1_700_000_000),
        short(b"type"),
        short(b"guest"),
        short(b"app"),
        short(b"cluster"),
    )
    sent = {"all": struct.pack(">H", 0xFFFC) + b"".join(values), "none": bytes(2)}
    there_and_back(peer, "all_properties_together", sent)


@scenario("11")
def properties_that_cannot_be_read(peer: Peer) -> None:
    sent = {
        "no flags": b"",
        "half the flags": b"\0",
        "text cut short": struct.pack(">H", 1 << 15) + b"\5x",
        "text missing": struct.pack(">H", 1 << 15),
        "octet missing": struct.pack(">H", 1 << 12),
        "timestamp cut short": struct.pack(">H", 1 << 6) + bytes(7),
        "bytes too many": bytes(3),
        "more flags": struct.pack(">HH", 1, 0),
        "more flags, none there": struct.pack(">H", 1),
    }
    is_it_read(peer, sent)


# Arguments of methods


def with_arguments(method: Method, fields: bytes) -> bytes:
    """The frame of a method on channel 1 whose last argument, an empty table, is this one."""
    payload = encode_method(1, method)[7:-1]
    return raw_frame(FRAME_METHOD, 1, payload[:-4] + long(fields))


@scenario("11")
def every_tag_in_arguments(peer: Peer) -> None:
    name = "every_tag_in_arguments"
    methods = {
        "Exchange.DeclareOk": make(Exchange.Declare, exchange=name, auto_delete=True),
        "Queue.DeclareOk": make(Queue.Declare, queue=name, exclusive=True),
        "Queue.BindOk": make(Queue.Bind, queue=name, exchange=name, routing_key="k"),
        "Basic.ConsumeOk": make(Basic.Consume, queue=name, consumer_tag="tag", no_ack=True),
        "Queue.UnbindOk": make(Queue.Unbind, queue=name, exchange=name, routing_key="k"),
    }
    client = peer.client()
    client.channel(1)
    for answer, method in methods.items():
        client.send_bytes(with_arguments(method, EVERYTHING))
        client.expect(answer)
    client.call(1, make(Exchange.Declare, exchange=name, passive=True))


INTEGER_BYTES = {"b": 1, "B": 1, "s": 2, "u": 2, "I": 4, "i": 4, "l": 8, "L": 8}


@scenario("11")
def tags_that_are_integers(peer: Peer) -> None:
    for tag, size in INTEGER_BYTES.items():
        declare_with(peer, f"integer {tag}", field(b"x-max-length", tag.encode() + bytes(size)))


@scenario("11")
def tags_that_are_no_integers(peer: Peer) -> None:
    for tag in sorted(VALUES.keys() - INTEGER_BYTES.keys()):
        value = tag.encode() + VALUES[tag][0]
        declare_with(peer, f"no integer {tag}", field(b"x-max-length", value))


def declare_with(peer: Peer, queue: str, arguments: bytes) -> None:
    """Declare a queue with arguments; then without, which says what type they had."""
    declare = make(Queue.Declare, queue=queue, exclusive=True)
    client = peer.client(queue)
    client.channel(1)
    client.send_bytes(with_arguments(declare, arguments))
    client.next()
    client.call(client.channel(2), declare)


# The table of a client


@scenario("11", "1.2")
def client_properties_with_every_tag(peer: Peer) -> None:
    client = peer.connect()
    client.send_bytes(PROTOCOL_HEADER)
    client.next()
    client.transcript.clear()
    client.send_bytes(start_ok_with(long(EVERYTHING)))
    client.next()


@scenario("11", "1.2")
def client_properties_that_cannot_be_read(peer: Peer) -> None:
    tables = {
        "tag U": long(field(b"k", b"U\0\1")),
        "value cut short": long(field(b"k", b"l\0")),
        "table beyond the frame": b"\0\0\xff\xff",
    }
    for name, table in tables.items():
        client = peer.connect(name)
        client.send_bytes(PROTOCOL_HEADER)
        client.next()
        client.transcript.clear()
        client.send_bytes(start_ok_with(table))
    for name, client in peer.clients.items():
        client.end()
        note_codes(peer, name, client)


def start_ok_with(table: bytes) -> bytes:
    """connection.start-ok with client properties as they are."""
    login = short(b"PLAIN") + long(b"\0guest\0guest") + short(b"en_US")
    return raw_frame(FRAME_METHOD, 0, struct.pack(">HH", 10, 11) + table + login)
