"""The entry that a leader is writing: what has been decided in this turn so far."""

from __future__ import annotations

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.delivery_counts import NEW, Counts, DeliveryCountIndex
from fluffle.broker.queues.expiry_times import Deadlines, Expiries, grown
from fluffle.broker.queues.quorum.encoding import FactBatch
from fluffle.broker.queues.quorum.facts import (
    Acknowledged,
    Acted,
    Answered,
    Arrived,
    DeadLettered,
    DeadLettering,
    DelayElapsed,
    Delivered,
    DeliveredWithoutAck,
    Dropped,
    Fact,
    Key,
    OperationsRefused,
    Published,
    SacActive,
    SessionClosed,
    SessionOpened,
    Settled,
    SpecChanged,
)
from fluffle.broker.queues.quorum.messages import (
    DEFAULT_PRIORITY,
    PLAIN,
    Enqueued,
    columns_of,
    enqueued,
    times_of,
)
from fluffle.broker.queues.quorum.state import State

NUMBERS = (Published, OperationsRefused, Acted, Answered, Acknowledged, SessionClosed)
"""Facts about sessions that stand behind all others: what they answer for is in the same entry, so
that their place among the others means nothing, and those of many operations become few."""


class EntryBuilder:
    """Facts and messages in the order in which they were decided, and what is next of each kind."""

    __slots__ = (
        "_active",
        "_contents",
        "_delivery_counts",
        "_expiries",
        "_facts",
        "_first",
        "_numbers",
        "_origins",
        "_priorities",
        "_revision",
        "content_bytes",
        "next_key",
    )

    def __init__(self, state: State) -> None:
        """The first entry of a leadership goes on where the state is."""
        self.next_key: Key = state.next_key
        self._revision = state.revision
        self._active = state.sac_active
        self._facts: list[Fact] = []
        self._numbers: list[Fact] = []
        """Those of `NUMBERS`."""
        self._origins: list[Origin] = []
        self._contents: list[bytes] = []
        self._expiries: Expiries | None = None
        self._priorities: bytearray | None = None
        """One a message, or None while all have the same as most."""
        self._delivery_counts: DeliveryCountIndex | None = None
        """By place among the messages; None while none has brought along anything."""
        self.content_bytes = 0
        self._first = 0
        """Of the messages, if there are any."""

    def __bool__(self) -> bool:
        return bool(self._facts or self._numbers)

    def say(self, fact: Fact) -> None:
        """Facts that say more of what the last one says are made one with it."""
        if type(fact) is SessionOpened:
            self._facts += self._numbers  # one of the same life may be among those that are closed
            self._numbers = []
        facts = self._numbers if isinstance(fact, NUMBERS) else self._facts
        if not facts or not _is_continued(facts[-1], fact):
            facts.append(fact)

    def mature(self, runs: list[range]) -> None:
        """Messages that had to wait are ready."""
        self.say(DelayElapsed(runs))

    @property
    def last_revision(self) -> int:
        """Of the newest specification that was said."""
        said = [fact.revision for fact in self._facts if isinstance(fact, SpecChanged)]
        return max(said, default=self._revision)

    def take_key(self) -> Key:
        """A key for whoever is opened or attached next."""
        key, self.next_key = self.next_key, self.next_key + 1
        return key

    def name_active(self, key: Key) -> None:
        """From now on this consumer alone is served."""
        if key != self._active:
            self._active = key
            self.say(SacActive(key))

    def add_messages(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        first: int,
        *,
        expires_at_ms: Deadlines = 0,
        priority: int = DEFAULT_PRIORITY,
        counts: Counts = NEW,
    ) -> None:
        """Behind those that are there."""
        before = len(self._contents)
        self.content_bytes += content_bytes
        if not self._contents:
            self._first = first
        if expires_at_ms or self._expiries is not None:
            self._expiries = grown(self._expiries, before, len(contents), expires_at_ms)
        if priority != DEFAULT_PRIORITY and self._priorities is None:
            self._priorities = bytearray((DEFAULT_PRIORITY,)) * before
        if self._priorities is not None:
            self._priorities += bytes((priority,)) * len(contents)
        if counts is not NEW:  # mutant: CA1
            self._delivery_counts = self._delivery_counts or DeliveryCountIndex()
            self._delivery_counts.put(before, before + len(contents), counts)  # mutant: CA2
        self._origins += origins
        self._contents += contents

    def finish(self, stamp_ms: int) -> FactBatch:
        """The entry, as of this queue time; another is begun."""
        new = self._enqueued() if self._contents else None
        batch = FactBatch(stamp_ms, self._revision, self._facts + self._numbers, new)
        for fact in self._facts:
            if isinstance(fact, SpecChanged):
                self._revision = fact.revision
        self._facts, self._numbers, self._origins, self._contents = [], [], [], []
        self._expiries = self._priorities = self._delivery_counts = None
        self.content_bytes = 0
        return batch

    def _enqueued(self) -> Enqueued:
        columns = PLAIN
        counts = self._delivery_counts.runs if self._delivery_counts is not None else ()
        if counts or self._expiries is not None or self._priorities is not None:
            columns = columns_of(bytes(self._priorities or b""), times_of(self._expiries), counts)
        return enqueued(self._first, self._origins, self._contents, columns)


def _is_continued(last: Fact, fact: Fact) -> bool:
    """Whether the second fact was taken into the first."""
    if type(last) is not type(fact):
        return False
    match last, fact:
        case (
            Published() | OperationsRefused() | Acted(),
            Published() | OperationsRefused() | Acted(),
        ):
            # mutant: LE12
            if last.session != fact.session or last.first + last.count != fact.first:
                return False
            last.count += fact.count
        case (Settled(), Settled()):
            if (last.holder, last.ordinal) != (fact.holder, fact.ordinal):  # mutant: LE11
                return False
            last.runs = _joined(last.runs, fact.runs)
        case (Dropped() | DeadLettering(), Dropped() | DeadLettering()):
            if _cause(last) != _cause(fact):
                return False
            last.runs = _joined(last.runs, fact.runs)
        case (SacActive(), SacActive()):
            last.key = fact.key
        case (Arrived(), Arrived()):
            if (last.source, last.term) != (fact.source, fact.term):
                return False
            last.runs = _joined(last.runs, fact.runs)
        case (DeadLettered(), DeadLettered()):
            last.runs = _joined(last.runs, fact.runs)
        case (Delivered() | DeliveredWithoutAck(), Delivered() | DeliveredWithoutAck()):
            if (last.holders, last.ordinal) != (fact.holders, fact.ordinal):
                return False
            if len(last.holders) > 1:  # they were dealt out, each time from the first holder on
                return False
            last.runs = _joined(last.runs, fact.runs)
        case _:
            return False
    return True


def _cause(death: Dropped | DeadLettering) -> tuple[int, ...]:
    """All but which messages."""
    time_ms = death.time_ms if isinstance(death, DeadLettering) else 0
    return death.reason, time_ms, death.holder, death.ordinal


def _joined(runs: list[range], others: list[range]) -> list[range]:
    """Runs behind runs; those that go on where the last one ends are one with it."""
    joined = runs[:]
    for run in others:
        last = joined[-1]
        step = last.step if len(last) > 1 else run.start - last.start
        # mutant: LE10
        if step > 0 and run.start == last[-1] + step and (len(run) == 1 or run.step == step):
            joined[-1] = range(last.start, run[-1] + step, step)
        else:
            joined.append(run)
    return joined
