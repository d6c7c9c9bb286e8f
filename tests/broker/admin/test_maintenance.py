"""node.* at the desk and in a node: who is drained, and what an operator sets otherwise."""

import asyncio
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fluffle.broker.admin.context import DeferredRow, Row
from fluffle.broker.admin.health import list_certificates
from fluffle.broker.admin.maintenance import REASON, Maintenance
from fluffle.broker.admin.nodes import drain, maintenance_of, revive
from fluffle.broker.base.errors import BrokerError, PreconditionFailed
from fluffle.broker.config.config import Config, ListenAddress, MqttConfig, memory_bytes
from fluffle.broker.core.listener import Listener
from fluffle.broker.core.services import Services
from fluffle.broker.node import Node
from fluffle.broker.process.certificates import ends_in
from fluffle.protocol.mqtt.codes import ReasonCode
from fluffle.protocol.mqtt.packets import Disconnect, Will
from fluffle.protocol.mqtt.properties import PropertyId
from tests.broker.admin.verb_harness import VerbHarness
from tests.broker.cluster.test_mqtt_sessions import connected
from tests.support.certificates import Authority
from tests.support.cluster_nodes import ClusterNode
from tests.support.no_cluster import NoCluster


def amqp_listener(services: Services, kind: type[Listener] = Listener) -> Listener:
    return kind(services.connections)


async def answer_of(later: DeferredRow) -> Row | BrokerError:
    come: asyncio.Future[Row | BrokerError] = asyncio.get_running_loop().create_future()
    later.begin(come.set_result)
    return await come


async def test_a_node_that_is_drained_closes_what_is_open_and_lets_nobody_in(
    tmp_path: Path,
) -> None:
    node = Node(Config(node_name="a", data_dir=tmp_path, listen=ListenAddress("127.0.0.1", 0)))
    await node.start()
    address = node.addresses["amqp"]
    maintenance = maintenance_of(node.parts)
    assert await answer_of(drain(node.parts)) == {"closed": 0}
    assert maintenance.is_draining
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
    assert await answer_of(revive(node.parts)) == {}
    assert not maintenance.is_draining
    _reader, writer = await asyncio.open_connection(*address)
    writer.close()
    await node.stop("test")


async def test_clients_of_mqtt_are_sent_to_another_server_and_find_no_port(tmp_path: Path) -> None:
    here = ListenAddress("127.0.0.1", 0)
    mqtt = MqttConfig(listen=(here,), ws_listen=(here,), server_reference="b.example")
    node = ClusterNode(Config(node_name="a", data_dir=tmp_path, listen=here, mqtt=mqtt))
    await node.start()
    ports = [node.node.addresses[name] for name in ("mqtt", "mqtt-ws")]
    async with (
        connected(node, "watcher") as watcher,
        connected(node, "c", lasts=False, will=Will(b"t", b"gone", 1)) as client,
    ):
        await watcher.subscribe(1)
        assert await answer_of(drain(node.node.parts)) == {"closed": 2}
        for line in (watcher, client):
            end = await line.expect(Disconnect)
            assert end.code is ReasonCode.USE_ANOTHER_SERVER
            assert end.properties.text(PropertyId.SERVER_REFERENCE) == "b.example"
    for address in ports:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
    assert await answer_of(revive(node.node.parts)) == {}
    assert [node.node.addresses[name] for name in ("mqtt", "mqtt-ws")] == ports
    async with connected(node, "watcher") as watcher:
        assert watcher.connack.session_present
        assert await watcher.messages(1) == [(b"t", b"gone", 1)]
    for address in ports:
        _reader, writer = await asyncio.open_connection(*address)
        writer.close()
    await node.stop()


async def test_it_is_revived_once_however_often_that_is_asked_for(tmp_path: Path) -> None:
    node = Node(Config(node_name="a", data_dir=tmp_path, listen=ListenAddress("127.0.0.1", 0)))
    await node.start()
    assert await answer_of(drain(node.parts)) == {"closed": 0}
    both = answer_of(revive(node.parts)), answer_of(revive(node.parts))
    assert list(await asyncio.gather(*both)) == [{}, {}]
    _reader, writer = await asyncio.open_connection(*node.addresses["amqp"])
    writer.close()
    await node.stop("test")


async def test_who_is_let_in_again_is_not_sent_away_by_what_was_asked_for_before() -> None:
    desk = VerbHarness()
    services = desk.edge.services
    steps: list[str] = []
    others_lead = asyncio.Event()

    class Around(NoCluster):
        """A cluster, as far as it hears of this."""

        @property
        def cluster(self) -> Any:  # type: ignore[override]
            return self

        room = SimpleNamespace(
            set_aside=lambda: steps.append("set aside"),
            take_back=lambda: steps.append("taken back"),
        )

        async def hand_over(self) -> None:
            await others_lead.wait()
            steps.append("handed over")

    maintenance = Maintenance(amqp_listener(services), services.connections, Around())
    drained, revived = (
        asyncio.ensure_future(each) for each in (maintenance.drain(), maintenance.revive())
    )
    for _ in range(10):
        await asyncio.sleep(0)
    assert maintenance.is_draining
    others_lead.set()
    assert list(await asyncio.gather(drained, revived)) == [{"closed": 0}, {}]
    assert steps == ["set aside", "handed over", "taken back"]
    assert not maintenance.is_draining


async def test_clients_get_the_reason() -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    services = desk.edge.services
    maintenance = Maintenance(amqp_listener(services), services.connections, NoCluster())
    assert await maintenance.drain() == {"closed": 1}
    desk.edge.run()
    client.expect_closed(320, f"CONNECTION_FORCED - {REASON}")


async def test_what_goes_wrong_is_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    desk = VerbHarness()
    services = desk.edge.services

    class Blocked(Listener):
        async def resume(self) -> None:
            raise OSError(98, "Address already in use")

    class Broken(Listener):
        def suspend(self) -> None:
            raise ZeroDivisionError

    blocked = Maintenance(amqp_listener(services, Blocked), services.connections, NoCluster())
    refused = await answer_of(DeferredRow(lambda answer: blocked.do(blocked.revive(), answer)))
    assert isinstance(refused, PreconditionFailed)
    assert "Address already in use" in refused.explanation
    broken = Maintenance(amqp_listener(services, Broken), services.connections, NoCluster())
    bug = await answer_of(DeferredRow(lambda answer: broken.do(broken.drain(), answer)))
    assert isinstance(bug, BrokerError)
    assert "ZeroDivisionError" in caplog.text


def test_a_desk_without_clients_is_not_drained() -> None:
    assert VerbHarness().refusal("node.drain").endswith("this node has no clients to be kept from")


def test_watermarks_are_moved_while_a_node_runs() -> None:
    desk = VerbHarness()
    marks = desk.context.alarms.watermarks
    desk.ask("node.memory_watermark", share=0.5)
    assert marks.memory_bytes_max == memory_bytes() // 2
    assert desk.ask("node.memory_watermark", size_bytes=7) == {"memory_bytes_max": 7}
    assert desk.ask("node.disk_free_limit", size_bytes=8) == {"disk_free_bytes_min": 8}
    assert (marks.memory_bytes_max, marks.disk_free_bytes_min) == (7, 8)
    desk.ask("node.disk_free_limit", share=2)
    assert marks.disk_free_bytes_min == 2 * memory_bytes()
    moved: list[str] = []
    for resource in ("memory", "disk"):
        desk.context.alarms.watch(resource, partial(moved.append, resource))
    desk.ask("node.memory_watermark", size_bytes=7)
    desk.ask("node.disk_free_limit", size_bytes=8)
    assert moved == ["memory", "disk"], "they are compared at once"
    for verb in ("node.memory_watermark", "node.disk_free_limit"):
        assert desk.refusal(verb).startswith("PRECONDITION_FAILED: give ")
        assert desk.refusal(verb, size_bytes=-1).endswith("below zero")


def test_the_level_of_the_log() -> None:
    desk, root = VerbHarness(), logging.getLogger()
    before = root.level
    try:
        desk.ask("node.log_level", level="debug")
        assert root.level == logging.DEBUG
        assert "there is no level 'loud'" in desk.refusal("node.log_level", level="loud")
    finally:
        root.setLevel(before)


def test_alarms_of_all_nodes() -> None:
    desk = VerbHarness()
    desk.context.alarms.set("memory", low=True)
    desk.context.alarms.set_elsewhere("b", ["disk", "memory"])
    assert [(row["node"], row["resource"]) for row in desk.rows("alarms.list")] == [
        ("a", "memory"),
        ("b", "disk"),
        ("b", "memory"),
    ]


def test_a_node_that_is_alone_is_not_critical() -> None:
    assert VerbHarness().rows("queues.critical") == []


def test_certificates_and_when_they_end(tmp_path: Path) -> None:
    context = VerbHarness().context
    assert list(list_certificates(context)) == []
    authority = Authority(tmp_path)
    config = replace(context.config, tls_cert=authority.cert_file, tls_ca=authority.ca_file)
    listed = list_certificates(context._replace(config=config))
    rows = [row for row in listed if isinstance(row, dict)]
    ends = [*ends_in(authority.cert_file), *ends_in(authority.ca_file)]
    assert [row["ends_at"] for row in rows] == [int(end.timestamp()) for end in ends]
    assert {"node", "file", "ends_at"} == rows[0].keys()
