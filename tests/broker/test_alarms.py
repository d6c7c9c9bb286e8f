"""Alarms: what blocked clients hear, and who hears of changes."""

from __future__ import annotations

import logging
import os
from mmap import ACCESS_READ, mmap
from pathlib import Path
from weakref import ref

import pytest

from fluffle.broker.alarms import (
    DISK_PERIOD_S,
    GROWTH_BYTES,
    GROWTH_LOOKS,
    MEMORY_PERIOD_S,
    ROOM_FOR_RESERVE_BYTES,
    Alarms,
    DiskWatch,
    MachineMeasures,
    MemoryWatch,
    Watermarks,
    free_bytes,
    keep_buffers,
    library_function,
    resident_bytes,
)
from fluffle.storage import reserve
from tests.support.fakes import FakeMeasures, Scheduler


def test_the_reason_names_every_resource_that_is_low() -> None:
    alarms = Alarms()
    assert alarms.reason == ""
    alarms.set("memory", low=True)
    assert alarms.reason == "low on memory"
    alarms.set("disk", low=True)
    assert alarms.reason == "low on disk & memory"
    alarms.set("memory", low=False)
    assert alarms.reason == "low on disk"
    alarms.set("disk", low=False)
    assert alarms.reason == ""


def test_listeners_hear_of_changes_only() -> None:
    alarms, heard = Alarms(), list[str]()

    def listener() -> None:
        heard.append(alarms.reason)

    alarms.listen(listener)
    alarms.set("disk", low=False)
    alarms.set("disk", low=True)
    alarms.set("disk", low=True)
    alarms.set("disk", low=False)
    assert heard == ["low on disk", ""]
    alarms.unlisten(listener)
    alarms.unlisten(listener)
    alarms.set("disk", low=True)
    assert heard == ["low on disk", ""]


def test_a_listener_may_leave_while_it_is_notified() -> None:
    alarms, heard = Alarms(), list[str]()

    def leave() -> None:
        heard.append("leaves")
        alarms.unlisten(leave)

    alarms.listen(leave)
    alarms.listen(lambda: heard.append("stays"))
    alarms.set("memory", low=True)
    alarms.set("memory", low=False)
    assert heard == ["leaves", "stays", "stays"]


class DiskMachine:
    """A watch with a limit of 100 bytes, and the disk that it sees."""

    def __init__(self) -> None:
        self.measures = FakeMeasures()
        self.measures.free = 1_000
        self.scheduler = Scheduler()
        self.alarms = Alarms(Watermarks(disk_free_bytes_min=100))
        self.has_room = True
        self.watch = DiskWatch(self.alarms, self.measures, self.scheduler.call_later, Path("data"))
        self.watch.has_room = lambda: self.has_room


@pytest.fixture
def disk_machine() -> DiskMachine:
    return DiskMachine()


def test_the_alarm_lasts_while_less_is_free_than_must_be(
    disk_machine: DiskMachine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    disk_machine.watch.start()
    assert disk_machine.alarms.reason == ""
    for free, reason in ((100, ""), (99, "low on disk"), (None, "low on disk"), (100, "")):
        disk_machine.measures.free = free
        disk_machine.scheduler.advance(DISK_PERIOD_S)
        assert disk_machine.alarms.reason == reason
        assert disk_machine.alarms.is_raised("disk") is bool(reason)
    logged = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert logged == [("WARNING", "alarm_raised"), ("INFO", "alarm_cleared")]


def test_the_alarm_lasts_while_quorum_queues_have_no_room(disk_machine: DiskMachine) -> None:
    disk_machine.watch.start()
    disk_machine.has_room = False
    disk_machine.watch.look()
    assert disk_machine.alarms.reason == "low on disk", "at once"
    disk_machine.scheduler.advance(DISK_PERIOD_S)
    assert disk_machine.alarms.is_raised("disk")
    disk_machine.has_room = True
    disk_machine.scheduler.advance(DISK_PERIOD_S)
    assert disk_machine.alarms.reason == ""


def test_a_node_that_starts_on_a_full_disk_is_alarmed_at_once(disk_machine: DiskMachine) -> None:
    disk_machine.measures.free = 0
    disk_machine.alarms.set("memory", low=True)
    disk_machine.watch.start()
    assert disk_machine.alarms.reason == "low on disk & memory"


def test_nobody_looks_at_the_disk_after_the_stop(disk_machine: DiskMachine) -> None:
    disk_machine.watch.stop()
    disk_machine.watch.start()
    disk_machine.watch.stop()
    assert disk_machine.scheduler.timer_count == 0


def test_free_space_is_what_the_system_says(tmp_path: Path) -> None:
    free = free_bytes(tmp_path)
    status = os.statvfs(tmp_path)
    assert free is not None
    assert 0 < free <= status.f_blocks * status.f_frsize
    assert free_bytes(tmp_path / "none") is None


def test_a_reserve_is_kept_where_it_raises_no_alarm(
    disk_machine: DiskMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Path] = []
    monkeypatch.setattr(reserve, "keep", kept.append)
    enough = 100 + ROOM_FOR_RESERVE_BYTES
    disk_machine.measures.free = enough
    disk_machine.watch.start()
    assert kept == [], "a start has other things to do"
    for free, count in ((enough - 1, 0), (None, 0), (enough, 1)):
        disk_machine.measures.free = free
        disk_machine.scheduler.advance(DISK_PERIOD_S)
        assert kept == [Path("data")] * count


class Ballast:
    """Fake of what could be paged out."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def shed(self) -> None:
        self.heard.append("shed")

    def rest(self) -> None:
        self.heard.append("rest")


class MeasuresThatFree(FakeMeasures):
    """Measures of memory of which a part is free, or garbage, and goes when that is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.resident = 0
        self.share_left = 1.0
        """Share that is left once free memory is returned."""
        self.returned: list[int] = []
        """Bytes that were used, each time that free memory was to be returned."""
        self.garbage = 0
        """Bytes of garbage."""
        self.collected: list[int] = []
        """Bytes that were used, each time that garbage was looked for."""

    def collect_garbage(self) -> None:
        assert self.resident is not None
        self.collected.append(self.resident)
        self.resident, self.garbage = self.resident - self.garbage, 0

    def return_free_memory(self) -> None:
        if self.resident is not None:
            self.returned.append(self.resident)
            self.resident = int(self.resident * self.share_left)


class MemoryMachine:
    """A watch, and the memory that it sees."""

    def __init__(self, limit_bytes: int = 100) -> None:
        self.measures = MeasuresThatFree()
        self.scheduler = Scheduler()
        self.alarms = Alarms(Watermarks(memory_bytes_max=limit_bytes))
        self.ballast = Ballast()
        self.watch = MemoryWatch(
            self.alarms, self.measures, self.scheduler.call_later, self.ballast
        )


@pytest.fixture
def memory_machine() -> MemoryMachine:
    return MemoryMachine()


def test_the_alarm_lasts_while_more_is_used_than_allowed(memory_machine: MemoryMachine) -> None:
    memory_machine.watch.start()
    assert memory_machine.alarms.reason == ""
    for used_bytes, reason in ((100, ""), (101, "low on memory"), (500, "low on memory"), (99, "")):
        memory_machine.measures.resident = used_bytes
        memory_machine.scheduler.advance(MEMORY_PERIOD_S)
        assert memory_machine.alarms.reason == reason


def test_what_can_leave_memory_is_asked_to_long_before_the_alarm(
    memory_machine: MemoryMachine,
) -> None:
    memory_machine.watch.start()
    for used_bytes in (50, 51, 200, 50, 40):
        memory_machine.measures.resident = used_bytes
        memory_machine.scheduler.advance(MEMORY_PERIOD_S)
    assert memory_machine.ballast.heard == ["shed", "shed", "rest"]


def test_a_node_that_starts_too_large_is_alarmed_at_once(memory_machine: MemoryMachine) -> None:
    memory_machine.measures.resident = 101
    memory_machine.watch.start()
    assert memory_machine.alarms.reason == "low on memory"


def test_nobody_looks_at_the_memory_after_the_stop(memory_machine: MemoryMachine) -> None:
    memory_machine.watch.stop()
    memory_machine.watch.start()
    memory_machine.watch.stop()
    assert memory_machine.scheduler.timer_count == 0


def test_what_is_not_reported_changes_nothing(memory_machine: MemoryMachine) -> None:
    """To ask takes a file descriptor, and a flood of connections may leave none."""
    memory_machine.measures.resident = None
    memory_machine.watch.start()
    assert memory_machine.alarms.reason == ""
    for used_bytes, reason in ((101, "low on memory"), (None, "low on memory"), (99, "")):
        memory_machine.measures.resident = used_bytes
        memory_machine.scheduler.advance(MEMORY_PERIOD_S)
        assert memory_machine.alarms.reason == reason


def test_free_memory_is_returned_when_much_has_come() -> None:
    """The storm is over, and half of what it took is free: that goes, and what is needed stays."""
    memory_machine = MemoryMachine(limit_bytes=100 * GROWTH_BYTES)
    memory_machine.measures.share_left, returned = 0.5, memory_machine.measures.returned
    memory_machine.measures.resident = 3 * GROWTH_BYTES
    memory_machine.watch.start()
    memory_machine.scheduler.advance(MEMORY_PERIOD_S * GROWTH_LOOKS)
    assert returned == [3 * GROWTH_BYTES]
    memory_machine.measures.resident = 2 * GROWTH_BYTES
    memory_machine.scheduler.advance(MEMORY_PERIOD_S * GROWTH_LOOKS * 2)
    assert returned == [3 * GROWTH_BYTES], "it has not grown much since"
    memory_machine.measures.resident = 3 * GROWTH_BYTES
    memory_machine.scheduler.advance(MEMORY_PERIOD_S * GROWTH_LOOKS * 2)
    assert returned == [3 * GROWTH_BYTES] * 2


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system has no /proc")
def test_resident_memory_is_that_of_this_process() -> None:
    used_bytes = resident_bytes()
    assert used_bytes is not None
    assert 1 << 20 < used_bytes < 1 << 40
    ballast = bytearray(b"x") * (64 << 20)
    grown_bytes = resident_bytes()
    assert grown_bytes is not None
    assert grown_bytes > used_bytes + len(ballast) // 2


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system has no /proc")
def test_pages_of_files_are_not_counted(tmp_path: Path) -> None:
    """A store maps its file, and what was read of it stays as long as the system likes."""
    file = tmp_path / "file"
    file.write_bytes(b"x" * (64 << 20))
    used_bytes = resident_bytes()
    assert used_bytes is not None
    with file.open("rb") as opened, mmap(opened.fileno(), 0, access=ACCESS_READ) as mapped:
        assert sum(mapped[:: 1 << 12]) == 16_384 * ord("x")
        mapped_bytes = resident_bytes()
    assert mapped_bytes is not None
    assert mapped_bytes < used_bytes + (16 << 20)


def test_without_proc_memory_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert resident_bytes() is None


def test_the_alarm_ends_when_what_was_used_is_free_again() -> None:
    """The allocator keeps what is freed; the watch must not wait for it to let go by itself."""
    resident = resident_bytes()
    if resident is None:
        pytest.skip("the system has no /proc")
    scheduler, alarms = Scheduler(), Alarms(Watermarks(memory_bytes_max=resident + 100_000_000))
    watch = MemoryWatch(alarms, MachineMeasures(Path()), scheduler.call_later, Ballast())
    bodies = [bytes([number % 256]) * 1_000 for number in range(200_000)]
    kept = bodies[::2_000]  # which pins the arenas they lie in
    watch.start()
    assert alarms.reason == "low on memory"
    bodies.clear()
    scheduler.advance(MEMORY_PERIOD_S)
    assert (alarms.reason, len(kept)) == ("", 100)
    watch.stop()


def test_the_allocator_can_be_made_to_keep_buffers() -> None:
    assert keep_buffers() is (library_function("mallopt") is not None)
    assert library_function("no_such_function") is None


def test_garbage_is_collected_before_the_alarm_is_raised(memory_machine: MemoryMachine) -> None:
    measures = memory_machine.measures
    memory_machine.watch.start()
    measures.resident, measures.garbage = 100, 11
    memory_machine.scheduler.advance(MEMORY_PERIOD_S)
    assert measures.collected == [], "it may be as much"
    measures.resident = 101
    memory_machine.scheduler.advance(MEMORY_PERIOD_S)
    assert measures.collected == [101]
    assert memory_machine.alarms.reason == ""


def test_garbage_is_looked_for_now_and_then_while_the_alarm_stands(
    memory_machine: MemoryMachine,
) -> None:
    collected = memory_machine.measures.collected
    memory_machine.measures.resident = 101
    memory_machine.watch.start()
    assert (memory_machine.alarms.reason, len(collected)) == ("low on memory", 1)
    memory_machine.scheduler.advance(MEMORY_PERIOD_S * GROWTH_LOOKS)
    assert len(collected) == 1
    memory_machine.scheduler.advance(MEMORY_PERIOD_S)
    assert len(collected) == 2
    memory_machine.measures.resident = 99
    memory_machine.scheduler.advance(MEMORY_PERIOD_S * GROWTH_LOOKS * 2)
    assert (memory_machine.alarms.reason, len(collected)) == ("", 2)


def test_cycles_are_gone_once_garbage_is_collected() -> None:
    class Link:
        other: Link

    one, two = Link(), Link()
    one.other, two.other = two, one
    seen = ref(one)
    del one, two
    MachineMeasures(Path()).collect_garbage()
    assert seen() is None


def test_an_alarm_of_the_disk_that_its_watermark_does_not_give_lasts_until_the_next_look(
    disk_machine: DiskMachine,
) -> None:
    """So whoever wants one that lasts moves the watermark."""
    alarms = disk_machine.alarms
    disk_machine.watch.start()
    alarms.set("disk", low=True)
    disk_machine.scheduler.advance(DISK_PERIOD_S)
    assert alarms.reason == ""
    alarms.move_disk_watermark(1_001)
    alarms.set("disk", low=False)
    disk_machine.scheduler.advance(DISK_PERIOD_S)
    assert alarms.reason == "low on disk"


def test_an_alarm_of_memory_that_its_watermark_does_not_give_lasts_until_the_next_look(
    memory_machine: MemoryMachine,
) -> None:
    alarms = memory_machine.alarms
    memory_machine.watch.start()
    alarms.set("memory", low=True)
    memory_machine.scheduler.advance(MEMORY_PERIOD_S)
    assert alarms.reason == ""
    alarms.move_memory_watermark(-1)
    alarms.set("memory", low=False)
    memory_machine.scheduler.advance(MEMORY_PERIOD_S)
    assert alarms.reason == "low on memory"


def test_a_watermark_that_is_moved_is_compared_at_once(
    disk_machine: DiskMachine, memory_machine: MemoryMachine
) -> None:
    """RabbitMQ 4.0.5 does so before it replies to the command."""
    disk_machine.watch.start()
    disk_machine.alarms.move_disk_watermark(1_001)
    assert disk_machine.alarms.reason == "low on disk"
    disk_machine.alarms.move_disk_watermark(1_000)
    assert disk_machine.alarms.reason == ""
    memory_machine.measures.resident = 100
    memory_machine.watch.start()
    memory_machine.alarms.move_memory_watermark(99)
    assert memory_machine.alarms.reason == "low on memory"
    memory_machine.alarms.move_memory_watermark(100)
    assert memory_machine.alarms.reason == ""


def test_a_watermark_that_is_moved_before_and_after_the_watch_is_not_compared(
    disk_machine: DiskMachine, memory_machine: MemoryMachine
) -> None:
    memory_machine.measures.resident = 100
    for _ in range(2):
        disk_machine.alarms.move_disk_watermark(1_001)
        memory_machine.alarms.move_memory_watermark(99)
        assert (disk_machine.alarms.reason, memory_machine.alarms.reason) == ("", "")
        disk_machine.alarms.move_disk_watermark(0)
        memory_machine.alarms.move_memory_watermark(100)
        disk_machine.watch.start()
        memory_machine.watch.start()
        disk_machine.watch.stop()
        memory_machine.watch.stop()
