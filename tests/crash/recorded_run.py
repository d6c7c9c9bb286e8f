"""Nodes whose every write is recorded, while clients work that take turns.

Everything is done by one thread, so that a seed decides what is said and when; how the node makes
commits of it is their own affair.  Each event of the history gets a *moment*: the index of the
event of the recording by which it was known to the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from fluffle.broker.amqp_client import ClientOptions
from fluffle.broker.torture.history import (
    Clearing,
    ClearingAsked,
    ClearingDone,
    DeclareAsked,
    Declared,
    Event,
    Note,
)
from fluffle.broker.torture.recording_client import RecordedTarget, RecordingClient
from fluffle.broker.torture.system import NodeAddress
from fluffle.protocol.methods import Exchange, Method, Queue, make, pamqp_table
from fluffle.protocol.spec import FRAME_METHOD
from fluffle.protocol.wire import FieldTable
from tests.crash.transactions import Transactions
from tests.support.daemon import Daemon
from tests.support.deadlines import DEADLINE_S
from tests.support.powercut import Noted, read_traces, recording_environment

QUEUES = ("first", "second", "churn")
FAN, TOPIC = "fan", "topic"
TO_FAN = RecordedTarget(FAN, "", ("first", "second"))
TO_CHURN = RecordedTarget(TOPIC, "churn.key", ("churn",))
TARGETS = (
    TO_FAN,
    RecordedTarget("", "first", ("first",)),
    RecordedTarget("", "second", ("second",)),
)
SIZES = (0, 0, 200, 3_000, 100_000)

BINDINGS = {f"binding {FAN} first", f"binding {FAN} second", f"binding {TOPIC} churn"}
EXCHANGES = {f"exchange {FAN}", f"exchange {TOPIC}"}
THINGS = (*QUEUES, *sorted(BINDINGS), *sorted(EXCHANGES))
"""Names of objects that may exist or not: the checker need not know their kinds."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Recording of a run: every write, and what clients heard meanwhile."""

    events: list[tuple[str, Noted]]
    """With the node that did it."""
    history: list[tuple[int, Event]]
    """Moments, rising, and what clients knew by then."""
    ports: Collection[int]
    """Ports of the clients."""


PATIENT = ClientOptions(beat_s=DEADLINE_S, timeout_s=DEADLINE_S)
"""Options of clients that act in turn: while one of them waits, the others say nothing, and a node
on a busy machine would take them for gone."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Kind of queue that a run is about."""

    arguments: FieldTable = field(default_factory=FieldTable)
    persistent_share: float = 0.9
    """Share of persistent messages; where all messages are kept, others must not be requested."""


@dataclass(slots=True)
class RecordedRun:
    """Four clients and what they write down, with how much each had heard by then."""

    addresses: Sequence[NodeAddress]
    """Addresses of the nodes; each client has one."""
    random: Random
    kind: Kind = field(default_factory=Kind)
    reported: list[tuple[Event, int, int]] = field(default_factory=list)
    """The event, the client that reported it, and how many methods it had heard."""
    clients: list[RecordingClient] = field(default_factory=list)

    async def begin(self) -> None:
        for name in ("publisher", "reader", "dealer", "churner"):
            note = self._note_of(len(self.clients))
            to = self.addresses[len(self.clients) % len(self.addresses)]
            self.clients.append(await RecordingClient.connect(to, name, note, PATIENT))
        publisher, _reader, dealer, churner = self.clients
        for exchange, kind in ((FAN, "fanout"), (TOPIC, "topic")):
            declare = make(Exchange.Declare, exchange=exchange, exchange_type=kind, durable=True)
            await self._make(publisher, f"exchange {exchange}", declare)
        for queue in ("first", "second"):
            await self._declare(publisher, queue, FAN)
        await self._declare(churner, "churn", TOPIC)
        await publisher.publisher.confirm_select()
        await churner.publisher.confirm_select()
        await Transactions(dealer).select()

    async def go_on(self, steps: int) -> None:
        acts = (self._publish, self._publish, self._take, self._settle, self._deal, self._churn)
        for _ in range(steps):
            await self.random.choice(acts)()
        await self.clients[0].publisher.await_confirms()

    def _note_of(self, index: int) -> Note:
        def note(event: Event) -> None:
            is_open = index < len(self.clients)
            received_count = self.clients[index].connection.received_count if is_open else 0
            self.reported.append((event, index, received_count))

        return note

    async def _make(self, client: RecordingClient, thing: str, method: Method) -> None:
        client.connection.note(DeclareAsked(thing))
        await client.connection.call(method)
        client.connection.note(Declared(thing))

    async def _unmake(
        self, client: RecordingClient, things: tuple[str, ...], method: Method
    ) -> None:
        for thing in things:
            client.connection.note(ClearingAsked(thing, Clearing.DELETE))
        await client.connection.call(method)
        for thing in things:
            client.connection.note(ClearingDone(thing, Clearing.DELETE))

    async def _declare(self, client: RecordingClient, queue: str, exchange: str) -> None:
        arguments = pamqp_table(self.kind.arguments)
        declare = make(Queue.Declare, queue=queue, durable=True, arguments=arguments)
        bind = make(Queue.Bind, 0, queue, exchange, f"{queue}.#")
        await self._make(client, queue, declare)
        await self._make(client, f"binding {exchange} {queue}", bind)

    # What the clients do

    async def _publish(self) -> None:
        publisher, random = self.clients[0].publisher, self.random
        targets = [random.choice(TARGETS) for _ in range(random.randint(1, 8))]
        size, chance = random.choice(SIZES), random.random()
        publisher.publish(targets, size, persistent=chance < self.kind.persistent_share)
        await publisher.await_confirms(open_max=random.choice((0, 4, 20)))

    async def _take(self) -> None:
        for _ in range(self.random.randint(1, 6)):
            await self.clients[1].unacked.get(self.random.choice(QUEUES[:2]))

    async def _settle(self) -> None:
        reader, random = self.clients[1], self.random
        unacked, tags = reader.unacked, list(reader.unacked.held)
        if not tags:
            return
        acts = (
            lambda: unacked.ack_up_to(random.choice(tags)),
            lambda: unacked.ack(*random.sample(tags, len(tags) // 2)),
            lambda: unacked.reject(tags[0]),
            lambda: unacked.requeue(*tags[::2]),
        )
        chosen = random.choice((*acts, None))
        if chosen is None:
            await reader.reopen_channel()
        else:
            chosen()
        if random.random() < 0.5:
            await unacked.make_sure()

    async def _deal(self) -> None:
        """A transaction."""
        random, acts = self.random, Transactions(self.clients[2])
        acts.publish([random.choice(TARGETS) for _ in range(3)], 50)
        tag = await self.clients[2].unacked.get("first")
        if random.random() < 0.3:
            await acts.roll_back()
        else:
            await acts.commit([] if tag is None else [tag])

    async def _churn(self) -> None:
        """Fill a queue, and purge it or delete it with its binding."""
        churner, random = self.clients[3], self.random
        churner.publisher.publish([TO_CHURN] * random.randint(1, 4), 300)
        await churner.publisher.await_confirms(open_max=random.choice((0, 2)))
        if random.random() < 0.5:
            churner.connection.note(ClearingAsked("churn", Clearing.PURGE))
            await churner.connection.call(make(Queue.Purge, queue="churn"))
            churner.connection.note(ClearingDone("churn", Clearing.PURGE))
            return
        things = ("churn", f"binding {TOPIC} churn")
        await self._unmake(churner, things, make(Queue.Delete, queue="churn"))
        await self._declare(churner, "churn", TOPIC)


def record(folder: Path, seed: int, steps: int) -> Recording:
    """Have a story happen, end the node with SIGKILL, and read what was recorded."""
    trace = folder / "trace"
    environment = recording_environment(folder, trace) | {"RECORDER_SOCKETS": "1"}
    daemon = Daemon(folder / "recorded", environment=environment)
    daemon.start()
    story = RecordedRun([NodeAddress("node", "127.0.0.1", daemon.port)], Random(seed))
    asyncio.run(happen(story, steps, daemon.kill))
    return recorded(story, {"node": trace})


async def happen(story: RecordedRun, steps: int, kill: Callable[[], None]) -> None:
    """All of it; then whoever serves is killed."""
    try:
        await story.begin()
        await story.go_on(steps)
    finally:
        kill()
        for client in story.clients:
            client.connection.end(None)


def recorded(story: RecordedRun, traces: Mapping[str, Path]) -> Recording:
    """Recording from the traces of its nodes, with the times when its clients knew what."""
    events = list(read_traces(traces))
    ports = [client.connection.port for client in story.clients]
    heard = heard_at(events, ports)
    return Recording(
        events, list(with_moments(story.reported, [heard[port] for port in ports])), ports
    )


def with_moments(
    reported: list[tuple[Event, int, int]], heard: Sequence[list[int]]
) -> Iterator[tuple[int, Event]]:
    """When each event was known: nobody knows anything before what was known before."""
    latest = 0
    for event, client, count in reported:
        if count:
            latest = max(latest, heard[client][count - 1])
        yield latest, event


def heard_at(events: list[tuple[str, Noted]], ports: Sequence[int]) -> dict[int, list[int]]:
    """Moments at which each method was sent to these clients, by port."""
    streams: dict[int, list[tuple[int, bytes]]] = {port: [] for port in ports}
    for moment, (_node, event) in enumerate(events):
        if event.kind in b"NR" and event.offset in streams:
            stream = streams[event.offset]
            if event.kind == b"N":
                stream.append((moment, event.content))
            else:
                sent_at, content = stream.pop()
                stream.append((sent_at, content[: event.length]))
    return {port: methods_at(stream) for port, stream in streams.items()}


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
