"""Removals of members of queues: nobody is removed that is wanted and has lost nothing.

A voter less is a disk less whose loss the queue survives, until another one has caught up.  So a
node that has only not heard of a queue yet stays its member, whatever the others take it for.
Queues that are deleted are exempt.
"""

from __future__ import annotations

from collections.abc import Collection

from fluffle.broker.queues.journal import QueueDefinition
from fluffle.raft.config import Configuration, Member, NodeId
from tests.simulation.facts import Violation
from tests.simulation.registry import GroupSpec


class RemovalChecks:
    """Configurations of the groups of queues, as they are committed one after another."""

    def __init__(self) -> None:
        self._voters: dict[int, tuple[int, set[Member]]] = {}
        """Voters of the last configuration and its index, by group."""
        self._unwanted: dict[int, set[NodeId]] = {}
        """Nodes on which a queue was not to be at some time since it was declared."""
        self._incarnations: dict[int, set[Member]] = {}
        """The nodes that a queue was ever on, as members of the group of definitions."""

    def defined(self, definition: QueueDefinition, nodes: Collection[NodeId]) -> None:
        """A queue is to be on its nodes from now on, and not on others of all `nodes`."""
        unwanted = self._unwanted.setdefault(definition.id, set())
        unwanted.update(set(nodes) - set(definition.wanted))
        incarnations = self._incarnations.setdefault(definition.id, set())
        incarnations.update(Member(*each) for each in definition.lives)

    def configured(
        self, spec: GroupSpec, index: int, config: Configuration, burnt: Collection[Member]
    ) -> None:
        """A configuration is committed.  `burnt`: as members of the group of definitions."""
        former, before = self._voters.get(spec.group, (0, {*spec.initial.voters}))
        if index <= former:
            return
        self._voters[spec.group] = index, {*config.voters}
        # A node that has heard of the deletion drops its member.  A leader that has not heard of it
        # takes that for a loss.  There is nothing left to lose.
        if spec.is_deleted:
            return
        excused = self._unwanted[spec.group] | {
            each.node for each in self._incarnations[spec.group] if each in burnt
        }
        for member in before - {*config.members} - spec.burnt:
            if member.node not in excused:
                raise Violation(
                    f"{member.node} was removed from {spec.group} at {index}, and had lost nothing"
                )
