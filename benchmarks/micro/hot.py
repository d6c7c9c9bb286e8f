"""Cost of one message in each of the three functions of `protocol/hot.py`.

Each is called as the broker calls it: on what one read of a socket brings.
"""

import gc
import time
from collections.abc import Callable
from struct import pack
from typing import Any

from fluffle.protocol.hot import Head, build_deliveries, scan_acks, scan_publishes
from fluffle.protocol.properties import Properties, encode_properties
from fluffle.protocol.wire import PlainValue, to_table

QUEUE = "measurements"
BODY_BYTES = (16, 1_024, 16_384)
READ_BYTES = 65_536
"""About what the event loop reads at once."""
FRAME_BYTES_MAX = 131_072
ROUNDS = 9
ROUND_S = 0.05


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def publish_method(channel: int, queue: str = QUEUE) -> bytes:
    """basic.publish to the default exchange with a routing key."""
    key = bytes([len(queue)]) + queue.encode()
    return frame(1, channel, b"\x00\x3c\x00\x28\x00\x00\x00" + key + b"\x00")


def content(channel: int, body_bytes: int, **properties: Any) -> bytes:
    """A header with delivery-mode 1 and other properties, and a body in one frame."""
    raw = encode_properties(Properties(delivery_mode=1, **properties))
    header = frame(2, channel, pack(">HHQ", 60, 0, body_bytes) + raw)
    return header + frame(3, channel, b"x" * body_bytes)


def ns_per_message(call: Callable[[], int]) -> float:
    """The best of `ROUNDS`; `call` returns how many messages it worked through."""
    best = float("inf")
    gc.collect()
    gc.disable()
    try:
        for _ in range(ROUNDS):
            messages, spent, began = 0, 0, time.process_time_ns()
            while not messages or spent < ROUND_S * 1e9:
                messages += call()
                spent = time.process_time_ns() - began
            best = min(best, spent / messages)
    finally:
        gc.enable()
    return best


def with_id(number: int) -> dict[str, Any]:
    return {"message_id": f"{number:036}"}


def with_priority(number: int) -> dict[str, Any]:
    return {"priority": number % 10}


def with_another(number: int) -> dict[str, Any]:
    """Properties that differ in one message of 150 where messages are compared by the thousand."""
    return {"reply_to": "another" if number % 150 == 149 else "the one"}


def with_task(number: int) -> dict[str, Any]:
    """About what a task queue for Python sends."""
    task = f"{number:036}"
    texts: dict[str, PlainValue] = dict.fromkeys(
        ("lang", "task", "group", "argsrepr", "kwargsrepr", "origin"), "some text"
    )
    others: dict[str, PlainValue] = {"retries": 0, "timelimit": [None, None], "stamps": {}}
    headers = to_table({**texts, **others, "id": task, "root_id": task})
    return {"headers": headers, "correlation_id": task, "reply_to": "results", "priority": 0}


def publishes(
    channel: int, *, queues: int = 1, varied: Callable[[int], dict[str, Any]] | None = None
) -> Callable[[int], float]:
    """Publishes on `channel`, where 1 is the one that needs no renumbering.

    To so many queues in turn, and with properties of its own for each message.
    """

    def measure(body_bytes: int) -> float:
        methods = [publish_method(channel, f"{QUEUE}{number}") for number in range(queues)]
        each = varied or (lambda _number: {})
        size = len(methods[0] + content(channel, body_bytes, **each(0)))
        count = max(1, READ_BYTES // size)
        read = b"".join(
            methods[number % queues] + content(channel, body_bytes, **each(number))
            for number in range(count)
        )
        heads: dict[bytes, Head] = {}

        def call() -> int:
            found: list[bytes] = []
            taken: list[bytes] = []
            position = 0
            while position < len(read):
                position = scan_publishes(
                    read, position, FRAME_BYTES_MAX - 8, found, taken, heads=heads
                )[0]
            if len(taken) != count:
                raise AssertionError(f"took {len(taken)} of {count} messages")
            return count

        return ns_per_message(call)

    return measure


def acks(_body_bytes: int) -> float:
    head = pack(">BHIHH", 1, 1, 13, 60, 80)
    count = READ_BYTES // 21
    read = b"".join(head + pack(">QBB", tag, 0, 0xCE) for tag in range(1, count + 1))

    def call() -> int:
        if scan_acks(read, 0, head) != (1, count):
            raise AssertionError("the acks were not taken as one run")
        return count

    return ns_per_message(call)


def deliveries(body_bytes: int) -> float:
    """Built and joined into what is written to the socket."""
    stored = content(1, body_bytes)
    count = max(1, READ_BYTES // (len(stored) + 60))
    contents = [stored] * count
    prefix = pack(">BHIHH", 1, 1, 35, 60, 60) + b"\x02c0"
    tail = b"\x00\x00\x0cmeasurements\xce"

    def call() -> int:
        out: list[bytes] = []
        build_deliveries(out, prefix, 1, tail, contents)
        if not b"".join(out).endswith(stored):
            raise AssertionError("the last message is missing")
        return count

    return ns_per_message(call)


BENCHES: dict[str, Callable[[int], float]] = {
    "scan_publishes": publishes(channel=1),
    "scan_publishes, channel 7": publishes(channel=7),
    "scan_publishes, 100 queues": publishes(channel=1, queues=100),
    "scan_publishes, unique ids": publishes(channel=1, varied=with_id),
    "scan_publishes, unique ids, 100 queues": publishes(channel=1, queues=100, varied=with_id),
    "scan_publishes, tasks": publishes(channel=1, varied=with_task),
    "scan_publishes, ten priorities": publishes(channel=1, varied=with_priority),
    "scan_publishes, each 150th another": publishes(channel=1, varied=with_another),
    "scan_acks": acks,
    "build_deliveries and join": deliveries,
}
