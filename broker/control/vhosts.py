"""vhosts.*: which virtual hosts there are, and how much may be in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fluffle.broker.chores import in_pieces
from fluffle.broker.control.arguments import Limits, check_name
from fluffle.broker.control.limits import changed_limits
from fluffle.broker.control.parts import Later, Parts, Row, Rows, Work
from fluffle.broker.errors import PreconditionFailed
from fluffle.broker.vhost import VirtualHost

PIECE = 50
"""Queues or exchanges that go at once."""

LIMITS: Mapping[str, str] = {"max-connections": "max_connections", "max-queues": "max_queues"}


def list_vhosts(parts: Parts) -> Rows:
    """All of them."""
    return (vhost_row(parts, vhost) for vhost in parts.vhosts(None))


def vhost_row(parts: Parts, vhost: VirtualHost) -> Row:
    return {
        "name": vhost.name,
        "metadata": dict(vhost.metadata),
        "queues": len(vhost.queues),
        "connections": parts.access.usage.connections_to_vhost[vhost.name],
        "max_connections": vhost.limits.max_connections,
        "max_queues": vhost.limits.max_queues,
    }


def add(parts: Parts, *, name: str) -> Row:
    """A new one, in which nobody has any rights yet."""
    check_name("vhost", name)
    if name in parts.catalogue.vhosts:
        raise PreconditionFailed(f"vhost '{name}' already exists")
    parts.catalogue.vhost(name)
    return {}


def delete(parts: Parts, *, name: str) -> Later:
    """One with all that is in it; its connections are closed."""
    vhost = parts.catalogue.doom(parts.vhost(name).name)
    return parts.later(dismantle(parts, vhost))


def dismantle(parts: Parts, vhost: VirtualHost) -> Work:
    """At the pace of the disk: what a commit removes costs the loop time at its end, too."""
    while parts.access.usage.connections_to_vhost[vhost.name]:
        yield None
    for _ in in_pieces(parts.catalogue.dismantle(vhost), PIECE):
        yield parts.commits.ticket
    return {}


def set_limits(parts: Parts, *, name: str, limits: Limits) -> Row:
    """Change the limits that are named; what is there stays, whatever they say."""
    vhost = parts.vhost(name)
    vhost.change(limits=changed_limits(vhost.limits, LIMITS, limits))
    return {}


READS: Mapping[str, Callable[..., Any]] = {"vhosts.list": list_vhosts}
CHANGES: Mapping[str, Callable[..., Any]] = {
    "vhosts.add": add,
    "vhosts.delete": delete,
    "vhosts.limits": set_limits,
}
