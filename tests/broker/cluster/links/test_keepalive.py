"""Signs of life, by a clock that is moved by hand."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.cluster.links.keepalive import (
    Keepalive,
    KeepaliveResult,
    LinkLimits,
    ReconnectBackoff,
)

TUNING = LinkLimits(beat_ms=500, silent_after_ms=2_000, stall_ms=1_000)


def ticks(
    pulse: Keepalive, start_ms: int, count: int, *, is_waiting: bool = False
) -> list[KeepaliveResult]:
    """Four a second, from `start_ms` on."""
    return [
        pulse.tick(start_ms + 250 * number, is_waiting=is_waiting) for number in range(1, count + 1)
    ]


def test_who_says_nothing_is_silent_in_the_end() -> None:
    pulse = Keepalive(1_000, TUNING)
    findings = ticks(pulse, 1_000, 8)
    assert findings.index(KeepaliveResult.SILENT) == 7


def test_any_byte_is_life() -> None:
    pulse = Keepalive(0, TUNING)
    for number in range(100):
        pulse.has_heard = number % 7 == 0
        assert pulse.tick(number * 250, is_waiting=False) is not KeepaliveResult.SILENT


def test_a_beat_is_due_when_nothing_was_sent() -> None:
    pulse = Keepalive(0, TUNING)
    pulse.has_heard = True
    assert ticks(pulse, 0, 6) == [KeepaliveResult.WELL, KeepaliveResult.BEAT_DUE] * 3
    pulse.has_sent = pulse.has_heard = True
    assert ticks(pulse, 1_500, 4) == [KeepaliveResult.WELL, KeepaliveResult.BEAT_DUE] * 2
    pulse.has_sent = pulse.has_heard = True
    assert ticks(pulse, 2_600, 2) == [KeepaliveResult.WELL, KeepaliveResult.BEAT_DUE]


def test_who_takes_nothing_is_stuck_in_the_end() -> None:
    pulse = Keepalive(0, TUNING)
    for number in range(1, 8):
        pulse.has_heard = True
        pulse.has_sent = number % 2 == 0
        assert pulse.tick(number * 250, is_waiting=True) is not KeepaliveResult.STUCK
    pulse.has_heard = True
    assert pulse.tick(2_000, is_waiting=True) is KeepaliveResult.STUCK


def test_who_takes_a_little_is_not_stuck() -> None:
    pulse = Keepalive(0, TUNING)
    for number in range(1, 50):
        pulse.has_heard = True
        pulse.has_moved = number % 7 == 0
        assert pulse.tick(number * 250, is_waiting=True) is not KeepaliveResult.STUCK


def test_our_own_absence_is_not_held_against_the_other_end() -> None:
    pulse = Keepalive(0, TUNING)
    assert KeepaliveResult.SILENT not in ticks(pulse, 0, 7)
    assert pulse.tick(61_750, is_waiting=True) is not KeepaliveResult.SILENT
    assert pulse.tick(61_750 + 250, is_waiting=True) is KeepaliveResult.SILENT


REDIAL = LinkLimits(redial_ms=50, redial_ms_max=2_000, settled_ms=1_000)


def redial(chance: float = 0.999_999) -> ReconnectBackoff:
    return ReconnectBackoff(REDIAL, lambda: chance)


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
    ours, longest = ReconnectBackoff(REDIAL, Random(seed).random), 50
    for _ in range(failures):
        assert longest // 2 <= ours.failed() <= longest
        longest = min(2 * longest, 2_000)
