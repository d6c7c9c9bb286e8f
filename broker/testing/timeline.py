"""`Timeline`: what has happened in one virtual host, in order, and what became of each message.

It has an end: of the oldest it only remembers how much there was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, TypeAlias

from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.testing.message_traces import (
    BROKER_ITSELF,
    READY,
    Actor,
    OpenTraces,
    Passage,
    StepKind,
    TraceStep,
    shown_body,
)
from fluffle.protocol.deaths import DeathReason
from fluffle.protocol.properties import body_of

if TYPE_CHECKING:
    from fluffle.broker.core.session import Session

LINES_MAX = 2_000
PASSAGES_MAX = 10_000
UNROUTABLE_MAX = 1_000
"""So much is remembered of a virtual host."""

RoutedMessage: TypeAlias = "tuple[str, str, bytes]"
"""Exchange, routing key and content."""

OUTCOMES: dict[Outcome, tuple[StepKind, str, str]] = {
    Outcome.ACKED: (StepKind.ACKED, "acks", ""),
    Outcome.REJECTED: (StepKind.REJECTED, "rejects", ""),
    Outcome.NACK_REQUEUED: (StepKind.REQUEUED, "requeues", "nack"),
    Outcome.REJECT_REQUEUED: (StepKind.REQUEUED, "requeues", "reject"),
    Outcome.LOST: (StepKind.ABANDONED, "leaves unacknowledged", ""),
}
"""What is said of a settlement: of each message, of all, and why."""


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """Event of a timeline, at one moment."""

    at_ms: int
    who: Actor
    text: str

    def __str__(self) -> str:
        return f"{self.at_ms:>6} ms  {self.who}: {self.text}"


@dataclass(frozen=True, slots=True)
class Unroutable:
    """A message that a client has published and no queue has got."""

    at_ms: int
    who: Actor
    exchange: str
    routing_key: str
    body: bytes
    """Its first 40 bytes."""
    is_returned: bool
    """It was mandatory, and its publisher knows."""

    def __str__(self) -> str:
        fate = "returned" if self.is_returned else "dropped"
        where = f"exchange {self.exchange!r}, key {self.routing_key!r}"
        return f"{shown_body(self.body)} to {where} by {self.who}, {fate}"


class Timeline:
    """Timeline of a virtual host; its methods are called when something has happened."""

    __slots__ = (
        "_began_ms", "_courses", "_now_ms", "_numbers", "channels", "forgotten", "lines",
        "passages", "unroutable", "watchers",
    )  # fmt: skip

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._began_ms = now_ms()
        self._numbers = count(1)
        self._courses: dict[str, OpenTraces] = {}
        """By queue."""
        self.lines: deque[TimelineEvent] = deque(maxlen=LINES_MAX)
        self.passages: dict[int, Passage] = {}
        """By their numbers."""
        self.unroutable: deque[Unroutable] = deque(maxlen=UNROUTABLE_MAX)
        self.channels: dict[Session, set[int]] = {}
        """Those that are open, by connection: names of connections may be the same."""
        self.forgotten: dict[str, int] = {"lines": 0, "messages": 0, "unroutable messages": 0}
        """What is not remembered any more."""
        self.watchers: set[Callable[[], None]] = set()
        """Called after everything."""

    def note(self, who: Actor, text: str) -> None:
        if len(self.lines) == LINES_MAX:
            self.forgotten["lines"] += 1
        self.lines.append(TimelineEvent(self.at_ms, who, text))
        for watcher in tuple(self.watchers):
            watcher()

    @property
    def at_ms(self) -> int:
        return self._now_ms() - self._began_ms

    # Messages come

    def published(
        self, who: Actor, message: RoutedMessage, queues: Sequence[str], detail: str = ""
    ) -> None:
        """A message is put into queues; there is at least one."""
        for queue in queues:
            self._begin(
                queue, message, TraceStep(StepKind.PUBLISHED, self.at_ms, who, detail=detail)
            )

    def led_nowhere(self, who: Actor, message: RoutedMessage, *, is_returned: bool) -> None:
        """Note a message that no queue gets."""
        if len(self.unroutable) == UNROUTABLE_MAX:
            self.forgotten["unroutable messages"] += 1
        exchange, routing_key, content = message
        begin = body_of(content)[:40]
        lost = Unroutable(self.at_ms, who, exchange, routing_key, begin, is_returned)
        self.unroutable.append(lost)

    def found(self, queue: str, message: RoutedMessage, detail: str) -> Passage:
        """Note a message that is in a queue without having been seen before."""
        return self._begin(queue, message, TraceStep(StepKind.FOUND, self.at_ms, detail=detail))

    def _begin(self, queue: str, message: RoutedMessage, step: TraceStep) -> Passage:
        exchange, routing_key, content = message
        passage = Passage(
            queue, body_of(content)[:40], exchange=exchange, routing_key=routing_key,
            key=hash(content), number=next(self._numbers),
        )  # fmt: skip
        passage.add(step)
        if not self.has_room:
            self._forget(next(iter(self.passages.values())))
        self.passages[passage.number] = passage
        self.course(queue).wait([passage])
        return passage

    def _forget(self, passage: Passage) -> None:
        self.forgotten["messages"] += 1
        del self.passages[passage.number]
        self.course(passage.queue).end(passage)

    def course(self, queue: str) -> OpenTraces:
        return self._courses.setdefault(queue, OpenTraces())

    # Messages go

    def delivered(
        self, queue: str, sequence: int, message: RoutedMessage, step: TraceStep, origin: str
    ) -> None:
        """Note a delivery to a client; `origin` is where the message comes from if nobody has
        seen it come."""
        course = self.course(queue)
        passage = course.hand(sequence, hash(message[2]))
        if passage is None:
            passage = self.found(queue, message, origin)
            course.hand(sequence, passage.key)
        passage.add(step)
        if step.what is StepKind.TAKEN:
            course.end(passage)

    def settled(self, who: Actor, queue: str, sequences: Iterable[int], outcome: Outcome) -> None:
        """A client has said what becomes of messages, or has gone without a word."""
        if outcome not in OUTCOMES:
            return
        what, verb, detail = OUTCOMES[outcome]
        course, back, bodies = self.course(queue), list[Passage](), list[bytes]()
        for sequence in sequences:
            passage = course.known(sequence)
            if passage is None:
                continue  # it is forgotten
            tag = passage.last.consumer_tag
            passage.add(TraceStep(what, self.at_ms, who, tag, detail))
            bodies.append(passage.body)
            if what in READY:
                back.append(passage)
            elif what is StepKind.REJECTED:
                course.reject(passage)
            else:
                course.end(passage)
        course.wait(back, in_front=True)
        if bodies:
            self.note(who, f"{verb} {listed(bodies)} of queue {queue!r}")

    def died(self, queue: str, reason: DeathReason, contents: Sequence[bytes], where: str) -> None:
        """Messages of a queue go to its dead-letter exchange."""
        course, is_rejected = self.course(queue), reason is DeathReason.REJECTED
        for content in contents:
            find = course.rejected_like if is_rejected else course.next_like
            passage = find(hash(content))
            if passage is not None:
                passage.add(
                    TraceStep(StepKind.DEAD_LETTERED, self.at_ms, detail=f"{reason}, {where}")
                )
                course.end(passage)
        bodies = [body_of(content) for content in contents]
        self.note(
            BROKER_ITSELF, f"{listed(bodies)} of queue {queue!r} dies ({reason}) and goes {where}"
        )

    def dropped(self, queue: str, reason: DeathReason, count: int) -> None:
        """Note that so many messages have died and are not dead-lettered."""
        course = self.course(queue)
        if reason is DeathReason.REJECTED:
            course.bury()
        else:
            for passage in course.next(count):
                passage.add(TraceStep(StepKind.DROPPED, self.at_ms, detail=reason))
                course.end(passage)
        self.note(
            BROKER_ITSELF, f"{count} of queue {queue!r} die ({reason}), and nobody wants them"
        )

    def purging(self, who: Actor, queue: str) -> Callable[[], None]:
        """Note that all that is ready in it is about to go; what is returned is called once it has
        gone."""
        course = self.course(queue)
        ready = tuple(course.ready)

        def purged() -> None:
            for passage in ready:
                if passage.state == "ready":
                    passage.add(TraceStep(StepKind.GONE, self.at_ms, who, detail="purged"))
                    course.end(passage)
            self.note(who, f"purges queue {queue!r}")

        return purged

    def queue_gone(self, queue: str) -> None:
        """Note that a queue was deleted with all that was in it."""
        for passage in self.of_queue(queue):
            if passage.state in ("ready", "unacked"):
                passage.add(TraceStep(StepKind.GONE, self.at_ms, detail="with its queue"))
        self._courses.pop(queue, None)

    # Questions

    def of_queue(self, queue: str) -> list[Passage]:
        return [each for each in self.passages.values() if each.queue == queue]

    @property
    def has_room(self) -> bool:
        """Whether one more message makes it forget no other."""
        return len(self.passages) < PASSAGES_MAX

    @property
    def unacked(self) -> list[Passage]:
        """Messages that consumers hold, or that were last held by a channel that has ended without
        settling them."""
        passages = self.passages.values()
        return [
            each for each in passages if each.last.what in (StepKind.DELIVERED, StepKind.ABANDONED)
        ]


def listed(bodies: Sequence[bytes]) -> str:
    """List the first bodies, and how many more there are."""
    if not bodies:
        return "nothing"
    more = f" and {len(bodies) - 1} more" if len(bodies) > 1 else ""
    return f"{shown_body(bodies[0])}{more}"
