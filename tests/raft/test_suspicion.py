"""How long a silence is no suspicion, by what was usual and by mistakes."""

from random import Random

import pytest

from fluffle.raft.suspicion import FORGOTTEN, GAPS, MISTAKE_MS, SuspicionTimeout
from fluffle.raft.tuning import Tuning
from tests.suite.seeds import seeds

TUNING = Tuning()
FLOOR_MS, CAP_MS = TUNING.suspect_after_ms, TUNING.suspect_after_ms_max


@pytest.fixture
def timeout() -> SuspicionTimeout:
    return SuspicionTimeout(TUNING)


def test_who_is_on_time_is_missed_after_a_second(timeout: SuspicionTimeout) -> None:
    for now_ms in range(0, 60_000, TUNING.ping_interval_ms):
        timeout.heard(TUNING.ping_interval_ms, now_ms)
    assert timeout.limit_ms(60_000) == FLOOR_MS


def test_who_is_often_late_may_be_late(timeout: SuspicionTimeout) -> None:
    timeout.heard(900, 10_000)
    timeout.heard(250, 10_250)
    assert timeout.limit_ms(10_250) == pytest.approx(GAPS * 900, abs=50)


def test_that_somebody_was_late_once_is_forgotten(timeout: SuspicionTimeout) -> None:
    timeout.heard(2_000, 0)
    limits = [timeout.limit_ms(now_ms) for now_ms in range(0, 2_000 * FORGOTTEN, 1_000)]
    assert limits == sorted(limits, reverse=True)
    assert (limits[0], limits[-1]) == (GAPS * 2_000, FLOOR_MS)


def test_nobody_waits_longer_than_the_cap(timeout: SuspicionTimeout) -> None:
    timeout.heard(4_000, 0)
    assert timeout.limit_ms(0) == CAP_MS
    for now_ms in range(5):
        timeout.mistaken(now_ms)
    assert timeout.limit_ms(5) == CAP_MS


def test_who_was_away_is_not_taken_for_late(timeout: SuspicionTimeout) -> None:
    timeout.heard(CAP_MS + 1, 0)
    assert timeout.limit_ms(0) == FLOOR_MS


def test_each_mistake_doubles_the_floor_and_is_forgotten(timeout: SuspicionTimeout) -> None:
    timeout.mistaken(0)
    assert timeout.limit_ms(0) == 2 * FLOOR_MS
    timeout.mistaken(1_000)
    assert timeout.limit_ms(1_000) == 4 * FLOOR_MS
    assert timeout.limit_ms(1_000 + MISTAKE_MS) == 2 * FLOOR_MS
    assert timeout.limit_ms(1_000 + 2 * MISTAKE_MS) == FLOOR_MS


def test_after_many_mistakes_it_is_no_longer_remembered_than_after_few(
    timeout: SuspicionTimeout,
) -> None:
    for now_ms in range(100):
        timeout.mistaken(now_ms)
    assert timeout.limit_ms(99 + 3 * MISTAKE_MS) == FLOOR_MS


def test_where_much_patience_is_asked_for_the_cap_is_no_less() -> None:
    timeout = SuspicionTimeout(Tuning(suspect_after_ms=60_000))
    assert timeout.limit_ms(0) == 60_000


@seeds(5)
def test_a_starved_node_is_suspected_a_few_times_and_no_more(
    timeout: SuspicionTimeout, seed: int
) -> None:
    """For ten minutes every gap is anything up to two seconds."""
    chance, now_ms, mistakes = Random(seed), 0, 0
    while now_ms < 600_000:
        gap_ms = chance.randint(200, 2_000)
        limit_ms = timeout.limit_ms(now_ms)
        now_ms += gap_ms
        timeout.heard(gap_ms, now_ms)
        if gap_ms >= limit_ms:
            timeout.mistaken(now_ms)
            mistakes += 1
    assert mistakes <= 3
