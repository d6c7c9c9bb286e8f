"""How much is in queues, as the columns of RabbitMQ's that are about bytes and memory.

The node that leads a queue knows what is ready; each node knows what its own clients have in hands.
So every node has rows of its own, which add up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from fluffle.broker.base.queue_names import is_delayed_queue
from fluffle.broker.cluster_port import ClusterView
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.queue_api import QueueHandle
from fluffle.broker.queues.queue_view import (
    MessageMeter,
    MessageTotals,
    head_timestamp,
    ready_counts,
)

if TYPE_CHECKING:
    from fluffle.broker.cluster.queues.ports import HostedQueue
    from fluffle.broker.core.client import ListedClient
    from fluffle.broker.queues.queue_api import DeliveryBatch

QUEUE_BYTES = 2_000
MESSAGE_BYTES = 80
"""About as much memory as a queue takes, and a message in memory besides its body."""

NAMES = (
    "message_bytes", "message_bytes_ready", "message_bytes_unacknowledged", "message_bytes_ram",
    "message_bytes_persistent", "messages_ram", "messages_ready_ram", "messages_unacknowledged_ram",
    "messages_persistent", "messages_paged_out", "message_bytes_paged_out", "memory",
)  # fmt: skip
"""The names of the numbers of a row, in their order."""
QUORUM_NAMES = (
    "messages_ready_high", "messages_ready_normal", "messages_ready_returned", "messages_dlx",
    "message_bytes_dlx",
)  # fmt: skip
"""Likewise, of a quorum queue, where it is led."""
HEAD_TIMESTAMP = "head_message_timestamp"
"""Beside them, if the next message has one."""

Held: TypeAlias = dict[tuple[str, str], list["DeliveryBatch"]]
"""Runs by virtual host and queue."""
NOTHING: list[DeliveryBatch] = []


def note_held(connection: ListedClient, held: Held) -> None:
    """Add what a client has in hands."""
    for channel in tuple(connection.channels):
        vhost = channel.session.vhost.name
        for run in channel.unacked.open_runs():
            held.setdefault((vhost, run.holder.queue.name), []).append(run)


def local_part_of(cluster_view: ClusterView, queue: QueueHandle) -> Queue | HostedQueue | None:
    """The part that knows what is ready in a queue, if it is led here; delayed queues are not
    looked at, whose messages wait on disk for their time."""
    if is_delayed_queue(queue.name):
        return None
    if isinstance(queue, Queue):
        return queue
    served = served_of(cluster_view, queue.definition.id)
    return served if served is not None and served.sessions is not None else None


def served_of(cluster_view: ClusterView, queue: int) -> HostedQueue | None:
    """A queue that is reached by streams, if it may be led here."""
    if cluster_view.cluster is not None:
        return cluster_view.cluster.node_sessions.leaders.queues.get(queue)
    hosted = cluster_view.groups.get(queue)
    if hosted is None:
        return None
    from fluffle.broker.cluster.queues.quorum_member import QuorumQueueMember  # noqa: PLC0415  of quorum queues

    assert isinstance(hosted.machine, QuorumQueueMember)
    return hosted.machine


def volume_row(
    cluster_view: ClusterView, queue: QueueHandle, runs: list[DeliveryBatch]
) -> dict[str, int] | None:
    """The volume that this node has of a queue, of which its clients hold `runs`; None for
    nothing."""
    led = local_part_of(cluster_view, queue)
    if led is None and not runs:
        return None
    ready_view = led.ready_view if led is not None else None
    is_quorum = queue.spec.queue_type is QueueType.QUORUM
    measure = MessageMeter()
    ready = measure.ready(ready_view) if ready_view is not None else MessageTotals()
    held = measure.held(runs, is_persistent=is_quorum)
    served = None if isinstance(led, Queue) else led
    dead = measure.dead(served.kept_dead) if served is not None else MessageTotals()
    ram_bytes, ram_count = ready.ram_bytes + held.ram_bytes, ready.ram_count + held.ram_count
    parts = ready, held, dead
    size_bytes = sum(part.size_bytes for part in parts)
    numbers = (
        size_bytes,
        ready.size_bytes,
        held.size_bytes,
        ram_bytes,
        sum(part.persistent_bytes for part in parts),
        ram_count,
        ready.ram_count,
        held.ram_count,
        sum(part.persistent_count for part in parts),
        sum(part.message_count for part in parts) - ram_count,
        size_bytes - ram_bytes,
        ram_bytes + ram_count * MESSAGE_BYTES + (QUEUE_BYTES if ready_view is not None else 0),
    )
    row = dict(zip(NAMES, numbers, strict=True))
    if is_quorum and served is not None:
        of_kinds = *ready_counts(served.ready_view, served.counts.ready), *dead[:2]
        row |= zip(QUORUM_NAMES, of_kinds, strict=True)
    if ready_view is not None and (timestamp := head_timestamp(ready_view)) is not None:
        row[HEAD_TIMESTAMP] = timestamp
    return row
