"""Listener of a node: accepts clients, each address those of a protocol, and ends connections.

A PROXY header or a TLS handshake comes first where that is configured, and each has its time.  A
client that does not get through costs one line in the log, and holds up no other.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fluffle.broker.base.logs import event, reason_of
from fluffle.broker.core.connections import Connections, forced_close
from fluffle.broker.process.environment import (
    BACKLOG,
    CLOSE_WAIT_S,
    Accept,
    ListeningServer,
    accept,
)
from fluffle.broker.process.sockets import (
    Acceptor,
    bound_address,
    listening_socket,
    plain_host,
    shown_address,
)
from fluffle.protocol.proxy import ForwardedConnection, ProxyError, bytes_missing, parse

if TYPE_CHECKING:
    from fluffle.broker.process.certificates import Certificates

HANDSHAKE_TIMEOUT_S = 5.0
"""Time for the PROXY header, and again for the handshake: honest clients need milliseconds."""

NO_TLS_REASONS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST"})
"""Reasons of OpenSSL for bytes that are no record of TLS, of whatever version."""

logger = logging.getLogger(__name__)


class MakeConnection(Protocol):
    """Makes the connection of a client that is let in, with what a proxy said of it."""

    def __call__(self, forwarded: ForwardedConnection | None = None, /) -> asyncio.Protocol: ...


@dataclass(slots=True, eq=False)
class Listener:
    """The addresses on which one node accepts clients."""

    _connections: Connections
    """Connections of all addresses."""
    _accept: Accept = accept
    _: KW_ONLY
    close_wait_s: float = CLOSE_WAIT_S
    """How long clients have to answer the close of a node that stops."""
    _servers: list[ListeningServer] = field(default_factory=list, init=False)
    _paths: list[Path] = field(default_factory=list, init=False)
    """Paths of unix sockets, which last until they are removed."""
    _again: list[Callable[[], Awaitable[object]]] = field(default_factory=list, init=False)
    """Functions that accept clients again at the former addresses."""
    _is_suspended: bool = field(default=False, init=False)

    async def listen(
        self,
        make: MakeConnection,
        host: str,
        port: int,
        *,
        certificates: Certificates | None = None,
        is_proxied: bool = False,
    ) -> tuple[str, int]:
        """Accept on an address; what was bound (port 0 picks one).  OSError when it is taken.

        `make` makes the connection of a client, which adds itself to the connections of the node.
        With `certificates` clients speak TLS; with `is_proxied` a PROXY header comes first.  Where
        this is suspended no client is accepted before `resume`.
        """
        listen = partial(self._listen, make, host, certificates=certificates, is_proxied=is_proxied)
        bound = free_end(host, port) if self._is_suspended else await listen(port)
        self._again.append(partial(listen, bound[1]))
        return bound

    async def _listen(
        self,
        make: MakeConnection,
        host: str,
        port: int,
        *,
        certificates: Certificates | None,
        is_proxied: bool,
    ) -> tuple[str, int]:
        listening = listening_socket(host, port)
        host, port = bound_address(listening)
        if not port:
            self._paths.append(Path(host))
        if certificates or is_proxied:
            listening.listen(BACKLOG)
            self._servers.append(
                ConnectionAcceptor(
                    listening,
                    make,
                    is_proxied=is_proxied,
                    certificates=certificates,
                    clients_max=self._connections.arriving_max,
                )
            )
        else:
            self._servers.append(await self._accept(make, listening))
            if self._is_suspended:  # it may have come to that meanwhile
                self._close()
        return host, port

    def accept_no_more(self) -> None:
        """Close the sockets that listen, for good."""
        self._again.clear()
        self.suspend()

    async def resume(self) -> None:
        """Accept again after `suspend`.  OSError where another process does by now."""
        if not self._is_suspended:
            return
        self._is_suspended = False
        try:
            for listen in tuple(self._again):
                if not self._is_suspended:
                    await listen()
        except OSError:
            self.suspend()
            raise

    def suspend(self) -> None:
        """Close the sockets that listen, and those that are to listen from now on."""
        self._is_suspended = True
        self._close()

    def _close(self) -> None:
        while self._servers:
            self._servers.pop().close()
        while self._paths:
            self._paths.pop().unlink(missing_ok=True)

    def cut_off(self) -> None:
        """Accept no more, and close all connections without a goodbye."""
        self.accept_no_more()
        for connection in self._connections:
            connection.drop("the node has failed")

    async def stop(self, reason: str) -> None:
        """Accept no more, close every connection with 320, and cut off those that do not answer."""
        self.accept_no_more()
        for connection in self._connections:
            if connection.is_over:
                connection.finish()  # there is nothing more to say, and it may not hang up soon
            else:
                connection.fail(forced_close(reason))
        if not await self._connections.wait_empty(self.close_wait_s):
            for connection in self._connections:
                connection.drop()
            await self._connections.wait_empty(CLOSE_WAIT_S)


def free_end(host: str, port: int) -> tuple[str, int]:
    """Where one could listen.  OSError where another process does."""
    with listening_socket(host, port) as listening:
        bound = bound_address(listening)
    if not bound[1]:
        Path(bound[0]).unlink(missing_ok=True)
    return bound


class ConnectionAcceptor:
    """Makes connections of clients that get through."""

    __slots__ = ("_acceptor", "_certificates", "_is_proxied", "_make")

    def __init__(
        self,
        listening: socket.socket,
        make: MakeConnection,
        *,
        is_proxied: bool,
        certificates: Certificates | None,
        clients_max: int | None = None,
    ) -> None:
        """Turn away the oldest client that is not in yet when there are more than `clients_max`."""
        self._make = make
        self._is_proxied = is_proxied
        self._certificates = certificates
        self._acceptor = Acceptor(self._let_in, clients_max=clients_max)
        self._acceptor.open(listening)

    def close(self) -> None:
        """Accept no more, and turn away clients that are not in yet."""
        self._acceptor.close()

    async def _let_in(self, client: socket.socket, address: tuple[Any, ...]) -> None:
        loop = asyncio.get_running_loop()
        context = self._certificates.context() if self._certificates else None
        try:
            forwarded = await read_header(client) if self._is_proxied else None
            await loop.connect_accepted_socket(
                lambda: self._make(forwarded),
                client,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S if context else None,
            )
        except (OSError, ProxyError) as error:
            client.close()
            peer = shown_peer(address)
            reason = failed_handshake(error)
            event(logger, logging.WARNING, "handshake_failed", peer=peer, reason=reason)


def failed_handshake(error: Exception) -> str:
    """Return why a client did not get through, in words that say what to change."""
    if isinstance(error, ssl.SSLError) and error.reason in NO_TLS_REASONS:
        return "a client without TLS at a port for TLS"
    return reason_of(error)


def shown_peer(address: tuple[Any, ...] | str) -> str:
    """Peer's address for listings; that of a unix socket is empty, or a path."""
    if isinstance(address, str):
        return address or "unix"
    return shown_address(plain_host(address[0]), address[1])


async def read_header(client: socket.socket) -> ForwardedConnection | None:
    """Take the PROXY header off a connection, to the byte.  TimeoutError, OSError, ProxyError."""
    loop = asyncio.get_running_loop()
    header = b""
    async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
        while missing := bytes_missing(header):
            data = await loop.sock_recv(client, missing)
            if not data:
                raise ProxyError(f"closed by peer after {len(header)} bytes of the PROXY header")
            header += data
    return parse(header)
