"""Single messages that a client gets from a queue (basic.get), whatever its protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluffle.broker.base.errors import NotFound, ResourceLocked
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.queue_api import Deferred, DeliveryBatch, Holder, Outcome, QueueHandle

if TYPE_CHECKING:
    from fluffle.broker.core.session import Session


def get_message(
    holder: Holder, vhost_name: str
) -> DeliveryBatch | Deferred[DeliveryBatch | None] | None:
    """Hand out the next message of a queue to the holder, if there is one.

    ResourceLocked for a quorum queue with a single active consumer; NotFound for one with damage.
    """
    queue = holder.queue
    if queue.spec.queue_type is QueueType.QUORUM and queue.spec.single_active_consumer:
        raise ResourceLocked(
            f"cannot obtain access to locked {described(queue, vhost_name)}. basic.get operations "
            "are not supported by quorum queues with single active consumer"
        )
    got = queue.get(holder) if queue.damage is None else None
    check_running(queue, vhost_name)  # it may have come upon damage only now
    return got


def check_running(queue: QueueHandle, vhost_name: str) -> None:
    """NotFound, as with RabbitMQ, for a queue that came upon damage."""
    if queue.damage is not None:
        raise NotFound(f"{described(queue, vhost_name)} has crashed and failed to restart")


def described(queue: QueueHandle, vhost_name: str) -> str:
    """Name of a queue in what clients are told."""
    return f"queue '{queue.name}' in vhost '{vhost_name}'"


def count_got(session: Session, queue: QueueHandle, delivery_batch: DeliveryBatch | None) -> None:
    """Count a message that a client was given of what it asked, or that there was none."""
    if delivery_batch is None:
        session.deliveries_from(queue).get_empty += 1
        return
    deliveries = session.deliveries_from(delivery_batch.holder.queue)
    if delivery_batch.holder.no_ack:
        deliveries.got_auto_ack += 1
    else:
        deliveries.got_manual_ack += 1
    deliveries.redelivered += delivery_batch.redelivered


def requeue(delivery_batch: DeliveryBatch | None) -> None:
    """Put back a message for which whoever wanted it is there no more."""
    if delivery_batch is not None:
        queue = delivery_batch.holder.queue
        queue.settle(delivery_batch, 0, len(delivery_batch.contents), Outcome.UNSENT)
