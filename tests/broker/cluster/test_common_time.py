"""Common time: nodes that ping each other, with clocks that are hours apart, set, or asleep."""

from __future__ import annotations

import logging
from random import Random

import pytest

from fluffle.broker.cluster.common_time import CLOCKS_TIMEOUT_MS, SKEW_MS_MAX, SLEW, CommonTime
from fluffle.raft.failure_detector import FailureDetector
from fluffle.raft.tuning import Tuning
from tests.support.manual_clock import ManualClock

HOUR_MS = 3_600_000
NOON_MS = 1_800_000_000_000
STEP_MS = 10
"""Time step; so a round trip may seem to take so long, and half of that be wrong."""


def about(*expected_ms: int) -> object:
    return pytest.approx(list(expected_ms), abs=STEP_MS)


class Machine:
    """A node: its clocks, its pings, and what it makes of those of others."""

    def __init__(self, cluster: Machines, name: str, ahead_ms: int) -> None:
        self.cluster = cluster
        self.name = name
        since_ms = cluster.chance.randint(0, 10 * HOUR_MS)
        self.clock = ManualClock(now_ms=since_ms, wall_ms=NOON_MS + ahead_ms)
        self.boot = 0
        self.start()

    def start(self) -> None:
        self.boot += 1
        self.time = CommonTime(self.name, self.clock, lambda: self.cluster.deciding)
        self.liveness = FailureDetector(self.boot, Tuning(), self.time.ping_times_ms)
        self.tick()

    def tick(self) -> None:
        self.liveness.tick(self.clock.now_ms())

    @property
    def wrong_ms(self) -> int:
        """How far what it takes for common time is ahead of the true time."""
        return self.time.wall_ms() - NOON_MS - self.cluster.passed_ms


class Machines:
    """Some nodes, and a network whose ways there and back take as long as `delays_ms` says."""

    def __init__(self, **ahead_ms: int) -> None:
        self.chance = Random(str(ahead_ms))
        self.deciding = set(ahead_ms)
        self.passed_ms = 0
        self.delays_ms: dict[str, int] = {}
        """Delays by sender; other nodes have none."""
        self.up: set[str] = set()
        self.under_way: list[tuple[int, str, str, object]] = []
        self.all = {name: Machine(self, name, ahead) for name, ahead in ahead_ms.items()}

    def __getitem__(self, name: str) -> Machine:
        return self.all[name]

    def link(self, names: str) -> None:
        """These are linked, and no others."""
        for name in [*self.up]:
            self.unlink(name)
        for name in names:
            self.up.add(name)
            for other in self.up - {name}:
                self[name].liveness.link_up(other)
                self[other].liveness.link_up(name)

    def unlink(self, name: str) -> None:
        self.up.discard(name)
        for other in self.up:
            self[other].liveness.link_down(name)
            self[name].liveness.link_down(other)

    def restart(self, name: str) -> None:
        up = "".join(sorted(self.up))
        self.unlink(name)
        self[name].start()
        self.link(up)

    def advance(self, ms: int, *, step_ms: int = STEP_MS) -> None:
        for _ in range(0, ms, step_ms):
            self.passed_ms += step_ms
            for machine in self.all.values():
                machine.clock.advance(step_ms)
                machine.tick()
            self.exchange()

    def exchange(self) -> None:
        while self.step():
            pass

    def step(self) -> bool:
        for name, machine in self.all.items():
            pings, machine.liveness.pings = machine.liveness.pings, []
            due_ms = self.passed_ms + self.delays_ms.get(name, 0)
            self.under_way += [(due_ms, name, other, ping) for other, ping in pings]
        due = [each for each in self.under_way if each[0] <= self.passed_ms]
        self.under_way = [each for each in self.under_way if each[0] > self.passed_ms]
        for _, name, other, ping in due:
            if {name, other} <= self.up:
                self[other].liveness.on_ping(name, ping)  # type: ignore[arg-type]
        for machine in self.all.values():
            for echo in machine.liveness.echoes:
                machine.time.heard(echo)
            machine.liveness.echoes.clear()
        return bool(due)

    def wrong_ms(self) -> list[int]:
        return [machine.wrong_ms for machine in self.all.values()]


def test_a_node_alone_goes_by_its_own_clock() -> None:
    machines = Machines(a=1_234)
    assert machines["a"].time.is_known
    assert machines["a"].wrong_ms == 1_234


@pytest.mark.parametrize("ahead_ms", [HOUR_MS, -HOUR_MS])
def test_one_clock_that_is_wrong_is_outvoted(ahead_ms: int) -> None:
    machines = Machines(a=0, b=ahead_ms, c=0)
    machines.link("abc")
    machines.advance(1_000)
    assert machines.wrong_ms() == about(0, 0, 0)
    for machine in machines.all.values():
        assert sorted(machine.time.ahead_ms().values()) == about(*sorted([0, ahead_ms, 0]))
        assert abs(machine.time.ahead_ms()["b"] - ahead_ms) <= STEP_MS


def test_before_a_majority_is_heard_nothing_is_common() -> None:
    machines = Machines(a=5, b=0, c=0)
    machines.advance(2 * CLOCKS_TIMEOUT_MS)
    machines.passed_ms = 0
    machines["a"].clock.jump_wall(-2 * CLOCKS_TIMEOUT_MS)
    assert not machines["a"].time.is_known
    assert machines["a"].time.ping_times_ms(machines["a"].clock.now_ms()) == (NOON_MS + 5, 0)
    assert machines["a"].time.ahead_ms() == {}
    assert machines["a"].wrong_ms == 5


def test_who_does_not_decide_is_not_waited_for_and_makes_no_majority() -> None:
    machines = Machines(a=0, b=0, c=0, d=0, e=0)
    machines.deciding -= {"d", "e"}
    machines.link("ad")
    machines.advance(2 * CLOCKS_TIMEOUT_MS)
    assert not machines["a"].time.is_known
    machines.link("ab")
    machines.advance(STEP_MS)
    assert machines["a"].time.is_known


def test_who_waits_for_it_is_notified_once_it_is_known() -> None:
    machines, logged = Machines(a=0, b=0, c=0), []
    machines["a"].time.when_known(lambda: logged.append(machines.passed_ms))
    machines.link("ab")
    machines.advance(CLOCKS_TIMEOUT_MS // 2)
    machines.link("abc")
    machines.advance(CLOCKS_TIMEOUT_MS)
    assert logged == [CLOCKS_TIMEOUT_MS // 2 + STEP_MS]
    machines["a"].time.when_known(lambda: logged.append(0))
    assert logged[1:] == [0]


def test_ways_of_different_length_are_not_taken_for_skew() -> None:
    """The fastest round trip is wrong by half of it, at most."""
    machines = Machines(a=0, b=HOUR_MS, c=0)
    machines.delays_ms = {"a": 0, "b": 40}
    machines.link("abc")
    machines.advance(2_000)
    assert abs(machines["a"].time.ahead_ms()["b"] - HOUR_MS) <= 20
    machines.delays_ms = {"a": 800, "b": 10}
    machines.advance(10_000)
    assert abs(machines["a"].time.ahead_ms()["b"] - HOUR_MS) <= 20


def test_two_nodes_agree_on_the_earlier_clock() -> None:
    machines = Machines(a=0, b=HOUR_MS)
    machines.link("ab")
    machines.advance(1_000)
    assert machines.wrong_ms() == about(0, 0)


def test_who_starts_takes_over_what_the_others_count() -> None:
    """The node in the middle is away by then, so that clocks alone would say something else."""
    machines = Machines(a=0, b=HOUR_MS, c=2 * HOUR_MS)
    machines.link("abc")
    machines.advance(1_000)
    assert machines.wrong_ms() == about(*[HOUR_MS] * 3)
    machines.unlink("b")
    machines.restart("a")
    machines.advance(1_000)
    assert [machines["a"].wrong_ms] == about(HOUR_MS)
    machines.restart("c")
    machines.advance(1_000)
    assert abs(machines["c"].wrong_ms - HOUR_MS) <= 2 * STEP_MS


def test_a_third_that_comes_later_moves_nobody() -> None:
    """Two have begun without it, and its clock would have decided otherwise."""
    machines = Machines(a=0, b=-HOUR_MS, c=0)
    machines.link("ab")
    machines.advance(CLOCKS_TIMEOUT_MS // 2)
    assert not machines["a"].time.is_known
    machines.advance(CLOCKS_TIMEOUT_MS)
    machines.link("abc")
    machines.advance(1_000)
    assert machines.wrong_ms() == about(*[-HOUR_MS] * 3)


def test_common_time_follows_the_clocks_slowly_and_never_goes_back() -> None:
    machines = Machines(a=0, b=0, c=0)
    machines.link("abc")
    machines.advance(1_000)
    for machine in machines.all.values():
        machine.clock.jump_wall(-HOUR_MS)
    before_ms = machines["a"].time.wall_ms()
    for _ in range(600):
        machines.advance(100, step_ms=50)
        assert machines["a"].time.wall_ms() >= before_ms
        before_ms = machines["a"].time.wall_ms()
    assert machines.wrong_ms() == about(*[-60_000 // SLEW] * 3)
    assert machines["a"].wrong_ms <= -60_000 // SLEW + STEP_MS // 2


@pytest.mark.parametrize("by_ms", [HOUR_MS, -HOUR_MS])
def test_a_clock_that_is_set_moves_nothing_and_is_seen_at_once(by_ms: int) -> None:
    machines = Machines(a=0, b=0, c=0)
    machines.link("abc")
    machines.advance(1_000)
    machines["b"].clock.jump_wall(by_ms)
    assert machines.wrong_ms() == about(0, 0, 0)
    machines.advance(500)
    assert machines.wrong_ms() == about(0, 0, 0)
    assert [machines[name].time.ahead_ms()["b"] for name in "abc"] == about(*[by_ms] * 3)


def test_a_machine_that_was_asleep_counts_on_with_the_others() -> None:
    machines = Machines(a=0, b=0, c=0)
    machines.link("abc")
    machines.advance(1_000)
    for name in "bc":
        machines[name].clock.advance(HOUR_MS)
    machines.passed_ms += HOUR_MS
    machines["a"].clock.jump_wall(HOUR_MS)
    machines.advance(1_000)
    assert machines.wrong_ms() == about(0, 0, 0)
    assert [*machines["b"].time.ahead_ms().values()] == about(0, 0, 0)


def test_who_was_removed_has_no_say() -> None:
    machines = Machines(a=0, b=0, c=2 * HOUR_MS)
    machines.link("abc")
    machines.advance(1_000)
    machines.unlink("b")
    machines.deciding.remove("b")
    machines["a"].time.forget("b")
    assert [*machines["a"].time.ahead_ms()] == ["a", "c"]
    assert [*machines["a"].time.ahead_ms().values()] == about(0, 2 * HOUR_MS)


def test_operators_are_notified_once_whose_clock_is_wrong(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    machines = Machines(a=0, b=HOUR_MS, c=0)
    machines.link("abc")
    machines.advance(5_000)
    machines["b"].clock.jump_wall(-HOUR_MS + SKEW_MS_MAX - 1)
    machines.advance(1_000)
    machines["b"].clock.jump_wall(-SKEW_MS_MAX + 1)
    machines.advance(1_000)
    logged = [
        (record.getMessage(), fields["node"], round(fields["ahead_ms"], -2))
        for record in caplog.records
        if "ahead_ms" in (fields := record.fluffle_fields)  # type: ignore[attr-defined]
    ]
    assert logged == [
        *[("clock_skewed", "b", HOUR_MS)] * 3,
        *[("clock_in_sync", "b", 0)] * 3,
    ]
