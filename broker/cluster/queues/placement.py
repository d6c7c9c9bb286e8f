"""Placement of quorum queues: which nodes have a member and which leads first; decided here alone.

Nothing is known but what is given: nodes by name, and how much each has to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

from fluffle.raft.config import NodeId
from fluffle.raft.election import campaign_rank
from fluffle.raft.log import GroupId

ID_BITS = 63
"""Bits of an id, as in every log and on every wire."""

FIRST_ID = 2
"""The group of the definitions has a lower one."""


COUNTED_MAX = 1_000
"""Number of queues from which leaders are drawn at random instead of counted: chance balances,
too.  As RabbitMQ."""


class LeaderLocator(StrEnum):
    """The rule that picks the leader of a new queue: `x-queue-leader-locator`."""

    CLIENT_LOCAL = "client-local"
    """The node on which it is declared."""
    BALANCED = "balanced"
    """Node that leads the fewest."""

    @classmethod
    def of(cls, said: str) -> LeaderLocator:
        """With what RabbitMQ has called it earlier."""
        return cls.CLIENT_LOCAL if said == cls.CLIENT_LOCAL else cls.BALANCED


def choose_members(
    nodes: Sequence[NodeId], own: NodeId, size: int, loads: Mapping[NodeId, int]
) -> tuple[NodeId, ...]:
    """The members of a new queue, by name: `own` if it can be one, then those with least to do.

    `nodes` are those that can take members; at least one.  No more than there are.
    """
    by_load = sorted(nodes, key=lambda node: (node != own, loads.get(node, 0), node))
    return tuple(sorted(by_load[:size]))


def choose_leader(
    members: Sequence[NodeId], own: NodeId, locator: LeaderLocator, leads: Mapping[NodeId, int]
) -> NodeId:
    """Member that leads first; `leads` says how many queues each leads."""
    if locator is LeaderLocator.CLIENT_LOCAL and own in members:
        return own
    return min(members, key=lambda node: (leads.get(node, 0), node != own, node))


def draw_leader(draw_bits: Callable[[int], int], members: Sequence[NodeId]) -> NodeId:
    """Any of them."""
    return members[draw_bits(ID_BITS) % len(members)]


def draw_id(draw_bits: Callable[[int], int], leader: NodeId, members: Sequence[NodeId]) -> GroupId:
    """An id by which `leader` is the first of the members to stand for its group.

    So no other node comes before it, and it leads again after all have been away.
    """
    while True:
        drawn = draw_bits(ID_BITS)
        if drawn >= FIRST_ID and campaign_rank(leader, drawn, list(members)) == 0:
            return drawn  # mutant: M34


def first_leader(group: GroupId, founders: Sequence[NodeId]) -> NodeId:
    """First leader, as encoded by `draw_id`: known to all founders, whatever leads later."""
    return next(node for node in founders if campaign_rank(node, group, list(founders)) == 0)


def choose_added(
    members: Sequence[NodeId], nodes: Sequence[NodeId], loads: Mapping[NodeId, int]
) -> NodeId | None:
    """The node that a queue grows onto next; None if it is everywhere."""
    others = [node for node in nodes if node not in members]
    return min(others, key=lambda node: (loads.get(node, 0), node), default=None)


def choose_grown(
    members: Sequence[NodeId], nodes: Sequence[NodeId], size: int, loads: Mapping[NodeId, int]
) -> tuple[NodeId, ...]:
    """The members of a queue that is to have `size`, by name, as far as there are `nodes`.

    As RabbitMQ, an odd number does not become even if that is all: one more would have to agree,
    and no more could be missing.
    """
    grown = list(members)
    others = len(set(nodes) - set(members))
    while len(grown) < size and (others > 1 or (others and not len(grown) % 2)):
        added = choose_added(grown, nodes, loads)
        assert added is not None
        grown.append(added)
        others -= 1
    return tuple(sorted(grown))


def balance(
    leaders: Mapping[GroupId, NodeId], members: Mapping[GroupId, Sequence[NodeId]]
) -> dict[GroupId, NodeId]:
    """Moves of leaders, queue by queue, so that no two nodes differ by more than needed.

    `members`: the nodes that may lead each queue.  Moves one queue at a time from a node that leads
    more to one that leads less by two or more, until there is none.
    """
    leads: dict[NodeId, set[GroupId]] = {}
    for queue, may_lead in members.items():
        for node in may_lead:
            leads.setdefault(node, set())
        leads.setdefault(leaders[queue], set()).add(queue)
    moved: dict[GroupId, NodeId] = {}
    while (move := _next_move(leads, members)) is not None:
        queue, source, target = move
        leads[source].discard(queue)
        leads[target].add(queue)
        moved[queue] = target
    return {queue: node for queue, node in moved.items() if leaders[queue] != node}


def _next_move(
    leads: Mapping[NodeId, set[GroupId]], members: Mapping[GroupId, Sequence[NodeId]]
) -> tuple[GroupId, NodeId, NodeId] | None:
    """Queue, former leader, next leader."""
    by_count = sorted(leads, key=lambda node: (-len(leads[node]), node))
    for source in by_count:
        for target in reversed(by_count):
            if len(leads[source]) - len(leads[target]) < 2:
                break
            movable = (queue for queue in sorted(leads[source]) if target in members[queue])
            if (queue := next(movable, None)) is not None:
                return queue, source, target
    return None
