"""Histories of a replicated queue that are possible, drawn one operation at a time.

A `History` knows by its model what may happen, writes that down as facts, and makes entries of
them.  Chance is an argument, so that hypothesis can shrink what it finds and a seed repeats a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from fluffle.broker.base.message import MessageAnnotations, Origin
from fluffle.broker.queues.deduplication_window import KEY
from fluffle.broker.queues.delivery_counts import NEW, Counts, DeliveryCountIndex
from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum.entry_codec import (
    DEFAULT_PRIORITY,
    FIRST_VERSION,
    SINCE,
    FactBatch,
    columns_of,
    encode,
    pack_enqueued,
)
from fluffle.broker.queues.quorum.runs import runs_of
from tests.broker.queues.quorum.reference_model import MessageRecord, ReferenceModel

Item = TypeVar("Item")

ORIGINS = [Origin("", "q"), Origin("ex", "a"), Origin("ex", "b\udcff", MessageAnnotations.DIED)]
UNHELD_DEATHS = [f.RemovalReason.EXPIRED, f.RemovalReason.MAXLEN, f.RemovalReason.DELIVERY_LIMIT]


class Chance(Protocol):
    """`random.Random`, or hypothesis in its place."""

    def randint(self, low: int, high: int, /) -> int: ...

    def choice(self, items: Sequence[Item], /) -> Item: ...

    def sample(self, items: Sequence[Item], count: int, /) -> list[Item]: ...


class History:
    def __init__(self) -> None:
        self.model = ReferenceModel()
        self.index = 1
        """Index of the entry that is being written."""
        self._facts: list[f.Fact] = []
        self._origins: list[Origin] = []
        self._decided_by = 0
        """The revision of the specification when the entry was begun."""
        self._carried = DeliveryCountIndex()
        self._boots = 0

    def entry(self) -> bytes:
        """Finish the entry that is being written."""
        model = self.model
        count = len(self._origins)
        new = None
        if count:
            first = len(model.records) - count + 1
            records = [model.records[sequence] for sequence in range(first, first + count)]
            columns = columns_of(
                [record.priority for record in records],
                [record.expires_at_ms for record in records],
                self._carried.runs,
            )
            new = pack_enqueued(
                first, self._origins, [record.content for record in records], columns
            )
        batch = FactBatch(model.time_ms, self._decided_by, self._facts, new)
        payload = encode(batch, version_for(self._facts))
        self.index += 1
        self._facts, self._origins, self._decided_by = [], [], model.revision
        self._carried = DeliveryCountIndex()
        return payload

    def _say(self, fact: f.Fact) -> None:
        self.model.apply(fact)
        self._facts.append(fact)

    # Who is there

    def open_session(self, chance: Chance) -> None:
        self._boots += 1
        node = chance.choice(["a", "b"])
        self._say(f.SessionOpened(self.model.next_key, self._boots, 2**62, 1, node))

    def close_session(self, chance: Chance) -> None:
        for key in some(chance, self.model.streams, 1):
            if all(user.attached.session != key for user in self.model.users.values()):
                self._say(f.SessionClosed(key))

    def attach(self, chance: Chance) -> None:
        for session in some(chance, self.model.streams, 1):
            key = self.model.next_key
            if chance.randint(0, 3):
                no_ack = not chance.randint(0, 3)
                priority = chance.randint(-1, 1)
                self._say(
                    f.ConsumerAttached(key, session, 1, priority, 10, no_ack, False, "t", b"x")
                )
            else:
                self._say(f.GetterAttached(key, session, 2))

    def detach(self, chance: Chance) -> None:
        attached = [key for key, user in self.model.users.items() if not user.is_detached]
        for key in some(chance, attached, 1):
            if self.model.sac_active == key:
                self._say(f.SacActive(f.NO_HOLDER))
            self._say(f.Detached(key))

    def activate(self, chance: Chance) -> None:
        consumers = [
            key
            for key, user in self.model.users.items()
            if type(user.attached) is f.ConsumerAttached and not user.is_detached
        ]
        self._say(f.SacActive(chance.choice([f.NO_HOLDER, *consumers])))

    # What sessions do

    def publish(self, chance: Chance) -> None:
        for session in some(chance, self.model.streams, 1):
            count = chance.choice([1, 1, 2, 7, 40])
            expires_at_ms = chance.choice([0, self.model.time_ms + 5])
            priority = chance.choice([DEFAULT_PRIORITY, DEFAULT_PRIORITY, 9])
            is_mixed, brought = not chance.randint(0, 4), drawn_counts(chance, 9)
            for _ in range(count):
                if is_mixed:
                    expires_at_ms, priority = chance.randint(0, 9), chance.randint(0, 31)
                    brought = drawn_counts(chance, 30)
                self._enqueue(chance, expires_at_ms, priority, brought)
            first = self.model.streams[session].next
            self._say(f.Published(session, first, count))

    def _enqueue(self, chance: Chance, expires_at_ms: int, priority: int, brought: Counts) -> None:
        origin = chance.choice(ORIGINS)
        number = len(self.model.records) + 1
        record = MessageRecord(
            b"message %d" % number, origin.exchange, origin.routing_key, self.index
        )
        record.expires_at_ms, record.priority, record.since = expires_at_ms, priority, number
        record.acquired, record.failed = brought
        self._carried.put(len(self._origins), len(self._origins) + 1, brought)
        self._origins.append(origin)
        self.model.enqueue(record)

    def refuse(self, chance: Chance) -> None:
        for session in some(chance, self.model.streams, 1):
            self._say(
                f.OperationsRejected(
                    session, self.model.streams[session].next, chance.randint(1, 3)
                )
            )

    def act(self, chance: Chance) -> None:
        for session in some(chance, self.model.streams, 1):
            number = self.model.streams[session].next
            if chance.randint(0, 1):
                self._say(f.OperationsDone(session, number, chance.randint(1, 2)))
            else:
                self._say(f.OperationDoneWithAnswer(session, number, number * 10))

    def acknowledge(self, chance: Chance) -> None:
        for session in some(chance, self.model.streams, 1):
            below = chance.randint(1, self.model.streams[session].next)
            self._say(f.Acknowledged(session, below))

    # What becomes of messages

    def deliver_ready(self, chance: Chance) -> None:
        """Mostly the first ones, in turn to some consumers."""
        holders = self._served(holds=True)
        for ordinal, sequences in self._waiting(chance):
            dealt_to = some(chance, holders, 3)
            if dealt_to:
                self._say(f.Delivered(ordinal, dealt_to, runs_of(sequences)))

    def hand_over(self, chance: Chance) -> None:
        holders = self._served(holds=False)
        for ordinal, sequences in self._waiting(chance):
            if dealt_to := some(chance, holders, 2):
                self._say(f.DeliveredWithoutAck(ordinal, dealt_to, runs_of(sequences)))

    def _served(self, *, holds: bool) -> list[int]:
        return [
            key
            for key, user in self.model.users.items()
            if not user.is_detached
            and self.model.sac_active in (f.NO_HOLDER, key)
            and (isinstance(user.attached, f.GetterAttached) or user.attached.no_ack != holds)
        ]

    def _waiting(self, chance: Chance) -> list[tuple[int, list[int]]]:
        """Some that may be handed out, those of one place and one ordinal together."""
        place = chance.choice(["ready", "requeued"])
        return self._by_ordinal(chosen(chance, self.model.at(place)))

    def _by_ordinal(self, sequences: Iterable[int]) -> list[tuple[int, list[int]]]:
        grouped: dict[int, list[int]] = {}
        for sequence in sequences:
            grouped.setdefault(self.model.records[sequence].acquired, []).append(sequence)
        return list(grouped.items())

    def settle(self, chance: Chance) -> None:
        for key, ordinal, sequences in self._held(chance):
            self._say(f.Settled(key, ordinal, runs_of(sequences)))

    def give_back(self, chance: Chance) -> None:
        """Requeue messages with equal counts together, as failures or not."""
        has_failed, ready_at_ms = chance.randint(0, 1), chance.choice([0, 0, 50])
        for key, ordinal, sequences in self._held(chance):
            for sequence in sequences:
                delivery_count = self.model.records[sequence].failed + has_failed
                self._say(
                    f.Requeued(
                        key,
                        ordinal,
                        delivery_count,
                        chance.choice(list(f.RequeueReason)),
                        ready_at_ms,
                        [range(sequence, sequence + 1)],
                    )
                )

    def lose_holder(self, chance: Chance) -> None:
        """All that it holds comes back, in the order in which it got that."""
        for key in some(chance, self.model.users, 1):
            for ordinal, sequences in self._by_ordinal(self.model.at("held", key)):
                failed = {self.model.records[sequence].failed for sequence in sequences}
                for delivery_count in failed:
                    alike = [s for s in sequences if self.model.records[s].failed == delivery_count]
                    self._say(
                        f.Requeued(
                            key, ordinal, delivery_count, f.RequeueReason.LOST, 0, runs_of(alike)
                        )
                    )

    def reject(self, chance: Chance) -> None:
        is_kept = chance.randint(0, 1)
        for key, ordinal, sequences in self._held(chance):
            rejected, runs = f.RemovalReason.REJECTED, runs_of(sequences)
            kept = f.DeadLettering(rejected, self.model.time_ms, key, ordinal, runs)
            self._say(kept if is_kept else f.Dropped(rejected, key, ordinal, runs))

    def _held(self, chance: Chance) -> list[tuple[int, int, list[int]]]:
        """Some that somebody holds: who, with which ordinal."""
        return [
            (key, ordinal, sequences)
            for key in some(chance, self.model.users, 2)
            for ordinal, sequences in self._by_ordinal(chosen(chance, self.model.at("held", key)))
        ]

    def mature(self, chance: Chance) -> None:
        if sequences := chosen(chance, self.model.at("delayed")):
            self._say(f.DelayElapsed(runs_of(sequences)))

    def die(self, chance: Chance) -> None:
        """Messages that nobody holds expire, are too many or came back too often."""
        reason, is_kept = chance.choice(UNHELD_DEATHS), chance.randint(0, 1)
        for ordinal, sequences in self._waiting(chance):
            runs = runs_of(sequences)
            kept = f.DeadLettering(reason, self.model.time_ms, f.NO_HOLDER, ordinal, runs)
            self._say(kept if is_kept else f.Dropped(reason, f.NO_HOLDER, ordinal, runs))

    def republish(self, chance: Chance) -> None:
        if sequences := chosen(chance, self.model.at("pending")):
            self._say(f.DeadLettered(runs_of(sequences)))

    def purge(self, chance: Chance) -> None:
        if chance.randint(0, 3):
            return  # a queue that is purged all the time is a dull one
        runs = [
            run
            for place in ("ready", "requeued", "delayed", "pending")
            for run in runs_of(self.model.at(place))
        ]
        if runs:
            self._say(f.Purged(runs))

    # The queue itself

    def change_spec(self, chance: Chance) -> None:
        revision = self.model.revision + chance.randint(1, 3)
        self._say(f.SpecChanged(revision, b"spec %d" % revision))

    def announce(self, chance: Chance) -> None:
        version = max(self.model.versions.values(), default=0) + 1
        self._say(f.VersionAnnounced(version, chance.choice(["a", "b", "c"])))

    def remember(self, chance: Chance) -> None:
        """Keys come in, some that were known before among them, and the oldest may go."""
        names = [chance.randint(1, 9).to_bytes(16, "big") for _ in range(chance.randint(0, 4))]
        packed = b"".join(KEY.pack(name, chance.randint(0, 3)) for name in names)
        known = {key[:16] for key in self.model.known}.union(names)
        self._say(f.Remembered(packed, chance.randint(0, len(known))))

    def pass_time(self, chance: Chance) -> None:
        self.model.time_ms += chance.randint(0, 100)


OPERATIONS: list[Callable[[History, Any], None]] = [
    History.open_session,
    History.close_session,
    History.attach,
    History.attach,
    History.detach,
    History.activate,
    History.publish,
    History.publish,
    History.publish,
    History.refuse,
    History.act,
    History.acknowledge,
    History.deliver_ready,
    History.deliver_ready,
    History.deliver_ready,
    History.deliver_ready,
    History.hand_over,
    History.settle,
    History.settle,
    History.settle,
    History.give_back,
    History.lose_holder,
    History.reject,
    History.mature,
    History.die,
    History.republish,
    History.purge,
    History.change_spec,
    History.announce,
    History.remember,
    History.pass_time,
]
"""Steps; those listed several times happen more often."""


def drawn_counts(chance: Chance, rarely: int) -> Counts:
    """Random delivery counts that messages brought along, mostly none."""
    if chance.randint(0, rarely):
        return NEW
    return Counts(chance.randint(0, 2), chance.randint(0, 2))


def version_for(facts: Iterable[f.Fact]) -> int:
    """In which they can be written."""
    return max((SINCE.get(type(fact), FIRST_VERSION) for fact in facts), default=FIRST_VERSION)


def some(chance: Chance, items: Iterable[Item], at_most: int) -> list[Item]:
    """Between one and so many, if there are any."""
    items = list(items)
    if not items:
        return []
    return chance.sample(items, chance.randint(1, min(at_most, len(items))))


def chosen(chance: Chance, sequences: list[int]) -> list[int]:
    """All, the first ones, every other, or any, in the order given."""
    if not sequences:
        return []
    count = chance.randint(1, len(sequences))
    ways: list[Callable[[], list[int]]] = [
        lambda: sequences,
        lambda: sequences[:count],
        lambda: sequences[:count],
        lambda: sequences[::2],
        lambda: sorted(chance.sample(sequences, count), key=sequences.index),
    ]
    return chance.choice(ways)()
