"""A broker that writes its clients' histories itself, and lies in one way on request.

One publisher, two consumers, a durable queue, one that is steady and one that is transient.  What
is committed is copied to a disk, which is all that a crash leaves.  What is sent to a consumer is
read later, in order; meanwhile the broker may have given the consumer up, so that somebody else
reads the message first.  The honest one is what a broker is, in two hundred lines; the liars are
there to see that the checker finds them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from random import Random

from fluffle.broker.torture.history import (
    Abandoned,
    Acked,
    Answered,
    Asked,
    Clearing,
    ClearingAsked,
    ClearingDone,
    Closing,
    Confirmed,
    Connected,
    DeclareAsked,
    Declared,
    Ended,
    Event,
    GraceOver,
    Invoked,
    Isolated,
    Locked,
    Looked,
    MessageId,
    Operation,
    Owned,
    Published,
    Received,
    Refused,
    Rejoined,
    Requeued,
    Returned,
    RunEnded,
    ShortLived,
    Vouched,
)

DURABLE, STEADY, TRANSIENT = "durable", "steady", "transient"
PREFETCH = 8


class BrokerFault(Enum):
    """Fault that a broker must not have."""

    LOSE_IN_A_CRASH = auto()
    """A message that was confirmed."""
    CONFIRM_EARLY = auto()
    """Before it is on disk."""
    CONFIRM_ALONE = auto()
    """On a node that the others cannot hear."""
    FORGET_ACKS = auto()
    """In a crash, though they were vouched for."""
    HIDE_REDELIVERY = auto()
    COUNT_BACKWARDS = auto()
    """The deliveries that were in vain."""
    INVENT = auto()
    SWAP = auto()
    """Two messages that were never delivered."""
    SWAP_STEADY = auto()
    """Two messages after a crash."""
    HAND_OUT_TWICE = auto()
    DELIVER_ACKED = auto()
    """Again, to a consumer that has long been there."""
    KEEP_PURGED = auto()
    KEEP_DELETED = auto()
    LOSE_QUEUE = auto()
    KEEP_TRANSIENT_QUEUE = auto()
    KEEP_TRANSIENT_MESSAGE = auto()
    SWALLOW = auto()
    """A message that should come back as unroutable."""
    RETURN_ROUTABLE = auto()
    ROUTE_BY_THE_PAST = auto()
    """A message whose queue was there: it is confirmed and goes nowhere."""
    CONFIRM_FOR_THE_FORMER = auto()
    """A message to a queue that was declared anew: it goes to the one before."""
    RETURN_FOR_THE_FORMER = auto()
    """Such a message, as the one before is gone."""
    LOOK_INTO_THE_PAST = auto()
    """A look at a thing that was declared or deleted by a later answer."""
    DELETE_NOTHING = auto()
    """A delete of nothing, as the thing is not there by what was known before."""
    DECLARE_NOTHING = auto()
    """A declare of nothing, as it is there already by what was known before."""
    KEEP_LOCK = auto()
    """The lock of a connection that has ended."""


@dataclass(slots=True, eq=False)
class Copy:
    """A message in a queue."""

    message: MessageId
    persistent: bool = True
    redelivered: bool = False


@dataclass(slots=True, eq=False)
class Consumer:
    """A channel of a client, at both ends."""

    queue: str
    channel: str
    wire: deque[Event] = field(default_factory=deque)
    """Events sent to it and not read."""
    unacked: list[MessageId] = field(default_factory=list)
    """Messages that it has read and not settled."""
    held: list[Copy] = field(default_factory=list)
    """Copies that it holds by the broker's account."""
    is_asking: bool = False
    is_given_up: bool = False
    """The broker thinks it gone; it does not know."""


@dataclass(slots=True)
class FaultyQueue:
    """A queue."""

    consumers: list[Consumer]
    ready: list[Copy] = field(default_factory=list)
    in_vain: Counter[MessageId] = field(default_factory=Counter)
    """How often they were delivered; no crash forgets it."""

    def everything(self) -> list[Copy]:
        """In the order of their publishing."""
        held = [copy for consumer in self.consumers for copy in consumer.held]
        return sorted(self.ready + held, key=lambda copy: copy.message)

    def take_back(self, *copies: Copy) -> None:
        self.in_vain.update(copy.message for copy in copies)
        self.ready = sorted([*self.ready, *copies], key=lambda copy: copy.message)


class FaultyBroker:
    """Writes a history of its own making; `lie` is what it does wrong, now and then."""

    def __init__(self, random: Random, lie: BrokerFault | None = None) -> None:
        self.history: list[Event] = [
            *(Connected(client, "node") for client in ("publisher", "x", "y", "z")),
            ShortLived(DURABLE),
        ]
        self.lies = 0
        self._random = random
        self._lie = lie
        self._number = 0
        self._queues: dict[str, FaultyQueue] = {}
        self._disk: dict[str, list[Copy]] = {}
        self._unconfirmed: list[MessageId] = []
        self._is_alone = False
        self._locked: list[str] = []
        """Exclusive queues that a liar keeps."""
        self._buried: dict[str, list[Copy]] = {DURABLE: [], STEADY: []}
        """Copies that the faulty broker brings back in the next crash."""
        self._channels = 0
        self._askers: dict[str, Operation | None] = dict.fromkeys(("x", "y", "z"))
        """The operation whose answer each of them waits for."""
        self._effects: dict[str, bool] = {}
        """Results of the awaited operations: True if the object existed."""
        self._is_there = self._was_there = False
        """The thing that they ask about, now and some time ago."""

    def live(self, steps: int) -> list[Event]:
        """Take `steps` random steps, then crash, and receive everything."""
        for queue in (DURABLE, STEADY, TRANSIENT):
            self._declare(queue)
        acts: list[Callable[[], None]] = [
            *[self._publish] * 4, self._commit, *[self._deliver] * 4, *[self._hear] * 6,
            *[self._settle] * 3, *[self._ask] * 2, self._leave, self._clear, self._look,
            self._isolate,
        ]  # fmt: skip
        asides = (self._ask_about, *[self._answer] * 4, self._own)
        for _ in range(steps):
            if self._random.random() < 0.02:
                self._crash()
            self._random.choice(acts)()
            self._random.choice(asides)()
        self._clear_by(Clearing.DELETE)  # what its successor has is not cleared any more
        for _ in range(20):
            self._publish()
        self._commit()
        self._crash()
        waiting = [client for client, operation in self._askers.items() if operation]
        self._note(*(Abandoned(client, "thing") for client in waiting))
        self._note(GraceOver(), *(Locked(queue) for queue in self._locked))
        for _ in range(3_000):
            self._deliver()
            self._hear()
            self._settle()
        return self.history

    def _lies(self, lie: BrokerFault, chance: float = 0.5) -> bool:
        if self._lie is not lie or self._random.random() > chance:
            return False
        self.lies += 1
        return True

    def _note(self, *events: Event) -> None:
        self.history.extend(events)

    def _consumer(self, queue: str = "") -> Consumer:
        line = self._queues[queue or self._random.choice([*self._queues])]
        return self._random.choice(line.consumers)

    # Publishing

    def _next_message(self) -> MessageId:
        self._number += 1
        return MessageId("publisher", self._number)

    def _publish(self) -> None:
        message = self._next_message()
        queue = self._random.choice((DURABLE, DURABLE, STEADY, TRANSIENT, None))
        persistent = self._random.random() < 0.7
        if queue is None:
            self._note(Published(message, (), persistent))
            if not self._lies(BrokerFault.SWALLOW):
                self._note(Returned(message))
            self._note(Confirmed(message))
            return
        self._note(Published(message, (queue,), persistent))
        if self._random.random() < 0.05:
            self._note(Refused(message))
            return
        if self._lies(BrokerFault.RETURN_ROUTABLE, 0.1):
            self._note(Returned(message))
        if persistent and queue != TRANSIENT and self._lies(BrokerFault.ROUTE_BY_THE_PAST, 0.1):
            self._note(Confirmed(message))
            return
        ready = self._queues[queue].ready
        ready.append(Copy(message, persistent))
        if len(ready) > 1 and not ready[-2].redelivered and self._lies(BrokerFault.SWAP):
            ready[-2:] = ready[-1], ready[-2]
        if self._lies(BrokerFault.CONFIRM_EARLY) or (
            self._is_alone and self._lies(BrokerFault.CONFIRM_ALONE)
        ):
            self._note(Confirmed(message))
        else:
            self._unconfirmed.append(message)

    def _publish_to_none(self) -> None:
        """Publish to a queue that is deleted and not declared anew: the message is unroutable,
        which may be reported."""
        message = self._next_message()
        self._note(Published(message, (DURABLE,)))
        if self._random.random() < 0.5:
            self._note(Returned(message))
        self._unconfirmed.append(message)

    def _publish_to_successor(self) -> None:
        """Publish to a queue that was declared anew just now, through a node that may lag."""
        message = self._next_message()
        self._note(Published(message, (DURABLE,)))
        self._unconfirmed.append(message)
        if self._lies(BrokerFault.RETURN_FOR_THE_FORMER):
            self._note(Returned(message))
        elif not self._lies(BrokerFault.CONFIRM_FOR_THE_FORMER):
            self._queues[DURABLE].ready.append(Copy(message))

    def _commit(self) -> None:
        """All that was said is on disk, and may be answered."""
        self._disk = {
            name: [replace(copy) for copy in line.everything() if copy.persistent]
            for name, line in self._queues.items()
            if name != TRANSIENT
        }
        if not self._is_alone:
            self._note(*map(Confirmed, self._unconfirmed))
            self._unconfirmed.clear()

    def _isolate(self) -> None:
        if self._random.random() < 0.3:
            self._is_alone = not self._is_alone
            self._note(Isolated("node") if self._is_alone else Rejoined("node"))

    # Consuming

    def _deliver(self) -> None:
        consumer = self._consumer()
        if consumer.is_given_up or len(consumer.held) >= PREFETCH:
            return
        name, channel = consumer.queue, consumer.channel
        line = self._queues[name]
        if self._lies(BrokerFault.INVENT, 0.1):
            consumer.wire.append(Received(channel, name, MessageId("nobody", 1), redelivered=False))
        others = [copy for other in line.consumers for copy in other.held]
        if others and self._lies(BrokerFault.HAND_OUT_TWICE, 0.2):
            consumer.wire.append(Received(channel, name, others[0].message, redelivered=True))
        if not line.ready:
            return
        copy = line.ready.pop(0)
        flag = copy.redelivered and not self._lies(BrokerFault.HIDE_REDELIVERY)
        count = line.in_vain[copy.message]
        if count > 1 and self._lies(BrokerFault.COUNT_BACKWARDS):
            count -= 2
        consumer.wire.append(Received(channel, name, copy.message, flag, count))
        copy.redelivered = True
        consumer.held.append(copy)

    def _hear(self) -> None:
        consumer = self._consumer()
        if consumer.wire:
            self._read(consumer)

    def _read(self, consumer: Consumer) -> None:
        """A client reads the next thing that was sent to it."""
        event = consumer.wire.popleft()
        self._note(event)
        if isinstance(event, Received):
            consumer.unacked.append(event.message)
        else:
            consumer.is_asking = False

    def _settle(self) -> None:
        """A client acknowledges or gives back the first that it has."""
        consumer = self._consumer()
        if not consumer.unacked or consumer.is_asking:
            return
        message = consumer.unacked.pop(0)
        copy = next((copy for copy in consumer.held if copy.message == message), None)
        if copy is not None:
            consumer.held.remove(copy)
        name, line = consumer.queue, self._queues[consumer.queue]
        if name == DURABLE and self._random.random() < 0.3:
            self._note(Requeued(consumer.channel, name, message))
            line.take_back(*[copy] if copy else [])
            return
        self._note(Acked(consumer.channel, name, message))
        if copy and not consumer.is_given_up and self._lies(BrokerFault.DELIVER_ACKED, 0.2):
            consumer.wire.append(Received(consumer.channel, name, message, redelivered=True))
        if copy and copy.persistent and name != TRANSIENT and self._lies(BrokerFault.FORGET_ACKS):
            self._buried[name].append(copy)

    def _ask(self) -> None:
        """A client asks something; the answer vouches for its acknowledgements."""
        consumer = self._consumer()
        if consumer.is_asking:
            return
        self._note(Asked(consumer.channel))
        consumer.is_asking = True
        if not consumer.is_given_up:
            self._commit()
            consumer.wire.append(Vouched(consumer.channel))

    def _leave(self) -> None:
        """A consumer closes its channel or ends, or the broker gives it up and it ends later."""
        consumer = self._consumer()
        line = self._queues[consumer.queue]
        if consumer.is_asking and not consumer.is_given_up:
            return
        given_back, consumer.held = consumer.held, []
        line.take_back(*given_back)
        if not consumer.is_given_up and self._random.random() < 0.5:
            consumer.is_given_up = True
            if consumer.queue != STEADY:  # its successor is the only one then
                line.consumers.append(self._open(consumer.queue))
                return
        last = Closing(consumer.channel) if self._random.random() < 0.5 else None
        self._note(last or Ended(consumer.channel, "it hung up"))
        line.consumers.remove(consumer)
        if not line.consumers or all(each.is_given_up for each in line.consumers):
            line.consumers.append(self._open(consumer.queue))

    def _open(self, queue: str) -> Consumer:
        self._channels += 1
        consumer = Consumer(queue, f"{queue} {self._channels}")
        self._note(Asked(consumer.channel), Vouched(consumer.channel))
        return consumer

    # Queues

    def _declare(self, queue: str) -> None:
        self._note(DeclareAsked(queue), Declared(queue))
        count = 1 if queue == STEADY else 2
        self._queues[queue] = FaultyQueue([self._open(queue) for _ in range(count)])

    def _clear(self) -> None:
        if self._random.random() < 0.5:
            self._clear_by(self._random.choice(list(Clearing)))

    def _clear_by(self, how: Clearing) -> None:
        line = self._queues[DURABLE]
        for consumer in line.consumers:  # who asks for a purge must know what others have
            while consumer.wire:
                self._read(consumer)
        self._note(ClearingAsked(DURABLE, how))
        gone = line.ready if how is Clearing.PURGE else line.everything()
        kept = [copy for copy in gone if copy.persistent and copy.message not in self._unconfirmed]
        line.ready = []
        if how is Clearing.DELETE:
            self._note(*(Ended(each.channel, "it was deleted") for each in line.consumers))
        self._commit()
        if how is Clearing.DELETE:
            self._disk[DURABLE] = []
        self._note(ClearingDone(DURABLE, how))
        lie = BrokerFault.KEEP_PURGED if how is Clearing.PURGE else BrokerFault.KEEP_DELETED
        if kept and self._lies(lie):
            self._buried[DURABLE] += kept
        if how is Clearing.DELETE:
            self._publish_to_none()
            self._declare(DURABLE)
            self._publish_to_successor()

    def _look(self) -> None:
        for queue in (DURABLE, STEADY, TRANSIENT):
            self._note(Looked(queue, found=True))

    # A thing that three clients declare, delete and look for

    def _ask_about(self) -> None:
        client = self._random.choice([*self._askers])
        if self._askers[client] is not None:
            return
        operation = self._random.choice((*Operation, *[Operation.LOOK] * 3))
        self._askers[client] = operation
        self._note(Invoked(client, "thing", operation))

    def _answer(self) -> None:
        """Do an operation first, and then answer it, by one step or two; or never."""
        client = self._random.choice([*self._askers])
        operation = self._askers[client]
        if operation is None:
            return
        if client not in self._effects:
            self._effects[client] = self._do(operation)
        elif self._random.random() < 0.002:
            self._askers[client] = None
            del self._effects[client]
            self._note(Abandoned(client, "thing"))
        else:
            self._askers[client] = None
            self._note(Answered(client, "thing", self._effects.pop(client)))

    def _do(self, operation: Operation) -> bool:
        """True if the thing is there then, in the eyes of who asked."""
        known = self._was_there
        if operation is Operation.LOOK:
            return known if self._lies(BrokerFault.LOOK_INTO_THE_PAST) else self._is_there
        is_wanted = operation is Operation.DECLARE
        lie = BrokerFault.DECLARE_NOTHING if is_wanted else BrokerFault.DELETE_NOTHING
        if known is is_wanted and self._lies(lie):
            return is_wanted
        self._was_there, self._is_there = self._is_there, is_wanted
        return is_wanted

    def _own(self) -> None:
        """A connection that declares an exclusive queue and hangs up before it has an answer."""
        self._channels += 1
        client = f"owner {self._channels}"
        queue = f"queue of {client}"
        self._note(Owned(queue, client), Locked(queue), Ended(f"{client}#1", "it hung up"))
        self._note(*[Locked(queue)] * self._random.randint(0, 1))
        if self._lies(BrokerFault.KEEP_LOCK, 0.1):
            self._locked.append(queue)

    def _crash(self) -> None:
        """Only the disk is left; and nobody knows what had been handed out."""
        self._note(RunEnded())
        passing = [copy for copy in self._queues[STEADY].everything() if not copy.persistent]
        self._unconfirmed.clear()
        for name in (DURABLE, STEADY):
            buried, self._buried[name] = self._buried[name], []
            left = buried + self._disk.get(name, [])
            found = [replace(copy, redelivered=True) for copy in left]
            if found and self._lies(BrokerFault.LOSE_IN_A_CRASH, 0.9):
                found.pop(self._random.randrange(len(found)))
            if name == STEADY and len(found) > 1 and self._lies(BrokerFault.SWAP_STEADY):
                found[:2] = found[1], found[0]
            line = self._queues[name]
            consumers = [self._open(name) for _ in line.consumers]
            self._queues[name] = FaultyQueue(consumers, found, line.in_vain)
        if passing and self._lies(BrokerFault.KEEP_TRANSIENT_MESSAGE, 0.9):
            self._queues[STEADY].ready += passing
        self._note(Looked(DURABLE, found=not self._lies(BrokerFault.LOSE_QUEUE)))
        self._note(Looked(TRANSIENT, found=self._lies(BrokerFault.KEEP_TRANSIENT_QUEUE)))
        self._declare(TRANSIENT)
