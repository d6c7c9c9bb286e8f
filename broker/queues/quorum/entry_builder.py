"""Entries of a leadership: building one, its version and its time.

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

from collections.abc import Callable, Mapping

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.base.message import Origin
from fluffle.broker.queues.delivery_counts import NEW, Counts, DeliveryCountIndex
from fluffle.broker.queues.expiry_times import Deadlines, Expiries, grown
from fluffle.broker.queues.queue_api import DeliverySource
from fluffle.broker.queues.quorum.entry_codec import (
    DEFAULT_PRIORITY,
    FIRST_VERSION,
    PLAIN,
    Enqueued,
    FactBatch,
    columns_of,
    pack_enqueued,
    times_of,
)
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
    OperationsRejected,
    Published,
    SacActive,
    SessionClosed,
    SessionOpened,
    Settled,
    SpecChanged,
    VersionAnnounced,
)
from fluffle.broker.queues.quorum.leader_services import NodeClock
from fluffle.broker.queues.quorum.state import QueueImage, QueueState

NUMBERS = (Published, OperationsRejected, Acted, Answered, Acknowledged, SessionClosed)
"""Facts about sessions that stand behind all others: what they answer for is in the same entry, so
that their place among the others means nothing, and those of many operations become few."""

STEP_MS = 10
"""Most that queue time gains on the machine's clock between two readings, in ms, while it is
behind."""


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

    def say(self, fact: Fact) -> None:
        """Add a fact; one that continues the last is merged into it."""
        if type(fact) is SessionOpened:
            self._facts += self._numbers  # one of the same life may be among those that are closed
            self._numbers = []
        facts = self._numbers if isinstance(fact, NUMBERS) else self._facts
        if not facts or not _is_continued(facts[-1], fact):
            facts.append(fact)

    def mature(self, runs: list[range]) -> None:
        """Record that delayed messages are ready."""
        self.say(DelayElapsed(runs))

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
            Published() | OperationsRejected() | Acted(),
            Published() | OperationsRejected() | Acted(),
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
                self._builder.say(VersionAnnounced(version, member))


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
