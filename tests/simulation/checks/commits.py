"""Committed entries: where they are, and what is made of them: invariants 6, 7, 8 and 9."""

from fluffle.raft.config import NodeId
from fluffle.raft.log import Entry
from fluffle.raft.messages import AppendRequest, SnapshotOffer
from fluffle.raft.output import Role
from tests.simulation.checks.elections import has_majority
from tests.simulation.facts import Facts, GroupFacts, Replica, Violation
from tests.simulation.watch import Watch


class Commits:
    """Judges a commit at the moment it is made, by the disks: no crash is needed to see a lie."""

    def __init__(self) -> None:
        self._facts = Facts()

    def join(self, watch: Watch) -> None:
        self._facts = watch.facts
        watch.committed.append(self.committed)
        watch.applied.append(self.applied)
        watch.sent[AppendRequest].append(self.reported)
        watch.sent[SnapshotOffer].append(self.offered)

    def committed(self, node: NodeId, replica: Replica, facts: GroupFacts, first: int) -> None:
        self._is_on_a_majority(node, replica, facts)
        self._later_leaders_have_it(facts, replica.term)

    def _is_on_a_majority(self, node: NodeId, replica: Replica, facts: GroupFacts) -> None:
        """9: a majority of the leader's configuration has it on disk now."""
        index = facts.commit
        term = facts.committed[index]
        holders = set()
        for stored in (groups.get(facts.group) for groups in self._facts.stored.values()):
            if stored is not None and stored.log.holds(index, term):
                holders.add(stored.member)
        # Whoever had it when it said so has done its part, though the disk was lost since.
        holders.update(lost.member for lost in facts.lost if lost.log.holds(index, term))
        configs = (replica.log.config, replica.config_before)
        if not any(has_majority(config, holders) for config in configs):
            raise Violation(
                f"inv 9: {node} has committed {index} of group {facts.group}, which only "
                f"{sorted(holders)} have on disk, of {replica.log.config}"
            )

    def _later_leaders_have_it(self, facts: GroupFacts, commit_term: int) -> None:
        """6: whoever leads a later term than the one in which it is committed, already."""
        index = facts.commit
        term = facts.committed[index]
        for node, groups in self._facts.replicas.items():
            other = groups.get(facts.group)
            if other is None or other.role is not Role.LEADER or other.term <= commit_term:
                continue
            if not other.log.holds(index, term):
                raise Violation(
                    f"inv 6: entry {index} of group {facts.group} is committed in {commit_term}, "
                    f"and {node}, which leads term {other.term}, lacks it"
                )

    def reported(self, node: NodeId, receiver: NodeId, request: AppendRequest) -> None:
        self._is_committed(node, request.group, request.commit)

    def offered(self, node: NodeId, receiver: NodeId, offer: SnapshotOffer) -> None:
        self._is_committed(node, offer.group, offer.index)

    def _is_committed(self, node: NodeId, group: int, index: int) -> None:
        commit = self._facts.group(group).commit
        if index > commit:
            raise Violation(
                f"inv 7: {node} says that {index} of {group} is committed, not {commit}"
            )

    def applied(self, node: NodeId, replica: Replica, entry: Entry, digest: int) -> None:
        """7: one entry an index, one image an index.  8: applied, committed and durable here."""
        group = next(
            group for group, other in self._facts.replicas[node].items() if other is replica
        )
        facts = self._facts.group(group)
        index = entry.index
        if index > facts.commit or facts.committed[index] != entry.term:
            raise Violation(f"inv 7: {node} applies {entry} of group {group}: it is not committed")
        known, _ = facts.entries[index, entry.term]
        if known is not entry and (known.payload != entry.payload or known.kind != entry.kind):
            raise Violation(f"inv 7: {node} applies {entry} of group {group}, others {known}")
        if facts.digests.setdefault(index, digest) != digest:
            raise Violation(f"inv 7: images differ at {index} of group {group}, as {node} sees it")
        if index > replica.commit:
            raise Violation(f"inv 8: {node} applies {index} of {group}, commit {replica.commit}")
        stored = self._facts.stored[node].get(group)
        if stored is None or not stored.log.holds(index, entry.term):
            raise Violation(f"inv 8: {node} applies {index} of {group} before it is on its disk")
