"""An external broker keeps what it had: what was there before is not touched."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NoReturn
from urllib.parse import unquote

import aio_pika
import pytest

from fluffle.broker import Broker
from fluffle.broker.amqp_client import BrokerRefusal
from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.testing import external_broker
from fluffle.broker.testing.arguments import VhostRequirements
from fluffle.broker.testing.external_broker import (
    ExternalBroker,
    ManagementError,
    VhostClient,
    until,
)
from fluffle.protocol.methods import Basic, make
from fluffle.protocol.properties import Properties, decode_properties

URL = "amqp://guest:guest@127.0.0.1:1/"


class Api:
    """Fake of a management API, as far as it makes and deletes."""

    def __init__(self) -> None:
        self.there: dict[str, set[str]] = {"vhosts": {"/", "production"}, "users": {"guest"}}
        self.hidden: set[str] = set()
        """There, but not yet when one looks."""
        self.url = ""

    def answer(self, method: str, kind: str, name: str) -> tuple[int, bytes]:
        there = self.there.get(kind)
        if there is None:
            return (400, b"no") if kind == "permissions" else (200, b"{}")
        if method == "GET":
            return 200, json.dumps([{"name": each} for each in there - self.hidden]).encode()
        if method == "DELETE":
            there.remove(name)
            return 204, b""
        is_new = name not in there
        there.add(name)
        return 201 if is_new else 204, b""


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            _api, kind, *name = map(unquote, self.path.strip("/").split("/"))
            status, body = api.answer(self.command, kind, "/".join(name))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_said: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        api.url = f"http://127.0.0.1:{server.server_port}"
        yield api
        server.shutdown()
        thread.join()


def lacks(name: str) -> NoReturn:
    raise AssertionError(name)


@pytest.mark.parametrize("hidden", [set[str](), {"production"}], ids=["seen", "made meanwhile"])
def test_a_virtual_host_that_was_there_stays(api: Api, hidden: set[str]) -> None:
    api.hidden = hidden
    with (
        ExternalBroker(URL, api.url, lacks) as broker,
        pytest.raises(PreconditionFailed, match="has vhosts of these names: 'production'"),
    ):
        broker.add_vhost("production", VhostRequirements(users={"app": "secret"}))
    assert api.there == {"vhosts": {"/", "production"}, "users": {"guest"}}


@pytest.mark.parametrize("hidden", [set[str](), {"app"}], ids=["seen", "made meanwhile"])
def test_a_user_that_was_there_stays(api: Api, hidden: set[str]) -> None:
    api.there["users"].add("app")
    api.hidden = hidden
    with (
        ExternalBroker(URL, api.url, lacks) as broker,
        pytest.raises(PreconditionFailed, match="has users of these names: 'app'"),
    ):
        broker.add_vhost("new", VhostRequirements(users={"mine": "secret", "app": "secret"}))
    assert api.there == {"vhosts": {"/", "production"}, "users": {"guest", "app"}}


def test_what_was_made_goes_if_the_rest_cannot_be(api: Api) -> None:
    with (
        ExternalBroker(URL, api.url, lacks) as broker,
        pytest.raises(ManagementError, match=r"permissions.*400 no"),
    ):
        broker.add_vhost("new", VhostRequirements(users={"app": "secret"}))
    assert api.there == {"vhosts": {"/", "production"}, "users": {"guest"}}


async def declare(url: str, queue: str) -> None:
    async with await aio_pika.connect(url) as connection:
        await (await connection.channel()).declare_queue(queue)


@pytest.mark.parametrize("name", ["mqtt_url", "mqtt_urls"])
def test_who_asks_for_a_url_of_mqtt_hears_at_once_that_there_is_none(api: Api, name: str) -> None:
    """A text that is none would be noticed by the client alone."""
    with ExternalBroker(URL, api.url, lacks) as broker:
        with pytest.raises(AssertionError, match=name):
            getattr(broker, name)
        with pytest.raises(AssertionError, match=name):
            getattr(broker.vhost("/"), name)
        assert broker.url.startswith("amqp://")


def test_an_external_broker_has_a_host() -> None:
    with pytest.raises(ValueError, match="HOST"):
        ExternalBroker("amqp://guest:guest@/", "", lacks)


async def test_a_blocked_publish_waits_for_its_own_confirm() -> None:
    async with Broker() as broker:
        await declare(broker.url, "orders")
        client = VhostClient(broker.url)
        await broker.faults.block()
        publishing = asyncio.ensure_future(client.publish("", "missing", Properties(), b"lost"))

        async def is_blocked() -> bool:
            return client.blocked_reason is not None

        assert await until(is_blocked, lambda: 10.0)
        assert not publishing.done()
        await broker.faults.unblock()
        assert not await publishing
        assert await client.publish("", "orders", Properties(), b"first")
        assert client.blocked_reason is None
        await client.close()


async def test_a_publish_that_stays_blocked_ends_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Broker() as broker:
        client = VhostClient(broker.url)
        assert not await client.publish("", "missing", Properties(), b"lost")
        await broker.faults.block()
        monkeypatch.setattr(external_broker, "TIMEOUT_S", 0.3)
        with pytest.raises(TimeoutError, match="connection is blocked: low on memory"):
            await client.publish("", "missing", Properties(), b"blocked")
        monkeypatch.undo()
        await broker.faults.unblock()
        assert not await client.publish("", "missing", Properties(), b"lost")
        await client.close()


async def test_a_close_of_the_other_channel_leaves_no_half_of_a_publish() -> None:
    """The confirm that comes after it would be taken for that of the next publish."""
    async with Broker() as broker:
        await declare(broker.url, "orders")
        client = VhostClient(broker.url)
        assert await client.get("orders") is None
        client.settle(make(Basic.Ack, delivery_tag=7))
        with pytest.raises(BrokerRefusal, match="unknown delivery tag 7"):
            await client.publish("", "orders", Properties(), b"first")
        assert not await client.publish("", "missing", Properties(), b"lost")
        assert await client.publish("", "orders", Properties(), b"second")
        await client.close()


async def test_a_client_of_a_virtual_host_looks_publishes_and_takes() -> None:
    async with Broker() as broker:
        client = VhostClient(broker.url)
        assert await client.counts("orders") is None
        assert not await client.publish("", "orders", Properties(), b"lost")
        vhost = broker.vhost()
        await declare(broker.url, "orders")
        assert await client.publish("", "orders", Properties(message_id="7"), b"first")
        assert await client.counts("orders") == (1, 0)
        taken = await client.get("orders")
        assert taken is not None
        assert (taken.body, decode_properties(taken.properties).message_id) == (b"first", "7")
        with pytest.raises(BrokerRefusal, match="no queue 'missing'"):
            await client.get("missing")  # what was taken goes back
        await vhost.expect("orders", ready=1)
        taken = await client.get("orders")
        assert taken is not None
        assert isinstance(taken.method, Basic.GetOk)
        client.settle(make(Basic.Ack, delivery_tag=taken.method.delivery_tag or 0))
        await vhost.expect("orders", count=0)
        await client.publish("", "orders", Properties(), b"second")
        assert await client.purge("orders") == 1
        await client.close()
        await vhost.assert_no_leaked_channels()
