"""AMQP URLs: how they are written, and read."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from fluffle.broker.config.config import AMQP_PORT, DEFAULT_PASSWORD, DEFAULT_USER, DEFAULT_VHOST

AMQPS_PORT = 5671


def amqp_url(user: str, password: str, address: str, vhost: str, *, scheme: str = "amqp") -> str:
    """Build an AMQP URL; `address` is HOST:PORT, or the path of a unix socket, quoted."""
    name, secret, place = (quote(each, safe="") for each in (user, password, vhost))
    return f"{scheme}://{name}:{secret}@{address}/{place}"


class AmqpAddress(NamedTuple):
    """Parts of an AMQP URL."""

    host: str
    port: int
    user: str
    password: str
    vhost: str
    is_encrypted: bool


def address_of(url: str) -> AmqpAddress:
    """Parse an AMQP URL.  ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("amqp", "amqps") or not parts.hostname:
        raise ValueError(f"write amqp://USER:PASSWORD@HOST:PORT or amqps://…, not {url}")
    is_encrypted = parts.scheme == "amqps"
    return AmqpAddress(
        parts.hostname,
        parts.port or (AMQPS_PORT if is_encrypted else AMQP_PORT),
        unquote(parts.username or DEFAULT_USER),
        unquote(parts.password or DEFAULT_PASSWORD),
        unquote(parts.path[1:]) or DEFAULT_VHOST,
        is_encrypted,
    )
