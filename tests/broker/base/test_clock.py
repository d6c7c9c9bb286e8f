"""Clocks: the real one moves forward, the manual one on request."""

import time

import pytest

from fluffle.broker.base.clock import Clock, SystemClock
from tests.support.manual_clock import ManualClock


def test_the_system_clock_moves_forward_and_knows_the_century() -> None:
    clock: Clock = SystemClock()
    assert clock.now_ms() <= clock.now_ms()
    assert clock.wall_ms() > 1_600_000_000_000


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="this system has no such clock")
def test_the_system_clock_counts_while_the_machine_is_asleep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted_ns = {time.CLOCK_MONOTONIC: 5_000_000, time.CLOCK_BOOTTIME: 3_600_000_000_000}
    monkeypatch.setattr(time, "clock_gettime_ns", counted_ns.__getitem__)
    assert SystemClock().now_ms() == 3_600_000


def test_a_manual_clock_stands_still() -> None:
    clock: Clock = ManualClock(now_ms=5, wall_ms=1_000)
    assert [clock.now_ms(), clock.now_ms(), clock.wall_ms()] == [5, 5, 1_000]


def test_advance_moves_both_clocks_and_a_jump_only_the_wall() -> None:
    clock = ManualClock(wall_ms=1_000)
    clock.advance(250)
    assert (clock.now_ms(), clock.wall_ms()) == (250, 1_250)
    clock.jump_wall(-2_000)
    assert (clock.now_ms(), clock.wall_ms()) == (250, -750)
    with pytest.raises(ValueError, match="back by 1 ms"):
        clock.advance(-1)
