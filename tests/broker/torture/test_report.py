"""What a run prints: the numbers, what was wrong, and a last line that a script can read."""

from fluffle.broker.torture import faults
from fluffle.broker.torture.findings import NOT_PROMISED, Breach
from fluffle.broker.torture.history import (
    Complained,
    Confirmed,
    Fault,
    Message,
    Published,
    Received,
)
from fluffle.broker.torture.history_writer import Diary
from fluffle.broker.torture.report import during, lines
from fluffle.broker.torture.run import Order, Outcome
from fluffle.broker.torture.stalls import Gap, Gaps


def outcome() -> Outcome:
    order = Order(seconds=1.0, seed=7, kinds=("kill",))
    return Outcome(order, [faults.Fault(1.0, "kill", ("a",), 2.0)])


def diary() -> Diary:
    clock = iter(range(0, 100_000_000_000, 500_000_000))
    diary = Diary(lambda: next(clock))
    message = Message("p", 1)
    diary.note(Published(message, ("q",)))
    diary.note(Fault("kill a for 2.0 s"))
    diary.note(Complained("p", "541 INTERNAL_ERROR"))
    diary.note(Confirmed(message))
    diary.note(Received("c", "q", message, redelivered=False))
    diary.stop_the_clock()
    diary.judge.finish()
    return diary


def test_the_last_line_is_for_scripts() -> None:
    *table, last = lines(outcome(), diary())
    word, *pairs = last.split(" ")
    values = dict(pair.split("=") for pair in pairs)
    assert word == "torture"
    assert (values["seed"], values["attempted"], values["lost"]) == ("7", "1", "0")
    assert values["faults"] == "kill:1"
    assert (values["unavailable_s"], values["verdict"]) == ("1.50", "good")
    assert any(line.split() == ["kill", "1", "1.50", "s"] for line in table)
    assert any("541 INTERNAL_ERROR" in line for line in table)


def test_a_kind_that_was_never_alone_in_a_gap_has_none() -> None:
    kept = diary()
    kept.gaps.tester_was_late(100_000_000_000, for_ns=100_000_000_000)
    table = [*lines(outcome(), kept)]
    assert any(line.split() == ["kill", "1", "–"] for line in table)
    assert any("no other fault" in line for line in table)


def test_whatever_is_promised_and_broken_is_bad() -> None:
    for breach in Breach:
        kept = diary()
        kept.judge.report.add(breach, "it was so")
        assert outcome().is_good(kept.judge.report) is (breach in NOT_PROMISED)
        assert "it was so" in [*lines(outcome(), kept)]


def test_what_does_not_come_back_is_bad() -> None:
    failed = outcome()
    failed.failures.append("a does not serve")
    *table, last = lines(failed, diary())
    assert "a does not serve" in table
    assert last.endswith("verdict=bad")


def test_what_was_wrong_with_the_system_comes_before_what_was_with_the_tester() -> None:
    gaps = Gaps()
    gaps.tester_was_late(2_000_000_000, for_ns=1_000_000_000)
    gaps.read(500_000_000, Fault("kill a"))
    gaps.finish(3_000_000_000)
    assert during(gaps, Gap(3_000_000_000, 0)) == "kill a; tester late for 1.0 s at 1.0 s"
