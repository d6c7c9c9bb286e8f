"""Ready list of a delayed queue: what is due first is first, and no consumer is handed any message.

    put, due at t -----------------------------> due index --> expired, in the order of time
    found in the log, none of a stretch is due before t --> when t has come: read what is due when

A message is a number and a time here, and no more: its content is in the log until it is due.  Of
those that were there when this was made not even that is known before it has to be: so to begin
costs as little as with any other queue.

The due index has numbers in the order of their times, and of one time in that of their arrival:

    comes one by one ---> leaves, in order: its place is looked for, and a few kilobytes are moved
    found many at once -> a row of its own, sorted; a heap says which is next

Sixteen octets a number, in two arrays.  No call takes longer because there are many.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from typing import NamedTuple, NoReturn, Protocol, TypeAlias

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.byte_count import Sizes
from fluffle.broker.queues.expiry_times import INSTANT_MS, NEVER_MS, Deadlines, Expiries
from fluffle.broker.queues.journal import Journal, RecoveredContent
from fluffle.broker.queues.queue_view import ReadyMessages
from fluffle.broker.queues.ready_list import NO_MESSAGE, SequenceNumbers
from fluffle.broker.queues.requeue import RequeueByPosition, RequeuedBatch
from fluffle.broker.queues.segment import TakenMessages, on_disk_only, unread_ones

LEAF = 1024

TAKEN_MAX, LOOKED_MAX = 16, 1024
"""Messages that are taken off together, and those that are looked at together of which it is not
known yet when they are due.  A queue does either several times a turn: each that is taken off is
handed on soon, and that costs fifty times what it costs to look at one."""

FIRST_LOOKED_MAX = 8
"""Stretches of which it is looked together when the first of each is due."""


class Leaf:
    """Some numbers that follow on each other in time."""

    __slots__ = ("numbers", "times_ms")

    def __init__(self, times_ms: array[int], numbers: array[int]) -> None:
        self.times_ms = times_ms
        self.numbers = numbers

    def parted(self, at: int) -> Leaf:
        """Split the leaf at `at` and return the part behind it."""
        behind = Leaf(self.times_ms[at:], self.numbers[at:])
        del self.times_ms[at:], self.numbers[at:]
        return behind


Row: TypeAlias = "tuple[int, int, array[int], array[int]]"
"""When the next is due and its number; and the same of all others, the last of them in front."""


class DueIndex:
    """Index of the due times of one queue."""

    __slots__ = ("_lasts_ms", "_leaves", "_rows", "count")

    def __init__(self) -> None:
        self._leaves: list[Leaf] = []
        """None is empty."""
        self._lasts_ms: list[int] = []
        """The last time of each leaf."""
        self._rows: list[Row] = []
        """A heap."""
        self.count = 0
        """How many numbers there are."""

    @property
    def due_ms(self) -> int:
        """When the first is due; `NEVER_MS` if there is none."""
        first_ms = self._leaves[0].times_ms[0] if self._leaves else NEVER_MS
        return min(first_ms, self._rows[0][0]) if self._rows else first_ms

    def add(self, due_ms: int, numbers: Sequence[int]) -> None:
        """These are due then, one behind the other, behind those that are due then already."""
        for start in range(0, len(numbers), LEAF):
            self._add(due_ms, array("Q", numbers[start : start + LEAF]))
        self.count += len(numbers)

    def _add(self, due_ms: int, numbers: array[int]) -> None:
        times_ms = array("Q", (due_ms,)) * len(numbers)
        at = bisect_right(self._lasts_ms, due_ms)
        if at < len(self._leaves):
            leaf = self._leaves[at]
            place = bisect_right(leaf.times_ms, due_ms)
            leaf.times_ms[place:place] = times_ms
            leaf.numbers[place:place] = numbers
        elif self._leaves and len(self._leaves[-1].numbers) + len(numbers) <= LEAF:
            at, leaf = at - 1, self._leaves[-1]
            leaf.times_ms += times_ms
            leaf.numbers += numbers
            self._lasts_ms[at] = due_ms
        else:
            self._leaves.append(Leaf(times_ms, numbers))
            self._lasts_ms.append(due_ms)
            return
        if len(leaf.numbers) > LEAF:
            self._leaves.insert(at + 1, leaf.parted(len(leaf.numbers) // 2))
            self._lasts_ms.insert(at, leaf.times_ms[-1])

    def add_found(self, times_ms: Expiries, numbers: Sequence[int]) -> None:
        """Each of these is due at its time, in front of all that was added one by one.

        The numbers rise, and some are found together, for each such row is looked at alone."""
        last_first = sorted(range(len(numbers) - 1, -1, -1), key=times_ms.__getitem__, reverse=True)
        own_ms = array("Q", map(times_ms.__getitem__, last_first))
        own = array("Q", map(numbers.__getitem__, last_first))
        if own:
            heappush(self._rows, (own_ms.pop(), own.pop(), own_ms, own))
        self.count += len(numbers)

    def take(self, until_ms: int, most: int) -> list[int]:
        """The first numbers that are due until then, at most so many; they are here no more."""
        taken: list[int] = []
        while self._rows and self._rows[0][0] <= until_ms and len(taken) < most:
            before_ms = self._rows[0][0] - 1
            taken += self._take_from_leaves(before_ms, most - len(taken))
            if len(taken) < most:
                taken.append(self._take_from_row())
        taken += self._take_from_leaves(until_ms, most - len(taken))
        self.count -= len(taken)
        return taken

    def _take_from_row(self) -> int:
        _due_ms, number, times_ms, numbers = self._rows[0]
        if numbers:
            heapreplace(self._rows, (times_ms.pop(), numbers.pop(), times_ms, numbers))
        else:
            heappop(self._rows)
        return number

    def _take_from_leaves(self, until_ms: int, most: int) -> list[int]:
        taken: list[int] = []
        while self._leaves and len(taken) < most:
            leaf = self._leaves[0]
            stop = min(bisect_right(leaf.times_ms, until_ms), most - len(taken))
            taken += leaf.numbers[:stop]
            del leaf.times_ms[:stop], leaf.numbers[:stop]
            if leaf.numbers:
                break
            del self._leaves[0], self._lasts_ms[0]
        return taken


class DueTimes(Protocol):
    """Due times of messages that are in the log."""

    def earliest_ms(self, first: int, stop: int) -> int:
        """None from one number up to another is due before."""

    def ready_within(self, first: int, stop: int) -> Iterator[range]:
        """Runs of consecutive ready numbers from `first` up to, not including, `stop`."""

    def expiries_of(self, run: range) -> Expiries | None:
        """When each of these is due."""


class UndatedRun(NamedTuple):
    """Messages of which it is not known yet when each is due."""

    due_ms: int
    """Earliest due time; 0: not known."""
    first: int
    stop: int


class DelayedReadyList:
    """Used like a `ReadyList`, by a queue that has neither consumers nor a limit."""

    damage = byte_count = None
    """Always None: no contents are read here, and no bytes are counted."""
    is_timed = True

    __slots__ = (
        "_agenda", "_cleared_to", "_due_count", "_due_max", "_dues", "_journal", "_stretches",
        "_taken", "count", "new_from", "now_ms", "numbers",
    )  # fmt: skip

    def __init__(
        self, journal: Journal, dues: DueTimes, due_count: Callable[[], int], due_max: int
    ) -> None:
        """`due_count`: how many are due that have not arrived, for they are kept elsewhere until
        then.  Once there are `due_max` no others are due, and their keeper pumps the queue
        when there are fewer."""
        self._journal = journal
        self._dues = dues
        self._due_count = due_count
        self._due_max = due_max
        self._agenda = DueIndex()
        self._stretches: list[UndatedRun] = []
        """A heap."""
        self._taken = deque[int](maxlen=due_max + TAKEN_MAX)
        """Messages that were taken off last: of these it may not be on record yet."""
        self._cleared_to = 0
        """Messages with lower numbers were cleared or taken off, which may not be on record yet."""
        self.numbers = SequenceNumbers()
        self.count = 0
        self.now_ms = 0
        self.new_from = NO_MESSAGE

    def recover(self, recovery: RecoveredContent) -> None:
        """Begin with what the journal holds; there must be nothing yet."""
        self.numbers.next = recovery.next_sequence
        self._stretches = [
            UndatedRun(each.earliest_ms, each.first, each.stop) for each in recovery.stored
        ]
        heapify(self._stretches)
        self.count = sum(each.count for each in recovery.stored)

    def put(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        is_recorded: bool,
        expires_at_ms: Deadlines,
        size_bytes: int | None,
    ) -> None:
        """Messages come in that are due then; at once, if that is 0."""
        assert is_recorded, "a delayed queue is replicated"
        assert size_bytes is None, "it has no limit"
        first, due_ms = self.numbers.next, expires_at_ms or INSTANT_MS
        self.numbers.next = first + len(contents)
        self._journal.enqueued(
            origins, contents, content_bytes, first, apart=False, expires_at_ms=due_ms
        )
        if isinstance(due_ms, int):
            self._agenda.add(due_ms, range(first, self.numbers.next))
        else:
            for number, its_due_ms in enumerate(due_ms.expiries, first):
                self._agenda.add(its_due_ms, (number,))
        self.count += len(contents)

    @property
    def due_ms(self) -> int:
        """When the next is due, or some time before that; `NEVER_MS` while there is no room."""
        if self._due_count() >= self._due_max:
            return NEVER_MS
        return min(self._agenda.due_ms, self._unknown_ms)

    @property
    def _unknown_ms(self) -> int:
        """No message is due before of which that is not known."""
        return self._stretches[0].due_ms if self._stretches else NEVER_MS

    def expire(self, *, are_read: bool) -> TakenMessages | None:
        """Take off messages that are due; none, if it has to be read first which are, and None if
        there are none."""
        del are_read
        if self.due_ms > self.now_ms:
            return None
        if self._unknown_ms <= self._agenda.due_ms:
            self._look()
            return unread_ones(())
        until_ms = min(self.now_ms, self._unknown_ms - 1)
        taken = self._agenda.take(until_ms, TAKEN_MAX)
        self.count -= len(taken)
        self._taken += taken
        return unread_ones(taken)

    def _look(self) -> None:
        """When are the first messages due of the next stretch?"""
        if not self._stretches[0].due_ms:
            self._look_at_first()
            return
        none_before_ms, first, stop = heappop(self._stretches)
        times_ms, numbers = array("Q"), array("Q")
        for run in self._dues.ready_within(first, stop):
            looked_at = run[: LOOKED_MAX - len(numbers)]
            expiries = self._dues.expiries_of(looked_at)
            assert expiries is not None, "each has a time"
            times_ms += expiries
            numbers.extend(looked_at)
            if len(numbers) == LOOKED_MAX:
                heappush(self._stretches, UndatedRun(none_before_ms, looked_at.stop, stop))
                break
        self._agenda.add_found(times_ms, numbers)

    def _look_at_first(self) -> None:
        """When is the first message due of some stretches?"""
        for _ in range(FIRST_LOOKED_MAX):
            due_ms, first, stop = self._stretches[0]
            if due_ms:
                break
            due_ms = self._dues.earliest_ms(first, stop)
            heapreplace(self._stretches, UndatedRun(due_ms, first, stop))

    def clear(self) -> int:
        """Forget every message; how many there were."""
        dropped, self.count = self.count, 0
        self._agenda, self._stretches = DueIndex(), []
        first, self._cleared_to = self._cleared_to, self.numbers.next
        taken = sorted(number for number in self._taken if number >= first)
        for number in (*taken, self.numbers.next):
            if first < number:
                self._journal.discarded(first, number)
            first = number + 1
        return dropped

    def shed(self) -> bool:
        """Page nothing out: all of it stays in memory."""
        return True

    @property
    def stocks(self) -> list[ReadyMessages]:
        """All ready messages, in the order of the log, which is that of publishing."""
        segments = map(on_disk_only, self._journal.recover().stored)
        return [ReadyMessages(RequeueByPosition(), segments, 0, None, self._journal, None)]

    @property
    def unseen(self) -> list[tuple[int, int]]:
        """Always empty: a delayed queue delivers to no consumer."""
        return []

    def count_bytes_by(self, sizes: Sizes | None) -> None:
        """No limit counts in bytes."""
        assert sizes is None, "a delayed queue has no limit"

    # Not asked of a delayed queue

    def available(self, bytes_max: int) -> int:
        """None is handed out."""
        del bytes_max
        return 0

    def take(self, count: int) -> NoReturn:
        raise AssertionError(f"no consumer takes {count} messages from a delayed queue")

    def ahead(self, count: int) -> NoReturn:
        raise AssertionError(f"no consumer asks for the next {count} messages of a delayed queue")

    def give_back(self, batch: RequeuedBatch) -> NoReturn:
        raise AssertionError(f"{batch.sequences} were handed out by a delayed queue")
