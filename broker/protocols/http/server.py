"""The HTTP server: from a request to a `Call`, and from what came of it to a response.

aiohttp parses and frames; which paths there are, who may and what goes wrong is decided by the
modules beside this one.  It is imported only by nodes that serve the API.

Who uses a browser is protected from other sites: a change that a page of another origin asks for is
refused, nothing is kept in cookies, and no header allows others to read answers.

aiohttp waits for ever for the head of a first request, and for a client that does not read what it
has asked for.  Here both have their time, and there are only so many connections: the oldest
without a login makes room, so that clients without a password do not keep out users who have one.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from http import HTTPStatus
from ssl import SSLContext
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.web import RequestPayloadError

from fluffle.broker.access.access import User
from fluffle.broker.admin.context import NodeContext, Row
from fluffle.broker.admin.dispatch import VERBS, Dispatcher
from fluffle.broker.base.clock import Timer
from fluffle.broker.base.errors import BrokerError, NotFound
from fluffle.broker.core.services import Services
from fluffle.broker.process.sockets import address_of, is_loopback, listening_socket, plain_host
from fluffle.broker.protocols.http.call import Call, VerbClient
from fluffle.broker.protocols.http.endpoint_table import (
    LONG_BODY_BYTES_MAX,
    Endpoint,
    NoSuchMethod,
    NoSuchPath,
)
from fluffle.broker.protocols.http.endpoints import ENDPOINTS, TABLE
from fluffle.broker.protocols.http.files import StaticFiles
from fluffle.broker.protocols.http.openapi import reference
from fluffle.broker.protocols.http.pagination import listed, shown
from fluffle.broker.protocols.http.request_channel import RequestAddresses, knowledge_of
from fluffle.broker.protocols.http.responses import (
    Answer,
    Created,
    ListingResponse,
    Refusal,
    Reply,
    as_json,
    error_reply,
    not_authorized,
    not_found,
    reply_to,
    unavailable,
)
from fluffle.broker.protocols.http.rights import (
    RequestPeer,
    Right,
    authenticated,
    login_failed,
    refusal_reason,
)

END_OF_HEAD = b"\r\n\r\n"


class ClientLimits(NamedTuple):
    """Limits on the connections of clients."""

    connections_max: int = 512
    """Browsers have some each, and tools one."""
    head_s: float = 10.0
    """From a connection until the head of its first request is whole; aiohttp sees to the rest."""
    reading_s: float = 30.0
    """Time in seconds for which a client may read nothing of what it is sent."""


class ConnectionGuard:
    """The open connections, and their deadlines."""

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], None]], Timer],
        limits: ClientLimits = ClientLimits(),  # noqa: B008  a tuple of numbers
    ) -> None:
        self._call_later = call_later
        self._limits = limits
        self._open: set[GuardedConnection] = set()
        self._unauthenticated: dict[asyncio.BaseTransport, GuardedConnection] = {}
        """Open connections without a login, by their transports, the oldest first."""

    def over(self, served: asyncio.Protocol) -> GuardedConnection:
        """A connection that `served` is to answer."""
        return GuardedConnection(served, self)

    def admits(self, connection: GuardedConnection, transport: asyncio.BaseTransport) -> bool:
        """True if there may be another one; if need be, one without a login makes room."""
        if len(self._open) >= self._limits.connections_max:
            if not self._unauthenticated:
                return False
            oldest = next(iter(self._unauthenticated))
            self.forget(self._unauthenticated[oldest], oldest)
            cast(asyncio.Transport, oldest).abort()
        self._open.add(connection)
        self._unauthenticated[transport] = connection
        return True

    def logged_in(self, transport: asyncio.BaseTransport | None) -> None:
        """Keep a connection on which a user has logged in."""
        if transport is not None:
            self._unauthenticated.pop(transport, None)

    def forget(self, connection: GuardedConnection, transport: asyncio.BaseTransport) -> None:
        """Forget a closed connection."""
        self._open.discard(connection)
        self._unauthenticated.pop(transport, None)

    def until_head(self, act: Callable[[], None]) -> Timer:
        """Runs it unless a head has come by then."""
        return self._call_later(self._limits.head_s, act)

    def until_read(self, act: Callable[[], None]) -> Timer:
        """Runs it unless the client has taken all by then."""
        return self._call_later(self._limits.reading_s, act)


class GuardedConnection(asyncio.Protocol):
    """A connection with deadlines; all that comes goes on to the protocol that answers."""

    def __init__(self, served: asyncio.Protocol, watch: ConnectionGuard) -> None:
        self._served = served
        self._watch = watch
        self._transport: asyncio.Transport
        self._head: Timer | None = None
        """Runs until the first head is whole."""
        self._reading: Timer | None = None
        """Runs while the client does not read."""
        self._seen = b""
        """The last of what has come, which may be the begin of the end of a head."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._served.connection_made(transport)
        if not self._watch.admits(self, transport):
            self._transport.abort()
            return
        self._head = self._watch.until_head(self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._reading):
            if timer is not None:
                timer.cancel()
        self._watch.forget(self, self._transport)
        self._served.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            seen = self._seen + data
            if END_OF_HEAD in seen:
                self._head.cancel()
                self._head, seen = None, b""
            self._seen = seen[1 - len(END_OF_HEAD) :]
        self._served.data_received(data)

    def eof_received(self) -> bool | None:
        return self._served.eof_received()

    def pause_writing(self) -> None:
        self._expect_reading()
        self._served.pause_writing()

    def _expect_reading(self) -> None:
        """Hang up unless the client has taken some of what waits for it, time and again."""
        waiting_bytes = self._transport.get_write_buffer_size()

        def look() -> None:
            if self._transport.get_write_buffer_size() < waiting_bytes:
                self._expect_reading()
            else:
                self._transport.abort()

        self._reading = self._watch.until_read(look)

    def resume_writing(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        self._served.resume_writing()


BODY_TIMEOUT_S = 60.0
"""Until a request that has begun is whole."""
BODIES_BYTES_MAX = 4 * LONG_BODY_BYTES_MAX
"""Most bytes of the bodies of all requests together: reading one takes several times its size."""


class RequestBodies:
    """Bodies of all requests that are being answered."""

    def __init__(self, bytes_max: int = BODIES_BYTES_MAX) -> None:
        self._left_bytes = bytes_max

    @asynccontextmanager
    async def of(self, request: web.BaseRequest, endpoint: Endpoint) -> AsyncIterator[bytes]:
        """That of a request, in memory as long as the block lasts; empty where none is read.

        Refusal for what is too long, comes too slowly, or is encoded wrongly; ConnectionError.
        """
        body = bytearray()
        try:
            if endpoint.body is not None:
                await self._read(request, endpoint.body_bytes_max, body)
            yield bytes(body)
        finally:
            self._left_bytes += len(body)

    async def _read(self, request: web.BaseRequest, bytes_max: int, body: bytearray) -> None:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                await self._take(request, bytes_max, body)
        except web.RequestPayloadError:
            raise Refusal(
                close_after(HTTPStatus.BAD_REQUEST, "the body cannot be decoded")
            ) from None
        except TimeoutError:
            raise Refusal(
                close_after(HTTPStatus.REQUEST_TIMEOUT, "the body has not come")
            ) from None

    async def _take(self, request: web.BaseRequest, bytes_max: int, body: bytearray) -> None:
        """Piece by piece."""
        if request.transport is None:
            raise ConnectionResetError
        while piece := await request.content.readany():
            body += piece
            self._left_bytes -= len(piece)
            if len(body) > bytes_max:
                reason = f"a body may have {bytes_max} bytes"
                raise Refusal(close_after(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason))
            if self._left_bytes < 0:
                reason = "too much is being sent by others"
                raise Refusal(close_after(HTTPStatus.SERVICE_UNAVAILABLE, reason))


def close_after(status: HTTPStatus, reason: str) -> Reply:
    """An answer after which nothing more is read."""
    return error_reply(status, "bad_request", reason, connection="close")


OF_CLIENTS = HttpProcessingError, RequestPayloadError, ConnectionError
GONE = "Connection closed."
"""Text that aiohttp gives an error while it runs, if a client has closed in the middle of a
body."""


def is_ours(record: logging.LogRecord) -> bool:
    """True if something has failed here, rather than a client."""
    error = record.exc_info[1] if record.exc_info is not None else None
    return not isinstance(error, OF_CLIENTS) and str(error) != GONE


aiohttp_logger = logging.getLogger(f"{__name__}.aiohttp")
aiohttp_logger.addFilter(is_ours)


ANSWERS_BYTES_MAX = 64 << 20
"""Most bytes of all long answers together: whole lists of some ten thousand queues, for five
readers."""
SHORT_BYTES = 1 << 16
"""About what a socket takes at once: so much is always answered."""


class ResponseBudget:
    """Bytes of answers that clients have not read yet, with a limit."""

    def __init__(self, bytes_max: int = ANSWERS_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._held_bytes = 0

    @contextmanager
    def holding(self, size_bytes: int) -> Iterator[None]:
        """Reserve bytes for an answer as long as the block lasts.  Refusal of a long one beside
        others; alone it may be longer than all together."""
        held = size_bytes if size_bytes > SHORT_BYTES else 0
        if held and self._held_bytes and self._held_bytes + held > self._bytes_max:
            raise unavailable("too much is waiting to be read by others")
        self._held_bytes += held
        try:
            yield
        finally:
            self._held_bytes -= held


API = "/api/"
REFERENCE: Mapping[str, Reply] = reference(API, ENDPOINTS)
"""Replies that need no user, and are of no endpoint."""
LOCAL = "localhost"
IDLE_S_MAX = 75.0
"""Between two requests of a connection."""
ENCODED_AT_ONCE = 100
"""Rows of a list that become JSON in one turn of the loop."""
HANDSHAKE_S_MAX = 10.0
"""Time for the TLS handshake."""
ORDER = ("HEAD", "GET", "PUT", "POST", "DELETE", "OPTIONS")
READS = frozenset({"GET", "HEAD", "OPTIONS"})
ALWAYS = {
    "cache-control": "no-cache, no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "deny",
    "referrer-policy": "no-referrer",
    "vary": "origin",
}
DEFINED_PATHS = frozenset(
    {
        "bindings", "definitions", "exchanges", "fluffle", "global-parameters", "mqtt",
        "operator-policies", "parameters", "permissions", "policies", "queues", "topic-permissions",
        "user-limits", "users", "vhost-limits", "vhosts",
    }
)  # fmt: skip
"""The first parts of the paths of endpoints that look for what is defined, on whichever node."""
ANONYMOUS = User("")
"""User of requests without credentials, where none are needed."""

logger = logging.getLogger(__name__)


class ManagementEndpoint:
    """The listener of the management API of one node.  `on_fatal` gets a broken assertion."""

    def __init__(
        self,
        verbs: VerbClient,
        encryption: SSLContext | None,
        on_fatal: Callable[[Exception], None],
    ) -> None:
        self._verbs = verbs
        self._encryption = encryption
        self._on_fatal = on_fatal
        self._watch = ConnectionGuard(asyncio.get_running_loop().call_later)
        self._answers = ResponseBudget()
        self._bodies = RequestBodies()
        self._files = StaticFiles()
        self._server = web.Server(
            self._handle,
            access_log=None,
            keepalive_timeout=IDLE_S_MAX,
            lingering_time=1.0,
            logger=aiohttp_logger,
        )
        self._servers: list[asyncio.Server] = []

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Accept on an address; what was bound.  OSError when it is taken."""
        listening = listening_socket(host, port)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: self._watch.over(self._server()),
            sock=listening,
            ssl=self._encryption,
            ssl_handshake_timeout=HANDSHAKE_S_MAX if self._encryption else None,
        )
        self._servers.append(server)
        bound = listening.getsockname()
        return bound[0], bound[1]

    def stop(self) -> None:
        """Accept no more, and hang up on all clients."""
        for server in self._servers:
            server.close()
        for connection in tuple(self._server.connections):
            connection.force_close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        reply = await self._outcome(request)
        try:
            with self._answers.holding(len(reply.body)):
                return await write_response(reply, request)
        except Refusal as refusal:
            return await write_response(refusal.reply, request)

    async def _outcome(self, request: web.BaseRequest) -> Reply:
        try:
            return await self._reply(request)
        except Refusal as refusal:
            return refusal.reply
        except BrokerError as error:
            return reply_to(error)
        except TimeoutError as error:
            return error_reply(HTTPStatus.SERVICE_UNAVAILABLE, "timeout", str(error))
        except (asyncio.CancelledError, ConnectionError):
            raise  # the client has gone
        except Exception as error:  # a bug ends one request, not the node
            if isinstance(error, AssertionError):  # unless what it believes is wrong
                self._on_fatal(error)
            logger.exception("a request for the management API failed")
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            return error_reply(status, "internal_error", "the broker failed, see its log")

    async def _reply(self, request: web.BaseRequest) -> Reply:
        path = request.rel_url.raw_path
        if path in REFERENCE:
            return REFERENCE[path]
        if not path.startswith(API):
            known = request.headers.get("if-none-match", "")
            return self._files.reply(request.method, path, known)
        endpoint, names = found(request)
        refuse_other_origins(request)
        user = (
            ANONYMOUS
            if endpoint.required_right is Right.ANYBODY
            else await self._known_user(request)
        )
        if self._may_not(endpoint, user, names):
            await self._know()
        self._check(endpoint, user, names)
        async with self._bodies.of(request, endpoint) as body:
            user = self._still_allowed(endpoint, user, names)
            verbs = self._verbs if request.method in READS else self._verbs.of(user)
            headers, ends = request.headers, ends_of(request)
            call = Call(verbs, user, names, request.query, body, headers, ends)
            reply = await self._acted(endpoint, call, request.rel_url.raw_path)
            if self._is_in_doubt(endpoint, reply):
                await self._know()
                call = replace(call, user=self._still_allowed(endpoint, user, names))
                reply = await self._acted(endpoint, call, request.rel_url.raw_path)
            return reply

    async def _acted(self, endpoint: Endpoint, call: Call, path: str) -> Reply:
        """Ask the endpoint; its reply, be it that something is not there."""
        try:
            return await reply_of(await endpoint.handler(call), call, path)
        except Refusal as refusal:
            return refusal.reply
        except NotFound as error:
            return reply_to(error)

    def _is_in_doubt(self, endpoint: Endpoint, reply: Reply) -> bool:
        """True if it is said, by what may be old, that there is no such thing, or none at all."""
        if self._verbs.services.read_barrier.is_complete:
            return False
        is_nothing = reply.status == HTTPStatus.NOT_FOUND or (
            endpoint.method in READS and reply.body in (b"[]", b"{}")
        )
        return is_nothing and endpoint.path.partition("/")[0] in DEFINED_PATHS

    async def _know(self) -> None:
        """Return once all is known here that was answered anywhere before.  BrokerError."""
        await knowledge_of(self._verbs.services.read_barrier)

    async def _known_user(self, request: web.BaseRequest) -> User:
        """The user who asks, by what was answered anywhere before if he is refused else.
        Refusal."""
        try:
            return await self._user(request)
        except Refusal:
            if self._verbs.services.read_barrier.is_complete:
                raise
        await self._know()
        return await self._user(request)

    async def _user(self, request: web.BaseRequest) -> User:
        """User that makes the request.  Refusal."""
        said = request.headers.get("authorization", "")
        user = await authenticated(self._verbs.context.access, said, peer_of(request))
        self._watch.logged_in(request.transport)
        return user

    def _still_allowed(self, endpoint: Endpoint, user: User, names: Mapping[str, str]) -> User:
        """The user as he is after a wait, which may have been long.  Refusal if he may not any
        more, or is gone, or it is another of that name."""
        found = user if user is ANONYMOUS else self._verbs.context.access.current(user)
        if found is None:
            raise login_failed()
        self._check(endpoint, found, names)  # the virtual host may be there only now
        return found

    def _check(self, endpoint: Endpoint, user: User, names: Mapping[str, str]) -> None:
        """Refusal for who may not."""
        if reason := self._may_not(endpoint, user, names):
            raise not_authorized(reason)

    def _may_not(self, endpoint: Endpoint, user: User, names: Mapping[str, str]) -> str | None:
        """The reason why a user may not, if there is one."""
        access = self._verbs.context.access
        return refusal_reason(endpoint.required_right, user, self._vhost_in(names), access)

    def _vhost_in(self, names: Mapping[str, str]) -> str | None:
        """Virtual host in the path, or None where it does not exist."""
        vhost = names.get("vhost")
        return vhost if vhost in self._verbs.context.catalogue.vhosts else None


def found(request: web.BaseRequest) -> tuple[Endpoint, Mapping[str, str]]:
    """Endpoint for a request, and the names in its path.  Refusal."""
    try:
        return TABLE.find(request.method, request.rel_url.raw_path.removeprefix(API))
    except NoSuchPath:
        if request.method in ("GET", "HEAD"):
            raise not_found() from None
        methods: Sequence[str] = ("GET",)  # as of the files that RabbitMQ looks for there
    except NoSuchMethod as error:
        methods = error.allowed
    is_asked = request.method == "OPTIONS"
    status = HTTPStatus.OK if is_asked else HTTPStatus.METHOD_NOT_ALLOWED
    raise Refusal(Reply(status, headers={"allow": allowed(methods)}))


def allowed(methods: Collection[str]) -> str:
    """The header `Allow` where there are these, in the order in which RabbitMQ has them."""
    known = {*methods, "OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    return ", ".join(each for each in ORDER if each in known)


def refuse_other_origins(request: web.BaseRequest) -> None:
    """A change that a page of another site asks for, with what the browser knows.  Refusal."""
    origin = request.headers.get("origin")
    if request.method in READS or origin is None:
        return
    if origin_of(origin) != request.headers.get("host"):
        reason = "requests of other origins are not served"
        raise Refusal(error_reply(HTTPStatus.FORBIDDEN, "not_authorized", reason))


def origin_of(origin: str) -> str | None:
    """Host and port; None where no browser has written that."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def peer_of(request: web.BaseRequest) -> RequestPeer:
    """Where a request comes from; a socket that has a path is one of this machine."""
    transport, address = request.transport, plain_host(request.remote or "")
    is_local = is_loopback(address) or not address
    return RequestPeer(
        address, is_local, lambda: transport is not None and not transport.is_closing()
    )


def ends_of(request: web.BaseRequest) -> RequestAddresses:
    """Between which addresses; a unix socket has none."""
    nowhere = LOCAL, 0
    transport = request.transport
    if transport is None:
        return RequestAddresses(nowhere, nowhere)
    peer, here = (address_of(transport, end) for end in ("peername", "sockname"))
    return RequestAddresses(peer if peer[0] else nowhere, here if here[0] else nowhere)


async def write_response(reply: Reply, request: web.BaseRequest) -> web.StreamResponse:
    """The response, once the client has taken all but a rest."""
    content_type = {"content-type": reply.content_type} if reply.body else {}
    response = web.Response(
        status=reply.status,
        body=reply.body,
        headers={**ALWAYS, **reply.headers} | content_type,
    )
    await response.prepare(request)
    await response.write_eof()
    return response


async def reply_of(answer: Answer, call: Call, path: str) -> Reply:
    """An answer as bytes."""
    if isinstance(answer, Reply):
        return answer
    if answer is None:
        return Reply(HTTPStatus.NO_CONTENT)
    if isinstance(answer, Created):
        location = answer.location or path.rpartition("/")[2]
        return Reply(HTTPStatus.CREATED, headers={"location": location})
    if isinstance(answer, dict):
        return Reply(HTTPStatus.OK, as_json(shown(answer, call.query)))
    content = await listed(answer, call.query) if isinstance(answer, ListingResponse) else answer
    if isinstance(content, list):
        return Reply(HTTPStatus.OK, await encoded(content))
    return Reply(HTTPStatus.OK, as_json(content))


async def encoded(rows: Sequence[Row]) -> bytes:
    """A list as JSON, some rows in a turn of the loop."""
    pieces = []
    for at in range(0, len(rows), ENCODED_AT_ONCE):
        piece = json.dumps(rows[at : at + ENCODED_AT_ONCE], default=str, separators=(",", ":"))
        pieces.append(piece[1:-1].encode())
        if at:
            await asyncio.sleep(0)
    return b"[%b]" % b",".join(pieces)


def make_endpoint(
    context: NodeContext,
    services: Services,
    on_fatal: Callable[[Exception], None],
    encryption: SSLContext | None = None,
) -> ManagementEndpoint:
    """Endpoint of a node, which accepts no connection yet; without TLS contexts in the clear."""
    verbs = VerbClient(context, services, Dispatcher(context, VERBS, on_fatal))
    return ManagementEndpoint(verbs, encryption, on_fatal)
