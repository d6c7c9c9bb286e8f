"""Measures fluffle and RabbitMQ under the same loads on this machine and prints both.

Every run has a freshly started broker; brokers take turns within each scenario, scenarios within
each repetition, so that what the machine does meanwhile meets both alike.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import load, report, results
from benchmarks.brokers import BROKERS, NotAvailable
from benchmarks.machine import Cores, Placement, placements, rss_bytes
from benchmarks.results import Comparison, Run
from benchmarks.scenarios import SCENARIOS

RESULTS = Path(__file__).with_name("results")
QUICK = {"secs": 2.0, "reps": 1, "warm": 0.5}
FULL = {"secs": 8.0, "reps": 3, "warm": 1.5}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run of each")
    parser.add_argument(
        "--scenarios", default=",".join(SCENARIOS), help="names, separated by commas: %(default)s"
    )
    parser.add_argument("--reps", type=int, help="repetitions of every run")
    parser.add_argument("--secs", type=float, help="measured seconds of a run")
    parser.add_argument("--only", choices=sorted(BROKERS), help="measure this broker alone")
    parser.add_argument(
        "--pin-rabbitmq",
        action="store_true",
        help="give RabbitMQ one core, as fluffle has, instead of all of them",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write record, table, plot there")
    chosen = parser.parse_args()
    defaults = QUICK if chosen.quick else FULL
    chosen.reps = chosen.reps or int(defaults["reps"])
    chosen.secs = chosen.secs or defaults["secs"]
    chosen.warm = defaults["warm"]
    chosen.brokers = [chosen.only] if chosen.only else list(BROKERS)
    chosen.scenarios = chosen.scenarios.split(",")
    if unknown := set(chosen.scenarios) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    chosen.command = f"python -m benchmarks.compare {options_text(chosen)}".strip()
    chosen.complete = (
        not chosen.quick and not chosen.only and len(chosen.scenarios) == len(SCENARIOS)
    )
    return chosen


def options_text(chosen: argparse.Namespace) -> str:
    """The options that decide what is measured; where it is written is nobody's business."""
    options = [
        *["--quick"] * chosen.quick,
        *[f"--scenarios {','.join(chosen.scenarios)}"] * (chosen.scenarios != list(SCENARIOS)),
        f"--reps {chosen.reps} --secs {chosen.secs:g}",
        *[f"--only {chosen.only}"] * bool(chosen.only),
        *["--pin-rabbitmq"] * chosen.pin_rabbitmq,
    ]
    return " ".join(options)


def turns(chosen: argparse.Namespace) -> Iterator[tuple[int, str, str]]:
    """Repetition, scenario and broker of every run; who goes first changes each repetition."""
    for repetition in range(chosen.reps):
        order = chosen.brokers[:: -1 if repetition % 2 else 1]
        for scenario in chosen.scenarios:
            for broker in order:
                yield repetition, scenario, broker


def measure(
    chosen: argparse.Namespace, broker_name: str, scenario: str, place: Placement
) -> tuple[str, float, load.Report]:
    """Version of the broker, its idle memory in MiB, and the report of one run."""
    window = ["-T", str(chosen.secs), "-W", str(chosen.warm), "-d", str(load.DRAIN_TIMEOUT_S)]
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        BROKERS[broker_name](Path(folder), place.broker) as broker,
    ):
        idle_mib = rss_bytes(broker.pids()) / 2**20
        found = load.run(
            broker,
            place.load,
            [*window, *SCENARIOS[scenario].options],
            timeout_s=chosen.secs + chosen.warm + 2 * load.DRAIN_TIMEOUT_S,
        )
        return broker.version, idle_mib, found


def progress(run: Run) -> str:
    figures = run.report
    return (
        f"{run.repetition} {run.scenario:5} {run.broker:9} "
        f"{figures['pub_rate']:>10,.0f} published/s {figures['consume_rate']:>10,.0f} consumed/s "
        f"{figures['broker_cpu_s_per_M']:>8.2f} µs"
        f"{'  disturbed' if run.disturbed() else ''}"
        f"{'  ' + str(run.faults()) if run.faults() else ''}"
    )


def cores_text(place: Placement) -> str:
    if place.broker == place.load:
        return f"cores {listed(place.broker)} shared with the load"
    return f"core {listed(place.broker)}, the load on core {listed(place.load)}"


def listed(cores: Cores) -> str:
    return ", ".join(map(str, sorted(cores)))


def compare(chosen: argparse.Namespace) -> Comparison:
    places = placements(pin_rabbitmq=chosen.pin_rabbitmq)
    versions: dict[str, str] = {}
    runs: list[Run] = []
    for repetition, scenario, broker in turns(chosen):
        versions[broker], idle_mib, found = measure(chosen, broker, scenario, places[broker])
        runs.append(Run(broker, scenario, repetition, round(idle_mib, 1), found))
        print(progress(runs[-1]), file=sys.stderr, flush=True)
    return Comparison(
        results.conditions(
            command=chosen.command,
            measured_s=chosen.secs,
            warm_up_s=chosen.warm,
            repetitions=chosen.reps,
            cores={broker: cores_text(places[broker]) for broker in chosen.brokers},
            versions=versions,
        ),
        runs,
    )


def record(comparison: Comparison, chosen: argparse.Namespace, *, complete: bool) -> None:
    """A complete comparison goes into the repository, any other only where it is told to."""
    what = comparison.conditions
    name = f"compare-{what.date}-{what.commit}.json"
    if chosen.out:
        results.save(comparison, chosen.out / name)
        report.publish(comparison, chosen.out)
    elif complete:
        results.save(comparison, RESULTS / name)
        report.publish(comparison, report.DOCS)


def main() -> int:
    chosen = arguments()
    complete = chosen.complete and not chosen.out and results.may_record()
    try:
        load.build()
        comparison = compare(chosen)
    except NotAvailable as missing:
        print(missing, file=sys.stderr)
        return 2
    record(comparison, chosen, complete=complete)
    print(report.tables(comparison))
    return 1 if any(run.faults() for run in comparison.runs) else 0


if __name__ == "__main__":
    sys.exit(main())
