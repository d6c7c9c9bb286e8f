"""Measures a backlog on disk: what building, keeping, finding and dropping it costs.

`python -m benchmarks.backlog [--quick] [--only NAME,…] [--out DIR]`

Messages are persistent and have 100 bytes; the queue is durable, or a quorum queue.  Memory is that
of the broker's processes without mapped files.  A stall is the longest time that another connection
waits for an answer.
"""

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import columns, load
from benchmarks.brokers import BROKERS, Broker
from benchmarks.client import Address, Connection, open_connection
from benchmarks.machine import (
    Placement,
    anonymous_bytes,
    cpu_s,
    placements,
    written_bytes,
)
from benchmarks.measurement import Measurement
from benchmarks.scenarios import DURABLE, Contender

BODY_BYTES = 100
QUEUE = "backlog"
TIMEOUT_S = 900.0
PING_S = 0.001


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many messages are published in batches, and how many one by one."""

    batched: int
    single: int


FULL = Sizes(batched=1_000_000, single=50_000)
QUICK = Sizes(batched=50_000, single=2_000)


@dataclass(slots=True)
class Bench:
    """A broker that is started again and again on the same data."""

    contender: Contender
    place: Placement
    folder: Path
    rows: list[Measurement] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[Broker]:
        with BROKERS[self.contender.broker](self.folder, self.place.broker) as broker:
            yield broker

    def load(self, broker: Broker, *arguments: str) -> load.Report:
        options = ["-P", "-s", str(BODY_BYTES), "-Q", QUEUE, "-K", *self.contender.options]
        return load.run(broker, self.place.load, [*options, *arguments], timeout_s=TIMEOUT_S)

    def say(self, what: str, value: float, unit: str) -> None:
        self.rows.append(Measurement(what, value, unit))
        print(f"{self.contender.title:17} {what:52} {self.rows[-1].shown()}", flush=True)


def build(bench: Bench, broker: Broker, what: str, count: int, window: int) -> None:
    """Publish `count` messages that nobody consumes."""
    before, written = anonymous_bytes(broker.pids()), written_bytes(broker.pids())
    cpu = cpu_s(broker.pids())
    found = bench.load(broker, "-c", "0", "-f", "-n", str(count), "-w", str(window))
    bytes_each = (anonymous_bytes(broker.pids()) - before) / count
    bench.say(f"{what}: published", found["pub_rate"], "messages/s")
    bench.say(f"{what}: CPU", (cpu_s(broker.pids()) - cpu) / count * 1e6, "µs each")
    bench.say(f"{what}: memory", bytes_each, "B each")
    written = written_bytes(broker.pids()) - written
    bench.say(f"{what}: written", written / count / BODY_BYTES, "B a byte of body")


def batched(bench: Bench, sizes: Sizes) -> None:
    """A million in batches: built, found again, drained."""
    what, count = f"{sizes.batched:,} in batches", sizes.batched
    with bench.running() as broker:
        idle_bytes = anonymous_bytes(broker.pids())
        build(bench, broker, what, count, window=1000)
        os.kill(broker.pid, signal.SIGKILL)
    restart(bench, f"{what}: start after SIGKILL", count, idle_bytes)
    with bench.running() as broker:
        bench.say(f"{what}: start", broker.open_ms / 1000, "s")
        written, cpu = written_bytes(broker.pids()), cpu_s(broker.pids())
        found = bench.load(broker, "-p", "0", "-D", "-n", str(count), "-u", "300", "-k", "1")
        bench.say(f"{what}: consumed", found["consume_rate"], "messages/s")
        bench.say(f"{what}: CPU to consume", (cpu_s(broker.pids()) - cpu) / count * 1e6, "µs each")
        written = written_bytes(broker.pids()) - written
        bench.say(f"{what}: written to consume", written / count / BODY_BYTES, "B a byte of body")


def restart(bench: Bench, what: str, count: int, idle_bytes: int) -> None:
    with bench.running() as broker:
        bench.say(what, broker.open_ms / 1000, "s")
        bytes_each = (anonymous_bytes(broker.pids()) - idle_bytes) / count
        bench.say(f"{what}: memory", bytes_each, "B each")


def single(bench: Bench, sizes: Sizes) -> None:
    """Each message with a commit of its own, since the publisher waits for each confirm."""
    what, count = f"{sizes.single:,} one by one", sizes.single
    with bench.running() as broker:
        idle_bytes = anonymous_bytes(broker.pids())
        build(bench, broker, what, count, window=1)
    restart(bench, f"{what}: start", count, idle_bytes)


def dropped(bench: Bench, sizes: Sizes) -> None:
    """A million purged, and a million deleted with their queue."""
    for verb, (method_id, arguments) in DROPS.items():
        with bench.running() as broker:
            bench.load(broker, "-c", "0", "-f", "-n", str(sizes.batched), "-w", "1000")
            with Pinger(broker.address) as pinger, open_connection(broker.address) as connection:
                connection.open_channel()
                connection.wait_for(TIMEOUT_S)
                began = time.perf_counter()
                connection.call(50, method_id, arguments, method_id + 1)
                took = time.perf_counter() - began
                time.sleep(2 * took + 1)  # what is left to do comes after the answer
            bench.say(f"{sizes.batched:,} {verb}", took * 1000, "ms")
            bench.say(f"{sizes.batched:,} {verb}: longest stall", pinger.longest_s * 1000, "ms")


NAME = bytes([len(QUEUE)]) + QUEUE.encode()
DROPS = {
    "purged": (30, b"\x00\x00" + NAME + b"\x00"),
    "deleted": (40, b"\x00\x00" + NAME + b"\x00"),
}
"""queue.purge and queue.delete."""


class Pinger:
    """Another connection, which asks for something small again and again."""

    def __init__(self, address: Address) -> None:
        self._connection: Connection = open_connection(address)
        self._connection.open_channel()
        self._connection.wait_for(TIMEOUT_S)
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._ping)
        self.longest_s = 0.0

    def __enter__(self) -> "Pinger":
        self._thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._is_done.set()
        self._thread.join()
        self._connection.close()

    def _ping(self) -> None:
        """basic.qos, which changes nothing here."""
        while not self._is_done.wait(PING_S):
            began = time.perf_counter()
            self._connection.call(60, 10, b"\x00\x00\x00\x00\x00\x00\x00", 11)
            self.longest_s = max(self.longest_s, time.perf_counter() - began)


def at_once(bench: Bench, sizes: Sizes) -> None:
    """Consumed as it is published: what of it reaches the disk."""
    with bench.running() as broker:
        written = written_bytes(broker.pids())
        count = sizes.batched
        arguments = ("-f", "-w", "1000", "-u", "300", "-k", "1", "-n", str(count))
        found = bench.load(broker, *arguments)
        bench.say(f"{count:,} consumed at once", found["consume_rate"], "messages/s")
        written = written_bytes(broker.pids()) - written
        what = f"{count:,} consumed at once: written"
        bench.say(what, written / count / BODY_BYTES, "B a byte of body")


SUBJECTS: dict[str, Callable[[Bench, Sizes], None]] = {
    "batched": batched,
    "single": single,
    "dropped": dropped,
    "at-once": at_once,
}


def measure(names: list[str], contenders: list[str], sizes: Sizes) -> dict[str, list[Measurement]]:
    places = placements(pin_rabbitmq=False)
    found: dict[str, list[Measurement]] = {}
    for title, contender in ((name, DURABLE.contenders[name]) for name in contenders):
        found[title] = []
        for name in names:
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                bench = Bench(contender, places[contender.broker], Path(folder))
                SUBJECTS[name](bench, sizes)
                found[title] += bench.rows
    return found


def main() -> int:
    def wanted(names: list[str], contenders: list[str], *, is_quick: bool) -> columns.Found:
        return measure(names, contenders, QUICK if is_quick else FULL)

    return columns.main("backlog", __doc__, DURABLE.contenders, SUBJECTS, wanted)


if __name__ == "__main__":
    sys.exit(main())
