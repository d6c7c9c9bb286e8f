"""Clients of clusters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aio_pika
import pytest_asyncio
from aio_pika.abc import AbstractChannel

from fluffle.broker import Cluster
from tests.support.quorum_queue import ChannelAt


@pytest_asyncio.fixture
async def channel_at() -> AsyncIterator[ChannelAt]:
    """Opens channels at nodes; all are closed in the end, if they still are not."""
    async with AsyncExitStack() as opened:

        async def channel_at(cluster: Cluster, node: int) -> AbstractChannel:
            connection = await aio_pika.connect(cluster.urls[node])
            await opened.enter_async_context(connection)
            return await connection.channel()

        yield channel_at
