"""Files and calls of Python that one confirmed publish crosses, counted by a profile function.

The conversation is always the same, so that the figures are: while publishes are counted, time
stands still, so that no ping, no timer and no retry is among their calls, and the event loop waits
in each round until all that was sent has come.  What a publish causes ends when all nodes rest.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
import sys
import termios
import threading
import time
from array import array
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from fcntl import ioctl
from types import FrameType
from typing import NamedTuple
from unittest import mock

import aio_pika
from aio_pika.abc import AbstractChannel
from pamqp.common import FieldTable

from fluffle.broker import Broker, Cluster
from fluffle.broker.base import clock
from fluffle.broker.node import Node
from tests.house.source_tree import PACKAGES, ROOT

FOLDERS = tuple(f"{ROOT / package}/" for package in PACKAGES)
TESTING = f"{ROOT / 'broker' / 'testing'}/"
WARM_UP_MESSAGES = 20
"""Published before the one that is counted: what is done once is done then."""
TRIES = 3
"""Publishes that are counted, of which each has to have the calls of the others."""
REST_ROUNDS = 8
"""Rounds of the loop in which no node has anything to do: what one has sent, another has read."""


class PublishPath:
    """The files of the product that run while it records, in order of their first calls."""

    def __init__(self) -> None:
        self.is_recording = False
        self.calls: dict[tuple[str, str], int] = {}
        """Calls by file and function."""

    def begin(self) -> None:
        self.is_recording, self.calls = True, {}

    def profile(self, frame: FrameType, kind: str, _argument: object) -> None:
        """Function for `sys.setprofile`, called in each thread."""
        if self.is_recording and kind == "call":
            file = frame.f_code.co_filename
            if file.startswith(FOLDERS) and not file.startswith(TESTING):
                called = file.removeprefix(f"{ROOT}/"), frame.f_code.co_qualname
                self.calls[called] = self.calls.get(called, 0) + 1

    @contextmanager
    def installed(self) -> Iterator[None]:
        """In this thread, and in all that begin meanwhile."""
        threading.setprofile(self.profile)
        sys.setprofile(self.profile)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)


class CountedPublish(NamedTuple):
    """Calls of one publish, by file and function in the order of their first calls."""

    calls: Mapping[tuple[str, str], int]

    @property
    def call_count(self) -> int:
        return sum(self.calls.values())

    @property
    def files(self) -> list[str]:
        return list(dict.fromkeys(file for file, _function in self.calls))


class StoppableTime:
    """Stands in for the module `time`, of which the broker's clock reads; and for a loop's time."""

    CLOCK_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", 0)

    def __init__(self) -> None:
        self._stopped_ns: tuple[int, int] | None = None

    def stop(self) -> None:
        self._stopped_ns = self.monotonic_ns(), self.time_ns()

    def go_on(self) -> None:
        """Run again from now; what was missed is a jump."""
        self._stopped_ns = None

    def clock_gettime_ns(self, _clock: int) -> int:
        return self.monotonic_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns() if self._stopped_ns is None else self._stopped_ns[0]

    def seconds(self) -> float:
        return self.monotonic_ns() / 1e9

    def time_ns(self) -> int:
        return time.time_ns() if self._stopped_ns is None else self._stopped_ns[1]


class DeliveredSelector(selectors.DefaultSelector):
    """Selector that looks once all that was sent to sockets of this process has come."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        while any(under_way_bytes(key.fd) for key in self.get_map().values()):
            time.sleep(0)  # the kernel's turn
        return super().select(timeout)


def under_way_bytes(fd: int) -> int:
    """Bytes that a socket has sent and the other end's kernel has not acknowledged."""
    left = array("i", [0])
    with socket.socket(fileno=os.dup(fd)) as end:
        is_tcp = end.family in (socket.AF_INET, socket.AF_INET6)
        if is_tcp and not end.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            ioctl(fd, termios.TIOCOUTQ, left)
    return left[0]


class StoppableLoop(asyncio.SelectorEventLoop):
    """Event loop by a time that can be stopped."""

    def __init__(self, now: StoppableTime) -> None:
        super().__init__(DeliveredSelector())
        self.now = now

    def time(self) -> float:
        return self.now.seconds()


def publish_paths() -> Mapping[str, CountedPublish]:
    """A publish to a durable classic queue of a lone node, and one to a quorum queue of three nodes
    by a client of a follower; of all nodes together."""
    now = StoppableTime()
    with (
        mock.patch.object(clock, "time", now),
        asyncio.Runner(loop_factory=lambda: StoppableLoop(now)) as runner,
    ):
        return runner.run(_publish_paths(now))


async def _publish_paths(now: StoppableTime) -> Mapping[str, CountedPublish]:
    path = PublishPath()
    found = {}
    with path.installed():
        async with Broker() as broker, channel_of(broker.url) as channel:
            await channel.declare_queue("classic", durable=True)
            found["classic"] = await counted(path, now, channel, "classic", [broker.node])
        async with Cluster(nodes=3) as cluster:
            async with channel_of(cluster.urls[0]) as channel:
                quorum: FieldTable = {"x-queue-type": "quorum"}
                await channel.declare_queue("quorum", durable=True, arguments=quorum)
            leader = await cluster.leader("quorum")
            follower = next(number for number in range(3) if number != leader)
            nodes = [each.node for each in cluster.nodes]
            async with channel_of(cluster.urls[follower]) as channel:
                found["quorum"] = await counted(path, now, channel, "quorum", nodes)
    return found


@asynccontextmanager
async def channel_of(url: str) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(url) as connection:
        yield await connection.channel(publisher_confirms=True)


async def counted(
    path: PublishPath, now: StoppableTime, channel: AbstractChannel, queue: str, nodes: list[Node]
) -> CountedPublish:
    """The calls of a publish that is like the one before."""
    for node in nodes:
        node.parts.connections.shares.now_s = now.seconds
        node.turn.watchers.clear()  # those of tests: a daemon has none
    now.stop()
    try:
        for _ in range(WARM_UP_MESSAGES):
            await publish(channel, queue)
            await rest(nodes, path)
        tries = []
        for _ in range(TRIES):
            path.begin()
            await publish(channel, queue)
            await rest(nodes, path)
            path.is_recording = False
            tries.append(CountedPublish(path.calls))
    finally:
        now.go_on()
    assert [each.calls for each in tries] == [tries[0].calls] * TRIES, "the figure wavers"
    return tries[0]


async def rest(nodes: list[Node], path: PublishPath) -> None:
    """Return when no node has anything to do."""
    rounds = 0
    while rounds < REST_ROUNDS:
        await asyncio.sleep(0)
        was_recording, path.is_recording = path.is_recording, False
        rounds = rounds + 1 if all(node.is_at_rest for node in nodes) else 0
        path.is_recording = was_recording


async def publish(channel: AbstractChannel, queue: str) -> None:
    """Publish a persistent message, and wait for its confirm."""
    message = aio_pika.Message(b"x", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    await channel.default_exchange.publish(message, routing_key=queue)
