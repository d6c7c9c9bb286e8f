"""State that the groups of a node share: time, chance, live nodes, and the output of the turn."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from fluffle.raft.config import Member, NodeId
from fluffle.raft.messages import Message
from fluffle.raft.output import Output
from fluffle.raft.quorum import majority_of
from fluffle.raft.records import Chance, GroupId
from fluffle.raft.tuning import Tuning

if TYPE_CHECKING:
    from fluffle.raft.state import GroupState

ALARMS_PER_MS = 2
"""An election takes each of the nodes about so long."""


class Node:
    """State shared by all groups of a node.  Owns no group."""

    __slots__ = (
        "_alarms", "_quorums", "alive", "chance", "dirty", "has_room", "name", "next_number",
        "now_ms", "output", "token", "tuning",
    )  # fmt: skip

    def __init__(self, name: NodeId, tuning: Tuning, chance: Chance) -> None:
        self.name = name
        self.tuning = tuning
        self.chance = chance
        self.now_ms = 0
        self.has_room = True
        """Whether the disk admits proposals."""
        self.alive: set[NodeId] = {name}
        """Nodes that are not suspected, this one among them.  Changed by `set_alive` only."""
        self.dirty: dict[GroupState, None] = {}
        """Groups to be flushed before the turn ends, in the order they were touched."""
        self.output = Output()
        """Of the turn that runs."""
        self.token = 1
        """Of the next `Persist`."""
        self.next_number = 1
        """Of the next read."""
        self._alarms: list[tuple[int, GroupId]] = []
        """A heap; some are no longer meant."""
        self._quorums: dict[Sequence[Member], bool] = {}
        """Whether these voters have a majority that is alive: asked once for each set of them."""

    def send(self, node: NodeId, message: Message) -> None:
        """Add a message to the output; nothing is ever sent to oneself."""
        self.output.messages.setdefault(node, []).append(message)

    def set_alive(self, node: NodeId, *, is_alive: bool) -> None:
        """Note a verdict."""
        if is_alive:
            self.alive.add(node)
        else:
            self.alive.discard(node)
        self._quorums.clear()

    def has_quorum(self, voters: Sequence[Member]) -> bool:
        """Tell whether a majority of the voters is alive."""
        known = self._quorums.get(voters)
        if known is None:
            count = sum(voter.node in self.alive for voter in voters)
            known = self._quorums[voters] = count >= majority_of(len(voters))
        return known

    def take_number(self) -> int:
        self.next_number += 1
        return self.next_number - 1

    def set_alarm(self, group: GroupId, at_ms: int) -> None:
        """Have the group looked at by then."""
        heappush(self._alarms, (at_ms, group))

    @property
    def backlog_ms(self) -> int:
        """Return how much longer whatever a group waits for may take, since many have something to
        do."""
        return min(len(self._alarms) // ALARMS_PER_MS, self.tuning.retry_ms_max)

    @property
    def next_alarm_ms(self) -> int | None:
        return self._alarms[0][0] if self._alarms else None

    @property
    def is_alarm_due(self) -> bool:
        """Whether the time of any group has come."""
        return bool(self._alarms) and self._alarms[0][0] <= self.now_ms

    def due(self, most: int) -> list[GroupId]:
        """Return groups whose alarm has come: not too many at once, the others are for the next
        turn."""
        found: dict[GroupId, None] = {}
        alarms = self._alarms
        while alarms and alarms[0][0] <= self.now_ms and len(found) < most:
            found[heappop(alarms)[1]] = None
        return list(found)
