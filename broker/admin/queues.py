"""queues.*: what is in them, and away with it.

An operator may do to any queue what a client may, to those that are exclusive to another, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from fluffle.broker.admin.context import (
    DeferredRow,
    NodeContext,
    PendingRow,
    Result,
    Row,
    Rows,
    Work,
)
from fluffle.broker.base.errors import BrokerError, PreconditionFailed
from fluffle.broker.cluster_port import ClusterView
from fluffle.broker.definitions.file_format import plain
from fluffle.broker.metadata.change import Change
from fluffle.broker.policies.policies import EffectivePolicies
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import Damage, QueueDefinition
from fluffle.broker.queues.queue_api import Deferred, QueueCounts, QueueHandle
from fluffle.broker.runtime.background import in_pieces
from fluffle.broker.vhosts.queue_changes import delete_queue
from fluffle.broker.vhosts.vhost import VirtualHost, check_unneeded, existing_queue

UNLED = ("down", "minority")
"""States in which no member can be asked."""

UNLIMITED = "unlimited"
"""Value shown where there is no limit."""

ASKED_AT_ONCE = 100
"""Queues that are led elsewhere, whose leaders are asked."""


def list_queues(context: NodeContext, *, vhost: str | None = None) -> Rows:
    """Rows of the queues of a virtual host, or of all."""
    for each in context.vhosts(vhost):
        for queues in in_pieces(tuple(each.queues.values()), ASKED_AT_ONCE):
            asked = dict.fromkeys(may_answer(context.cluster_view, queues))
            yield from refresh_counts(asked)
            yield from (
                queue_row(context, each, queue, was_asked=queue in asked)
                for queue in queues
                if each.has(queue)
            )


def may_answer(cluster_view: ClusterView, queues: Iterable[QueueHandle]) -> Iterator[QueueHandle]:
    return (queue for queue in queues if state_of(cluster_view, queue) not in UNLED)


def refresh_counts(queues: Iterable[QueueHandle]) -> Iterator[Deferred[None]]:
    """Yield what must be awaited until this node knows the counts and leaders of these queues."""
    asked = [
        queue_counts for queue in queues if isinstance(queue_counts := queue.queue_counts, Deferred)
    ]
    if not asked:
        return
    all_answered: Deferred[None] = Deferred()
    left = len(asked)

    def count(_tally: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            all_answered.answer(None)

    for each in asked:
        each.then(count, count)
    yield all_answered


def queue_row(
    context: NodeContext, vhost: VirtualHost, queue: QueueHandle, *, was_asked: bool = True
) -> Row:
    """Row of a queue with RabbitMQ's names.  What is known of a queue that was not asked now is
    old."""
    cluster_view = context.cluster_view
    spec, state = queue.spec, state_of(cluster_view, queue)
    return {
        "vhost": vhost.name,
        "name": spec.name,
        "type": spec.queue_type.shown,
        "durable": spec.durable or spec.queue_type is QueueType.MQTT_QOS0,
        "auto_delete": spec.auto_delete,
        "exclusive": spec.exclusive,
        "owner": queue.owner.name if queue.owner else None,
        "arguments": plain(spec.arguments),
        **counts_row(cluster_view, queue, state, was_asked=was_asked),
        **policies_row(context.catalogue.policies.for_queue(vhost.name, spec)),
        "delivery_limit": delivery_limit_of(context, vhost, spec),
        "single_active_consumer_tag": active_tag(cluster_view, queue),
        "exclusive_consumer_tag": exclusive_tag(queue),
        "state": state,
        "group": group_of(queue),
        "node": node_of(context, queue.definition),
        **members_row(cluster_view, queue.definition),
    }


def policies_row(in_force: EffectivePolicies) -> Row:
    """Names of the policies in force, and their merged definition."""
    policy, operator_policy, definition = in_force
    return {
        "policy": policy.name if policy is not None else None,
        "operator_policy": operator_policy.name if operator_policy is not None else None,
        "effective_policy_definition": dict(definition or {}),
    }


def delivery_limit_of(
    context: NodeContext, vhost: VirtualHost, spec: QueueSpec
) -> int | str | None:
    """How often messages may come back; None of a queue that does not count that."""
    if spec.queue_type is not QueueType.QUORUM:
        return None
    limit = context.catalogue.policies.settings_of(vhost.name, spec).delivery_limit
    return UNLIMITED if limit is None else limit


def group_of(queue: QueueHandle) -> int | None:
    """Raft group of a quorum queue; None for other types."""
    is_quorum = queue.spec.queue_type is QueueType.QUORUM
    return queue.definition.id if is_quorum else None


def counts_row(
    cluster_view: ClusterView, queue: QueueHandle, state: str, *, was_asked: bool
) -> Row:
    """None for what no node that could know has said."""
    counts: tuple[int, int, int] | None = None
    consumers: int | None = None
    if state in UNLED:
        counts = counts_kept_here(cluster_view, queue.definition.id)
    elif was_asked and queue.counts_error is None:
        counts = queue.ready_count, queue.in_flight, queue.apart_count
        consumers = queue.consumer_count
    ready, unacked, _apart = counts or (None, None, None)
    return {
        "messages": None if counts is None else sum(counts),
        "messages_ready": ready,
        "messages_unacknowledged": unacked,
        "consumers": consumers,
    }


def counts_kept_here(cluster_view: ClusterView, queue: int) -> tuple[int, int, int] | None:
    """Counts kept by the member on this node of a queue without a leader; None if it has none."""
    hosted = cluster_view.groups.get(queue)
    if hosted is None:
        return None
    from fluffle.broker.cluster.queues.quorum_member import counts_kept  # noqa: PLC0415  of clusters alone

    return counts_kept(hosted)


def active_tag(cluster_view: ClusterView, queue: QueueHandle) -> str | None:
    """That of its single active consumer, if that is known here: if it is here, or the queue, or a
    member of it."""
    if not queue.spec.single_active_consumer:
        return None
    tag = next((each.tag for each in queue.consumers if each.is_active), None)
    hosted = cluster_view.groups.get(queue.definition.id)
    if tag is not None or hosted is None:
        return tag
    from fluffle.broker.cluster.queues.quorum_member import active_tag_kept  # noqa: PLC0415  of clusters alone

    return active_tag_kept(hosted)


def exclusive_tag(queue: QueueHandle) -> str | None:
    """Tag of the exclusive consumer, as far as it is known here."""
    return next((each.tag for each in queue.consumers if each.exclusive), None)


def members_row(cluster_view: ClusterView, definition: QueueDefinition) -> Row:
    """Leader and members as far as this node knows; None in each for queues that are not quorum
    queues."""
    if definition.spec.queue_type is not QueueType.QUORUM:
        return {"leader": None, "members": None, "online": None}
    nodes = sorted(dict(definition.members))
    leader = leader_now(cluster_view, definition)
    return {
        "leader": cluster_view.shown(leader) if leader else None,
        "members": [cluster_view.shown(node) for node in nodes],
        "online": [cluster_view.shown(node) for node in nodes if cluster_view.is_alive(node)],
    }


def node_of(context: NodeContext, definition: QueueDefinition) -> str | None:
    """Node on which a queue is led; None for a quorum queue without a leader."""
    if definition.spec.queue_type is QueueType.QUORUM:
        leader = leader_now(context.cluster_view, definition)
        return context.cluster_view.shown(leader) if leader else None
    return (
        context.cluster_view.shown(definition.home) if definition.home else context.config.node_name
    )


def leader_now(cluster_view: ClusterView, definition: QueueDefinition) -> str:
    """Node that leads a queue and is alive, or ""."""
    leader = cluster_view.leader_of(definition.id)
    return leader if leader and cluster_view.is_alive(leader) else ""


def state_of(cluster_view: ClusterView, queue: QueueHandle) -> str:
    """In RabbitMQ's words, and as this node sees the others."""
    if queue.unreachable_error is not None:
        return "down"
    if queue.spec.queue_type is QueueType.QUORUM:
        voters = voters_of(cluster_view, queue.definition)
        up = sum(cluster_view.is_alive(node) for node in voters)
        if 2 * up <= len(voters):
            return "minority" if up else "down"
    return "running" if queue.damage is None else "crashed"


def voters_of(cluster_view: ClusterView, definition: QueueDefinition) -> list[str]:
    """Voters as the member here knows them, or the members by the definition, where some may be
    learners."""
    hosted = cluster_view.groups.get(definition.id)
    voters = [voter.node for voter in hosted.status.config.voters] if hosted is not None else []
    return voters or list(dict(definition.members))


def show(context: NodeContext, *, name: str, vhost: str) -> Row | DeferredRow:
    """Row of one queue, once its counts are known."""
    host = context.vhost(vhost)
    queue = existing_queue(host, name)
    queue_counts = (
        queue.queue_counts if state_of(context.cluster_view, queue) not in UNLED else None
    )
    if not isinstance(queue_counts, Deferred):
        return queue_row(context, host, queue)
    asked = PendingRow()
    queue_counts.then(lambda _tally: asked.answer(queue_row(context, host, queue)), asked.answer)
    return asked.result


def purge(context: NodeContext, *, name: str, vhost: str) -> Row | DeferredRow:
    """Drop the ready messages; how many there were."""
    count = existing_queue(context.vhost(vhost), name).purge()
    if not isinstance(count, Deferred):
        return {"messages": count}
    asked = PendingRow()
    count.then(lambda messages: asked.answer({"messages": messages}), asked.answer)
    return asked.result


def repair(
    context: NodeContext, *, name: str, vhost: str, drop_damaged: bool = False
) -> DeferredRow:
    """Drop the damaged messages that a crashed queue came upon; how many, and where the first."""
    queue = existing_queue(context.vhost(vhost), name)
    damage = queue.damage
    if damage is None or not isinstance(queue, Queue):
        raise PreconditionFailed(f"queue '{name}' in vhost '{vhost}' has not crashed")
    if not drop_damaged and damage.is_of_settled:
        raise PreconditionFailed(
            f"what was acknowledged in queue '{name}' in vhost '{vhost}' cannot be read "
            f"({damage.place}: {damage.what}); with --drop-damaged such messages come again"
        )
    if not drop_damaged:
        count = damage.count or "some"
        raise PreconditionFailed(
            f"{count} messages of queue '{name}' in vhost '{vhost}' cannot be read "
            f"({damage.place}: {damage.what}); they can only be dropped, with --drop-damaged"
        )
    return context.later(drop_damage(vhost, queue, damage))


def drop_damage(vhost: str, queue: Queue, first: Damage) -> Work:
    """Drop batch after batch of messages while the next one cannot be read."""
    dropped = 0
    while (damage := queue.damage) is not None:
        count = queue.drop_damaged()
        if not count and queue.damage is not None:
            raise PreconditionFailed(
                f"{dropped} messages were dropped, but it is unknown how many more of queue "
                f"'{queue.name}' in vhost '{vhost}' are damaged ({damage.place}: {damage.what}); "
                "purge or delete it"
            )
        dropped += count
        yield None
    return {"messages": dropped, "place": first.place, "reason": first.what}


def delete(
    context: NodeContext, *, name: str, vhost: str, if_unused: bool = False, if_empty: bool = False
) -> Result:
    """Delete a queue with its messages, and cancel its consumers; returns how many messages there
    were, as far as known."""
    messages: int | None = 0

    def decide() -> Change:
        nonlocal messages
        host = context.vhost(vhost)
        queue = existing_queue(host, name)
        check_unneeded(queue, vhost, unused=if_unused, empty=if_empty)
        messages = queue.ready_count if queue.counts_error is None else None
        return delete_queue(host, queue)

    queue_counts = existing_queue(context.vhost(vhost), name).queue_counts
    if not isinstance(queue_counts, Deferred):
        return context.change(decide, lambda: {"messages": messages})
    going = PendingRow()

    def counted(_tally: QueueCounts) -> None:
        try:
            context.metadata.change(
                decide, lambda: going.answer({"messages": messages}), going.answer
            )
        except BrokerError as error:
            going.answer(error)

    queue_counts.then(counted, going.answer)
    return going.result


READS: Mapping[str, Callable[..., Any]] = {"queues.list": list_queues, "queues.show": show}
CHANGES: Mapping[str, Callable[..., Any]] = {
    "queues.purge": purge,
    "queues.repair": repair,
    "queues.delete": delete,
}
