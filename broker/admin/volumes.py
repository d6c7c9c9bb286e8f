"""queues.volumes: how many bytes are in queues, and what of that is in memory, at all nodes.

queues.volume ---- of this node ----+
queues.volume ---- of another ------+--> added, queue by queue --> queues.volumes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fluffle.broker.admin.context import NodeContext, Rows
from fluffle.broker.admin.queue_statistics import added_up
from fluffle.broker.observability.statistics.volumes import NOTHING, Held, note_held, volume_row


def volumes_here(
    context: NodeContext, *, vhost: str | None = None, names: list[str] | None = None
) -> Rows:
    """The volumes that this node has of each queue, or of some.  NotFound."""
    hosts = context.vhosts(vhost)
    held: Held = {}
    for connection in context.connections:
        note_held(connection, held)
    for host in hosts:
        for name in tuple(host.queues) if names is None else names:
            queue = host.queues.get(name)
            if queue is None:
                continue
            row = volume_row(context.company, queue, held.get((host.name, name), NOTHING))
            if row is not None:
                yield {"vhost": host.name, "name": name, **row}


READS: Mapping[str, Callable[..., Any]] = {
    "queues.volume": volumes_here,
    "queues.volumes": partial(added_up, "queues.volume"),
}
