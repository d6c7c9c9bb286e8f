"""vhosts.*: which virtual hosts there are, and how much may be in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fluffle.broker.chores import in_pieces
from fluffle.broker.control.arguments import Limits, check_name
from fluffle.broker.control.limits import changed_limits
from fluffle.broker.control.parts import Parts, Pending, Result, Row, Rows, Work
from fluffle.broker.definitions.deciding import dismantling, doom, set_vhost
from fluffle.broker.errors import PreconditionFailed
from fluffle.broker.metadata.change import Change
from fluffle.broker.queues.arguments import DEFAULT_QUEUE_TYPE, QueueType
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


def add(parts: Parts, *, name: str) -> Result:
    """A new one, in which nobody has any rights yet."""
    check_name("vhost", name)

    def decide() -> Change:
        if name in parts.catalogue.vhosts:
            raise PreconditionFailed(f"vhost '{name}' already exists")
        return set_vhost(parts.catalogue, name)

    return parts.change(decide)


def delete(parts: Parts, *, name: str) -> Result:
    """One with all that is in it; its connections are closed."""
    going = Pending()

    def decide() -> Change:
        return doom(parts.catalogue, parts.vhost(name).name)

    def done() -> None:
        parts.later(dismantle(parts, name)).begin(going.answer)

    parts.metadata.change(decide, done, going.answer)
    return going.result


def dismantle(parts: Parts, name: str) -> Work:
    """At the pace of the disk: what a commit removes costs the loop time at its end, too."""
    while parts.access.usage.connections_to_vhost[name]:
        yield None
    for piece in in_pieces(dismantling(parts.catalogue, name), PIECE):
        for decide in piece:
            parts.metadata.settle(decide)
        yield parts.commits.ticket
    return {}


def set_queue_type(parts: Parts, *, name: str, queue_type: str) -> Result:
    """The type of queues that are declared from now on without one, if they can be of it."""
    if queue_type not in (QueueType.CLASSIC, QueueType.QUORUM):
        raise PreconditionFailed(f"Unsupported queue type: {queue_type}")

    def decide() -> Change:
        metadata = {**parts.vhost(name).metadata, DEFAULT_QUEUE_TYPE: queue_type}
        return set_vhost(parts.catalogue, name, metadata=metadata)

    return parts.change(decide)


def set_limits(parts: Parts, *, name: str, limits: Limits) -> Result:
    """Change the limits that are named; what is there stays, whatever they say."""

    def decide() -> Change:
        changed = changed_limits(parts.vhost(name).limits, LIMITS, limits)
        return set_vhost(parts.catalogue, name, limits=changed)

    return parts.change(decide)


READS: Mapping[str, Callable[..., Any]] = {"vhosts.list": list_vhosts}
CHANGES: Mapping[str, Callable[..., Any]] = {
    "vhosts.add": add,
    "vhosts.delete": delete,
    "vhosts.queue_type": set_queue_type,
    "vhosts.limits": set_limits,
}
