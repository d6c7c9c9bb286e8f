"""Listening sockets, the acceptor that lets clients in, and the two ends of a connection."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import select
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeAlias

from fluffle.broker.base.errors import StartFailed
from fluffle.broker.base.logs import event
from fluffle.broker.config.config import ListenAddress
from fluffle.protocol.proxy import Address, ForwardedConnection

PAUSE_S = 1.0
"""After an error, since accepting again at once would mostly fail again at once."""

QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Socket option of Linux, in effect until the next answer."""

BIND_SUFFIX = " (while attempting to bind on address "
"""Suffix that socket.create_server adds to the reason: the address once more, as Python writes
it."""

AcceptClient: TypeAlias = Callable[[socket.socket, tuple[Any, ...]], Coroutine[Any, Any, None]]
"""A client and its address.  The socket is its own; it is closed for a task that is cancelled
meanwhile."""

logger = logging.getLogger(__name__)


def listening_socket(host: str, port: int) -> socket.socket:
    """Bind one socket; an empty host is every interface, of both families where the system can.

    A host that begins with a slash is a path.
    """
    if host.startswith("/"):
        return unix_socket(Path(host))
    if not host and socket.has_dualstack_ipv6():
        return of_tcp(socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return of_tcp(socket.create_server((host, port), family=family))


def cannot_listen(option: str, address: ListenAddress, error: OSError) -> StartFailed:
    """Return the error for an address of `option` that cannot be bound."""
    if error.errno == errno.EADDRINUSE:
        return StartFailed(
            f"cannot listen on {address}, which is in use; stop the process that uses it, or "
            f"name another address with {option}"
        )
    reason = (error.strerror or str(error)).partition(BIND_SUFFIX)[0]
    return StartFailed(f"cannot listen on {address} ({reason}); name another address with {option}")


def of_tcp(listening: socket.socket) -> socket.socket:
    """Return the socket with its protocol by name, as those have it that are accepted on it.

    Only of these asyncio knows that they are to send at once: else the second of two short writes
    waits until the client has acknowledged the first one, and that takes it 40 ms.
    """
    family, kind = listening.family, listening.type
    return socket.socket(family, kind, socket.IPPROTO_TCP, listening.detach())


def unix_socket(path: Path) -> socket.socket:
    """Bound to a path, in the place of one that was left behind: OSError if a process answers
    there.

    Users who may write to it may connect: the umask says who they are.
    """
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as client:
            if client.connect_ex(str(path)) == 0:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        path.unlink()
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(str(path))
    except OSError:
        listening.close()
        raise
    return listening


def bound_address(listening: socket.socket) -> tuple[str, int]:
    """Host and port, or path and 0."""
    address = listening.getsockname()
    return (address, 0) if isinstance(address, str) else (address[0], address[1])


def unauthenticated_max() -> int:
    """Clients that have not logged in, which a node has at once: with half of the files that the
    process may open they cannot keep out who has a password."""
    files_max, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if files_max == resource.RLIM_INFINITY else max(1, files_max // 2)


class Acceptor:
    """Acceptor on sockets; each client is let in by a task of its own.

    By the readiness of a socket, not by `sock_accept`: a task that is cancelled while it waits for
    that may lose a client that was accepted in the same turn, and would never be closed.
    """

    def __init__(self, let_in: AcceptClient, *, clients_max: int | None = None) -> None:
        """Accept clients; beyond `clients_max` that are not let in yet, the oldest is turned
        away."""
        self._let_in = let_in
        self._clients_max = clients_max
        self._loop = asyncio.get_running_loop()
        self._listening: dict[socket.socket, asyncio.TimerHandle | None] = {}
        """With the end of its pause, if it takes one."""
        self._clients: dict[asyncio.Task[None], socket.socket] = {}
        """Clients that are not let in yet, by the task that does so; oldest first."""

    def open(self, listening: socket.socket) -> None:
        """Accept on this one, which is ours from now on."""
        listening.settimeout(0)
        self._resume(listening)

    def close(self) -> set[asyncio.Task[None]]:
        """Accept no more, and turn away clients that are not in yet: once these are done."""
        for listening, pause in self._listening.items():
            if pause is None:
                self._loop.remove_reader(listening)
            else:
                pause.cancel()
            listening.close()
        self._listening.clear()
        for task in self._clients:
            task.cancel()
        return set(self._clients)

    def _resume(self, listening: socket.socket) -> None:
        self._listening[listening] = None
        self._loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Accept one connection a turn, so that others have theirs, however many wait."""
        try:
            client, address = listening.accept()
        except BlockingIOError:
            return  # it has gone again
        except OSError as error:
            event(logger, logging.ERROR, "accept_failed", reason=error)
            self._loop.remove_reader(listening)
            self._listening[listening] = self._loop.call_later(PAUSE_S, self._resume, listening)
            return
        client.settimeout(0)
        if self._clients_max is not None and len(self._clients) >= self._clients_max:
            next(iter(self._clients)).cancel()
        task = self._loop.create_task(self._let_in(client, address))
        self._clients[task] = client
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        client = self._clients.pop(task)
        if task.cancelled():
            client.close()
        else:
            task.result()


def ends_of(
    transport: asyncio.BaseTransport,
    forwarded: ForwardedConnection | None,
    next_number: Callable[[], int],
) -> tuple[Address, Address]:
    """Return where the client is and where it connected to, for us or for the proxy in front.

    All clients of a unix socket have the same address, so they are numbered in the place of a port.
    """
    if forwarded is None:
        peer, here = address_of(transport, "peername"), address_of(transport, "sockname")
        is_numbered = not peer[0] and is_unix(transport)
        return (("", next_number()), here) if is_numbered else (peer, here)
    source, destination = forwarded.source, forwarded.destination
    return (plain_host(source[0]), source[1]), (plain_host(destination[0]), destination[1])


def address_of(transport: asyncio.BaseTransport, end: str) -> Address:
    """Host and port of one end; a unix socket has neither, a lost one no peer."""
    address = transport.get_extra_info(end)
    if not isinstance(address, tuple):
        return "", 0
    host: str = address[0]
    return (plain_host(host) if ":" in host else host), address[1]


def is_unix(transport: asyncio.BaseTransport) -> bool:
    sock = transport.get_extra_info("socket")
    return sock is not None and sock.family == socket.AF_UNIX


def is_reset(transport: asyncio.BaseTransport) -> bool:
    """True if the peer has reset the connection, which a loop does not report of a socket that is
    not read.

    One that has closed in order has not: what it sent before counts.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sock.fileno(), 0)
    return any(happened & select.POLLERR for _, happened in poll.poll(0))


def acknowledge_read(transport: asyncio.BaseTransport) -> None:
    """Have TCP acknowledge at once what was read, where the kernel can.

    It puts that off by some 40 ms, to send it with an answer.  A peer with Nagle's algorithm sends
    nothing more until it comes.
    """
    sock = transport.get_extra_info("socket")
    if QUICK_ACK is not None and sock is not None and sock.family != socket.AF_UNIX:
        with suppress(OSError):  # it has ended, and its transport is about to say so
            sock.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)


def plain_host(host: str) -> str:
    """Return an address without its scope, and that of an IPv4 peer on a socket for both as
    IPv4."""
    return host.partition("%")[0].removeprefix("::ffff:")


def shown_address(host: str, port: int) -> str:
    """Return an address as RabbitMQ prints it: IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """True if it is an address of this machine alone; most clients come from few hosts."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
