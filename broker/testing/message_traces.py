"""Traces of messages: a `Passage` is one message on its way through one queue, in steps.

Nothing in a broker numbers a message from its publisher to its end, so passages are identified by
what can be seen: by content while it was not delivered, and by the number that the queue gives it
from then on.  Of messages with equal contents the oldest is meant, which is the one that a queue
hands out first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import NamedTuple

BODY_SHOWN_MAX = 40
"""So many bytes of a body are remembered, and shown."""

STEPS_MAX = 100
"""Of a message that goes round; the first and the latest are kept."""


class Actor(NamedTuple):
    """A client; none for what the broker does by itself."""

    connection: str = ""
    """The address of the client's end."""
    channel: int = 0

    def __str__(self) -> str:
        if not self.channel:
            return self.connection or "broker"
        return f"{self.connection} ({self.channel})"


BROKER_ITSELF = Actor()


class StepKind(StrEnum):
    """Kind of a step in the trace of a message."""

    PUBLISHED = "published"
    FOUND = "found"
    """It was found there, without having been seen to come."""
    DELIVERED = "delivered"
    TAKEN = "taken"
    """Delivered to a consumer that need not acknowledge it."""
    ACKED = "acked"
    REJECTED = "rejected"
    REQUEUED = "requeued"
    ABANDONED = "abandoned"
    """Requeued, for the channel that had it has ended."""
    DEAD_LETTERED = "dead-lettered"
    DROPPED = "dropped"
    """Expired, or in front of too many, without a dead-letter exchange."""
    GONE = "gone"
    """It is not in the queue, and was not seen to leave."""


READY = (StepKind.PUBLISHED, StepKind.FOUND, StepKind.REQUEUED, StepKind.ABANDONED)
"""After these it waits in its queue."""


@dataclass(frozen=True, slots=True)
class TraceStep:
    """Step in the trace of one message."""

    what: StepKind
    at_ms: int
    """Since the first that was seen of the virtual host, by the clock of the broker."""
    who: Actor = BROKER_ITSELF
    """Who does it, or whom it is done to."""
    consumer_tag: str = ""
    """To which it is delivered, or was."""
    detail: str = ""

    def __str__(self) -> str:
        text = f"{self.what}"
        is_given = self.what in (StepKind.DELIVERED, StepKind.TAKEN)
        if self.consumer_tag:
            text += f" {'to' if is_given else 'by'} {self.consumer_tag!r} of {self.who}"
        elif self.who != BROKER_ITSELF:
            text += f" {'to' if is_given else 'by'} {self.who}"
        return f"{text}, {self.detail}" if self.detail else text


class Passage:
    """A message on its way through a queue."""

    __slots__ = ("body", "exchange", "key", "number", "queue", "routing_key", "sequence", "steps")

    def __init__(
        self, queue: str, body: bytes, *, exchange: str, routing_key: str, key: int, number: int
    ) -> None:
        self.queue = queue
        self.body = body
        """Its first 40 bytes."""
        self.exchange = exchange
        self.routing_key = routing_key
        self.key = key
        """What it has in common with messages of the same content."""
        self.number = number
        """Rising in the order in which messages come."""
        self.sequence: int | None = None
        """The queue's, once that is known."""
        self.steps: list[TraceStep] = []

    def add(self, step: TraceStep) -> None:
        self.steps.append(step)
        if len(self.steps) > STEPS_MAX:
            del self.steps[STEPS_MAX // 2]

    @property
    def last(self) -> TraceStep:
        return self.steps[-1]

    @property
    def state(self) -> str:
        """ready, unacked, or how it has ended: acked, taken, dead-lettered, dropped, gone."""
        if self.last.what in READY:
            return "ready"
        return "unacked" if self.last.what is StepKind.DELIVERED else self.last.what

    @property
    def acked_by(self) -> str | None:
        """Tag of the consumer, if it has been acknowledged; empty for a basic.get."""
        return self.last.consumer_tag if self.last.what is StepKind.ACKED else None

    def view(self, *more: TraceStep) -> Passage:
        """Return a copy as of now, which does not change."""
        seen = Passage(
            self.queue, self.body, exchange=self.exchange, routing_key=self.routing_key,
            key=self.key, number=self.number,
        )  # fmt: skip
        seen.sequence, seen.steps = self.sequence, [*self.steps, *more]
        return seen

    def __repr__(self) -> str:
        way = f"exchange {self.exchange!r}, key {self.routing_key!r}, queue {self.queue!r}"
        return f"<{self.body!r} ({way}): {'; '.join(map(str, self.steps))}>"


class OpenTraces:
    """The passages through one queue that have not ended, so that each can be found."""

    __slots__ = ("_by_key", "_by_sequence", "_ready", "_rejected")

    def __init__(self) -> None:
        self._ready: OrderedDict[int, Passage] = OrderedDict()
        """By their numbers, the next to be handed out in front."""
        self._by_key: dict[int, dict[int, Passage]] = {}
        """The same, by content."""
        self._by_sequence: dict[int, Passage] = {}
        """Those that have been handed out and may be again."""
        self._rejected: dict[int, Passage] = {}
        """By their numbers: it is yet to be seen whether there is a dead-letter exchange."""

    def wait(self, passages: Sequence[Passage], *, in_front: bool = False) -> None:
        """Note that messages are ready from now on."""
        for each in passages:
            self._ready[each.number] = each
            self._by_key.setdefault(each.key, {})[each.number] = each
        if in_front:
            for each in reversed(passages):
                self._ready.move_to_end(each.number, last=False)

    def hand(self, sequence: int, key: int) -> Passage | None:
        """Return the one that is delivered under this number; None if it is unknown."""
        passage = self._by_sequence.get(sequence)
        if passage is None:
            passage = self.next_like(key)
            if passage is None:
                return None
        self.adopt(sequence, passage)
        self._unwait(passage)
        return passage

    def adopt(self, sequence: int, passage: Passage) -> None:
        """Note the sequence number that the queue gives a message."""
        passage.sequence = sequence
        self._by_sequence[sequence] = passage

    def known(self, sequence: int) -> Passage | None:
        """Return the message that was delivered under this number."""
        return self._by_sequence.get(sequence)

    def next_like(self, key: int) -> Passage | None:
        """Return the next of those that are ready with this content."""
        return next(iter(self._by_key.get(key, {}).values()), None)

    def next(self, count: int) -> list[Passage]:
        """Return the next of all that are ready."""
        return list(islice(self._ready.values(), count))

    def reject(self, passage: Passage) -> None:
        """Note a reject, which ends a trace unless the message goes to a dead-letter exchange."""
        self.end(passage)
        self._rejected[passage.number] = passage

    def rejected_like(self, key: int) -> Passage | None:
        """Return a rejected message with this content, once."""
        found = next((each for each in self._rejected.values() if each.key == key), None)
        return self._rejected.pop(found.number) if found is not None else None

    def bury(self) -> None:
        """End all rejected messages: none of them is dead-lettered."""
        self._rejected.clear()

    @property
    def ready(self) -> Iterator[Passage]:
        return iter(self._ready.values())

    def end(self, passage: Passage) -> None:
        """End a message that its queue is done with."""
        self._unwait(passage)
        self._rejected.pop(passage.number, None)
        if passage.sequence is not None:
            self._by_sequence.pop(passage.sequence, None)

    def _unwait(self, passage: Passage) -> None:
        if self._ready.pop(passage.number, None) is not None:
            alike = self._by_key[passage.key]
            del alike[passage.number]
            if not alike:
                del self._by_key[passage.key]


def shown_body(body: bytes) -> str:
    return repr(body[:BODY_SHOWN_MAX]) + ("…" if len(body) > BODY_SHOWN_MAX else "")
