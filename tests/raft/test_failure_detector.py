"""Tests of liveness: two machines and a link between them, moved by hand."""

from random import Random

import pytest

from fluffle.raft.failure_detector import (
    FORGOTTEN,
    GAPS,
    MISTAKE_MS,
    REPLIES_MAX,
    FailureDetector,
    SuspicionTimeout,
)
from fluffle.raft.messages import Ping
from fluffle.raft.output import LivenessVerdict
from fluffle.raft.tuning import Tuning
from tests.suite.seeds import seeds

TUNING = Tuning()


class Pair:
    """a and b."""

    def __init__(self) -> None:
        self.now_ms = 10_000
        self.sides = {"a": FailureDetector(1, TUNING), "b": FailureDetector(1, TUNING)}
        self.lost: set[str] = set()
        """Senders whose pings do not arrive."""
        self.said: list[tuple[str, LivenessVerdict]] = []
        self.pings = 0
        self.paused = ""
        for side in self.sides.values():
            side.tick(self.now_ms)

    def link(self) -> None:
        for name, side in self.sides.items():
            side.link_up(other(name))
        self.exchange()

    def exchange(self) -> None:
        """Deliver until nothing is under way."""
        while any(side.pings or side.verdicts for side in self.sides.values()):
            for name, side in self.sides.items():
                self.said += [(name, verdict) for verdict in side.verdicts]
                side.verdicts = []
                pings, side.pings = side.pings, []
                self.pings += len(pings)
                for target, ping in pings:
                    if name not in self.lost and target != self.paused:
                        self.sides[target].on_ping(name, ping)

    def advance(self, ms: int, *, step_ms: int = 50) -> None:
        for _ in range(0, ms, step_ms):
            self.now_ms += step_ms
            for name, side in self.sides.items():
                if name != self.paused:
                    side.tick(self.now_ms)
            self.exchange()
            for name, side in self.sides.items():
                if name != self.paused:
                    side.suspect()
            self.exchange()

    def verdicts(self, name: str) -> list[bool]:
        return [verdict.is_alive for side, verdict in self.said if side == name]


def other(name: str) -> str:
    return "b" if name == "a" else "a"


def test_a_link_makes_both_alive_at_once() -> None:
    pair = Pair()
    pair.link()
    assert pair.verdicts("a") == [True]
    assert pair.verdicts("b") == [True]


def test_healthy_nodes_stay_alive_at_four_pings_a_second() -> None:
    pair = Pair()
    pair.link()
    pair.pings = 0
    pair.advance(10_000)
    assert pair.verdicts("a") == [True]
    assert pair.pings == 2 * 10_000 // TUNING.ping_interval_ms


def test_silence_is_a_suspicion_after_a_second() -> None:
    pair = Pair()
    pair.link()
    pair.lost = {"a", "b"}
    pair.advance(TUNING.suspect_after_ms - 100)
    assert pair.verdicts("a") == [True]
    pair.advance(TUNING.ping_interval_ms + 100)
    assert pair.verdicts("a") == [True, False]


def test_a_link_in_one_direction_is_none() -> None:
    """b hears a, but a's pings are never known to have arrived: both must give up."""
    pair = Pair()
    pair.link()
    pair.lost = {"b"}
    pair.advance(3_000)
    assert pair.verdicts("a") == [True, False]
    assert pair.verdicts("b") == [True, False]


def test_an_echo_that_two_busy_nodes_delay_is_no_suspicion() -> None:
    """Its pings come, so it lives; those of ours that they echo left long ago."""
    a = FailureDetector(1, TUNING)
    a.tick(10_000)
    a.link_up("b")
    a.on_ping("b", Ping(1, 1, 1, 1, False))
    for turn in range(1, 11):
        a.tick(10_000 + 400 * turn)
        a.on_ping("b", Ping(1, 1 + turn, 1, max(1, turn - 2), False))
        a.suspect()
    assert a.verdicts == [LivenessVerdict("b", is_alive=True, boot=1)]


def test_who_pings_and_hears_nothing_is_suspected_in_the_end() -> None:
    a = FailureDetector(1, TUNING)
    a.tick(10_000)
    a.link_up("b")
    a.on_ping("b", Ping(1, 1, 1, 1, False))
    for at_ms in range(10_250, 10_000 + TUNING.deaf_after_ms, 250):
        a.tick(at_ms)
        a.on_ping("b", Ping(1, at_ms, 1, 1, False))
        a.suspect()
    assert a.verdicts == [LivenessVerdict("b", is_alive=True, boot=1)]
    a.tick(10_000 + TUNING.deaf_after_ms)
    a.on_ping("b", Ping(1, 20_000, 1, 1, False))
    a.suspect()
    assert a.verdicts[1:] == [LivenessVerdict("b", is_alive=False, boot=1)]


def test_a_lost_link_is_a_suspicion_at_once_and_a_new_one_ends_it() -> None:
    pair = Pair()
    pair.link()
    pair.sides["a"].link_down("b")
    pair.exchange()
    assert pair.verdicts("a") == [True, False]
    pair.sides["a"].link_up("b")
    pair.exchange()
    assert pair.verdicts("a") == [True, False, True]


def test_an_echo_from_the_link_before_proves_nothing() -> None:
    a = FailureDetector(1, TUNING)
    a.tick(10_000)
    a.link_up("b")
    a.link_down("b")
    a.link_up("b")
    a.on_ping("b", Ping(1, 1, 1, 1, False))
    assert a.verdicts == []
    a.on_ping("b", Ping(1, 2, 1, 2, False))
    assert a.verdicts == [LivenessVerdict("b", is_alive=True, boot=1)]


def test_an_echo_of_our_former_life_proves_nothing() -> None:
    a = FailureDetector(2, TUNING)
    a.tick(10_000)
    a.link_up("b")
    a.on_ping("b", Ping(1, 9, 1, 1, False))
    assert a.verdicts == []


def test_time_in_which_we_stood_still_is_not_held_against_others() -> None:
    pair = Pair()
    pair.link()
    pair.paused = "a"
    pair.advance(5_000)
    pair.paused = ""
    assert pair.verdicts("b") == [True, False]
    pair.advance(2_000)
    assert pair.verdicts("a") == [True], "a was away itself"
    assert pair.verdicts("b") == [True, False, True]


def test_turns_that_come_in_time_are() -> None:
    a = FailureDetector(1, TUNING)
    a.tick(10_000)
    a.link_up("b")
    a.on_ping("b", Ping(1, 1, 1, 1, False))
    for turn in range(1, 6):
        a.tick(10_000 + turn * TUNING.ping_interval_ms)
        a.suspect()
    assert a.verdicts[1:] == [LivenessVerdict("b", is_alive=False, boot=1)]


def test_a_new_life_is_a_suspicion_of_the_old_one() -> None:
    pair = Pair()
    pair.link()
    pair.sides["b"] = FailureDetector(2, TUNING)
    pair.sides["b"].tick(pair.now_ms)
    pair.sides["b"].link_up("a")
    pair.exchange()
    assert [(v.is_alive, v.boot) for side, v in pair.said if side == "a"] == [
        (True, 1), (False, 1), (True, 2),
    ]  # fmt: skip


def test_a_ping_of_a_life_that_is_over_is_not_heard() -> None:
    a = FailureDetector(1, TUNING)
    a.tick(10_000)
    a.link_up("b")
    a.on_ping("b", Ping(5, 1, 1, 1, True))
    a.verdicts.clear()
    a.on_ping("b", Ping(4, 100, 1, 1, True))
    assert a.verdicts == []
    assert a._peers["b"].boot == 5


def test_answers_do_not_multiply_on_a_slow_link() -> None:
    a = FailureDetector(1, TUNING)
    a.tick(10_000)
    a.link_up("b")
    a.pings.clear()
    for sequence in range(100):
        a.on_ping("b", Ping(1, sequence + 1, 0, 0, True))
    assert len(a.pings) == REPLIES_MAX


def test_a_node_wants_to_be_called_for_its_next_ping() -> None:
    a = FailureDetector(1, TUNING)
    a.tick(10_000)
    assert a.deadline_ms is None
    a.link_up("b")
    assert a.deadline_ms == 10_000 + TUNING.ping_interval_ms


def test_what_waited_for_a_late_turn_is_heard_before_anybody_is_suspected() -> None:
    a = FailureDetector(1, TUNING)
    a.tick(10_000)
    a.link_up("b")
    a.on_ping("b", Ping(1, 1, 1, 1, False))
    a.verdicts.clear()
    for at_ms in range(10_250, 10_000 + TUNING.suspect_after_ms + 250, 250):
        a.tick(at_ms)
    a.on_ping("b", Ping(1, 2, 1, a.pings[-2][1].sequence, False))
    a.suspect()
    assert a.verdicts == []


def test_who_was_removed_is_another_when_one_comes_under_its_name() -> None:
    """With a new disk its boots are counted from 1 again."""
    pair = Pair()
    pair.sides["b"] = FailureDetector(5, TUNING)
    pair.sides["b"].tick(pair.now_ms)
    pair.link()
    a = pair.sides["a"]
    pair.said.clear()
    pair.sides["b"] = FailureDetector(1, TUNING)
    pair.sides["b"].tick(pair.now_ms)
    a.link_down("b")
    pair.link()
    assert ("a", LivenessVerdict("b", True, 1)) not in pair.said
    a.link_down("b")
    a.forget("b")
    assert a.verdicts == []
    pair.link()
    assert ("a", LivenessVerdict("b", True, 1)) in pair.said


def test_who_is_removed_while_it_is_alive_is_so_no_more() -> None:
    pair = Pair()
    pair.link()
    a = pair.sides["a"]
    a.forget("b")
    assert a.verdicts == [LivenessVerdict("b", False, 1)]
    a.forget("b")
    assert a.verdicts == [LivenessVerdict("b", False, 1)]


@pytest.mark.parametrize("late_ms", [1, 40, 51, 500])
def test_turns_that_are_late_are_not_held_against_others(late_ms: int) -> None:
    """Only the delay is excused: else a node that always is late would never suspect another."""
    patience = 0
    a = FailureDetector(1, TUNING)
    a.tick(10_000)
    a.link_up("b")
    a.on_ping("b", Ping(1, 1, 1, 1, False))
    now_ms = 10_000
    while len(a.verdicts) < 2:
        now_ms += TUNING.ping_interval_ms + late_ms
        patience += TUNING.ping_interval_ms
        assert patience <= TUNING.suspect_after_ms
        a.tick(now_ms)
        a.suspect()
    assert patience == TUNING.suspect_after_ms


def test_who_comes_back_soon_was_suspected_by_mistake_and_may_be_silent_for_longer() -> None:
    pair = Pair()
    pair.link()
    pair.advance(1_000)
    for silence_ms in (1_300, 2_300):
        pair.paused = "b"
        pair.advance(silence_ms)
        pair.paused = ""
        pair.advance(1_000)
    assert pair.verdicts("a") == [True, False, True]
    assert pair.sides["a"].mistakes == {"b": 1}


def test_the_same_patience_is_had_with_who_hears_late() -> None:
    """An echo of ours that is old is no suspicion either."""
    pair = Pair()
    pair.link()
    for _ in range(2):
        pair.paused = "b"
        pair.advance(1_600)
        pair.paused = ""
        pair.advance(500)
    assert pair.verdicts("a") == [True, False, True]


def test_who_comes_back_late_was_away() -> None:
    pair = Pair()
    pair.link()
    pair.lost = {"a", "b"}
    pair.advance(2 * TUNING.suspect_after_ms_max)
    pair.lost = set()
    pair.advance(1_000)
    assert pair.verdicts("a") == [True, False, True]
    assert not pair.sides["a"].mistakes
    pair.lost = {"a", "b"}
    pair.advance(TUNING.suspect_after_ms + TUNING.ping_interval_ms)
    assert pair.verdicts("a") == [True, False, True, False]


def test_a_link_that_was_lost_is_no_mistake() -> None:
    pair = Pair()
    pair.link()
    for side in ("a", "b"):
        pair.sides[side].link_down(other(side))
    pair.exchange()
    pair.link()
    assert pair.verdicts("a") == [True, False, True]
    assert not pair.sides["a"].mistakes


def test_time_without_a_link_is_no_gap() -> None:
    pair = Pair()
    pair.link()
    for side in ("a", "b"):
        pair.sides[side].link_down(other(side))
    pair.advance(3_000)
    pair.link()
    pair.advance(1_000)
    pair.lost = {"a", "b"}
    pair.advance(TUNING.suspect_after_ms + TUNING.ping_interval_ms)
    assert pair.verdicts("a")[-1] is False


FLOOR_MS, CAP_MS = TUNING.suspect_after_ms, TUNING.suspect_after_ms_max


@pytest.fixture
def timeout() -> SuspicionTimeout:
    return SuspicionTimeout(TUNING)


def test_who_is_on_time_is_missed_after_a_second(timeout: SuspicionTimeout) -> None:
    for now_ms in range(0, 60_000, TUNING.ping_interval_ms):
        timeout.observe_gap(TUNING.ping_interval_ms, now_ms)
    assert timeout.limit_ms(60_000) == FLOOR_MS


def test_who_is_often_late_may_be_late(timeout: SuspicionTimeout) -> None:
    timeout.observe_gap(900, 10_000)
    timeout.observe_gap(250, 10_250)
    assert timeout.limit_ms(10_250) == pytest.approx(GAPS * 900, abs=50)


def test_that_somebody_was_late_once_is_forgotten(timeout: SuspicionTimeout) -> None:
    timeout.observe_gap(2_000, 0)
    limits = [timeout.limit_ms(now_ms) for now_ms in range(0, 2_000 * FORGOTTEN, 1_000)]
    assert limits == sorted(limits, reverse=True)
    assert (limits[0], limits[-1]) == (GAPS * 2_000, FLOOR_MS)


def test_nobody_waits_longer_than_the_cap(timeout: SuspicionTimeout) -> None:
    timeout.observe_gap(4_000, 0)
    assert timeout.limit_ms(0) == CAP_MS
    for now_ms in range(5):
        timeout.mistaken(now_ms)
    assert timeout.limit_ms(5) == CAP_MS


def test_who_was_away_is_not_taken_for_late(timeout: SuspicionTimeout) -> None:
    timeout.observe_gap(CAP_MS + 1, 0)
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
    """Every gap for ten minutes is anything up to two seconds."""
    chance, now_ms, mistakes = Random(seed), 0, 0
    while now_ms < 600_000:
        gap_ms = chance.randint(200, 2_000)
        limit_ms = timeout.limit_ms(now_ms)
        now_ms += gap_ms
        timeout.observe_gap(gap_ms, now_ms)
        if gap_ms >= limit_ms:
            timeout.mistaken(now_ms)
            mistakes += 1
    assert mistakes <= 3
