"""Requeued messages: the order in which they are handed out again, and the delay before that.

They come before all that is ready; in a classic queue with priorities, before all of the same
priority: there each ready list has a `RequeueOrder`, while a quorum queue has one for all.

What a settlement gives back comes in the order of its delivery tags (`core.settlement`), a
`RequeuedBatch` for each stretch: `Queue.settle` gives it to `ReadyList.give_back`, which adds it to
the order of the queue; so does what was delayed, once it waits no more.

- `RequeueByPosition` is RabbitMQ's order for classic queues: each message is back in its place.
  `ReadyList` has it unless it is given another.
- `RequeueFifo` is its order for quorum queues: what came back first is first.  `quorum.leadership`
  chooses it.

A quorum queue has the second in its replicated state, too, for the next leader; what changes it
here changes it there.  `quorum.runs.MarkedRuns` keeps it: `quorum.state.on_requeued` and, after a
delay, `on_delay_elapsed` add to it, `quorum.snapshot` writes it, `quorum.log_journal.recover` makes
a ready list of it, and `priority_ready_list.parted` takes it along when a queue comes to have
priorities.

With delayed retry they wait first: neither held nor ready.  What came back together waits
together, so that costs per run, not per message.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from heapq import heappop, heappush, heapreplace
from typing import NamedTuple, Protocol, TypeAlias

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import DURATION_MS_MAX
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.expiry_times import NEVER_MS, Expiries, due_count, part_of, undue_count
from fluffle.broker.queues.settings import DelayedRetry, QueueSettings

FETCH_MESSAGES_MAX = 256
FETCH_BYTES_MAX = 1_048_576
"""No more are read from disk at once, but one message at least."""
UNLIMITED_BYTES = 1 << 62


@dataclass(slots=True, eq=False)
class RequeuedBatch:
    """Messages that came back together, in rising sequence; read from `head` on."""

    origins: list[Origin]
    contents: list[bytes]
    """Invariant: one a message, or none while they are on disk only."""
    sequences: Sequence[int]
    _: KW_ONLY
    counts: Counts = NEW
    """Delivery counts of each of them, this requeue included."""
    is_recorded: bool = False
    expiries: Expiries | None = None
    """None if none of them ever expires."""
    head: int = 0
    weighed_from: int = 0
    """The bytes of those in front of it are not counted, where bytes that wait are."""

    @property
    def oldest(self) -> int:
        return self.sequences[self.head]

    def copied(self) -> RequeuedBatch:
        """The same messages, to look at only."""
        copy = RequeuedBatch(
            self.origins,
            self.contents,
            self.sequences,
            counts=self.counts,
            is_recorded=self.is_recorded,
            expiries=self.expiries,
        )
        copy.head = self.head
        return copy

    def skipped(self, count: int) -> int:
        """Leave out the next ones, at most `count`; how many those are."""
        skipped = min(count, len(self.sequences) - self.head)
        if self.contents:
            self.head += skipped
        else:
            self.sequences = self.sequences[skipped:]
            self.expiries = part_of(self.expiries, slice(skipped, None))
        return skipped

    def undue_count(self, count: int, now_ms: int) -> int:
        """How many of the next `count` have not expired, one behind the other."""
        if self.expiries is None:
            return count
        return undue_count(self.expiries, self.head, self.head + count, now_ms)

    def due_count(self, count: int, now_ms: int) -> int:
        """How many have."""
        if self.expiries is None:
            return 0
        return due_count(self.expiries, self.head, self.head + count, now_ms)

    @property
    def due_ms(self) -> int:
        """When the next one expires."""
        return NEVER_MS if self.expiries is None else self.expiries[self.head]

    def __lt__(self, other: RequeuedBatch) -> bool:
        return self.oldest < other.oldest


class RequeueOrder(Protocol):
    """Requeued messages of a queue, in the order of their redelivery."""

    @property
    def batches(self) -> Sequence[RequeuedBatch]:
        """All there is, the one first that has the next message; empty if there is nothing."""

    def add(self, batch: RequeuedBatch) -> None:
        """Messages come back."""

    def available(self) -> int:
        """Return how many `take` gives at most, if there is any.  Raises `UnreadableMessages`."""

    def take(self, count: int) -> tuple[RequeuedBatch, int, int]:
        """Some of the next ones, at most `count`: a batch, and from where to where in it."""

    def read_last(self, batch: RequeuedBatch, start: int, stop: int, bytes_max: int) -> list[bytes]:
        """Contents of a batch that are not taken, the last one first: those that make up
        `bytes_max` bytes, or all.  It stays where it is.  Raises `UnreadableMessages`."""

    def clear(self) -> None:
        """Forget all."""

    def behind(self, count: int) -> RequeueOrder:
        """The same without the first `count`, to look at only: nothing is taken by it."""


class RequeueByPosition:
    """Each goes back to its original place, so that the oldest is next."""

    __slots__ = ("batches",)

    def __init__(self) -> None:
        self.batches: list[RequeuedBatch] = []
        """A heap.  All have contents."""

    def add(self, batch: RequeuedBatch) -> None:
        assert batch.contents, f"messages {batch.sequences} came back without their contents"
        heappush(self.batches, batch)

    def available(self) -> int:
        """How many messages of the foremost batch are older than those of every other."""
        batch, rivals = self.batches[0], self.batches[1:3]
        stop = len(batch.contents)
        if rivals:
            stop = bisect_left(batch.sequences, min(rivals).oldest, lo=batch.head)
        return stop - batch.head

    def take(self, count: int) -> tuple[RequeuedBatch, int, int]:
        batch = self.batches[0]
        start = batch.head
        stop = batch.head = start + min(count, self.available())
        if stop < len(batch.contents):
            heapreplace(self.batches, batch)
        else:
            heappop(self.batches)
        return batch, start, stop

    def read_last(self, batch: RequeuedBatch, start: int, stop: int, bytes_max: int) -> list[bytes]:
        del bytes_max
        return batch.contents[start:stop][::-1]

    def clear(self) -> None:
        self.batches.clear()

    def behind(self, count: int) -> RequeueByPosition:
        copy = RequeueByPosition()
        copy.batches = [batch.copied() for batch in self.batches]
        while count and copy.batches:
            _run, start, stop = copy.take(count)
            count -= stop - start
        return copy


class Fetch(Protocol):
    """Reads messages from disk."""

    def __call__(
        self, sequences: Sequence[int], bytes_max: int = UNLIMITED_BYTES
    ) -> tuple[list[Origin], list[bytes]]:
        """Fetch one origin and one content a number, for the first numbers that make up `bytes_max`
        bytes, or for all.  Raises `UnreadableMessages`."""


NO_BATCHES: deque[RequeuedBatch] = deque()
"""Never changed: a deque of one's own takes 600 bytes."""


class RequeueFifo:
    """Order of requeueing: the first requeued is next, whatever its age; some may still be on
    disk."""

    __slots__ = ("_fetch", "batches")

    def __init__(self, fetch: Fetch) -> None:
        self.batches = NO_BATCHES
        self._fetch = fetch

    def add(self, batch: RequeuedBatch) -> None:
        if self.batches is NO_BATCHES:
            self.batches = deque()
        self.batches.append(batch)  # mutant: P3

    def available(self) -> int:
        batch = self.batches[0]
        if not batch.contents:
            batch = self._front_in_memory()
        return len(batch.contents) - batch.head

    def _front_in_memory(self) -> RequeuedBatch:
        """The foremost batch, or as much of it as is read at once."""
        batch = self.batches[0]
        wanted = batch.sequences[:FETCH_MESSAGES_MAX]
        batch.origins, batch.contents = self._fetch(wanted, FETCH_BYTES_MAX)
        first, rest = slice(len(batch.contents)), slice(len(batch.contents), None)
        if batch.sequences[rest]:
            behind = RequeuedBatch(
                [],
                [],
                batch.sequences[rest],
                counts=batch.counts,
                is_recorded=batch.is_recorded,
                expiries=part_of(batch.expiries, rest),
            )
            behind.weighed_from = max(0, batch.weighed_from - len(batch.contents))
            batch.weighed_from = min(batch.weighed_from, len(batch.contents))
            self.batches.insert(1, behind)
            batch.sequences = batch.sequences[first]
            batch.expiries = part_of(batch.expiries, first)
        return batch

    def take(self, count: int) -> tuple[RequeuedBatch, int, int]:
        batch = self.batches[0]
        start = batch.head
        stop = batch.head = start + min(count, self.available())
        if stop == len(batch.contents):
            self.batches.popleft()
        return batch, start, stop

    def read_last(self, batch: RequeuedBatch, start: int, stop: int, bytes_max: int) -> list[bytes]:
        if batch.contents:
            return batch.contents[start:stop][::-1]
        return self._fetch(batch.sequences[start:stop][::-1], bytes_max)[1]

    def clear(self) -> None:
        self.batches = NO_BATCHES

    def behind(self, count: int) -> RequeueFifo:
        copy = RequeueFifo(self._fetch)
        for batch in self.batches:
            copied = batch.copied()
            count -= copied.skipped(count)
            if len(copied.sequences) > copied.head:
                copy.add(copied)
        return copy


Messages: TypeAlias = tuple[list[Origin], list[bytes]]


class DelayedRun(NamedTuple):
    """Requeued messages of one run, with the time at which they are ready again."""

    ready_at_ms: int
    number: int
    """Order of requeueing, by which runs due at the same moment are sorted."""
    run: range
    """Sequence numbers of the messages."""
    back: RequeuedBatch
    """The same, as they go back; on disk only, unless they cannot be read yet."""


class DelayedRetries:
    """Requeued messages of one queue that wait for their delay to end."""

    __slots__ = ("_heap", "_next_number", "_on_matured", "count")

    def __init__(self, on_matured: Callable[[list[range]], None]) -> None:
        """`on_matured` gets the messages that are ready, in the order in which they are so."""
        self._on_matured = on_matured
        self.count = 0
        """How many messages wait."""
        self._heap: list[DelayedRun] = []
        self._next_number = 0

    @property
    def due_ms(self) -> int:
        """When the first of them are ready."""
        return self._heap[0].ready_at_ms if self._heap else NEVER_MS

    def add(
        self,
        run: range,
        counts: Counts,
        ready_at_ms: int,
        expiries: Expiries | None,
        messages: Messages | None = None,
    ) -> None:
        """Messages are to wait; `messages`: with these contents, for they cannot be read yet."""
        kept = messages or ([], [])
        # mutant: WA1
        back = RequeuedBatch(*kept, run, counts=counts, is_recorded=True, expiries=expiries)
        heappush(self._heap, DelayedRun(ready_at_ms, self._next_number, run, back))
        self._next_number += 1  # mutant: WA2
        self.count += len(run)  # mutant: WA3

    def mature(self, give_back: Callable[[RequeuedBatch], None], now_ms: int) -> None:
        """Make the runs ready again whose delay is over."""
        runs = []
        while self.due_ms <= now_ms:  # mutant: WA4 WA5
            _at, _number, run, back = heappop(self._heap)
            self.count -= len(run)  # mutant: WA6
            runs.append(run)  # mutant: WA7
            give_back(back)
        if runs:
            self._on_matured(runs)  # mutant: C3

    def clear(self) -> list[range]:
        """Forget all; which those were."""
        runs = [delayed.run for delayed in self._heap]
        self._heap.clear()  # mutant: WA8
        self.count = 0
        return runs


NO_DELAYS = DelayedRetries(lambda _runs: None)
"""Delays of queues that delay nothing; a shared object."""


def delay_ms(settings: QueueSettings, counts: Counts, *, is_failure: bool) -> int:
    """How long messages wait that come back with these counts; 0: they do not.

    RabbitMQ 4.3: as long again for each time that handing them out has failed, up to a maximum; and
    no longer than its timers can be set for, whatever is said.
    """
    least_ms = settings.delayed_retry_min_ms
    wanted = {
        DelayedRetry.DISABLED: False,
        DelayedRetry.ALL: True,
        DelayedRetry.FAILED: is_failure,
        DelayedRetry.RETURNED: not is_failure,
    }
    if least_ms is None or not wanted[settings.delayed_retry]:
        return 0
    most_ms = settings.delayed_retry_max_ms
    most_ms = min(least_ms if most_ms is None else most_ms, DURATION_MS_MAX)
    return min(least_ms * max(1, counts.failed), most_ms)
