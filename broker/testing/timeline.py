"""`Timeline`: what has happened in one virtual host, in order, and what became of each message.

It has an end: of the oldest it only remembers how much there was.  A `Passage` is one message on
its way through one queue, in steps.  Nothing in a broker numbers a message from its publisher to
its end, so passages are identified by what can be seen: by content while it was not delivered, and
by the number that the queue gives it from then on.  Of messages with equal contents the oldest is
meant, which is the one that a queue hands out first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from itertools import count, islice
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from fluffle.broker.queues.queue_api import Outcome
from fluffle.protocol.headers import X_DELAY, DeathReason
from fluffle.protocol.properties import body_of, decode_properties, raw_properties
from fluffle.protocol.wire import FieldTable

if TYPE_CHECKING:
    from fluffle.broker.core.client import ObservedSession

LINES_MAX = 2_000
PASSAGES_MAX = 10_000
UNROUTABLE_MAX = 1_000
PACKETS_MAX = 10_000
"""So much is remembered of a virtual host."""


BODY_SHOWN_MAX = 40
"""So many bytes of a body are remembered, and shown."""

STEPS_MAX = 100
"""Steps kept of a message that goes round; the first and the latest are kept."""


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
    """The message was found in a queue, without having been seen to come."""
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
    """The message is not in the queue, and was not seen to leave."""


READY = (StepKind.PUBLISHED, StepKind.FOUND, StepKind.REQUEUED, StepKind.ABANDONED)
"""After these it waits in its queue."""


@dataclass(frozen=True, slots=True)
class TraceStep:
    """Step in the trace of one message."""

    what: StepKind
    at_ms: int
    """Since the first that was seen of the virtual host, by the clock of the broker."""
    who: Actor = BROKER_ITSELF
    """Actor of the step, or the client concerned."""
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


@dataclass(slots=True, eq=False)
class Passage:
    """A message on its way through a queue."""

    queue: str
    body: bytes
    """Its first 40 bytes."""
    _: KW_ONLY
    exchange: str
    routing_key: str
    key: int
    """Key that it shares with messages of the same content."""
    number: int
    """Rising in the order in which messages come."""
    sequence: int | None = None
    """The queue's, once that is known."""
    steps: list[TraceStep] = field(default_factory=list)

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

    def __init__(self) -> None:
        self._ready: OrderedDict[int, Passage] = OrderedDict()
        """Ready messages by number, next to be delivered first."""
        self._by_key: dict[int, dict[int, Passage]] = {}
        """The same, by content."""
        self._by_sequence: dict[int, Passage] = {}
        """Messages by sequence number that have been delivered and may be again."""
        self._rejected: dict[int, Passage] = {}
        """Rejected messages by number: it is not known yet if there is a dead-letter exchange."""

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


RoutedMessage: TypeAlias = "tuple[str, str, bytes]"
"""Exchange, routing key and content."""

OUTCOMES: dict[Outcome, tuple[StepKind, str, str]] = {
    Outcome.ACKED: (StepKind.ACKED, "acks", ""),
    Outcome.REJECTED: (StepKind.REJECTED, "rejects", ""),
    Outcome.NACK_REQUEUED: (StepKind.REQUEUED, "requeues", "nack"),
    Outcome.REJECT_REQUEUED: (StepKind.REQUEUED, "requeues", "reject"),
    Outcome.LOST: (StepKind.ABANDONED, "leaves unacknowledged", ""),
}
"""Texts of a settlement: of each message, of all, and why."""


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """Event of a timeline, at one moment."""

    at_ms: int
    actor: Actor
    text: str

    def __str__(self) -> str:
        return f"{self.at_ms:>6} ms  {self.actor}: {self.text}"


@dataclass(frozen=True, slots=True)
class Unroutable:
    """A message that a client has published and no queue has got."""

    at_ms: int
    actor: Actor
    exchange: str
    routing_key: str
    body: bytes
    """Its first 40 bytes."""
    is_returned: bool
    """True if it was mandatory and returned to its publisher."""

    def __str__(self) -> str:
        outcome = "returned" if self.is_returned else "dropped"
        where = f"exchange {self.exchange!r}, key {self.routing_key!r}"
        return f"{shown_body(self.body)} to {where} by {self.actor}, {outcome}"


@dataclass(frozen=True, slots=True)
class SeenPacket:
    """Packet that an MQTT client has sent, or was sent."""

    at_ms: int
    """Since the first that was seen of the virtual host, by the clock of the broker."""
    sent_by: str
    """`client` or `broker`."""
    client: str
    """Identifier of the client."""
    packet: str
    """Its type, as MQTT names it: `PUBLISH`."""
    packet_id: int = 0
    """0 if it has none."""
    topic: str = ""
    payload: bytes = b""
    """Its first 1024 bytes."""
    qos: int = 0
    retain: bool = False
    dup: bool = False
    filters: tuple[str, ...] = ()
    """Topic filters of SUBSCRIBE and UNSUBSCRIBE."""
    code: int = 0
    """Reason code, or the largest of several; before 5.0 a return code."""
    session_present: bool = False
    """That of CONNACK."""


class Timeline:
    """Timeline of a virtual host; its methods are called when something has happened."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._began_ms = now_ms()
        self._numbers = count(1)
        self._courses: dict[str, OpenTraces] = {}
        """Traces by queue."""
        self.lines: deque[TimelineEvent] = deque(maxlen=LINES_MAX)
        self.packets: deque[SeenPacket] = deque(maxlen=PACKETS_MAX)
        """Packets of MQTT clients, in the order in which they passed."""
        self.passages: dict[int, Passage] = {}
        """Passages by number."""
        self.unroutable: deque[Unroutable] = deque(maxlen=UNROUTABLE_MAX)
        self.channels: dict[ObservedSession, set[int]] = {}
        """Open channels by session: names of connections may be the same."""
        self.forgotten: dict[str, int] = {"lines": 0, "messages": 0, "unroutable messages": 0}
        """Numbers of what is not remembered any more."""
        self.watchers: set[Callable[[], None]] = set()
        """Called after everything that is noted."""

    def note(self, actor: Actor, text: str) -> None:
        if len(self.lines) == LINES_MAX:
            self.forgotten["lines"] += 1
        self.lines.append(TimelineEvent(self.at_ms, actor, text))
        wake(self.watchers)

    @property
    def at_ms(self) -> int:
        return self._now_ms() - self._began_ms

    # Messages come

    def published(
        self, actor: Actor, message: RoutedMessage, queues: Sequence[str], detail: str = ""
    ) -> None:
        """A message is put into queues; there is at least one."""
        for queue in queues:
            self._begin(
                queue, message, TraceStep(StepKind.PUBLISHED, self.at_ms, actor, detail=detail)
            )

    def led_nowhere(self, actor: Actor, message: RoutedMessage, *, is_returned: bool) -> None:
        """Note a message that no queue gets."""
        if len(self.unroutable) == UNROUTABLE_MAX:
            self.forgotten["unroutable messages"] += 1
        exchange, routing_key, content = message
        begin = body_of(content)[:40]
        lost = Unroutable(self.at_ms, actor, exchange, routing_key, begin, is_returned)
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
        """Note a delivery to a client; `origin` is the message's origin if its publish was not
        seen."""
        course = self.course(queue)
        passage = course.hand(sequence, hash(message[2]))
        if passage is None:
            passage = self.found(queue, message, origin)
            course.hand(sequence, passage.key)
        passage.add(step)
        if step.what is StepKind.TAKEN:
            course.end(passage)

    def settled(self, actor: Actor, queue: str, sequences: Iterable[int], outcome: Outcome) -> None:
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
            passage.add(TraceStep(what, self.at_ms, actor, tag, detail))
            bodies.append(passage.body)
            if what in READY:
                back.append(passage)
            elif what is StepKind.REJECTED:
                course.reject(passage)
            else:
                course.end(passage)
        course.wait(back, in_front=True)
        if bodies:
            self.note(actor, f"{verb} {listed(bodies)} of queue {queue!r}")

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

    def purging(self, actor: Actor, queue: str) -> Callable[[], None]:
        """Note that all that is ready in it is about to go; what is returned is called once it has
        gone."""
        course = self.course(queue)
        ready = tuple(course.ready)

        def purged() -> None:
            for passage in ready:
                if passage.state == "ready":
                    passage.add(TraceStep(StepKind.GONE, self.at_ms, actor, detail="purged"))
                    course.end(passage)
            self.note(actor, f"purges queue {queue!r}")

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
        """True if one more message makes it forget no other."""
        return len(self.passages) < PASSAGES_MAX

    @property
    def unacked(self) -> list[Passage]:
        """Messages that consumers hold, or that were last held by a channel that has ended without
        settling them."""
        passages = self.passages.values()
        return [
            each for each in passages if each.last.what in (StepKind.DELIVERED, StepKind.ABANDONED)
        ]


def note_packet(timeline: Timeline, packet: SeenPacket) -> None:
    """Note a packet of MQTT."""
    timeline.packets.append(packet)
    wake(timeline.watchers)


async def until(watchers: set[Callable[[], None]], is_so: Callable[[], bool]) -> None:
    """Return once it is so; looks again whenever watchers are called."""
    changed = asyncio.Event()
    watchers.add(changed.set)
    try:
        while not is_so():
            changed.clear()
            await changed.wait()
    finally:
        watchers.discard(changed.set)


def wake(watchers: Iterable[Callable[[], None]]) -> None:
    """Call all watchers of a timeline, which may go meanwhile."""
    for watcher in tuple(watchers):
        watcher()


def listed(bodies: Sequence[bytes]) -> str:
    """List the first bodies, and how many more there are."""
    if not bodies:
        return "nothing"
    more = f" and {len(bodies) - 1} more" if len(bodies) > 1 else ""
    return f"{shown_body(bodies[0])}{more}"


def origin_of(content: bytes) -> str:
    """Return where a message comes from, by what the broker has written into its headers."""
    raw = raw_properties(content)
    headers: FieldTable = decode_properties(raw).headers or {}
    _tag, delay = headers.get(X_DELAY, ("V", None))
    if isinstance(delay, int) and delay < 0:
        return f"after a delay of {-delay} ms"
    _tag, deaths = headers.get("x-death", ("A", []))
    if not (isinstance(deaths, list) and deaths and isinstance(deaths[0][1], dict)):
        return ""
    latest = deaths[0][1]
    queue, reason = (field_text(latest.get(name)) for name in ("queue", "reason"))
    return f"dead-lettered from queue {queue!r}, {reason}"


def field_text(field: tuple[str, object] | None) -> str:
    value = field[1] if field is not None else b""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def shown_body(body: bytes) -> str:
    return repr(body[:BODY_SHOWN_MAX]) + ("…" if len(body) > BODY_SHOWN_MAX else "")
