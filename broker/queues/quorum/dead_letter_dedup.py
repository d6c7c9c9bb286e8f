"""Dead letters of other queues that must arrive: those that have are not taken again.

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
"""

from __future__ import annotations

from enum import Enum, auto
from itertools import groupby

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.queues.publish_target import DeadLetterIds
from fluffle.broker.queues.quorum.encoding import ARRIVALS
from fluffle.broker.queues.quorum.entry_builder import EntryBuilder
from fluffle.broker.queues.quorum.entry_version import EntryVersions
from fluffle.broker.queues.quorum.facts import ArrivalsKnown, Arrived, SourceGone
from fluffle.broker.queues.quorum.leader_host import KnownQueues
from fluffle.broker.queues.quorum.runs import runs_of
from fluffle.broker.queues.quorum.state import UNKNOWN_SOURCE, Source, State
from fluffle.raft.group import was_forced


class ArrivalKind(Enum):
    """Kind of a dead letter that arrives from another queue."""

    NEW = auto()
    HERE = auto()
    """It is, or was."""
    STALE = auto()
    """Whoever gives it leads that queue no more; or the queue is gone, or has yet to be heard of,
    and then it is taken when it is given again."""
    EARLY = auto()
    """It would not be remembered; if it is given again, it may be."""


class DeadLetterDedup:
    """Deduplication of the dead letters that one leadership takes, unconfirmed ones included."""

    __slots__ = ("_builder", "_queues", "_sources", "_versions")

    def __init__(
        self,
        state: State,
        builder: EntryBuilder,
        announcing: EntryVersions,
        queues: KnownQueues,
    ) -> None:
        """A leader before may have known queues that are yet to be heard of:
        only what is gone for certain is forgotten."""
        self._sources = dict(state.sources) or EMPTY_DICT  # mutant: R14h
        self._builder = builder
        self._versions = announcing
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
        fates: list[tuple[int, int, ArrivalKind]] = []
        start = 0
        for is_here, alike in groupby(posted.sequences, source.arrived.__contains__):
            stop = start + sum(1 for _ in alike)
            fates.append((start, stop, ArrivalKind.HERE if is_here else new))  # mutant: R14g
            start = stop
        return fates

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
        """New ones are taken, with the entry that is drafted."""
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
        """Put a fact on record if all members read it now; whoever is added later must read it."""
        if self._versions.version >= ARRIVALS:
            self._builder.say(fact)
