"""Leaders, and the votes for them: invariants 1, 2, 3, 6 (in part), 16 and 21 (in part)."""

from fluffle.raft.config import Configuration, Member, NodeId
from fluffle.raft.log import GroupId
from fluffle.raft.log_store import Write
from fluffle.raft.messages import (
    AppendAccepted,
    AppendRequest,
    SnapshotProgress,
    VoteRequest,
    VoteResponse,
)
from fluffle.raft.output import RoleChange
from tests.simulation.facts import Facts, Replica, Stored, Violation
from tests.simulation.watch import Watch


class Elections:
    """Votes are judged by what is on disk, leaders by the votes that were sent."""

    def __init__(self) -> None:
        self._facts = Facts()

    def join(self, watch: Watch) -> None:
        self._facts = watch.facts
        watch.durable.append(self.durable)
        watch.sent[VoteRequest].append(self.asked)
        watch.sent[VoteResponse].append(self.answered)
        watch.sent[AppendAccepted].append(self.holds_term)
        watch.sent[SnapshotProgress].append(self.holds_term)
        watch.sent[AppendRequest].append(self.leads)
        watch.elected.append(self.elected)

    def durable(self, node: NodeId, stored: Stored | None, write: Write) -> None:
        """2: one vote a term, for good, and in the first for whom all founders have agreed on.
        3: terms on disk never fall."""
        if stored is None or write.hard_state is None:
            return
        facts, member = self._facts.group(write.group), stored.member
        term, vote = write.hard_state
        if term < facts.tops.get(member, 0):
            raise Violation(f"inv 3: the term of {member} falls to {term} in {write.group}")
        facts.tops[member] = term
        if vote is not None:
            if term == 1 and facts.first not in (None, vote):
                raise Violation(f"inv 2: {member} votes for {vote}, not {facts.first}")
            before = facts.votes.setdefault((member, term), vote)
            if before != vote:
                raise Violation(
                    f"inv 2: {member} votes for {before} and {vote} in term {term} "
                    f"of group {write.group}"
                )

    def asked(self, node: NodeId, receiver: NodeId, request: VoteRequest) -> None:
        """2, 3: who asks has voted for itself, on disk, and may."""
        facts = self._facts.group(request.group)
        me = Member(node, request.sender)
        if facts.votes.get((me, request.term)) != me:
            raise Violation(f"inv 3: {me} asks for votes before its own is on disk: {request}")
        if self._is_quarantined(request.group, node):
            raise Violation(f"inv 21: {me} stands in quarantine: {request}")

    def answered(self, node: NodeId, receiver: NodeId, response: VoteResponse) -> None:
        """2, 3: a vote is on disk before anybody hears of it.  21: not from quarantine."""
        if not response.is_granted:
            return
        facts = self._facts.group(response.group)
        voter = Member(node, response.sender)
        candidate = Member(receiver, response.receiver)
        if facts.votes.get((voter, response.term)) != candidate:
            raise Violation(f"inv 2: {voter} grants a vote that is not on its disk: {response}")
        if self._is_quarantined(response.group, node):
            raise Violation(f"inv 21: {voter} votes in quarantine: {response}")
        facts.grants.setdefault((response.term, candidate), set()).add(voter)

    def holds_term(
        self, node: NodeId, receiver: NodeId, message: AppendAccepted | SnapshotProgress
    ) -> None:
        """3: whoever acknowledges something of a term will know of that term after a crash."""
        stored = self._facts.stored[node].get(message.group)
        if stored is None or stored.hard_state.term < message.term:
            raise Violation(f"inv 3: {node} speaks of a term that it may forget: {message}")

    def leads(self, node: NodeId, receiver: NodeId, request: AppendRequest) -> None:
        """1: only the leader of a term sends appends of that term."""
        leaders = self._facts.group(request.group).leaders
        if request.term not in leaders:
            # Elected and deposed in one turn: nothing was reported, but it has spoken meanwhile.
            replica = self._facts.replicas[node].get(request.group)
            if replica is None:  # deleted in that turn, too, and with it what it was elected by
                leaders[request.term] = Member(node, request.sender)
            else:
                self._elect(replica, request.group, request.term, replica.config_before)
        leader = leaders[request.term]
        if leader != Member(node, request.sender):
            raise Violation(f"inv 1: {leader} was elected, but {node} sends {request}")

    def elected(self, node: NodeId, replica: Replica, change: RoleChange) -> None:
        self._elect(replica, change.group, change.term, replica.log.config)

    def _elect(self, replica: Replica, group: GroupId, term: int, config: Configuration) -> None:
        """1, 6, 16: the only one, by the votes of voters, with everything that is committed."""
        facts, member = self._facts.group(group), replica.member
        other = facts.leaders.setdefault(term, member)
        if other != member:
            raise Violation(f"inv 1: {other} and {member} lead term {term} of group {group}")
        granted = facts.grants.get((term, member), set())
        if facts.votes.get((member, term)) == member:
            granted = granted | {member}
            if term == 1 and member == facts.first:
                granted = granted | {*config.voters}
        # One whose removal is not committed may have to lead, by others' votes (thesis §4.2.2).
        may_lead = any(member in config.voters for _, config in replica.log.configs)
        if not may_lead or not has_majority(config, granted):
            raise Violation(
                f"inv 16: {member} leads term {term} of group {group} by the votes "
                f"of {sorted(granted)}, of {config}"
            )
        # In earlier terms, that is: a majority may have gone on to a later one meanwhile.
        commit = facts.committed_before(term)
        if commit > 0 and not replica.log.holds(commit, facts.committed[commit]):
            raise Violation(
                f"inv 6: {member} leads term {term} of group {group} without entry "
                f"{commit} of term {facts.committed[commit]}, which is committed"
            )

    def _is_quarantined(self, group: GroupId, node: NodeId) -> bool:
        stored = self._facts.stored[node].get(group)
        return stored is not None and stored.quarantine is not None


def has_majority(config: Configuration, members: set[Member]) -> bool:
    """True if these, as far as they are voters, are a majority of a configuration."""
    return 2 * len(members.intersection(config.voters)) > len(config.voters)
