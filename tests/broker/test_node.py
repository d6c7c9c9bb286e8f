"""A node as a whole: it starts, says who it is, logs what is not in effect yet, and stops."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import re
from pathlib import Path

import pytest

from fluffle.broker.access.access import LoginRefused, User
from fluffle.broker.access.passwords import ARGON2, hashed
from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.core.services import CAPABILITIES, server_properties
from fluffle.broker.definitions.file_format import DefinitionsError
from fluffle.broker.node import Node, NodeFailed, random_name
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.queue_api import Consumer, Outcome, SharedCredit
from fluffle.protocol.methods import Basic, Channel, Confirm, encode_method, make
from fluffle.protocol.methods import Queue as Methods
from fluffle.protocol.properties import Properties
from fluffle.protocol.spec import PROTOCOL_HEADER
from fluffle.protocol.wire import to_table
from fluffle.storage.disk import CommitResult as Committed
from fluffle.storage.disk import WriteTransaction
from fluffle.storage.environment import LmdbEnvironment
from fluffle.storage.errors import StorageError
from tests.broker.durability.test_fact_codec_restart_model import Sink
from tests.broker.routing.topologies import to_queue
from tests.support.definitions import Editor, VhostEditor, engine_of
from tests.support.edge import publish_frames
from tests.support.socket_client import connected_client
from tests.support.topologies import bindings_from


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A node on a free port that keeps its data in a directory of its own."""
    return Config(node_name="fluffle@test", listen=ListenAddress("127.0.0.1", 0), data_dir=tmp_path)


async def test_a_node_serves_between_start_and_stop(config: Config) -> None:
    node = Node(config)
    await node.start()
    address = node.addresses["amqp"]
    reader, writer = await asyncio.open_connection(*address)
    writer.write(PROTOCOL_HEADER)
    greeting = await reader.readuntil(b"en_US\xce")
    assert b"fluffle@test" in greeting
    writer.close()
    await node.stop("shutdown")
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection(*address)


async def test_a_node_may_listen_at_several_addresses(config: Config) -> None:
    also = (ListenAddress("127.0.0.1", 0), ListenAddress("127.0.0.1", 0))
    node = Node(dataclasses.replace(config, also_listen=also))
    await node.start()
    assert [*node.addresses] == ["amqp", "amqp-2", "amqp-3"]
    for address in node.addresses.values():
        reader, writer = await asyncio.open_connection(*address)
        writer.write(PROTOCOL_HEADER)
        await reader.readuntil(b"en_US\xce")
        writer.close()
    await node.stop("shutdown")


async def test_a_node_need_not_listen_for_clients_without_tls(config: Config) -> None:
    node = Node(dataclasses.replace(config, listen=None))
    await node.start()
    assert node.addresses == {}
    await node.stop("shutdown")


async def test_the_event_exchange_is_there_if_it_is_asked_for_and_stays(config: Config) -> None:
    bindings = []
    for is_on in (False, True, True, False):
        node = Node(dataclasses.replace(config, event_exchange=is_on))
        await node.start()
        topology = node.catalogue.vhosts["/"].topology
        is_there = topology.find("amq.rabbitmq.event") is not None
        bindings.append(len(bindings_from(topology, "amq.rabbitmq.event")))
        assert bool(node._services.observers) == is_on
        if len(bindings) == 2:
            editor = VhostEditor(
                node.catalogue.vhosts["/"], Editor(node.catalogue, node._durability.facts)
            )
            editor.declare_queue(Declaration("q", durable=True), None)
            editor.bind(to_queue("amq.rabbitmq.event", "q", "queue.*"), None)
        assert is_there == (len(bindings) > 1)
        await node.stop("shutdown")
    assert bindings == [0, 0, 1, 1]


async def test_two_nodes_know_nothing_of_each_other(config: Config, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    nodes = [Node(config), Node(dataclasses.replace(config, data_dir=tmp_path / "second"))]
    for node in nodes:
        await node.start()
    assert nodes[0].addresses != nodes[1].addresses
    assert nodes[0]._services.vhosts["/"] is not nodes[1]._services.vhosts["/"]
    for node in nodes:
        await node.stop("shutdown")


async def test_a_node_cannot_start_where_another_listens(config: Config, tmp_path: Path) -> None:
    first = Node(config)
    await first.start()
    host, port = first.addresses["amqp"]
    (tmp_path / "second").mkdir()
    second = Node(Config(listen=ListenAddress(host, port), data_dir=tmp_path / "second"))
    with pytest.raises(OSError, match="in use"):
        await second.start()
    assert second.addresses == {}
    await second.stop("failed")
    await first.stop("shutdown")


async def test_a_node_starts_with_definitions(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "definitions.json"
    arguments = {"x-queue-type": "quorum", "x-delayed-retry-type": "foo"}
    queues = [
        {"vhost": "v", "name": "q", "durable": True, "arguments": arguments},
        {"vhost": "v", "name": "amq.q", "durable": True, "arguments": {}},
    ]
    file.write_text(json.dumps({"vhosts": [{"name": "v"}], "queues": queues}))
    node = Node(dataclasses.replace(config, definitions=file))
    with caplog.at_level(logging.WARNING):
        await node.start()
    assert list(node._services.vhosts) == ["v", "/"]
    assert list(node.catalogue.vhosts["v"].queues) == ["q"]
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["argument_ignored", "definition_skipped"]
    await node.stop("shutdown")


async def test_the_users_of_the_first_start_are_made_once(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "definitions.json"
    file.write_text(json.dumps({"users": [{"name": "file", "password_hash": ""}], "vhosts": []}))
    config = dataclasses.replace(config, users={"guest": "guest", "u": "p"}, definitions=file)
    caplog.set_level(logging.WARNING)
    for deleted, left in (("u", ["file", "guest"]), ("guest", ["file"]), ("file", [])):
        node = Node(config)
        await node.start()
        editor = Editor(node.catalogue, node._durability.facts)
        editor.delete_user(deleted)
        editor.delete_vhost("/")
        assert sorted(node.catalogue.access.users) == left
        await node.stop("shutdown")
    last = Node(config)
    await last.start()
    # The file names its user at each start, as RabbitMQ's load_definitions does.
    assert list(last.catalogue.access.users) == ["file"]
    assert last.catalogue.vhosts == {}
    await last.stop("shutdown")
    assert caplog.records == [], "who was deleted on purpose is not missed"


async def test_a_user_that_comes_too_late_is_logged(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    for users in ({"guest": "guest"}, {"guest": "guest", "late": "p"}):
        node = Node(dataclasses.replace(config, users=users))
        with caplog.at_level(logging.WARNING):
            await node.start()
        await node.stop("shutdown")
    (record,) = caplog.records
    assert record.getMessage() == "ignored_after_first_start"
    assert "fluffle users add late" in getattr(record, FIELDS_ATTRIBUTE)["instead"]


async def test_a_first_start_that_was_cut_short_is_one_again(config: Config) -> None:
    node = Node(dataclasses.replace(config, definitions=config.data_dir / "missing"))
    with pytest.raises(DefinitionsError):
        await node.start()
    node = Node(config)
    await node.start()
    assert list(node.catalogue.access.users) == ["guest"]
    await node.stop("shutdown")


def holder(queue: Queue) -> Consumer:
    return Consumer("c", queue, Sink(), shared=SharedCredit(), no_ack=False)


async def test_a_start_that_fails_forgets_nothing(config: Config, tmp_path: Path) -> None:
    """Deduplication keys from before the last stop in order are still known after it."""
    first = Node(config)
    await first.start()
    vhost = first.catalogue.vhosts["/"]
    editor = VhostEditor(vhost, Editor(first.catalogue, first._durability.facts))
    queue = editor.declare_queue(Declaration("q", durable=True))
    queue.enqueue([vhost.origin("", "q")] * 2, [b"1", b"2"], 2, persistent=True)
    seen = queue.get(holder(queue))
    assert seen is not None
    queue.settle(seen, 0, 1, Outcome.LOST)
    await first.stop("shutdown")

    (tmp_path / "other").mkdir()
    other = Node(dataclasses.replace(config, data_dir=tmp_path / "other"))
    await other.start()
    taken = ListenAddress(*other.addresses["amqp"])
    failed = Node(dataclasses.replace(config, listen=taken))
    with pytest.raises(OSError, match="in use"):
        await failed.start()
    await other.stop("shutdown")

    last = Node(config)
    await last.start()
    queue = engine_of(last.catalogue.vhosts["/"], "q")
    delivery_batches = [queue.get(holder(queue)) for _ in range(2)]
    assert [
        (delivery_batch.contents, delivery_batch.redelivered)
        for delivery_batch in delivery_batches
        if delivery_batch is not None
    ] == [([b"1"], True), ([b"2"], False)]
    await last.stop("shutdown")


async def test_a_slow_password_is_compared_beside_the_loop(config: Config) -> None:
    node = Node(config)
    await node.start()
    access = node.catalogue.access
    access.put_user(User("u", hashed(b"secret", ARGON2)))
    threads: list[str] = []
    for password, expected in ((b"wrong", LoginRefused), (b"secret", User), (b"secret", User)):
        answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        access.login("u", password, answered.set_result, from_loopback=True)
        threads.append("here" if answered.done() else "beside")
        assert isinstance(await answered, expected)
    assert threads == ["beside", "beside", "here"]
    await node.stop("shutdown")


def test_random_names_are_long_url_safe_and_new() -> None:
    names = {random_name() for _ in range(1_000)}
    assert len(names) == 1_000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{22}", name) for name in names)


def test_server_properties_say_whom_we_behave_like_and_who_we_are() -> None:
    properties = server_properties(Config(node_name="fluffle@test", product_version="4.3.5"))
    assert properties["product"] == ("S", b"RabbitMQ")
    assert properties["version"] == ("S", b"4.3.5")
    assert properties["cluster_name"] == ("S", b"fluffle@test")
    assert properties["fluffle_version"][0] == "S"
    assert properties["capabilities"] == ("F", to_table(dict.fromkeys(CAPABILITIES, True)))


PERSISTENT = Properties(delivery_mode=2)


class FailingDisk:
    """Disk whose commits fail when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: StorageError | None = None
        commit = LmdbEnvironment.commit

        def commit_or_fail(environment: LmdbEnvironment, work: WriteTransaction) -> Committed:
            if self.error is not None:
                raise self.error
            return commit(environment, work)

        monkeypatch.setattr(LmdbEnvironment, "commit", commit_or_fail)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FailingDisk:
    return FailingDisk(monkeypatch)


async def test_a_node_whose_disk_fails_says_so_to_who_uses_it(
    config: Config, disk: FailingDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """Clients hear nothing more; and what was confirmed before is there at the next start."""
    node = Node(dataclasses.replace(config, metrics_listen=ListenAddress("127.0.0.1", 0)))
    await node.start()
    closed = asyncio.create_task(node.wait_closed())
    scraper = await asyncio.open_connection(*node.addresses["metrics"])
    operator = await asyncio.open_unix_connection(config.data_dir / "control.sock")
    async with connected_client(node.addresses["amqp"]) as peer:
        await peer.log_in()
        for method in (Channel.Open(), make(Methods.Declare, queue="q", durable=True)):
            peer.writer.write(encode_method(1, method))
            await peer.method()
        peer.writer.write(
            encode_method(1, Confirm.Select()) + publish_frames(b"1", properties=PERSISTENT)
        )
        assert [type(await peer.method()) for _ in range(2)] == [Confirm.SelectOk, Basic.Ack]
        assert node.failure is None
        disk.error = StorageError("the disk is on fire")
        peer.writer.write(publish_frames(b"2", properties=PERSISTENT))
        with pytest.raises(NodeFailed, match="the node has failed: the disk is on fire"):
            await closed
        for reader, writer in ((peer.reader, peer.writer), scraper, operator):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
    assert node.failure is disk.error
    assert [line.getMessage() for line in caplog.records if line.levelno > logging.WARNING] == [
        "fatal"
    ]
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection(*node.addresses["amqp"])
    for end in (node.wait_closed(), node.stop("shutdown"), node.stop("again")):
        with pytest.raises(NodeFailed):
            await end

    disk.error = None
    node = Node(config)
    await node.start()
    assert node.catalogue.vhosts["/"].queues["q"].ready_count == 1
    await node.stop("shutdown")
    await node.wait_closed()


async def test_a_node_whose_disk_fails_does_not_start(config: Config, disk: FailingDisk) -> None:
    disk.error = StorageError("the disk is on fire")
    node = Node(config)
    with pytest.raises(NodeFailed, match="on fire"):
        await node.start()
    disk.error = None
    node = Node(config)
    await node.start()
    await node.stop("shutdown")


async def test_a_node_whose_last_write_fails_has_not_stopped_in_order(
    config: Config, disk: FailingDisk
) -> None:
    node = Node(config)
    await node.start()
    Editor(node.catalogue, node._durability.facts).vhost("v")
    disk.error = StorageError("the disk is on fire")
    with pytest.raises(NodeFailed, match="on fire"):
        await node.stop("shutdown")


async def test_a_node_that_believes_what_is_wrong_fails_at_once(config: Config) -> None:
    """Not only that which has found out; and what it heard since is not written."""
    node = Node(config)
    await node.start()
    vhost = node.catalogue.vhosts["/"]
    editor = VhostEditor(vhost, Editor(node.catalogue, node._durability.facts))
    queue = editor.declare_queue(Declaration("q", durable=True))

    def pump(_queue: Queue) -> None:
        raise AssertionError("one and one is three")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Queue, "pump", pump)
        node._services.runtime.turn.touch_queue(queue)
        with pytest.raises(NodeFailed, match="three"):
            await node.wait_closed()
    with pytest.raises(NodeFailed):
        await node.stop("shutdown")
    node = Node(config)
    await node.start()
    assert node.catalogue.vhosts["/"].queues == {}
    await node.stop("shutdown")
