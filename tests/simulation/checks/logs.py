"""Content of logs, and reports of it: invariants 4, 5, 8 and 9 (in part)."""

from collections.abc import Mapping

from fluffle.raft.config import Member, NodeId
from fluffle.raft.log_store import Write
from fluffle.raft.messages import AppendAccepted
from fluffle.raft.output import Role
from tests.simulation.facts import Facts, LogView, Replica, Violation
from tests.simulation.watch import Disk, Watch


class Logs:
    """Entries by (index, term): if they are equal, with the term before, so are whole prefixes."""

    def __init__(self, disks: Mapping[NodeId, Disk]) -> None:
        self._disks = disks
        self._facts = Facts()

    def join(self, watch: Watch) -> None:
        self._facts = watch.facts
        watch.wrote.append(self.wrote)
        watch.sent[AppendAccepted].append(self.acknowledged)

    def wrote(self, node: NodeId, replica: Replica | None, write: Write) -> None:
        if replica is None or write.created_as is not None or write.is_drop:
            return
        if write.truncate_from is not None:
            self._truncated(node, replica, write.truncate_from, write)
        if write.entries:
            self._appended(node, replica, write)
        if write.snapshot is not None and write.snapshot.meta.index > replica.applied:
            raise Violation(f"inv 8: {node} makes a snapshot of what it has not applied: {write}")

    def _truncated(self, node: NodeId, replica: Replica, first: int, write: Write) -> None:
        """5: a leader keeps what it has.  8: what is committed stays, whether this node knows that
        it is or not; but for repairs, of which its disk knows before."""
        if replica.role is Role.LEADER and replica.term == self._term(node, write):
            raise Violation(f"inv 5: {node} leads and truncates from {first}: group {write.group}")
        if write.install is not None or replica.is_quarantined:
            return
        facts = self._facts.group(write.group)
        is_committed = first <= facts.commit and replica.log.holds(first, facts.committed[first])
        if is_committed or first <= replica.commit:
            raise Violation(
                f"inv 8: {node} truncates from {first}, commit {facts.commit}: {write.group}"
            )

    def _term(self, node: NodeId, write: Write) -> int:
        return self._facts.replicas[node][write.group].term

    def _appended(self, node: NodeId, replica: Replica, write: Write) -> None:
        """4: whoever has an entry of this index and term has this entry, behind an equal one."""
        known = self._facts.group(write.group).entries
        before = write.entries[0].index - 1
        term = term_before(replica.log, write, before)
        for entry in write.entries:
            if term is None:
                raise Violation(f"inv 4: {node} leaves a gap before {entry.index}: {write.group}")
            other, other_term = known.setdefault((entry.index, entry.term), (entry, term))
            if other is not entry and (
                other_term != term or other.payload != entry.payload or other.kind != entry.kind
            ):
                raise Violation(
                    f"inv 4: {node} has {entry} behind term {term}, another {other} behind "
                    f"{other_term}: group {write.group}"
                )
            term = entry.term

    def acknowledged(self, node: NodeId, receiver: NodeId, answer: AppendAccepted) -> None:
        """9: what is acknowledged is on disk, and what the leader of that term has there."""
        stored = self._facts.stored[node].get(answer.group)
        if stored is None or stored.log.last < answer.durable:
            raise Violation(f"inv 9: {node} acknowledges what is not on its disk: {answer}")
        if stored.quarantine is not None:
            self._is_mended(node, answer, stored.quarantine.first)
        leader = self._facts.replicas.get(receiver, {}).get(answer.group)
        if leader is None or leader.role is not Role.LEADER or leader.term != answer.term:
            return
        if leader.member != Member(receiver, answer.receiver):
            return
        expected = leader.log.term_at(answer.durable)
        found = stored.log.term_at(answer.durable)
        if None not in (expected, found) and expected != found:
            raise Violation(
                f"inv 9: {node} acknowledges an entry of term {found}, the leader has "
                f"{expected}: {answer}"
            )

    def _is_mended(self, node: NodeId, answer: AppendAccepted, first: int) -> None:
        """21: what is known to be damaged is acknowledged once it was written again, not before."""
        damaged = self._disks[node].image.groups[answer.group].damaged
        if any(first <= index <= answer.durable for index in damaged):
            raise Violation(f"inv 21: {node} acknowledges what it cannot read: {answer}")


def term_before(log: LogView, write: Write, index: int) -> int | None:
    """The term at `index` of the log, as the write finds it when its entries are appended."""
    if write.install is not None and index == write.install.index:
        return write.install.term
    return log.term_at(index)
