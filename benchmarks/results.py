"""Record of a comparison: every run as amqpload reported it, and under which conditions.

The record names the kind of machine and the commit, never a host or a path.
"""

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks.load import Report
from benchmarks.machine import machine_class

FAULTS = ("lost", "duplicates", "reordered", "errors", "nacked", "returned")
"""Counters that stay at zero when the broker keeps its promises."""

NOT_MEASURED = (":(top,exclude)docs", ":(top,exclude)benchmarks/results")
"""Paths that recording changes, so that two records can be of one commit."""

DISTURBED_CORES = 0.25
"""A run during which other processes used more than this is called disturbed."""


@dataclass(frozen=True, slots=True)
class Run:
    broker: str
    """Or contender: RabbitMQ is several, if it is measured with several kinds of queue."""
    scenario: str
    repetition: int
    idle_rss_mib: float
    """Memory of the broker just started, before the load."""
    report: Report

    def faults(self) -> dict[str, int]:
        return {name: self.report[name] for name in FAULTS if self.report[name]}

    def disturbed(self) -> bool:
        return bool(self.report["other_cores"] > DISTURBED_CORES)


@dataclass(frozen=True, slots=True)
class Conditions:
    date: str
    commit: str
    python: str
    machine: dict[str, str | int]
    command: str
    measured_s: float
    warm_up_s: float
    repetitions: int
    cores: dict[str, str]
    """Per broker: which cores it and its load had."""
    versions: dict[str, str]
    suite: str = "transient"


@dataclass(frozen=True, slots=True)
class Comparison:
    conditions: Conditions
    runs: list[Run]

    def brokers(self) -> list[str]:
        """RabbitMQ, the yardstick, first; fluffle last."""
        return sorted({run.broker for run in self.runs}, reverse=True)

    def scenarios(self) -> list[str]:
        return list(dict.fromkeys(run.scenario for run in self.runs))

    def disturbed(self, broker: str, scenario: str) -> bool:
        """True if half of the runs were, or more: the median is then of one of them."""
        chosen = [run for run in self.runs if (run.broker, run.scenario) == (broker, scenario)]
        return 2 * sum(run.disturbed() for run in chosen) >= max(len(chosen), 1)

    def median(
        self, broker: str, scenario: str, value: Callable[[Run], float | None]
    ) -> float | None:
        """The median over the repetitions; None where the scenario has no such value."""
        chosen = (run for run in self.runs if (run.broker, run.scenario) == (broker, scenario))
        values = [found for run in chosen if (found := value(run)) is not None]
        return median(values) if values else None


def here_and_now() -> dict[str, str]:
    """The date, commit and interpreter of a measurement."""
    commit = git("describe", "--always", "--abbrev=10").stdout.strip() or "unknown"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": f"{commit}-dirty" if is_dirty() else commit,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def is_dirty() -> bool:
    """True if what is measured differs from its commit."""
    return git("diff", "--quiet", "HEAD", "--", ":(top)", *NOT_MEASURED).returncode == 1


def git(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["git", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )


def may_record() -> bool:
    """True if a complete measurement goes into the repository; says so if it does not."""
    if is_dirty():
        print(
            "not recorded: there are changes without a commit, so nobody could tell what these "
            "figures are of; commit them, or name a folder with --out",
            file=sys.stderr,
        )
        return False
    return True


def conditions(
    *,
    command: str,
    measured_s: float,
    warm_up_s: float,
    repetitions: int,
    cores: dict[str, str],
    versions: dict[str, str],
    suite: str = "transient",
) -> Conditions:
    return Conditions(
        **here_and_now(),
        machine=machine_class(),
        command=command,
        measured_s=measured_s,
        warm_up_s=warm_up_s,
        repetitions=repetitions,
        cores=cores,
        versions=versions,
        suite=suite,
    )


def save(comparison: Comparison, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(comparison), indent=1) + "\n")


def load(file: Path) -> Comparison:
    record = json.loads(file.read_text())
    return Comparison(Conditions(**record["conditions"]), [Run(**run) for run in record["runs"]])
