"""Tests of the benchmarks' tables from a recorded comparison, and of a message's cost."""

import re
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import columns, compare, embedded, features, inside, load, report, results, writer
from benchmarks.brokers import NotAvailable, fluffle
from benchmarks.client import broker_version
from benchmarks.clusters import LAUNCHERS
from benchmarks.machine import placements
from benchmarks.measurement import Measurement
from benchmarks.micro import edge, hot, mqtt, queue, replicated, streams
from benchmarks.plot import WIDTH_PX, Scale
from benchmarks.results import Comparison, Conditions, Run
from benchmarks.scenarios import DURABLE, SUITES, TRANSIENT, Suite
from fluffle.protocol.wire import encode_table, to_table
from tests.support.require import unavailable

CPU_US_PER_MESSAGE_MAX = 5.0
"""Twice what is aimed at, because the machine may be busy."""

SVG = "{http://www.w3.org/2000/svg}"


def run(broker: str, scenario: str, repetition: int, **figures: float) -> Run:
    """A run as it is recorded, without what no table reads."""
    latency = {"n": 0, "p50": 0.0, "p99": 0.0}
    reported = {
        "pub_rate": 50_000.0,
        "consume_rate": 50_000.0,
        "broker_cpu_s_per_M": 20.0,
        "broker_cores": 1.0,
        "other_cores": 0.05,
        "broker_rss_peak_MiB": 150.0,
        "confirm_us": {**latency, "n": 9, "p50": 8_000.0, "p99": 20_000.0}
        if scenario == "b16"
        else latency,
        **dict.fromkeys(results.FAULTS, 0),
        **figures,
    }
    return Run(broker, scenario, repetition, 100.0, reported)


def recorded(*more: Run, suite: str = "transient") -> Comparison:
    conditions = Conditions(
        suite=suite,
        date="2026-01-31",
        commit="0123456789",
        python="CPython 3.11.7",
        machine={"cpu": "Example CPU", "cores": 2, "memory_gib": 8, "system": "Linux"},
        command="python -m benchmarks.compare --reps 3 --secs 8",
        measured_s=8.0,
        warm_up_s=1.5,
        repetitions=3,
        cores={"fluffle": "core 0, the load on core 1", "rabbitmq": "core 0, 1"},
        versions={"fluffle": "4.3.5", "rabbitmq": "4.0.5"},
    )
    slow = [run("rabbitmq", "b16", n, consume_rate=rate) for n, rate in enumerate((9e4, 1e5, 2e5))]
    fast = [
        run("fluffle", "b16", n, consume_rate=rate, broker_cpu_s_per_M=2.5)
        for n, rate in enumerate((4e5, 1.25e6, 5e5))
    ]
    return Comparison(conditions, [*slow, *fast, run("rabbitmq", "a16", 0), *more])


def test_medians_are_compared_so_that_more_is_better() -> None:
    table = report.group_table(recorded(), (report.CONSUMED, report.CPU))
    assert table.splitlines() == [
        "| scenario | consumed/s RabbitMQ | consumed/s fluffle | × "
        "| CPU µs RabbitMQ | CPU µs fluffle | × |",
        "| --- | --: | --: | --: | --: | --: | --: |",
        "| b16 | 100.0k | 500.0k | 5.0× | 20.00 | 2.50 | 8.0× |",
        "| a16 | 50.0k | – | – | 20.00 | – | – |",
    ]


def test_one_broker_alone_has_no_ratio() -> None:
    alone = Comparison(recorded().conditions, [run("rabbitmq", "b16", 0)])
    table = report.group_table(alone, (report.CPU,))
    assert table.splitlines()[0] == "| scenario | CPU µs RabbitMQ |"


def test_fluffle_is_compared_with_each_kind_of_queue() -> None:
    quorum = run("rabbitmq-quorum", "b16", 0, broker_cpu_s_per_M=50.0)
    table = report.group_table(recorded(quorum, suite="durable"), (report.CPU,))
    assert table.splitlines()[::2] == [
        "| scenario | CPU µs RabbitMQ quorum | CPU µs RabbitMQ classic | CPU µs fluffle "
        "| × RabbitMQ quorum | × RabbitMQ classic |",
        "| b16 | 50.00 | 20.00 | 2.50 | 20.0× | 8.0× |",
    ]


def test_a_latency_without_samples_is_left_out() -> None:
    value = report.latency_ms("confirm", "p99")
    assert value(run("fluffle", "a16", 0)) is None
    assert value(run("fluffle", "b16", 0)) == 20.0


def test_faults_and_disturbances_are_reported() -> None:
    assert "No message was lost" in report.tables(recorded())
    text = report.tables(recorded(run("fluffle", "a16", 0, lost=3, other_cores=0.5)))
    assert "fluffle a16: 3 lost" in text
    assert "1 of 8 runs were disturbed" in text


def test_figures_of_disturbed_runs_are_marked() -> None:
    noisy = [run("fluffle", "a16", n, other_cores=cores) for n, cores in enumerate((0.5, 0, 0.3))]
    calm = [run("fluffle", "c16", n, other_cores=cores) for n, cores in enumerate((0.5, 0, 0))]
    table = report.group_table(recorded(*noisy, *calm), (report.CPU,))
    assert table.splitlines()[2:] == [
        "| b16 | 20.00 | 2.50 | 8.0× |",
        "| a16 | 20.00 | 20.00† | 1.0× |",
        "| c16 | – | 20.00 | – |",
    ]


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_every_suite_has_a_queue_of_its_kind(suite: Suite) -> None:
    """Durable queues go with persistent messages, for every contender."""
    for row in suite.scenarios.values():
        assert ("-z" in row.options, "-P" in row.options) in ((True, False), (False, True))
    assert {who.broker for who in suite.contenders.values()} <= set(LAUNCHERS)


def test_a_backlog_is_shown_a_column_for_each_kind_of_queue() -> None:
    found = {
        name: [Measurement("a million: start", seconds, "s")]
        for name, seconds in (("fluffle", 0.4), ("rabbitmq-quorum", 12.0))
    }
    table = columns.text(found, DURABLE.contenders, "command", results.here_and_now())
    assert table.splitlines()[-3::2] == [
        "| what | fluffle | RabbitMQ quorum |",
        "| a million: start | 0.4 s | 12 s |",
    ]


def test_what_was_not_measured_of_somebody_is_a_dash() -> None:
    found = {"rabbitmq": [], "fluffle": [Measurement("10,000 queues: declared", 600.0, "queues/s")]}
    table = columns.text(found, DURABLE.contenders, "command", results.here_and_now())
    assert table.splitlines()[-1] == "| 10,000 queues: declared | – | 600 queues/s |"


def test_a_figure_of_several_runs_shows_how_far_they_are_apart() -> None:
    row = Measurement.of("start", [131.2, 104.0, 112.4], "ms")
    assert row.shown() == "112 ms (104 to 131)"
    assert Measurement("start", 2.5, "ms").shown() == "2.5 ms"


def test_every_part_of_a_comparison_is_in_its_text() -> None:
    text = report.tables(recorded())
    for part in (*report.GROUPS, "Example CPU", "4.3.5", TRANSIENT.scenarios["b16"].description):
        assert part in text


def test_a_record_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    file = tmp_path / "results" / "compare.json"
    results.save(recorded(), file)
    assert results.load(file) == recorded()


def test_a_record_names_no_host_and_no_path() -> None:
    conditions = results.conditions(
        command="", measured_s=1, warm_up_s=1, repetitions=1, cores={}, versions={}
    )
    assert set(conditions.machine) == {"cpu", "cores", "memory_gib", "system"}
    assert re.fullmatch(r"[0-9a-f]+(-dirty)?|unknown", conditions.commit)
    assert re.fullmatch(r"\w+ [\w.+]+", conditions.python)


def test_the_plot_has_a_bar_for_every_figure() -> None:
    picture = ET.fromstring(report.plot(recorded()))
    panels = picture.findall(f"{SVG}g")
    bars = [panel.findall(f"{SVG}rect") for panel in panels]
    assert [len(of_panel) for of_panel in bars] == [3, 3]  # a16 was not run against fluffle
    slow, fast = (float(bar.attrib["width"]) for bar in bars[0][:2])
    assert slow < fast


@pytest.mark.parametrize("values", [[1.0], [0.5, 2_000.0], [10.0, 100.0]])
def test_a_scale_holds_its_values_and_shows_the_smallest(values: list[float]) -> None:
    scale = Scale.over(values)
    assert 0 < scale.px(min(values)) <= scale.px(max(values)) <= WIDTH_PX


def test_a_scale_without_values_has_decades() -> None:
    assert len(Scale.over([0.0]).decades()) > 1


def test_a_section_is_renewed_and_the_rest_is_kept() -> None:
    document = "# Title\n\n<!-- a: generated -->\nold\n<!-- a: end -->\n\nwords\n"
    renewed = report.with_section(document, "a", r"new \1")
    assert renewed == ("# Title\n\n<!-- a: generated -->\n\nnew \\1\n\n<!-- a: end -->\n\nwords\n")
    assert report.with_section(renewed, "a", r"new \1") == renewed
    assert report.with_section(renewed, "b", "more").startswith(renewed)


def test_publishing_writes_the_table_and_the_plot(tmp_path: Path) -> None:
    report.publish(recorded(), tmp_path)
    assert "5.0×" in (tmp_path / "performance.md").read_text()
    assert ET.parse(tmp_path / "performance-transient.svg").getroot().tag == f"{SVG}svg"


def test_brokers_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["compare", "--scenarios", "a16,b16", "--reps", "2", "--out", "/elsewhere"]
    monkeypatch.setattr("sys.argv", command)
    chosen = compare.arguments()
    first, second = chosen.contenders
    assert list(compare.turns(chosen)) == [
        (0, "a16", first),
        (0, "a16", second),
        (0, "b16", first),
        (0, "b16", second),
        (1, "a16", second),
        (1, "a16", first),
        (1, "b16", second),
        (1, "b16", first),
    ]
    assert not chosen.complete
    assert chosen.command == ("python -m benchmarks.compare --scenarios a16,b16 --reps 2 --secs 8")


def test_features_are_measured_in_turn_and_compared_with_the_plain_queue_beside_them() -> None:
    kind, ten, limit = "classic, transient", "ten expirations", "x-max-length"
    plain = features.PLAIN
    assert list(features.turns([kind], [ten, limit], 2)) == [
        (kind, plain), (kind, limit), (kind, ten), (kind, ten), (kind, limit), (kind, plain)
    ]  # fmt: skip
    assert len(set(features.turns([kind], [], 1))) == len(features.CLASSIC)
    cpu_us = {(kind, plain): [1.0, 2.0, 4.0], (kind, ten): [1.5, 2.6, 4.0]}
    assert features.table(cpu_us).splitlines()[2:] == [
        "| classic, transient: plain | 1.00 | 1.00 |",
        "| classic, transient: ten expirations | 1.50 | 1.30 |",
    ]


@pytest.mark.slow("a benchmark measures for seconds")
def test_what_features_cost_can_be_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, row = "classic, transient", "x-max-priority 9, ten priorities"
    command = ["features", "--reps", "1", "--secs", "0.5", "--kind", kind, "--row", row]
    monkeypatch.setattr("sys.argv", command)
    if features.main():
        unavailable(capsys.readouterr().err)
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == [
        f"{kind}: {each}" for each in (features.PLAIN, row)
    ]


@pytest.mark.parametrize(
    ("properties", "version"),
    [
        ({"product": "RabbitMQ", "version": "4.0.5"}, "4.0.5"),
        ({"version": "4.3.5", "fluffle_version": "0.1.0"}, "0.1.0"),
        ({}, ""),
    ],
)
def test_a_broker_says_which_version_it_is(properties: dict[str, str], version: str) -> None:
    start = b"\x00\x09" + encode_table(to_table(properties))
    assert broker_version(start) == version


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Git repository with a commit, as if the benchmarks were in it."""
    for name in ("broker/a.py", "docs/performance.md", "benchmarks/results/a.json"):
        file = tmp_path / name
        file.parent.mkdir(parents=True)
        file.write_text("before")
    monkeypatch.setattr(results, "__file__", str(tmp_path / "benchmarks" / "results.py"))
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for command in (("init", "-q", ".."), ("add", ".."), (*who, "commit", "-q", "-m", "a")):
        assert results.git(*command).returncode == 0
    return tmp_path


def test_what_has_no_commit_is_not_recorded(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "docs" / "performance.md").write_text("after")
    (repository / "benchmarks" / "results" / "a.json").write_text("after")
    assert results.may_record()
    assert not results.here_and_now()["commit"].endswith("-dirty")
    assert capsys.readouterr().err == ""
    (repository / "broker" / "a.py").write_text("after")
    assert not results.may_record()
    assert results.here_and_now()["commit"].endswith("-dirty")
    assert "commit them, or name a folder with --out" in capsys.readouterr().err


@pytest.mark.slow("a benchmark measures for seconds")
@pytest.mark.parametrize("kind", writer.KINDS)
def test_whoever_commits_is_measured(kind: str) -> None:
    run = writer.measure(kind, writer.SCENARIOS[0], 1.0, busy=False)
    assert run.commits_per_s > 1
    assert 0 < run.p50_ms <= run.p99_ms


@pytest.mark.slow("a benchmark measures for seconds")
def test_a_process_with_a_broker_inside_is_measured() -> None:
    with embedded.inside() as process:
        assert 0 < process.start["imported_ms"] < process.start["open_ms"]
        assert len(process.ask("vhosts")) == inside.VHOSTS
        assert process.rss_mib > 10


@pytest.mark.slow("a benchmark measures for seconds")
@pytest.mark.parametrize("part", [edge, hot, mqtt, queue, replicated, streams])
def test_every_small_figure_can_be_measured(
    part: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "ROUNDS", 1)
    monkeypatch.setattr(hot, "ROUND_S", 0.0)
    monkeypatch.setattr(replicated, "BACKLOG_MESSAGES", 1_000)
    for name, measure in part.BENCHES.items():
        assert measure(10) > 0, name


@pytest.mark.slow("a benchmark measures for seconds")
def test_a_message_costs_little_cpu() -> None:
    """Publish, confirm, deliver and acknowledge 16 bytes, by the CPU of the broker process."""
    place = placements(pin_rabbitmq=False)["fluffle"]
    options = ["-T", "2", "-W", "0.5", *TRANSIENT.scenarios["b16"].options]
    try:
        load.build()
        with tempfile.TemporaryDirectory() as folder, fluffle(Path(folder), place.broker) as broker:
            reports = [load.run(broker, place.load, options, timeout_s=120) for _ in range(3)]
    except NotAvailable as missing:
        unavailable(str(missing))
    assert not any(found[fault] for found in reports for fault in results.FAULTS)
    assert min(found["broker_cpu_s_per_M"] for found in reports) <= CPU_US_PER_MESSAGE_MAX
