"""Tests of what goes on beside a run, so that the tester does not stand still itself."""

import gc

from fluffle.broker.torture import faults
from fluffle.broker.torture.checker import NOT_PROMISED, Breach
from fluffle.broker.torture.history import (
    Complained,
    Confirmed,
    Fault,
    MessageId,
    Published,
    Received,
)
from fluffle.broker.torture.online_checker import HistoryWriter
from fluffle.broker.torture.run import RunOptions, RunResult, during, forget_garbage, lines
from fluffle.broker.torture.stalls import Stall, StallChecker


def test_what_is_known_is_not_looked_at_for_garbage_again() -> None:
    known: list[object] = [[]]
    assert any(each is known for each in gc.get_objects())
    forget_garbage()
    assert not any(each is known for each in gc.get_objects())


def outcome() -> RunResult:
    order = RunOptions(seconds=1.0, seed=7, kinds=("kill",))
    return RunResult(order, [faults.PlannedFault(1.0, "kill", ("a",), 2.0)])


def history_writer() -> HistoryWriter:
    clock = iter(range(0, 100_000_000_000, 500_000_000))
    history_writer = HistoryWriter(lambda: next(clock))
    message = MessageId("p", 1)
    history_writer.note(Published(message, ("q",)))
    history_writer.note(Fault("kill a for 2.0 s"))
    history_writer.note(Complained("p", "541 INTERNAL_ERROR"))
    history_writer.note(Confirmed(message))
    history_writer.note(Received("c", "q", message, redelivered=False))
    history_writer.stop_the_clock()
    history_writer.checker.finish()
    return history_writer


def test_the_last_line_is_for_scripts() -> None:
    *table, last = lines(outcome(), history_writer())
    word, *pairs = last.split(" ")
    values = dict(pair.split("=") for pair in pairs)
    assert word == "torture"
    assert (values["seed"], values["attempted"], values["lost"]) == ("7", "1", "0")
    assert values["faults"] == "kill:1"
    assert (values["unavailable_s"], values["verdict"]) == ("1.50", "good")
    assert any(line.split() == ["kill", "1", "1.50", "s"] for line in table)
    assert any("541 INTERNAL_ERROR" in line for line in table)


def test_a_kind_that_was_never_alone_in_a_gap_has_none() -> None:
    kept = history_writer()
    kept.stalls.tester_was_late(100_000_000_000, for_ns=100_000_000_000)
    table = [*lines(outcome(), kept)]
    assert any(line.split() == ["kill", "1", "–"] for line in table)
    assert any("no other fault" in line for line in table)


def test_whatever_is_promised_and_broken_is_bad() -> None:
    for breach in Breach:
        kept = history_writer()
        kept.checker.report.add(breach, "it was so")
        assert outcome().is_good(kept.checker.report) is (breach in NOT_PROMISED)
        assert "it was so" in [*lines(outcome(), kept)]


def test_what_does_not_come_back_is_bad() -> None:
    failed = outcome()
    failed.failures.append("a does not serve")
    *table, last = lines(failed, history_writer())
    assert "a does not serve" in table
    assert last.endswith("verdict=bad")


def test_what_was_wrong_with_the_system_comes_before_what_was_with_the_tester() -> None:
    stalls = StallChecker()
    stalls.tester_was_late(2_000_000_000, for_ns=1_000_000_000)
    stalls.read(500_000_000, Fault("kill a"))
    stalls.finish(3_000_000_000)
    assert during(stalls, Stall(3_000_000_000, 0)) == "kill a; tester late for 1.0 s at 1.0 s"
