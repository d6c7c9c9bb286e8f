"""Where something comes before AMQP: TLS handshakes and PROXY headers."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from random import Random

from tests.abuse.target import Address, AttackContext, UnexpectedAnswer

ENTRANCE_S = 5
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""Signature of version 2 of the PROXY protocol."""


def expect_end(sock: socket.socket, what: str) -> None:
    """The socket is closed before its deadline, with or without an alert of TLS."""
    try:
        while sock.recv(65_536):
            pass
    except TimeoutError:
        raise UnexpectedAnswer(f"not closed: {what}") from None
    except OSError:
        return


def leave_to_time(context: AttackContext, address: Address, sent: bytes) -> None:
    """Say only so much: the node has to hang up by itself."""
    sock = context.raw(address)
    sock.sendall(sent)
    context.keep(sock, ENTRANCE_S, f"who only says {sent!r}")


def tls_garbage(context: AttackContext, chance: Random) -> None:
    """AMQP, HTTP or noise where TLS should be."""
    if context.target.amqps is None:
        return
    garbage = (
        b"AMQP\x00\x00\x09\x01",
        b"GET / HTTP/1.1\r\n\r\n",
        chance.randbytes(512),
        b"\x16\x03\x01\x00\x05xxxxx",
    )
    with context.raw(context.target.amqps) as sock, suppress(ConnectionError):
        sock.sendall(chance.choice(garbage) + bytes(64))
        expect_end(sock, "garbage instead of TLS")


def slow_tls(context: AttackContext, chance: Random) -> None:
    """A handshake of TLS that never goes on."""
    if context.target.amqps is not None:
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        leave_to_time(context, context.target.amqps, hello[: chance.randrange(1, len(hello))])


def tls_and_gone(context: AttackContext, chance: Random) -> None:
    """A handshake that is done, and then nothing, noise, or the end."""
    if context.target.amqps is None:
        return
    plain = context.raw(context.target.amqps)
    try:
        sock = context.tls().wrap_socket(plain, server_hostname="localhost")
    except (OSError, ssl.SSLError):
        plain.close()
        raise
    with sock:
        if chance.randrange(2):
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            expect_end(sock, "HTTP in TLS")


def proxy_garbage(context: AttackContext, chance: Random) -> None:
    """No PROXY header, a broken one, one that says less than it announces."""
    if context.target.proxied is None:
        return
    garbage = (
        b"AMQP\x00\x00\x09\x01",
        b"PROXY TCP4 1.2.3.4 999.0.0.1 5 6\r\n",
        b"PROXY " + b"x" * 200,
        SIGNATURE + b"\x21\x11\x00\x01\x00",
        SIGNATURE + b"\xff\xff\xff\xff" + bytes(64),
        chance.randbytes(300),
    )
    with context.raw(context.target.proxied) as sock, suppress(ConnectionError):
        sock.sendall(chance.choice(garbage))
        expect_end(sock, "garbage instead of a PROXY header")


def slow_proxies(context: AttackContext, chance: Random) -> None:
    """A PROXY header that never ends."""
    if context.target.proxied is not None:
        leave_to_time(context, context.target.proxied, SIGNATURE[: chance.randrange(1, 13)])


def proxy_and_gone(context: AttackContext, _chance: Random) -> None:
    """A right header, and then garbage where AMQP should be."""
    if context.target.proxied is None:
        return
    with context.raw(context.target.proxied) as sock, suppress(ConnectionError):
        sock.sendall(b"PROXY TCP4 203.0.113.9 203.0.113.1 40000 5672\r\nGET / HTTP/1.1\r\n\r\n")
        expect_end(sock, "HTTP behind a PROXY header")


KINDS = {
    "TLS garbage": tls_garbage,
    "slow TLS": slow_tls,
    "TLS and gone": tls_and_gone,
    "PROXY garbage": proxy_garbage,
    "slow proxies": slow_proxies,
    "proxy and gone": proxy_and_gone,
}
