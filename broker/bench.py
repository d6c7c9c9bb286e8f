"""`fluffle bench`: a load of publishers and consumers on any AMQP 0-9-1 broker, and its figures.

It knows AMQP and nothing of a node.  It is one process of Python, whose own speed is the limit for
small messages: for what a broker can do at most see benchmarks/.  A body begins with the time at
which it was published, so that its receiver knows how long it took: both are in this process, and
go by one clock.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import struct
import sys
from array import array
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any

import click

from fluffle.broker.amqp_client import AmqpConnection, ClientOptions, ConnectionEnded, address_of
from fluffle.protocol.client_reader import ReceivedMethod
from fluffle.protocol.methods import (
    Basic,
    Channel,
    Confirm,
    Queue,
    encode_method,
    make,
    pamqp_table,
)
from fluffle.protocol.properties import Properties, build_content, encode_properties, split_content
from fluffle.protocol.wire import to_table

PERCENTILES: Mapping[str, float] = {"p50": 50, "p95": 95, "p99": 99, "p99_9": 99.9}


class Latencies:
    """Latencies in seconds, as many as there were."""

    def __init__(self) -> None:
        self._samples = array("d")

    def add(self, seconds: float) -> None:
        self._samples.append(seconds)

    def row(self) -> dict[str, float | None]:
        """Return percentiles and the largest, in milliseconds; None without any."""
        ordered = sorted(self._samples)
        places = {name: percentile(ordered, share) for name, share in PERCENTILES.items()}
        largest = ordered[-1] if ordered else None
        return {name: in_ms(value) for name, value in {**places, "max": largest}.items()}


def percentile(ordered: list[float], share: float) -> float | None:
    """Return the least value that so many of a hundred do not exceed."""
    if not ordered:
        return None
    return ordered[max(0, ceil(len(ordered) * share / 100) - 1)]


def in_ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


class Tally:
    """Counters and latencies of a whole run."""

    def __init__(self) -> None:
        self.published = 0
        self.confirmed = 0
        self.refused = 0
        """Publishes refused by basic.nack."""
        self.received = 0
        self.confirm = Latencies()
        self.end_to_end = Latencies()

    def row(self, seconds: float) -> dict[str, Any]:
        """Return all figures, for `seconds` of work."""
        return {
            "seconds": round(seconds, 3),
            "published": self.published,
            "confirmed": self.confirmed,
            "refused": self.refused,
            "received": self.received,
            "published_per_s": round(self.published / seconds, 1),
            "confirmed_per_s": round(self.confirmed / seconds, 1),
            "received_per_s": round(self.received / seconds, 1),
            "confirm_ms": self.confirm.row(),
            "end_to_end_ms": self.end_to_end.row(),
        }


STAMP = struct.Struct(">d")
BATCH = 32
"""Publishes of one write, where the rate and the window allow."""

LAST_WAIT_S = 10.0
"""Time in seconds to wait for what was published and not received, after the measured time."""

LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Options of a run: target, clients, rates and sizes."""

    to: tuple[str, int]
    """Host and port of the broker."""
    client_options: ClientOptions
    queues: tuple[str, ...]
    queue_type: str = "classic"
    publishers: int = 1
    consumers: int = 1
    seconds: float = 10.0
    body_bytes: int = 100
    rate: float | None = None
    """Publishes of all publishers in a second; None for as fast as confirms come."""
    window: int = 200
    """How many publishes of each may be unconfirmed."""
    prefetch: int = 200
    persistent: bool = True
    keep: bool = False
    """True if the queues stay."""


class BenchRun:
    """A single run of a plan, from its first connection to its figures."""

    def __init__(self, plan: Plan, report: Callable[[Tally, float], None]) -> None:
        """`report` is called once a second with how far it is, and since when."""
        self._plan = plan
        self._report = report
        self._now = asyncio.get_running_loop().time
        self.tally = Tally()
        self._is_over = asyncio.Event()
        """Set once nothing more is published."""
        self._has_all = asyncio.Event()
        """Set once all that was confirmed has been received."""

    async def run(self) -> dict[str, Any]:
        """Run the load; return the figures.  Raises `ConnectionEnded`."""
        plan = self._plan
        async with self._connect() as setup:
            for queue in plan.queues:
                table = pamqp_table(to_table({"x-queue-type": plan.queue_type}))
                await setup.call(make(Queue.Declare, queue=queue, durable=True, arguments=table))
            try:
                seconds = await self._work()
            finally:
                for queue in () if plan.keep else plan.queues:
                    await setup.call(make(Queue.Delete, queue=queue))
        return self.tally.row(seconds)

    async def _work(self) -> float:
        """Publish and consume; return how long there was publishing."""
        plan = self._plan
        consuming = [asyncio.ensure_future(self._consume(n)) for n in range(plan.consumers)]
        start = self._now()
        progress = asyncio.ensure_future(self._report_progress(start))
        try:
            await first_failure(
                [asyncio.ensure_future(self._publish(n)) for n in range(plan.publishers)], consuming
            )
            seconds = self._now() - start
            self._is_over.set()
            self._check_all_received()
            if consuming:
                await first_failure([asyncio.ensure_future(self._received_all())], consuming)
        finally:
            for task in (progress, *consuming):
                task.cancel()
            await asyncio.gather(progress, *consuming, return_exceptions=True)
        return seconds

    async def _received_all(self) -> None:
        try:
            async with asyncio.timeout(LAST_WAIT_S):
                await self._has_all.wait()
        except TimeoutError:
            return  # the figures say how many are missing

    async def _report_progress(self, start: float) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._report(self.tally, self._now() - start)

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[AmqpConnection]:
        plan = self._plan
        connection = await AmqpConnection.connect(plan.to, plan.client_options)
        try:
            await connection.call(make(Channel.Open))
            yield connection
        finally:
            connection.abort()

    # Publishing

    async def _publish(self, number: int) -> None:
        plan = self._plan
        queue = plan.queues[number % len(plan.queues)]
        async with self._connect() as connection:
            await LoadPublisher(plan, queue, connection, self._now, self.tally).run()

    # Consuming

    async def _consume(self, number: int) -> None:
        plan = self._plan
        queue = plan.queues[number % len(plan.queues)]
        async with self._connect() as connection:
            held = 0
            ack_every = max(1, plan.prefetch // 4)

            def take(reply: ReceivedMethod) -> None:
                nonlocal held
                assert isinstance(reply.method, Basic.Deliver)
                self._take(reply.body)
                held += 1
                if held >= ack_every:
                    tag = reply.method.delivery_tag or 0
                    connection.send(make(Basic.Ack, delivery_tag=tag, multiple=True))
                    held = 0

            connection.on(Basic.Deliver, take)
            await connection.call(make(Basic.Qos, prefetch_count=plan.prefetch))
            await connection.call(make(Basic.Consume, queue=queue, consumer_tag=queue))
            while True:
                await connection.receive()

    def _take(self, body: bytes) -> None:
        tally = self.tally
        (sent_at,) = STAMP.unpack_from(body)
        tally.received += 1
        tally.end_to_end.add(self._now() - sent_at)
        self._check_all_received()

    def _check_all_received(self) -> None:
        if self._is_over.is_set() and self.tally.received >= self.tally.confirmed:
            self._has_all.set()


class LoadPublisher:
    """Publisher of a run: keeps as many publishes unconfirmed as the window and the rate allow."""

    def __init__(
        self,
        plan: Plan,
        queue: str,
        connection: AmqpConnection,
        now: Callable[[], float],
        tally: Tally,
    ) -> None:
        self._plan = plan
        self._connection = connection
        self._now = now
        self._tally = tally
        self._head = encode_method(1, make(Basic.Publish, 0, "", queue))
        self._rest = bytes(max(0, plan.body_bytes - STAMP.size))
        self._sent: dict[int, float] = {}
        """When what is unconfirmed was published, by its number."""
        connection.on(Basic.Ack, lambda reply: self._settle(reply, is_ack=True))
        connection.on(Basic.Nack, lambda reply: self._settle(reply, is_ack=False))

    async def run(self) -> None:
        """Publish until the time is over and all is confirmed."""
        plan, connection = self._plan, self._connection
        rate = plan.rate / plan.publishers if plan.rate else None
        await connection.call(Confirm.Select())
        start, number = self._now(), 0
        while (passed := self._now() - start) < plan.seconds:
            due = BATCH if rate is None else int(passed * rate) + 1 - number
            count = min(BATCH, due, plan.window - len(self._sent))
            if count > 0:
                self._write(range(number + 1, number + count + 1))
                number += count
            elif due <= 0 and rate is not None:
                await connection.listen(max(0.0, number / rate - passed))
                continue
            if len(self._sent) > plan.window - BATCH:
                await connection.receive()
        async with connection.deadline("no confirms"):
            while self._sent:
                await connection.receive()

    def _write(self, numbers: range) -> None:
        properties = PERSISTENT if self._plan.persistent else TRANSIENT
        stamp = self._now()
        body = STAMP.pack(stamp) + self._rest
        frame_bytes_max = self._connection.frame_bytes_max
        content = split_content(build_content(properties, body), 1, frame_bytes_max)
        self._connection.write((self._head + content) * len(numbers))
        self._sent.update(dict.fromkeys(numbers, stamp))
        self._tally.published += len(numbers)

    def _settle(self, reply: ReceivedMethod, *, is_ack: bool) -> None:
        assert isinstance(reply.method, Basic.Ack | Basic.Nack)
        last, now = reply.method.delivery_tag or 0, self._now()
        is_many = reply.method.multiple
        tags = [tag for tag in self._sent if tag <= last] if is_many else [last]
        for tag in tags:
            self._tally.confirm.add(now - self._sent.pop(tag))
        if is_ack:
            self._tally.confirmed += len(tags)
        else:
            self._tally.refused += len(tags)


PERSISTENT = encode_properties(Properties(delivery_mode=2))
TRANSIENT = encode_properties(Properties(delivery_mode=1))


async def first_failure(
    working: Collection[asyncio.Future[Any]], beside: Collection[asyncio.Future[Any]]
) -> None:
    """Return when all of `working` are done; raise what ends one of these, or one beside them."""
    left = set(working)
    try:
        while left:
            done, _ = await asyncio.wait({*left, *beside}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            left -= done
    finally:
        for task in working:
            task.cancel()


UNAVAILABLE = 69
AT_LEAST_ONE = click.IntRange(min=1)


@click.command()
@click.argument("url", metavar="amqp://USER:PASSWORD@HOST:PORT/VHOST", default="amqp://localhost")
@click.option("--publishers", type=AT_LEAST_ONE, default=1, show_default=True, help="How many.")
@click.option(
    "--consumers", type=click.IntRange(min=0), default=1, show_default=True, help="How many."
)
@click.option(
    "--queues", "queue_count", type=AT_LEAST_ONE, default=1, show_default=True, help="How many."
)
@click.option("--queue", "name", metavar="NAME", help="Of the queue, or the start of the names.")
@click.option(
    "--queue-type",
    type=click.Choice(["classic", "quorum"]),
    default="classic",
    show_default=True,
    help="Both are durable.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.0, min_open=True),
    default=10.0,
    show_default=True,
    help="How long is published.",
)
@click.option(
    "--size", "body_bytes", type=click.IntRange(min=8), default=100, show_default=True,
    help="Bytes of a body.",
)  # fmt: skip
@click.option(
    "--rate",
    type=click.FloatRange(min=0.0, min_open=True),
    help="Messages a second, all told; else as fast as confirms come.",
)
@click.option(
    "--window", type=AT_LEAST_ONE, default=200, show_default=True,
    help="How many publishes of each publisher may be unconfirmed.",
)  # fmt: skip
@click.option(
    "--prefetch", type=click.IntRange(1, 65535), default=200, show_default=True,
    help="How many messages each consumer may hold.",
)  # fmt: skip
@click.option("--transient", is_flag=True, help="Messages that need not survive a restart.")
@click.option("--keep", is_flag=True, help="Leave the queues, and what is in them.")
@click.option("--json", "is_json", is_flag=True, help="Print the figures as JSON.")
def bench(url: str, *, is_json: bool, **options: Any) -> None:
    """Publish and consume as fast as it goes, or at a rate, and say how fast and how late.

    Every publish is confirmed. Queues are made for it (bench.…) and deleted at the end. Latencies
    are percentiles in milliseconds, from the publish to its confirm and to who receives it. Exits
    with 0 if all that was confirmed was received, and 1 if not.
    """
    plan = plan_of(url, options)

    async def work() -> dict[str, Any]:
        return await BenchRun(plan, report_nothing if is_json else report_progress).run()

    try:
        figures = asyncio.run(work())
    except ConnectionEnded as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(UNAVAILABLE)
    for line in [json.dumps(figures)] if is_json else lines(figures):
        click.echo(line)
    is_whole = not plan.consumers or figures["received"] >= figures["confirmed"]
    sys.exit(0 if is_whole else 1)


def plan_of(url: str, options: dict[str, Any]) -> Plan:
    """UsageError for what is no such address."""
    try:
        at = address_of(url)
    except ValueError as error:
        raise click.UsageError("write amqp://USER:PASSWORD@HOST:PORT/VHOST") from error
    if at.is_encrypted:
        raise click.UsageError("write amqp://USER:PASSWORD@HOST:PORT/VHOST")
    name = options.pop("name") or f"bench.{secrets.token_hex(4)}"
    count = options.pop("queue_count")
    queues = (name,) if count == 1 else tuple(f"{name}.{number}" for number in range(1, count + 1))
    client_options = ClientOptions(user=at.user, password=at.password, vhost=at.vhost)
    return Plan(
        (at.host, at.port),
        client_options,
        queues,
        persistent=not options.pop("transient"),
        **options,
    )


def report_nothing(_tally: Tally, _seconds: float) -> None:
    """Report nothing, for scripts."""


def report_progress(tally: Tally, seconds: float) -> None:
    """Print how far the run is, for people."""
    if sys.stderr.isatty():
        click.echo(
            f"{seconds:5.0f} s  {tally.published} published, {tally.confirmed} confirmed, "
            f"{tally.received} received",
            err=True,
        )


def lines(figures: dict[str, Any]) -> list[str]:
    """Return the figures as lines for people."""
    rows = [
        f"{name:<10} {figures[name]:>10} {figures[f'{name}_per_s']:>10.0f}/s"
        for name in ("published", "confirmed", "received")
    ]
    if figures["refused"]:
        rows.append(f"{'refused':<10} {figures['refused']:>10}")
    for name, text in (("confirm_ms", "confirm"), ("end_to_end_ms", "end to end")):
        known = {key: value for key, value in figures[name].items() if value is not None}
        shown = "  ".join(f"{key.replace('_', '.')} {value:g}" for key, value in known.items())
        rows.append(f"{text:<10} {shown + ' ms' if shown else 'nothing'}")
    return rows
