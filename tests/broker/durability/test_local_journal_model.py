"""A durable queue and its journal against a model, through commits, crashes and orderly stops.

The model is a table of messages with the tickets of the commits that they were published and
settled in.  After a crash exactly those are there that were published by a commit that was done and
not settled by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, repeat

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fluffle.broker.base.message import Origin
from fluffle.broker.durability.local_journal import (
    NUMBER,
    SEEN,
    SPILL,
    LocalJournals,
    delete_spilled,
    read_seen,
)
from fluffle.broker.durability.priority_journal import LEVEL
from fluffle.broker.queues import ready_list
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.engine import Queue, QueueStores
from fluffle.broker.queues.expiry_times import NEVER_MS, Lifetimes, lifetimes_in
from fluffle.broker.queues.priority_ready_list import PriorityReadyList, level_of
from fluffle.broker.queues.queue_api import Consumer, DeliveryBatch, Outcome, SharedCredit
from fluffle.broker.queues.queue_view import messages_from
from fluffle.broker.runtime.commits import Commits
from fluffle.broker.runtime.turn import Turn
from fluffle.storage.disk import Disk, MemoryDisk
from tests.broker.queues.priority_harness import with_priority
from tests.storage.support import ManualWriter
from tests.suite.seeds import machine_settings
from tests.support.no_timeout import NoTimeoutSink
from tests.support.queue_host import FakeQueueHost
from tests.support.store import open_store

EACH_MS = [1 << 40, 1 << 41, 1 << 40, 1 << 39, 1 << 42]
"""TTLs of the messages of a batch, the longest that are used."""
ORIGINS = [Origin("ex", "a"), Origin("ex", "b"), Origin("", "q")]


@dataclass
class Message:
    content: bytes
    persistent: bool
    published: int
    """Ticket."""
    expires_at_ms: int = NEVER_MS
    settled: int | None = None
    was_handed_out: bool = False
    is_held: bool = False


class Sink(NoTimeoutSink):
    def __init__(self) -> None:
        self.rooms = 0

    def room(self, consumer: Consumer) -> int:
        return self.rooms

    def reserve(self, delivery_batch: DeliveryBatch) -> None:
        self.rooms -= len(delivery_batch.contents)

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        """The machine looks at what `pump` returns."""

    def cancelled(self, consumer: Consumer) -> None:
        """Ignore the cancel, which does not happen."""

    def activity_changed(self, consumer: Consumer) -> None:
        """Ignore the change: deliveries show it."""


class JournalMachine(RuleBasedStateMachine):
    spec = QueueSpec("q", durable=True)
    priorities: tuple[int | None, ...] = (None,)

    def __init__(self) -> None:
        super().__init__()
        self.disk = MemoryDisk()
        self.model: dict[int, Message] = {}
        """Messages by sequence number, without those that are gone."""
        self.next_content = 0
        self.groups: tuple[int, ...] = ()
        self.boot()
        self.commits.put("queue", b"q", b"")  # with it its groups are taken for good
        self.complete_commit()

    def boot(self) -> None:
        self.turn = Turn(lambda _act: None)
        self.store = open_store(self.disk, self.writer_on)
        self.commits = Commits(self.store, self.turn)
        seen = read_seen(self.store.catalog.items(SEEN))
        levels = self.store.catalog.items(LEVEL)
        journals = LocalJournals(self.store.log, self.commits, seen, levels)
        journal = (
            journals.reopen(self.groups) if self.groups else journals.create(journals.new_groups())
        )
        self.groups = journal.groups
        self.spill = journals.spill
        self.queue = Queue(self.spec, FakeQueueHost(self.touched), QueueStores(journal, self.spill))
        self.queue.recover()
        for group in seen:
            self.commits.remove(SEEN, NUMBER.pack(group))
        delete_spilled(self.store.catalog.items(SPILL), self.commits)
        self.held: list[DeliveryBatch] = []
        self.sinks = {no_ack: Sink() for no_ack in (False, True)}
        self.consumers = {
            no_ack: Consumer("c", self.queue, sink, shared=SharedCredit(), no_ack=no_ack)
            for no_ack, sink in self.sinks.items()
        }
        for consumer in self.consumers.values():
            self.queue.attach(consumer)
        self.complete_commit()

    def writer_on(self, disk: Disk, wake: object) -> ManualWriter:
        assert callable(wake)
        self.writer = ManualWriter(disk, wake)
        return self.writer

    def touched(self, _queue: Queue) -> None:
        """The machine pumps when it likes."""

    @rule(
        count=st.integers(1, 5),
        origin=st.sampled_from(ORIGINS),
        persistent=st.booleans() | st.just(True),
        expiration_ms=st.sampled_from([None, None, 1 << 40, (1 << 40) + 1, EACH_MS]),
        place=st.integers(0, 5),
    )
    def publish(
        self,
        count: int,
        origin: Origin,
        *,
        persistent: bool,
        expiration_ms: Lifetimes = None,
        place: int = 0,
    ) -> None:
        priority = self.priorities[place % len(self.priorities)]
        contents = [
            with_priority(f"{number}", priority)
            for number in range(self.next_content, self.next_content + count)
        ]
        self.next_content += count
        first = self.next_number(priority)
        ticket = self.commits.ticket
        origins, size_bytes = [origin] * count, sum(map(len, contents))
        expiration_ms = lifetimes_in(expiration_ms, slice(count))
        self.queue.enqueue(
            origins, contents, size_bytes, persistent=persistent, expiration_ms=expiration_ms
        )
        expires_ms = iter(
            expiration_ms if isinstance(expiration_ms, list) else repeat(expiration_ms)
        )
        for sequence, content in enumerate(contents, start=first):
            self.model[sequence] = Message(
                origin.routing_key.encode() + content,
                persistent,
                published=ticket,
                expires_at_ms=next(expires_ms) or NEVER_MS,
            )

    @rule(origin=st.sampled_from(ORIGINS), sheds=st.booleans())
    def pile_up(self, origin: Origin, *, sheds: bool) -> None:
        """Enqueue so much that most of it leaves memory, or all."""
        for _ in range(5):
            self.publish(3, origin, persistent=True)
        self.complete_commit()
        self.publish(4, origin, persistent=True)
        if sheds:
            self.complete_commit()
            self.queue.shed()
            self.publish(1, origin, persistent=True)

    @rule(no_ack=st.booleans(), room=st.integers(1, 20), is_sent=st.booleans())
    def consume(self, *, no_ack: bool, room: int, is_sent: bool) -> None:
        self.sinks[no_ack].rooms = room
        if self.consumers[no_ack].parked:
            self.queue.wake(self.consumers[no_ack])
        delivery_batches = self.queue.pump()
        for delivery_batch in delivery_batches:
            self.check(delivery_batch)
        for delivery_batch in delivery_batches:
            if not is_sent:
                delivery_batch.settle(0, len(delivery_batch.contents))
                self.queue.settle(delivery_batch, 0, len(delivery_batch.contents), Outcome.UNSENT)
                for sequence in delivery_batch.sequences:
                    self.model[sequence].is_held = False
            elif delivery_batch.holder.no_ack:
                self.mark_settled(delivery_batch.sequences)
            else:
                self.held.append(delivery_batch)
        self.sinks[no_ack].rooms = 0

    def check(self, delivery_batch: DeliveryBatch) -> None:
        """Check that a delivery is what the model expects next."""
        for at, sequence in enumerate(delivery_batch.sequences):
            message = self.model[sequence]
            text = delivery_batch.origins[at].routing_key.encode() + delivery_batch.contents[at]
            assert text == message.content
            expires_at_ms = (
                delivery_batch.expiries[at] if delivery_batch.expiries is not None else NEVER_MS
            )
            assert expires_at_ms == message.expires_at_ms, "time stands still here"
            assert not message.is_held
            assert message.settled is None
            assert delivery_batch.redelivered == message.was_handed_out
        for sequence in delivery_batch.sequences:
            self.model[sequence].is_held = self.model[sequence].was_handed_out = True
        ready = [n for n, m in self.model.items() if m.settled is None and not m.is_held]
        two = all(consumer.parked is False for consumer in self.consumers.values())
        assert (
            two
            or not ready
            or min(map(turn_of, ready)) > max(map(turn_of, delivery_batch.sequences))
        )

    def next_number(self, priority: int | None) -> int:
        """Sequence number of the next message with this priority."""
        ready_list = self.queue._ready_list
        if isinstance(ready_list, PriorityReadyList):
            ready_list = ready_list._at(priority or 0)
        return ready_list.numbers.next

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(),
        outcome=st.sampled_from([Outcome.ACKED, Outcome.REJECTED, Outcome.NACK_REQUEUED]),
    )
    def settle(self, data: st.DataObject, outcome: Outcome) -> None:
        delivery_batch = data.draw(st.sampled_from(self.held))
        start = data.draw(st.integers(0, len(delivery_batch.contents) - 1))
        stop = data.draw(st.integers(start + 1, len(delivery_batch.contents)))
        for part in delivery_batch.settle(start, stop):
            sequences = delivery_batch.sequences[part[0] : part[1]]
            self.queue.settle(delivery_batch, *part, outcome)
            if outcome is Outcome.NACK_REQUEUED:
                for sequence in sequences:
                    self.model[sequence].is_held = False
            else:
                self.mark_settled(sequences)
        if delivery_batch.is_settled:
            self.held.remove(delivery_batch)

    @precondition(lambda self: self.held)
    @rule(at=st.integers(0, 20), room=st.integers(1, 3))
    def crash_with_a_hole(self, at: int, room: int) -> None:
        """The first messages are settled but for one; the next process begins with them."""
        for delivery_batch in self.held:
            for start, stop in [(0, at), (at + 1, len(delivery_batch.contents))]:
                for part in delivery_batch.settle(start, min(stop, len(delivery_batch.contents))):
                    self.queue.settle(delivery_batch, *part, Outcome.ACKED)
                    self.mark_settled(delivery_batch.sequences[part[0] : part[1]])
        self.complete_commit()
        self.crash(is_done=False)
        self.consume(no_ack=False, room=room, is_sent=True)
        self.queue.shed()

    @rule(offset=st.integers(0, 20), count=st.integers(1, 20))
    def peek(self, offset: int, count: int) -> None:
        """Wherever they are, and whatever happens to them after that."""
        ready = [n for n, m in self.model.items() if m.settled is None and not m.is_held]
        ready.sort(key=turn_of)
        seen = list(islice(messages_from(self.queue.ready_view.stocks, offset), count))
        assert [message.sequence for message in seen] == ready[offset : offset + count]
        for sequence, origin, content, redelivered, _counts, expires_at_ms in seen:
            message = self.model[sequence]
            assert origin.routing_key.encode() + content == message.content
            assert expires_at_ms == message.expires_at_ms
            assert redelivered == message.was_handed_out

    @rule()
    def purge(self) -> None:
        ready = [n for n, m in self.model.items() if m.settled is None and not m.is_held]
        assert self.queue.purge() == len(ready)
        self.mark_settled(ready)

    def mark_settled(self, sequences: object) -> None:
        for sequence in sequences:  # type: ignore[attr-defined]
            self.model[sequence].settled = self.commits.ticket
            self.model[sequence].is_held = False

    @rule(is_short=st.booleans())
    def shed(self, *, is_short: bool) -> None:
        self.spill.is_wanted = is_short
        self.queue.shed()

    @rule()
    def begin_commit(self) -> None:
        self.commits.flush()

    @rule()
    def end_commit(self) -> None:
        self.writer.step()

    @rule(is_done=st.booleans())
    def crash(self, *, is_done: bool) -> None:
        """The process ends, before or after the commit that runs has reached the disk."""
        durable = self.commits.durable
        if is_done and self.writer.work is not None:
            self.writer.commit()
            durable += 1
        for message in self.model.values():
            if not message.persistent or message.published > durable:
                message.settled = 0
            elif message.settled is not None and message.settled > durable:
                message.settled = None
        self.restart()
        for message in self.model.values():
            message.was_handed_out = True

    @rule()
    def stop_in_order(self) -> None:
        for delivery_batch in self.held:
            for start, stop in delivery_batch.settle(0, len(delivery_batch.contents)):
                self.queue.settle(delivery_batch, start, stop, Outcome.LOST)
        for message in self.model.values():
            if not message.persistent:
                message.settled = 0
        unseen = {level_of(number): number for _group, number in self.queue.unseen}
        for group, number in self.queue.unseen:
            self.commits.put(SEEN, NUMBER.pack(group), NUMBER.pack(number))
        self.complete_commit()
        assert all(m.was_handed_out == (n < unseen[level_of(n)]) for n, m in self.live())
        self.restart()

    def live(self) -> list[tuple[int, Message]]:
        return [(n, m) for n, m in self.model.items() if m.settled is None]

    def restart(self) -> None:
        self.model = dict(self.live())
        for message in self.model.values():
            message.is_held = False
            message.published = 0
        self.disk = self.disk.after_power_loss()
        self.boot()

    def complete_commit(self) -> None:
        self.commits.flush()
        while self.writer.step():
            pass

    @invariant()
    def what_is_ready_is_counted(self) -> None:
        ready = [n for n, m in self.model.items() if m.settled is None and not m.is_held]
        assert self.queue.ready_count == len(ready)

    def teardown(self) -> None:
        """Check that messages settled everywhere have left the disk."""
        self.sinks[False].rooms = 1 << 20
        if self.consumers[False].parked:
            self.queue.wake(self.consumers[False])
        self.held += self.queue.pump()
        for delivery_batch in self.held:
            for start, stop in delivery_batch.settle(0, len(delivery_batch.contents)):
                self.queue.settle(delivery_batch, start, stop, Outcome.ACKED)
        self.complete_commit()
        assert self.store.log.groups() == []


def turn_of(sequence: int) -> tuple[int, int]:
    """The lower, the sooner."""
    return -level_of(sequence), sequence


class LevelMachine(JournalMachine):
    """The same of a queue with priorities."""

    spec = QueueSpec("q", durable=True, max_priority=9)
    priorities = (None, 0, 3, 3, 7, 9)


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the limits, so that a few messages are a backlog."""
    monkeypatch.setattr(ready_list, "SEGMENT_MESSAGES_MAX", 6)
    monkeypatch.setattr(ready_list, "FRONT_SEGMENTS", 1)
    monkeypatch.setattr(ready_list, "RECENT_SEGMENTS", 1)


@pytest.mark.parametrize("machine", [JournalMachine, LevelMachine])
def test_a_journal_keeps_what_its_queue_has(machine: type[JournalMachine]) -> None:
    run_state_machine_as_test(
        machine, settings=machine_settings(examples=200, stateful_step_count=60)
    )
