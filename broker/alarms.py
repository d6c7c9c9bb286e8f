"""Resource alarms: while one is raised, here or on another node, publishers are not read.

A connection asks for the reason of an alarm when a publish comes, and stops its reading
(`amqp091/event_handlers`, `mqtt/packet_handlers`; `ReadHolds` in `core/input_queue`).

The disk alarm is raised while less is free where the data are than must be, the memory alarm while
this process is larger than it may be.  Long before that messages go to disk that need not be in
memory.  A watermark that is moved is compared at once, as RabbitMQ does; an alarm that its
watermark does not give ends with the next look.

What a process gives back to its allocator is not yet given back to the system: after a backlog is
gone its memory may stay resident for ever.  So while memory is short the allocator is asked to
return what it does not need before the alarm looks; otherwise publishers would wait for nothing.
It is asked as well when memory has grown much since it was last asked, so that what a storm of
clients took does not stay, and the next storm does not add to it.

Before the memory alarm is raised, and now and then while it stands, the garbage collector looks for
cycles, too: where nothing is allocated any more it would not come by itself, and publishers would
wait for what is not needed.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fluffle.broker.base.clock import Timer
from fluffle.broker.base.logs import event
from fluffle.storage import reserve

if TYPE_CHECKING:
    from fluffle.broker.config.config import Config


RESOURCES = ("memory", "disk")

DISK_PERIOD_S = 1.0
"""A disk that takes 2 GB/s, and is written to by others too, loses that much in between."""

ROOM_FOR_RESERVE_BYTES = 2 * reserve.RESERVED_BYTES
"""Above the limit: a reserve must not raise the alarm by itself."""

MEMORY_PERIOD_S = 0.5
"""At 1 GB/s, the most that publishers on loopback bring, the watermark is passed by 0.5 GB."""

SHORT_RATIO = 0.5
"""Beyond so much of the watermark memory is short: RabbitMQ's ratio for paging, once."""

GROWTH_BYTES = 64 << 20
"""Bytes whose return takes some ten milliseconds."""

GROWTH_LOOKS = 20
"""How many looks there are at least between two such returns: a load that needs much memory again
and again should not have to fetch it each time."""

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3

MAPPED_BYTES_MIN = 4 << 20
"""Blocks from this size on come from the system and go back to it: large bodies."""

KEPT_BYTES_MAX = 16 << 20
"""Free memory at the end of the heap that is kept for the next buffers."""

logger = logging.getLogger(__name__)


class Watermarks:
    """From where on resources are low; `Alarms` moves them while the node runs."""

    def __init__(self, memory_bytes_max: int = sys.maxsize, disk_free_bytes_min: int = 0) -> None:
        self.memory_bytes_max = memory_bytes_max
        self.disk_free_bytes_min = disk_free_bytes_min


def watermarks_of(config: Config) -> Watermarks:
    """Return the watermarks that a node begins with."""
    return Watermarks(config.memory_bytes_max, config.disk_free_bytes_min)


class Alarms:
    """Alarms of low resources, and the listeners that must know of them."""

    def __init__(self, watermarks: Watermarks | None = None) -> None:
        """Without watermarks nothing is ever low."""
        self.watermarks = watermarks or Watermarks()
        self._raised: dict[str, None] = {}
        self._elsewhere: dict[str, Collection[str]] = {}
        """Low resources of other nodes, by node."""
        self._looks: dict[str, Callable[[], object]] = {}
        """Functions that compare a resource with its watermark; none of one that is not watched."""
        self._listeners: dict[Callable[[], None], None] = {}
        self.reason = ""
        """Text of connection.blocked, as RabbitMQ's: `low on disk & memory`; empty without an
        alarm."""

    @property
    def raised(self) -> tuple[str, ...]:
        """Resources that are low on this node."""
        return tuple(self._raised)

    @property
    def elsewhere(self) -> Mapping[str, Collection[str]]:
        """Resources that are low on other nodes, as last reported by them."""
        return self._elsewhere

    def is_raised(self, resource: str) -> bool:
        return resource in self._raised

    def watch(self, resource: str, look: Callable[[], object]) -> None:
        """Call `look` whenever the watermark of a resource is moved."""
        self._looks[resource] = look

    def unwatch(self, resource: str) -> None:
        self._looks.pop(resource, None)

    def move_memory_watermark(self, bytes_max: int) -> None:
        """Set how large this process may be, and compare."""
        self.watermarks.memory_bytes_max = bytes_max
        self._look("memory")

    def move_disk_watermark(self, free_bytes_min: int) -> None:
        """Set how much must be free where the data are, and compare."""
        self.watermarks.disk_free_bytes_min = free_bytes_min
        self._look("disk")

    def _look(self, resource: str) -> None:
        if (look := self._looks.get(resource)) is not None:
            look()

    def set(self, resource: str, *, low: bool) -> None:
        """Raise or clear the alarm of a resource (`memory`, `disk`)."""
        if low == (resource in self._raised):
            return
        if low:
            self._raised[resource] = None
        else:
            del self._raised[resource]
        self._find_reason()
        self._notify()

    def set_elsewhere(self, node: str, resources: Collection[str]) -> None:
        """Replace the resources that another node is low on."""
        before = self.reason
        if resources:
            self._elsewhere[node] = resources
        else:
            self._elsewhere.pop(node, None)
        self._find_reason()
        if self.reason != before:
            self._notify()

    def _find_reason(self) -> None:
        low = sorted({*self._raised}.union(*self._elsewhere.values()))
        self.reason = f"low on {' & '.join(low)}" if low else ""

    def _notify(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever an alarm is raised or cleared."""
        self._listeners[listener] = None

    def unlisten(self, listener: Callable[[], None]) -> None:
        self._listeners.pop(listener, None)


class Measures(Protocol):
    """Measures of a node's machine, and the ways to have memory given back to that."""

    def free_bytes(self) -> int | None:
        """Return what may still be written where the data are; None if that cannot be seen."""

    def resident_bytes(self) -> int | None:
        """Return the resident memory of this process; None if that cannot be seen."""

    def collect_garbage(self) -> None:
        """Let go of all that nothing refers to any more but itself."""

    def return_free_memory(self) -> None:
        """Have free memory be returned to the system."""


class MachineMeasures:
    """`Measures` of the machine and the process that this runs in."""

    __slots__ = ("_folder",)

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir

    def free_bytes(self) -> int | None:
        return free_bytes(self._folder)

    def resident_bytes(self) -> int | None:
        return resident_bytes()

    def collect_garbage(self) -> None:
        gc.collect()

    def return_free_memory(self) -> None:
        return_free_memory()


@dataclass(slots=True, eq=False)
class DiskWatch:
    """Compares the space that is free with a limit, once a second, and keeps a reserve of it.

    Quorum queues may need more than that, for what their members elsewhere have under way.
    """

    _alarms: Alarms
    """Alarms with the limit."""
    _measures: Measures
    _call_later: Callable[[float, Callable[[], None]], Timer]
    _folder: Path
    """Where the data are, and the reserve is kept."""
    has_room: Callable[[], bool] = field(default=lambda: True, init=False)
    """Function that says if there is room for quorum queues to grow."""
    _timer: Timer | None = field(default=None, init=False)

    def start(self) -> None:
        """Look now and from now on; the reserve waits: a start has other things to do."""
        self._alarms.watch("disk", self.look)
        self.look()
        self._timer = self._call_later(DISK_PERIOD_S, self._look_again)

    def _look_again(self) -> None:
        available = self.look()
        reserve_from = self._alarms.watermarks.disk_free_bytes_min + ROOM_FOR_RESERVE_BYTES
        if available is not None and available >= reserve_from:
            reserve.keep(self._folder)
        self._timer = self._call_later(DISK_PERIOD_S, self._look_again)

    def stop(self) -> None:
        self._alarms.unwatch("disk")
        if self._timer is not None:
            self._timer.cancel()

    def look(self) -> int | None:
        """Measure how much is free; what cannot be seen changes nothing."""
        available = self._measures.free_bytes()
        if available is not None:
            has_room = self.has_room()
            is_low = available < self._alarms.watermarks.disk_free_bytes_min or not has_room
            if self._alarms.is_raised("disk") != is_low:
                self._notify(available, is_low=is_low, has_room=has_room)
        return available

    def _notify(self, available: int, *, is_low: bool, has_room: bool) -> None:
        event(
            logger,
            logging.WARNING if is_low else logging.INFO,
            "alarm_raised" if is_low else "alarm_cleared",
            resource="disk",
            free_bytes=available,
            limit_bytes=self._alarms.watermarks.disk_free_bytes_min,
            quorum_queues_have_room=has_room,
        )
        self._alarms.set("disk", low=is_low)


def free_bytes(folder: Path) -> int | None:
    """Return what this process may still write there; None when the folder cannot be read."""
    try:
        return reserve.free_bytes(folder)
    except OSError:
        return None


class PageableMemory(Protocol):
    """Owner of memory that can be paged out when memory is low."""

    def shed(self) -> None:
        """Page out: memory is short.  Called at every look while it is."""

    def rest(self) -> None:
        """Stop paging out: memory is no longer short."""


@dataclass(slots=True, eq=False)
class MemoryWatch:
    """Compares resident memory with a watermark, twice a second."""

    _alarms: Alarms
    """Alarms with the watermark."""
    _measures: Measures
    _call_later: Callable[[float, Callable[[], None]], Timer]
    _relief: PageableMemory
    _is_short: bool = field(default=False, init=False)
    _looks: int = field(default=0, init=False)
    """Since free memory was last returned."""
    _collected_looks: int = field(default=0, init=False)
    """Looks since the collector was last called, while memory is low."""
    _low_bytes: int = field(default=0, init=False)
    """The least that was seen since, or what was left then."""
    _timer: Timer | None = field(default=None, init=False)

    def start(self) -> None:
        """Look now and from now on."""
        self._alarms.watch("memory", self.look)
        self._look_again()

    def _look_again(self) -> None:
        self.look()
        self._timer = self._call_later(MEMORY_PERIOD_S, self._look_again)

    def look(self) -> None:
        """Measure how much is used; what cannot be seen changes nothing."""
        used_bytes = self._used_bytes()
        if used_bytes is not None:
            self._compare(self._needed_bytes(used_bytes))

    def _used_bytes(self) -> int | None:
        """Return the memory in use; None where the system has no figure, or no file descriptor is
        left."""
        self._looks += 1
        if self._is_short:
            self._measures.return_free_memory()
        used_bytes = self._measures.resident_bytes()
        if used_bytes is None:
            return None
        if used_bytes > self._low_bytes + GROWTH_BYTES and self._looks >= GROWTH_LOOKS:
            self._measures.return_free_memory()
            self._looks = 0
            self._low_bytes = used_bytes = self._measures.resident_bytes() or used_bytes
        self._low_bytes = min(self._low_bytes, used_bytes)
        return used_bytes

    def _needed_bytes(self, used_bytes: int) -> int:
        """Return the memory that is left once garbage is gone, if it is more than may be: to look
        for it takes long where there is much, and no client is read then anyhow."""
        if used_bytes <= self._alarms.watermarks.memory_bytes_max:
            self._collected_looks = 0
            return used_bytes
        is_due = not self._alarms.is_raised("memory") or self._collected_looks >= GROWTH_LOOKS
        self._collected_looks = 0 if is_due else self._collected_looks + 1
        if not is_due:
            return used_bytes
        self._measures.collect_garbage()
        self._measures.return_free_memory()
        return self._measures.resident_bytes() or used_bytes

    def _compare(self, used_bytes: int) -> None:
        limit_bytes = self._alarms.watermarks.memory_bytes_max
        is_low = used_bytes > limit_bytes
        if is_low != self._alarms.is_raised("memory"):
            self._notify(used_bytes, is_low=is_low)
        is_short = used_bytes > SHORT_RATIO * limit_bytes
        if is_short:
            self._relief.shed()
        elif self._is_short:
            self._relief.rest()
        self._is_short = is_short

    def stop(self) -> None:
        self._alarms.unwatch("memory")
        if self._timer is not None:
            self._timer.cancel()

    def _notify(self, used_bytes: int, *, is_low: bool) -> None:
        event(
            logger,
            logging.WARNING if is_low else logging.INFO,
            "alarm_raised" if is_low else "alarm_cleared",
            resource="memory",
            used_bytes=used_bytes,
            limit_bytes=self._alarms.watermarks.memory_bytes_max,
        )
        self._alarms.set("memory", low=is_low)


def resident_bytes() -> int | None:
    """Resident memory of this process, without pages of files; None where there is no /proc.

    Those of the store are as many as it holds and was asked for, and the system takes them back
    whenever it needs them: a backlog on disk must not count as one in memory.
    """
    try:
        _total, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    except OSError:
        return None
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def return_free_memory() -> None:
    """Have the C library return free memory to the system, where it can (glibc, malloc_trim(3))."""
    trim = library_function("malloc_trim")
    if trim is not None:
        trim(0)


def keep_buffers() -> bool:
    """Have the C library keep the memory of read and write buffers; whether it can (mallopt(3)).

    By default glibc maps blocks of some hundred kilobytes anew and gives them back at once, and
    each page then costs a fault: at 1 KiB a message that is half of all (benchmarks/compare, a1k).
    """
    set_option = library_function("mallopt")
    if set_option is None:
        return False
    return bool(
        set_option(M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)
        and set_option(M_TRIM_THRESHOLD, KEPT_BYTES_MAX)
    )


def library_function(name: str) -> Callable[..., int] | None:
    """Return a function of the C library, if it has it."""
    import ctypes  # noqa: PLC0415  slow to import, and not wanted in every process

    function: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None)
    return function
