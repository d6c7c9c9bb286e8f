"""`FaultyDisk`: the disk of a node, and what goes wrong with it.

Faults are of the machine, not of the process on it: they are still there after a restart, until
they are repaired.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from fluffle.broker.base.clock import CallLater, Timer
from fluffle.broker.testing.loop_thread import LoopBound
from fluffle.storage.disk import CommitResult, Disk, View, WriteTransaction
from fluffle.storage.errors import StorageError
from fluffle.storage.layout import Bytes, Table
from fluffle.storage.raft_log import GROWTH_SHARE, ROOM_BYTES_MIN
from fluffle.storage.store import Result, Writer

WaitUntilIdle = Callable[[], Awaitable[None]]

READ = (Table.HOT, Table.COLD)
"""Where entries of logs are."""

LEFT_BYTES = ROOM_BYTES_MIN // GROWTH_SHARE
"""On a full disk: nothing grows, and what makes room is still written."""


PATIENCE_S = 1.0
"""A disk that is slower than this is not waited for when time is to pass."""


class InjectedDiskError(StorageError):
    """Error of a commit that a test has asked for."""


class DiskFaults(LoopBound):
    """Faults of the disk of one machine: `cluster[0].disk`."""

    def __init__(self, look: Callable[[], None], wait_until_idle: WaitUntilIdle) -> None:
        """`look` has the node see that there is room, or none, without waiting for the next time
        that it looks; `wait_until_idle` waits until all that the cluster knows is on disks."""
        self._look = look
        self._wait_until_idle = wait_until_idle
        self.delay_s = 0.0
        self.is_full = False
        self.failure: InjectedDiskError | None = None
        """Error that each commit raises, or None."""
        self.damaged: dict[tuple[Table, bytes], int] = {}
        """Values of which a byte is not what was written: which byte."""
        self.disk: Disk | None = None
        """Open disk, or None."""

    async def slow(self, ms: float) -> None:
        """Delay each commit by so much."""
        self.delay_s = ms / 1_000

    async def full(self) -> None:
        """Leave no room: the node reports it, and publishers are held back if it is needed for a
        majority."""
        self.is_full = True
        self._look()

    async def fail(self) -> None:
        """Let the next commit fail, and all after it: the node ends."""
        self.failure = InjectedDiskError("a commit failed: the disk of this node was made to fail")

    async def corrupt(self, body: bytes | str) -> None:
        """A byte of each entry that holds this is not what was written.

        The node finds out when it reads one, at the latest when it is started again.  ValueError if
        there is none.
        """
        await self._wait_until_idle()
        sought = body.encode() if isinstance(body, str) else body
        if self.disk is None:
            raise ValueError("the node does not run")
        with self.disk.view() as view:
            read = ((table, item) for table in READ for item in view.scan(table, b"", None))
            places = {
                (table, bytes(key)): bytes(value).find(sought) for table, (key, value) in read
            }
        found = {place: at for place, at in places.items() if at >= 0}
        if not found:
            raise ValueError(f"no entry on this disk holds {body!r}")
        self.damaged.update(found)

    async def repair(self) -> None:
        """Repair the disk; what was corrupt is again what was written."""
        self.delay_s, self.is_full, self.failure = 0.0, False, None
        self.damaged.clear()
        self._look()


class FaultyDisk:
    """A `Disk` for one life of a process."""

    def __init__(self, disk: Disk, faults: DiskFaults) -> None:
        self._disk = disk
        self._faults = faults
        self.is_gone = False
        """Its process has been killed: what is not durable by now never is."""

    @property
    def room_bytes(self) -> int:
        if self._faults.is_full:
            with self._disk.view() as view:
                return view.used_bytes() + LEFT_BYTES
        return self._disk.room_bytes

    @property
    def commit_number(self) -> int:
        return self._disk.commit_number

    def look_for_room(self) -> None:
        self._disk.look_for_room()

    def view(self) -> AbstractContextManager[View]:
        return self._damaged_view() if self._faults.damaged else self._disk.view()

    @contextmanager
    def _damaged_view(self) -> Iterator[View]:
        with self._disk.view() as view:
            yield DamagedView(view, self._faults.damaged)

    def commit(self, work: WriteTransaction) -> CommitResult:
        if self.is_gone:
            raise InjectedDiskError("the process was killed")
        if self._faults.failure is not None:
            raise self._faults.failure
        outcome = self._disk.commit(work)
        for table, key in work.removes:
            self._faults.damaged.pop((table, key), None)
        for table, key, _value in work.puts:
            self._faults.damaged.pop((table, key), None)
        return outcome

    def close(self) -> None:
        self._disk.close()


class DamagedView:
    """A `View` of a disk that does not return all as it was written."""

    def __init__(self, view: View, damaged: dict[tuple[Table, bytes], int]) -> None:
        self._view = view
        self._damaged = damaged

    def get(self, table: Table, key: bytes) -> Bytes | None:
        value = self._view.get(table, key)
        return None if value is None else self._seen(table, key, value)

    def scan(self, table: Table, first: bytes, stop: bytes | None) -> Iterator[tuple[Bytes, Bytes]]:
        for key, value in self._view.scan(table, first, stop):
            yield key, self._seen(table, bytes(key), value)

    def _seen(self, table: Table, key: bytes, value: Bytes) -> Bytes:
        at = self._damaged.get((table, key))
        if at is None:
            return value
        seen = bytearray(value)
        seen[at] ^= 0x01
        return bytes(seen)

    def last_key(self, table: Table, stop: bytes | None) -> bytes | None:
        return self._view.last_key(table, stop)

    def used_bytes(self) -> int:
        return self._view.used_bytes()


class SlowWriter:
    """A `Writer` that waits before each commit for as long as the disk is slow."""

    def __init__(self, writer: Writer, faults: DiskFaults, call_later: CallLater) -> None:
        self._writer = writer
        self._faults = faults
        self._call_later = call_later
        self._waiting: tuple[Timer, WriteTransaction] | None = None

    def start(self, work: WriteTransaction) -> None:
        if not self._faults.delay_s:
            self._writer.start(work)
            return
        self._waiting = self._call_later(self._faults.delay_s, self._begin), work

    def _begin(self) -> None:
        assert self._waiting is not None
        (_timer, work), self._waiting = self._waiting, None
        self._writer.start(work)

    def take(self) -> Result | None:
        return self._writer.take()

    @property
    def is_stuck(self) -> bool:
        """True if it does nothing for so long that no call should wait for it."""
        return self._waiting is not None and self._faults.delay_s > PATIENCE_S

    def stop(self) -> None:
        """Return at once: closing the store waits for nothing."""
        if self._waiting is not None:
            self._waiting[0].cancel()
            self._begin()
        self._writer.stop()
