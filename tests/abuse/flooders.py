"""Clients that flood a node with what is dear for it and cheap for them, as AMQP allows it.

A flooder gets a client with channel 1 open, makes what it needs, and then gives blocks of bytes
without end; whoever runs it sends them as fast as the node takes them, and reads the answers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count, cycle, islice, product

from fluffle.protocol.methods import (
    Basic,
    Channel,
    Exchange,
    Queue,
    Tx,
    encode_method,
    make,
    pamqp_table,
)
from fluffle.protocol.properties import (
    Properties,
    build_content,
    encode_properties,
    split_content,
)
from fluffle.protocol.spec import FRAME_BODY, FRAME_HEADER, FRAME_METHOD
from fluffle.protocol.wire import to_table
from tests.support.client import Client, raw_frame

Flooder = Callable[[Client], Iterator[bytes]]

BLOCK_BYTES = 1 << 20
HAS_HEADERS = 0x2000
FIELDS_BYTES = 115_000
"""The length of a header frame or of a declaration: most of what a frame holds."""
CC_KEYS = 4_000
BINDINGS = 3_000
MANY_BINDINGS = 10_000
WORDS = 120
"""The words of a routing key, which has 255 octets at most."""
PREFIX_WORDS = 12
"""Words of which each is one of two: a binding key for each number of so many bits."""
QUEUES = 1_000
RING = 200
"""Queues of which each message gets into two."""
COMMITTED = 20_000
UNACKED = 100_000
RETAINED = 100_000


def publish(exchange: str, routing_key: str, body: bytes = b"x", **properties: object) -> bytes:
    """A message, with all its frames."""
    raw = encode_properties(Properties(**properties))  # type: ignore[arg-type]
    method = make(Basic.Publish, exchange=exchange, routing_key=routing_key)
    return encode_method(1, method) + split_content(build_content(raw, body), 1, 131_072)


def begun(body_bytes: int) -> bytes:
    """The first two frames of a message."""
    method = encode_method(1, make(Basic.Publish, exchange="", routing_key="nowhere"))
    return method + raw_frame(FRAME_HEADER, 1, struct.pack(">HHQH", 60, 0, body_bytes, 0))


def repeated(block: bytes) -> bytes:
    """A block of some size, so that who sends it is not busy with that."""
    return block * max(1, BLOCK_BYTES // len(block))


def declare_own(client: Client) -> str:
    """A queue that goes with the connection, in which ten messages wait at most."""
    table = pamqp_table(to_table({"x-max-length": 10}))
    declared = client.call(1, make(Queue.Declare, queue="", exclusive=True, arguments=table)).method
    assert isinstance(declared, Queue.DeclareOk), declared
    return declared.queue or ""


def declare_exchange(client: Client, kind: str) -> str:
    """An exchange that goes with its last binding."""
    name = f"flood-{kind}-{client.socket.getsockname()[1]}"
    client.call(1, make(Exchange.Declare, exchange=name, exchange_type=kind, auto_delete=True))
    return name


def bind(queue: str, exchange: str, key: str = "", number: int | None = None) -> bytes:
    """A binding that is not answered, by key or by headers."""
    wanted = to_table({"x-match": "all", "kind": "even", "n": number})
    table = pamqp_table({} if number is None else wanted)
    method = make(
        Queue.Bind,
        queue=queue,
        exchange=exchange,
        routing_key=key,
        arguments=table,
        nowait=True,
    )
    return encode_method(1, method)


def unbind(queue: str, exchange: str, key: str) -> bytes:
    """The end of a binding by key, which is answered."""
    method = make(Queue.Unbind, queue=queue, exchange=exchange, routing_key=key)
    return encode_method(1, method)


def fields(one: Callable[[int], bytes]) -> bytes:
    """Fields of a table up to what a frame holds."""
    made, size = list[bytes](), 0
    for number in count():
        made.append(one(number))
        size += len(made[-1])
        if size >= FIELDS_BYTES:
            return b"".join(made)
    raise AssertionError


def numbered_field(number: int) -> bytes:
    return b"\x06%06dI" % number + struct.pack(">i", number)


def void_field(_number: int) -> bytes:
    return b"\x00V"


def nested_table(_number: int) -> bytes:
    """Ninety tables inside each other."""
    inside = b""
    for _ in range(90):
        inside = b"\x00F" + struct.pack(">I", len(inside)) + inside
    return inside


def octets_one_by_one(client: Client) -> Iterator[bytes]:
    """Bodies of which each frame holds one octet."""
    block = begun(50_000) + raw_frame(FRAME_BODY, 1, b"x") * 50_000
    while True:
        yield block


def empty_bodies(client: Client) -> Iterator[bytes]:
    """A message that never ends, of body frames with nothing in them."""
    yield begun(1)
    block = repeated(raw_frame(FRAME_BODY, 1, b""))
    while True:
        yield block


def heartbeats(client: Client) -> Iterator[bytes]:
    """Heartbeats without a pause."""
    block = repeated(raw_frame(8, 0, b""))
    while True:
        yield block


def large_headers(client: Client, one: Callable[[int], bytes]) -> Iterator[bytes]:
    """Messages with as many headers as a frame holds, all of them different."""
    inside = fields(one)
    method = encode_method(1, make(Basic.Publish, exchange="", routing_key="nowhere"))
    for number in count():
        table = inside + numbered_field(number)
        raw = struct.pack(">HI", HAS_HEADERS, len(table)) + table
        yield method + raw_frame(FRAME_HEADER, 1, struct.pack(">HHQ", 60, 0, 0) + raw)


def many_keys(client: Client) -> Iterator[bytes]:
    """Messages that name thousands of queues in CC, of which there is one."""
    queue = declare_own(client)
    for number in count():
        keys = [queue, *(f"{number}.{key}" for key in range(CC_KEYS))]
        yield publish("", "nowhere", headers=to_table({"CC": list(keys)}))


def topic_walks(client: Client) -> Iterator[bytes]:
    """Keys of many words for bindings of which each may stand anywhere in them."""
    queue, exchange = declare_own(client), declare_exchange(client, "topic")
    prefixes = islice(product("a*", repeat=PREFIX_WORDS), BINDINGS)
    keys = (".".join((*prefix, "#", "a", "#", "z")) for prefix in prefixes)
    client.send_bytes(b"".join(bind(queue, exchange, key) for key in keys))
    client.settle(1)
    for number in count():
        words = ["a"] * (WORDS - 4) + [f"{number % 10_000:04}"]
        yield publish(exchange, ".".join(words))


def asked_headers(client: Client) -> Iterator[bytes]:
    """Messages of which thousands of bindings look at the headers."""
    queue = declare_own(client)
    exchange = declare_exchange(client, "headers")
    client.send_bytes(b"".join(bind(queue, exchange, number=number) for number in range(BINDINGS)))
    client.settle(1)
    for start in count(0, 64):
        yield b"".join(
            publish(exchange, "", headers=to_table({"kind": "even", "n": number}))
            for number in range(start, start + 64)
        )


def many_targets(client: Client) -> Iterator[bytes]:
    """Messages of which each goes to a thousand queues."""
    exchange = declare_exchange(client, "fanout")
    table = pamqp_table(to_table({"x-max-length": 10}))
    for number in range(QUEUES):
        queue = f"{exchange}-{number}"
        own = make(Queue.Declare, queue=queue, exclusive=True, nowait=True, arguments=table)
        client.send_bytes(encode_method(1, own) + bind(queue, exchange))
    client.settle(1)
    block = publish(exchange, "", bytes(1_000)) * 100
    while True:
        yield block


def many_routes(client: Client) -> Iterator[bytes]:
    """Messages of which each has a routing key of its own."""
    for start in count(0, 4096):
        yield b"".join(publish("amq.direct", f"{n}") for n in range(start, start + 4096))


def bindings_at_once(client: Client) -> Iterator[bytes]:
    """Ten thousand bindings, which then go with their exchange."""
    queue = declare_own(client)
    for number in count():
        name = f"flood-{client.socket.getsockname()[1]}-{number}"
        declare = make(Exchange.Declare, exchange=name, exchange_type="topic", nowait=True)
        delete = make(Exchange.Delete, exchange=name, nowait=True)
        binds = b"".join(bind(queue, name, f"{key}.#") for key in range(MANY_BINDINGS))
        yield encode_method(1, declare) + binds + encode_method(1, delete)


def durable_bindings_at_once(client: Client) -> Iterator[bytes]:
    """The same of durable bindings, which lead to an exchange that is always there."""
    for number in count():
        name = f"flood-{client.socket.getsockname()[1]}-{number}"
        declare = make(
            Exchange.Declare, exchange=name, exchange_type="topic", durable=True, nowait=True
        )
        delete = make(Exchange.Delete, exchange=name, nowait=True)
        binds = b"".join(
            encode_method(
                1,
                make(
                    Exchange.Bind,
                    destination="amq.fanout",
                    source=name,
                    routing_key=f"{key}.#",
                    nowait=True,
                ),
            )
            for key in range(MANY_BINDINGS)
        )
        yield encode_method(1, declare) + binds + encode_method(1, delete)


def large_declares(client: Client, one: Callable[[int], bytes]) -> Iterator[bytes]:
    """Declarations with as many arguments as a frame holds, of the same queue."""
    inside = fields(one)
    start = struct.pack(">HHH", 50, 10, 0) + b"\x00\x04"  # named by the node, exclusive
    method = start + struct.pack(">I", len(inside)) + inside
    declare = raw_frame(FRAME_METHOD, 1, method)
    delete = encode_method(1, make(Queue.Delete, queue="", nowait=True))
    while True:
        yield declare + delete


def with_unacked(client: Client) -> None:
    """Have the client hold a hundred thousand messages of a queue."""
    declared = client.call(1, make(Queue.Declare, queue="", exclusive=True)).method
    assert isinstance(declared, Queue.DeclareOk), declared
    queue = declared.queue or ""
    client.send_bytes(publish("", queue) * UNACKED)
    client.settle(1)
    client.send(1, make(Basic.Consume, queue=queue, consumer_tag="c"))
    bodies = 0
    while bodies < UNACKED:
        bodies += client.frame().kind == FRAME_BODY


def acks_out_of_order(client: Client) -> Iterator[bytes]:
    """A hundred thousand messages that are acknowledged one by one, in no order, again and again.

    Returned to the queue by tens of thousands in between.
    """
    with_unacked(client)
    first = 1
    while True:
        tags = range(first, first + UNACKED)
        order = [tags[at * 7_919 % UNACKED] for at in range(UNACKED // 2)]
        yield b"".join(encode_method(1, make(Basic.Ack, delivery_tag=tag)) for tag in order)
        yield encode_method(1, make(Basic.Nack, delivery_tag=0, multiple=True, requeue=True))
        first += UNACKED
        yield publish("", "") * (UNACKED // 2)


def mass_requeues(client: Client) -> Iterator[bytes]:
    """A hundred thousand messages that are given back at once, and come again."""
    with_unacked(client)
    block = encode_method(1, make(Basic.Nack, delivery_tag=0, multiple=True, requeue=True))
    while True:
        yield block


def acks_apart(client: Client) -> None:
    """Acknowledge every other message of those that a client holds."""
    client.send_bytes(
        b"".join(
            encode_method(1, make(Basic.Ack, delivery_tag=tag)) for tag in range(1, UNACKED, 2)
        )
    )


def requeues_apart(client: Client) -> Iterator[bytes]:
    """Fifty thousand messages without neighbours that are given back at once, and come again."""
    with_unacked(client)
    acks_apart(client)
    block = encode_method(1, make(Basic.Nack, delivery_tag=0, multiple=True, requeue=True))
    while True:
        yield block


def large_commits(client: Client) -> Iterator[bytes]:
    """Transactions of thousands of messages, of which no two that follow go to the same queues."""
    exchange = declare_exchange(client, "direct")
    table = pamqp_table(to_table({"x-max-length": 10}))
    for number in range(RING):
        queue = f"{exchange}-{number}"
        own = make(Queue.Declare, queue=queue, exclusive=True, nowait=True, arguments=table)
        keys = f"{number}", f"{(number + 1) % RING}"
        binds = b"".join(bind(queue, exchange, key) for key in keys)
        client.send_bytes(encode_method(1, own) + binds)
    client.settle(1)
    client.call(1, make(Tx.Select))
    messages = b"".join(publish(exchange, f"{number % RING}") for number in range(COMMITTED))
    while True:
        yield messages + encode_method(1, make(Tx.Commit))


def acks_in_transactions(client: Client) -> Iterator[bytes]:
    """Fifty thousand acknowledgements in no order that are committed, and as many that are rolled
    back, again and again."""
    with_unacked(client)
    client.call(1, make(Tx.Select))
    half = UNACKED // 2
    for number in count():
        first = 1 if not number else half + 1
        order = (first + at * 7_919 % half for at in range(half))
        yield b"".join(encode_method(1, make(Basic.Ack, delivery_tag=tag)) for tag in order)
        yield encode_method(1, make(Tx.Rollback) if number else make(Tx.Commit))


def many_found(client: Client) -> Iterator[bytes]:
    """Messages for an exchange with thousands of bindings, which change all the time."""
    queue, exchange = declare_own(client), declare_exchange(client, "fanout")
    keys = map(str, range(MANY_BINDINGS))
    client.send_bytes(b"".join(bind(queue, exchange, key) for key in keys))
    client.settle(1)
    message = publish(exchange, "")
    for number in count():
        yield b"".join(
            bind(queue, exchange, f"{number}.{at}")
            + unbind(queue, exchange, f"{number}.{at}")
            + message
            for at in range(1_000)
        )


def channel_churn(client: Client) -> Iterator[bytes]:
    """Channels that are opened and closed."""
    close = make(Channel.Close, reply_code=200, reply_text="", class_id=0, method_id=0)
    numbers = range(2, 1_000)
    block = b"".join(
        encode_method(number, make(Channel.Open)) + encode_method(number, close)
        for number in numbers
    )
    while True:
        yield block


def deletions(client: Client) -> Iterator[bytes]:
    """Queues that are declared by thousands and deleted again."""
    for start in cycle((0, 1)):
        names = [f"flood-{start}-{number}" for number in range(1_000)]
        yield b"".join(
            encode_method(1, make(Queue.Declare, queue=name, exclusive=True, nowait=True))
            for name in names
        ) + b"".join(
            encode_method(1, make(Queue.Delete, queue=name, nowait=True)) for name in names
        )


def retained_messages(_client: Client) -> Iterator[bytes]:
    """Messages that are retained, under a hundred thousand topics, again and again."""
    headers = {"x-mqtt-retain": True}
    message = partial(publish, "amq.topic", body=bytes(100), headers=to_table(headers))
    keys = [f"retained.{number % 1_000}.{number}" for number in range(RETAINED)]
    for start in cycle(range(0, RETAINED, 1_000)):
        yield b"".join(message(key) for key in keys[start : start + 1_000])


FLOODERS: Mapping[str, Flooder] = {
    "bodies octet by octet": octets_one_by_one,
    "empty body frames": empty_bodies,
    "heartbeats": heartbeats,
    "headers of 115 kB": partial(large_headers, one=numbered_field),
    "headers of 57,500 voids": partial(large_headers, one=void_field),
    "headers nested deeply": partial(large_headers, one=nested_table),
    "4,000 keys in CC": many_keys,
    "topic keys of 120 words": topic_walks,
    "3,000 headers bindings": asked_headers,
    "1,000 queues a message": many_targets,
    "a route a message": many_routes,
    "10,000 bindings at once": bindings_at_once,
    "10,000 durable bindings at once": durable_bindings_at_once,
    "arguments of 115 kB": partial(large_declares, one=numbered_field),
    "57,500 void arguments": partial(large_declares, one=void_field),
    "acks out of order": acks_out_of_order,
    "100,000 requeued at once": mass_requeues,
    "50,000 requeued apart": requeues_apart,
    "20,000 in a transaction": large_commits,
    "50,000 acks in a transaction": acks_in_transactions,
    "a fanout of 10,000": many_found,
    "channels opened and closed": channel_churn,
    "queues made and deleted": deletions,
    "100,000 retained messages": retained_messages,
}
