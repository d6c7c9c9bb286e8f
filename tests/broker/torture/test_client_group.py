"""Clients of a run: how they leave when it is over."""

import asyncio
from pathlib import Path
from random import Random

import pytest

from fluffle.broker.amqp_client import ClientOptions
from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.node import Node
from fluffle.broker.torture import client_group
from fluffle.broker.torture.client_group import ClientGroup, QueueNames
from fluffle.broker.torture.history import MessageId
from fluffle.broker.torture.recording_client import RecordingClient
from fluffle.broker.torture.system import NodeAddress
from tests.support.deadlines import soon


async def test_who_closes_its_channel_awaits_no_confirms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None comes on a channel that is closed, and a run would wait for its publishers."""
    for name in ("TIMEOUT_S", "LONG_TIMEOUT_S", "LAST_CONFIRMS_S"):
        monkeypatch.setattr(client_group, name, 600.0)
    node = Node(Config(listen=ListenAddress("127.0.0.1", 0), data_dir=tmp_path))
    await node.start()
    address = NodeAddress("node", *node.addresses["amqp"])
    is_over = asyncio.Event()

    async def closing(witness: RecordingClient, _random: Random) -> None:
        await witness.publisher.confirm_select()
        witness.publisher.unconfirmed[1] = MessageId("p", 1)
        witness.connection.is_closing = True
        is_over.set()
        await asyncio.Event().wait()

    clients = ClientGroup(
        [address],
        QueueNames.of("t"),
        lambda _event: None,
        ClientOptions(),
        Random(1),
        members=["node"],
    )
    async with soon():
        await clients.work({"closing": closing}, is_over)
    await node.stop("shutdown")
