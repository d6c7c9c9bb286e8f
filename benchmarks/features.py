"""`python -m benchmarks.features [--reps N] [--secs S] [--kind KIND] [--row ROW]`: what limits,
lifetimes and priorities cost a message.

A whole broker under the load of the scenario b16, with one queue that has some features and the
plain one by turns.  No limit is reached and nothing expires.  Messages have ten priorities or
expirations where a row says so, one after the other.

What the machine does meanwhile meets rows of one repetition about alike: so each is compared with
the plain one of its own repetition, and of these ratios the median is reported, beside the least
that any run took.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
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


def turns(kinds: list[str], rows: list[str], reps: int) -> Iterator[tuple[str, str]]:
    """Kind and row of every run, the plain one among them; every other repetition goes backwards,
    so that who grows slower, or faster, does so to no row's good."""
    for rep in range(reps):
        for kind in kinds:
            chosen = [row for row in KINDS[kind][1] if row == PLAIN or not rows or row in rows]
            for row in reversed(chosen) if rep % 2 else chosen:
                yield kind, row


def table(found: Mapping[tuple[str, str], Sequence[float]]) -> str:
    """Table of the microseconds of each repetition, by kind and row."""
    lines = []
    for (kind, row), cpu_us in found.items():
        plain_us = found[kind, PLAIN]
        ratio = median(ours / plain for ours, plain in zip(cpu_us, plain_us, strict=True))
        lines.append([f"{kind}: {row}", f"{min(cpu_us):.2f}", f"{ratio:.2f}"])
    return markdown_table(["queue", "CPU a message, µs, least", "of plain, median"], lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.features", description=__doc__)
    parser.add_argument("--reps", type=int, default=5, help="how often each is run")
    parser.add_argument("--secs", type=float, default=3.0, help="for how long")
    parser.add_argument("--kind", choices=KINDS, action="append", help="these alone")
    rows = dict.fromkeys((*CLASSIC, *QUORUM))
    parser.add_argument("--row", choices=rows, action="append", help="these alone, and plain ones")
    chosen = parser.parse_args()
    found: dict[tuple[str, str], list[float]] = {}
    try:
        load.build()
        for kind, row in turns(chosen.kind or list(KINDS), chosen.row or [], chosen.reps):
            common, options_of = KINDS[kind]
            options = f"-s 16 {CONFIRMED} {common} {options_of[row]}".split()
            found.setdefault((kind, row), []).append(measure(options, chosen.secs))
            print(f"{kind:20} {row:36} {found[kind, row][-1]:.2f} µs", file=sys.stderr, flush=True)
    except NotAvailable as missing:
        print(missing, file=sys.stderr)
        return 2
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
