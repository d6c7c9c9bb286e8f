"""Log lines about new leaders: one for each queue, or a count of many."""

from __future__ import annotations

import logging

import pytest

from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.cluster.queues.ports import KnownLeader
from fluffle.broker.cluster.queues.quorum_members import COLLECT_S, LINES_MAX, LeaderLog
from tests.support.fakes import Scheduler


class Scene:
    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self._caplog = caplog
        self._scheduler = Scheduler()
        self.news = LeaderLog(
            lambda queue: {"vhost": "/", "queue": f"q{queue}", "group": queue},
            self._scheduler,
        )

    def hears(self, queue: int, term: int, leader: str) -> None:
        self.news.heard(queue, KnownLeader(term, 1, leader))

    def said(self) -> list[tuple[str, dict[str, object]]]:
        """Once the time to collect has passed."""
        self._caplog.clear()
        self._scheduler.advance(COLLECT_S)
        return [
            (each.getMessage(), getattr(each, FIELDS_ATTRIBUTE)) for each in self._caplog.records
        ]


@pytest.fixture
def scene(caplog: pytest.LogCaptureFixture) -> Scene:
    return Scene(caplog)


def line(queue: int, **fields: object) -> tuple[str, dict[str, object]]:
    named = {"vhost": "/", "queue": f"q{queue}", "group": queue}
    return "queue_leader_changed", named | fields


def test_a_queue_that_is_led_by_another_is_named(scene: Scene) -> None:
    scene.hears(7, 1, "a")
    assert scene.said() == []
    scene.hears(7, 2, "")
    scene.hears(7, 2, "b")
    assert scene.said() == [line(7, leader="b", former="a", term=2)]
    scene.hears(7, 2, "b")
    assert scene.said() == []


def test_the_same_leader_in_another_term_is_no_news(scene: Scene) -> None:
    scene.hears(7, 1, "a")
    scene.hears(7, 3, "a")
    assert scene.said() == []


def test_who_leads_again_within_the_time_is_no_news(scene: Scene) -> None:
    scene.hears(7, 1, "a")
    scene.hears(7, 2, "b")
    scene.hears(7, 3, "a")
    assert scene.said() == []


def test_after_a_start_it_is_no_news_who_leads(scene: Scene) -> None:
    """The new process does not know the former leader."""
    scene.hears(7, 5, "b")
    assert scene.said() == []
    scene.hears(7, 6, "a")
    assert scene.said() == [line(7, leader="a", former="b", term=6)]


def test_a_queue_that_is_gone_meanwhile_is_not_named(scene: Scene) -> None:
    scene.hears(7, 1, "a")
    scene.hears(7, 2, "b")
    scene.news.forget(7)
    assert scene.said() == []


@pytest.mark.parametrize("count", [LINES_MAX, LINES_MAX + 1])
def test_of_many_it_is_said_how_many(scene: Scene, count: int) -> None:
    for queue in range(count):
        scene.hears(queue, 1, "a")
        scene.hears(queue, 2, "b")
    if count == LINES_MAX:
        assert [name for name, _fields in scene.said()] == ["queue_leader_changed"] * count
    else:
        assert scene.said() == [("queue_leaders_changed", {"count": count})]
    scene.hears(1, 3, "c")
    assert [name for name, _fields in scene.said()] == ["queue_leader_changed"]


def test_those_that_are_led_as_before_are_not_counted(scene: Scene) -> None:
    for queue in range(3 * LINES_MAX):
        scene.hears(queue, 1, "a")
        scene.hears(queue, 2, "b")
        if queue:
            scene.hears(queue, 3, "a")
    assert scene.said() == [line(0, leader="b", former="a", term=2)]
