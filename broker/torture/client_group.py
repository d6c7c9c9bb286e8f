"""Clients of a run: through every node, and back again whenever their connection ends."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count, cycle
from random import Random
from typing import NamedTuple

from fluffle.broker.amqp_client import ClientOptions, ConnectionEnded
from fluffle.broker.torture.definers import (
    OWNERS,
    Definitions,
    defining,
    following,
    keeping,
    looking,
    owning,
)
from fluffle.broker.torture.history import DeclareAsked, Declared, Homed, Note
from fluffle.broker.torture.recording_client import (
    EMPTY_PAUSE_S,
    RecordedTarget,
    RecordingClient,
    Role,
    to,
)
from fluffle.broker.torture.system import NodeAddress
from fluffle.protocol.methods import Queue, make, pamqp_table
from fluffle.protocol.wire import to_table

NOWHERE = RecordedTarget("", "no such queue", ())


# Publishers; each waits so long after each batch, listening


def batches(queues: Sequence[str], pause_s: float = 0.0, batch_max: int = 40) -> Role:
    """Many at once, to queues at random, with a few batches unconfirmed."""

    async def publish(client: RecordingClient, random: Random) -> None:
        await client.publisher.confirm_select()
        while True:
            count = random.randint(1, batch_max)
            targets = [to(random.choice(queues)) for _ in range(count)]
            client.publisher.publish(targets, random.choice((0, 30, 2_000)))
            await client.publisher.await_confirms(random.choice((0, batch_max // 2, 2 * batch_max)))
            await client.connection.listen(pause_s)

    return publish


def one_by_one(queue: str, pause_s: float = 0.0) -> Role:
    """Publish messages, each after the confirm of the one before; some go nowhere and come back."""

    async def publish(client: RecordingClient, random: Random) -> None:
        await client.publisher.confirm_select()
        while True:
            client.publisher.publish([NOWHERE if random.random() < 0.25 else to(queue)], 30)
            await client.publisher.await_confirms()
            await client.connection.listen(pause_s)

    return publish


def large(queue: str, pause_s: float = 0.0, size: int = 100 * 1024) -> Role:
    """Bodies that go in several frames."""

    async def publish(client: RecordingClient, random: Random) -> None:
        await client.publisher.confirm_select()
        while True:
            client.publisher.publish([to(queue)] * random.randint(1, 4), size)
            await client.publisher.await_confirms(open_max=2)
            await client.connection.listen(pause_s)

    return publish


def hasty(queue: str, pause_s: float) -> Role:
    """Closes its channel now and then, with messages that are not confirmed."""

    async def publish(client: RecordingClient, random: Random) -> None:
        while True:
            await client.publisher.confirm_select()
            for _ in range(random.randint(1, 10)):
                client.publisher.publish([to(queue)] * random.randint(1, 10), 30)
                await client.publisher.await_confirms(open_max=20)
                await client.connection.listen(pause_s)
            await client.reopen_channel()

    return publish


# Consumers


def in_order(queue: str) -> Role:
    """Acknowledges one by one, and makes sure of it now and then."""

    async def consume(client: RecordingClient, random: Random) -> None:
        await client.unacked.consume(queue, prefetch=20)
        while True:
            client.unacked.ack(*await client.unacked.await_held(random.randint(1, 10)))
            if random.random() < 0.3:
                await client.unacked.make_sure()

    return consume


def multiple(queue: str) -> Role:
    """Acknowledges all up to one; now and then it closes the channel with the rest in hand."""

    async def consume(client: RecordingClient, random: Random) -> None:
        while True:
            await client.unacked.consume(queue, prefetch=50)
            for _ in range(random.randint(5, 30)):
                tags = await client.unacked.await_held(random.randint(1, 50))
                client.unacked.ack_up_to(random.choice(tags))
                if random.random() < 0.3:
                    await client.unacked.make_sure()
            await client.reopen_channel()

    return consume


def shuffled(queue: str) -> Role:
    """Acknowledges out of order, rejects some and gives some back."""

    async def consume(client: RecordingClient, random: Random) -> None:
        await client.unacked.consume(queue, prefetch=30)
        while True:
            tags = await client.unacked.await_held(random.randint(2, 30))
            random.shuffle(tags)
            client.unacked.ack(*tags[1::2])
            client.unacked.reject(*tags[:1])
            client.unacked.requeue(*tags[4::8])
            if random.random() < 0.3:
                await client.unacked.make_sure()

    return consume


def leaving(queue: str) -> Role:
    """Acknowledges what it has and closes its channel, without asking for an answer before."""

    async def consume(client: RecordingClient, random: Random) -> None:
        while True:
            await client.unacked.consume(queue, prefetch=10)
            for _ in range(random.randint(1, 10)):
                client.unacked.ack(*await client.unacked.await_held(random.randint(1, 10)))
            await client.reopen_channel()

    return consume


def polled(queue: str, empty_pause_s: float = EMPTY_PAUSE_S) -> Role:
    """Consume by basic.get; the next answer vouches for the acknowledgement of the one before."""

    async def consume(client: RecordingClient, random: Random) -> None:
        while True:
            tag = await client.unacked.get(queue)
            if tag is None:
                await client.connection.listen(empty_pause_s)
            elif random.random() < 0.1:
                client.unacked.requeue(tag)
            else:
                client.unacked.ack(tag)

    return consume


BACK_AFTER_S = (0.05, 0.5)
PATIENT_SHARE = 0.3
TIMEOUT_S, LONG_TIMEOUT_S = 8.0, 120.0
"""Most clients give up an answer that does not come; some wait for the end of a partition."""
LAST_CONFIRMS_S = 15.0
"""How long confirms may take when a run is over."""
MESSAGES_A_ROUND = 17.0
"""Messages that one client of each publishing role sends between two pauses, roughly."""
ARGUMENTS = {"quorum": {"x-delivery-limit": 1_000_000}}
"""Arguments by type of queue: a message returned often is dropped; the default limit of 20 can
be reached."""
SINK_MESSAGES_MAX = 100
BOTH = {"both": ("quorum", "classic")}
"""Types of the queues in turn, where they are mixed."""


class QueueNames(NamedTuple):
    """Names of the queues of a run."""

    busy: str
    mixed: str
    polled: str
    large: str

    @classmethod
    def of(cls, prefix: str) -> QueueNames:
        return cls(*(f"{prefix}.{field}" for field in cls._fields))


def publishing(names: QueueNames, rate: float, nodes: int) -> dict[str, Role]:
    """Run publishers that together publish about so many messages a second."""
    pause_s = MESSAGES_A_ROUND * nodes / rate
    return {
        "batches": batches((names.busy, names.mixed, names.polled), pause_s, batch_max=20),
        "one-by-one": one_by_one(names.busy, pause_s),
        "large": large(names.large, 2 * pause_s),
        "hasty": hasty(names.mixed, pause_s),
    }


def consuming(names: QueueNames, slowness: float = 1.0) -> dict[str, Role]:
    return {
        "in-order": in_order(names.busy),
        "multiple": multiple(names.busy),
        "shuffled": shuffled(names.mixed),
        "leaving": leaving(names.mixed),
        "polled": polled(names.polled, EMPTY_PAUSE_S * slowness),
        "large-reader": in_order(names.large),
    }


def declaring(definitions: Definitions) -> dict[str, Role]:
    return {
        "definer": defining(definitions),
        "looker": looking(definitions, by_publish=False),
        "router": looking(definitions, by_publish=True),
        "keeper": keeping(definitions),
        "follower": following(definitions),
        **{f"owner{number}": owning(definitions) for number in range(1, OWNERS + 1)},
    }


def type_of_definitions(queue_type: str, nodes: int) -> str | None:
    """Return the type of queues that come and go.  None where a queue is away with its node: then
    "not there" may be true of a queue that was declared."""
    if nodes == 1:
        return BOTH.get(queue_type, (queue_type,))[0]
    return None if queue_type == "classic" else "quorum"


@dataclass(slots=True)
class ClientGroup:
    """Clients of a run: one of each role and node."""

    addresses: Sequence[NodeAddress]
    names: QueueNames
    note: Note
    client_options: ClientOptions
    random: Random
    members: Collection[str] = field(kw_only=True)
    """Nodes that are in the cluster now; the others may come."""

    async def declare(self, queue_type: str) -> None:
        """Declare all queues, through the first node, of one type or both.  `ConnectionEnded`."""
        with await self.client("setup", self.addresses[0]) as client:
            for queue, kind in zip(self.names, cycle(BOTH.get(queue_type, (queue_type,)))):
                given = ARGUMENTS.get(kind, {})
                table = pamqp_table(to_table({"x-queue-type": kind, **given}))
                if kind == "classic" and len(self.members) > 1:
                    self.note(Homed(queue))
                self.note(DeclareAsked(queue))
                await client.connection.call(
                    make(Queue.Declare, queue=queue, durable=True, arguments=table)
                )
                self.note(Declared(queue))

    async def declare_sink(self, definitions: Definitions) -> None:
        """Declare where the bindings lead that come and go.  `ConnectionEnded` where that fails."""
        with await self.client("setup.sink", self.addresses[0]) as client:
            declare = definitions.declare(definitions.sink, **{"x-max-length": SINK_MESSAGES_MAX})
            await client.connection.call(declare)
            definitions.left.add(definitions.sink)

    async def delete(self, queues: Iterable[str]) -> None:
        with await self.client("cleanup", self.addresses[0]) as client:
            for queue in queues:
                await client.connection.call(make(Queue.Delete, queue=queue))

    async def client(self, name: str, to: NodeAddress) -> RecordingClient:
        return await RecordingClient.connect(to, name, self.note, self.client_options)

    @property
    def present(self) -> list[NodeAddress]:
        """Addresses of the nodes that are in the cluster now."""
        return [address for address in self.addresses if address.node in self.members]

    async def work(self, roles: Mapping[str, Role], is_over: asyncio.Event) -> None:
        """Work until it is over; then await confirms and leave."""
        async with asyncio.TaskGroup() as clients:
            for address in self.addresses:
                for name, role in roles.items():
                    random = Random(f"{self.random.random()} {name} {address.node}")
                    life = ClientLoop(self, f"{name}.{address.node}", role, random, is_over)
                    clients.create_task(life.live(address))


@dataclass(slots=True)
class ClientLoop:
    """Client of a run that connects again whenever its connection ends."""

    clients: ClientGroup
    name: str
    role: Role
    random: Random
    is_over: asyncio.Event

    async def live(self, first: NodeAddress) -> None:
        """Through its first node, then through any that it happens to choose; through no other
        if the first comes and goes."""
        clients, to = self.clients, first
        is_of_spare = first.node not in clients.members
        for number in count(1):
            if to.node in clients.members:
                with suppress(ConnectionEnded):
                    await self._connection(f"{self.name}.{number}", to)
            if self.is_over.is_set():
                return
            await asyncio.sleep(self.random.uniform(*BACK_AFTER_S))
            to = first if is_of_spare else self.random.choice(clients.present)

    async def _connection(self, name: str, to: NodeAddress) -> None:
        is_patient = self.random.random() < PATIENT_SHARE
        timeout_s = LONG_TIMEOUT_S if is_patient else TIMEOUT_S
        client_options = replace(self.clients.client_options, timeout_s=timeout_s)
        with await RecordingClient.connect(to, name, self.clients.note, client_options) as client:
            work = asyncio.ensure_future(self.role(client, self.random))
            over = asyncio.ensure_future(self.is_over.wait())
            try:
                await asyncio.wait((work, over), return_when=asyncio.FIRST_COMPLETED)
            finally:
                over.cancel()
                work.cancel()
            await asyncio.wait((work,))
            if not work.cancelled():
                work.result()  # a role does not end but by an error
            if client.connection.is_closing:
                return  # no confirm comes on a channel that is closed
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_CONFIRMS_S):
                    await client.publisher.await_confirms()
