"""Measures fluffle and RabbitMQ under the same loads on this machine and prints both.

Every run has a freshly started broker; brokers take turns within each scenario, scenarios within
each repetition, so that what the machine does meanwhile meets both alike.
"""

import argparse
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import load, report, results
from benchmarks.brokers import Launcher, NotAvailable, fluffle
from benchmarks.clusters import LAUNCHERS, as_one, three_fluffles
from benchmarks.machine import Cores, Placement, placements, rss_bytes
from benchmarks.results import Comparison, Run
from benchmarks.scenarios import SUITES, Contender, Suite

RESULTS = Path(__file__).with_name("results")
QUICK = {"secs": 2.0, "reps": 1, "warm": 0.5}
FULL = {"secs": 8.0, "reps": 3, "warm": 1.5}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run of each")
    parser.add_argument(
        "--suite", choices=SUITES, default="transient", help="what to measure: %(default)s"
    )
    parser.add_argument("--scenarios", help="names, separated by commas; otherwise all there are")
    parser.add_argument("--reps", type=int, help="repetitions of every run")
    parser.add_argument("--secs", type=float, help="measured seconds of a run")
    parser.add_argument("--only", help="measure these alone: names, separated by commas")
    parser.add_argument(
        "--former",
        type=Path,
        metavar="COMMAND",
        help="measure another fluffle as well, to see what a change has changed",
    )
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
    suite = SUITES[chosen.suite]
    chosen.launchers = LAUNCHERS if chosen.former is None else launchers(chosen.former)
    chosen.contenders = contenders(suite, chosen.former)
    if chosen.only:
        pick(parser, "contender", chosen.only, chosen.contenders)
        chosen.contenders = {name: chosen.contenders[name] for name in chosen.only.split(",")}
    if chosen.scenarios:
        pick(parser, "scenario", chosen.scenarios, suite.scenarios)
    chosen.scenarios = chosen.scenarios.split(",") if chosen.scenarios else list(suite.scenarios)
    chosen.command = f"python -m benchmarks.compare {options_text(chosen)}".strip()
    chosen.complete = not (chosen.quick or chosen.only or chosen.former) and len(
        chosen.scenarios
    ) == len(suite.scenarios)
    return chosen


def pick(parser: argparse.ArgumentParser, what: str, names: str, known: Collection[str]) -> None:
    if unknown := set(names.split(",")) - set(known):
        parser.error(f"no {what} {', '.join(sorted(unknown))}; there are {', '.join(known)}")


def contenders(suite: Suite, former: Path | None) -> dict[str, Contender]:
    """Contenders of the suite, and the other fluffle with the options that fluffle has in it."""
    if former is None:
        return suite.contenders
    own = suite.contenders["fluffle"]
    other = replace(own, name="former", title="former", broker=f"former-{own.broker}")
    return {other.name: other, **suite.contenders}


def launchers(former: Path) -> dict[str, Launcher]:
    command = former.absolute()
    return {
        "former-fluffle": partial(fluffle, command=command),
        "former-three-fluffles": as_one(partial(three_fluffles, command=command)),
        **LAUNCHERS,
    }


def options_text(chosen: argparse.Namespace) -> str:
    """The options that decide what is measured; where it is written is nobody's business."""
    options = [
        *["--quick"] * chosen.quick,
        *[f"--suite {chosen.suite}"] * (chosen.suite != "transient"),
        *[f"--scenarios {','.join(chosen.scenarios)}"]
        * (chosen.scenarios != list(SUITES[chosen.suite].scenarios)),
        f"--reps {chosen.reps} --secs {chosen.secs:g}",
        *[f"--only {chosen.only}"] * bool(chosen.only),
        *["--former COMMAND"] * bool(chosen.former),
        *["--pin-rabbitmq"] * chosen.pin_rabbitmq,
    ]
    return " ".join(options)


def turns(chosen: argparse.Namespace) -> Iterator[tuple[int, str, str]]:
    """Repetition, scenario and contender of every run; who goes first changes each repetition."""
    for repetition in range(chosen.reps):
        order = list(chosen.contenders)[:: -1 if repetition % 2 else 1]
        for scenario in chosen.scenarios:
            for contender in order:
                yield repetition, scenario, contender


def measure(
    chosen: argparse.Namespace, contender: Contender, scenario: str, place: Placement
) -> tuple[str, float, load.Report]:
    """Version of the broker, its idle memory in MiB, and the report of one run."""
    window = ["-T", str(chosen.secs), "-W", str(chosen.warm), "-d", str(load.DRAIN_TIMEOUT_S)]
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        chosen.launchers[contender.broker](Path(folder), place.broker) as broker,
    ):
        idle_mib = rss_bytes(broker.pids()) / 2**20
        found = load.run(
            broker,
            place.load,
            [*window, *SUITES[chosen.suite].scenarios[scenario].options, *contender.options],
            timeout_s=chosen.secs + chosen.warm + 2 * load.DRAIN_TIMEOUT_S,
        )
        return broker.version, idle_mib, found


def progress(run: Run) -> str:
    figures = run.report
    return (
        f"{run.repetition} {run.scenario:5} {run.broker:15} "
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
    for repetition, scenario, name in turns(chosen):
        contender = chosen.contenders[name]
        place = places[contender.broker]
        version, idle_mib, found = measure(chosen, contender, scenario, place)
        versions[name] = version
        runs.append(Run(name, scenario, repetition, round(idle_mib, 1), found))
        print(progress(runs[-1]), file=sys.stderr, flush=True)
    return Comparison(
        results.conditions(
            suite=chosen.suite,
            command=chosen.command,
            measured_s=chosen.secs,
            warm_up_s=chosen.warm,
            repetitions=chosen.reps,
            cores={name: cores_text(places[who.broker]) for name, who in chosen.contenders.items()},
            versions=versions,
        ),
        runs,
    )


def record(comparison: Comparison, chosen: argparse.Namespace, *, complete: bool) -> None:
    """A complete comparison goes into the repository, any other only on request."""
    what = comparison.conditions
    name = f"compare-{what.suite}-{what.date}-{what.commit}.json"
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
