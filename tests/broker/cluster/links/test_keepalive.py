"""Signs of life, by a clock that is moved by hand."""

from __future__ import annotations

from fluffle.broker.cluster.links.keepalive import Keepalive, KeepaliveResult
from fluffle.broker.cluster.links.limits import LinkLimits

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
