"""Looks at every turn and at every write that becomes durable, and lets checkers see.

The order within a turn: roles, writes, what is newly committed, messages, committed configurations,
answers to reads; then, one by one, applications.  A checker adds itself to the lists in `join`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from fluffle.raft.config import Member, NodeId
from fluffle.raft.log import Entry, GroupId
from fluffle.raft.log_store import Persist, Write
from fluffle.raft.output import ConfigChange, LivenessVerdict, Output, Readable, Role, RoleChange
from fluffle.raft.ranges import Ranges
from tests.simulation.facts import Facts, GroupFacts, Replica, Stored, Violation
from tests.simulation.process import Process
from tests.support.raft_memory import DiskImage, GroupImage

Sent = Callable[[NodeId, NodeId, Any], None]
"""(sender, receiver, message)"""


class Disk(Protocol):
    """Disk as checkers look into it."""

    @property
    def image(self) -> DiskImage:
        """Durable content."""


class Checker(Protocol):
    def join(self, watch: "Watch") -> None:
        """Ask for what it wants to see."""


class Watch:
    """Keeps the facts, and calls the checkers."""

    __slots__ = (
        "applied", "committed", "configured", "died", "durable", "elected", "facts", "is_left",
        "judged", "loaded", "read", "rewritten", "sent", "snapped", "wrote",
    )  # fmt: skip

    def __init__(self, checkers: Iterable[Checker]) -> None:
        self.facts = Facts()
        self.elected: list[Callable[[NodeId, Replica, RoleChange], None]] = []
        """Before the writes of that turn."""
        self.wrote: list[Callable[[NodeId, Replica | None, Write], None]] = []
        """Before the write is in the replica's log."""
        self.sent: dict[type, list[Sent]] = defaultdict(list)
        self.committed: list[Callable[[NodeId, Replica, GroupFacts, int], None]] = []
        """A leader has committed more, from this index on; the facts have it already."""
        self.applied: list[Callable[[NodeId, Replica, Entry, int], None]] = []
        """With the digest of the image afterwards; `replica.applied` is still that before."""
        self.configured: list[Callable[[NodeId, ConfigChange], None]] = []
        self.judged: list[Callable[[Process, LivenessVerdict], None]] = []
        """Another node is believed to be alive, or not."""
        self.read: list[Callable[[NodeId, Readable], None]] = []
        self.durable: list[Callable[[NodeId, Stored | None, Write], None]] = []
        """After it is in the facts."""
        self.loaded: list[Callable[[NodeId], None]] = []
        """A process has started and knows its groups."""
        self.died: list[Callable[[NodeId], None]] = []
        self.snapped: list[Callable[[GroupId, int, Ranges, bytes], None]] = []
        """A snapshot of an image was made: index, what is live, state."""
        self.rewritten: list[Callable[[NodeId, GroupId], None]] = []
        """An entry of a group is smaller on a disk."""
        self.is_left: Callable[[GroupImage, Entry, Entry], bool] = _is_whole
        """Function that says if an entry found on this disk is all that is needed of one."""
        for checker in checkers:
            checker.join(self)

    def started(self, node: NodeId) -> None:
        self.facts.process_started(node)
        for call in self.loaded:
            call(node)

    def ended(self, node: NodeId) -> None:
        self.facts.process_ended(node)
        for call in self.died:
            call(node)

    def became_durable(self, node: NodeId, persist: Persist) -> None:
        for write in persist.writes:
            stored = self.facts.became_durable(node, write)
            for call in self.durable:
                call(node, stored, write)

    def entry_rewritten(self, node: NodeId, group: GroupId) -> None:
        for call in self.rewritten:
            call(node, group)

    def founded(self, group: GroupId, first: NodeId) -> None:
        """All founders give the same."""
        facts = self.facts.group(group)
        facts.first = facts.first or Member(first, 1)
        if facts.first.node != first:
            raise Violation(f"founders of {group} have {first} lead first, and {facts.first}")

    def turned(self, process: Process, output: Output) -> None:
        """A turn has ended."""
        node = process.node
        replicas = self.facts.replicas[node]
        if output.roles:
            self._roles(node, output.roles)
        if output.persist is not None:
            for write in output.persist.writes:
                self._write(node, write)
        self._commits(process, replicas)
        for receiver, messages in output.messages.items():
            for message in messages:
                for call in self.sent.get(type(message), ()):
                    call(node, receiver, message)
        for restore in output.restores:
            replicas[restore.group].applied = restore.snapshot.index
        for change in output.configs:
            for configured in self.configured:
                configured(node, change)
        for readable in output.readable:
            for read in self.read:
                read(node, readable)
        for verdict in output.verdicts:
            for judged in self.judged:
                judged(process, verdict)

    def applied_entry(self, node: NodeId, group: GroupId, entry: Entry, digest: int) -> None:
        """The image of a group has one entry more in it."""
        replica = self.facts.replicas[node][group]
        for call in self.applied:
            call(node, replica, entry, digest)
        replica.applied = entry.index

    def took_snapshot(self, group: GroupId, index: int, live: Ranges, state: bytes) -> None:
        """Check a snapshot at this index."""
        for call in self.snapped:
            call(group, index, live, state)

    def _roles(self, node: NodeId, roles: Iterable[RoleChange]) -> None:
        for change in roles:
            replica = self.facts.replicas[node].get(change.group)
            if replica is None:
                continue
            replica.role, replica.term = change.role, change.term
            if change.role is Role.LEADER:
                for call in self.elected:
                    call(node, replica, change)

    def _write(self, node: NodeId, write: Write) -> None:
        replica = self.facts.replicas[node].get(write.group)
        if replica is not None:
            replica.config_before = replica.log.config
        for call in self.wrote:
            call(node, replica, write)
        self.facts.submitted(node, write)

    def _commits(self, process: Process, replicas: dict[GroupId, Replica]) -> None:
        """Record commits: processes that know more to be committed than before; only leaders find
        that out.

        A group that was left for the next turn has not written what it has.
        """
        for group, replica in replicas.items():
            commit = process.commit_of(group)
            if commit == replica.commit or process.is_left(group):
                continue
            if commit < replica.commit and not replica.is_quarantined:
                raise Violation(f"inv 8: {process.node} had committed {replica.commit} of {group}")
            replica.commit = commit
            facts = self.facts.group(group)
            if commit <= facts.commit:
                continue
            if replica.role is not Role.LEADER:
                raise Violation(
                    f"inv 7: {process.node} has committed {commit} of group {group}, whose leaders "
                    f"have committed {facts.commit}"
                )
            first = facts.commit + 1
            for index in range(first, commit + 1):
                term = replica.log.term_at(index)
                if term is None:
                    raise Violation(
                        f"inv 8: {process.node} has committed {index} without having it"
                    )
                facts.committed.append(term)
                facts.commit_terms.append(replica.term)
            for call in self.committed:
                call(process.node, replica, facts, first)


def _is_whole(_disk: GroupImage, found: Entry, written: Entry) -> bool:
    """True if an entry is unchanged: where entries are never made smaller."""
    return found.payload == written.payload
