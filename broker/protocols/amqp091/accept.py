"""Acceptance of a socket, up to its first byte of AMQP: PROXY header, TLS handshake.

Each has its time.  Who does not get through costs one line in the log, and nobody waits for him.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fluffle.broker.base.logs import event, reason_of
from fluffle.broker.process.peer_addresses import plain_host, shown_address
from fluffle.broker.process.sockets import Acceptor
from fluffle.protocol.proxy import ForwardedConnection, ProxyError, bytes_missing, parse

if TYPE_CHECKING:
    from fluffle.broker.process.tls import Certificates

HANDSHAKE_TIMEOUT_S = 5.0
"""For the PROXY header, and again for the handshake: who connects in earnest needs milliseconds."""

logger = logging.getLogger(__name__)


class ConnectionAcceptor:
    """Makes connections of those who come and get through."""

    __slots__ = ("_certificates", "_doorway", "_is_proxied", "_make")

    def __init__(
        self,
        listening: socket.socket,
        make: Callable[[ForwardedConnection | None], asyncio.Protocol],
        *,
        is_proxied: bool,
        certificates: Certificates | None,
        clients_max: int | None = None,
    ) -> None:
        """`make` is called for a client that is let in, with what a proxy said of it; of more than
        `clients_max` that are not in yet the one that came first is turned away."""
        self._make = make
        self._is_proxied = is_proxied
        self._certificates = certificates
        self._doorway = Acceptor(self._let_in, clients_max=clients_max)
        self._doorway.open(listening)

    def close(self) -> None:
        """Accept no more, and turn away who is not in yet."""
        self._doorway.close()

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
            event(logger, logging.WARNING, "handshake_failed", peer=peer, reason=reason_of(error))


def shown_peer(address: tuple[Any, ...] | str) -> str:
    """That of a unix socket has no address, or a path."""
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
