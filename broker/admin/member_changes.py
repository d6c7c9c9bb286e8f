"""Votes of the members of quorum queues, and changes of members until their groups have agreed.

    a member less: its group has committed that, and all know it
    a member more: likewise, and that member has caught up and votes

An operator who stops a node after that counts on it: before, a queue may need that very node.  What
is waited for goes on by itself, though the caller may have gone.

    -> {"verb": "queues.voters", "arguments": {"groups": [7, 8]}}
    <- {"rows": [{"group": 7, "member": ["a", 1], "commit": 12, "voters": [[["a", 1], ["b", 1]]]}],
        "more": false}

`voters` are those of each configuration that may be in force: the last that is known to be
committed, and all behind it.  A definition names learners, too, so votes are not counted by it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from fluffle.broker.admin.all_nodes import rows as rows_everywhere
from fluffle.broker.admin.context import DeferredRow, NodeContext, Row, Rows, RowWait
from fluffle.broker.admin.move import soon_after
from fluffle.broker.admin.queues import UNLED, state_of
from fluffle.broker.base.errors import BrokerError, PreconditionFailed
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.queue_api import Deferred, QueueHandle
from fluffle.broker.runtime.background import in_pieces
from fluffle.raft.config import Member, majority_of

Key: TypeAlias = tuple[str, str]
"""Virtual host and name."""

POLL_INTERVAL_S = 0.1
"""Between two looks at what is under way."""

GIVE_UP_MS = 15_000
"""The limit for a wait in which nothing comes to an end: less than the management API has for an
answer."""

QUEUES_PER_TURN = 500
"""Queues that are looked at in one turn, and asked for in one question."""


class ReplicaVote(NamedTuple):
    """Report of one member of a quorum queue about the voters of its group."""

    member: Member
    """The node, in which incarnation of its membership."""
    commit: int
    configs: Sequence[frozenset[Member]]
    """The voters by each configuration that may be in force, the committed one first."""


def list_voters(context: NodeContext, *, groups: list[int]) -> Rows:
    """A row for each of these queues, by the numbers of their groups, that has its member here."""
    here, cluster = context.cluster_view.groups, context.cluster
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
    """Reports of the nodes that were asked which members vote."""

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
    """True if the member that all know of on a node has one: that is committed, as that node knows.

    An earlier incarnation of a member, which its node has yet to delete, says nothing of the next.
    """
    return replica.member in replica.configs[0] and replica.member in definition.members


def needs(node: str, definition: QueueDefinition, replicas: Iterable[ReplicaVote]) -> bool:
    """True if too few voters of a quorum queue are there to agree on anything without that node.

    Those are there that have answered, but for earlier incarnations of members.
    """
    there = {each.member: each for each in replicas if each.member in definition.members}
    if not there:
        return True
    latest = max(there.values(), key=lambda replica: replica.commit)
    in_force = [latest.configs[0], *(late for each in there.values() for late in each.configs[1:])]
    return any(is_majority_lost(node, voters, there) for voters in in_force)


def is_majority_lost(node: str, voters: Iterable[Member], there: Iterable[Member]) -> bool:
    """True if a node that votes is one of those without which the others are no majority."""
    all_voters = set(voters)
    others = {voter for voter in all_voters.intersection(there) if voter.node != node}
    is_voter = any(voter.node == node for voter in all_voters)
    return is_voter and len(others) < majority_of(len(all_voters))


class ChangeOutcome(Enum):
    """The outcome of a change of one queue."""

    CHANGED = "changed"
    UNCHANGED = "unchanged"
    """The members had been so before."""
    UNDER_WAY = "under_way"
    """The members are not so yet."""
    REFUSED = "refused"
    """The queue is nowhere else, and stays."""
    SUPERSEDED = "superseded"
    """The members are not so, and will not be: the contrary has been asked for since."""


class WantedChange(NamedTuple):
    """A queue whose members are to change."""

    key: Key
    id: int
    """Another one that has its name by then is none of it."""
    is_asked: bool = True
    """True if this request has changed it; False if it was so, or under way."""


ChangeResult: TypeAlias = tuple[ChangeOutcome, str]
"""The outcome for one queue, and why it has not changed."""

DescribeResult: TypeAlias = Callable[[WantedChange, QueueHandle], ChangeResult]


@dataclass(frozen=True, slots=True)
class MemberChange:
    """A change by which one node gets, or loses, a member of some queues."""

    context: NodeContext
    node: str
    """The name that people use."""
    member: str
    """The name that queues use."""
    is_added: bool

    def settled(self, queues: Iterable[WantedChange]) -> Rows:
        """A row for each queue once its group has agreed, and for each that has not in time; none
        for what was deleted meanwhile."""
        waiting = dict.fromkeys(queues)
        now_ms = self.context.runtime.clock.now_ms
        progress_ms = now_ms()
        while True:
            before = len(waiting)
            for piece in in_pieces(tuple(waiting), QUEUES_PER_TURN):
                ended = yield from self._ended(piece)
                vain = [queue for queue in piece if queue not in ended and not self._wants(queue)]
                for queue in (*ended, *vain):
                    del waiting[queue]
                yield from self._rows(ended, self._outcome)
                yield from self._rows(vain, self._superseded)
            if len(waiting) < before:
                progress_ms = now_ms()
            if not waiting or self._is_futile or now_ms() - progress_ms >= GIVE_UP_MS:
                break
            yield soon_after(self.context.runtime.clients_call_later, POLL_INTERVAL_S)
        yield from self._rows(waiting, self._under_way)

    def refused(self, queues: Iterable[tuple[WantedChange, BrokerError]]) -> Iterator[Row]:
        """A row for each queue that stays as it is; none for what was deleted meanwhile."""
        for queue, error in queues:
            yield from self._rows([queue], partial(refusal, error))

    def _rows(self, queues: Iterable[WantedChange], describe: DescribeResult) -> Iterator[Row]:
        """The outcome of each; nothing of what was deleted."""
        for queue in queues:
            if (served := self._found(queue)) is not None:
                outcome, error = describe(queue, served)
                yield change_row(queue.key, served.definition, outcome, error)

    def _found(self, queue: WantedChange) -> QueueHandle | None:
        vhost, name = queue.key
        host = self.context.catalogue.vhosts.get(vhost)
        served = host.queues.get(name) if host is not None else None
        return served if served is not None and served.definition.id == queue.id else None

    @property
    def _is_futile(self) -> bool:
        """True if nothing comes of it for now: a node that is not there is not added."""
        return self.is_added and not self.context.cluster_view.is_alive(self.member)

    def _wants(self, queue: WantedChange) -> bool:
        """True if the queue is still to be so: what comes of it follows what is wanted."""
        served = self._found(queue)
        return served is None or (self.member in served.definition.wanted) is self.is_added

    def _ended(self, queues: Sequence[WantedChange]) -> RowWait[Sequence[WantedChange]]:
        """Queues whose change has come true, and queues that were deleted."""
        as_known = [queue for queue in queues if self._is_known(queue)]
        if self.is_added and as_known:
            voting = yield from self._voting(as_known)
            as_known = [queue for queue in as_known if queue.id in voting]
        return [*as_known, *(queue for queue in queues if self._found(queue) is None)]

    def _is_known(self, queue: WantedChange) -> bool:
        """True if what all know of a queue says so: that follows what its group has committed."""
        served = self._found(queue)
        if served is None:
            return False
        return (self.member in dict(served.definition.members)) is self.is_added

    def _voting(self, queues: Sequence[WantedChange]) -> RowWait[Collection[int]]:
        """Groups whose member on that node votes, as the node says."""
        if self.context.cluster is None:
            return {queue.id for queue in queues}
        groups = [queue.id for queue in queues]
        reports = VoteReports()
        yield from collect_votes(self.context, groups, reports, self.node)
        definitions = {
            queue.id: served.definition
            for queue in queues
            if (served := self._found(queue)) is not None
        }
        return {
            group
            for group, replicas in reports.replicas.items()
            if group in definitions
            and any(has_vote(definitions[group], replica) for replica in replicas)
        }

    def _outcome(self, queue: WantedChange, _served: QueueHandle) -> ChangeResult:
        return ChangeOutcome.CHANGED if queue.is_asked else ChangeOutcome.UNCHANGED, ""

    def _superseded(self, _queue: WantedChange, _served: QueueHandle) -> ChangeResult:
        what = "gets no member" if self.is_added else "keeps its member"
        why = f"{what} on '{self.node}': the contrary has been asked for since"
        return ChangeOutcome.SUPERSEDED, why

    def _under_way(self, queue: WantedChange, served: QueueHandle) -> ChangeResult:
        """The changes under way, and whether anything has to be done for it."""
        if not self.is_added:
            what = f"still has its member on '{self.node}'"
        elif self._is_known(queue):
            what = f"still copies its messages to '{self.node}', where its member has no vote yet"
        else:
            what = f"has no member on '{self.node}' yet"
        if self._is_futile:
            why = f"{what}: that node does not run, and gets one once it does"
        elif state_of(self.context.cluster_view, served) in UNLED:
            why = f"{what}: too few of its members can be reached to agree on that"
        else:
            why = f"{what}; it goes on by itself"
        return ChangeOutcome.UNDER_WAY, why


def refusal(error: BrokerError, _queue: WantedChange, _served: QueueHandle) -> ChangeResult:
    return ChangeOutcome.REFUSED, error.explanation


def change_row(key: Key, definition: QueueDefinition, outcome: ChangeOutcome, error: str) -> Row:
    vhost, name = key
    size = len(definition.members)
    return {"vhost": vhost, "name": name, "size": size, "result": outcome.value, "error": error}


def awaited(later: Row | DeferredRow, context: NodeContext) -> RowWait[Row]:
    """The result of what goes on by itself.  BrokerError.

    A client that waits hears something now and then, however long it takes.
    """
    if not isinstance(later, DeferredRow):
        return later
    outcomes: list[Row | BrokerError] = []
    later.begin(outcomes.append)
    while not outcomes:
        yield soon_after(context.runtime.clients_call_later, POLL_INTERVAL_S)
    (outcome,) = outcomes
    if isinstance(outcome, BrokerError):
        raise outcome
    return outcome


def of_one(
    later: Row | DeferredRow, settled: Callable[[], Rows], context: NodeContext
) -> DeferredRow:
    """The result of a change of one queue, once that has settled.  PreconditionFailed if it has not
    in time."""

    def outcome_rows() -> Rows:
        yield from awaited(later, context)
        for row in settled():
            if not isinstance(row, dict):
                yield row
            elif row["error"]:
                raise PreconditionFailed(
                    f"queue '{row['name']}' in vhost '{row['vhost']}' {row['error']}"
                )

    return DeferredRow(partial(run, outcome_rows()))


def run(rows: Rows, answer: Callable[[Row | BrokerError], None]) -> None:
    """Take rows that are only waited for, and answer once there are no more."""

    def go_on(_answer: object) -> None:
        try:
            for row in rows:
                if not isinstance(row, dict):
                    row.then(go_on, go_on)
                    return
        except BrokerError as error:
            answer(error)
        else:
            answer({})

    go_on(None)


READS: Mapping[str, Callable[..., Any]] = {"queues.voters": list_voters}
