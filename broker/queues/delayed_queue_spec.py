"""Specification of a delayed queue: a quorum queue in which each message dies when its time has
come, and is dead-lettered."""

from __future__ import annotations

from fluffle.broker.base.delayed_queues import delayed_queue_of
from fluffle.broker.queues.arguments import Declaration, QueueSpec, queue_spec
from fluffle.protocol.wire import to_table


def delayed_queue_spec(exchange: str, vhost: str, *, durable: bool) -> QueueSpec:
    """Of an exchange, which it leads back to; it lasts as long as that."""
    arguments = {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    declared = Declaration(
        delayed_queue_of(exchange), durable=durable, arguments=to_table(arguments)
    )
    return queue_spec(declared, vhost)
