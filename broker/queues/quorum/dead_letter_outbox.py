"""The dead that must arrive: at-least-once dead-lettering, of one leadership.

    on record as dead --> waiting --> under way --> has arrived --> DeadLettered
                                        |     ^
                                        v     |  after a pause if a queue refuses it or it leads
                                      tried again: nowhere, after long without an answer

They stay in the queue until all queues have them that they lead to, so they count for its length,
and a purge takes them.  So many are under way that their targets have enough for a commit.  Of
those that wait only the numbers are known: contents are read from the log for each try, whatever
the backlog is.

A next leader finds those on record whose arrival is not, and begins with them anew: to a classic
queue they may come twice, and are the same then; a quorum queue knows their
numbers (`DeadLetterDedup`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import NamedTuple

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.dead_letters import DeadMessages, PendingDeadLetter, RepublishDeadLetters
from fluffle.broker.queues.delivery_counts import Counts, brought_along
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import UnreadableMessages
from fluffle.broker.queues.publish_target import DeadLetterIds
from fluffle.broker.queues.quorum.facts import DEATH_REASONS, DeadLettered, Purged, RemovalReason
from fluffle.broker.queues.quorum.log_journal import EntryReader, LogJournal
from fluffle.broker.queues.quorum.proposals import DeadLetterEffect, EntryBuilder, QueueTime
from fluffle.broker.queues.quorum.runs import runs_of
from fluffle.broker.queues.settings import DeadLetterStrategy

UNDER_WAY_MAX = 512
"""RabbitMQ's dead_letter_worker_consumer_prefetch is 32: each of its commits is of so few
(`benchmarks.dead_letters`)."""
UNDER_WAY_BYTES_MAX = 1 << 20
"""Or one message of more."""

TURN_MAX = 128
"""So many are sent in one turn, for some milliseconds: each may have to be read from an entry of
its own, and may arrive at once."""

CONFIRM_TIMEOUT_MS = 180_000
"""Time in ms after which an unconfirmed dead letter is published again: RabbitMQ's
dead_letter_worker_publisher_confirm_timeout."""

NOTIFIED_MAX = 128
"""Queues that hear which of those that they have are kept no more: maybe some are deleted."""

PAUSE_MS, PAUSES_MAX = 250, 6
"""Before what was refused is tried again, if nothing happens before that may help; twice as long
each time, up to 16 s.  RabbitMQ waits as long as for those that say nothing."""


class UnconfirmedDeadLetter(NamedTuple):
    """Dead letter that was sent and is not confirmed, or is to be sent again."""

    sequence: int
    dead: DeadLetterEffect
    """The effect that it died with."""
    parcel: PendingDeadLetter
    size_bytes: int
    due_ms: int
    """When it is tried again."""


NOTHING_WAITS: deque[DeadLetterEffect] = deque()
"""Never changed: most queues have no such dead, and an empty deque takes 600 bytes."""


class DeadLetterOutbox:
    """Called from one thread.  Whoever `post`s is to be called again when it says so."""

    __slots__ = (
        "_arrived",
        "_builder",
        "_dead_letter",
        "_pending",
        "_queue",
        "_reading",
        "_source",
        "_time",
        "_touch",
        "_under_way",
        "_under_way_bytes",
        "_waiting_count",
        "confirm_timeout_ms",
        "is_idle",
        "under_decision",
        "waiting",
    )  # fmt: skip

    def __init__(
        self,
        queue: Queue,
        contents: LogJournal,
        builder: EntryBuilder,
        *,
        dead_letter: RepublishDeadLetters,
        source: tuple[int, int],
        time: QueueTime,
        touch: Callable[[], None],
        confirm_timeout_ms: int = CONFIRM_TIMEOUT_MS,
    ) -> None:
        """`source`: the group of this queue and the term in which it is led.  `touch` asks for
        `post`, once something has arrived."""
        self._queue = queue
        self._reading = EntryReader(contents)
        self._pending = contents.state.pending
        self._source = source
        self._arrived: dict[object, list[int]] = EMPTY_DICT
        """Sequence numbers that each target queue has confirmed and has not been allowed to forget
        yet, for the targets used last.  `DeadLetterIds.below` covers those that are not here any
        more."""
        self._builder = builder
        self._dead_letter = dead_letter
        self._time = time
        self._touch = touch
        self.confirm_timeout_ms = confirm_timeout_ms
        self.under_decision = 0
        """Messages that have died, and it is not on record yet."""
        self.is_idle = True
        """True if nothing waits or is under way, and nothing is remembered: `post` has nothing to
        do."""
        self.waiting: deque[DeadLetterEffect] = NOTHING_WAITS
        self._waiting_count = 0
        self._under_way: dict[int, UnconfirmedDeadLetter] = EMPTY_DICT
        """Unconfirmed dead letters by sequence number, no more than `UNDER_WAY_MAX`."""
        self._under_way_bytes = 0
        """Bytes of their contents."""

    @property
    def is_wanted(self) -> bool:
        """True if dead letters must arrive (at-least-once)."""
        return self._queue.settings.dead_letter_strategy is DeadLetterStrategy.AT_LEAST_ONCE

    @property
    def count(self) -> int:
        """Messages that are dead and kept."""
        return self.under_decision + self._waiting_count + len(self._under_way)

    def take(self, dead: DeadLetterEffect) -> None:
        """Messages are on record as dead; if they need not arrive any more they are gone, as with
        RabbitMQ."""
        self.under_decision -= len(dead.run)
        if not self.is_wanted:
            self._builder.add_fact(Purged([dead.run]))
            return
        if self.waiting is NOTHING_WAITS:
            self.waiting = deque()
        self.is_idle = False
        self.waiting.append(dead)  # mutant: OU4
        self._waiting_count += len(dead.run)

    def clear(self) -> None:
        """All that are on record are gone."""
        runs = runs_of(sorted(self._under_way)) + [dead.run for dead in self.waiting]
        if runs:
            self._builder.add_fact(Purged(runs))
        self._under_way.clear()
        self._under_way_bytes = 0
        self.waiting = NOTHING_WAITS
        self._waiting_count = 0

    def end(self) -> None:
        """Forget all of them: what becomes of those under way is the next leadership's."""
        self._under_way, self._arrived = EMPTY_DICT, EMPTY_DICT
        self.waiting = NOTHING_WAITS

    def settings_changed(self) -> None:
        """The queue goes by other settings: what has been refused may be taken now, or none of them
        is to arrive any more."""
        if not self.is_wanted:
            self.clear()
        self.hasten()

    def hasten(self) -> None:
        """Retry at once the messages that a target refused."""
        now_ms = self._time.now_ms()
        for sequence, way in self._under_way.items():
            if way.parcel.is_refused:
                self._under_way[sequence] = way._replace(due_ms=now_ms)
                self._touch()

    # Sending

    def post(self) -> None:
        """Send those that there is room for, and those that are due again."""
        if not (self.waiting or self._under_way):
            self._arrived.clear()
            self.is_idle = True
            return
        now_ms = self._time.now_ms()
        try:
            self._send_again(now_ms)
            left = TURN_MAX
            while self.waiting and self._has_room and left > 0:
                left -= self._send_next(now_ms, left)
        except UnreadableMessages:
            return  # the damage is reported already
        if not self.waiting:
            self._reading.forget()
        elif self._has_room:
            self._touch()
        if self._under_way:
            self._time.wake(self._queue, min(way.due_ms for way in self._under_way.values()))

    @property
    def _has_room(self) -> bool:
        is_full = len(self._under_way) >= UNDER_WAY_MAX
        return not is_full and self._under_way_bytes < UNDER_WAY_BYTES_MAX

    def _send_again(self, now_ms: int) -> None:
        """Publish again the messages whose timeout is over."""
        due = [way for way in self._under_way.values() if way.due_ms <= now_ms]  # mutant: R14f
        for _, alike in groupby(due, lambda way: _cause(way.dead)):
            ways = [way._replace(due_ms=now_ms + self.confirm_timeout_ms) for way in alike]
            self._send(ways, *self._reading.fetch([way.sequence for way in ways]))

    def _send_next(self, now_ms: int, most: int) -> int:
        """The first that wait, those that have died together or look so; how many those are."""
        dead, sequences = self.waiting[0], self._next(most)
        left_bytes = UNDER_WAY_BYTES_MAX - self._under_way_bytes
        origins, contents = self._reading.fetch(sequences, left_bytes)
        self._begin(len(contents))
        due_ms = now_ms + self.confirm_timeout_ms
        ways = [
            UnconfirmedDeadLetter(
                sequence,
                dead,
                PendingDeadLetter(partial(self._on_result, sequence), sequence),
                len(content),
                due_ms,
            )
            for sequence, content in zip(sequences, contents, strict=False)
        ]
        self._send(ways, origins, contents)
        return len(ways)

    def _next(self, most: int) -> list[int]:
        """The first that wait, so many or as many as may be under way, all of one cause."""
        sequences: list[int] = []
        room = min(most, UNDER_WAY_MAX - len(self._under_way))
        cause = _cause(self.waiting[0])
        for dead in self.waiting:
            if len(sequences) >= room or _cause(dead) != cause:
                break
            sequences += dead.run[: room - len(sequences)]
        return sequences

    def _begin(self, count: int) -> None:
        """Begin `count` of the waiting dead letters."""
        self._waiting_count -= count
        while count:
            dead = self.waiting.popleft()
            if len(dead.run) > count:
                self.waiting.appendleft(replace(dead, run=dead.run[count:]))  # mutant: OU3
            count -= min(count, len(dead.run))

    def _send(
        self, ways: list[UnconfirmedDeadLetter], origins: list[Origin], contents: list[bytes]
    ) -> None:
        """Some of one cause.  It may be known at once what becomes of them."""
        self._under_way_bytes += sum(
            way.size_bytes for way in ways if way.sequence not in self._under_way
        )
        if self._under_way is EMPTY_DICT:
            self._under_way = {}
        self._under_way |= {way.sequence: way for way in ways}
        dead, parcels = ways[0].dead, [way.parcel for way in ways]
        reason = DEATH_REASONS[dead.reason]
        died = DeadMessages(
            reason, origins, contents, dead.time_ms, counts_along(dead), QueueType.QUORUM, parcels,
            ids_for=self._ids_for,
        )  # fmt: skip
        self._dead_letter(self._queue.name, self._queue.settings, died)  # mutant: R14d

    def _ids_for(self, queue: object, parcels: list[PendingDeadLetter]) -> DeadLetterIds:
        """Ids for a target queue, from what is logged, not what is only decided: the next leader
        knows nothing else."""
        arrived, pending = self._arrived.pop(queue, []), self._pending
        settled = [sequence for sequence in arrived if sequence not in pending]
        if self._arrived is EMPTY_DICT:
            self._arrived = {}
        self._arrived[queue] = [sequence for sequence in arrived if sequence in pending]
        if len(self._arrived) > NOTIFIED_MAX:
            del self._arrived[next(iter(self._arrived))]
        below = pending.first or 0
        return DeadLetterIds(*self._source, below, settled, [parcel.sequence for parcel in parcels])

    def _on_result(self, sequence: int, *, is_there: bool) -> None:
        """Handle the result of a dead letter, which may have been purged meanwhile."""
        way = self._under_way.get(sequence)
        if way is None:
            return
        if is_there:  # mutant: OU1
            del self._under_way[sequence]
            self._under_way_bytes -= way.size_bytes
            self._builder.add_fact(DeadLettered([range(sequence, sequence + 1)]))  # mutant: OU2
            for queue in way.parcel.reached & self._arrived.keys():
                self._arrived[queue].append(sequence)
        else:
            pause_ms = PAUSE_MS << min(way.parcel.tries, PAUSES_MAX)
            self._under_way[sequence] = way._replace(
                due_ms=self._time.now_ms() + min(pause_ms, self.confirm_timeout_ms)
            )
        self._touch()


def counts_along(dead: DeadLetterEffect) -> Counts:
    """With which messages go on where they go."""
    return brought_along(dead.counts, is_rejected=dead.reason is RemovalReason.REJECTED)


def _cause(dead: DeadLetterEffect) -> tuple[RemovalReason, int, Counts]:
    """Key of the dead letters that are published together: reason, time in ms, counts."""
    return dead.reason, dead.time_ms, dead.counts
