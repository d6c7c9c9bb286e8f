"""Turns of log compaction: which entries are rewritten when, and what goes on if some cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from fluffle.broker.cluster.queues.log_compaction import ENTRIES_MAX, LOOKS_MAX, LogCompaction
from fluffle.broker.queues.quorum.facts import InvalidEntry
from fluffle.raft.log_store import DamagedLog

FLOOR = 100


class Image:
    """Image of a queue with so many entries to compact."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.state = SimpleNamespace(index=FLOOR)
        self.slim: list[int] = []

    def worth_slimming(self, _dead_bytes_min: int) -> Iterator[tuple[int, list[range]]]:
        return ((index, [range(1)]) for index in range(1, self.count + 1))

    def slimmed(self, index: int, _left: int) -> None:
        self.slim.append(index)


class Scene:
    """Queues 1 and 2; whoever rewrites an entry of queue 1 may fail."""

    def __init__(self) -> None:
        settled = SimpleNamespace(index=FLOOR)
        hosted = SimpleNamespace(raft=SimpleNamespace(settled_snapshot=settled))
        self.groups = {1: hosted, 2: hosted}
        self.asked: list[Callable[[], None]] = []
        self.wrong: Exception | None = None
        self.fit: set[int] = set()
        """Entries of queue 1 that can be read all the same."""
        self.is_hot = False
        self.looks = 0
        members: Any = self
        self.host = self
        self.reported: list[tuple[int, int, str]] = []
        self.slimming = LogCompaction(members)

    def feed_later(self, _seconds: float, call: Callable[[], None]) -> None:
        self.asked.append(call)

    def entry_rejected(self, queue: int, index: int, wrong: str) -> None:
        self.reported.append((queue, index, wrong))

    def rewrite(self, queue: int, index: int, _make: object) -> bool:
        if queue == 1 and self.wrong is not None and index not in self.fit:
            raise self.wrong
        return not (queue == 1 and self.is_hot)

    def note(self, queue: int, image: Any) -> None:
        self.slimming.note(queue, image)

    def look(self) -> None:
        self.looks += 1
        self.asked.pop()()

    def look_until_done(self) -> None:
        while self.asked:
            self.look()


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_queue_is_not_forgotten_behind_one_with_many_entries(scene: Scene) -> None:
    many, few = Image(2 * LOOKS_MAX * ENTRIES_MAX), Image(3)
    scene.note(1, many)
    scene.note(2, few)
    scene.look()
    scene.look()
    assert len(few.slim) == 3, "it has its turn"
    scene.look_until_done()
    assert len(many.slim) == 2 * LOOKS_MAX * ENTRIES_MAX


def test_no_look_makes_more_entries_smaller_than_it_should(scene: Scene) -> None:
    images = Image(3), Image(3)
    scene.note(1, images[0])
    scene.note(2, images[1])
    scene.look()
    assert sum(len(image.slim) for image in images) == ENTRIES_MAX


def test_what_stays_in_the_hot_window_holds_up_nobody_and_is_left(scene: Scene) -> None:
    hot, cold = Image(10), Image(3)
    scene.is_hot = True
    scene.note(1, hot)
    scene.note(2, cold)
    scene.look_until_done()
    assert (len(hot.slim), len(cold.slim)) == (0, 3)
    assert LOOKS_MAX <= scene.looks <= LOOKS_MAX + 2


@pytest.mark.parametrize(
    ("wrong", "reported"),
    [(InvalidEntry("of another version"), [(1, 3, "of another version")]), (DamagedLog(1, 5), [])],
)
def test_an_entry_that_cannot_be_made_smaller_is_left_and_others_are(
    scene: Scene, wrong: Exception, reported: list[tuple[int, int, str]]
) -> None:
    """Malformed entries are reported once for a queue; damage is reported by the check."""
    bad, good = Image(3), Image(3)
    scene.wrong = wrong
    scene.note(1, bad)
    scene.note(2, good)
    scene.look_until_done()
    assert (len(bad.slim), len(good.slim)) == (0, 3)
    scene.note(1, bad)
    scene.look_until_done()
    assert scene.reported == reported


def test_what_becomes_unfit_later_is_reported_and_nothing_twice(scene: Scene) -> None:
    image, seen = Image(9), []
    scene.wrong = InvalidEntry("of another version")
    for fit in ({1, 2, 4, 6, 7, 8, 9}, {1, 2, 6, 7, 8, 9}, {1, 2, 6, 7, 8, 9}):
        scene.fit = fit
        scene.note(1, image)
        scene.look_until_done()
        seen.append([index for _queue, index, _wrong in scene.reported])
    assert seen == [[5], [5, 4], [5, 4]], "of several at once one stands for all"
    image.count = 4
    scene.note(1, image)
    image.count = 9
    scene.note(1, image)
    scene.look_until_done()
    assert scene.reported[2:] == [(1, 5, "of another version")], "it is not known of for ever"
