"""Exclusive queues of a cluster whose links lag: none is there longer than its connection."""

from __future__ import annotations

import asyncio

import aio_pika
import pytest
from aiormq.exceptions import AMQPError

from fluffle.broker import Cluster
from fluffle.broker.cluster import metadata_group
from fluffle.broker.vhosts.vhost import VirtualHost
from tests.support.cluster_nodes import until

CLIENTS = 8
LAG_MS = 500.0
"""Delay in one direction: a deletion is committed after it."""


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A definition is given up while it is under way."""
    monkeypatch.setattr(metadata_group, "GIVE_UP_MS", 200)
    monkeypatch.setattr(metadata_group, "RETRY_MS", 100)


def vhost_of(cluster: Cluster, number: int) -> VirtualHost:
    return cluster[number].node.catalogue.vhosts["/"]


async def follower_of(cluster: Cluster) -> int:
    """A node that does not order the definitions."""
    parts = [cluster[number].node.cluster for number in range(3)]
    return next(n for n, part in enumerate(parts) if part is not None and not part.metadata.leads)


async def declare_exclusive(url: str, queue: str) -> str:
    """The error that the client hears; its connection is gone then."""
    connection = await aio_pika.connect(url)
    try:
        await (await connection.channel()).declare_queue(queue, exclusive=True)
    except AMQPError as error:
        return str(error)
    finally:
        await connection.close()
    return "declared"


def own(queues: object) -> set[str]:
    assert isinstance(queues, dict)
    return {name for name in queues if name.startswith("own")}


@pytest.mark.usefixtures("_impatient")
async def test_what_comes_true_after_its_client_got_541_goes_again() -> None:
    async with Cluster() as cluster:
        follower = await follower_of(cluster)
        await cluster.net.delay(LAG_MS, from_=follower)
        vhost = vhost_of(cluster, follower)
        created = vhost.counts.created
        reported = await asyncio.gather(
            *(declare_exclusive(cluster.urls[follower], f"own {n}") for n in range(CLIENTS))
        )
        assert all("the operation timed out" in text for text in reported)
        await until(lambda: vhost.counts.created == created + CLIENTS)
        await until(lambda: not any(own(vhost_of(cluster, n).queues) for n in range(3)))
