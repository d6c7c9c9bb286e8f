"""Reference model of a replicated queue, as a child would keep it: records of messages, and lists
of names.

It believes every fact, and asserts only what the tests that feed it should know themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fluffle.broker.queues.deduplication_window import KEY
from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum.entry_codec import DEFAULT_PRIORITY

Place = tuple[Any, ...]
"""("ready",), ("requeued",), ("held", key), ("delayed", time), ("pending", reason, time) or
("gone", reason)."""


@dataclass
class MessageRecord:
    """Message of the queue, wherever it is."""

    content: bytes
    exchange: str
    routing_key: str
    index: int
    place: Place = ("ready",)
    acquired: int = 0
    failed: int = 0
    priority: int = DEFAULT_PRIORITY
    expires_at_ms: int = 0
    since: int = 0
    """When it came to its place: the greater, the later."""


@dataclass
class SessionRecord:
    """Session of a node with the queue."""

    id: f.SessionId
    next: int = 1
    refused: set[int] = field(default_factory=set)
    answers: dict[int, int] = field(default_factory=dict)


@dataclass
class HolderRecord:
    """A consumer or a getter."""

    attached: f.ConsumerAttached | f.GetterAttached
    is_detached: bool = False


class ReferenceModel:
    def __init__(self) -> None:
        self.records: dict[int, MessageRecord] = {}
        """Every message that ever was, by its sequence number."""
        self.streams: dict[int, SessionRecord] = {}
        self.users: dict[int, HolderRecord] = {}
        self.next_key = 1
        self.sac_active = 0
        self.revision = 0
        self.spec = b""
        self.versions: dict[str, int] = {}
        self.sources: dict[int, tuple[int, set[int]]] = {}
        """Terms of other queues, and their numbers of dead letters that came from them."""
        self.known: list[bytes] = []
        """Keys, the oldest first."""
        self.time_ms = 0
        self._moves = 0

    def enqueue(self, record: MessageRecord) -> None:
        self.records[len(self.records) + 1] = record

    def at(self, *place: Any) -> list[int]:
        """The messages at a place, whoever came first in front."""
        found = [
            (record.since, sequence)
            for sequence, record in self.records.items()
            if record.place[: len(place)] == place
        ]
        return [sequence for _since, sequence in sorted(found)]

    def apply(self, fact: f.Fact) -> None:
        self.DO[type(fact)](self, fact)

    def _move(
        self, sequences: Iterator[int], place: Place, *origins: str
    ) -> Iterator[MessageRecord]:
        for sequence in sequences:
            record = self.records[sequence]
            assert record.place[0] in origins
            self._moves += 1
            record.place, record.since = place, self._moves
            yield record

    def _let_go(self) -> None:
        """Forget detached holders that hold nothing."""
        for key in [key for key, user in self.users.items() if user.is_detached]:
            if not self.at("held", key):
                del self.users[key]

    # What each fact means

    def published(self, fact: f.Published | f.OperationsDone) -> None:
        self.streams[fact.session].next += fact.count

    def refused(self, fact: f.OperationsRejected) -> None:
        self.streams[fact.session].next += fact.count
        self.streams[fact.session].refused.update(range(fact.first, fact.first + fact.count))

    def answered(self, fact: f.OperationDoneWithAnswer) -> None:
        self.streams[fact.session].next += 1
        self.streams[fact.session].answers[fact.number] = fact.answer

    def acknowledged(self, fact: f.Acknowledged) -> None:
        stream = self.streams[fact.session]
        stream.refused = {number for number in stream.refused if number >= fact.below}
        stream.answers = {
            number: answer for number, answer in stream.answers.items() if number >= fact.below
        }

    def session_opened(self, fact: f.SessionOpened) -> None:
        self.streams[fact.key] = SessionRecord(fact.id)
        self.next_key += 1

    def session_closed(self, fact: f.SessionClosed) -> None:
        del self.streams[fact.key]

    def attached(self, fact: f.ConsumerAttached | f.GetterAttached) -> None:
        self.users[fact.key] = HolderRecord(fact)
        self.next_key += 1

    def detached(self, fact: f.Detached) -> None:
        self.users[fact.key].is_detached = True
        self._let_go()

    def sac_active_is(self, fact: f.SacActive) -> None:
        self.sac_active = fact.key

    def handed_out(self, fact: f.Delivered) -> None:
        for number, sequence in enumerate(messages(fact)):
            key = fact.holders[number % len(fact.holders)]
            for record in self._move(iter((sequence,)), ("held", key), "ready", "requeued"):
                assert record.acquired == fact.ordinal

    def handed_over(self, fact: f.DeliveredWithoutAck) -> None:
        self._gone(fact, f.RemovalReason.HANDED_OVER, "ready", "requeued")

    def settled(self, fact: f.Settled) -> None:
        self._gone(fact, f.RemovalReason.ACKED, "held")

    def returned(self, fact: f.Requeued) -> None:
        place = ("delayed", fact.ready_at_ms) if fact.ready_at_ms else ("requeued",)
        for record in self._move(messages(fact), place, "held"):
            assert record.acquired == fact.ordinal
            record.acquired += 1
            record.failed = fact.delivery_count
        self._let_go()

    def matured(self, fact: f.DelayElapsed) -> None:
        list(self._move(messages(fact), ("requeued",), "delayed"))

    def dropped(self, fact: f.Dropped) -> None:
        self._gone(fact, fact.reason, "held" if fact.holder else "ready", "requeued")

    def dead_lettering(self, fact: f.DeadLettering) -> None:
        place = ("pending", fact.reason, fact.time_ms)
        list(self._move(messages(fact), place, "held" if fact.holder else "ready", "requeued"))
        self._let_go()

    def dead_lettered(self, fact: f.DeadLettered) -> None:
        self._gone(fact, f.RemovalReason.DEAD_LETTERED, "pending")

    def purged(self, fact: f.Purged) -> None:
        self._gone(fact, f.RemovalReason.PURGED, "ready", "requeued", "delayed", "pending")

    def _gone(self, fact: Any, reason: f.RemovalReason, *origins: str) -> None:
        list(self._move(messages(fact), ("gone", reason), *origins))
        self._let_go()

    def spec_changed(self, fact: f.SpecChanged) -> None:
        self.revision, self.spec = fact.revision, fact.spec

    def version_announced(self, fact: f.VersionAnnounced) -> None:
        self.versions[fact.member] = fact.version

    def arrived(self, fact: f.Arrived) -> None:
        term, numbers = self.sources.get(fact.source, (0, set[int]()))
        new = set(messages(fact))
        assert fact.term >= term
        assert not new & numbers, "none comes twice"
        self.sources[fact.source] = fact.term, numbers | new

    def arrivals_known(self, fact: f.ArrivalsKnown) -> None:
        term, numbers = self.sources.get(fact.source, (0, set[int]()))
        assert fact.term >= term
        left = {number for number in numbers - set(messages(fact)) if number >= fact.below}
        self.sources[fact.source] = fact.term, left

    def source_gone(self, fact: f.SourceGone) -> None:
        self.sources.pop(fact.source, None)

    def remembered(self, fact: f.Remembered) -> None:
        packed = fact.packed
        for key in [packed[at : at + KEY.size] for at in range(0, len(packed), KEY.size)]:
            self.known = [other for other in self.known if other[:16] != key[:16]] + [key]
        self.known = self.known[len(self.known) - fact.kept :]

    DO: ClassVar[dict[type[f.Fact], Callable[[ReferenceModel, Any], None]]] = {
        f.Published: published,
        f.OperationsRejected: refused,
        f.OperationsDone: published,
        f.OperationDoneWithAnswer: answered,
        f.Acknowledged: acknowledged,
        f.SessionOpened: session_opened,
        f.SessionClosed: session_closed,
        f.ConsumerAttached: attached,
        f.GetterAttached: attached,
        f.Detached: detached,
        f.SacActive: sac_active_is,
        f.Delivered: handed_out,
        f.DeliveredWithoutAck: handed_over,
        f.Settled: settled,
        f.Requeued: returned,
        f.DelayElapsed: matured,
        f.Dropped: dropped,
        f.DeadLettering: dead_lettering,
        f.DeadLettered: dead_lettered,
        f.Purged: purged,
        f.SpecChanged: spec_changed,
        f.VersionAnnounced: version_announced,
        f.Remembered: remembered,
        f.Arrived: arrived,
        f.ArrivalsKnown: arrivals_known,
        f.SourceGone: source_gone,
    }


def messages(fact: Any) -> Iterator[int]:
    return (sequence for run in fact.runs for sequence in run)
