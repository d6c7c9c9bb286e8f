"""queues.voters: who votes in quorum queues, as the members know that are there.

    -> {"verb": "queues.voters", "arguments": {"groups": [7, 8]}}
    <- {"rows": [{"group": 7, "member": ["a", 1], "commit": 12, "voters": [[["a", 1], ["b", 1]]]}],
        "more": false}

`voters` are those of each configuration that may be in force: the last that is known to be
committed, and all behind it.  A definition names learners, too, so votes are not counted by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fluffle.broker.admin.all_nodes import rows as rows_everywhere
from fluffle.broker.admin.context import NodeContext, Row, Rows, RowWait
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.queue_api import Deferred
from fluffle.raft.config import Member
from fluffle.raft.quorum import majority_of


class ReplicaVote(NamedTuple):
    """Report of one member of a quorum queue about the voters of its group."""

    member: Member
    """The node, in which incarnation of its membership."""
    commit: int
    configs: Sequence[frozenset[Member]]
    """The voters by each configuration that may be in force, the committed one first."""


def list_voters(context: NodeContext, *, groups: list[int]) -> Rows:
    """A row for each of these queues, by the numbers of their groups, that has its member here."""
    here, cluster = context.company.groups, context.cluster
    for group in groups if cluster is not None else ():
        hosted = here.get(group)
        if hosted is not None:
            yield {
                "group": group,
                "member": Member(context.config.node_name, hosted.incarnation),
                "commit": hosted.status.commit,
                "voters": [config.voters for config in hosted.configs],
            }


@dataclass(frozen=True, slots=True)
class VoteReports:
    """Reports of the nodes that were asked who votes."""

    replicas: dict[int, list[ReplicaVote]] = field(default_factory=dict)
    """Replicas that have answered, by the number of their group."""
    silent: dict[str, str] = field(default_factory=dict)
    """Nodes that have not answered, and why."""


def collect_votes(
    context: NodeContext, groups: Iterable[int], reports: VoteReports, node: str | None = None
) -> RowWait[None]:
    """Hear all nodes, or one of them: each is asked once, and answers in a bounded time."""
    arguments = {"groups": list(groups)}
    for answer in rows_everywhere(context, what="queues.voters", arguments=arguments, node=node):
        if isinstance(answer, Deferred):
            yield answer
        elif "row" in answer:
            row = answer["row"]
            reports.replicas.setdefault(row["group"], []).append(replica_vote(row))
        else:
            reports.silent[answer["node"]] = answer.get("silent") or answer["error"]["text"]


def replica_vote(row: Row) -> ReplicaVote:
    """The other way round than `list_voters`."""
    configs = [frozenset(Member(*voter) for voter in voters) for voters in row["voters"]]
    return ReplicaVote(Member(*row["member"]), row["commit"], configs)


def has_vote(definition: QueueDefinition, replica: ReplicaVote) -> bool:
    """Whether the member that all know of on a node has one: that is committed, as that node knows.

    An earlier incarnation of a member, which its node has yet to delete, says nothing of the next.
    """
    return replica.member in replica.configs[0] and replica.member in definition.members


def needs(node: str, definition: QueueDefinition, replicas: Iterable[ReplicaVote]) -> bool:
    """Whether too few voters of a quorum queue are there to agree on anything without that node.

    Those are there that have answered, but for earlier incarnations of members.
    """
    there = {each.member: each for each in replicas if each.member in definition.members}
    if not there:
        return True
    latest = max(there.values(), key=lambda replica: replica.commit)
    in_force = [latest.configs[0], *(late for each in there.values() for late in each.configs[1:])]
    return any(is_majority_lost(node, voters, there) for voters in in_force)


def is_majority_lost(node: str, voters: Iterable[Member], there: Iterable[Member]) -> bool:
    """Whether a node that votes is one of those without whom the others are no majority."""
    all_voters = set(voters)
    others = {voter for voter in all_voters.intersection(there) if voter.node != node}
    is_voter = any(voter.node == node for voter in all_voters)
    return is_voter and len(others) < majority_of(len(all_voters))


READS: Mapping[str, Callable[..., Any]] = {"queues.voters": list_voters}
