"""The disk alarm: when it is raised and cleared, and how often anybody looks."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from fluffle.broker.alarms import disk
from fluffle.broker.alarms.alarms import Alarms, Watermarks
from fluffle.broker.alarms.disk import PERIOD_S, ROOM_FOR_RESERVE_BYTES, DiskWatch, free_bytes
from fluffle.storage import reserve
from tests.support.fakes import Scheduler


class Machine:
    """A watch with a limit of 100 bytes, and the disk that it sees."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free_bytes: int | None = 1_000
        self.scheduler = Scheduler()
        self.alarms = Alarms(Watermarks(disk_free_bytes_min=100))
        self.has_room = True
        self.watch = DiskWatch(self.alarms, self.scheduler.call_later, Path("data"))
        self.watch.has_room = lambda: self.has_room
        monkeypatch.setattr(disk, "free_bytes", lambda _folder: self.free_bytes)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_the_alarm_lasts_while_less_is_free_than_must_be(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    machine.watch.start()
    assert machine.alarms.reason == ""
    for free, reason in ((100, ""), (99, "low on disk"), (None, "low on disk"), (100, "")):
        machine.free_bytes = free
        machine.scheduler.advance(PERIOD_S)
        assert machine.alarms.reason == reason
        assert machine.alarms.is_raised("disk") is bool(reason)
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert told == [("WARNING", "alarm_raised"), ("INFO", "alarm_cleared")]


def test_the_alarm_lasts_while_quorum_queues_have_no_room(machine: Machine) -> None:
    machine.watch.start()
    machine.has_room = False
    machine.watch.look()
    assert machine.alarms.reason == "low on disk", "at once"
    machine.scheduler.advance(PERIOD_S)
    assert machine.alarms.is_raised("disk")
    machine.has_room = True
    machine.scheduler.advance(PERIOD_S)
    assert machine.alarms.reason == ""


def test_a_node_that_starts_on_a_full_disk_is_alarmed_at_once(machine: Machine) -> None:
    machine.free_bytes = 0
    machine.alarms.set("memory", low=True)
    machine.watch.start()
    assert machine.alarms.reason == "low on disk & memory"


def test_nobody_looks_after_the_stop(machine: Machine) -> None:
    machine.watch.stop()
    machine.watch.start()
    machine.watch.stop()
    assert machine.scheduler.timer_count == 0


def test_free_space_is_what_the_system_says(tmp_path: Path) -> None:
    free = free_bytes(tmp_path)
    status = os.statvfs(tmp_path)
    assert free is not None
    assert 0 < free <= status.f_blocks * status.f_frsize
    assert free_bytes(tmp_path / "none") is None


def test_a_reserve_is_kept_where_it_raises_no_alarm(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Path] = []
    monkeypatch.setattr(reserve, "keep", kept.append)
    enough = 100 + ROOM_FOR_RESERVE_BYTES
    machine.free_bytes = enough
    machine.watch.start()
    assert kept == [], "a start has other things to do"
    for free, count in ((enough - 1, 0), (None, 0), (enough, 1)):
        machine.free_bytes = free
        machine.scheduler.advance(PERIOD_S)
        assert kept == [Path("data")] * count
