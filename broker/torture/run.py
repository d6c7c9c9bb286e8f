"""Run of torture: work under faults, heal, empty all queues."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import BinaryIO, TextIO

from fluffle.broker.amqp_client import ClientOptions, ConnectionEnded
from fluffle.broker.torture.checker import Findings
from fluffle.broker.torture.client_group import (
    ClientGroup,
    QueueNames,
    consuming,
    declaring,
    publishing,
    type_of_definitions,
)
from fluffle.broker.torture.definers import (
    Definitions,
    emptying,
    look_for_all,
    owned_elsewhere,
)
from fluffle.broker.torture.faults import FaultContext, PlannedFault, carry_out, heal, plan
from fluffle.broker.torture.history import Event, GraceOver, Locked, Strange, from_line
from fluffle.broker.torture.online_checker import HistoryWriter, OnlineChecker
from fluffle.broker.torture.proxy import Proxy
from fluffle.broker.torture.recording_client import RecordingClient
from fluffle.broker.torture.stalls import NOTABLE_NS, TESTER_LATE, Stall, StallChecker
from fluffle.broker.torture.system import NodeActionFailed, NodeAddress, System

FULL_RATE = 300.0
READY_S = 120.0
"""How long a node may take until it serves, after its start or after everything was healed."""
LOOK_S = 0.2
CALM_S = 3.0
"""How long clients go on when everything is healed."""
CATCH_UP_S = 30
"""Consumers go on for what is left then, until for so long none of it has come; what they leave is
taken one by one."""
DRAIN_S = 90.0
"""How long nothing may come of what is missing: RabbitMQ keeps what a lost consumer held for a
minute."""
DRAIN_PAUSE_S = 1.0
EMPTY_ROUNDS = 2
"""Rounds without a finding, one after the other, that end the run."""
GRACE_S = 45.0
"""How long an exclusive queue may outlive its connection when all is well."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a system is to be tortured."""

    seconds: float
    seed: int
    kinds: tuple[str, ...]
    """Names of the faults to choose from."""
    rate: float = FULL_RATE
    """Messages a second, of all clients together, when nothing is wrong."""
    prefix: str = "torture"
    """Prefix of the names of all queues."""
    client_options: ClientOptions = field(default_factory=ClientOptions)
    keep: bool = False
    """Leave the queues behind."""

    @property
    def slowness(self) -> float:
        """Factor of the pauses of clients whose work is not counted in messages."""
        return max(1.0, FULL_RATE / self.rate)


@dataclass(slots=True)
class RunResult:
    """Result of a run, besides its history."""

    order: RunOptions
    faults: list[PlannedFault] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Faults that could not be caused or did not heal."""

    def is_good(self, report: Findings) -> bool:
        return report.is_good and not self.failures


class Run:
    """One; `echo` hears how it goes on."""

    def __init__(
        self,
        system: System,
        order: RunOptions,
        history_writer: HistoryWriter,
        echo: Callable[[str], None],
    ) -> None:
        self.outcome = RunResult(order)
        self._system = system
        self._order = order
        self._history_writer = history_writer
        self._echo = echo
        self._random = Random(order.seed)
        self._names = QueueNames.of(order.prefix)
        self._members = system.nodes
        """Members of the cluster; they change."""
        queue_type = type_of_definitions(system.queue_type, len(system.nodes))
        self._definitions = (
            Definitions(order.prefix, queue_type, order.slowness) if queue_type else None
        )

    async def run(self) -> RunResult:
        """`NodeActionFailed` where the system does not serve at first, or not such queues."""
        async with fronts(self._system) as proxies:
            for node in self._system.nodes:
                await self._serves(node)
            clients = self._client_group(proxies)
            try:
                await clients.declare(self._system.queue_type)
                if self._definitions is not None:
                    await clients.declare_sink(self._definitions)
            except ConnectionEnded as error:
                raise NodeActionFailed(f"it refuses the queues: {error}") from error
            note = self._history_writer.note
            context = FaultContext(self._system, proxies, note, self._is_back, self._members)
            await self._work(clients, context)
        try:
            await self._empty_all()
            if self._definitions is not None:
                await self._look_for_leftovers(self._definitions)
            if not self._order.keep:
                await self._client_group({}).delete(self._queues())
        except (ConnectionEnded, NodeActionFailed) as error:
            self.outcome.failures.append(f"the queues could not be emptied: {error}")
        self._history_writer.checker.finish()
        return self.outcome

    def _queues(self) -> list[str]:
        """Return all that may be there."""
        return [*self._names, *(self._definitions.left if self._definitions else ())]

    def _client_group(self, proxies: Mapping[str, Proxy]) -> ClientGroup:
        """Connected through proxies where there are."""
        addresses = [
            NodeAddress(address.node, "127.0.0.1", proxies[address.node].port)
            if address.node in proxies
            else address
            for address in self._system.every_address
        ]
        client_options, members = self._order.client_options, self._members
        return ClientGroup(
            addresses, self._names, self._note, client_options, self._random, members=members
        )

    def _note(self, event: Event) -> None:
        self._history_writer.note(event)
        if self._definitions is not None:
            self._definitions.note(event)

    async def _work(self, clients: ClientGroup, context: FaultContext) -> None:
        """Clients under faults, until all is healed and publishers have heard all they will."""
        order, nodes = self._order, self._system.nodes
        spares = [address.node for address in self._system.spares]
        no_more, leave = asyncio.Event(), asyncio.Event()
        self.outcome.faults = plan(self._random, order.seconds, nodes, order.kinds, spares)
        roles = publishing(self._names, order.rate, len(nodes))
        others = consuming(self._names, order.slowness)
        if self._definitions is not None:
            roles |= declaring(self._definitions)
            others |= {"emptier": emptying(self._definitions)}
        async with asyncio.TaskGroup() as group:
            publishers = group.create_task(clients.work(roles, no_more))
            group.create_task(clients.work(others, leave))
            await self._torture(context)
            self._echo("healed")
            no_more.set()
            self._history_writer.stop_the_clock()
            await publishers
            if self._definitions is not None:
                self._definitions.stop_publishing()
            await self._catch_up()
            leave.set()

    async def _catch_up(self) -> None:
        owed, idle_s = self._history_writer.checker.owed_count, 0
        while owed and idle_s < CATCH_UP_S:
            await asyncio.sleep(1.0)
            before, owed = owed, self._history_writer.checker.owed_count
            idle_s = idle_s + 1 if owed == before else 0

    async def _torture(self, context: FaultContext) -> None:
        """Carry out the faults, and end them."""
        loop = asyncio.get_running_loop()
        over_at = loop.time() + self._order.seconds
        try:
            await carry_out(context, self.outcome.faults)
            await asyncio.sleep(over_at - loop.time())
        except* NodeActionFailed as errors:
            self.outcome.failures += map(str, errors.exceptions)
        finally:
            await heal(context)
        for node in self._members:
            try:
                await self._is_back(node)
            except NodeActionFailed as error:
                self.outcome.failures.append(str(error))
        await asyncio.sleep(CALM_S)

    async def _is_back(self, node: str) -> None:
        await self._serves(node, *self._names)

    async def _serves(self, node: str, *queues: str) -> None:
        """Return when a client can log in and ask for these queues, or raise NodeActionFailed."""
        (address,) = (each for each in self._system.every_address if each.node == node)
        await await_serving(address, queues, self._order.client_options)

    async def _empty_all(self) -> None:
        """Through every node in turn, until nothing comes and nothing is missing."""
        clients, checker = self._client_group({}), self._history_writer.checker
        queues = [*self._names, *(self._definitions.unfinished if self._definitions else ())]
        empty_rounds, owed, until_s = 0, checker.owed_count, time.monotonic() + DRAIN_S
        for number in count(1):
            is_empty = True
            for address in clients.present:
                name = f"drain.{address.node}.{number}"
                is_empty &= await found_empty(clients, name, address, queues)
            empty_rounds = empty_rounds + 1 if is_empty else 0
            if owed != checker.owed_count:
                owed, until_s = checker.owed_count, time.monotonic() + DRAIN_S
            is_late = time.monotonic() > until_s
            if is_late or (empty_rounds >= EMPTY_ROUNDS and not checker.owed_count):
                break
            await asyncio.sleep(DRAIN_PAUSE_S)
        for address in clients.present:
            with await clients.client(f"look.{address.node}", address) as client:
                await look_whether_empty(client, self._names, address.node)

    async def _look_for_leftovers(self, definitions: Definitions) -> None:
        """Check that deleted objects are gone, and exclusive queues with their connections."""
        clients, until_s = self._client_group({}), time.monotonic() + GRACE_S
        owned, is_over = definitions.owned, False
        for number in count(1):
            is_over = time.monotonic() > until_s
            to = clients.present[number % len(clients.present)]
            try:
                with await clients.client(f"locks.{number}", to) as client:
                    owned = await owned_elsewhere(client.connection, owned)
            except ConnectionEnded:
                if is_over:
                    raise
            if is_over or not owned:
                break
            await asyncio.sleep(DRAIN_PAUSE_S)
        self._history_writer.note(GraceOver())
        for queue in owned:
            self._history_writer.note(Locked(queue))
        for address in clients.present:
            with await clients.client(f"last.{address.node}", address) as client:
                await look_for_all(client.connection, definitions)


async def await_serving(
    to: NodeAddress, queues: Sequence[str], client_options: ClientOptions
) -> None:
    """Return when a client can log in and ask for these queues, or raise NodeActionFailed."""
    until_s = time.monotonic() + READY_S
    while True:
        try:
            await ask_for(queues, to, client_options)
            return
        except ConnectionEnded as error:
            if time.monotonic() > until_s:
                raise NodeActionFailed(f"{to.node} does not serve: {error}") from error
        await asyncio.sleep(LOOK_S)


async def ask_for(queues: Sequence[str], to: NodeAddress, client_options: ClientOptions) -> None:
    """Get a message without recording it.  `ConnectionEnded` where one is not served."""
    with await RecordingClient.connect(to, "looker", lambda _event: None, client_options) as client:
        for queue in queues:
            await client.ready_count(queue)


async def found_empty(
    clients: ClientGroup, name: str, to: NodeAddress, queues: Sequence[str]
) -> bool:
    """Receive all there is.  Whether there was nothing, and every queue has said so."""
    found = await asyncio.gather(
        *(empty(clients, f"{name}.{queue}", to, queue) for queue in queues)
    )
    return found == [0] * len(found)


async def empty(clients: ClientGroup, name: str, to: NodeAddress, queue: str) -> int | None:
    """Receive all there is; how much that was, or None if it cannot be said."""
    found = 0
    try:
        with await clients.client(name, to) as client:
            while (tag := await client.unacked.get(queue)) is not None:
                client.unacked.ack(tag)
                found += 1
            await client.unacked.make_sure()
    except ConnectionEnded:
        return None
    return found


async def look_whether_empty(client: RecordingClient, names: QueueNames, node: str) -> None:
    """Check at this node that all queues are there and hold nothing."""
    for queue in names:
        if await client.is_there(queue) and (left := await client.ready_count(queue)):
            client.connection.note(
                Strange(f"{queue} holds {left} messages on {node} and should not")
            )


@asynccontextmanager
async def fronts(system: System) -> AsyncIterator[dict[str, Proxy]]:
    """Return a proxy before every node."""
    async with AsyncExitStack() as stack:
        yield {
            address.node: await stack.enter_async_context(Proxy(address.host, address.port))
            for address in system.every_address
        }


COMPLAINTS_MAX = 12
FAULTS_SHOWN_MAX = 3
ALONE = (
    f"(longest gap: of those of {NOTABLE_NS / 1e9:g} s or more, with no other fault at work and "
    "the tester in time)"
)


def lines(outcome: RunResult, history_writer: HistoryWriter) -> Iterator[str]:
    """Yield the report for people; then the last line."""
    report, stalls = history_writer.checker.report, history_writer.stalls
    yield from faults(outcome, stalls)
    yield from counted("the broker said", report.complaints)
    yield from unavailability(stalls)
    yield ""
    for name, number in report.numbers().items():
        yield f"{name:24}{number:12,}"
    yield ""
    yield from report.sentences()
    yield from outcome.failures
    yield last_line(outcome, history_writer)


def faults(outcome: RunResult, stalls: StallChecker) -> Iterator[str]:
    """Lines with how many of each kind there were, and the longest that a queue took no publish
    under that alone."""
    if not outcome.faults:
        return
    yield f"{'faults':24}{'number':>8}{'longest stall':>14}"
    for kind, number in Counter(fault.kind for fault in outcome.faults).most_common():
        stall = longest_under(stalls, kind)
        yield f"{kind:24}{number:8}" + (
            f"{seconds(stall):12.2f} s" if stall.length_ns else f"{'–':>14}"
        )
    yield ALONE
    yield ""


def longest_under(stalls: StallChecker, kind: str) -> Stall:
    under = (
        stall
        for queue in stalls.queues.values()
        for stall in queue.to_publishers.notable
        if {what.partition(" ")[0] for what in stalls.faults_during(stall)} == {kind}
    )
    return max(under, default=Stall())


def counted(title: str, counter: Counter[str]) -> Iterator[str]:
    """Yield the most frequent first."""
    if not counter:
        return
    yield f"{title}:"
    for what, number in counter.most_common(COMPLAINTS_MAX):
        yield f"{number:8,}  {what}"
    yield ""


def unavailability(stalls: StallChecker) -> Iterator[str]:
    """Yield the longest of each queue, and what was wrong meanwhile."""
    yield "longest unavailability"
    rows = [("any queue, to publishers", stalls.overall.longest)]
    for name, queue in sorted(stalls.queues.items()):
        rows.append((f"{name}, to publishers", queue.to_publishers.longest))
        rows.append((f"{name}, to consumers", queue.to_consumers.longest))
    for what, stall in rows:
        yield f"{what:32}{seconds(stall):8.2f} s  {during(stalls, stall)}"


def during(stalls: StallChecker, stall: Stall) -> str:
    faults = sorted(stalls.faults_during(stall), key=lambda what: what.startswith(TESTER_LATE))
    more = f" and {len(faults) - FAULTS_SHOWN_MAX} more" if len(faults) > FAULTS_SHOWN_MAX else ""
    return "; ".join(faults[:FAULTS_SHOWN_MAX]) + more


def seconds(stall: Stall) -> float:
    return stall.length_ns / 1e9


def last_line(outcome: RunResult, history_writer: HistoryWriter) -> str:
    """`torture seed=7 attempted=… lost=0 … unavailable_s=1.25 verdict=good`."""
    report = history_writer.checker.report
    numbers = {name.replace(" ", "_"): number for name, number in report.numbers().items()}
    kinds = Counter(fault.kind for fault in outcome.faults).most_common()
    pairs = {
        "seed": outcome.order.seed,
        **numbers,
        "faults": ",".join(f"{kind}:{number}" for kind, number in kinds) or "none",
        "unavailable_s": f"{seconds(history_writer.stalls.overall.longest):.2f}",
        "verdict": "good" if outcome.is_good(report) else "bad",
    }
    return "torture " + " ".join(f"{name}={value}" for name, value in pairs.items())


PROGRESS_S = 10.0
TICK_S = 0.05
LATE_S = 0.25
"""Delay of the tester itself that is reported: proxies between nodes stand still with it."""

Echo = Callable[[str], None]


def run_and_report(
    system: System, order: RunOptions, echo: Echo, file: TextIO | None = None
) -> int:
    """Return the exit code."""
    history_writer = HistoryWriter(time.monotonic_ns, file)
    try:
        return asyncio.run(run_in_loop(system, order, history_writer, echo))
    except NodeActionFailed as error:
        echo(f"this system cannot be tortured: {error}")
        return 2


async def run_in_loop(
    system: System, order: RunOptions, history_writer: HistoryWriter, echo: Echo
) -> int:
    """Run and report in a loop that is running; `NodeActionFailed` where the system does not
    serve."""
    echo(f"seed {order.seed}; faults: {', '.join(order.kinds) or 'none'}")
    beside = [
        asyncio.create_task(report_progress(history_writer, echo)),
        asyncio.create_task(watch(history_writer)),
    ]
    try:
        outcome = await Run(system, order, history_writer, echo).run()
    finally:
        for task in beside:
            task.cancel()
    for line in lines(outcome, history_writer):
        echo(line)
    return 0 if outcome.is_good(history_writer.checker.report) else 1


async def report_progress(history_writer: HistoryWriter, echo: Echo) -> None:
    while True:
        await asyncio.sleep(PROGRESS_S)
        forget_garbage()
        report = history_writer.checker.report
        echo(
            f"{history_writer.seconds:6.0f} s: confirmed {report.confirmed:,}, "
            f"received {report.received:,},"
            f" {report.broken} breaches"
        )


def forget_garbage() -> None:
    """Do not look again for garbage among what is known of messages, nearly all of which stays.

    That took a busy machine three seconds, in which no node heard another through the proxies.
    The heap stays frozen at the end: the process may have frozen other objects before the run.
    """
    gc.collect(1)
    gc.freeze()


async def watch(history_writer: HistoryWriter) -> None:
    """Note when this very loop is late."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + TICK_S
        await asyncio.sleep(TICK_S)
        if (late_s := loop.time() - due_s) >= LATE_S:
            history_writer.tester_was_late(late_s)


def check_file(history: BinaryIO, echo: Echo) -> int:
    """Judge a history that was written down; the exit code."""
    checker = OnlineChecker()
    for number, line in enumerate(history, start=1):
        try:
            _at_ns, event = from_line(line)
        except (ValueError, KeyError, TypeError):
            echo(f"line {number} is no event")
            return 2
        checker.read((event,))
    report = checker.finish()
    for name, amount in report.numbers().items():
        echo(f"{name:24}{amount:12,}")
    for sentence in report.sentences():
        echo(sentence)
    return 0 if report.is_good else 1
