"""Changes of membership: invariants 15 and 16."""

from fluffle.raft.config import Configuration, NodeId
from fluffle.raft.log import CONFIG
from fluffle.raft.log_store import Write
from fluffle.raft.output import ConfigChange, Role
from tests.simulation.facts import Facts, Replica, Violation
from tests.simulation.watch import Watch


class Members:
    """Looks at what leaders append: followers have it from them."""

    def __init__(self) -> None:
        self._facts = Facts()

    def join(self, watch: Watch) -> None:
        self._facts = watch.facts
        watch.wrote.append(self.wrote)
        watch.configured.append(self.configured)

    def wrote(self, node: NodeId, replica: Replica | None, write: Write) -> None:
        if replica is None or replica.role is not Role.LEADER or write.install is not None:
            return
        before_index, before = replica.log.configs[-1]
        for entry in write.entries:
            if entry.kind != CONFIG or entry.term != replica.term:
                continue
            facts = self._facts.group(write.group)
            config = Configuration.decode(entry.payload)
            if before_index > facts.commit:
                raise Violation(
                    f"inv 15: {node} changes group {write.group} at {entry.index}, before the "
                    f"change at {before_index} is committed"
                )
            # Of a group whose founders have agreed on its first leader nothing is older than that.
            is_founding = entry.term == 1 and facts.first is not None
            if facts.committed[facts.commit] < entry.term and not is_founding:
                raise Violation(
                    f"inv 15: {node} changes group {write.group} at {entry.index}, before an entry "
                    f"of its term {entry.term} is committed"
                )
            if not do_majorities_meet(before, config):
                raise Violation(f"inv 15: from {before} to {config} at once: group {write.group}")
            before_index, before = entry.index, config

    def configured(self, node: NodeId, change: ConfigChange) -> None:
        """Check that a configuration reported as committed is committed, and is what was written
        there."""
        facts = self._facts.group(change.group)
        if change.index > facts.commit:
            raise Violation(f"inv 15: {node} takes {change} for committed")
        if change.index:
            entry, _ = facts.entries[change.index, facts.committed[change.index]]
            if entry.kind == CONFIG and Configuration.decode(entry.payload) != change.config:
                raise Violation(f"inv 15: {node} tells {change}, the log says {entry}")


def do_majorities_meet(before: Configuration, after: Configuration) -> bool:
    """Any majority of the one and any of the other have a member in common."""
    old, new = set(before.voters), set(after.voters)
    common = len(old & new)
    # As few of the common ones as a majority can do with.
    needed = [max(0, len(voters) // 2 + 1 - (len(voters) - common)) for voters in (old, new)]
    return sum(needed) > common
