"""Signs of life, by a clock that is moved by hand."""

from __future__ import annotations

from fluffle.broker.cluster.links.keepalive import Finding, Pulse
from fluffle.broker.cluster.links.limits import LinkTuning

TUNING = LinkTuning(beat_ms=500, silent_after_ms=2_000, stall_ms=1_000)


def ticks(pulse: Pulse, start_ms: int, count: int, *, is_waiting: bool = False) -> list[Finding]:
    """Four a second, from `start_ms` on."""
    return [
        pulse.tick(start_ms + 250 * number, is_waiting=is_waiting) for number in range(1, count + 1)
    ]


def test_who_says_nothing_is_silent_in_the_end() -> None:
    pulse = Pulse(1_000, TUNING)
    findings = ticks(pulse, 1_000, 8)
    assert findings.index(Finding.SILENT) == 7


def test_any_byte_is_life() -> None:
    pulse = Pulse(0, TUNING)
    for number in range(100):
        pulse.has_heard = number % 7 == 0
        assert pulse.tick(number * 250, is_waiting=False) is not Finding.SILENT


def test_a_beat_is_due_when_nothing_was_sent() -> None:
    pulse = Pulse(0, TUNING)
    pulse.has_heard = True
    assert ticks(pulse, 0, 6) == [Finding.WELL, Finding.BEAT_DUE] * 3
    pulse.has_sent = pulse.has_heard = True
    assert ticks(pulse, 1_500, 4) == [Finding.WELL, Finding.BEAT_DUE] * 2
    pulse.has_sent = pulse.has_heard = True
    assert ticks(pulse, 2_600, 2) == [Finding.WELL, Finding.BEAT_DUE]


def test_who_takes_nothing_is_stuck_in_the_end() -> None:
    pulse = Pulse(0, TUNING)
    for number in range(1, 8):
        pulse.has_heard = True
        pulse.has_sent = number % 2 == 0
        assert pulse.tick(number * 250, is_waiting=True) is not Finding.STUCK
    pulse.has_heard = True
    assert pulse.tick(2_000, is_waiting=True) is Finding.STUCK


def test_who_takes_a_little_is_not_stuck() -> None:
    pulse = Pulse(0, TUNING)
    for number in range(1, 50):
        pulse.has_heard = True
        pulse.has_moved = number % 7 == 0
        assert pulse.tick(number * 250, is_waiting=True) is not Finding.STUCK


def test_our_own_absence_is_not_held_against_the_other_end() -> None:
    pulse = Pulse(0, TUNING)
    assert Finding.SILENT not in ticks(pulse, 0, 7)
    assert pulse.tick(61_750, is_waiting=True) is not Finding.SILENT
    assert pulse.tick(61_750 + 250, is_waiting=True) is Finding.SILENT
