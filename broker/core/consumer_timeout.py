"""Clients that have held messages for too long: what is taken from them, and who says so.

With RabbitMQ 4.3, too, a client that understands basic.cancel loses its consumer and no more; of
another, and of one that got its messages with basic.get, the channel is closed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.base.logs import event
from fluffle.broker.queues.queue_api import (
    DeliveryBatch,
    Outcome,
    OverdueDeliveries,
    TimedOutDeliveries,
)

if TYPE_CHECKING:
    from fluffle.broker.core.client import SessionChannel
    from fluffle.broker.queues.queue_api import QueueHandle

logger = logging.getLogger(__name__)


SettledOf: TypeAlias = Callable[[DeliveryBatch], Iterable[tuple[int, int]]]
"""Messages of a batch that were settled, but not for their queue: from where to where."""


def none_settled(_delivery_batch: DeliveryBatch) -> Iterable[tuple[int, int]]:
    """Where a client settles in no transaction."""
    return ()


def requeue_timed_out(
    late: OverdueDeliveries, settled_of: SettledOf = none_settled
) -> TimedOutDeliveries:
    """Put back messages that are in a client's hands as far as their queue knows, though they may
    have been settled in a transaction."""
    count, firsts = 0, []
    for delivery_batch in late.delivery_batches:
        for start, stop in (*delivery_batch.unsettled(), *settled_of(delivery_batch)):
            count += stop - start
            firsts.append(delivery_batch.sequences[start])
            delivery_batch.holder.queue.settle(delivery_batch, start, stop, Outcome.TIMED_OUT)
    return TimedOutDeliveries(count, min(firsts, default=0), late.held_ms, late.timeout_ms)


def log_timeout(
    channel: SessionChannel,
    queue: QueueHandle,
    lost: TimedOutDeliveries,
    consumer_tag: str | None = None,
) -> None:
    """Log who held what, and for how long, and count it."""
    session = channel.session
    session.deliveries_from(queue).timed_out += lost.messages
    event(
        logger,
        logging.WARNING,
        "consumer_timed_out",
        connection=session.name,
        channel=channel.number,
        consumer_tag=consumer_tag,
        vhost=session.vhost.name,
        queue=queue.name,
        messages=lost.messages,
        first=lost.first,
        held_ms=lost.held_ms,
        timeout_ms=lost.timeout_ms,
    )


def timeout_error(channel: SessionChannel, lost: TimedOutDeliveries) -> PreconditionFailed:
    """The error for which a channel ends, and all that its client holds comes back."""
    return PreconditionFailed(
        f"delivery acknowledgement on channel {channel.number} timed out. Timeout value used: "
        f"{lost.timeout_ms} ms. This timeout value can be configured, see consumers doc guide to "
        "learn more"
    )
