"""Files and calls of Python that one confirmed publish crosses, counted by a profile function."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import FrameType

import aio_pika
from aio_pika.abc import AbstractChannel
from pamqp.common import FieldTable

from fluffle.broker import Broker, Cluster
from tests.house.source_tree import PACKAGES, ROOT

FOLDERS = tuple(f"{ROOT / package}/" for package in PACKAGES)
TESTING = f"{ROOT / 'broker' / 'testing'}/"
WARM_UP_MESSAGES = 20
"""Published before the one that is counted: what is done once is done then."""
TRIES = 5
"""The least of so many publishes is taken: between them are pings and timers of the cluster."""


class PublishPath:
    """The files of the product that run while it records, in order of their first calls."""

    def __init__(self) -> None:
        self.is_recording = False
        self.call_count = 0
        self.files: dict[str, None] = {}

    def begin(self) -> None:
        self.is_recording, self.call_count, self.files = True, 0, {}

    def profile(self, frame: FrameType, kind: str, _argument: object) -> None:
        """Function for `sys.setprofile`, called in each thread."""
        if self.is_recording and kind == "call":
            file = frame.f_code.co_filename
            if file.startswith(FOLDERS) and not file.startswith(TESTING):
                self.call_count += 1
                self.files[file.removeprefix(f"{ROOT}/")] = None

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


async def publish_paths() -> Mapping[str, tuple[list[str], int]]:
    """Files and calls of a publish to a durable classic queue of a lone node, and of one to a
    quorum queue of three nodes by a client of a follower; of all nodes together."""
    path = PublishPath()
    found = {}
    with path.installed():
        async with Broker() as broker, channel_of(broker.url) as channel:
            await channel.declare_queue("classic", durable=True)
            found["classic"] = await shortest(path, channel, "classic")
        async with Cluster(nodes=3) as cluster:
            async with channel_of(cluster.urls[0]) as channel:
                quorum: FieldTable = {"x-queue-type": "quorum"}
                await channel.declare_queue("quorum", durable=True, arguments=quorum)
            leader = await cluster.leader("quorum")
            follower = next(number for number in range(3) if number != leader)
            async with channel_of(cluster.urls[follower]) as channel:
                found["quorum"] = await shortest(path, channel, "quorum")
    return found


@asynccontextmanager
async def channel_of(url: str) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(url) as connection:
        yield await connection.channel(publisher_confirms=True)


async def shortest(
    path: PublishPath, channel: AbstractChannel, queue: str
) -> tuple[list[str], int]:
    """The files and the calls of the publish that needs fewest calls."""
    for _ in range(WARM_UP_MESSAGES):
        await publish(channel, queue)
    tries = []
    for _ in range(TRIES):
        path.begin()
        await publish(channel, queue)
        path.is_recording = False
        tries.append((list(path.files), path.call_count))
    return min(tries, key=lambda files_and_calls: files_and_calls[1])


async def publish(channel: AbstractChannel, queue: str) -> None:
    """Publish a persistent message, and wait for its confirm."""
    message = aio_pika.Message(b"x", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    await channel.default_exchange.publish(message, routing_key=queue)
