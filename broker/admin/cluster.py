"""cluster.*: which nodes there are, which is let in, and which is forgotten."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from fluffle.broker.admin.context import NodeContext, PendingRow, Result, Row, Rows, RowWait
from fluffle.broker.admin.member_changes import VoteReports, collect_votes, needs, run
from fluffle.broker.admin.members import quorum_queues
from fluffle.broker.base.errors import BrokerError, NotFound, PreconditionFailed
from fluffle.broker.cluster.queues.placement import ID_BITS
from fluffle.broker.config.option_values import parse_name, parse_peer_address
from fluffle.broker.definitions.ended_queues import (
    count_on,
    is_on_alone,
    is_orphan_of,
    queues_on,
    remove_ended,
)
from fluffle.broker.metadata.change import Change
from fluffle.broker.metadata.nodes import Nodes, RegisteredNode, admit, dismiss
from fluffle.broker.queues.journal import QueueDefinition

if TYPE_CHECKING:
    from fluffle.broker.cluster.cluster import ClusterService


NEEDED_SHOWN_MAX = 10
"""Queues that are named of those that need a node."""


def cluster_of(context: NodeContext) -> ClusterService:
    """PreconditionFailed where a node is alone."""
    cluster = context.cluster
    if cluster is None:
        raise PreconditionFailed(
            "this node is alone; a node of a cluster is started with --peers and a secret"
        )
    return cluster


def joined_cluster(context: NodeContext) -> ClusterService:
    """PreconditionFailed where a node does not know yet what all know."""
    cluster = cluster_of(context)
    if not cluster.join.is_over:
        raise PreconditionFailed(
            "this node is not one of the cluster yet; ask one that takes clients"
        )
    return cluster


def status(context: NodeContext) -> Rows:
    """The nodes, as this one sees them."""
    cluster = cluster_of(context)
    config = cluster.metadata_config
    voters = {member.node for member in config.voters}
    learners = {member.node for member in config.learners}
    for node, registered in sorted(context.catalogue.nodes.entries.items()):
        role = "learner" if node in learners else "none"
        if node in voters:
            role = "leader" if node == cluster.leader else "follower"
        yield node_row(cluster, node, registered) | {"role": role}


def node_row(cluster: ClusterService, node: str, registered: RegisteredNode) -> Row:
    is_here = node == cluster.name
    hindrance = cluster.links.split if is_here else cluster.links.hindrance(node)
    return {
        "node": node,
        "address": str(registered.address),
        "state": state_of(cluster, node, registered),
        "boot": registered.boot,
        "link": is_here or cluster.links.is_up(node),
        "hindrance": hindrance and hindrance.reason,
        "maintenance": cluster.room.is_set_aside(node),
        "clock_ahead_ms": cluster.common_time.ahead_ms().get(node),
    }


def state_of(cluster: ClusterService, node: str, registered: RegisteredNode) -> str:
    """In a word."""
    if node == cluster.name or cluster.absent.is_alive(node):
        return "running" if registered.boot else "joining"
    if not registered.boot:
        return "awaited"
    return "stopped" if cluster.absent.is_dead(node) else "unreachable"


def add(context: NodeContext, *, name: str, address: str) -> Result:
    """Let a node in, which is then to be started."""
    from fluffle.broker.cluster.links.identity import check_name  # noqa: PLC0415  of clusters alone

    cluster = joined_cluster(context)
    try:
        parse_name(name)
        check_name(name)
        listening = parse_peer_address(address)
    except ValueError as error:
        raise PreconditionFailed(f"cannot use '{name}={address}': {error}") from error
    drawn = secrets.randbits(ID_BITS) or 1

    def decide() -> Change:
        if name not in context.catalogue.nodes.entries:
            check_left(cluster, name)
        return admit(context.catalogue.nodes.entries, name, listening, drawn)

    return context.change(decide)


def check_left(cluster: ClusterService, name: str) -> None:
    """PreconditionFailed while anything counts on what a former node of this name knew."""
    if cluster.has_left_over(name):
        raise PreconditionFailed(
            f"what is left of a former node '{name}' is still being removed; try again"
        )


def forget(context: NodeContext, *, name: str) -> Result:
    """Remove a node that is gone for good, with the queues that were on it alone.

    It is gone if no other node sees it: each that can be asked has a say.  As long as a queue that
    is on others, too, can agree on nothing without it, it stays.  The other one of two goes while
    it runs, and ends.
    """
    cluster, going = joined_cluster(context), PendingRow()
    nodes = context.catalogue.nodes.entries
    known = check_may_go(cluster, nodes, name)
    reports = VoteReports()
    asked = [node for node in nodes if node != name and cluster.absent.is_alive(node)]

    def decide() -> Change:
        if check_may_go(cluster, nodes, name) != known:
            raise PreconditionFailed(f"node '{name}' was started meanwhile; stop it first")
        check_unneeded(context, name, reports)
        return dismiss(nodes, name)

    def on_sightings(sights: Mapping[str, frozenset[str]]) -> None:
        others = nodes.keys() - {cluster.name}
        try:
            check_unseen(name, asked, {node: seen & others for node, seen in sights.items()})
        except BrokerError as error:
            going.answer(error)
        else:
            run(collect_voters(context, name, reports), voters_known)

    def voters_known(outcome: Row | BrokerError) -> None:
        if isinstance(outcome, BrokerError):
            going.answer(outcome)
            return
        lost = count_on(context.catalogue, name)
        try:
            context.metadata.change(decide, partial(done, lost), going.answer)
        except BrokerError as error:
            going.answer(error)

    def done(lost: int) -> None:
        is_its = partial(is_orphan_of, context.catalogue, name)
        answer = partial(going.answer, {"queues": lost})
        removed = partial(cluster.membership.when_left, name, answer)
        remove_ended(context.catalogue, context.metadata, is_its, removed)

    cluster.peer_views.ask(asked, on_sightings)
    return going.result


def check_forget(context: NodeContext, *, name: str) -> Rows:
    """The queues that would go with a node, as they are on it alone."""
    check_may_go(joined_cluster(context), context.catalogue.nodes.entries, name)
    for vhost, queue in queues_on(context.catalogue, name):
        spec = queue.spec
        yield {"vhost": vhost, "name": spec.name, "type": spec.queue_type.shown}


def check_may_go(cluster: ClusterService, nodes: Nodes, name: str) -> RegisteredNode:
    """A node that does not run, as far as this one knows, or the other one of two, drained.

    NotFound, PreconditionFailed.
    """
    if name not in nodes:
        raise NotFound(f"there is no node '{name}' in the cluster")
    if name == cluster.name:
        raise PreconditionFailed(f"'{name}' is this node; stop it, and have another one forget it")
    if {voter.node for voter in cluster.metadata_config.voters} == {cluster.name, name}:
        check_other_of_two(cluster, name)
    elif cluster.absent.is_alive(name):
        raise PreconditionFailed(f"node '{name}' runs; stop it first")
    return nodes[name]


def check_other_of_two(cluster: ClusterService, name: str) -> None:
    """PreconditionFailed unless this node and that one can agree that it goes: both have to run.

    This one leads, so that it goes on alone, without a vote, as soon as that is agreed.
    """
    if not cluster.absent.is_alive(name):
        raise PreconditionFailed(
            f"start node '{name}', and then `fluffle queues shrink {name}`, `fluffle node drain` "
            "there, and this again: of two nodes both have to run to agree that one goes; if its "
            "disk is lost, stop this node, `fluffle salvage` it, start it, and forget the other "
            "then"
        )
    if not cluster.room.is_set_aside(name):
        raise PreconditionFailed(
            f"node '{name}' is one of two, and goes while it runs: `fluffle queues shrink {name}`, "
            "`fluffle node drain` there, then this again; it ends by itself"
        )
    if cluster.leader != cluster.name:
        raise PreconditionFailed(f"node '{cluster.name}' does not lead the definitions; try again")


def shared_with(context: NodeContext, name: str) -> Iterator[tuple[str, QueueDefinition]]:
    """Quorum queues with a member on that node, and on others, too; with their virtual hosts."""
    for vhost, definition in quorum_queues(context):
        is_there = name in dict(definition.members)
        if is_there and not is_on_alone(context.catalogue, name, definition):
            yield vhost, definition


def collect_voters(context: NodeContext, name: str, reports: VoteReports) -> RowWait[None]:
    """Have the nodes say which members vote in these queues."""
    groups = [definition.id for _vhost, definition in shared_with(context, name)]
    if groups:
        yield from collect_votes(context, groups, reports)


def check_unneeded(context: NodeContext, name: str, reports: VoteReports) -> None:
    """PreconditionFailed if a queue would never have a majority again without that node, for all
    that the nodes say that there are."""
    needed: list[str] = []
    for vhost, definition in shared_with(context, name):
        if needs(name, definition, reports.replicas.get(definition.id, ())):
            queue = f"queue '{definition.spec.name}' in vhost '{vhost}'"
            check_reported(context, queue, definition, reports)
            needed.append(queue)
    if needed:
        shown, more = ", ".join(needed[:NEEDED_SHOWN_MAX]), len(needed) - NEEDED_SHOWN_MAX
        others = f" and {more} more" if more > 0 else ""
        raise PreconditionFailed(
            f"without node '{name}' too few members are there of {shown}{others} to agree on "
            f"anything; start it, or another of their nodes, and wait for `queues shrink {name}`; "
            "if that cannot be, `queues force-shrink` or `queues delete` them before"
        )


def check_reported(
    context: NodeContext, queue: str, definition: QueueDefinition, reports: VoteReports
) -> None:
    """PreconditionFailed if a node that runs has not said whether it votes there."""
    for node, _incarnation in definition.members:
        if node in reports.silent and context.cluster_view.is_alive(node):
            raise PreconditionFailed(
                f"node '{node}' does not say whether it votes in {queue} ({reports.silent[node]}); "
                "try again"
            )


def check_unseen(name: str, asked: Collection[str], sights: Mapping[str, Collection[str]]) -> None:
    """PreconditionFailed if one of the others sees a node, or may.

    `sights`: the nodes that each of those that were asked sees, but for the one that has asked.
    """
    for node in asked:
        if node not in sights:
            raise PreconditionFailed(
                f"node '{node}' does not say whether it sees '{name}'; try again"
            )
        if name in sights[node]:
            raise PreconditionFailed(f"node '{name}' runs, and '{node}' sees it; stop it first")
        for other in sights[node]:
            if other not in asked:
                raise PreconditionFailed(
                    f"there is no link to node '{other}', which '{node}' sees and which may see "
                    f"'{name}'; run this on '{node}'"
                )


READS: Mapping[str, Callable[..., Any]] = {
    "cluster.status": status,
    "cluster.check_forget": check_forget,
}
CHANGES: Mapping[str, Callable[..., Any]] = {"cluster.add": add, "cluster.forget": forget}
