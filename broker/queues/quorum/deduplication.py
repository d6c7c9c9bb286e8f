"""Deduplication by the leader of a quorum queue: what it has on record for the next one.

Dead letters of other queues that must arrive are not taken again:

    they die there --> given here, with their numbers there --> Arrived, remembered here
                                ^                                    |
                                | again, by the same leader or       v
                                | the next one                   confirmed --> DeadLettered there
                                                                                     |
    ArrivalsKnown here, forgotten  <---------- said with what is given next <--------+

A queue has its own numbers for its dead, whoever leads it and however often it gives them.  What is
remembered is no more than what it has under way.  Who leads it in a later term has on record all
that was so for others: what they still have under way comes to nothing from then on.

Unless an operator gave up those who had it, and one member of that queue went on alone: messages
that it never had may be here, and others may have their numbers.  Its term says so; then all is
forgotten that came before, for twice is better than not at all.

Nothing is remembered before it is on record that all members read it.  In a queue that was made
just now that is so after its first entry, which may not bring any: the next leader would not know.
What is remembered is decided with the message: a member that is added before their entry is written
changes nothing in it.

The keys of messages (`x-message-deduplication`) that come in with an entry are one fact of it.
While not all members read such a fact, the leader alone knows; it says all of that as soon as it
may.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from itertools import groupby

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.queues.deduplication import DuplicateFilter
from fluffle.broker.queues.deduplication_window import DeduplicationWindow
from fluffle.broker.queues.publish_target import DeadLetterIds, Enqueue
from fluffle.broker.queues.quorum.entry_builder import EntryBuilder, EntryVersions, QueueTime
from fluffle.broker.queues.quorum.entry_codec import ARRIVALS, REMEMBERS
from fluffle.broker.queues.quorum.facts import ArrivalsKnown, Arrived, Remembered, SourceGone
from fluffle.broker.queues.quorum.proposals import KnownQueues
from fluffle.broker.queues.quorum.runs import runs_of
from fluffle.broker.queues.quorum.state import UNKNOWN_SOURCE, QueueState, Source
from fluffle.broker.queues.settings import DeduplicationCache
from fluffle.raft.election import was_forced

NO_WINDOW = DeduplicationWindow()
"""Never changed: most queues take what comes again."""


class ArrivalKind(Enum):
    """Kind of a dead letter that arrives from another queue."""

    NEW = auto()
    HERE = auto()
    """The message is in the queue, or was."""
    STALE = auto()
    """The sender leads the source queue no more; or the source queue is deleted or not known here
    yet, and then the message is taken when it is sent again."""
    EARLY = auto()
    """There is no room to remember the message; it may be taken when it is sent again."""


class DeadLetterDedup:
    """Deduplication of the dead letters that one leadership takes, unconfirmed ones included."""

    __slots__ = ("_builder", "_queues", "_sources", "_versions")

    def __init__(
        self,
        state: QueueState,
        builder: EntryBuilder,
        versions: EntryVersions,
        queues: KnownQueues,
    ) -> None:
        """A leader before may have known queues that are yet to be heard of:
        only what is gone for certain is forgotten."""
        self._sources = dict(state.sources) or EMPTY_DICT  # mutant: R14h
        self._builder = builder
        self._versions = versions
        self._queues = queues
        self._forget_gone()

    def sift(self, posted: DeadLetterIds) -> list[tuple[int, int, ArrivalKind]]:
        """From where to where those of a run are what, in order.

        What is said with them of others is on record then.
        """
        source = self._sources.get(posted.source)
        if source is None:
            if not self._queues.is_there(posted.source):
                return [(0, len(posted.sequences), ArrivalKind.STALE)]
            self._forget_gone()
            source = UNKNOWN_SOURCE
        elif posted.term < source.term:
            return [(0, len(posted.sequences), ArrivalKind.STALE)]
        else:
            source = self._know(source, posted)
        new = (
            ArrivalKind.EARLY if self._versions.is_coming(ARRIVALS) else ArrivalKind.NEW
        )  # mutant: R14i
        results: list[tuple[int, int, ArrivalKind]] = []
        start = 0
        for is_here, alike in groupby(posted.sequences, source.arrived.__contains__):
            stop = start + sum(1 for _ in alike)
            results.append((start, stop, ArrivalKind.HERE if is_here else new))  # mutant: R14g
            start = stop
        return results

    def _know(self, source: Source, posted: DeadLetterIds) -> Source:
        settled = runs_of(sorted(number for number in posted.settled if number in source.arrived))
        if was_forced(source.term, posted.term):
            settled = [range(low, high) for low, high in source.arrived]
        first = source.arrived.next_from(0)
        is_news = settled or (first is not None and first[0] < posted.below)
        if not is_news and posted.term == source.term:
            return source
        fact = ArrivalsKnown(posted.source, posted.term, posted.below, settled)
        self._say(fact)
        if self._sources is EMPTY_DICT:
            self._sources = {}
        known = self._sources[posted.source] = source.with_known(fact)
        return known

    def add(self, posted: DeadLetterIds) -> None:
        """New ones are taken, with the entry that is being built."""
        fact = Arrived(posted.source, posted.term, runs_of(sorted(posted.sequences)))
        self._say(fact)
        source = self._sources.get(posted.source, UNKNOWN_SOURCE)
        if self._sources is EMPTY_DICT:
            self._sources = {}
        self._sources[posted.source] = source.with_arrived(fact)

    def _forget_gone(self) -> None:
        for group in [group for group in self._sources if self._queues.is_gone(group)]:
            del self._sources[group]
            self._say(SourceGone(group))

    def _say(self, fact: ArrivalsKnown | Arrived | SourceGone) -> None:
        """Record a fact if all members read it now; members added later must read it."""
        if self._versions.version >= ARRIVALS:
            self._builder.say(fact)


class LoggedDeduplicationKeys:
    """The `DeduplicationKeys` of one leadership."""

    __slots__ = (
        "_builder",
        "_is_behind",
        "_kept",
        "_known",
        "_news",
        "_on_duplicates",
        "_time",
        "_versions",
        "_window",
    )  # fmt: skip

    def __init__(
        self,
        known: DeduplicationWindow | None,
        builder: EntryBuilder,
        versions: EntryVersions,
        time: QueueTime,
        on_duplicates: Callable[[int], None],
    ) -> None:
        """`known`: what the image knows, which is not changed here.  `on_duplicates` gets how
        many messages were dropped."""
        self._known = known
        self._builder = builder
        self._versions = versions
        self._time = time
        self._on_duplicates = on_duplicates
        self._window = NO_WINDOW
        """Window of keys that the filter knows."""
        self._news: list[bytes] = []
        """Keys that are to be said."""
        self._kept: int | None = None
        """How many are known with them; None: nothing is to be said."""
        self._is_behind = False
        """True if there are other keys that could not be logged."""

    def duplicate_filter(self, cache: DeduplicationCache, enqueue: Enqueue) -> DuplicateFilter:
        """A `FilterFactory`."""
        known, self._known = self._known, None
        self._window = known.copy() if known is not None else DeduplicationWindow()
        return DuplicateFilter(
            cache,
            self._window,
            enqueue,
            time=self._time,
            on_duplicates=self._on_duplicates,
            record=self,
        )

    def remembered(self, packed: bytes, kept: int) -> None:
        if not kept:
            self._news.clear()
        self._news.append(packed)
        self._kept = kept

    @property
    def may_be_said(self) -> bool:
        """True if keys that could not be logged may be by now."""
        return self._is_behind and self._versions.version >= REMEMBERS

    def say(self) -> None:
        """Log the keys that came in since the last call, if all members can read them."""
        if self._kept is None:
            return
        if self._versions.version < REMEMBERS:
            self._news.clear()
            self._is_behind = True
            return
        packed = self._window.packed() if self._is_behind else b"".join(self._news)
        self._builder.say(Remembered(packed, self._kept))  # mutant: K2
        self._news.clear()
        self._kept, self._is_behind = None, False
