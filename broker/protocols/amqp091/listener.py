"""Listening sockets, and how they and their connections come to an end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fluffle.broker.core.services import Services
from fluffle.broker.process.environment import (
    BACKLOG,
    CLOSE_WAIT_S,
    Accept,
    ListeningServer,
    accept,
)
from fluffle.broker.process.sockets import bound_address, listening_socket
from fluffle.broker.protocols.amqp091 import connection_methods
from fluffle.broker.protocols.amqp091.accept import ConnectionAcceptor
from fluffle.broker.protocols.amqp091.connection import Connection
from fluffle.protocol.proxy import ForwardedConnection

if TYPE_CHECKING:
    from fluffle.broker.process.tls import Certificates


class Listener:
    """The addresses on which one node accepts clients."""

    __slots__ = (
        "_accept", "_again", "_close_wait_s", "_is_suspended", "_paths", "_servers", "_services",
    )  # fmt: skip

    def __init__(
        self,
        services: Services,
        accept: Accept = accept,
        *,
        close_wait_s: float = CLOSE_WAIT_S,
    ) -> None:
        """`close_wait_s`: how long clients have to answer the close of a node that stops."""
        self._services = services
        self._close_wait_s = close_wait_s
        self._accept = accept
        self._servers: list[ListeningServer] = []
        self._paths: list[Path] = []
        """Of unix sockets, which last until they are removed."""
        self._again: list[Callable[[], Awaitable[object]]] = []
        """What accepts again where clients were accepted before."""
        self._is_suspended = False

    async def listen(
        self,
        host: str,
        port: int,
        *,
        certificates: Certificates | None = None,
        is_proxied: bool = False,
    ) -> tuple[str, int]:
        """Accept on an address; what was bound (port 0 picks one).  OSError when it is taken.

        With `certificates` clients speak TLS; with `is_proxied` a PROXY header comes first.  Where
        this is suspended nobody is accepted before `resume`.
        """
        listen = partial(self._listen, host, certificates=certificates, is_proxied=is_proxied)
        bound = free_end(host, port) if self._is_suspended else await listen(port)
        self._again.append(partial(listen, bound[1]))
        return bound

    async def _listen(
        self, host: str, port: int, *, certificates: Certificates | None, is_proxied: bool
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
                    self._connection,
                    is_proxied=is_proxied,
                    certificates=certificates,
                    clients_max=self._services.connections.arriving_max,
                )
            )
        else:
            self._servers.append(await self._accept(self._connection, listening))
            if self._is_suspended:  # it may have come to that meanwhile
                self._close()
        return host, port

    def _connection(self, forwarded: ForwardedConnection | None = None) -> Connection:
        return Connection(self._services, forwarded)

    def accept_no_more(self) -> None:
        """Close the sockets that listen, for good."""
        self._again.clear()
        self.suspend()

    async def resume(self) -> None:
        """Accept again after `suspend`.  OSError where somebody else does by now."""
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
        """Accept no more, and hang up on everybody without a word."""
        self.accept_no_more()
        for connection in self._services.connections:
            connection.drop("the node has failed")

    async def stop(self, reason: str) -> None:
        """Accept no more, close every connection with 320, and cut off those that do not answer."""
        self.accept_no_more()
        for connection in self._services.connections:
            if connection.is_over:
                connection.finish()  # there is nothing more to say, and it may not hang up soon
            else:
                connection.fail(connection_methods.forced(reason))
        if not await self._services.connections.wait_empty(self._close_wait_s):
            for connection in self._services.connections:
                connection.drop()
            await self._services.connections.wait_empty(CLOSE_WAIT_S)


def free_end(host: str, port: int) -> tuple[str, int]:
    """Where one could listen.  OSError where somebody else does."""
    with listening_socket(host, port) as listening:
        bound = bound_address(listening)
    if not bound[1]:
        Path(bound[0]).unlink(missing_ok=True)
    return bound
