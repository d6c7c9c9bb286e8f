"""A node whose every write is recorded, while clients work that take turns.

Everything is done by one thread, so that a seed decides what is said and when; how the node makes
commits of it is its own affair.  Each event of the history gets a *moment*: the index of the event
of the recording by which it was known to the client.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from fluffle.protocol.methods import Exchange, Method, Queue, make
from fluffle.protocol.spec import FRAME_METHOD
from tests.crash.history import (
    Clearing,
    ClearingAsked,
    ClearingDone,
    DeclareAsked,
    Declared,
    Event,
)
from tests.crash.witness import Target, Witness
from tests.support.daemon import Daemon
from tests.support.powercut import Noted, read_trace, recording_environment

QUEUES = ("first", "second", "churn")
FAN, TOPIC = "fan", "topic"
TO_FAN = Target(FAN, "", ("first", "second"))
TO_CHURN = Target(TOPIC, "churn.key", ("churn",))
TARGETS = (TO_FAN, Target("", "first", ("first",)), Target("", "second", ("second",)))
SIZES = (0, 0, 200, 3_000, 100_000)

BINDINGS = {f"binding {FAN} first", f"binding {FAN} second", f"binding {TOPIC} churn"}
EXCHANGES = {f"exchange {FAN}", f"exchange {TOPIC}"}
THINGS = (*QUEUES, *sorted(BINDINGS), *sorted(EXCHANGES))
"""What may be there or not, for the checker: it need not know what a thing is."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What was recorded of a story."""

    events: list[Noted]
    history: list[tuple[int, Event]]
    """Moments, rising, and what clients knew by then."""


@dataclass(slots=True)
class Story:
    """Four clients and what they write down, with how much each had heard by then."""

    port: int
    random: Random
    told: list[tuple[Event, int, int]] = field(default_factory=list)
    """The event, who told it, and how many methods he had heard."""
    clients: list[Witness] = field(default_factory=list)

    def begin(self) -> None:
        for name in ("publisher", "reader", "dealer", "churner"):
            self.clients.append(Witness(self.port, name, self._note_of(len(self.clients))))
        publisher, _reader, dealer, churner = self.clients
        for exchange, kind in ((FAN, "fanout"), (TOPIC, "topic")):
            declare = make(Exchange.Declare, exchange=exchange, exchange_type=kind, durable=True)
            self._make(publisher, f"exchange {exchange}", declare)
        for queue in ("first", "second"):
            self._declare(publisher, queue, FAN)
        self._declare(churner, "churn", TOPIC)
        publisher.confirm_select()
        churner.confirm_select()
        dealer.tx_select()

    def go_on(self, steps: int) -> None:
        acts = (self._publish, self._publish, self._take, self._settle, self._deal, self._churn)
        for _ in range(steps):
            self.random.choice(acts)()
        self.clients[0].await_confirms()

    def _note_of(self, index: int) -> Callable[[Event], None]:
        def note(event: Event) -> None:
            is_open = index < len(self.clients)
            self.told.append((event, index, self.clients[index].heard_count if is_open else 0))

        return note

    def _make(self, witness: Witness, thing: str, method: Method) -> None:
        witness.note(DeclareAsked(thing))
        witness.call(method)
        witness.note(Declared(thing))

    def _unmake(self, witness: Witness, things: tuple[str, ...], method: Method) -> None:
        for thing in things:
            witness.note(ClearingAsked(thing, Clearing.DELETE))
        witness.call(method)
        for thing in things:
            witness.note(ClearingDone(thing, Clearing.DELETE))

    def _declare(self, witness: Witness, queue: str, exchange: str) -> None:
        declare = make(Queue.Declare, queue=queue, durable=True)
        bind = make(Queue.Bind, 0, queue, exchange, f"{queue}.#")
        self._make(witness, queue, declare)
        self._make(witness, f"binding {exchange} {queue}", bind)

    # What the clients do

    def _publish(self) -> None:
        publisher, random = self.clients[0], self.random
        targets = [random.choice(TARGETS) for _ in range(random.randint(1, 8))]
        persistent = random.random() < 0.9
        publisher.publish(targets, random.choice(SIZES), persistent=persistent)
        publisher.await_confirms(open_max=random.choice((0, 4, 20)))

    def _take(self) -> None:
        reader = self.clients[1]
        for _ in range(self.random.randint(1, 6)):
            reader.get(self.random.choice(QUEUES[:2]))

    def _settle(self) -> None:
        reader, random = self.clients[1], self.random
        tags = list(reader.held)
        if not tags:
            return
        random.choice(
            (
                lambda: reader.ack_up_to(random.choice(tags)),
                lambda: reader.ack(*random.sample(tags, len(tags) // 2)),
                lambda: reader.reject(tags[0]),
                lambda: reader.requeue(*tags[::2]),
                reader.reopen_channel,
            )
        )()
        if random.random() < 0.5:
            reader.make_sure()

    def _deal(self) -> None:
        """A transaction."""
        dealer, random = self.clients[2], self.random
        dealer.publish([random.choice(TARGETS) for _ in range(3)], 50)
        tags = [tag for tag in [dealer.get("first")] if tag is not None]
        if random.random() < 0.3:
            dealer.roll_back()
        else:
            dealer.commit(tags)

    def _churn(self) -> None:
        """Fill a queue, and purge it or delete it with its binding."""
        churner, random = self.clients[3], self.random
        churner.publish([TO_CHURN] * random.randint(1, 4), 300)
        churner.await_confirms(open_max=random.choice((0, 2)))
        if random.random() < 0.5:
            churner.note(ClearingAsked("churn", Clearing.PURGE))
            churner.call(make(Queue.Purge, queue="churn"))
            churner.note(ClearingDone("churn", Clearing.PURGE))
            return
        things = ("churn", f"binding {TOPIC} churn")
        self._unmake(churner, things, make(Queue.Delete, queue="churn"))
        self._declare(churner, "churn", TOPIC)


def record(folder: Path, seed: int, steps: int) -> Recording:
    """Have a story happen, end the node with SIGKILL, and read what was recorded."""
    trace = folder / "trace"
    environment = recording_environment(folder, trace) | {"RECORDER_SOCKETS": "1"}
    daemon = Daemon(folder / "recorded", environment=environment)
    daemon.start()
    story = Story(daemon.port, Random(seed))
    try:
        story.begin()
        story.go_on(steps)
    finally:
        daemon.kill()
        for client in story.clients:
            client.close()
    events = read_trace(trace)
    return Recording(events, list(with_moments(story.told, heard_at(events))))


def with_moments(
    told: list[tuple[Event, int, int]], heard: list[list[int]]
) -> list[tuple[int, Event]]:
    """When each event was known: nobody knows anything before what was known before."""
    moments: list[tuple[int, Event]] = []
    latest = 0
    for event, client, count in told:
        if count:
            latest = max(latest, heard[client][count - 1])
        moments.append((latest, event))
    return moments


def heard_at(events: list[Noted]) -> list[list[int]]:
    """Of each connection, in the order in which they were opened: when each method was sent."""
    streams: dict[int, list[tuple[int, bytes]]] = {}
    for moment, event in enumerate(events):
        if event.kind == b"N":
            streams.setdefault(event.offset, []).append((moment, event.content))
        elif event.kind == b"R":
            sent_at, content = streams[event.offset].pop()
            streams[event.offset].append((sent_at, content[: event.length]))
    return [methods_at(stream) for stream in streams.values()]


def methods_at(stream: list[tuple[int, bytes]]) -> list[int]:
    """The moment of each method frame of a stream: that of its last byte."""
    moments: list[int] = []
    buffer = b""
    for moment, content in stream:
        buffer += content
        at = 0
        while len(buffer) >= at + 8:
            end = at + 8 + int.from_bytes(buffer[at + 3 : at + 7])
            if end > len(buffer):
                break
            if buffer[at] == FRAME_METHOD:
                moments.append(moment)
            at = end
        buffer = buffer[at:]
    return moments
