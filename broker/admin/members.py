"""queues.*: on which nodes a quorum queue is, and which of them leads.

Each of these says what is wanted, and all come to know it; the leader of the queue then sees to it,
one member after the other.  Where members come or go, that is waited for, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from fluffle.broker.admin.arguments import Entries
from fluffle.broker.admin.context import DeferredRow, NodeContext, PendingRow, Result, Row, Rows
from fluffle.broker.admin.member_changes import (
    ChangeOutcome,
    Key,
    MemberChange,
    WantedChange,
    awaited,
    change_row,
    of_one,
)
from fluffle.broker.admin.queues import leader_now, may_answer, refresh_counts
from fluffle.broker.base.errors import BrokerError, NotFound, PreconditionFailed
from fluffle.broker.cluster_port import ClusterView
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.vhosts.queue_changes import redefinition
from fluffle.broker.vhosts.vhost import existing_queue

Redefine = Callable[[QueueDefinition], QueueDefinition]
"""Change of a queue's definition.  Raises `BrokerError`."""


def quorum_queues(context: NodeContext) -> Iterator[tuple[str, QueueDefinition]]:
    """All, with their virtual hosts."""
    for vhost in context.vhosts(None):
        for queue in tuple(vhost.queues.values()):
            if queue.spec.queue_type is QueueType.QUORUM:
                yield vhost.name, queue.definition


def quorum_queue(context: NodeContext, name: str, vhost: str) -> QueueDefinition:
    """NotFound, PreconditionFailed."""
    queue = existing_queue(context.vhost(vhost), name)
    if queue.spec.queue_type is not QueueType.QUORUM:
        raise PreconditionFailed(f"queue '{name}' in vhost '{vhost}' is no quorum queue")
    return queue.definition


def node_of(context: NodeContext, node: str) -> str:
    """Name under which a node is a member of queues.  NotFound."""
    member = context.cluster_view.known(node)
    if member is None:
        raise NotFound(f"there is no node '{node}'")
    return member


def former_or_node_of(
    context: NodeContext, node: str, definitions: Iterable[QueueDefinition]
) -> str:
    """Likewise; or of one that is no node any more, and is yet to be taken from these queues."""
    is_there = any(node in places_of(each) for each in definitions)
    return node if is_there else node_of(context, node)


def redefined(context: NodeContext, name: str, vhost: str, redefine: Redefine) -> Change:
    """Have something else wanted of a queue."""
    before = quorum_queue(context, name, vhost)
    after = redefine(before)
    return NOTHING if after == before else redefinition(vhost, after)


def with_member(node: str, definition: QueueDefinition) -> QueueDefinition:
    return definition._replace(wanted=tuple(sorted({*definition.wanted, node})))


def without_member(node: str, definition: QueueDefinition) -> QueueDefinition:
    """PreconditionFailed for the last one: the messages would be gone."""
    wanted = tuple(each for each in definition.wanted if each != node)
    if not wanted:
        raise PreconditionFailed(
            f"'{node}' has the only member of queue '{definition.spec.name}'; delete the queue, or "
            "add another member first"
        )
    return definition._replace(wanted=wanted)


def led_by(node: str, definition: QueueDefinition) -> QueueDefinition:
    """PreconditionFailed for a node that is no member."""
    if node not in dict(definition.members):
        raise PreconditionFailed(
            f"node '{node}' has no member of queue '{definition.spec.name}'; add one first"
        )
    return definition._replace(leader=node)


def members(context: NodeContext, *, name: str, vhost: str) -> Rows:
    """Rows of the members of one queue, once its leader has confirmed that it leads, if it has one.

    A node that was forgotten is among them as long as it is a member.
    """
    queue = existing_queue(context.vhost(vhost), name)
    quorum_queue(context, name, vhost)
    yield from refresh_counts(may_answer(context.cluster_view, [queue]))
    cluster_view, definition = context.cluster_view, queue.definition
    leader = leader_now(cluster_view, definition)
    known = {
        each
        for each in definition.wanted
        if cluster_view.known(cluster_view.shown(each)) is not None
    }
    for node in sorted({*dict(definition.members), *known}):
        yield {
            "node": cluster_view.shown(node),
            "role": role_of(node, leader, definition),
            "wanted": node in known,
            "running": cluster_view.is_alive(node),
        }


def role_of(node: str, leader: str, definition: QueueDefinition) -> str:
    if node not in dict(definition.members):
        return "none"
    return "leader" if node == leader else "follower"


def add_member(context: NodeContext, *, name: str, vhost: str, node: str) -> Result:
    """Have a queue on one node more, where its member votes when this returns."""
    member = node_of(context, node)
    change = MemberChange(context, node, member, is_added=True)
    return one_changed(change, (vhost, name), partial(with_member, member))


def delete_member(context: NodeContext, *, name: str, vhost: str, node: str) -> Result:
    """Have a queue on one node less, which it does not need any more when this returns."""
    member = former_or_node_of(context, node, [quorum_queue(context, name, vhost)])
    change = MemberChange(context, node, member, is_added=False)
    return one_changed(change, (vhost, name), partial(without_member, member))


def one_changed(change: MemberChange, key: Key, redefine: Redefine) -> Result:
    """Have something else wanted of one queue, and wait until it is so."""
    context, (vhost, name) = change.context, key
    wanted = WantedChange(key, quorum_queue(context, name, vhost).id)
    changing = context.change(lambda: redefined(context, name, vhost, redefine))
    return of_one(changing, lambda: change.settled([wanted]), context)


def transfer(context: NodeContext, *, name: str, vhost: str, node: str) -> Result:
    """Have another member lead."""
    member = node_of(context, node)
    definition = quorum_queue(context, name, vhost)
    led_by(member, definition)
    return for_each(context, [((vhost, name), step) for step in lead_steps(member, definition)])


def lead_steps(node: str, definition: QueueDefinition) -> list[Redefine]:
    """Changes of the definition, in order, that make the member on `node` lead.

    If that was said already another has come to lead since, and only what is new is heeded.
    """
    is_new = definition.leader != node
    return [partial(led_by, node)] if is_new else [without_leader, partial(led_by, node)]


def without_leader(definition: QueueDefinition) -> QueueDefinition:
    return definition._replace(leader="")


def grow(context: NodeContext, *, node: str, queues: Entries | None = None) -> Rows:
    """Have all quorum queues on one node more, or some: a row for each, once its member there
    votes."""
    member = node_of(context, node)
    change = MemberChange(context, node, member, is_added=True)
    yield from changed(change, asked_for(context, queues), partial(with_member, member))


def shrink(context: NodeContext, *, node: str, queues: Entries | None = None) -> Rows:
    """Have all quorum queues on one node less, or some: a row for each, once it does not need that
    node any more.  Those stay that are nowhere else."""
    meant = list(asked_for(context, queues))
    member = former_or_node_of(context, node, (each for _vhost, each in meant))
    there = [(vhost, each) for vhost, each in meant if member in places_of(each)]
    change = MemberChange(context, node, member, is_added=False)
    yield from changed(change, there, partial(without_member, member))


def asked_for(
    context: NodeContext, queues: Entries | None
) -> Iterator[tuple[str, QueueDefinition]]:
    """All quorum queues, or those with the `vhost` and the `name` of an entry; what is not there is
    left out."""
    meant = {(str(each.get("vhost")), str(each.get("name"))) for each in queues or ()}
    for vhost, definition in quorum_queues(context):
        if queues is None or (vhost, definition.spec.name) in meant:
            yield vhost, definition


def places_of(definition: QueueDefinition) -> set[str]:
    """Where a queue has a member, or is to have one."""
    return {*dict(definition.members), *definition.wanted}


def changed(
    change: MemberChange, queues: Iterable[tuple[str, QueueDefinition]], redefine: Redefine
) -> Rows:
    """Have something else wanted of each of these queues, and wait until it is so."""
    steps: list[tuple[Key, Redefine]] = []
    wanted: list[WantedChange] = []
    for vhost, each in queues:
        key = vhost, each.spec.name
        try:
            is_asked = redefine(each) != each
        except PreconditionFailed as refused:
            yield change_row(key, each, ChangeOutcome.REFUSED, refused.explanation)
            continue
        wanted.append(WantedChange(key, each.id, is_asked))
        if is_asked:
            steps.append((key, redefine))
    redefinitions = Redefinitions(change.context, steps)
    yield from awaited(redefinitions.begin(), change.context)
    why = redefinitions.refused
    yield from change.refused((queue, why[queue.key]) for queue in wanted if queue.key in why)
    yield from change.settled(queue for queue in wanted if queue.key not in why)


def rebalance(context: NodeContext) -> Result:
    """Have each node lead as many queues as the others, as far as can be; how many change hands."""
    from fluffle.broker.cluster.queues.placement import balance  # noqa: PLC0415  rarely used

    cluster_view = context.cluster_view
    known = {
        definition.id: (vhost, definition, cluster_view.leader_of(definition.id))
        for vhost, definition in quorum_queues(context)
    }
    leaders = {queue: leader for queue, (_, _, leader) in known.items() if leader}
    may_lead = {
        queue: [node for node in dict(known[queue][1].members) if may_have_more(cluster_view, node)]
        for queue in leaders
    }
    moves = balance(leaders, may_lead)
    steps: list[tuple[Key, Redefine]] = []
    for queue, node in moves.items():
        vhost, definition, _leader = known[queue]
        key = vhost, definition.spec.name
        steps += ((key, step) for step in lead_steps(node, definition))
    return for_each(context, steps)


def may_have_more(cluster_view: ClusterView, node: str) -> bool:
    """True if a node is there, and not set aside."""
    is_aside = cluster_view.cluster is not None and cluster_view.cluster.room.is_set_aside(node)
    return cluster_view.is_alive(node) and not is_aside


def for_each(context: NodeContext, steps: Sequence[tuple[Key, Redefine]]) -> Row | DeferredRow:
    """Change many queues, each in its own way; returns how many queues there were."""
    return Redefinitions(context, steps).begin()


class Redefinitions:
    """Changes of many queues, one step after the other.

    What was deleted meanwhile is left out, and so is what has become another queue, or has no
    member more to lose: the rest goes on.
    """

    def __init__(self, context: NodeContext, steps: Sequence[tuple[Key, Redefine]]) -> None:
        self._parts = context
        self._rest = deque(steps)
        self._going = PendingRow()
        self._done_to: set[Key] = set()
        self.refused: dict[Key, BrokerError] = {}
        """Queues that stay as they are, and why."""

    def begin(self) -> Row | DeferredRow:
        """How many queues were redefined, once all steps have been taken."""
        self._go_on()
        return self._going.result

    def _go_on(self) -> None:
        while self._rest:
            if not self._step(*self._rest.popleft()):
                return
        self._going.answer({"queues": len(self._done_to)})

    def _step(self, key: Key, redefine: Redefine) -> bool:
        """True if it has come true at once, as on a node that is alone; else it goes on by itself,
        unless it was refused."""
        is_done = is_late = False

        def done() -> None:
            nonlocal is_done
            is_done = True
            if is_late:
                self._go_on()

        def succeeded() -> None:
            self._done_to.add(key)
            done()

        def failed(error: BrokerError) -> None:
            if not isinstance(error, NotFound | PreconditionFailed):
                self._going.answer(error)
                return
            self.refused[key] = error
            done()

        vhost, name = key
        decide = partial(redefined, self._parts, name, vhost, redefine)
        try:
            self._parts.metadata.change(decide, succeeded, failed)
        except BrokerError as refused:
            failed(refused)
        is_late = True
        return is_done


READS: Mapping[str, Callable[..., Any]] = {"queues.members": members}
CHANGES: Mapping[str, Callable[..., Any]] = {
    "queues.add_member": add_member,
    "queues.delete_member": delete_member,
    "queues.transfer": transfer,
    "queues.grow": grow,
    "queues.shrink": shrink,
    "queues.rebalance": rebalance,
}
