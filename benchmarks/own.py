"""Measures fluffle alone: idle memory, start-up, churn, and many of everything.

`python -m benchmarks.own [--quick] [--only NAME,…] [--out DIR]`
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import bindings, disk, guarded, load, report
from benchmarks.brokers import Broker, NotAvailable, fluffle
from benchmarks.client import open_connection
from benchmarks.compare import RESULTS
from benchmarks.machine import Placement, cpu_s, machine_class, placements, rss_bytes
from benchmarks.measurement import Measurement
from benchmarks.results import here_and_now, may_record

LOAD_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    starts: int
    churn_s: float
    connections: int
    queues: int
    bindings: int
    settle_s: float


FULL = Sizes(
    starts=9, churn_s=8.0, connections=1_000, queues=10_000, bindings=1_000_000, settle_s=10.0
)
QUICK = Sizes(starts=2, churn_s=1.0, connections=100, queues=500, bindings=50_000, settle_s=1.0)


ANYWHERE = "127.0.0.1:0"
METRICS = ("--metrics", ANYWHERE)
SERVED: Mapping[str, tuple[str, ...]] = {
    "metrics": METRICS,
    "metrics and management": (*METRICS, "--management", ANYWHERE),
}
"""Options for what a node may serve besides its clients."""


@contextmanager
def fresh_broker(place: Placement, *options: str) -> Iterator[Broker]:
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        fluffle(Path(folder), place.broker, options=options) as broker,
    ):
        yield broker


def start_up(sizes: Sizes, place: Placement) -> list[Measurement]:
    """From exec on; the memory is that after the first connection came and went."""
    ready_ms, open_ms, rss_mib = [], [], []
    for _ in range(sizes.starts):
        with fresh_broker(place) as broker:
            ready_ms.append(broker.ready_ms)
            open_ms.append(broker.open_ms)
            rss_mib.append(rss_bytes(broker.pids()) / 2**20)
    return [
        Measurement("start-up: exec to ready", median(ready_ms), "ms"),
        Measurement("start-up: exec to the first connection.open-ok", median(open_ms), "ms"),
        Measurement("idle: memory", median(rss_mib), "MiB"),
    ]


def idle_cores(broker: Broker, settle_s: float) -> float:
    """The share of a core the broker uses when nothing happens."""
    before = cpu_s(broker.pids())
    time.sleep(settle_s)
    return (cpu_s(broker.pids()) - before) / settle_s


def idle(sizes: Sizes, place: Placement) -> list[Measurement]:
    with fresh_broker(place) as broker:
        cores = idle_cores(broker, sizes.settle_s)
    return [
        Measurement("idle: CPU", cores * 100, "% of a core"),
        *(
            Measurement(f"idle: memory with {what}", resident_mib(place, *options), "MiB")
            for what, options in SERVED.items()
        ),
    ]


def resident_mib(place: Placement, *options: str) -> float:
    """After the first connection came and went."""
    with fresh_broker(place, *options) as broker:
        return rss_bytes(broker.pids()) / 2**20


def churn(sizes: Sizes, place: Placement) -> list[Measurement]:
    """Connect, open a channel, close both; four clients at once."""
    with fresh_broker(place) as broker:
        arguments = ["churn", "-T", str(sizes.churn_s), "-j", "4"]
        found = load.run(broker, place.load, arguments, timeout_s=LOAD_TIMEOUT_S)
    return [
        Measurement("connection churn", found["per_s"], "connections/s"),
        Measurement("connection churn: latency p99", found["latency_us"]["p99"] / 1000, "ms"),
        Measurement("connection churn: CPU", found["broker_cpu_ms_each"] * 1000, "µs each"),
    ]


def connections(sizes: Sizes, place: Placement) -> list[Measurement]:
    """Connections that do nothing, with a heartbeat of a minute."""
    with fresh_broker(place) as broker, ExitStack() as held:
        before = rss_bytes(broker.pids())
        for _ in range(sizes.connections):
            held.enter_context(open_connection(broker.address))
        cores = idle_cores(broker, sizes.settle_s)
        bytes_each = (rss_bytes(broker.pids()) - before) / sizes.connections
    what = f"{sizes.connections:,} idle connections"
    return [
        Measurement(f"{what}: memory", bytes_each / 1024, "KiB each"),
        Measurement(f"{what}: CPU", cores * 100, "% of a core"),
    ]


def queues(sizes: Sizes, place: Placement) -> list[Measurement]:
    """Transient queues, declared by four clients at once, then left alone."""
    with fresh_broker(place) as broker:
        before = rss_bytes(broker.pids())
        arguments = ["declare", "-z", "-K", "-n", str(sizes.queues), "-j", "4"]
        found = load.run(broker, place.load, arguments, timeout_s=LOAD_TIMEOUT_S)
        bytes_each = (rss_bytes(broker.pids()) - before) / sizes.queues
        cores = idle_cores(broker, sizes.settle_s)
    what = f"{sizes.queues:,} queues"
    return [
        Measurement(f"{what}: declare", found["per_s"], "queues/s"),
        Measurement(f"{what}: memory", bytes_each / 1024, "KiB each"),
        Measurement(f"{what}: CPU when idle", cores * 100, "% of a core"),
    ]


def topic_bindings(sizes: Sizes, _place: Placement) -> list[Measurement]:
    return bindings.measure(sizes.bindings)


def guarded_load(sizes: Sizes, place: Placement) -> list[Measurement]:
    return guarded.measure(sizes.churn_s, place)


def disk_limit(sizes: Sizes, _place: Placement) -> list[Measurement]:
    return disk.measure(sizes.churn_s / 8)


SUBJECTS: dict[str, Callable[[Sizes, Placement], list[Measurement]]] = {
    "start-up": start_up,
    "idle": idle,
    "churn": churn,
    "guarded": guarded_load,
    "disk": disk_limit,
    "connections": connections,
    "queues": queues,
    "bindings": topic_bindings,
}


def text(measurements: list[Measurement], command: str, conditions: dict[str, str]) -> str:
    """The figures as markdown, without a title."""
    machine = machine_class()
    table = report.markdown_table(
        ["what", "how much"], [[row.what, row.shown()] for row in measurements]
    )
    return (
        f"`{command}` on {conditions['date']}, commit {conditions['commit']}.  {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB; {conditions['python']}.\n\n{table}"
    )


def record(
    measurements: list[Measurement], command: str, folder: Path, docs: Path, *, name: str = "own"
) -> None:
    """Write a record into `folder`, and the table into its section of the page in `docs`."""
    conditions = here_and_now()
    found = {
        "conditions": {**conditions, "command": command, "machine": machine_class()},
        "measurements": [row._asdict() for row in measurements],
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-{conditions['date']}-{conditions['commit']}.json"
    file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    report.update_section(docs / "performance.md", name, text(measurements, command, conditions))


def allow_many_sockets() -> None:
    """Raise the limit of files for this process and, by inheritance, the broker: a socket a
    connection on each side."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.own", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--only", default=",".join(SUBJECTS), help="subjects: %(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write record and table there")
    chosen = parser.parse_args()
    names = chosen.only.split(",")
    if unknown := set(names) - set(SUBJECTS):
        parser.error(f"no subject {', '.join(sorted(unknown))}; there are {', '.join(SUBJECTS)}")
    complete = not (chosen.quick or chosen.out) and names == list(SUBJECTS) and may_record()
    allow_many_sockets()
    place = placements(pin_rabbitmq=True)["fluffle"]
    found: list[Measurement] = []
    try:
        load.build()
        for name in names:
            for row in SUBJECTS[name](QUICK if chosen.quick else FULL, place):
                print(f"{row.what:58} {row.shown()}", flush=True)
                found.append(row)
    except NotAvailable as missing:
        print(missing, file=sys.stderr)
        return 2
    command = f"python -m benchmarks.own{' --quick' * chosen.quick}"
    if chosen.out:
        record(found, command, chosen.out, chosen.out)
    elif complete:
        record(found, command, RESULTS, report.DOCS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
