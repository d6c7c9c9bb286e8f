"""Queue time, read from clocks that are set, and by leaders whose clocks are hours apart."""

from __future__ import annotations

from random import Random

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.quorum.entry_codec import FIRST_VERSION
from fluffle.broker.queues.quorum.facts import VersionAnnounced
from fluffle.broker.queues.quorum.proposals import (
    STEP_MS,
    EntryBuilder,
    EntryVersions,
    QueueTime,
)
from fluffle.broker.queues.quorum.state import QueueImage
from tests.suite.seeds import seeds
from tests.support.manual_clock import ManualClock
from tests.support.queue_host import FakeQueueHost


class Harness:
    """A leadership's, with an image of which the test says what is on record."""

    def __init__(self, reads: int, **known: int) -> None:
        self.known = known
        self.image = QueueImage(reads=reads)
        self.builder = EntryBuilder(self.image.state)
        self.versions = EntryVersions(self.image, self.builder, lambda: self.known)

    def said(self) -> list[tuple[str, int]]:
        """Announced versions, as facts of an entry."""
        self.versions.announce()
        facts = self.builder.finish(0).facts if self.builder else []
        assert all(isinstance(fact, VersionAnnounced) for fact in facts)
        return [(fact.member, fact.version) for fact in facts]  # type: ignore[union-attr]

    def apply(self, **versions: int) -> None:
        self.image.state.versions.update(versions)


def test_what_is_said_is_not_on_record_before_it_is_applied() -> None:
    harness = Harness(3, a=3, b=2)
    assert harness.said() == [("a", 3), ("b", 2)]
    assert harness.said() == []
    assert harness.versions.version == FIRST_VERSION
    harness.apply(a=3, b=2)
    assert harness.versions.version == 2


def test_no_more_is_written_than_is_read_here() -> None:
    harness = Harness(2, a=2, b=5)
    assert harness.said() == [("a", 2), ("b", 2)]
    harness.apply(a=2, b=5)
    assert harness.versions.version == 2


def test_who_is_not_heard_of_counts_with_what_is_on_record() -> None:
    harness = Harness(2, a=2, b=0)
    harness.apply(a=2, b=2)
    assert (harness.said(), harness.versions.version) == ([], 2)


def test_who_says_that_it_has_gone_back_counts_with_that() -> None:
    harness = Harness(2, a=2, b=1)
    harness.apply(a=2, b=2)
    assert (harness.said(), harness.versions.version) == ([], 1)


def test_a_member_that_is_added_counts_before_it_has_announced_anything() -> None:
    harness = Harness(2, a=2)
    harness.apply(a=2)
    assert harness.versions.version == 2
    harness.known = {"a": 2, "b": 2}
    assert harness.versions.version == FIRST_VERSION
    assert harness.said() == [("b", 2)]
    harness.apply(b=2)
    assert harness.versions.version == 2


def test_a_version_is_coming_while_all_say_that_they_read_it_and_the_log_does_not() -> None:
    harness = Harness(3, a=3, b=3)
    assert [harness.versions.is_coming(version) for version in (2, 3, 4)] == [True, True, False]
    harness.apply(a=3, b=3)
    assert not harness.versions.is_coming(3)
    harness.known["c"] = 0
    assert not harness.versions.is_coming(3), "nobody knows when it says something"
    harness.known |= {"a": 0, "c": 3}
    assert harness.versions.is_coming(3)
    assert not Harness(3).versions.is_coming(3), "nobody says anything"


HOUR_MS = 3_600_000
NOON_MS = 1_800_000_000_000


def made(last_stamp_ms: int, clock: ManualClock) -> QueueTime:
    return QueueTime(last_stamp_ms, clock, lambda _after_ms: None)


def at(wall_ms: int) -> ManualClock:
    return ManualClock(wall_ms=wall_ms)


def test_the_first_leader_goes_by_the_clock() -> None:
    clock = at(NOON_MS)
    time = made(0, clock)
    assert time.now_ms() == NOON_MS
    clock.advance(250)
    assert time.now_ms() == NOON_MS + 250


def test_a_leader_whose_clock_is_behind_goes_on_where_the_log_ends() -> None:
    """Queue time does not stand still for an hour, in which nothing would expire."""
    clock = at(NOON_MS - HOUR_MS)
    time = made(NOON_MS, clock)
    assert time.now_ms() == NOON_MS
    clock.advance(60_000)
    assert time.now_ms() == NOON_MS + 60_000


def test_a_leader_that_comes_late_has_missed_no_time() -> None:
    assert made(NOON_MS, at(NOON_MS + 60_000)).now_ms() == NOON_MS + 60_000


def test_a_clock_that_is_put_back_costs_no_time() -> None:
    clock = at(NOON_MS)
    time = made(0, clock)
    clock.jump_wall(-HOUR_MS)
    assert time.now_ms() == NOON_MS
    clock.advance(1_000)
    assert time.now_ms() == NOON_MS + 1_000


def test_a_clock_that_is_put_right_tells_no_time_twice() -> None:
    """The log has had it from another leader already."""
    clock = at(NOON_MS - HOUR_MS)
    time = made(NOON_MS, clock)
    clock.advance(1_000)
    clock.jump_wall(HOUR_MS)
    assert NOON_MS + 1_000 <= time.now_ms() <= NOON_MS + 1_000 + STEP_MS
    clock.advance(HOUR_MS)
    assert time.now_ms() <= NOON_MS + 1_000 + HOUR_MS + 2 * STEP_MS


def test_a_clock_that_is_put_back_and_forward_again_tells_no_time_twice() -> None:
    clock = at(NOON_MS)
    time = made(0, clock)
    clock.jump_wall(-HOUR_MS)
    assert time.now_ms() == NOON_MS
    clock.jump_wall(HOUR_MS)
    assert time.now_ms() <= NOON_MS + STEP_MS


@seeds(20)
def test_leaders_one_after_the_other_never_go_back_nor_stand_still(seed: int) -> None:
    """Each is behind the first, by up to an hour; so all time that passes is counted, exactly."""
    chance, passed_ms = Random(seed), 0
    time, clock = made(0, first := at(NOON_MS)), first
    for _ in range(200):
        step_ms = chance.randint(0, 5_000)
        passed_ms += step_ms
        clock.advance(step_ms)
        if chance.random() < 0.1:
            clock = at(NOON_MS - chance.randint(0, HOUR_MS))
            time = made(time.now_ms(), clock)
        assert time.now_ms() == NOON_MS + passed_ms


def test_it_is_woken_after_so_much_of_its_own_time() -> None:
    woken: list[int] = []
    clock = at(NOON_MS - HOUR_MS)
    time = QueueTime(NOON_MS, clock, woken.append)
    time.wake(Queue(QueueSpec("q"), FakeQueueHost()), NOON_MS + 70)
    assert woken == [70]
