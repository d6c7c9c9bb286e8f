"""`python -m benchmarks.features [--quick]`: what limits, lifetimes and priorities cost a message.

A whole broker under the load of the scenario b16, with one queue that has some features and the
plain one by turns.  No limit is reached and nothing expires.  Messages have ten priorities or
expirations where a row says so, one after the other.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks import load
from benchmarks.brokers import NotAvailable, fluffle
from benchmarks.machine import placements
from benchmarks.report import markdown_table
from benchmarks.results import FAULTS
from benchmarks.scenarios import CONFIRMED

TTL = "-A x-message-ttl=60000"
LENGTH = "-A x-max-length=100000000"
BYTES = "-A x-max-length-bytes=100000000000"
REFUSING = "-A x-overflow=reject-publish"
PLAIN = "plain"

CLASSIC = {
    PLAIN: "",
    "x-message-ttl": TTL,
    "x-max-length": LENGTH,
    "x-max-length-bytes": BYTES,
    "x-max-length-bytes, reject-publish": f"{BYTES} {REFUSING}",
    "x-max-priority 9, one priority": "-A x-max-priority=9",
    "all of these": f"{TTL} {LENGTH} {BYTES} {REFUSING} -A x-max-priority=9",
    "ten expirations": "-l 10",
    "plain, ten priorities": "-e 10",
    "x-max-priority 9, ten priorities": "-A x-max-priority=9 -e 10",
    "all of these, ten priorities": f"{TTL} {LENGTH} {BYTES} {REFUSING} -A x-max-priority=9 -e 10",
}
"""Options of the load, beside those of b16."""

QUORUM = {
    PLAIN: "",
    "x-message-ttl": TTL,
    "x-max-length": LENGTH,
    "x-max-length-bytes": BYTES,
    "x-max-length-bytes, reject-publish": f"{BYTES} {REFUSING}",
    "all of these": f"{TTL} {LENGTH} {BYTES} {REFUSING}",
    "ten expirations": "-l 10",
    "ten priorities": "-e 10",
    "all of these, ten priorities": f"{TTL} {LENGTH} {BYTES} {REFUSING} -e 10",
}
KINDS = {
    "classic, transient": ("-z", CLASSIC),
    "classic, persistent": ("-P", CLASSIC),
    "quorum": ("-P -t quorum", QUORUM),
}


def measure(options: list[str], secs: float) -> float:
    """Microseconds of the broker's CPU for each message."""
    place = placements(pin_rabbitmq=False)["fluffle"]
    window = ["-T", str(secs), "-W", "1", "-d", str(load.DRAIN_TIMEOUT_S)]
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        fluffle(Path(folder), place.broker) as broker,
    ):
        timeout_s = secs + 2 * load.DRAIN_TIMEOUT_S
        report = load.run(broker, place.load, [*window, *options], timeout_s=timeout_s)
    faults = {name: report[name] for name in FAULTS if report[name]}
    if faults:
        raise load.LoadFailed(f"{options}: {faults}")
    return float(report["broker_cpu_s_per_M"])


def turns(kinds: list[str], reps: int) -> Iterator[tuple[str, str]]:
    """Kind and row of every run; what the machine does meanwhile meets all rows alike."""
    for _ in range(reps):
        for kind in kinds:
            for row in KINDS[kind][1]:
                yield kind, row


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.features", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run of each")
    parser.add_argument("--kind", choices=KINDS, action="append", help="these alone")
    chosen = parser.parse_args()
    secs, reps = (2.0, 1) if chosen.quick else (4.0, 3)
    found: dict[tuple[str, str], list[float]] = {}
    try:
        load.build()
        for kind, row in turns(chosen.kind or list(KINDS), reps):
            common, rows = KINDS[kind]
            options = f"-s 16 {CONFIRMED} {common} {rows[row]}".split()
            found.setdefault((kind, row), []).append(measure(options, secs))
            print(f"{kind:20} {row:36} {found[kind, row][-1]:.2f} µs", file=sys.stderr, flush=True)
    except NotAvailable as missing:
        print(missing, file=sys.stderr)
        return 2
    table = []
    for (kind, row), cpu_us in found.items():
        plain = median(found[kind, PLAIN])
        table.append([f"{kind}: {row}", f"{median(cpu_us):.2f}", f"{median(cpu_us) / plain:.2f}"])
    print(markdown_table(["queue", "CPU a message, µs", "of plain"], table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
