"""The lane of a calendar: who is due first is first, whenever it came, and nobody is handed any.

    put, due at t ------------------------------> agenda --> expired, in the order of time
    found in the log, none of a stretch is due before t --> when t has come: read what is due when

A message is a number and a time here, and no more: its content is in the log until it is due.  Of
those that were there when this was made not even that is known before it has to be: so to begin
costs as little as with any other queue.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import NamedTuple, NoReturn, Protocol

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.due_index import DueIndex
from fluffle.broker.queues.expiry_times import INSTANT_MS, NEVER_MS, Deadlines, Expiries
from fluffle.broker.queues.journal import Journal, Recovery
from fluffle.broker.queues.limits import Sizes
from fluffle.broker.queues.priorities import SequenceNumbers
from fluffle.broker.queues.queue_view import ReadyMessages
from fluffle.broker.queues.ready_list import NO_MESSAGE
from fluffle.broker.queues.requeue import RequeueByPosition, RequeuedRun
from fluffle.broker.queues.segment import TakenMessages, on_disk_only, unread_ones

TAKEN_MAX, LOOKED_MAX = 16, 1024
"""Messages that are taken off together, and those that are looked at together of which it is not
known yet when they are due.  A queue does either several times a turn: each that is taken off is
handed on soon, and that costs fifty times what it costs to look at one."""


FIRST_LOOKED_MAX = 8
"""Stretches of which it is looked together when the first of each is due."""


class DueTimes(Protocol):
    """Due times of messages that are in the log."""

    def earliest_ms(self, first: int, stop: int) -> int:
        """None from one number up to another is due before."""

    def ready_within(self, first: int, stop: int) -> Iterator[range]:
        """Those from one number up to another, in runs."""

    def expiries_of(self, run: range) -> Expiries | None:
        """When each of these is due."""


class Stretch(NamedTuple):
    """Messages of which it is not known yet when each is due."""

    due_ms: int
    """None is before; 0: nobody has looked."""
    first: int
    stop: int


class DelayedReadyList:
    """Used like a `ReadyList`, by a queue that has neither consumers nor a limit."""

    damage = scale = None
    """It reads no contents, and nobody asks how many bytes wait."""
    is_timed = True

    __slots__ = (
        "_agenda", "_cleared_to", "_due_count", "_due_max", "_dues", "_journal", "_stretches",
        "_taken", "count", "new_from", "now_ms", "numbers",
    )  # fmt: skip

    def __init__(
        self, journal: Journal, dues: DueTimes, due_count: Callable[[], int], due_max: int
    ) -> None:
        """`due_count`: how many are due that have not arrived, for they are kept elsewhere until
        then.  Once there are `due_max` no others are due, and whoever keeps them pumps the queue
        when there are fewer."""
        self._journal = journal
        self._dues = dues
        self._due_count = due_count
        self._due_max = due_max
        self._agenda = DueIndex()
        self._stretches: list[Stretch] = []
        """A heap."""
        self._taken = deque[int](maxlen=due_max + TAKEN_MAX)
        """Messages that were taken off last: of these it may not be on record yet."""
        self._cleared_to = 0
        """Messages with lower numbers were cleared or taken off, which may not be on record yet."""
        self.numbers = SequenceNumbers()
        self.count = 0
        self.now_ms = 0
        self.new_from = NO_MESSAGE

    def recover(self, recovery: Recovery) -> None:
        """Begin with what the journal holds; there must be nothing yet."""
        self.numbers.next = recovery.next_sequence
        self._stretches = [
            Stretch(each.earliest_ms, each.first, each.stop) for each in recovery.stored
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
        assert is_recorded, "a calendar is replicated"
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
                heappush(self._stretches, Stretch(none_before_ms, looked_at.stop, stop))
                break
        self._agenda.add_found(times_ms, numbers)

    def _look_at_first(self) -> None:
        """When is the first message due of some stretches?"""
        for _ in range(FIRST_LOOKED_MAX):
            due_ms, first, stop = self._stretches[0]
            if due_ms:
                break
            due_ms = self._dues.earliest_ms(first, stop)
            heapreplace(self._stretches, Stretch(due_ms, first, stop))

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
        """There is nothing in memory that may leave it."""
        return True

    @property
    def stocks(self) -> list[ReadyMessages]:
        """As they were published, for that is how they lie in the log."""
        segments = map(on_disk_only, self._journal.recover().stored)
        return [ReadyMessages(RequeueByPosition(), segments, 0, None, self._journal, None)]

    @property
    def unseen(self) -> list[tuple[int, int]]:
        """Of no use where nobody is handed anything."""
        return []

    def weigh_by(self, sizes: Sizes | None) -> None:
        """No limit counts in bytes."""
        assert sizes is None, "a calendar has no limit"

    # What nobody asks of it

    def available(self, bytes_max: int) -> int:
        """None is handed out."""
        del bytes_max
        return 0

    def take(self, count: int) -> NoReturn:
        raise AssertionError(f"nobody takes {count} messages from a calendar")

    def ahead(self, count: int) -> NoReturn:
        raise AssertionError(f"nobody asks for the next {count} messages of a calendar")

    def drop_damaged(self) -> NoReturn:
        raise AssertionError("a calendar reads nothing that could be damaged")

    def give_back(self, run: RequeuedRun) -> NoReturn:
        raise AssertionError(f"{run.sequences} were handed out by a calendar")
