"""Requests that are answered, refused, or none: by a real client and by raw bytes."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from functools import partial
from http import HTTPStatus
from io import BytesIO
from pathlib import Path

import pytest
from aiohttp import ClientSession

from fluffle.broker.access.access import Access, User
from fluffle.broker.metadata.metadata import LOCAL_READ_BARRIER
from fluffle.broker.protocols.http import server
from fluffle.broker.protocols.http.call import STRETCH_BYTES_MAX, VALUES_MAX
from fluffle.broker.protocols.http.responses import Refusal, Reply
from fluffle.broker.protocols.http.rights import RequestPeer, authenticated
from fluffle.broker.protocols.http.server import (
    SHORT_BYTES,
    ClientLimits,
    ConnectionGuard,
    ResponseBudget,
)
from fluffle.broker.runtime.turn import raise_it
from tests.support.management import GUEST, Api, authorization, management

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_whoami_names_the_user(api: Api) -> None:
    assert await api.get("whoami") == {
        "name": "guest",
        "tags": ["administrator"],
        "is_internal_user": True,
    }


@pytest.mark.parametrize("user", [None, ("guest", "wrong"), ("nobody", "guest")])
async def test_who_does_not_say_who_he_is_is_asked(api: Api, user: tuple[str, str] | None) -> None:
    assert await api.ask("GET", "whoami", user=user) == (
        401,
        {"error": "not_authorized", "reason": "Login failed"},
    )


async def test_connections_without_a_login_keep_out_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = partial(ConnectionGuard, limits=ClientLimits(connections_max=4))
    monkeypatch.setattr(server, "ConnectionGuard", few)
    async with management(tmp_path) as api, AsyncExitStack() as idle:
        assert (await api.ask("GET", "whoami"))[0] == 200  # on a connection that is kept
        readers = []
        for _ in range(6):
            reader, writer = await asyncio.open_connection(*api.node.addresses["management"])
            idle.callback(writer.close)
            readers.append(reader)
        assert (await api.ask("GET", "whoami"))[0] == 200
        async with ClientSession() as session:
            asked = session.get(f"{api.base}/api/whoami", headers=authorization(GUEST))
            async with asked as response:
                assert response.status == 200
        for reader in readers[:3]:
            with suppress(ConnectionResetError):
                assert await reader.read() == b""


@pytest.mark.parametrize("path", ["", "/"])
async def test_the_api_leads_to_its_reference(api: Api, path: str) -> None:
    async with ClientSession() as session:
        async with session.get(f"{api.base}/api{path}", allow_redirects=False) as response:
            assert (response.status, response.headers["location"]) == (301, "/api/index.html")
        async with session.get(f"{api.base}/api{path}") as response:
            assert (response.status, response.content_type) == (200, "text/html")
            shown = await response.text()
    assert "<td>GET</td><td>/api/overview</td><td>management</td>" in shown


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("overview", "HEAD, GET, OPTIONS"),
        ("queues/%2F/q", "HEAD, GET, PUT, DELETE, OPTIONS"),
        ("definitions", "HEAD, GET, POST, OPTIONS"),
        ("users/bulk-delete", "POST, OPTIONS"),
    ],
)
async def test_what_may_be_done_with_a_path(api: Api, path: str, allowed: str) -> None:
    async with ClientSession() as session:
        asked = session.options(f"{api.base}/api/{path}")
        async with asked as response:
            assert (response.status, response.headers["allow"]) == (200, allowed)
            assert await response.read() == b""


async def test_what_is_not_there(api: Api) -> None:
    nothing = 404, {"error": "Object Not Found", "reason": "Not Found"}
    assert await api.ask("GET", "nothing") == nothing
    assert await api.ask("GET", "whoami/../../etc/passwd") == nothing
    assert await api.ask("GET", "%2e%2e%2fwhoami") == nothing
    assert await api.ask("DELETE", "whoami") == (405, None)


async def test_a_verb_of_the_control_socket(api: Api) -> None:
    status, answer = await api.ask("POST", "fluffle/verbs/vhosts.list", json={})
    assert status == 200
    assert [row["name"] for row in answer["rows"]] == ["/"]
    assert await api.ask("POST", "fluffle/verbs/vhosts.add", json={"name": "v"}) == (
        200,
        {"result": {}},
    )
    status, answer = await api.ask("POST", "fluffle/verbs/vhosts.add", json={"name": "v"})
    assert (status, answer["error"]["name"]) == (400, "PRECONDITION_FAILED")
    status, answer = await api.ask("POST", "fluffle/verbs/vhosts.delete", json={"name": "v"})
    assert (status, answer) == (200, {"result": {}})
    for body in (b"{", b"[]", b"[" * 100_000, b"\xff"):
        status, answer = await api.ask("POST", "fluffle/verbs/ping", data=body)
        assert (status, answer["error"]) == (400, "bad_request")


async def test_a_change_that_another_site_asks_for_is_refused(api: Api) -> None:
    origin = {"origin": "http://evil.example"}
    status, answer = await api.ask("POST", "fluffle/verbs/ping", json={}, headers=origin)
    assert (status, answer["error"]) == (403, "not_authorized")
    status, _reported = await api.ask(
        "POST", "fluffle/verbs/ping", json={}, headers={"origin": api.base}
    )
    assert status == 200


@pytest.mark.parametrize("origin", ["null", "http://[", "//", ""])
async def test_an_origin_that_is_none_is_another(api: Api, origin: str) -> None:
    status, answer = await api.ask(
        "POST", "fluffle/verbs/ping", json={}, headers={"origin": origin}
    )
    assert (status, answer["error"]) == (403, "not_authorized")


async def test_what_is_wide_is_not_deep(api: Api) -> None:
    wide: list[list[int]] = [[] for _ in range(1000)]
    for body in ({"value": wide}, {"value": "[" * 1000}, {"value": {"a": wide}}):
        status, _reported = await api.ask("PUT", "global-parameters/wide", json=body)
        assert status in (201, 204)


@pytest.mark.parametrize("depth", [201, 400, 800, 950])
async def test_what_is_nested_too_deep_is_refused(api: Api, depth: int) -> None:
    nested = "[" * depth + "]" * depth
    for path, body in (
        ("queues/%2F/deep", f'{{"arguments":{{"x":{nested}}}}}'),
        ("global-parameters/deep", f'{{"value":{nested}}}'),
        ("policies/%2F/deep", f'{{"pattern":"","definition":{nested}}}'),
    ):
        status, answer = await api.ask("PUT", path, data=body)
        assert (status, answer) == (400, {"error": "bad_request", "reason": "not_json"})


async def test_a_body_that_is_too_long_is_refused(api: Api) -> None:
    message_path = "exchanges/%2F/amq.fanout/publish"
    limits = ("fluffle/verbs/ping", 1 << 20), (message_path, 2_500_000), ("definitions", 20_000_000)
    for path, most in limits:
        status, answer = await api.ask("POST", path, data=BytesIO(b" " * (most + 1)))
        reason = f"a body may have {most} bytes"
        assert (status, answer) == (413, {"error": "bad_request", "reason": reason})
    message = {"routing_key": "", "properties": {}, "payload_encoding": "string"}
    long = {**message, "payload": " " * (1 << 21)}
    for content in (long, {**long, "payload": '\\",' * (1 << 18)}):
        data = BytesIO(json.dumps(content).encode())
        assert await api.ask("POST", message_path, data=data) == (200, {"routed": False})
    many = {**message, "payload": "", "properties": {"headers": {"x": [1] * VALUES_MAX}}}
    data = BytesIO(json.dumps(many).encode())
    numbers = BytesIO(json.dumps({"x": [1] * STRETCH_BYTES_MAX}).encode())
    reason = f"an object has to end in any {STRETCH_BYTES_MAX} bytes"
    assert await api.ask("POST", "definitions", data=numbers) == (
        413,
        {"error": "bad_request", "reason": reason},
    )
    reason = f"a body may have {VALUES_MAX} values"
    assert await api.ask("POST", message_path, data=data) == (
        413,
        {"error": "bad_request", "reason": reason},
    )


async def test_a_broken_assertion_ends_the_node(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed assertion in a verb ends the node, too."""

    async def broken(*_: object) -> Reply:
        raise AssertionError("this cannot be")

    fatal: list[Exception] = []
    monkeypatch.setattr(server, "reply_of", broken)
    served = server.make_endpoint(api.node.parts, api.node._services, fatal.append)
    host, port = await served.listen("127.0.0.1", 0)
    async with ClientSession() as session:
        url = f"http://{host}:{port}/api/whoami"
        async with session.get(url, headers=authorization(GUEST)) as response:
            assert response.status == 500
    served.stop()
    assert [str(error) for error in fatal] == ["this cannot be"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("DELETE", "users/late", None), "not_authorized"),
        (("PUT", "users/late", {"tags": "administrator", "password": "q"}), "not_authorized"),
        (("POST", "fluffle/verbs/users.tags", {"name": "late", "tags": []}), "not_authorised"),
    ],
)
async def test_who_asks_is_looked_up_again_once_the_body_has_come(
    api: Api,
    monkeypatch: pytest.MonkeyPatch,
    change: tuple[str, str, dict[str, object] | None],
    error: str,
) -> None:
    is_known, login = asyncio.Event(), authenticated

    async def seen(access: Access, said: str, peer: RequestPeer) -> User:
        user = await login(access, said, peer)
        is_known.set()
        return user

    async def slow() -> AsyncIterator[bytes]:
        yield b'{"name":'
        await is_known.wait()
        method, path, body = change
        await api.ask(method, path, json=body)
        yield b'"late"}'

    await api.ask("PUT", "users/late", json={"password": "p", "tags": "administrator"})
    monkeypatch.setattr(server, "authenticated", seen)
    status, answer = await api.ask(
        "POST", "fluffle/verbs/vhosts.add", user=("late", "p"), data=slow()
    )
    assert (status, answer["error"]) == (401, error)
    assert "late" not in api.node.parts.catalogue.vhosts
    await api.ask("DELETE", "users/late")


async def test_what_is_no_http_is_hung_up_on(api: Api) -> None:
    host, port = api.node.addresses["management"]
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"AMQP\x00\x00\x09\x01\r\n\r\n")
    head = await reader.read()
    assert head.startswith(b"HTTP/1.0 400 ")
    assert b"Traceback" not in head
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("end", [b"\x00", b"\rx", b"\r\nContent-Length: x"])
async def test_what_is_no_http_is_not_logged(
    api: Api, caplog: pytest.LogCaptureFixture, end: bytes
) -> None:
    host, port = api.node.addresses["management"]
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(
        b"GET /api/whoami HTTP/1.1\r\nHost: a\r\nAuthorization: Basic U0VD" + end + b"\r\n\r\n"
    )
    assert (await reader.read()).startswith(b"HTTP/1.0 400 ")
    assert [record for record in caplog.records if record.exc_info] == []
    writer.close()
    await writer.wait_closed()


async def test_who_goes_before_his_body_has_come_is_not_logged(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    host, port = api.node.addresses["management"]
    token = authorization(GUEST)["authorization"]
    head = f"POST /api/definitions HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\n"
    for length in (b"9", b"90000"):
        _reader, writer = await asyncio.open_connection(host, port)
        writer.write(head.encode() + b"Content-Length: " + length + b"\r\n\r\n{")
        await api.get("whoami")  # by now it may wait for the body
        writer.transport.abort()
        await api.get("whoami")
    assert [record for record in caplog.records if record.exc_info] == []


async def test_a_name_may_have_any_letter(api: Api) -> None:
    status, answer = await api.ask("POST", "fluffle/verbs/a%2Fb", data=json.dumps({}))
    assert (status, answer["error"]["text"]) == (400, "there is no verb 'a/b'")


LONG_BYTES = 32 << 20
"""More than two sockets take."""


async def test_long_ones_have_so_many_bytes_together() -> None:
    answers, long = ResponseBudget(4 * SHORT_BYTES), 3 * SHORT_BYTES
    with answers.holding(10 * SHORT_BYTES):  # which is longer than all, and alone
        with answers.holding(SHORT_BYTES):
            pass
        with pytest.raises(Refusal) as refused, answers.holding(long):
            pass
    assert refused.value.reply.status == 503
    with answers.holding(long), pytest.raises(Refusal), answers.holding(long):
        pass
    with answers.holding(long):
        pass


async def test_who_does_not_read_leaves_others_short_answers(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def long(_answer: object, _call: object, path: str) -> Reply:
        return Reply(HTTPStatus.OK, b" " * (1 if path == "/api/whoami" else LONG_BYTES))

    monkeypatch.setattr(server, "reply_of", long)
    served = server.make_endpoint(api.node.parts, api.node._services, raise_it)
    host, port = await served.listen("127.0.0.1", 0)
    served._answers = ResponseBudget(LONG_BYTES)
    head = f"GET /api/queues HTTP/1.1\r\nHost: a\r\nAuthorization: {said()}\r\n\r\n"
    reader, writer = await asyncio.open_connection(host, port, limit=1024)
    writer.write(head.encode())
    await reader.readuntil(b"\r\n\r\n")  # and no more
    async with ClientSession(f"http://{host}:{port}", headers=authorization(GUEST)) as session:

        async def status_of(path: str) -> int:
            async with session.get(path) as response:
                await response.read()
                return response.status

        assert await status_of("/api/queues") == 503
        assert await status_of("/api/whoami") == 200
        await reader.readexactly(LONG_BYTES)
        assert await status_of("/api/queues") == 200
    writer.close()
    await writer.wait_closed()
    served.stop()


def said() -> str:
    return authorization(GUEST)["authorization"]


async def test_that_something_has_failed_here_is_logged() -> None:
    for error, is_reported in (
        (RuntimeError("a bug"), True),
        (RuntimeError(server.GONE), False),
        (ConnectionResetError(), False),
    ):
        answer = (type(error), error, None)
        record = logging.LogRecord("", logging.ERROR, "", 0, "Unhandled", (), answer)
        assert server.is_ours(record) is is_reported


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "queues/%2F/late", None),
        ("GET", "bindings/%2F/e/amq.fanout/q/late", None),
        ("POST", "fluffle/queues/%2F/late/peek", {}),
        ("POST", "fluffle/explain/%2F", {"exchange": "", "routing_key": "late"}),
    ],
)
async def test_what_is_not_there_is_looked_for_again_once_all_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, path: str, body: object
) -> None:
    async with management(tmp_path) as api:
        virtual_hosts = api.node._services.vhosts
        vhost = virtual_hosts.pop("/")

        async def learn(_read_barrier: object) -> None:
            monkeypatch.undo()
            virtual_hosts["/"] = vhost
            assert (await api.ask("PUT", "queues/%2F/late", json={"durable": True}))[0] == 201

        monkeypatch.setattr(server, "knowledge_of", learn)
        monkeypatch.setattr(type(LOCAL_READ_BARRIER), "is_complete", False)
        status, found = await api.ask(method, path, json=body)
        assert status == 200, found


@pytest.mark.parametrize(
    ("change", "answered"),
    [
        (("PUT", "user-limits/late/max-channels", {"value": 5}), 404),
        (("PUT", "users/late", {"password": "other", "tags": "administrator"}), 401),
        (("DELETE", "users/late", None), 401),
    ],
)
async def test_what_is_asked_again_is_asked_by_the_user_as_he_is_then(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: tuple[str, str, object],
    answered: int,
) -> None:
    """Answers given elsewhere, and applied here later, may concern that user."""
    async with management(tmp_path) as api:
        first = {"password": "s", "tags": "administrator"}
        assert (await api.ask("PUT", "users/late", json=first))[0] == 201
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        assert (await api.ask("PUT", "permissions/%2F/late", json=everything))[0] == 201

        async def learn(_read_barrier: object) -> None:
            monkeypatch.undo()
            method, path, body = change
            assert (await api.ask(method, path, json=body))[0] == 204

        monkeypatch.setattr(server, "knowledge_of", learn)
        monkeypatch.setattr(type(LOCAL_READ_BARRIER), "is_complete", False)
        asked = await api.ask(
            "POST", "bindings/%2F/e/none/q/none", user=("late", "s"), json={"routing_key": ""}
        )
        assert asked[0] == answered, asked
