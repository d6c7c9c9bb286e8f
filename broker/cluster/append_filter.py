"""Filter of a leader's appends while the disk is nearly full: only what must be written is taken.

Votes and the like are small, and go on.  Entries are asked for again by whoever sends them, ever
more rarely, so that dropping them is like losing them: the others are a majority, or nothing is
committed.  Who leads must be known, or this node would stand for elections itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from fluffle.raft.config import NodeId
from fluffle.raft.messages import AppendRequest, Message, SnapshotChunk
from fluffle.raft.records import GroupId

FollowedAs = Callable[[GroupId], tuple[int, NodeId | None]]
"""Term and leader of a group, as far as its member here knows."""


def without_entries(
    node: NodeId, messages: Sequence[Message], followed_as: FollowedAs
) -> list[Message]:
    """What is left of messages that came from a node."""
    kept: list[Message] = []
    for message in messages:
        if isinstance(message, AppendRequest) and message.entries:
            if followed_as(message.group) != (message.term, node):
                kept.append(replace(message, entries=[]))
        elif not isinstance(message, SnapshotChunk):
            kept.append(message)
    return kept
