"""Clients that declare, delete and look for things through every node, and own exclusive queues.

What is declared through one node must be there at once for clients of all the others.  *Things*
are queues and bindings that come and go; each time that one was answered to be there or not,
every later question must have the same answer.  *Kept* queues are published to as soon as they are
declared, whichever node that is through, and deleted when they are empty: a message that was
confirmed and routed nowhere is lost.  Some are *renewed* then, or while they are published to:
deleted and declared anew under the same name, of which another node may know the former one still.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from random import Random

from fluffle.broker.amqp_client import BrokerRefusal, ConnectionEnded
from fluffle.broker.torture.history import (
    Abandoned,
    Answered,
    Clearing,
    ClearingAsked,
    ClearingDone,
    Confirmed,
    DeclareAsked,
    Declared,
    Event,
    Invoked,
    MessageId,
    Operation,
    Owned,
    Published,
    Received,
    ShortLived,
)
from fluffle.broker.torture.recording_client import (
    EMPTY_PAUSE_S,
    PROPERTIES,
    RecordedConnection,
    RecordedTarget,
    RecordingClient,
    Role,
)
from fluffle.protocol.client_reader import ReceivedMethod
from fluffle.protocol.methods import (
    Basic,
    Confirm,
    Method,
    Queue,
    encode_method,
    make,
    pamqp_table,
)
from fluffle.protocol.properties import build_content, split_content
from fluffle.protocol.spec import ReplyCode
from fluffle.protocol.wire import to_table

THINGS = 3
"""At a time; one of them is a binding."""
CHANGES_MAX = 20
"""Changes of one thing; then there is another in its place."""
KEPT_MAX = 6
"""Queues that are published to at a time; then the oldest is emptied."""
FULL_MAX = 20
"""Queues that wait to be emptied; while there are so many, no more are declared."""
DECLARED_SHARE = 0.15
RENEWED_IN_USE_SHARE = 0.15
"""The share of the batches of a keeper that come behind one of these."""
RENEWED_EMPTY_SHARE = 0.5
"""The share of the queues that were emptied."""
PAUSE_S = (0.0, 0.3)
DEFINING_PAUSE_S = (0.2, 1.5)
OWNERS = 4
"""At each node, for the moment that matters is short."""
OWNING_PAUSE_S = (0.5, 4.0)
OWNING_S = (0.0, 0.01, 0.1, 1.0, 40.0, 40.0)
"""How long a client that has asked for an exclusive queue stays, if there is no answer before."""
EXCHANGE = "amq.direct"
NOT_THERE = "no queue"
"""In the text of a 404; there are others, of queues that are there and cannot be reached."""


@dataclass(slots=True, eq=False)
class Thing:
    """Thing that is declared: a queue; or a binding of `EXCHANGE`, whose key is the name."""

    name: str
    is_binding: bool
    changes: int = 0


class Definitions:
    """The knowledge that clients of one run have of each other: the names that are in use."""

    def __init__(self, prefix: str, queue_type: str, slowness: float = 1.0) -> None:
        """`slowness`: factor of the pauses of its clients."""
        self.prefix = prefix
        self.queue_type = queue_type
        self.slowness = slowness
        self.sink = f"{prefix}.sink"
        """Where bindings lead; what is in it is of no interest."""
        self.kept: deque[str] = deque()
        self.full: deque[str] = deque()
        """Kept queues that are not published to any more."""
        self.renewing: set[str] = set()
        """Kept queues that are deleted and declared anew just now."""
        self.renewals = 0
        """How often one of them was; the last of `kept` is the one that was declared last."""
        self.posting: Counter[str] = Counter()
        """Batches of messages to a kept queue that may be confirmed yet."""
        self._queue_of: dict[MessageId, str] = {}
        """The kept queue of each message that may be confirmed yet."""
        self._missing: dict[str, set[MessageId]] = defaultdict(set)
        """Confirmed and not received, by kept queue."""
        self.left: set[str] = set()
        """Queues that may be there at the end, and others."""
        self.owned: list[str] = []
        """Exclusive queues."""
        self.things: list[Thing] = []
        """All there ever were."""
        self._numbers = count(1)
        self._current = [self._new(is_binding=number == 0) for number in range(THINGS)]

    @property
    def unfinished(self) -> list[str]:
        """Queues whose messages were not fetched."""
        return [*self.kept, *self.full]

    def note(self, event: Event) -> None:
        """See what becomes of messages to kept queues."""
        if isinstance(event, ShortLived):
            self._missing[event.queue] = set()
        elif isinstance(event, ClearingAsked):
            self._missing[event.queue] = set()
            of_others = (pair for pair in self._queue_of.items() if pair[1] != event.queue)
            self._queue_of = dict(of_others)
        elif isinstance(event, Published) and self._must_arrive(event.queues[:1]):
            self._queue_of[event.message] = event.queues[0]
        elif isinstance(event, Confirmed):
            queue = self._queue_of.pop(event.message, None)
            if queue is not None:
                self._missing[queue].add(event.message)
        elif isinstance(event, Received) and event.queue in self._missing:
            self._queue_of.pop(event.message, None)
            self._missing[event.queue].discard(event.message)

    def _must_arrive(self, queues: Collection[str]) -> bool:
        """True if a message for these queues that is confirmed must be in one that is looked at:
        they are in use, and none of them is being declared anew."""
        return any(queue in self._missing and queue not in self.renewing for queue in queues)

    def keep(self, queue: str) -> None:
        """Keep a queue that is there, and may be published to; the oldest makes way."""
        self.kept.append(queue)
        if len(self.kept) > KEPT_MAX:
            self.full.append(self.kept.popleft())

    def drop(self, queue: str) -> None:
        """Ask for it no more, but for its deletion: whether it is there is not known."""
        for queues in (self.kept, self.full):
            if queue in queues:
                queues.remove(queue)

    def next_full(self) -> str | None:
        """Return a kept queue that is not published to any more, to be emptied."""
        idle = (each for each in self.full if not self.posting[each])
        return next((each for each in idle if each not in self.renewing), None)

    def may_go(self, queue: str) -> bool:
        """True if all was received of a kept queue that was confirmed.  What a get took
        out of it whose answer was lost comes back when the broker has noticed."""
        return not self._missing[queue]

    def stop_publishing(self) -> None:
        """Publish no more to a queue: whatever is confirmed has been."""
        self.full += self.kept
        self.kept.clear()
        self.posting.clear()

    def pause_s(self, random: Random, shortest_s: float, longest_s: float) -> float:
        """Return how long a client is to wait now."""
        return self.slowness * random.uniform(shortest_s, longest_s)

    def declare(self, queue: str, **arguments: int) -> Queue.Declare:
        """Return the method that declares a queue."""
        table = pamqp_table(to_table({"x-queue-type": self.queue_type, **arguments}))
        return make(Queue.Declare, queue=queue, durable=True, arguments=table)

    def choose(self, random: Random) -> Thing:
        """Return a thing to ask about."""
        return random.choice(self._current)

    def replace(self, thing: Thing) -> None:
        """Replace a thing that has been used enough, or whose state is unknown."""
        if thing in self._current:
            at = self._current.index(thing)
            self._current[at] = self._new(is_binding=thing.is_binding)

    def _new(self, *, is_binding: bool) -> Thing:
        thing = Thing(f"{self.prefix}.thing.{next(self._numbers)}", is_binding)
        self.things.append(thing)
        return thing


@asynccontextmanager
async def asking(
    connection: RecordedConnection, thing: str, operation: Operation
) -> AsyncIterator[list[bool]]:
    """Write a question down and what came of it: the client puts the answer into the list."""
    answers: list[bool] = []
    connection.note(Invoked(connection.name, thing, operation))
    try:
        yield answers
    finally:
        connection.note(
            Answered(connection.name, thing, answers[0])
            if answers
            else Abandoned(connection.name, thing)
        )


# Things that come and go


def defining(definitions: Definitions) -> Role:
    """Declares and deletes things."""

    async def define(client: RecordingClient, random: Random) -> None:
        definer = Definer(client.connection, definitions)
        while True:
            await client.connection.listen(definitions.pause_s(random, *DEFINING_PAUSE_S))
            thing = definitions.choose(random)
            operation = random.choice((Operation.DECLARE, Operation.DELETE))
            if thing.changes > CHANGES_MAX:
                definitions.replace(thing)
                operation = Operation.DELETE
            await definer.change(thing, operation)

    return define


def looking(definitions: Definitions, *, by_publish: bool) -> Role:
    """Look for things: by messages that come back, or by passive declares of queues.  A client that
    waits for what it has changed would see nothing meanwhile, so others look."""

    async def look(client: RecordingClient, random: Random) -> None:
        definer = Definer(client.connection, definitions)
        if by_publish:
            await client.connection.call(Confirm.Select())
        while True:
            await definer.look(definitions.choose(random), by_publish=by_publish)
            await client.connection.listen(definitions.pause_s(random, *PAUSE_S))

    return look


class Definer:
    """Asks about things over one connection."""

    def __init__(self, connection: RecordedConnection, definitions: Definitions) -> None:
        self._connection = connection
        self._definitions = definitions
        self._published = self._confirmed = 0
        self._is_refused = self._is_returned = False
        """The last message."""
        connection.on(Basic.Ack, self._on_ack)
        connection.on(Basic.Nack, self._on_nack)
        connection.on(Basic.Return, self._on_return)

    async def change(self, thing: Thing, operation: Operation) -> None:
        if not thing.is_binding:
            self._definitions.left.add(thing.name)
        thing.changes += 1
        try:
            async with asking(self._connection, thing.name, operation) as answers:
                await self._connection.call(self._method(thing, operation))
                answers.append(operation is Operation.DECLARE)
        except BaseException:
            self._definitions.replace(thing)
            raise

    async def look(self, thing: Thing, *, by_publish: bool) -> None:
        if thing.is_binding and not by_publish:
            return
        async with asking(self._connection, thing.name, Operation.LOOK) as answers:
            if by_publish:
                answers += await self._look_by_publish(thing)
            else:
                answers.append(await self._is_there(thing.name))

    def _method(self, thing: Thing, operation: Operation) -> Method:
        name, sink, is_wanted = thing.name, self._definitions.sink, operation is Operation.DECLARE
        if thing.is_binding and is_wanted:
            return make(Queue.Bind, queue=sink, exchange=EXCHANGE, routing_key=name)
        if thing.is_binding:
            return make(Queue.Unbind, queue=sink, exchange=EXCHANGE, routing_key=name)
        return self._definitions.declare(name) if is_wanted else make(Queue.Delete, queue=name)

    async def _is_there(self, queue: str) -> bool:
        """True if it is there; if not, that costs the channel, and another is opened."""
        try:
            await self._connection.call(make(Queue.Declare, queue=queue, passive=True))
        except BrokerRefusal as refusal:
            if not is_absence(refusal):
                raise
            await self._connection.replace_channel(str(refusal))
            return False
        return True

    async def _look_by_publish(self, thing: Thing) -> list[bool]:
        """Check by publishing if the object exists; empty if the publish was refused, which proves
        nothing."""
        exchange = EXCHANGE if thing.is_binding else ""
        content = build_content(PROPERTIES[True], b"is it there?")
        method = make(Basic.Publish, 0, exchange, thing.name, mandatory=True)
        self._is_refused = self._is_returned = False
        self._published += 1
        content_frames = split_content(content, 1, self._connection.frame_bytes_max)
        self._connection.write(encode_method(1, method) + content_frames)
        async with self._connection.deadline("no confirm"):
            while self._confirmed < self._published:
                await self._connection.receive()
        return [] if self._is_refused else [not self._is_returned]

    def _on_ack(self, _reply: ReceivedMethod) -> None:
        self._confirmed = self._published  # there is one message under way at most

    def _on_nack(self, _reply: ReceivedMethod) -> None:
        self._confirmed, self._is_refused = self._published, True

    def _on_return(self, _reply: ReceivedMethod) -> None:
        self._is_returned = True


def is_absence(refusal: BrokerRefusal) -> bool:
    """True if it says that there is no such queue, and not that it cannot be reached."""
    return refusal.code == ReplyCode.NOT_FOUND and NOT_THERE in str(refusal)


# Queues that are published to as soon as they are there


def keeping(definitions: Definitions) -> Role:
    """Declares queues now and then, and publishes to any that was declared, through any node."""

    async def keep(client: RecordingClient, random: Random) -> None:
        await client.publisher.confirm_select()
        for number in count(1):
            is_behind = len(definitions.full) >= FULL_MAX
            if not definitions.kept or (random.random() < DECLARED_SHARE and not is_behind):
                queue = f"{definitions.prefix}.kept.{client.connection.name}.{number}"
                await declare_kept(client.connection, definitions, queue)
            queue = random.choice(definitions.kept)
            if random.random() < RENEWED_IN_USE_SHARE and queue not in definitions.renewing:
                await renew_queue(client.connection, definitions, queue)
            if definitions.kept:
                kept = definitions.kept
                queue = kept[-1] if random.random() < 0.5 else random.choice(kept)
                await publish_to_kept(client, definitions, queue, random)
            await client.connection.listen(definitions.pause_s(random, *PAUSE_S))

    return keep


def following(definitions: Definitions) -> Role:
    """Publishes to a queue as soon as it was renewed, through whichever node."""

    async def follow(client: RecordingClient, random: Random) -> None:
        seen = definitions.renewals
        await client.publisher.confirm_select()
        while True:
            await client.connection.listen(EMPTY_PAUSE_S * definitions.slowness)
            if definitions.renewals > seen and definitions.kept:
                seen = definitions.renewals
                await publish_to_kept(client, definitions, definitions.kept[-1], random)

    return follow


async def declare_kept(
    connection: RecordedConnection, definitions: Definitions, queue: str
) -> None:
    await declare_short_lived(connection, definitions, queue)
    definitions.keep(queue)


async def declare_short_lived(
    connection: RecordedConnection, definitions: Definitions, queue: str
) -> None:
    definitions.left.add(queue)
    connection.note(ShortLived(queue))
    connection.note(DeclareAsked(queue))
    async with asking(connection, queue, Operation.DECLARE) as answers:
        await connection.call(definitions.declare(queue))
        answers.append(True)
    connection.note(Declared(queue))


async def renew_queue(connection: RecordedConnection, definitions: Definitions, queue: str) -> None:
    """Delete a kept queue with all that is in it, and declare it anew; others publish meanwhile.
    Then it is the one that was declared last."""
    definitions.renewing.add(queue)
    connection.note(ClearingAsked(queue, Clearing.DELETE))
    try:
        async with asking(connection, queue, Operation.DELETE) as answers:
            await connection.call(make(Queue.Delete, queue=queue))
            answers.append(False)
        connection.note(ClearingDone(queue, Clearing.DELETE))
        await declare_short_lived(connection, definitions, queue)
    except BaseException:
        definitions.drop(queue)
        raise
    definitions.renewing.discard(queue)
    if queue in definitions.kept:
        definitions.kept.remove(queue)
        definitions.kept.append(queue)
        definitions.renewals += 1


async def publish_to_kept(
    client: RecordingClient, definitions: Definitions, queue: str, random: Random
) -> None:
    """Publish some messages to kept queues."""
    is_mandatory = random.random() < 0.5
    target = RecordedTarget("", queue, (queue,), is_mandatory)
    definitions.posting[queue] += 1
    try:
        client.publisher.publish([target] * random.randint(1, 3), 30)
        await client.publisher.await_confirms()
    except asyncio.CancelledError:
        raise  # the client leaves, and goes on to wait for its confirms
    except ConnectionEnded:
        definitions.posting[queue] -= 1
        raise
    definitions.posting[queue] -= 1


def emptying(definitions: Definitions) -> Role:
    """Fetches what is in queues that are not published to any more, and deletes or renews them when
    nothing is missing: what is lost is missed in the end."""

    async def fetch(client: RecordingClient, random: Random) -> None:
        while True:
            queue = definitions.next_full()
            if queue is None:
                await client.connection.listen(EMPTY_PAUSE_S * definitions.slowness)
                continue
            definitions.full.remove(queue)
            try:
                await empty(client, queue)
            except BaseException:
                definitions.full.append(queue)
                raise
            if not definitions.may_go(queue):
                definitions.full.append(queue)
                await client.connection.listen(EMPTY_PAUSE_S * definitions.slowness)
                continue
            if random.random() < RENEWED_EMPTY_SHARE:
                await renew_queue(client.connection, definitions, queue)
                definitions.keep(queue)
                definitions.renewals += 1
                continue
            await client.connection.call(make(Queue.Delete, queue=queue))
            definitions.left.discard(queue)

    return fetch


async def empty(client: RecordingClient, queue: str) -> None:
    """Receive all that is in a queue which must be there."""
    async with asking(client.connection, queue, Operation.LOOK) as answers:
        try:
            tag = await client.unacked.get(queue)
        except BrokerRefusal as refusal:
            answers += [False] if is_absence(refusal) else []
            raise
        answers.append(True)
    while tag is not None:
        client.unacked.ack(tag)
        tag = await client.unacked.get(queue)
    await client.unacked.make_sure()


async def look_for_all(connection: RecordedConnection, definitions: Definitions) -> None:
    """Look for everything at the end, when every node knows all of it."""
    definer = Definer(connection, definitions)
    for thing in definitions.things:
        if thing.is_binding:
            await connection.call(Confirm.Select())
        await definer.look(thing, by_publish=thing.is_binding)


# Exclusive queues


def owning(definitions: Definitions) -> Role:
    """Declares an exclusive queue and hangs up, with the answer or before."""

    async def own(client: RecordingClient, random: Random) -> None:
        connection = client.connection
        await connection.listen(definitions.pause_s(random, *OWNING_PAUSE_S))
        queue = f"{definitions.prefix}.own.{connection.name}"
        definitions.owned.append(queue)
        connection.note(Owned(queue, connection.name))
        with suppress(TimeoutError):
            async with asyncio.timeout(random.choice(OWNING_S)):
                await connection.call(make(Queue.Declare, queue=queue, exclusive=True))
        raise ConnectionEnded("it hangs up")

    return own


async def owned_elsewhere(connection: RecordedConnection, queues: list[str]) -> list[str]:
    """Return those of them that another connection owns, or that are there at least."""
    found = []
    for queue in queues:
        try:
            await connection.call(make(Queue.Declare, queue=queue, passive=True))
        except BrokerRefusal as refusal:
            if refusal.code == ReplyCode.RESOURCE_LOCKED:
                found.append(queue)
            elif not is_absence(refusal):
                raise
            await connection.replace_channel(str(refusal))
        else:
            found.append(queue)
    return found
