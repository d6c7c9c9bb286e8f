"""A broker that writes its clients' histories itself, and lies in one way if it is told to.

One publisher, two consumers, a durable queue, one that is steady and one that is transient.  What
is committed is copied to a disk, which is all that a crash leaves.  The honest one is what a broker
is, in a hundred lines; the liars are there to see that the checker finds them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from random import Random

from tests.crash.history import (
    Acked,
    Clearing,
    ClearingAsked,
    ClearingDone,
    Closing,
    Confirmed,
    DeclareAsked,
    Declared,
    Event,
    Looked,
    Message,
    Published,
    Received,
    Requeued,
    Returned,
    RunEnded,
    Vouched,
)

DURABLE, STEADY, TRANSIENT = "durable", "steady", "transient"


class Lie(Enum):
    """What a broker must not do."""

    LOSE_IN_A_CRASH = auto()
    """A message that was confirmed."""
    CONFIRM_EARLY = auto()
    """Before it is on disk."""
    FORGET_ACKS = auto()
    """In a crash, though they were vouched for."""
    HIDE_REDELIVERY = auto()
    INVENT = auto()
    SWAP = auto()
    """Two messages that were never delivered."""
    SWAP_STEADY = auto()
    """Two messages after a crash."""
    HAND_OUT_TWICE = auto()
    DELIVER_ACKED = auto()
    """Again from the same process."""
    KEEP_PURGED = auto()
    KEEP_DELETED = auto()
    LOSE_QUEUE = auto()
    KEEP_TRANSIENT_QUEUE = auto()
    KEEP_TRANSIENT_MESSAGE = auto()
    SWALLOW = auto()
    """A message that should come back as unroutable."""
    RETURN_ROUTABLE = auto()


@dataclass(slots=True)
class Copy:
    """A message in a queue."""

    message: Message
    persistent: bool = True
    redelivered: bool = False


@dataclass(slots=True)
class Line:
    """A queue."""

    ready: list[Copy] = field(default_factory=list)
    held: dict[str, list[Copy]] = field(default_factory=dict)
    """By channel."""

    def everything(self) -> list[Copy]:
        """In the order of their publishing."""
        held = [copy for copies in self.held.values() for copy in copies]
        return sorted(self.ready + held, key=lambda copy: copy.message)


class Broker:
    """Writes a history of its own making; `lie` is what it does wrong, now and then."""

    def __init__(self, random: Random, lie: Lie | None = None) -> None:
        self.history: list[Event] = []
        self.lies_told = 0
        self._random = random
        self._lie = lie
        self._number = 0
        self._queues: dict[str, Line] = {}
        self._disk: dict[str, list[Copy]] = {}
        self._unconfirmed: list[Message] = []
        self._buried: dict[str, list[Copy]] = {DURABLE: [], STEADY: []}
        """What a liar brings back in the next crash."""
        self._channels = 0

    def live(self, steps: int) -> list[Event]:
        """So many random steps, then a crash, and everything is received."""
        for queue in (DURABLE, STEADY, TRANSIENT):
            self._declare(queue)
        acts: list[Callable[[], None]] = [
            self._publish, self._publish, self._commit, self._deliver, self._deliver, self._deliver,
            self._settle, self._settle, self._settle, self._close, self._clear, self._look,
        ]  # fmt: skip
        for _ in range(steps):
            if self._random.random() < 0.03:
                self._crash()
            self._random.choice(acts)()
        self._crash()
        for _ in range(1_000):
            self._deliver()
        return self.history

    def _lies(self, lie: Lie, chance: float = 0.5) -> bool:
        if self._lie is not lie or self._random.random() > chance:
            return False
        self.lies_told += 1
        return True

    def _channel(self, queue: str) -> str:
        """One of two consumers; a steady queue has one."""
        consumer = 0 if queue == STEADY else self._random.randrange(2)
        return f"{queue} {consumer} {self._channels}"

    def _note(self, *events: Event) -> None:
        self.history.extend(events)

    # Publishing

    def _publish(self) -> None:
        self._number += 1
        message = Message("publisher", self._number)
        queue = self._random.choice((DURABLE, DURABLE, STEADY, TRANSIENT, None))
        persistent = self._random.random() < 0.7
        if queue is None:
            self._note(Published(message, (), persistent))
            if not self._lies(Lie.SWALLOW):
                self._note(Returned(message))
            self._note(Confirmed(message))
            return
        self._note(Published(message, (queue,), persistent))
        if self._lies(Lie.RETURN_ROUTABLE, 0.1):
            self._note(Returned(message))
        ready = self._queues[queue].ready
        ready.append(Copy(message, persistent))
        if len(ready) > 1 and not ready[-2].redelivered and self._lies(Lie.SWAP):
            ready[-2:] = ready[-1], ready[-2]
        if self._lies(Lie.CONFIRM_EARLY):
            self._note(Confirmed(message))
        else:
            self._unconfirmed.append(message)

    def _commit(self) -> None:
        """All that was said is on disk, and may be answered."""
        self._disk = {
            name: [replace(copy) for copy in line.everything() if copy.persistent]
            for name, line in self._queues.items()
            if name != TRANSIENT
        }
        self._note(*map(Confirmed, self._unconfirmed))
        self._unconfirmed.clear()

    # Consuming

    def _deliver(self) -> None:
        name = self._random.choice((DURABLE, STEADY, TRANSIENT))
        line, channel = self._queues[name], self._channel(name)
        if self._lies(Lie.INVENT, 0.1):
            self._note(Received(channel, name, Message("nobody", 1), redelivered=False))
        others = [copy for held in line.held.values() for copy in held]
        if others and self._lies(Lie.HAND_OUT_TWICE, 0.2):
            self._note(Received(channel, name, others[0].message, redelivered=True))
        if not line.ready:
            return
        copy = line.ready.pop(0)
        flag = copy.redelivered and not self._lies(Lie.HIDE_REDELIVERY)
        self._note(Received(channel, name, copy.message, flag))
        copy.redelivered = True
        line.held.setdefault(channel, []).append(copy)

    def _settle(self) -> None:
        """Acknowledge or give back; the answer that vouches for it comes after a commit."""
        name = self._random.choice((DURABLE, STEADY))
        line = self._queues[name]
        channel = self._channel(name)
        held = line.held.get(channel, [])
        if not held:
            return
        copy = held.pop(0)
        if name != STEADY and self._random.random() < 0.3:
            self._note(Requeued(channel, name, copy.message))
            line.ready = sorted([*line.ready, copy], key=lambda each: each.message)
            return
        self._note(Acked(channel, name, copy.message))
        if self._lies(Lie.DELIVER_ACKED, 0.2):
            self._note(Received(channel, name, copy.message, redelivered=True))
        if self._random.random() < 0.5:
            self._commit()
            self._note(Vouched(channel))
            self._forget_an_ack(name, copy)

    def _forget_an_ack(self, name: str, copy: Copy) -> None:
        if copy.persistent and self._lies(Lie.FORGET_ACKS):
            self._buried[name].append(copy)

    def _close(self) -> None:
        """Both consumers of the durable queue close their channels and open others."""
        line = self._queues[DURABLE]
        self._note(*(Closing(channel) for channel in line.held))
        line.ready, line.held = line.everything(), {}
        self._channels += 1

    # Queues

    def _declare(self, queue: str) -> None:
        self._note(DeclareAsked(queue), Declared(queue))
        self._queues[queue] = Line()

    def _clear(self) -> None:
        line = self._queues[DURABLE]
        how = self._random.choice(list(Clearing))
        self._note(ClearingAsked(DURABLE, how))
        gone = line.ready if how is Clearing.PURGE else line.everything()
        kept = [copy for copy in gone if copy.persistent and copy.message not in self._unconfirmed]
        line.ready = []
        if how is Clearing.DELETE:
            self._queues[DURABLE] = Line()
        self._commit()
        self._note(ClearingDone(DURABLE, how))
        lie = Lie.KEEP_PURGED if how is Clearing.PURGE else Lie.KEEP_DELETED
        if kept and self._lies(lie):
            self._buried[DURABLE] += kept
        if how is Clearing.DELETE:
            self._note(DeclareAsked(DURABLE), Declared(DURABLE))
            self._channels += 1

    def _look(self) -> None:
        for queue in (DURABLE, STEADY, TRANSIENT):
            self._note(Looked(queue, found=True))

    def _crash(self) -> None:
        """Only the disk is left; and nobody knows what had been handed out."""
        self._note(RunEnded())
        self._channels += 1
        passing = [copy for copy in self._queues[STEADY].everything() if not copy.persistent]
        self._unconfirmed.clear()
        for name in (DURABLE, STEADY):
            buried, self._buried[name] = self._buried[name], []
            left = buried + self._disk.get(name, [])
            found = [replace(copy, redelivered=True) for copy in left]
            if found and self._lies(Lie.LOSE_IN_A_CRASH, 0.9):
                found.pop(self._random.randrange(len(found)))
            if name == STEADY and len(found) > 1 and self._lies(Lie.SWAP_STEADY):
                found[:2] = found[1], found[0]
            self._queues[name] = Line(found)
        if passing and self._lies(Lie.KEEP_TRANSIENT_MESSAGE):
            self._queues[STEADY].ready += passing
        self._note(Looked(DURABLE, found=not self._lies(Lie.LOSE_QUEUE)))
        self._note(Looked(TRANSIENT, found=self._lies(Lie.KEEP_TRANSIENT_QUEUE)))
        self._declare(TRANSIENT)
