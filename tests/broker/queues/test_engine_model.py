"""The queue against a naive one: a list of what is ready and dicts of who holds what.

The machine drives a queue as two channels would, with their real ledgers of delivery tags, and
replays everything the queue hands out, one message at a time, against rules a child can check.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fluffle.broker.core.settlement import Stretch, Unacked
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.queue_api import (
    UNLIMITED,
    Consumer,
    DeliveryBatch,
    Outcome,
    SharedCredit,
)
from tests.broker.queues.queue_harness import ORIGIN, OTHER_ORIGIN, FakeSink
from tests.suite.seeds import machine_settings
from tests.support.no_timeout import NoTimeoutHolder
from tests.support.queue_host import FakeQueueHost

OUTCOMES = {"drop": Outcome.ACKED, "give back": Outcome.NACK_REQUEUED}


@dataclass
class Message:
    """A message as the naive queue knows it."""

    sequence: int
    is_other: bool
    was_handed_out: bool = False

    @property
    def content(self) -> bytes:
        return b"message %d" % self.sequence


@dataclass
class Getter(NoTimeoutHolder):
    """Holder of what basic.get took."""

    queue: Queue
    no_ack: bool

    def took(self, delivery_batch: DeliveryBatch) -> None:
        """Nothing limits it."""

    def settled(self, count: int) -> None:
        """Nothing waits."""

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        raise AssertionError("what basic.get takes is its answer, not a delivery")


def kept() -> Unacked:
    """A ledger of a channel in a transaction."""
    unacked = Unacked()
    unacked.keep()
    return unacked


@dataclass
class Client:
    """A channel: its ledger, and the naive one beside it."""

    unacked: Unacked = field(default_factory=kept)
    shared: SharedCredit = field(default_factory=SharedCredit)
    held: dict[int, tuple[Message, Consumer | None]] = field(default_factory=dict)
    """Messages by delivery tag; the consumer is None for basic.get."""
    next_tag: int = 1


@dataclass
class Member:
    """A consumer that is attached, its client's end, and what it still takes by naive account."""

    consumer: Consumer
    sink: FakeSink
    client: Client
    sink_room: int = UNLIMITED

    @property
    def priority(self) -> int:
        return self.consumer.priority

    def has_room(self, held: Counter[Consumer | None], held_by_client: Counter[int]) -> bool:
        consumer, shared = self.consumer, self.client.shared
        if shared.limit and held_by_client[id(shared)] >= shared.limit:
            return False
        is_full = consumer.prefetch and held[consumer] >= consumer.prefetch
        return self.sink_room > 0 and (consumer.no_ack or not is_full)


class QueueMachine(RuleBasedStateMachine):
    """Each rule does something to the queue and the same to the naive one."""

    members: Bundle[Member] = Bundle("members")
    spec = QueueSpec("q")

    def __init__(self) -> None:
        super().__init__()
        self.is_touched = False
        self.early: list[DeliveryBatch] = []
        """Messages that were handed out before the end of the turn, and has not been looked at."""
        self.is_owed = False
        """True if somebody had room for what has been published since the last turn."""
        self.queue = Queue(self.spec, FakeQueueHost(self.touch, deliver=self.early.extend))
        self.active: Member | None = None
        """Single active consumer, if the queue has one."""
        self.clients = [Client(), Client()]
        self.attached: list[Member] = []
        self.ready: list[Message] = []
        self.enqueued = self.settled = self.purged = 0

    def touch(self, queue: Queue) -> None:
        assert queue is self.queue
        self.is_touched = True

    # Publishing

    @rule(count=st.integers(1, 9), is_other=st.integers(0, 3).map(lambda chance: not chance))
    def enqueue(self, count: int, is_other: bool) -> None:
        batch = [Message(self.enqueued + 1 + at, is_other) for at in range(count)]
        contents = [message.content for message in batch]
        origins = [OTHER_ORIGIN if is_other else ORIGIN] * count
        self.queue.enqueue(origins, contents, sum(map(len, contents)))
        self.ready += batch
        self.enqueued += count
        self.is_owed = self.is_owed or self.somebody_has_room

    @rule()
    def purge(self) -> None:
        purged = self.queue.purge()
        self.look_before()
        assert purged == len(self.ready)
        self.purged += len(self.ready)
        self.ready.clear()

    # Consumers

    @initialize(target=members, client=st.integers(0, 1), first=st.booleans(), second=st.booleans())
    def attach_two(self, client: int, first: bool, second: bool) -> MultipleResults[Member]:
        """Most of what can go wrong needs two."""
        return multiple(
            self.add_member(0, prefetch=2 * first),
            self.add_member(client, prefetch=3 * second),
        )

    @rule(
        target=members,
        client=st.integers(0, 1),
        prefetch=st.sampled_from([0, 0, 1, 2, 3]),
        priority=st.sampled_from([0, 0, 0, 0, 0, 5, -1]),
        no_ack=st.sampled_from([False, False, False, True]),
    )
    def attach(self, client: int, prefetch: int, priority: int, no_ack: bool) -> Member:
        return self.add_member(client, prefetch=prefetch, priority=priority, no_ack=no_ack)

    def add_member(
        self, client: int, *, prefetch: int, priority: int = 0, no_ack: bool = False
    ) -> Member:
        sink, shared = FakeSink(), self.clients[client].shared
        consumer = Consumer(
            f"c{len(self.attached)}",
            self.queue,
            sink,
            shared=shared,
            prefetch=prefetch,
            priority=priority,
            no_ack=no_ack,
        )
        self.queue.attach(consumer)
        self.look_before()
        self.attached.append(Member(consumer, sink, self.clients[client]))
        return self.attached[-1]

    @rule(member=consumes(members), is_gone=st.booleans())
    def detach(self, member: Member, is_gone: bool) -> None:
        """A consumer is cancelled, or its client is gone and gets nothing more."""
        if not is_gone:
            self.queue.deliver_ready()
            self.look_before()
        self.queue.detach(member.consumer)
        self.attached.remove(member)
        assert not self.early

    @rule(member=members)
    def shut_sink(self, member: Member) -> None:
        member.sink.left = member.sink_room = 0

    @rule(member=members, room=st.sampled_from([1, 2, UNLIMITED]))
    def open_sink(self, member: Member, room: int) -> None:
        member.sink_room = room
        member.sink.open(room)

    @rule(client=st.integers(0, 1), limit=st.sampled_from([0, 1, 2, 4, 7]))
    def limit_channel(self, client: int, limit: int) -> None:
        self.queue.deliver_ready()
        self.look_before()
        self.clients[client].shared.limit = limit
        self.clients[client].shared.wake()

    # Handing out

    @rule()
    def turn(self) -> None:
        """Run the end of a turn, until the queue asks for no more."""
        handed_out: list[DeliveryBatch] = []
        while self.is_touched:
            self.is_touched = False
            handed_out += self.queue.pump()
        assert not self.early
        self.look(handed_out)
        self.is_owed = False
        if self.ready:
            assert not self.somebody_has_room, "messages are ready, and a consumer has room"

    def look_before(self) -> None:
        """Check earlier publishes before the step just made, which is not recorded yet."""
        self.look(self.early)
        self.early.clear()
        if self.is_owed and self.ready:
            assert not self.somebody_has_room, "a consumer had room for what was published before"
        self.is_owed = False

    @property
    def somebody_has_room(self) -> bool:
        held, held_by_client = self.counts()
        return any(one.has_room(held, held_by_client) for one in self.served())

    def look(self, delivery_batches: list[DeliveryBatch]) -> None:
        """Both ledgers take what was handed out, and it was right."""
        handed_out: list[tuple[int, Member, bool, bytes]] = []
        for delivery_batch in delivery_batches:
            member = next(one for one in self.attached if one.consumer is delivery_batch.holder)
            member.sink.deliver(delivery_batch)
            assert delivery_batch.contents, "an empty run"
            handed_out += [
                (sequence, member, delivery_batch.redelivered, content)
                for sequence, content in zip(
                    delivery_batch.sequences, delivery_batch.contents, strict=True
                )
            ]
            self.hold(member.client, delivery_batch, member.consumer)
        self.replay(handed_out)

    def served(self) -> list[Member]:
        """Members that may be delivered messages."""
        if not self.spec.single_active_consumer:
            return self.attached
        if self.active is None:
            return []
        active = self.active
        gives_way = self.spec.queue_type is QueueType.QUORUM
        is_last = gives_way and any(one.priority > active.priority for one in self.attached)
        return [] if is_last else [active]

    @invariant()
    def one_is_active(self) -> None:
        """The first in line, once who was before has gone, or may go."""
        if not self.spec.single_active_consumer:
            return
        first = max(self.attached, key=lambda one: one.priority, default=None)
        if self.active not in self.attached:
            self.active = first
        elif self.spec.queue_type is QueueType.QUORUM and first is not None:
            holds = self.counts()[0][self.active.consumer]
            if first.priority > self.active.priority and not holds:
                self.active = first
        active = [one for one in self.attached if one.consumer.is_active]
        assert active == ([self.active] if self.active else [])

    def replay(self, handed_out: list[tuple[int, Member, bool, bytes]]) -> None:
        """Replay deliveries one message at a time, oldest first, to members that a fair queue might
        choose."""
        held, held_by_client = self.counts()
        for _, member, *_rest in handed_out:
            if not member.consumer.no_ack:
                held[member.consumer] -= 1
                held_by_client[id(member.client.shared)] -= 1
        since_last: dict[int, Counter[int]] = {}
        for sequence, member, redelivered, content in sorted(handed_out, key=lambda step: step[0]):
            message = self.ready.pop(0)
            assert (sequence, content) == (message.sequence, message.content), "out of order"
            assert redelivered == message.was_handed_out
            message.was_handed_out = True
            have_room = [one for one in self.served() if one.has_room(held, held_by_client)]
            assert member in have_room, "more than its limits allow"
            priority = max(one.consumer.priority for one in have_room)
            assert member.consumer.priority == priority, "somebody comes first"
            self.check_turn(since_last, member, have_room)
            member.sink_room -= 1
            if member.consumer.no_ack:
                self.settled += 1
            else:
                held[member.consumer] += 1
                held_by_client[id(member.client.shared)] += 1

    def check_turn(
        self, since_last: dict[int, Counter[int]], member: Member, have_room: list[Member]
    ) -> None:
        """Equals that had room all the time since `member`'s last message had one each."""
        others = [
            one
            for one in have_room
            if one is not member and one.consumer.priority == member.consumer.priority
        ]
        for counts in since_last.values():
            counts[id(member)] += 1
            for key in list(counts):
                if key not in map(id, have_room):
                    counts[key] = -1000
        if id(member) in since_last:
            counts = since_last[id(member)]
            assert all(counts[id(one)] in (1, -1000) for one in others), "not in turn"
        since_last[id(member)] = Counter({id(one): 0 for one in others})

    def hold(
        self, client: Client, delivery_batch: DeliveryBatch, consumer: Consumer | None
    ) -> None:
        """Both ledgers take what was handed out."""
        assert client.unacked.number(delivery_batch) == client.next_tag
        for sequence in delivery_batch.sequences:
            if not delivery_batch.holder.no_ack:
                message = next(one for one in self.ready if one.sequence == sequence)
                client.held[client.next_tag] = (message, consumer)
            client.next_tag += 1

    @rule(client=st.integers(0, 1), no_ack=st.booleans())
    def get(self, client: int, no_ack: bool) -> None:
        delivery_batch = self.queue.get(Getter(self.queue, no_ack))
        self.look_before()
        if delivery_batch is None:
            assert not self.ready
            return
        message = self.ready[0]
        assert delivery_batch.contents == [message.content]
        assert delivery_batch.redelivered == message.was_handed_out
        self.hold(self.clients[client], delivery_batch, None)
        self.ready.pop(0)
        message.was_handed_out = True
        self.settled += no_ack

    # Settling

    def settle(self, client: Client, stretches: list[Stretch], tags: list[int], verb: str) -> None:
        """Both queues drop or take back `tags`, which the ledger says are `stretches`."""
        assert tags == [
            delivery_batch.first_tag + index
            for delivery_batch, start, stop in stretches
            for index in range(start, stop)
        ]
        if verb == "roll back":
            for stretch in stretches:
                client.unacked.unsettle(*stretch)
            return
        self.queue.deliver_ready()
        self.look_before()
        for stretch in stretches:
            self.queue.settle(*stretch, OUTCOMES[verb])
        assert not self.early
        messages = [client.held.pop(tag)[0] for tag in tags]
        if verb == "drop":
            self.settled += len(tags)
        else:
            self.ready = sorted(self.ready + messages, key=lambda message: message.sequence)

    VERBS = st.sampled_from(["drop", "drop", "give back", "roll back"])

    @precondition(lambda self: any(client.held for client in self.clients))
    @rule(data=st.data(), count=st.integers(1, 4), verb=VERBS)
    def settle_some(self, data: st.DataObject, count: int, verb: str) -> None:
        """A tag and those that follow, as far as they are known."""
        client = data.draw(st.sampled_from([one for one in self.clients if one.held]))
        first = data.draw(st.sampled_from(sorted(client.held)))
        known = [tag for tag in range(first, first + count) if tag in client.held]
        before_gap = [tag for at, tag in enumerate(known) if tag == first + at]
        stretches, unknown_tag = client.unacked.take(first, first + count - 1)
        gap = first + len(before_gap)
        assert unknown_tag == (gap if gap < first + count else None)
        self.settle(client, stretches, before_gap, verb)

    @precondition(lambda self: any(client.held for client in self.clients))
    @rule(data=st.data(), verb=VERBS, is_all=st.booleans())
    def settle_up_to(self, data: st.DataObject, verb: str, is_all: bool) -> None:
        client = data.draw(st.sampled_from([one for one in self.clients if one.held]))
        last = data.draw(st.sampled_from(sorted(client.held)))
        stretches, unknown_tag = client.unacked.take_up_to(0 if is_all else last)
        assert unknown_tag is None
        tags = [tag for tag in sorted(client.held) if is_all or tag <= last]
        self.settle(client, stretches, tags, verb)

    @rule(client=st.integers(0, 1), tag=st.integers(0, 30))
    def settle_unknown(self, client: int, tag: int) -> None:
        known = self.clients[client]
        if tag not in known.held:
            assert known.unacked.take(tag, tag) == ([], tag)
            if tag:
                assert known.unacked.take_up_to(tag) == ([], tag)

    # What holds at all times

    def counts(self) -> tuple[Counter[Consumer | None], Counter[int]]:
        """How many messages each consumer holds, and each channel through its consumers."""
        held, held_by_client = Counter[Any](), Counter[int]()
        for client in self.clients:
            for _message, consumer in client.held.values():
                held[consumer] += 1
                held_by_client[id(client.shared)] += consumer is not None
        return held, held_by_client

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        in_flight = sum(len(client.held) for client in self.clients)
        assert self.enqueued == len(self.ready) + in_flight + self.settled + self.purged
        assert self.queue.ready_count == len(self.ready)
        assert self.queue.in_flight == in_flight
        sequences = [message.sequence for message in self.ready]
        for client in self.clients:
            sequences += [message.sequence for message, _consumer in client.held.values()]
        assert len(sequences) == len(set(sequences))

    @invariant()
    def every_account_agrees(self) -> None:
        held, held_by_client = self.counts()
        for client in self.clients:
            assert len(client.unacked) == len(client.held)
            assert client.shared.in_flight == held_by_client[id(client.shared)]
        for member in self.attached:
            assert member.consumer.in_flight == held[member.consumer]
        assert set(self.queue.consumers) == {member.consumer for member in self.attached}
        assert self.queue.consumer_count == len(self.attached)


def test_a_queue_does_what_lists_would() -> None:
    run_state_machine_as_test(
        QueueMachine, settings=machine_settings(examples=300, stateful_step_count=50)
    )


class OneAtATime(QueueMachine):
    """The same where one consumer is served at a time."""

    spec = QueueSpec("q", single_active_consumer=True)


class HighestFirst(QueueMachine):
    """The same where it gives way to one of a higher priority."""

    spec = QueueSpec("q", queue_type=QueueType.QUORUM, single_active_consumer=True)


@pytest.mark.parametrize("machine", [OneAtATime, HighestFirst])
def test_one_consumer_at_a_time(machine: type[QueueMachine]) -> None:
    run_state_machine_as_test(
        machine, settings=machine_settings(examples=60, stateful_step_count=50)
    )
