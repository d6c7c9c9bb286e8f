"""The checker finds nothing in an honest broker's history, and every lie in a liar's."""

from random import Random

import pytest

from tests.crash.checker import Checker, Report
from tests.crash.history import (
    Acked,
    Clearing,
    ClearingAsked,
    ClearingDone,
    Confirmed,
    Event,
    Message,
    Published,
    Received,
    RunEnded,
    Vouched,
)
from tests.crash.liar import STEADY, TRANSIENT, Broker, Lie

SEEDS = range(12)
STEPS = 1_000
HEARD_OF = {
    Lie.LOSE_IN_A_CRASH: "is lost",
    Lie.CONFIRM_EARLY: "is lost",
    Lie.FORGET_ACKS: "vouched for, and it came back",
    Lie.HIDE_REDELIVERY: "says that it had not been delivered",
    Lie.INVENT: "was never published",
    Lie.SWAP: "came after number",
    Lie.SWAP_STEADY: "came after number",
    Lie.HAND_OUT_TWICE: "is in the hands of",
    Lie.DELIVER_ACKED: "came again from the same process",
    Lie.KEEP_PURGED: "was cleared away and came back",
    Lie.KEEP_DELETED: "was cleared away and came back",
    Lie.LOSE_QUEUE: "is not there",
    Lie.KEEP_TRANSIENT_QUEUE: "is there",
    Lie.KEEP_TRANSIENT_MESSAGE: "is transient and came back",
    Lie.SWALLOW: "without a return",
    Lie.RETURN_ROUTABLE: "came back as unroutable",
}


def judge(history: list[Event]) -> Report:
    checker = Checker(transient=[TRANSIENT], steady=[STEADY])
    checker.read(history)
    return checker.finish()


@pytest.mark.parametrize("seed", SEEDS)
def test_an_honest_broker_is_believed(seed: int) -> None:
    report = judge(Broker(Random(seed)).live(STEPS))
    assert report.lost + report.unexpected == []
    assert report.received > 0
    assert report.confirmed > 0


def test_honest_histories_have_all_that_is_allowed() -> None:
    reports = [judge(Broker(Random(seed)).live(STEPS)) for seed in SEEDS]
    assert all(report.duplicated for report in reports)
    assert any(report.recovered for report in reports)


@pytest.mark.parametrize("lie", Lie)
def test_a_liar_is_found_out(lie: Lie) -> None:
    found = 0
    for seed in SEEDS:
        broker = Broker(Random(seed), lie)
        report = judge(broker.live(STEPS))
        words = report.lost + report.unexpected
        assert broker.lies_told or not words, f"seed {seed}"
        found += any(HEARD_OF[lie] in line for line in words)
    assert found > len(SEEDS) // 3


# The rule of acknowledgements, by hand

FIRST, SECOND = Message("p", 1), Message("p", 2)
PUBLISHED: list[Event] = [Published(FIRST, ("q",)), Confirmed(FIRST)]
RECEIVED = Received("a", "q", FIRST, redelivered=False)
AGAIN = Received("b", "q", FIRST, redelivered=True)
ACKED = Acked("a", "q", FIRST)


def test_before_a_reply_an_acknowledged_message_may_come_back() -> None:
    assert judge([*PUBLISHED, RECEIVED, ACKED, RunEnded(), AGAIN]).is_clean


def test_after_a_reply_it_may_not() -> None:
    assert not judge([*PUBLISHED, RECEIVED, ACKED, Vouched("a"), RunEnded(), AGAIN]).is_clean


def test_a_reply_on_another_channel_says_nothing() -> None:
    assert judge([*PUBLISHED, RECEIVED, ACKED, Vouched("b"), RunEnded(), AGAIN]).is_clean


def test_a_message_that_is_acknowledged_after_the_reply_may_come_back() -> None:
    assert judge([*PUBLISHED, RECEIVED, Vouched("a"), ACKED, RunEnded(), AGAIN]).is_clean


# What may have been cleared


@pytest.mark.parametrize("how", Clearing)
def test_what_is_published_during_a_clearing_may_go_or_stay(how: Clearing) -> None:
    asked, done = ClearingAsked("q", how), ClearingDone("q", how)
    assert judge([asked, *PUBLISHED, done]).is_clean
    assert judge([asked, *PUBLISHED, done, RECEIVED]).is_clean
    assert judge([asked, *PUBLISHED, RunEnded()]).is_clean


@pytest.mark.parametrize("how", Clearing)
def test_what_is_published_after_it_stays(how: Clearing) -> None:
    asked, done = ClearingAsked("q", how), ClearingDone("q", how)
    assert not judge([asked, done, *PUBLISHED]).is_clean
    assert not judge([asked, RunEnded(), *PUBLISHED]).is_clean


def test_a_purge_leaves_what_is_in_hands() -> None:
    asked, done = ClearingAsked("q", Clearing.PURGE), ClearingDone("q", Clearing.PURGE)
    assert judge([*PUBLISHED, RECEIVED, asked, done, RunEnded(), AGAIN]).is_clean


def test_a_transient_message_need_not_survive() -> None:
    published = Published(SECOND, ("q",), persistent=False)
    assert judge([published, Confirmed(SECOND), RunEnded()]).is_clean


def test_a_leaky_queue_may_lose_and_may_not_lie() -> None:
    checker = Checker(leaky=["q"])
    checker.read(PUBLISHED)
    assert checker.finish().is_clean
    checker.read([RECEIVED, ACKED, RunEnded(), AGAIN._replace(redelivered=False)])
    assert not checker.report.is_clean
