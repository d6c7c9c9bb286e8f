"""Proposals of a leadership: entries built and on their way into the log, and effects that wait.

    decided --> kept with the entry that is being built --> under way --> applied: they leave

A publish is confirmed by an effect, too: the reply `DoneReply`, which leaves when the entry of the
publish is applied, so when a majority has it on disk.

Effects leave in the order in which they were decided.  An entry is known by the order of proposals
here: the leadership hears of each, in that order, whether it was applied at its own index and term.
So an index that another leader's entry takes releases nothing.

An entry may be of a version that every member has announced, by a fact:

    hello of a link --> leader --> VersionAnnounced, committed --> all have --> entries of it

What a node says of itself on a link another leader may not have heard.  So it counts only once it
is in the log, where each leader finds it.

Queue time is what a leader writes down as now, and what every deadline in a log is measured by.
It goes on where the log ends, and never stands still or falls, whatever the clock does that it is
read from.  A leader that comes to lead late is no reason for anything to live longer, nor is one
whose clock is behind a reason for nothing to expire; and when that clock is put right, the time
that the log already has does not pass once more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TypeAlias

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.base.message import Origin
from fluffle.broker.queues.delivery_counts import NEW, Counts, DeliveryCountIndex
from fluffle.broker.queues.expiry_times import Deadlines, Expiries, grown
from fluffle.broker.queues.queue_api import DeliverySource
from fluffle.broker.queues.quorum.entries import LiveEntry, cut, runs_at
from fluffle.broker.queues.quorum.entry_codec import (
    DEFAULT_PRIORITY,
    FIRST_VERSION,
    PLAIN,
    Enqueued,
    FactBatch,
    columns_of,
    encode,
    pack_enqueued,
    times_of,
)
from fluffle.broker.queues.quorum.facts import (
    Acknowledged,
    Arrived,
    DeadLettered,
    DeadLettering,
    DelayElapsed,
    Delivered,
    DeliveredWithoutAck,
    Dropped,
    Fact,
    Key,
    OperationDoneWithAnswer,
    OperationsDone,
    OperationsRejected,
    Published,
    Purged,
    RemovalReason,
    SacActive,
    SessionClosed,
    SessionOpened,
    Settled,
    SpecChanged,
    VersionAnnounced,
)
from fluffle.broker.queues.quorum.leader_services import LeaderServices, NodeClock, Proposer
from fluffle.broker.queues.quorum.messages import Effect
from fluffle.broker.queues.quorum.state import QueueImage, QueueState

NUMBERS = (
    Published,
    OperationsRejected,
    OperationsDone,
    OperationDoneWithAnswer,
    Acknowledged,
    SessionClosed,
)
"""Facts about sessions that stand behind all others: what they answer for is in the same entry, so
that their place among the others means nothing, and those of many operations become few."""

STEP_MS = 10
"""Most that queue time gains on the machine's clock between two readings, in ms, while it is
behind."""

PIECE_RUNS = 512
"""So many runs of a purge are said together, of as many entries of the log at most: some
milliseconds."""

NOTHING = range(0)

_start = attrgetter("start")


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

    def __init__(self, state: QueueState) -> None:
        """The first entry of a leadership goes on where the state is."""
        self.next_key: Key = state.next_key
        self._revision = state.revision
        self._active = state.sac_active
        self._facts: list[Fact] = []
        self._numbers: list[Fact] = []
        """Facts of the types in `NUMBERS`."""
        self._origins: list[Origin] = []
        self._contents: list[bytes] = []
        self._expiries: Expiries | None = None
        self._priorities: bytearray | None = None
        """Priority of each message, or None while all have the default."""
        self._delivery_counts: DeliveryCountIndex | None = None
        """Delivery counts by place among the messages; None while no message brought any."""
        self.content_bytes = 0
        self._first = 0
        """Sequence number of the first message, if there are any."""

    def __bool__(self) -> bool:
        return bool(self._facts or self._numbers)

    def add_fact(self, fact: Fact) -> None:
        """Add a fact; one that continues the last is merged into it."""
        if type(fact) is SessionOpened:
            self._facts += self._numbers  # one of the same life may be among those that are closed
            self._numbers = []
        facts = self._numbers if isinstance(fact, NUMBERS) else self._facts
        if not facts or not _is_continued(facts[-1], fact):
            facts.append(fact)

    def mature(self, runs: list[range]) -> None:
        """Record that delayed messages are ready."""
        self.add_fact(DelayElapsed(runs))

    @property
    def last_revision(self) -> int:
        """Revision of the newest specification in this entry."""
        said = [fact.revision for fact in self._facts if isinstance(fact, SpecChanged)]
        return max(said, default=self._revision)

    def take_key(self) -> Key:
        """Key for the next session or holder."""
        key, self.next_key = self.next_key, self.next_key + 1
        return key

    def name_active(self, key: Key) -> None:
        """Record that this consumer alone is served from now on."""
        if key != self._active:
            self._active = key
            self.add_fact(SacActive(key))

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
        """Add messages behind those of the entry; `first` is the sequence number of the first."""
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
        return pack_enqueued(self._first, self._origins, self._contents, columns)


def _is_continued(last: Fact, fact: Fact) -> bool:
    """True if `fact` was merged into `last`."""
    if type(last) is not type(fact):
        return False
    match last, fact:
        case (
            Published() | OperationsRejected() | OperationsDone(),
            Published() | OperationsRejected() | OperationsDone(),
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


Readers = Mapping[str, int]
"""The members, those that are being added among them: the newest version that each reads, as its
node says on its link; 0 if it has said nothing yet."""


class EntryVersions:
    """Version of the entries that one leadership may write."""

    __slots__ = ("_builder", "_image", "_readers", "_said")

    def __init__(
        self, image: QueueImage, builder: EntryBuilder, readers: Callable[[], Readers]
    ) -> None:
        self._image = image
        self._builder = builder
        self._readers = readers
        self._said: dict[str, int] = EMPTY_DICT
        """Versions by member that this leader has put into entries, applied or not."""

    @property
    def version(self) -> int:
        """Newest version that all members read, by the log; less if a member reports an older one.

        Read for each entry: a member that is added counts from then on.
        """
        if self._image.reads == FIRST_VERSION:
            return FIRST_VERSION
        on_record = self._image.state.versions
        read = [
            min(on_record.get(member, FIRST_VERSION), known or self._image.reads)  # mutant: R21b
            for member, known in self._readers().items()
        ]
        return min(read, default=FIRST_VERSION)  # mutant: R21a

    def is_coming(self, version: int) -> bool:
        """True if all members report that they read `version`, which the log will soon say."""
        on_record = self._image.state.versions
        said = [
            known or on_record.get(member, FIRST_VERSION)
            for member, known in self._readers().items()
        ]
        return self.version < version <= min(self._image.reads, min(said, default=FIRST_VERSION))

    def announce(self) -> None:
        """Record the versions that members read, where they are news."""
        if self._image.reads == FIRST_VERSION:
            return
        on_record = self._image.state.versions
        for member, known in self._readers().items():
            version = min(known, self._image.reads)
            said = max(self._said.get(member, FIRST_VERSION), on_record.get(member, FIRST_VERSION))
            if version > said:
                if self._said is EMPTY_DICT:
                    self._said = {}
                self._said[member] = version
                self._builder.add_fact(VersionAnnounced(version, member))


class QueueTime:
    """The `QueueClock` of one leadership: it also stamps entries, and dates the deaths of messages.

    Deadlines that are written down are measured by it, and by no clock: only so is one that this
    leader has written true for the next.
    """

    __slots__ = ("_ahead_ms", "_clock", "_counted_ms", "_last_ms", "_wake")

    def __init__(self, last_stamp_ms: int, clock: NodeClock, wake: Callable[[int], None]) -> None:
        """`last_stamp_ms`: of the log.  `wake` has the leadership pumped after so many ms."""
        self._clock = clock
        self._wake = wake
        self._last_ms = last_stamp_ms
        self._counted_ms = clock.now_ms()
        """When it was last looked at."""
        self._ahead_ms = 0
        """How far it is ahead of that time of day."""
        self.now_ms()

    def now_ms(self) -> int:
        """Never less than before, nor than in the log."""
        wall_ms, count_ms = self._clock.wall_ms(), self._clock.now_ms()
        most_ms = self._last_ms + count_ms - self._counted_ms + STEP_MS
        ahead_ms = max(self._ahead_ms, self._last_ms - wall_ms)  # mutant: R16
        self._counted_ms = count_ms
        self._last_ms = max(wall_ms, min(wall_ms + ahead_ms, most_ms))
        self._ahead_ms = self._last_ms - wall_ms
        return self._last_ms

    def wake(self, queue: DeliverySource, at_ms: int) -> None:
        del queue
        self._wake(at_ms - self.now_ms())


@dataclass(slots=True)
class DeadLetterEffect:
    """Messages are on record as dead, and are to be republished.  For no client."""

    reason: RemovalReason
    time_ms: int
    counts: Counts
    """Delivery counts of each of them."""
    run: range
    origins: list[Origin]
    """None at all if the messages have to be read."""
    contents: list[bytes]
    must_arrive: bool = False
    """See `DeadLetterOutbox`."""


BufferedEffect: TypeAlias = Effect | DeadLetterEffect

EffectSource: TypeAlias = Callable[[], Sequence[BufferedEffect]]
"""Effects that are only known when they may leave."""


class EffectBuffer:
    """Effects of one leadership, held until the entry they rest on is applied, and dropped with the
    leadership."""

    __slots__ = ("_builder", "_known", "_under_way", "_waiting")

    def __init__(self, builder: EntryBuilder) -> None:
        self._builder = builder
        self._waiting: list[EffectSource] = []
        """Effects that depend on the entry being built."""
        self._under_way: list[list[EffectSource]] = []
        """The same of each entry that is proposed and not applied."""
        self._known: list[EffectSource] = []
        """Effects that depend on applied entries alone."""

    def end(self) -> None:
        """Drop all effects, which know their leadership."""
        self._waiting, self._under_way, self._known = [], [], []

    def keep(self, later: EffectSource) -> None:
        """Keep effects until the entry that is being built is applied."""
        self._waiting.append(later)  # mutant: R1

    def keep_known(self, later: EffectSource) -> None:
        """Keep effects until everything decided so far is applied, which it may be already."""
        if self._builder:  # mutant: LE1
            self._waiting.append(later)
        elif self._under_way:  # mutant: LE2
            self._under_way[-1].append(later)
        else:
            self._known.append(later)

    def entry_ended(self) -> None:
        """Have what is kept from now on wait for the next entry."""
        self._under_way.append(self._waiting)
        self._waiting = []

    def entry_applied(self) -> list[BufferedEffect]:
        """Remove and return the effects of the first entry under way, which is applied."""
        return _all(self._under_way.pop(0))

    def take_known(self) -> list[BufferedEffect]:
        """Remove and return the effects that need no entry."""
        known = self._known
        if not known:
            return []
        self._known = []
        return _all(known)


def _all(kept: list[EffectSource]) -> list[BufferedEffect]:
    return [effect for later in kept for effect in later()]


class PendingPurge:
    """Purge in progress: its facts are proposed in pieces.

        all is gone for the engine --> a piece an entry, an entry a turn --> the answer

    No client waits longer because millions of messages are dropped.  The answer, and all that is
    decided after the purge, is behind the last piece in the log.  So a leader that ends before has
    had no answer: its successor finds the rest ready, and is asked again.
    """

    __slots__ = ("_left", "_runs", "_state", "_stretches")

    def __init__(self, state: QueueState) -> None:
        self._state = state
        self._runs: deque[range] = deque()
        """Runs of messages that are known one by one."""
        self._stretches: dict[int | None, deque[range]] = {}
        """Numbers by priority, rising, of which all goes that is ready by the image when it is
        their turn.  That is nothing else then: the engine has let go of it.  None: whatever the
        priority is."""
        self._left = NOTHING
        """Around all of these."""

    def add(self, runs: list[range]) -> None:
        self._runs += runs

    def add_ready(self, first: int, stop: int, level: int | None = None) -> None:
        """All that is ready from one number up to another: what has one priority, or everything,
        also what is only ready once it is applied."""
        self._stretches.setdefault(level, deque()).append(range(first, stop))
        left = self._left or range(first, stop)
        self._left = range(min(first, left.start), max(stop, left.stop))

    def __bool__(self) -> bool:
        """True if more may be left to purge."""
        return bool(self._runs or self._left)

    def next(self) -> list[range]:
        """The next of the messages, each once; there may be none though there are more behind."""
        piece = [self._runs.popleft() for _ in range(min(len(self._runs), PIECE_RUNS))]
        if self._left and len(piece) < PIECE_RUNS:
            piece += joined(self._ready(PIECE_RUNS - len(piece)))
        return piece

    def _ready(self, most: int) -> Iterator[range]:
        """Up to `most` runs, with what is under way at the end."""
        for entry in self._state.entries.between(self._left.start, self._left.stop):
            found = self._of(entry)
            taken = found[:most]
            most -= max(len(taken), 1)
            at = taken[-1].stop if len(taken) < len(found) else entry.first + entry.count
            self._left = range(at, self._left.stop)
            yield from taken
            if most <= 0:
                return
        self._left = NOTHING
        for stretch in self._stretches.get(None, ()):
            unapplied = range(max(stretch.start, self._state.next_sequence), stretch.stop)
            if unapplied:
                yield unapplied

    def _of(self, entry: LiveEntry) -> list[range]:
        """Ready messages of an entry that are still to be purged."""
        inside = range(max(entry.first, self._left.start), entry.first + entry.count)
        ready = cut(self._state.entries.ready_of(entry), inside.start, inside.stop)
        levels = (None,) if None in self._stretches else entry.levels
        if all(self._has_all(level, inside) for level in levels):
            return ready
        found: list[range] = []
        for level in levels:
            stretches = self._stretches.get(level, ())
            runs = [run for each in stretches for run in cut(ready, each.start, each.stop)]
            found += runs if level is None else runs_at(entry, runs, level)
        return joined(sorted(found, key=_start))

    def _has_all(self, level: int | None, inside: range) -> bool:
        """True if one stretch of this priority covers `inside`; drops stretches in front of it."""
        stretches = self._stretches.get(level)
        while stretches and stretches[0].stop <= inside.start:
            stretches.popleft()
        if not stretches:
            return False
        return stretches[0].start <= inside.start and inside.stop <= stretches[0].stop


def joined(runs: Iterable[range]) -> list[range]:
    """Runs that rise, those that follow on each other as one."""
    whole: list[range] = []
    for run in runs:
        if whole and whole[-1].stop == run.start:
            whole[-1] = range(whole[-1].start, run.stop)
        else:
            whole.append(run)
    return whole


@dataclass(slots=True)
class ProposedEntry:
    """Entry that waits for the log to take it."""

    payload: bytes
    content_bytes: int
    """Content bytes of its messages."""


@dataclass(slots=True)
class ProposedPurge:
    """Entries that are only made when it is their turn."""

    pieces: PendingPurge
    batch: FactBatch
    """First facts of each of its entries: made when the purge was decided, like those of later
    proposals."""


class Proposals:
    """Proposals of one leadership, in order."""

    __slots__ = (
        "_log",
        "_proposer",
        "_services",
        "_versions",
        "_waiting",
    )  # fmt: skip

    def __init__(
        self, versions: EntryVersions, services: LeaderServices, proposer: Proposer
    ) -> None:
        self._versions = versions
        self._services = services
        self._log = services.log
        self._proposer = proposer
        self._waiting: deque[ProposedEntry | ProposedPurge] = deque()

    def __bool__(self) -> bool:
        """True if proposals wait."""
        return bool(self._waiting)

    def add(self, batch: FactBatch, content_bytes: int) -> None:
        """Add an entry that is built; `content_bytes` is the size of its messages."""
        payload = encode(batch, self._versions.version)
        self._waiting.append(ProposedEntry(payload, content_bytes))

    def add_purge(self, pieces: PendingPurge, batch: FactBatch) -> None:
        """Add a purge, which is recorded before all that is proposed later."""
        self._waiting.append(ProposedPurge(pieces, batch))

    def end(self) -> None:
        """Propose nothing that waits."""
        self._waiting = deque()

    def propose(self, on_outcome: Callable[[bool], None], on_piece: Callable[[bool], None]) -> None:
        """Propose as many entries as the log takes now, up to one piece of a purge; the rest waits
        for later turns.

        `on_outcome` is called with whether each entry was applied, `on_piece` likewise for each
        piece of a purge.  They are not kept here: no part of a leadership leads back to it.
        """
        while self._waiting:
            first = self._waiting[0]
            content_bytes = first.content_bytes if isinstance(first, ProposedEntry) else 0
            if not self._log.takes(content_bytes):
                return
            if isinstance(first, ProposedPurge):
                self._propose_piece(first, on_piece)
                return
            self._waiting.popleft()
            self._proposer.propose(first.payload, on_outcome)

    def _propose_piece(self, purge: ProposedPurge, on_piece: Callable[[bool], None]) -> None:
        if runs := purge.pieces.next():
            piece = replace(purge.batch, facts=[Purged(runs)])
            self._proposer.propose(encode(piece, self._versions.version), on_piece)
        if not purge.pieces and self._waiting:
            self._waiting.popleft()
        self._services.touch()
