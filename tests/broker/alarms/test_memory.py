"""The memory alarm: when it is raised and cleared, and how often anybody looks."""

from __future__ import annotations

from mmap import ACCESS_READ, mmap
from pathlib import Path
from weakref import ref

import pytest

from fluffle.broker.alarms import memory
from fluffle.broker.alarms.alarms import Alarms, Watermarks
from fluffle.broker.alarms.memory import (
    GROWTH_BYTES,
    GROWTH_LOOKS,
    PERIOD_S,
    MemoryWatch,
    keep_buffers,
    library_function,
    resident_bytes,
)
from tests.support.fakes import Scheduler


class Ballast:
    """What could leave memory."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def shed(self) -> None:
        self.heard.append("shed")

    def rest(self) -> None:
        self.heard.append("rest")


class Machine:
    """A watch, and the memory that it sees."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, limit_bytes: int = 100) -> None:
        self.used_bytes: int | None = 0
        self.scheduler = Scheduler()
        self.alarms = Alarms(Watermarks(memory_bytes_max=limit_bytes))
        self.ballast = Ballast()
        self.watch = MemoryWatch(self.alarms, self.scheduler.call_later, self.ballast)
        monkeypatch.setattr(memory, "resident_bytes", lambda: self.used_bytes)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_the_alarm_lasts_while_more_is_used_than_allowed(machine: Machine) -> None:
    machine.watch.start()
    assert machine.alarms.reason == ""
    for used_bytes, reason in ((100, ""), (101, "low on memory"), (500, "low on memory"), (99, "")):
        machine.used_bytes = used_bytes
        machine.scheduler.advance(PERIOD_S)
        assert machine.alarms.reason == reason


def test_what_can_leave_memory_is_asked_to_long_before_the_alarm(machine: Machine) -> None:
    machine.watch.start()
    for used_bytes in (50, 51, 200, 50, 40):
        machine.used_bytes = used_bytes
        machine.scheduler.advance(PERIOD_S)
    assert machine.ballast.heard == ["shed", "shed", "rest"]


def test_a_node_that_starts_too_large_is_alarmed_at_once(machine: Machine) -> None:
    machine.used_bytes = 101
    machine.watch.start()
    assert machine.alarms.reason == "low on memory"


def test_nobody_looks_after_the_stop(machine: Machine) -> None:
    machine.watch.stop()
    machine.watch.start()
    machine.watch.stop()
    assert machine.scheduler.timer_count == 0


def test_what_is_not_told_changes_nothing(machine: Machine) -> None:
    """To ask takes a file descriptor, and a flood of connections may leave none."""
    machine.used_bytes = None
    machine.watch.start()
    assert machine.alarms.reason == ""
    for used_bytes, reason in ((101, "low on memory"), (None, "low on memory"), (99, "")):
        machine.used_bytes = used_bytes
        machine.scheduler.advance(PERIOD_S)
        assert machine.alarms.reason == reason


def test_free_memory_is_returned_when_much_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """The storm is over, and half of what it took is free: that goes, and what is needed stays."""
    machine = Machine(monkeypatch, limit_bytes=100 * GROWTH_BYTES)
    returned: list[int] = []

    def give_back() -> None:
        assert machine.used_bytes is not None
        returned.append(machine.used_bytes)
        machine.used_bytes //= 2

    monkeypatch.setattr(memory, "return_free_memory", give_back)
    machine.used_bytes = 3 * GROWTH_BYTES
    machine.watch.start()
    machine.scheduler.advance(PERIOD_S * GROWTH_LOOKS)
    assert returned == [3 * GROWTH_BYTES]
    machine.used_bytes = 2 * GROWTH_BYTES
    machine.scheduler.advance(PERIOD_S * GROWTH_LOOKS * 2)
    assert returned == [3 * GROWTH_BYTES], "it has not grown much since"
    machine.used_bytes = 3 * GROWTH_BYTES
    machine.scheduler.advance(PERIOD_S * GROWTH_LOOKS * 2)
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
    watch = MemoryWatch(alarms, scheduler.call_later, Ballast())
    bodies = [bytes([number % 256]) * 1_000 for number in range(200_000)]
    kept = bodies[::2_000]  # which pins the arenas they lie in
    watch.start()
    assert alarms.reason == "low on memory"
    bodies.clear()
    scheduler.advance(PERIOD_S)
    assert (alarms.reason, len(kept)) == ("", 100)
    watch.stop()


def test_the_allocator_can_be_told_to_keep_buffers() -> None:
    assert keep_buffers() is (library_function("mallopt") is not None)
    assert library_function("no_such_function") is None


def test_garbage_is_collected_before_the_alarm_is_raised(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected: list[int | None] = []

    def collect() -> None:
        collected.append(machine.used_bytes)
        machine.used_bytes = 90

    monkeypatch.setattr(memory, "collect_garbage", collect)
    machine.watch.start()
    machine.used_bytes = 100
    machine.scheduler.advance(PERIOD_S)
    assert collected == [], "it may be as much"
    machine.used_bytes = 101
    machine.scheduler.advance(PERIOD_S)
    assert collected == [101]
    assert machine.alarms.reason == ""


def test_garbage_is_looked_for_now_and_then_while_the_alarm_stands(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected: list[float] = []
    monkeypatch.setattr(
        memory, "collect_garbage", lambda: collected.append(machine.scheduler.now_s)
    )
    machine.used_bytes = 101
    machine.watch.start()
    assert (machine.alarms.reason, len(collected)) == ("low on memory", 1)
    machine.scheduler.advance(PERIOD_S * GROWTH_LOOKS)
    assert len(collected) == 1
    machine.scheduler.advance(PERIOD_S)
    assert len(collected) == 2
    machine.used_bytes = 99
    machine.scheduler.advance(PERIOD_S * GROWTH_LOOKS * 2)
    assert (machine.alarms.reason, len(collected)) == ("", 2)


def test_cycles_are_gone_once_garbage_is_collected() -> None:
    class Link:
        other: Link

    one, two = Link(), Link()
    one.other, two.other = two, one
    seen = ref(one)
    del one, two
    memory.collect_garbage()
    assert seen() is None
