"""Measures brokers inside of tests: a cold start beside RabbitMQ's, and what each test pays.

`python -m benchmarks.embedded [--quick] [--only NAME,…] [--out DIR]`

A start is that of a fresh process each time, from its first import to the first
connection.open-ok; RabbitMQ and `fluffle serve` take turns with it, from exec on.  All modules are
compiled, as they are where a package was installed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import load, report
from benchmarks.brokers import BROKERS, NotAvailable
from benchmarks.client import Address
from benchmarks.compare import RESULTS
from benchmarks.machine import placements, rss_bytes
from benchmarks.measurement import Measurement
from benchmarks.own import record
from benchmarks.results import may_record

ROOT = Path(__file__).parent.parent
PROGRAM = Path(__file__).with_name("inside.py")
TIMEOUT_S = 300.0
LOAD = "-P -s 100 -f -w 100 -u 100 -k 1"
"""Confirmed, persistent, each acknowledged."""

TESTS = """
import pytest

@pytest.mark.parametrize("number", range({count}))
@pytest.mark.parametrize("name", ["amqp_broker", "amqp"])
def test_nothing(request, number, name):
    request.getfixturevalue(name)
"""
TAKEN = """
import json

taken_s = {}

def pytest_runtest_logreport(report):
    taken_s[report.nodeid] = taken_s.get(report.nodeid, 0.0) + report.duration

def pytest_sessionfinish():
    with open("taken.json", "w") as file:
        json.dump(taken_s, file)
"""
"""Plugin that records pytest's own times of each test, fixtures included."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    starts: int
    processes: int
    messages: int
    tests: int


FULL = Sizes(starts=9, processes=5, messages=1_000, tests=500)
QUICK = Sizes(starts=2, processes=1, messages=1_000, tests=50)


class Inside:
    """A process with a broker inside."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.start: dict[str, Any] = self._answer()

    @property
    def rss_mib(self) -> float:
        return rss_bytes([self._process.pid]) / 2**20

    @property
    def address(self) -> Address:
        return Address(*self.start["address"])

    def ask(self, deed: str) -> list[float]:
        """Milliseconds of each time that it was done."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{deed}\n")
        self._process.stdin.flush()
        taken_ms: list[float] = self._answer()
        return taken_ms

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            raise NotAvailable(self._process.stderr.read()[-2000:])
        return json.loads(line)


@contextmanager
def inside() -> Iterator[Inside]:
    """A fresh process, whose broker has had its first connection."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(PROGRAM)],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        yield Inside(process)
        assert process.stdin is not None
        process.stdin.close()


@dataclass(slots=True)
class Taken:
    """Figures of several runs, by what they are of, in the order in which they came."""

    _values: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, what: str, unit: str, *values: float) -> None:
        self._values.setdefault((what, unit), []).extend(values)

    def rows(self) -> list[Measurement]:
        return [Measurement.of(what, values, unit) for (what, unit), values in self._values.items()]


def start_up(sizes: Sizes) -> list[Measurement]:
    """Each contender once in turn."""
    taken, places = Taken(), placements(pin_rabbitmq=False)
    for _ in range(sizes.starts):
        with inside() as process:
            what = "cold start in a process: first import to connection.open-ok"
            taken.add(what, "ms", process.start["open_ms"])
            taken.add("cold start in a process: imports alone", "ms", process.start["imported_ms"])
            taken.add("cold start in a process: CPU", "ms", process.start["cpu_ms"])
        for name, launch in BROKERS.items():
            with (
                tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
                launch(Path(folder), places[name].broker) as broker,
            ):
                title = "RabbitMQ" if name == "rabbitmq" else "fluffle serve"
                taken.add(f"{title}: exec to connection.open-ok", "ms", broker.open_ms)
    return taken.rows()


def memory(sizes: Sizes) -> list[Measurement]:
    """That of the whole process, Python and the modules included."""
    taken = Taken()
    for _ in range(sizes.processes):
        with inside() as process:
            taken.add("modules after the start", "modules", process.start["modules"])
            taken.add("memory after the start", "MiB", process.rss_mib)
            options = [*LOAD.split(), "-n", str(sizes.messages)]
            found = load.command(process.address, options, pids=[], timeout_s=TIMEOUT_S)
            if found["lost"] or found["errors"]:
                raise load.LoadFailed(f"{found['lost']} lost, {found['errors']} errors")
            taken.add(f"memory after {sizes.messages:,} messages", "MiB", process.rss_mib)
    return taken.rows()


def more(sizes: Sizes) -> list[Measurement]:
    taken = Taken()
    for _ in range(sizes.processes):
        with inside() as process:
            what = "another broker in the process, to connection.open-ok"
            taken.add(what, "ms", *process.ask("brokers"))
            taken.add("a fresh virtual host", "ms", *process.ask("vhosts"))
            taken.add("a cluster of three nodes, to a leader", "ms", *process.ask("clusters"))
    return taken.rows()


def fixture(sizes: Sizes) -> list[Measurement]:
    """Cost of a virtual host for each test, beside a test that uses the broker alone."""
    taken = Taken()
    for _ in range(sizes.processes):
        taken_ms = run_tests(sizes.tests)
        taken.add("the fixture amqp", "ms a test", taken_ms["amqp"] - taken_ms["amqp_broker"])
    return taken.rows()


def run_tests(count: int) -> dict[str, float]:
    """Milliseconds that pytest takes for a test that does nothing, by its fixture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "conftest.py").write_text(TAKEN)
        (folder / "test_nothing.py").write_text(TESTS.format(count=count))
        subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "pytest", "-q", "-p", "no:cacheprovider"],
            cwd=folder, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        taken_s: dict[str, float] = json.loads((folder / "taken.json").read_text())
    return {
        fixture: median(each for test, each in taken_s.items() if f"[{fixture}-" in test) * 1000
        for fixture in ("amqp_broker", "amqp")
    }


SUBJECTS: dict[str, Callable[[Sizes], list[Measurement]]] = {
    "start-up": start_up,
    "more": more,
    "fixture": fixture,
    "memory": memory,
}


@contextmanager
def compiled() -> Iterator[None]:
    """Processes that are started inside find their modules compiled."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="compiled-") as folder:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        try:
            with inside():
                pass
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedded", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--only", default=",".join(SUBJECTS), help="subjects: %(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write record and table there")
    chosen = parser.parse_args()
    names = chosen.only.split(",")
    if unknown := set(names) - set(SUBJECTS):
        parser.error(f"no subject {', '.join(sorted(unknown))}; there are {', '.join(SUBJECTS)}")
    complete = not (chosen.quick or chosen.out) and names == list(SUBJECTS) and may_record()
    found: list[Measurement] = []
    try:
        load.build()
        with compiled():
            for name in names:
                for row in SUBJECTS[name](QUICK if chosen.quick else FULL):
                    print(f"{row.what:66} {row.shown()}", flush=True)
                    found.append(row)
    except NotAvailable as missing:
        print(missing, file=sys.stderr)
        return 2
    command = f"python -m benchmarks.embedded{' --quick' * chosen.quick}"
    if chosen.out:
        record(found, command, chosen.out, chosen.out, name="embedded")
    elif complete:
        record(found, command, RESULTS, report.DOCS, name="embedded")
    return 0


if __name__ == "__main__":
    sys.exit(main())
