"""A clock that can be moved: what was asked for happens in order, and never too soon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.testing.clock import MovableClock
from tests.support.manual_clock import ManualClock


class Machine:
    """A loop without time of its own."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.timers: list[Alarm] = []

    def call_later(self, seconds: float, act: Callable[[], None]) -> Alarm:
        self.timers.append(Alarm(self.clock.now_ms() + round(seconds * 1_000), act))
        return self.timers[-1]

    def pass_ms(self, by_ms: int) -> None:
        """Time passes by itself."""
        self.clock.advance(by_ms)
        due = [each for each in self.timers if each.at_ms <= self.clock.now_ms()]
        self.timers = [each for each in self.timers if each not in due]
        for each in due:
            if not each.is_cancelled:
                each.act()


class Alarm:
    def __init__(self, at_ms: int, act: Callable[[], None]) -> None:
        self.at_ms = at_ms
        self.act = act
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


async def nothing() -> None:
    """Do nothing: all is at rest."""


def movable(machine: Machine) -> MovableClock:
    return MovableClock(machine.clock, machine.call_later, nothing)


async def test_who_asks_again_is_called_again_within_one_advance() -> None:
    machine = Machine()
    clock = movable(machine)
    called: list[int] = []

    def again() -> None:
        called.append(clock.now_ms())
        clock.call_later(10, again)

    clock.call_later(10, again)
    await clock.advance(seconds=35)
    assert called == [10_000, 20_000, 30_000]
    assert (clock.now_ms(), clock.wall_ms()) == (35_000, 35_000)


async def test_time_that_passes_by_itself_counts_as_well() -> None:
    machine = Machine()
    clock = movable(machine)
    called: list[int] = []
    clock.call_later(10, lambda: called.append(clock.now_ms()))
    await clock.advance(seconds=4)
    machine.pass_ms(5_999)
    assert called == []
    machine.pass_ms(1)
    assert called == [10_000]


async def test_who_has_cancelled_is_not_called() -> None:
    machine = Machine()
    clock = movable(machine)
    called: list[str] = []
    clock.call_later(1, lambda: called.append("no")).cancel()
    clock.call_later(2, lambda: called.append("yes"))
    await clock.advance(seconds=3)
    assert called == ["yes"]


async def test_who_raises_holds_up_nobody() -> None:
    machine = Machine()
    clock = movable(machine)
    called: list[str] = []
    clock.call_later(1, [].pop)
    clock.call_later(1, lambda: called.append("the other"))
    with pytest.raises(IndexError):
        machine.pass_ms(1_000)
    machine.pass_ms(1)
    assert called == ["the other"]


async def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="time does not go back by 1000 ms"):
        await movable(Machine()).advance(seconds=-1)


@pytest.mark.parametrize(("positional", "named"), [((60,), {}), ((), {"minute": 1})])
async def test_what_is_no_time_is_refused_with_what_is(
    positional: tuple[Any, ...], named: dict[str, Any]
) -> None:
    clock = movable(Machine())
    with pytest.raises(TypeError, match=r"advance takes weeks, days, hours, .* not (60|minute)"):
        await clock.advance(*positional, **named)


async def test_time_that_never_ends_to_pass_is_given_up() -> None:
    machine = Machine()
    clock = movable(machine)

    def again() -> None:
        machine.clock.advance(1_000)  # so long it takes
        clock.call_later(1, again)

    clock.call_later(1, again)
    with pytest.raises(TimeoutError, match="have not passed within 20 s"):
        await clock.advance(days=400)


@given(st.lists(st.tuples(st.sampled_from(["ask", "move", "pass"]), st.integers(0, 50))))
async def test_all_are_called_in_order_and_at_their_time(steps: list[tuple[str, int]]) -> None:
    machine = Machine()
    clock = movable(machine)
    called: list[tuple[int, int]] = []
    asked: list[int] = []
    for kind, ms in steps:
        if kind == "ask":
            at_ms = clock.now_ms() + ms
            asked.append(at_ms)
            clock.call_later(ms / 1_000, lambda at_ms=at_ms: called.append((at_ms, clock.now_ms())))  # type: ignore[misc]
        elif kind == "move":
            await clock.advance(milliseconds=ms)
        else:
            machine.pass_ms(ms)
    await clock.advance(milliseconds=51)
    assert [at_ms for at_ms, _ in called] == sorted(asked)
    assert all(now_ms >= at_ms for at_ms, now_ms in called)
