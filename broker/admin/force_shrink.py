"""queues.force_shrink: a quorum queue goes on with its member here alone, for most are lost.

No node can say what the others have confirmed that is not here: so much is said before.  All know
it through the definition of the queue; with that the others delete what they have, whenever they
come back, and until then no node hears what they say of the queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from fluffle.broker.admin.cluster import cluster_of
from fluffle.broker.admin.context import NodeContext, PendingRow, Result, Row, Rows
from fluffle.broker.admin.members import quorum_queue, quorum_queues
from fluffle.broker.base.errors import BrokerError, PreconditionFailed
from fluffle.broker.metadata.change import Change
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.queue_api import Deferred
from fluffle.broker.vhosts.queue_changes import redefinition

if TYPE_CHECKING:
    from fluffle.broker.cluster.cluster import ClusterService
    from fluffle.broker.cluster.hosted_group import HostedGroup
    from fluffle.broker.cluster.queues.queue_queries import LogPosition
    from fluffle.raft.config import Configuration, NodeId

INCARNATIONS = 1 << 20
"""The others add fewer members until they hear of it."""


class NamedQueue(NamedTuple):
    """A queue with the name of its virtual host."""

    vhost: str
    definition: QueueDefinition

    def __str__(self) -> str:
        return f"queue '{self.definition.spec.name}' in vhost '{self.vhost}'"


def force_shrink(context: NodeContext, *, name: str, vhost: str) -> Result:
    """Give up all members of a queue but the one here; where its log ends, and which are given
    up."""
    cluster, going = cluster_of(context), PendingRow()

    def found() -> NamedQueue:
        return NamedQueue(vhost, quorum_queue(context, name, vhost))

    def decide() -> Change:
        queue = found()
        hosted = check(cluster, queue)
        return redefinition(vhost, force_single_member(cluster, queue.definition, hosted.configs))

    def answer(log_positions: Mapping[NodeId, LogPosition]) -> None:
        try:
            queue = found()
            hosted = check(cluster, queue)
            check_others(cluster, queue, hosted, log_positions)
            row = option_row(queue, hosted, cluster)
            context.metadata.change(decide, lambda: going.answer(row), going.answer)
        except BrokerError as error:
            going.answer(error)

    queue = found()
    check(cluster, queue)
    cluster.log_positions.ask(queue.definition.id, reachable(cluster, queue.definition), answer)
    return going.result


def check_force_shrink(
    context: NodeContext, *, name: str | None = None, vhost: str | None = None
) -> Rows:
    """Rows that show what forcing one queue, or all possible ones, down to the member here would
    mean; a row gives the reason if it cannot be done."""
    cluster = cluster_of(context)
    for queue in asked_for(context, name, vhost):
        try:
            hosted = check(cluster, queue)
            log_positions: dict[NodeId, LogPosition] = {}
            yield collect_lags(cluster, queue.definition, log_positions)
            check_others(cluster, queue, hosted, log_positions)
        except BrokerError as error:
            if name is not None:
                yield {"vhost": queue.vhost, "name": name, "refused": error.explanation}
        else:
            yield option_row(queue, hosted, cluster) | {"refused": ""}


def asked_for(context: NodeContext, name: str | None, vhost: str | None) -> Iterator[NamedQueue]:
    """Quorum queue of that name, or all of a virtual host, or all.  NotFound,
    PreconditionFailed."""
    if name is not None:
        yield NamedQueue(vhost or "/", quorum_queue(context, name, vhost or "/"))
        return
    for named, definition in quorum_queues(context):
        if vhost in (None, named):
            yield NamedQueue(named, definition)


def collect_lags(
    cluster: ClusterService, definition: QueueDefinition, log_positions: dict[NodeId, LogPosition]
) -> Deferred[None]:
    """To be waited for: fills in how far the others are that can be reached."""
    answered_later: Deferred[None] = Deferred()

    def answer(found: Mapping[NodeId, LogPosition]) -> None:
        log_positions.update(found)
        answered_later.answer(None)

    cluster.log_positions.ask(definition.id, reachable(cluster, definition), answer)
    return answered_later


def reachable(cluster: ClusterService, definition: QueueDefinition) -> list[NodeId]:
    """The other members that are believed to be there."""
    others = (node for node, _incarnation in definition.members if node != cluster.name)
    return [node for node in others if cluster.absent.is_alive(node)]


def option_row(queue: NamedQueue, hosted: HostedGroup, cluster: ClusterService) -> Row:
    """Row of a queue that can be forced down, for the operator's decision."""
    status, members = hosted.status, queue.definition.members
    return {
        "vhost": queue.vhost,
        "name": queue.definition.spec.name,
        "last_index": status.last,
        "commit_index": status.commit,
        "given_up": [node for node, _incarnation in members if node != cluster.name],
        "reachable": reachable(cluster, queue.definition),
    }


def check(cluster: ClusterService, queue: NamedQueue) -> HostedGroup:
    """The member here, if there is no better way.  PreconditionFailed."""
    definition, host = queue.definition, cluster.running.host
    members = dict(definition.members)
    if not has_majority(cluster, cluster.metadata_config):
        raise PreconditionFailed(
            "most nodes of the cluster are away, so that nothing can be agreed on; if they are "
            "lost for good, stop this node and use `fluffle salvage`"
        )
    if definition.id not in host or members.get(cluster.name) != incarnation_of(cluster, queue):
        raise PreconditionFailed(
            f"{queue} has no member on this node; it has on {', '.join(members)}"
        )
    hosted = host.group(definition.id)
    if len(members) == 1:
        raise PreconditionFailed(f"{queue} is on this node alone")
    if cluster.log_positions.here(definition.id) is None:
        raise PreconditionFailed(f"what this node has of {queue} is damaged, or nothing yet")
    leader, config = hosted.status.leader, hosted.status.config
    is_led = leader is not None and (leader == cluster.name or cluster.absent.is_alive(leader))
    if is_led and has_majority(cluster, config):
        raise whole(queue)
    return hosted


def whole(queue: NamedQueue) -> PreconditionFailed:
    return PreconditionFailed(
        f"most members of {queue} are there; take others away with `fluffle queues "
        "delete-member`, which loses nothing"
    )


def incarnation_of(cluster: ClusterService, queue: NamedQueue) -> int:
    return cluster.running.host.group(queue.definition.id).incarnation


def has_majority(cluster: ClusterService, config: Configuration) -> bool:
    """True if most voters are believed to be there."""
    is_alive = cluster.absent.is_alive
    here = [each for each in config.voters if each.node == cluster.name or is_alive(each.node)]
    return 2 * len(here) > len(config.voters)


def check_others(
    cluster: ClusterService,
    queue: NamedQueue,
    hosted: HostedGroup,
    log_positions: Mapping[NodeId, LogPosition],
) -> None:
    """PreconditionFailed if others can do without, or one of them has more."""
    own = cluster.log_positions.here(queue.definition.id)
    usable = [each for each in hosted.status.config.voters if each.node in log_positions]
    if 2 * (len(usable) + 1) > len(hosted.status.config.voters):
        raise whole(queue)
    better = newer(own, log_positions)
    if better is not None:
        raise PreconditionFailed(
            f"node '{better}' has more of {queue}: up to entry {log_positions[better].last}, "
            f"and this one to {own.last if own is not None else 0}; run this there"
        )


def newer(own: LogPosition | None, log_positions: Mapping[NodeId, LogPosition]) -> NodeId | None:
    """Node with the longest log, if that is longer than `own`; else None."""
    best = max(log_positions, key=lambda node: (log_positions[node], node), default=None)
    return best if best is not None and (own is None or log_positions[best] > own) else None


def force_single_member(
    cluster: ClusterService, definition: QueueDefinition, configs: list[Configuration]
) -> QueueDefinition:
    """On this node, which goes on as another member: what is said to the one that it was is old."""
    node, used = cluster.name, [number for _node, number in definition.members]
    used += [config.top_incarnation for config in configs]
    life = dict(definition.lives)[node]
    return definition._replace(
        members=((node, max(used) + INCARNATIONS),),
        lives=((node, life),),
        wanted=(node,),
        leader=node,
    )


READS: Mapping[str, Callable[..., Any]] = {"queues.check_force_shrink": check_force_shrink}
CHANGES: Mapping[str, Callable[..., Any]] = {"queues.force_shrink": force_shrink}
