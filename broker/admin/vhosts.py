"""vhosts.*: which virtual hosts there are, and how much may be in them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from fluffle.broker.access.limits import PROTECTED, LimitedResource
from fluffle.broker.admin.arguments import Limits, changed_limits, check_name
from fluffle.broker.admin.context import NodeContext, PendingRow, Result, Row, Rows, Work
from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.base.logs import event
from fluffle.broker.core.firehose import FIREHOSE, Firehose
from fluffle.broker.definitions.changes import dismantling, doom, set_vhost
from fluffle.broker.metadata.change import Change
from fluffle.broker.queues.arguments import DEFAULT_QUEUE_TYPE, QueueType
from fluffle.broker.runtime.background import in_pieces
from fluffle.broker.vhosts.vhost import VirtualHost, set_tracer

logger = logging.getLogger(__name__)

DELETED_PER_COMMIT = 50
"""Queues or exchanges that go at once."""

LIMITS: Mapping[str, str] = {"max-connections": "max_connections", "max-queues": "max_queues"}


def list_vhosts(context: NodeContext) -> Rows:
    """All of them."""
    return (vhost_row(context, vhost) for vhost in context.vhosts(None))


def vhost_row(context: NodeContext, vhost: VirtualHost) -> Row:
    return {
        "name": vhost.name,
        "description": vhost.metadata.get("description", ""),
        "tags": vhost.metadata.get("tags", []),
        "default_queue_type": vhost.metadata.get(DEFAULT_QUEUE_TYPE),
        PROTECTED: vhost.metadata.get(PROTECTED) is True,
        "metadata": dict(vhost.metadata),
        "queues": len(vhost.queues),
        "connections": context.access.usage.here[LimitedResource.CONNECTIONS_TO_VHOST][vhost.name],
        "max_connections": vhost.limits.max_connections,
        "max_queues": vhost.limits.max_queues,
        "tracing": FIREHOSE in vhost.tracers,
    }


def add(
    context: NodeContext,
    *,
    name: str,
    description: str | None = None,
    tags: list[str] | None = None,
    queue_type: str | None = None,
    is_protected: bool | None = None,
) -> Result:
    """Make a virtual host, in which no user has rights yet."""
    check_name("vhost", name)
    metadata = metadata_of(description, tags, queue_type, is_protected=is_protected)

    def decide() -> Change:
        if name in context.catalogue.vhosts:
            raise PreconditionFailed(f"vhost '{name}' already exists")
        return set_vhost(context.catalogue, name, metadata=metadata)

    return context.change(decide)


def delete(context: NodeContext, *, name: str) -> Result:
    """Delete a virtual host with its content unless protected; its connections are closed."""
    going = PendingRow()

    def decide() -> Change:
        return doom(context.catalogue, context.vhost(name).name)

    def done() -> None:
        context.later(dismantle(context, name)).begin(going.answer)

    context.metadata.change(decide, done, going.answer)
    return going.result


def dismantle(context: NodeContext, name: str) -> Work:
    """At the pace of the disk: what a commit removes costs the loop time at its end, too."""
    while context.access.usage.here[LimitedResource.CONNECTIONS_TO_VHOST][name]:
        yield None
    for piece in in_pieces(dismantling(context.catalogue, name), DELETED_PER_COMMIT):
        for decide in piece:
            context.metadata.ensure(decide)
        yield context.runtime.commits.ticket
    return {}


def metadata_of(
    description: str | None,
    tags: list[str] | None,
    queue_type: str | None,
    *,
    is_protected: bool | None,
) -> dict[str, object]:
    """Metadata of a virtual host; the type is that of queues declared without one from now on,
    where possible.  A protected one cannot be deleted.  PreconditionFailed."""
    if queue_type not in (None, QueueType.CLASSIC, QueueType.QUORUM):
        raise PreconditionFailed(f"Unsupported queue type: {queue_type}")
    said = {
        "description": description,
        "tags": tags,
        DEFAULT_QUEUE_TYPE: queue_type,
        PROTECTED: is_protected,
    }
    return {key: value for key, value in said.items() if value is not None}


def set_metadata(
    context: NodeContext,
    *,
    name: str,
    description: str | None = None,
    tags: list[str] | None = None,
    queue_type: str | None = None,
    is_protected: bool | None = None,
) -> Result:
    """Change what is said of one; what is not named stays."""
    said = metadata_of(description, tags, queue_type, is_protected=is_protected)

    def decide() -> Change:
        return set_vhost(context.catalogue, context.vhost(name).name, metadata=said)

    return context.change(decide)


def set_limits(context: NodeContext, *, name: str, limits: Limits) -> Result:
    """Change the limits that are named; what is there stays, whatever they say."""

    def decide() -> Change:
        changed = changed_limits(context.vhost(name).limits, LIMITS, limits)
        return set_vhost(context.catalogue, name, limits=changed)

    return context.change(decide)


def set_trace(context: NodeContext, *, name: str, on: bool) -> Result:
    """Copy what clients of this node publish to it and are given from it, until it is stopped."""
    vhost = context.vhost(name)
    set_tracer(vhost, FIREHOSE, Firehose(vhost, context.config.node_name) if on else None)
    event(logger, logging.INFO, "tracing_started" if on else "tracing_stopped", vhost=name)
    return {}


READS: Mapping[str, Callable[..., Any]] = {"vhosts.list": list_vhosts}
CHANGES: Mapping[str, Callable[..., Any]] = {
    "vhosts.add": add,
    "vhosts.delete": delete,
    "vhosts.metadata": set_metadata,
    "vhosts.limits": set_limits,
    "vhosts.trace": set_trace,
}
