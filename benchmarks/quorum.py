"""Measures clusters of three nodes with quorum queues: many idle ones, failover, a backlog.

`python -m benchmarks.quorum [--quick] [--subjects NAME,…] [--only NAME,…] [--out DIR]`

All cores are used, by the nodes and by the load.  CPU and memory are the sums of the three
nodes, memory without mapped files.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import columns, load
from benchmarks.brokers import Broker
from benchmarks.client import Address, open_connection
from benchmarks.clusters import CLUSTERS, NODES, Cluster
from benchmarks.machine import Placement, anonymous_bytes, cpu_s, placements
from benchmarks.measurement import Measurement
from benchmarks.scenarios import QUORUM, Contender

TIMEOUT_S = 900.0
BODY_BYTES = 100
DURABLE = b"\x02"
QUORUM_TABLE = b"\x0cx-queue-typeS\x00\x00\x00\x06quorum"
FAILOVER_LOAD = "-s 100 -P -f -w 0 -u 300 -k 1 -r 500 -T 6 -W 0.5 -Y 2"
"""500 messages a second, so that a gap is known to 2 ms; the node is killed after two seconds."""
REST_S = 3.0
"""Between two failovers, for the node that is back."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    queues: int
    many_queues: int
    settle_s: float
    kills: int
    messages: int


FULL = Sizes(queues=1_000, many_queues=10_000, settle_s=20.0, kills=20, messages=1_000_000)
QUICK = Sizes(queues=100, many_queues=500, settle_s=3.0, kills=3, messages=50_000)


@dataclass(slots=True)
class Bench:
    """A cluster, and what was found about it."""

    title: str
    cluster: Cluster
    place: Placement
    rows: list[Measurement] = field(default_factory=list)

    def load(self, *arguments: str) -> load.Report:
        broker = self.cluster.broker()
        return load.run(broker, self.place.load, [*arguments], timeout_s=TIMEOUT_S)

    def say(self, what: str, value: float, unit: str) -> None:
        self.rows.append(Measurement(what, value, unit))
        print(f"{self.title:14} {what:52} {self.rows[-1].shown()}", flush=True)


def idle(bench: Bench, sizes: Sizes) -> None:
    """Queues that are declared by four clients at once and left alone."""
    declare_and_rest(bench, sizes.queues, sizes.settle_s)


def idle_many(bench: Bench, sizes: Sizes) -> None:
    declare_and_rest(bench, sizes.many_queues, sizes.settle_s)


def declare_and_rest(bench: Bench, count: int, settle_s: float) -> None:
    broker = bench.cluster.broker()
    before, cores = anonymous_bytes(broker.pids()), idle_cores(broker, settle_s)
    found = bench.load("declare", "-t", "quorum", "-K", "-n", str(count), "-j", "4")
    what = f"{count:,} quorum queues"
    bench.say(f"{what}: declared", found["per_s"], "queues/s")
    bytes_each = (anonymous_bytes(broker.pids()) - before) / count / len(NODES)
    bench.say(f"{what}: memory of a node", bytes_each / 1024, "KiB each")
    time.sleep(settle_s / 4)
    extra = idle_cores(broker, settle_s) - cores
    bench.say(f"{what}: CPU of three nodes when idle", extra * 100, "% of a core")


def idle_cores(broker: Broker, settle_s: float) -> float:
    """The share of a core that all nodes use together when nothing happens."""
    before = cpu_s(broker.pids())
    time.sleep(settle_s)
    return (cpu_s(broker.pids()) - before) / settle_s


def failover(bench: Bench, sizes: Sizes) -> None:
    """The node that leads a queue is killed; clients of the two others go on.

    Measured is the time from the kill to the end of the longest time without a confirm.
    """
    members = bench.cluster.members
    gaps_ms = []
    for number in range(sizes.kills):
        leader, publishers, consumers = (members[(number + step) % 3] for step in range(3))
        queue = f"failover.{number}"
        declare(leader.address, queue)
        found = load.command(
            publishers.address,
            [
                *(*FAILOVER_LOAD.split(), "-D", "-K", "-Q", queue, "-t", "quorum"),
                *("-C", load.host_and_port(consumers.address), "-X", str(leader.pid)),
            ],
            pids=[],
            timeout_s=TIMEOUT_S,
        )
        if found["lost"] or found["errors"]:
            raise load.LoadFailed(f"{found['lost']} lost, {found['errors']} errors")
        gaps_ms.append(found["kill"]["kill_to_confirms_resumed_ms"])
        leader.kill()  # what is left of it
        bench.cluster.start_again(leader)
        time.sleep(REST_S)
    what = "SIGKILL of the leader to the next confirm"
    bench.say(f"{what}: median of {sizes.kills}", median(gaps_ms), "ms")
    bench.say(f"{what}: worst", max(gaps_ms), "ms")


def declare(address: Address, queue: str) -> None:
    """A quorum queue, which is then led by this node."""
    name = bytes([len(queue)]) + queue.encode()
    table = len(QUORUM_TABLE).to_bytes(4, "big") + QUORUM_TABLE
    with open_connection(address) as connection:
        connection.wait_for(TIMEOUT_S)
        connection.open_channel()
        connection.call(50, 10, b"\x00\x00" + name + DURABLE + table, 11)


def backlog(bench: Bench, sizes: Sizes) -> None:
    """Published at the leader while nobody consumes; then consumed at another node."""
    broker, count = bench.cluster.broker(), sizes.messages
    common = ("-P", "-s", str(BODY_BYTES), "-Q", "backlog", "-K", "-t", "quorum", "-n", str(count))
    what = f"{count:,} messages of {BODY_BYTES} B"
    before, cpu = anonymous_bytes(broker.pids()), cpu_s(broker.pids())
    found = bench.load(*common, "-c", "0", "-f", "-w", "1000")
    bench.say(f"{what}: published", found["pub_rate"], "messages/s")
    bench.say(f"{what}: CPU to publish", (cpu_s(broker.pids()) - cpu) / count * 1e6, "µs each")
    bytes_each = (anonymous_bytes(broker.pids()) - before) / count / len(NODES)
    bench.say(f"{what}: memory of a node", bytes_each, "B each")
    cpu = cpu_s(broker.pids())
    found = bench.load(*common, "-p", "0", "-D", "-u", "300", "-k", "1")
    bench.say(f"{what}: consumed", found["consume_rate"], "messages/s")
    bench.say(f"{what}: CPU to consume", (cpu_s(broker.pids()) - cpu) / count * 1e6, "µs each")


Subject = Callable[[Bench, Sizes], None]

SUBJECTS: dict[str, Subject] = {
    "idle": idle,
    "idle-many": idle_many,
    "failover": failover,
    "backlog": backlog,
}
TOO_SLOW = {("idle-many", "rabbitmq")}
"""Pairs of row and broker that would take half an hour: 10,000 quorum queues at 70 a second, less
the more there are."""


def measure(names: list[str], contenders: list[str], sizes: Sizes) -> dict[str, list[Measurement]]:
    places = placements(pin_rabbitmq=False)
    found: dict[str, list[Measurement]] = {}
    for contender in (QUORUM.contenders[name] for name in contenders):
        found[contender.name] = [
            row
            for name in names
            if (name, contender.name) not in TOO_SLOW
            for row in measured(SUBJECTS[name], contender, places[contender.broker], sizes)
        ]
    return found


def measured(
    subject: Subject, contender: Contender, place: Placement, sizes: Sizes
) -> list[Measurement]:
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        CLUSTERS[contender.broker](Path(folder), place.broker) as cluster,
    ):
        bench = Bench(contender.title, cluster, place)
        subject(bench, sizes)
        return bench.rows


def main() -> int:
    def wanted(names: list[str], contenders: list[str], *, is_quick: bool) -> columns.Found:
        return measure(names, contenders, QUICK if is_quick else FULL)

    return columns.main("quorum", __doc__, QUORUM.contenders, SUBJECTS, wanted)


if __name__ == "__main__":
    sys.exit(main())
