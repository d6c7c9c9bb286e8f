"""Large backlogs in a real node: what they cost in memory, and whom they hold up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fluffle.broker.config.config import memory_bytes
from fluffle.protocol.methods import Basic, Queue, make
from fluffle.protocol.properties import Properties
from tests.abuse.process_samples import look
from tests.support.client import Client
from tests.support.daemon import Daemon
from tests.support.edge import publish_frames

pytestmark = pytest.mark.slow("a backlog of gigabytes is published and taken")

MIB = 1 << 20
BODY_BYTES = 100_000
BODIES = 6_000
BATCH = 25
LIMIT_BYTES = 150 * MIB
"""A quarter of what the backlog has; memory is short from a half of it on."""
WORST_BYTES = 450 * MIB
"""Memory is looked at twice a second, and this publisher brings 300 MiB in that time."""

MILLION = 1_000_000
STALL_S_MAX = 1.0
"""The longest stall of the node's loop at work, whatever else has the processors; it is some
milliseconds."""


def client_of(daemon: Daemon) -> Client:
    client = Client("127.0.0.1", daemon.port).open()
    client.channel()
    return client


def body(number: int) -> bytes:
    return b"%6d" % number + bytes(BODY_BYTES - 6)


def test_transient_messages_leave_memory_and_come_back_in_order(tmp_path: Path) -> None:
    share = f"{LIMIT_BYTES / memory_bytes():.9f}"
    with (
        Daemon(tmp_path, "--memory-high-watermark", share) as daemon,
        client_of(daemon) as publisher,
        client_of(daemon) as consumer,
    ):
        publisher.call(1, make(Queue.Declare, queue="q"))
        seen_mib = []
        for start in range(0, BODIES, BATCH):
            batch = range(start, start + BATCH)
            publisher.send_bytes(b"".join(publish_frames(body(number)) for number in batch))
            publisher.settle(1)  # which waits while the publisher is blocked
            seen_mib.append(look(daemon.pid).resident_mib)
        consumer.call(1, make(Basic.Qos, prefetch_count=BATCH))
        consumer.call(1, make(Basic.Consume, queue="q", consumer_tag="c"))
        for number in range(BODIES):
            (delivery,) = consumer.expect("Basic.Deliver")
            assert delivery.body[:6] == b"%6d" % number
            consumer.send(1, make(Basic.Ack, delivery_tag=number + 1))
            if number % BATCH == 0:
                consumer.heard.clear()
                seen_mib.append(look(daemon.pid).resident_mib)
        assert max(seen_mib) * MIB < WORST_BYTES
        print(f"at most {max(seen_mib):.0f} MiB with a backlog of {BODIES * BODY_BYTES / MIB:.0f}")


class Longest:
    """Longest work of a node between a question and its answer, of a client that asks again and
    again."""

    def __init__(self, daemon: Daemon) -> None:
        self.seconds = 0.0
        self.count = 0
        self._pid = daemon.pid
        self._client = client_of(daemon)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    @contextmanager
    def watched(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()
            self._client.close()

    def _ask(self) -> None:
        while not self._stop.is_set():
            asked_s = look(self._pid).run_s
            self._client.call(1, make(Basic.Qos, prefetch_count=0))
            self.seconds = max(self.seconds, look(self._pid).run_s - asked_s)
            self.count += 1
            self._client.heard.clear()


@pytest.mark.parametrize("mode", [1, 2], ids=["transient", "persistent"])
@pytest.mark.parametrize("end", [Queue.Purge, Queue.Delete])
def test_the_end_of_a_million_messages_holds_up_nobody(
    tmp_path: Path, mode: int, end: type[Queue.Purge | Queue.Delete]
) -> None:
    one = publish_frames(b"0123456789", "q", properties=Properties(delivery_mode=mode))
    with Daemon(tmp_path) as daemon, client_of(daemon) as client:
        client.call(1, make(Queue.Declare, queue="q", durable=True))
        for _ in range(MILLION // 10_000):
            client.send_bytes(one * 10_000)
            client.settle(1)
        longest = Longest(daemon)
        with longest.watched():
            gone = client.call(1, make(end, queue="q")).method
            assert isinstance(gone, Queue.PurgeOk | Queue.DeleteOk)
            assert gone.message_count == MILLION
            for _ in range(10_000):
                client.settle(1)
                if longest.count > 1:
                    break
        assert longest.count > 1
        assert longest.seconds < STALL_S_MAX
        print(f"longest work beside it: {longest.seconds * 1000:.1f} ms")
