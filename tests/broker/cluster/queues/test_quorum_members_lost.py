"""Members of queues whose data are lost or damaged are said by the names of their queues."""

from __future__ import annotations

import logging

import pytest

from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.cluster.queues import queue_queries, quorum_members
from fluffle.storage.disk import WriteTransaction
from fluffle.storage.environment import open_environment
from fluffle.storage.heads import HEAD
from fluffle.storage.layout import Table, raft_key
from tests.broker.cluster.queues.test_quorum_queues import publish
from tests.broker.composition.test_single_node import Scene, scene, taken
from tests.support.deadlines import soon

__all__ = ["scene"]


def said(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, object]]:
    records = [record for record in caplog.records if record.getMessage() == name]
    return [getattr(record, FIELDS_ATTRIBUTE) for record in records]


async def test_a_queue_that_is_lost_where_nobody_repairs_it_can_be_made_anew(
    scene: Scene, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are served."""
    monkeypatch.setattr(
        queue_queries, "TRIES", 2
    )  # nobody counts its messages, however often asked
    for name in ("q", "other"):
        queue = await scene.declare(name)
        await publish(queue.channel, b"1", to=name)
    group = scene.node.node.catalogue.vhosts["/"].queues["q"].definition.id
    await scene.node.stop()
    disk = open_environment(scene.node.config.data_dir)
    disk.commit(WriteTransaction(puts=[(Table.RAFT, raft_key(HEAD, group), b"no head")]))
    disk.close()
    await scene.node.start()
    assert said(caplog, "member_lost") == [{"vhost": "/", "queue": "q", "group": group}]
    assert await taken(await scene.declare("other"), 1) == [b"1"]
    channel = await scene.channel()
    async with soon():
        await channel.queue_delete("q")
    queue = await scene.declare()
    await publish(queue.channel, b"2")
    await scene.restart(kill=True)
    assert await taken(await scene.declare(), 1) == [b"2"]


async def test_of_a_node_that_is_alone_it_is_never_said_that_it_leads(
    scene: Scene, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other node could lead, and the internal name of this one means nothing to operators."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(quorum_members, "COLLECT_S", 0.0)
    await scene.declare()
    for _ in range(2):
        await scene.restart(kill=False)
        queue = await scene.declare()
        await publish(queue.channel, b"1")
    assert not said(caplog, "queue_leader_changed")
