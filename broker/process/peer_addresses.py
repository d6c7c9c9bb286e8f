"""The two ends of a connection, as the socket knows them or as a proxy says."""

import asyncio
import select
from collections.abc import Callable
from ipaddress import ip_address
from socket import AF_UNIX

from fluffle.protocol.proxy import Address, ForwardedConnection


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
        return (("", next_number()), here) if is_unix(transport) else (peer, here)
    source, destination = forwarded.source, forwarded.destination
    return (plain_host(source[0]), source[1]), (plain_host(destination[0]), destination[1])


def address_of(transport: asyncio.BaseTransport, end: str) -> Address:
    """Host and port of one end; a unix socket has neither, a lost one no peer."""
    address = transport.get_extra_info(end)
    if not isinstance(address, tuple):
        return "", 0
    return plain_host(address[0]), address[1]


def is_unix(transport: asyncio.BaseTransport) -> bool:
    sock = transport.get_extra_info("socket")
    return sock is not None and sock.family == AF_UNIX


def is_reset(transport: asyncio.BaseTransport) -> bool:
    """Whether the peer has broken off, which a loop does not tell of a socket that is not read.

    One that has closed in order has not: what it sent before counts.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sock.fileno(), 0)
    return any(happened & select.POLLERR for _, happened in poll.poll(0))


def plain_host(host: str) -> str:
    """Return an address without its scope, and that of an IPv4 peer on a socket for both as
    IPv4."""
    return host.partition("%")[0].removeprefix("::ffff:")


def shown_address(host: str, port: int) -> str:
    """Return an address as RabbitMQ prints it: IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether it is an address of this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
