"""When a link is dialled again."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.cluster.links.limits import LinkLimits
from fluffle.broker.cluster.links.reconnect import ReconnectBackoff

TUNING = LinkLimits(redial_ms=50, redial_ms_max=2_000, settled_ms=1_000)


def redial(chance: float = 0.999_999) -> ReconnectBackoff:
    return ReconnectBackoff(TUNING, lambda: chance)


def test_a_link_that_had_settled_is_dialled_again_at_once() -> None:
    ours = redial()
    ours.opened(5_000)
    assert ours.lost(6_000) == 0


def test_one_that_had_not_waits_longer_each_time() -> None:
    ours, delays = redial(), []
    for number in range(4):
        ours.opened(number * 10_000)
        delays.append(ours.lost(number * 10_000 + 999))
    assert delays == [49, 99, 199, 399]


def test_delays_grow_to_the_longest() -> None:
    ours = redial()
    assert [ours.failed() for _ in range(9)] == [49, 99, 199, 399, 799, 1_599, 1_999, 1_999, 1_999]


def test_a_link_that_settles_makes_them_short_again() -> None:
    ours = redial()
    for _ in range(9):
        ours.failed()
    ours.opened(0)
    assert ours.lost(1_000) == 0
    assert ours.failed() == 49


@given(st.integers(), st.integers(1, 100))
def test_chance_takes_at_most_half_of_a_delay(seed: int, failures: int) -> None:
    ours, longest = ReconnectBackoff(TUNING, Random(seed).random), 50
    for _ in range(failures):
        assert longest // 2 <= ours.failed() <= longest
        longest = min(2 * longest, 2_000)
