"""What metrics say of messages that died in queues, be it that nobody wanted them.

Names and labels are RabbitMQ's; which kinds of queues can have which is there, too.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from fluffle.broker.base.traffic import DISABLED, Deaths
from fluffle.broker.observability.metrics.families import counter, labelled
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.settings import DeadLetterStrategy
from fluffle.protocol.deaths import DeathReason

ONCE, SURE = DeadLetterStrategy.AT_MOST_ONCE, DeadLetterStrategy.AT_LEAST_ONCE

TEXTS = {
    DeathReason.EXPIRED: "due to message TTL exceeded",
    DeathReason.REJECTED: "due to basic.reject or basic.nack",
    DeathReason.MAXLEN: "due to overflow drop-head or reject-publish-dlx",
    DeathReason.DELIVERY_LIMIT: "due to delivery-limit exceeded",
}

KINDS = (
    (QueueType.CLASSIC, ONCE), (QueueType.CLASSIC, DISABLED),
    (QueueType.QUORUM, ONCE), (QueueType.QUORUM, SURE), (QueueType.QUORUM, DISABLED),
)  # fmt: skip
"""Types of queues, and the strategies that each can have."""

IMPOSSIBLE = {
    (QueueType.CLASSIC, ONCE, DeathReason.DELIVERY_LIMIT),
    (QueueType.CLASSIC, DISABLED, DeathReason.DELIVERY_LIMIT),
    (QueueType.QUORUM, SURE, DeathReason.MAXLEN),
}


def deaths_of(deaths: Deaths) -> Iterator[Metric]:
    """All of it."""
    for reason, text in TEXTS.items():
        family = counter(
            f"global_messages_dead_lettered_{reason}",
            f"Total number of messages dead-lettered {text}",
        )
        for kind in KINDS:
            if (*kind, reason) not in IMPOSSIBLE:
                labelled(family, deaths.died[(*kind, reason)], **labels_of(*kind))
        yield family
    family = counter(
        "global_messages_dead_lettered_confirmed",
        "Total number of messages dead-lettered and confirmed by target queues",
    )
    labelled(family, deaths.confirmed, **labels_of(QueueType.QUORUM, SURE))
    yield family


def labels_of(queue_type: QueueType, strategy: str) -> dict[str, str]:
    """As RabbitMQ says them."""
    return {
        "queue_type": f"rabbit_{queue_type}_queue",
        "dead_letter_strategy": strategy.replace("-", "_"),
    }
