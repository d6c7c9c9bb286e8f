"""`python -m benchmarks.restart`: how long a node takes to come up with much on its disk.

The stores are made in this process, as a node would have made them that published in batches or
one by one (a commit, an entry and a record each), so that no fsync is waited for.  Then `fluffle
serve` starts on them: the time is from exec to the line that says it listens, and from exec until
a client knows how many messages there are.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import lmdb
import pika

from benchmarks.machine import anonymous_bytes, cpu_s
from benchmarks.measurement import Measurement
from fluffle.broker.access.access import Access
from fluffle.broker.composition.definitions import first_start
from fluffle.broker.config.config import Config
from fluffle.broker.definitions.catalogue import Catalogue, restored
from fluffle.broker.durability.durability import Durability
from fluffle.broker.durability.fact_codec import VhostImage
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.metadata.metadata import LocalMetadata
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.queues.engine import Queue
from fluffle.broker.runtime.turn import Turn
from fluffle.broker.vhosts.queue_changes import declare_queue
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.properties import Properties, build_content, encode_properties
from fluffle.storage.environment import MAP_BYTES, STORE_FOLDER, LmdbEnvironment, open_environment
from fluffle.storage.layout import Table
from fluffle.storage.store import InstantWriter, Store
from tests.support.daemon import Daemon
from tests.support.queue_host import FakeTurn

BODY_BYTES = 100
BATCH_MESSAGES = 100


def fail(error: Exception) -> None:
    raise error


def open_unsynced(directory: Path) -> LmdbEnvironment:
    """A new store that a power cut would destroy, which nobody waits for."""
    open_environment(directory).close()
    environment = lmdb.open(
        str(directory / STORE_FOLDER), map_size=MAP_BYTES, max_dbs=len(Table), sync=False
    )
    return LmdbEnvironment(environment, None, {t: environment.open_db(t.value) for t in Table})


class Making:
    """A node in this process."""

    def __init__(self, directory: Path) -> None:
        self._store = Store(open_unsynced(directory), InstantWriter, on_fatal=fail)
        self.durability = Durability(self._store, Turn(lambda _act: None))
        self.catalogue = self._catalogue()
        self.metadata = LocalMetadata(self.catalogue.apply, self.durability.facts)
        self.metadata.ensure(lambda: first_start(self.catalogue, Config()))
        self.vhost = self.catalogue.vhosts["/"]

    def _catalogue(self) -> Catalogue:
        durability = self.durability

        maker = LocalQueues(FakeTurn(), durability.journals)

        def make_vhost(name: str, image: VhostImage | None = None) -> VirtualHost:
            return VirtualHost(name, maker, image=image)

        return restored(durability.image, Access(), make_vhost)

    def declare(self, name: str) -> Queue:
        """A durable queue."""
        declared = Declaration(name, durable=True)
        self.metadata.ensure(lambda: declare_queue(self.vhost, declared, None))
        queue = self.vhost.queues[name]
        assert isinstance(queue, Queue)
        return queue

    def fill(self, queue_name: str, count: int, together: int) -> None:
        """Publish `count` messages to a new queue, so many with each commit."""
        queue = self.declare(queue_name)
        origins = [self.vhost.origin("", queue_name)] * together
        properties = encode_properties(Properties(delivery_mode=2))
        contents = [build_content(properties, bytes(BODY_BYTES))] * together
        for _ in range(count // together):
            queue.enqueue(origins, contents, together * len(contents[0]), persistent=True)
            self.durability.commits.flush()

    def end(self) -> None:
        """End as if killed, once everything is written."""
        self.durability.commits.close()


def start(directory: Path, queue: str) -> tuple[float, float, float, float, int]:
    """Start a node on a store: seconds to ready and to the answer, CPU, memory; the answer."""
    began = time.perf_counter()
    with Daemon(directory) as daemon:
        ready_s = time.perf_counter() - began
        spent_s = cpu_s([daemon.pid])
        connection = pika.BlockingConnection(pika.URLParameters(daemon.url))
        declared = connection.channel().queue_declare(queue, passive=True)
        answered_s = time.perf_counter() - began
        memory = anonymous_bytes([daemon.pid])
        connection.close()
    return ready_s, answered_s, spent_s, memory / 2**20, declared.method.message_count


def measure(
    what: str, make: Callable[[Making], None], queue: str, count: int, runs: int
) -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory() as folder:
        making = Making(Path(folder))
        make(making)
        making.end()
        found = [start(Path(folder), queue) for _ in range(runs)]
    if any(row[-1] != count for row in found):
        raise AssertionError(f"{count} messages were published, {found} found")
    for column, (name, unit) in enumerate(
        [("exec to ready", "s"), ("exec to the count", "s"), ("CPU", "s"), ("memory", "MiB")]
    ):
        yield Measurement(f"{what}: {name}", median(row[column] for row in found), unit)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restart", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--queues", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="batches,single,queues")
    chosen = parser.parse_args()
    count = chosen.messages

    def make_queues(making: Making) -> None:
        for number in range(chosen.queues):
            making.declare(f"q{number}")

    subjects: dict[str, tuple[str, Callable[[Making], None], str, int]] = {
        "batches": (
            f"{count:,} messages in batches",
            lambda making: making.fill("q", count, BATCH_MESSAGES),
            "q",
            count,
        ),
        "single": (
            f"{count:,} messages one by one",
            lambda making: making.fill("q", count, 1),
            "q",
            count,
        ),
        "queues": (f"{chosen.queues:,} durable queues", make_queues, "q0", 0),
    }
    for name in chosen.only.split(","):
        for row in measure(*subjects[name], chosen.runs):
            print(f"{row.what:58} {row.shown()}", flush=True)


if __name__ == "__main__":
    main()
