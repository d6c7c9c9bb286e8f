"""Configuration of a group: voters and learners, and the changes from one such set to the next.

A *member* is a node in one incarnation of its membership: one that is removed and added again, or
lost its disk, comes back under a greater incarnation, and nothing its former self said counts.
Changes are made one member at a time, so that any majority of one configuration meets any majority
of the next (thesis §4.1); a member becomes a voter only by way of learner.
"""

import json
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

NodeId = str
"""The name of a node, as the operator gave it."""


class Member(NamedTuple):
    """A node as a member of one group."""

    node: NodeId
    incarnation: int
    """From 1; within a group greater than that of every member that joined before."""


class InvalidChange(Exception):
    """A change of membership that makes no sense for the configuration; says why."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Members of a group at one point of its log."""

    voters: tuple[Member, ...] = ()
    """Sorted by node.  Empty: a member that waits to learn from its leader where it is."""
    learners: tuple[Member, ...] = ()
    """Sorted by node.  They receive everything and decide nothing."""
    top_incarnation: int = 0
    """The greatest that was ever used in the group."""

    @staticmethod
    def initial(nodes: Iterable[NodeId]) -> "Configuration":
        """Return what a new group begins with, equal on all its nodes: all voters, incarnation
        1."""
        return _initial(tuple(sorted(nodes)))

    @property
    def members(self) -> tuple[Member, ...]:
        return self.voters + self.learners

    def is_voter(self, member: Member) -> bool:
        return member in self.voters

    def member_on(self, node: NodeId) -> Member | None:
        """Return the member on a node; None if there is none."""
        return next((member for member in self.members if member.node == node), None)

    def encode(self) -> bytes:
        """Encode as the payload of an entry.  JSON: it is rare, and a person can read it in a
        dump."""
        return _encoded(self)

    @staticmethod
    def decode(payload: bytes) -> "Configuration":
        """Decode what `encode` made.  Raises `ValueError`, `KeyError` or `TypeError` for
        anything else."""
        return _decoded(payload)


@lru_cache(maxsize=1024)
def _initial(nodes: tuple[NodeId, ...]) -> Configuration:
    """Share one object between all groups of the same nodes: there are thousands of groups."""
    return Configuration(tuple(Member(node, 1) for node in nodes), (), 1)


@lru_cache(maxsize=1024)
def _encoded(config: Configuration) -> bytes:
    """Encode a configuration once for all groups that have it."""
    fields = {
        "voters": config.voters,
        "learners": config.learners,
        "top_incarnation": config.top_incarnation,
    }
    return json.dumps(fields, separators=(",", ":")).encode()


@lru_cache(maxsize=1024)
def _decoded(payload: bytes) -> Configuration:
    """Decode a payload once for all groups that have it."""
    fields = json.loads(payload)
    voters = tuple(Member(node, incarnation) for node, incarnation in fields["voters"])
    learners = tuple(Member(node, incarnation) for node, incarnation in fields["learners"])
    return Configuration(voters, learners, fields["top_incarnation"])


class AddLearner(NamedTuple):
    """Change by which a node joins; its incarnation is the next of the group."""

    node: NodeId


class Promote(NamedTuple):
    """Change that makes a learner that has caught up a voter."""

    node: NodeId


class Remove(NamedTuple):
    """Change by which a voter or learner leaves."""

    node: NodeId


Change = AddLearner | Promote | Remove


def with_change(config: Configuration, change: Change) -> Configuration:
    """Return the configuration after a change.  Raises `InvalidChange`."""
    member = config.member_on(change.node)
    if isinstance(change, AddLearner):
        if member is not None:
            raise InvalidChange(f"{change.node} is a member already")
        incarnation = config.top_incarnation + 1
        learners = (*config.learners, Member(change.node, incarnation))
        return Configuration(config.voters, tuple(sorted(learners)), incarnation)
    if member is None:
        raise InvalidChange(f"{change.node} is not a member")
    learners = tuple(learner for learner in config.learners if learner != member)
    if isinstance(change, Promote):
        if member in config.voters:
            raise InvalidChange(f"{change.node} is a voter already")
        return Configuration(
            tuple(sorted((*config.voters, member))), learners, config.top_incarnation
        )
    voters = tuple(voter for voter in config.voters if voter != member)
    if not voters:
        raise InvalidChange(f"{change.node} is the last voter")
    return Configuration(voters, learners, config.top_incarnation)


class ConfigHistory:
    """Configurations of one group that can still matter, by the index of their entries.

    The first is at or below the floor of the log; the others may not be committed yet.
    """

    __slots__ = ("_history", "active", "last_index")

    def __init__(self, index: int, config: Configuration) -> None:
        self._history = [(index, config)]
        self.active = config
        """The latest, committed or not."""
        self.last_index = index
        """Index of that."""

    def append(self, index: int, config: Configuration) -> None:
        """Make a configuration active from now on."""
        self._history.append((index, config))
        self.last_index, self.active = index, config

    def roll_back(self, first: int) -> None:
        """Drop configurations in entries from `first` on, which are gone: none of them was ever
        active."""
        while len(self._history) > 1 and self._history[-1][0] >= first:  # mutant: M19
            self._history.pop()
        self.last_index, self.active = self._history[-1]

    def prune(self, floor: int) -> None:
        """Forget configurations that were replaced at or below the floor."""
        while len(self._history) > 1 and self._history[1][0] <= floor:
            self._history.pop(0)

    def at(self, index: int) -> Configuration:
        """Return the configuration that is active at `index`, which is not below the floor."""
        return next(config for at, config in reversed(self._history) if at <= index)

    def in_use(self, commit: int) -> list[Configuration]:
        """Return the last committed configuration, and those behind it."""
        committed = sum(at <= commit for at, _ in self._history)
        return [config for _, config in self._history[max(0, committed - 1) :]]

    def between(self, after: int, through: int) -> list[tuple[int, Configuration]]:
        """Return the configurations behind one index, up to another, with their indexes."""
        return [(at, config) for at, config in self._history if after < at <= through]


def majority_of(count: int) -> int:
    """Return how many of so many voters are a majority."""
    return count // 2 + 1


def is_majority(agreeing: Set[Member], voters: Sequence[Member]) -> bool:
    """True if those that agree are a majority of the voters; others among them do not count."""
    return sum(voter in agreeing for voter in voters) >= majority_of(len(voters))
