"""What a classic queue is as a quorum queue, or why it cannot be one.

An argument that means the same stays; one that a quorum queue has no use for goes; what would mean
another thing is refused, in words.
"""

from __future__ import annotations

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.queues.arguments import (
    QUEUE_TYPE,
    Declaration,
    QueueSpec,
    QueueType,
    queue_spec,
)
from fluffle.broker.queues.priorities import QUORUM_LEVELS
from fluffle.broker.queues.settings import Overflow, SettingsFrom

MEANINGLESS = frozenset(
    {"x-max-priority", "x-queue-mode", "x-queue-version", "x-queue-master-locator"}
)
"""To a quorum queue: it always has priorities, keeps messages on disk, and is on several nodes."""


def as_quorum(spec: QueueSpec, settings_from: SettingsFrom, vhost: str) -> QueueSpec:
    """PreconditionFailed; `settings_from`: by what a queue goes, the one that it is and the one
    that it would be: policies may be for one type."""
    where = f"queue '{spec.name}' in vhost '{vhost}'"
    settings = settings_from(vhost, spec)
    for is_so, why in (
        (spec.queue_type is QueueType.QUORUM, "is a quorum queue already"),
        (spec.exclusive, "is exclusive: it ends with its connection, and a quorum queue does not"),
        (spec.auto_delete, "goes with its last consumer, and a quorum queue does not"),
        (not spec.durable, "is transient, and a quorum queue is durable"),
        (
            spec.max_priority is not None and spec.max_priority > QUORUM_LEVELS.highest,
            f"tells {spec.max_priority} priorities apart, and a quorum queue "
            f"{QUORUM_LEVELS.highest}",
        ),
        (
            settings.overflow is Overflow.REJECT_PUBLISH_DLX,
            "dead-letters what it refuses (reject-publish-dlx), and a quorum queue cannot",
        ),
        (
            settings.cache is not None,
            "takes each message once (x-message-deduplication), and as a quorum queue it would not "
            "know those that it has had",
        ),
    ):
        if is_so:
            raise PreconditionFailed(f"{where} {why}")
    arguments = {name: each for name, each in spec.arguments.items() if name not in MEANINGLESS}
    arguments[QUEUE_TYPE] = ("S", QueueType.QUORUM.encode())
    quorum = queue_spec(Declaration(spec.name, durable=True, arguments=arguments), vhost)
    if settings_from(vhost, quorum).cache is not None:
        raise PreconditionFailed(
            f"{where} would take each message once as a quorum queue (x-message-deduplication, by "
            "a policy), and not know those that it has had"
        )
    return quorum
