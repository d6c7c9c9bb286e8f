"""A recorded comparison as markdown tables and a plot.

`python -m benchmarks.report RESULT.json [DIR]` writes them again from a record: into docs/, or
into DIR.  Every ratio is turned so that more than 1 means: fluffle is better.
"""

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.plot import Panel, draw
from benchmarks.results import DISTURBED_CORES, Comparison, Run, load
from benchmarks.scenarios import SUITES

DISTURBED = "†"
DOCS = Path(__file__).parents[1] / "docs"
FLUFFLE = "fluffle"


@dataclass(frozen=True, slots=True)
class Measure:
    title: str
    value: Callable[[Run], float | None]
    more_is_better: bool | None
    """None where neither is: no ratio then."""
    digits: int | None = None
    """Digits behind the point; None for counts, which are shortened to thousands."""


def latency_ms(kind: str, quantile: str) -> Callable[[Run], float | None]:
    def value(run: Run) -> float | None:
        latency = run.report[f"{kind}_us"]
        return latency[quantile] / 1000 if latency["n"] else None

    return value


def reported(name: str) -> Callable[[Run], float | None]:
    return lambda run: float(run.report[name])


PUBLISHED = Measure("published/s", reported("pub_rate"), more_is_better=True)
CONSUMED = Measure("consumed/s", reported("consume_rate"), more_is_better=True)
CPU = Measure("CPU µs", reported("broker_cpu_s_per_M"), more_is_better=False, digits=2)

GROUPS: dict[str, tuple[Measure, ...]] = {
    "Throughput": (PUBLISHED, CONSUMED),
    "CPU of the broker per message consumed, user and system (= CPU seconds per million)": (
        CPU,
        Measure("cores busy", reported("broker_cores"), more_is_better=None, digits=2),
    ),
    "Publisher confirm latency, ms": (
        Measure("p50", latency_ms("confirm", "p50"), more_is_better=False, digits=2),
        Measure("p99", latency_ms("confirm", "p99"), more_is_better=False, digits=2),
    ),
    "Resident memory, MiB": (
        Measure("idle", lambda run: run.idle_rss_mib, more_is_better=False, digits=0),
        Measure("peak", reported("broker_rss_peak_MiB"), more_is_better=False, digits=0),
    ),
}


def shown(value: float | None, digits: int | None) -> str:
    if value is None:
        return "–"
    if digits is not None:
        return f"{value:.{digits}f}"
    if value >= 1e6:
        return f"{value / 1e6:.2f}M"
    return f"{value / 1e3:.1f}k" if value >= 1e4 else f"{value:.0f}"


def ratio(measure: Measure, rival: float | None, fluffle: float | None) -> str:
    """How many times better fluffle is."""
    if not rival or not fluffle:
        return "–"
    times = fluffle / rival if measure.more_is_better else rival / fluffle
    return f"{times:.1f}×"


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """The first column is text, the others are numbers."""
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def titles(comparison: Comparison) -> dict[str, str]:
    """How each contender is called in tables; others than those of the suite by their names."""
    known = SUITES[comparison.conditions.suite].contenders
    return {
        name: known[name].title if name in known else name
        for name in (*comparison.brokers(), *comparison.conditions.versions)
    }


def group_table(comparison: Comparison, measures: tuple[Measure, ...]) -> str:
    """A column for each contender, then how many times better fluffle is than each of the rest."""
    brokers, title = comparison.brokers(), titles(comparison)
    rivals = [broker for broker in brokers if broker != FLUFFLE] if FLUFFLE in brokers else []
    head = ["scenario"]
    for measure in measures:
        head += [f"{measure.title} {title[broker]}" for broker in brokers]
        if measure.more_is_better is not None:
            head += ["×"] if len(rivals) == 1 else [f"× {title[rival]}" for rival in rivals]
    rows = [
        [scenario, *(cell for measure in measures for cell in cells(comparison, scenario, measure))]
        for scenario in comparison.scenarios()
    ]
    return markdown_table(head, rows)


def cells(comparison: Comparison, scenario: str, measure: Measure) -> list[str]:
    values = {
        broker: comparison.median(broker, scenario, measure.value)
        for broker in comparison.brokers()
    }
    row = [
        shown(value, measure.digits) + mark(comparison, broker, scenario, value)
        for broker, value in values.items()
    ]
    if FLUFFLE in values and measure.more_is_better is not None:
        own = values.pop(FLUFFLE)
        row += [ratio(measure, value, own) for value in values.values()]
    return row


def mark(comparison: Comparison, broker: str, scenario: str, value: float | None) -> str:
    return DISTURBED if value is not None and comparison.disturbed(broker, scenario) else ""


def conditions_text(comparison: Comparison) -> str:
    what, runs, title = comparison.conditions, comparison.runs, titles(comparison)
    machine = ", ".join(
        (
            f"{what.machine['cpu']}",
            f"{what.machine['cores']} cores",
            f"{what.machine['memory_gib']} GiB",
        )
    )
    versions = ", ".join(f"{title[name]} {version}" for name, version in what.versions.items())
    cores = "; ".join(f"{title[name]}: {text}" for name, text in what.cores.items())
    return (
        f"`{what.command}` on {what.date}, commit {what.commit}.  {machine}; {what.python}; "
        f"{versions}.  {how_often(what.repetitions)} of {what.measured_s:g} s after "
        f"{what.warm_up_s:g} s of warm-up, each against a freshly started broker.  {cores}.  "
        f"{disturbance_text(runs)}  {faults_text(comparison)}"
    )


def disturbance_text(runs: list[Run]) -> str:
    disturbed = sum(run.disturbed() for run in runs)
    return (
        f"{disturbed} of {len(runs)} runs were disturbed (other processes used more than "
        f"{DISTURBED_CORES} cores); {DISTURBED} marks figures of which half the runs or more were."
    )


def how_often(repetitions: int) -> str:
    return f"Medians of {repetitions} runs" if repetitions > 1 else "Single runs"


def faults_text(comparison: Comparison) -> str:
    title = titles(comparison)
    faults = [
        f"{title[run.broker]} {run.scenario}: {count} {name}"
        for run in comparison.runs
        for name, count in run.faults().items()
    ]
    return "; ".join(faults) or "No message was lost, duplicated, reordered or refused."


def tables(comparison: Comparison) -> str:
    """Everything about a comparison as markdown, without a title."""
    scenarios = SUITES[comparison.conditions.suite].scenarios
    legend = markdown_table(
        ["scenario", "load"],
        [[name, scenarios[name].description] for name in comparison.scenarios()],
    ).replace("--:", "---")
    groups = [
        f"**{title}**\n\n{group_table(comparison, measures)}" for title, measures in GROUPS.items()
    ]
    about = SUITES[comparison.conditions.suite].about
    return "\n\n".join([about, conditions_text(comparison), legend, *groups])


def plot(comparison: Comparison) -> str:
    """The throughput and the CPU per message of every scenario, as SVG."""
    title = titles(comparison)
    series = {broker: title[broker] for broker in comparison.brokers()}

    def panel(heading: str, measure: Measure) -> Panel:
        rows = {
            scenario: {
                name: comparison.median(broker, scenario, measure.value) or 0.0
                for broker, name in series.items()
            }
            for scenario in comparison.scenarios()
        }
        return Panel(heading, rows, lambda value: shown(value, measure.digits))

    return draw(
        [
            panel("messages consumed a second (more is better)", CONSUMED),
            panel("CPU µs per message (less is better)", CPU),
        ]
    )


def with_section(document: str, name: str, text: str) -> str:
    """`document` with the part between its `name` markers replaced, or with the part added."""
    begin, end = f"<!-- {name}: generated -->", f"<!-- {name}: end -->"
    section = f"{begin}\n\n{text}\n\n{end}"
    marked = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if marked.search(document):
        return marked.sub(lambda _found: section, document)
    return f"{document.rstrip()}\n\n{section}\n".lstrip()


def update_section(file: Path, name: str, text: str) -> None:
    before = file.read_text() if file.exists() else ""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(with_section(before, name, text))


def publish(comparison: Comparison, folder: Path) -> None:
    """Writes performance.md and the picture of the suite in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    suite = comparison.conditions.suite
    (folder / f"performance-{suite}.svg").write_text(plot(comparison))
    text = f"![Throughput and CPU per message](performance-{suite}.svg)\n\n{tables(comparison)}"
    update_section(folder / "performance.md", f"comparison-{suite}", text)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("result", type=Path)
    parser.add_argument("folder", type=Path, nargs="?", default=DOCS)
    arguments = parser.parse_args()
    publish(load(arguments.result), arguments.folder)


if __name__ == "__main__":
    main()
