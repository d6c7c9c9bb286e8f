"""Consumers and getters of a led queue: who they are for its engine, and what each holds.

This is what the leader has decided so far, and ahead of the image by what is not applied yet.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

from fluffle.broker.base.empty_dict import UNUSED
from fluffle.broker.queues.consumer_timeout import Late, Lost
from fluffle.broker.queues.consumers import Consumer, SharedCredit
from fluffle.broker.queues.delivery import Handout
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.quorum.consumer_terms import timeout_of
from fluffle.broker.queues.quorum.facts import ConsumerAttached, GetterAttached, Key
from fluffle.broker.queues.quorum.runs import Marked, runs_of, without

LEAVING_BYTES_MAX = 8 << 20
"""Of one queue."""

Room = Callable[[Key], int]
"""How many messages the edge of a consumer takes now; it wakes the consumer after a 0."""


class Edges(Protocol):
    """What edges make of what the engine does with their consumers."""

    @property
    def room(self) -> Room: ...

    def deliver(self, holder: Key, handout: Handout) -> None:
        """A consumer is handed messages."""

    def cancelled(self, holder: Key) -> None:
        """A consumer is not served any more, for the queue is gone or has crashed."""

    def overdue(self, holder: Key, late: Late) -> None:
        """See `Holder`."""

    def activity_changed(self, holder: Key, consumer: Consumer) -> None:
        """See `Sink`."""


@dataclass(frozen=True, slots=True)
class Gated:
    """The edges of a leadership."""

    room: Room
    overdue: Callable[[Key, Late], None]
    activity_changed: Callable[[Key, Consumer], None]

    def deliver(self, holder: Key, handout: Handout) -> None:
        raise AssertionError("a hand-out leaves through the gate")

    def cancelled(self, holder: Key) -> None:
        """Whoever deletes a queue tells its edges."""


class Getter:
    """Whoever holds what basic.get gave a channel."""

    __slots__ = ("_on_overdue", "no_ack", "queue")

    timeout_ms = None

    def __init__(
        self, queue: Queue, *, no_ack: bool, on_overdue: Callable[[Late], None] | None = None
    ) -> None:
        self.queue = queue
        self.no_ack = no_ack
        self._on_overdue = on_overdue
        """None for one that holds nothing."""

    def deliver(self, handout: Handout) -> None:
        raise AssertionError("what is got leaves with its answer")

    def took(self, handout: Handout) -> None:
        """Nothing limits it."""

    def settled(self, count: int) -> None:
        """Nothing waits for room."""

    def overdue(self, late: Late) -> None:
        assert self._on_overdue is not None
        self._on_overdue(late)

    def timed_out(self, lost: Lost) -> None:
        raise AssertionError("its edge is told")


class Leaving:
    """Contents that are handed out, and have not left for their edges.

    However many the consumers of a queue have room for, there is a limit to them.
    """

    __slots__ = ("_bytes", "_waiting")

    def __init__(self) -> None:
        self._bytes = 0
        self._waiting: dict[Consumer, None] = UNUSED

    def has_room(self, consumer: Consumer) -> bool:
        """Whoever finds none is woken when there is."""
        if self._bytes < LEAVING_BYTES_MAX:
            return True
        if self._waiting is UNUSED:
            self._waiting = {}
        self._waiting[consumer] = None
        return False

    def add(self, handout: Handout) -> None:
        self._bytes += handout.content_bytes

    def left(self, handout: Handout) -> None:
        """It is gone, or need not go."""
        self._bytes -= handout.content_bytes
        if self._waiting and self._bytes < LEAVING_BYTES_MAX:
            waiting, self._waiting = self._waiting, UNUSED
            for consumer in waiting:
                if consumer.parked:
                    consumer.queue.wake(consumer)


class Far:
    """The `Sink` of a consumer that is at an edge."""

    __slots__ = ("_edges", "_leaving", "key", "unnoted")

    def __init__(self, key: Key, edges: Edges, leaving: Leaving) -> None:
        self.key = key
        self._edges = edges
        self._leaving = leaving
        self.unnoted = 0
        """Messages that the engine has handed out, of which whoever tells the room knows nothing
        yet: it hands out more than once in a turn."""

    def room(self, consumer: Consumer) -> int:
        room = max(0, self._edges.room(self.key) - self.unnoted)
        return room if room and self._leaving.has_room(consumer) else 0

    def reserve(self, handout: Handout) -> None:
        self.unnoted += len(handout.sequences)
        self._leaving.add(handout)

    def deliver(self, handout: Handout) -> None:
        self._edges.deliver(self.key, handout)

    def cancelled(self, consumer: Consumer) -> None:
        self._edges.cancelled(self.key)

    def overdue(self, consumer: Consumer, late: Late) -> None:
        self._edges.overdue(self.key, late)

    def timed_out(self, consumer: Consumer, lost: Lost) -> None:
        raise AssertionError("its edge is told")

    def activity_changed(self, consumer: Consumer) -> None:
        self._edges.activity_changed(self.key, consumer)


class Part(NamedTuple):
    """Messages of a hand-out, from `start` up to, not including, `stop`."""

    run: range
    handout: Handout
    start: int
    stop: int


@dataclass(slots=True)
class Held:
    """One of them."""

    attached: ConsumerAttached | GetterAttached
    holder: Consumer | Getter
    is_detached: bool = False
    """Invariant: it holds something."""
    handouts: Marked[Handout] = field(default_factory=Marked)

    @property
    def session(self) -> Key:
        return self.attached.session

    def add(self, handout: Handout) -> None:
        for run in runs_of(handout.sequences):
            self.handouts.put(run, handout)
        self.note(handout)

    def note(self, handout: Handout) -> None:
        """It is held, or has left for a consumer that does not acknowledge: the room is less."""
        if isinstance(self.holder, Consumer):
            assert isinstance(self.holder.sink, Far)
            self.holder.sink.unnoted -= len(handout.sequences)

    def holding(self, run: range, ordinal: int) -> list[tuple[range, Handout]]:
        """What of a run is held under these tokens, in pieces of hand-outs."""
        return [
            (piece, handout)
            for piece, handout in self.handouts.found(run)
            if handout.counts.acquired == ordinal  # mutant: R5
        ]

    def take(self, run: range, ordinal: int) -> tuple[list[Part], list[range]]:
        """What of a run is held under these tokens, which it is no longer then; and what is not."""
        pieces = self.holding(run, ordinal)
        parts = [self._part(*piece) for piece in pieces]
        return parts, without(run, (part.run for part in parts))

    def take_all(self) -> list[Part]:
        """Everything, in the order in which it was handed out."""
        return [self._part(run, handout) for run, handout in list(self.handouts)]

    def take_of(self, handouts: Collection[Handout]) -> list[Part]:
        """What of these is held, in that order."""
        return [
            self._part(run, handout) for run, handout in list(self.handouts) if handout in handouts
        ]

    def _part(self, run: range, handout: Handout) -> Part:
        self.handouts.take(run)
        start = bisect_left(handout.sequences, run.start)
        return Part(run, handout, start, start + len(run))


class Holders:
    """All of a queue, by key; in the order in which they were attached."""

    __slots__ = ("_counts", "_edges", "_getters", "_held", "_leaving", "_queue")

    def __init__(self, queue: Queue, edges: Edges) -> None:
        self._held: dict[Key, Held] = UNUSED
        self._getters: dict[tuple[Key, int], Key] = UNUSED
        """By session and channel."""
        self._counts: dict[Key, int] = UNUSED
        """How many a session has."""
        self._queue = queue
        self._edges = edges
        self._leaving = Leaving()

    def left(self, handout: Handout) -> None:
        """Messages that consumers were handed are on their way, or need not be."""
        self._leaving.left(handout)

    def get(self, key: Key) -> Held | None:
        return self._held.get(key)

    def count_of(self, session: Key) -> int:
        """How many there are of a session."""
        return self._counts.get(session, 0)

    def of_session(self, session: Key) -> Iterator[Key]:
        return (key for key, held in list(self._held.items()) if held.session == session)

    def tokens_of(self, key: Key) -> list[tuple[int, range]]:
        """What somebody holds: ordinal, and which messages."""
        held = self._held[key].handouts
        return [(handout.counts.acquired, run) for run, handout in held]

    def key_of(self, handout: Handout) -> Key:
        """Of the consumer that the engine has handed messages."""
        holder = handout.holder
        assert isinstance(holder, Consumer)
        assert isinstance(holder.sink, Far)
        return holder.sink.key

    def add(
        self, attached: ConsumerAttached | GetterAttached, *, is_detached: bool = False
    ) -> Held:
        """Somebody is there; a consumer is not served before the engine has it."""
        holder: Consumer | Getter
        if isinstance(attached, GetterAttached):
            on_overdue = partial(self._edges.overdue, attached.key)
            holder = Getter(self._queue, no_ack=False, on_overdue=on_overdue)
        else:
            holder = Consumer(
                attached.tag,
                self._queue,
                Far(attached.key, self._edges, self._leaving),
                shared=SharedCredit(),
                prefetch=attached.prefetch,
                priority=attached.priority,  # mutant: C1
                no_ack=attached.no_ack,
                exclusive=attached.is_exclusive,
                timeout_ms=timeout_of(attached.arguments),
            )
        if self._held is UNUSED:
            self._held, self._getters, self._counts = {}, {}, {}
        held = self._held[attached.key] = Held(attached, holder)
        self._counts[held.session] = self.count_of(held.session) + 1
        if isinstance(holder, Getter) and not is_detached:
            self._getters[held.session, attached.channel] = attached.key
        held.is_detached = is_detached
        return held

    def getter(self, session: Key, channel: int) -> tuple[Key, Held] | None:
        """Whoever holds what this channel gets, if it has got something."""
        key = self._getters.get((session, channel))
        return (key, self._held[key]) if key is not None else None

    def wake(self, key: Key) -> None:
        """The edge of a consumer may have room again."""
        held = self._held.get(key)
        if held is not None and isinstance(held.holder, Consumer) and held.holder.parked:
            self._queue.wake(held.holder)

    def detach(self, key: Key) -> None:
        """It is served no more."""
        held = self._held[key]
        held.is_detached = True
        if isinstance(held.holder, Getter):
            del self._getters[held.session, held.attached.channel]  # mutant: LE5
        self.release(key)

    def release(self, key: Key) -> None:
        """Forget whoever is detached and holds nothing any more."""
        held = self._held.get(key)
        if held is not None and held.is_detached and not held.handouts:  # mutant: LE4
            del self._held[key]
            self._counts[held.session] -= 1
            if not self._counts[held.session]:
                del self._counts[held.session]
