"""Queues that come and go: what thousands of them leave behind."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from pamqp.common import FieldTable

from fluffle.storage.check import inspect_groups
from fluffle.storage.environment import read_environment
from tests.suite.seeds import is_night
from tests.support.cluster_nodes import ClusterNodes, running_cluster, until

QUORUM: FieldTable = {"x-queue-type": "quorum"}
CHANNELS = 24
QUEUES, ROUNDS = (1_000, 10) if is_night() else (400, 3)
OBJECTS_MAX = QUEUES * ROUNDS // (10 if is_night() else 1)
"""That all rounds may leave: at night a tenth of one for each queue that there was on three nodes,
by day one, for some hundred more are there until all has been used once.  What records of the log
take, until the hot window is full, are no objects to the garbage collector."""


async def come_and_go(channel: AbstractChannel, first: int, count: int) -> None:
    """Declare and delete queues one after the other."""
    names = [f"q{number}" for number in range(first, first + count)]
    for name in names:
        await channel.declare_queue(name, durable=True, arguments=QUORUM)
    for name in names:
        await channel.queue_delete(name)


def object_count() -> int:
    gc.collect()
    return len(gc.get_objects())


async def a_round(three: ClusterNodes, count: int) -> None:
    """Queues come and go through all nodes at once."""
    each = count // CHANNELS + 1
    connections = [await aio_pika.connect(node.url) for node in three]
    channels = [await connections[at % 3].channel() for at in range(CHANNELS)]
    await asyncio.gather(
        *(come_and_go(channel, at * each, each) for at, channel in enumerate(channels))
    )
    for connection in connections:
        await connection.close()
    await until(lambda: all(len(node.cluster.running.host.groups) == 1 for node in three))
    await three.agree()


@pytest.mark.slow("thousands of queues are declared and deleted")
async def test_thousands_of_queues_that_come_and_go_leave_nothing(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as three:
        await a_round(three, QUEUES)
        before = object_count()
        for _ in range(ROUNDS):
            await a_round(three, QUEUES)
        # The timers of the last questions and looks last some hundred milliseconds more.
        await until(lambda: object_count() - before < OBJECTS_MAX)
        folders = [node.config.data_dir for node in three]
    for folder in folders:
        assert groups_in(folder) == ["1"]


def groups_in(folder: Path) -> list[str]:
    """The Raft groups on a disk."""
    disk = read_environment(folder)
    try:
        return [found.text.split()[2] for found in inspect_groups(disk)]
    finally:
        disk.close()
