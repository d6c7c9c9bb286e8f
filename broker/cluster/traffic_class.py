"""Which lane a message takes, and how many go in one frame.

    URGENT   pings, votes, answers        small; what they say is true in any order
    NORMAL   appends                      in order among themselves
    BULK     snapshots, and appends to a follower that are read from the disk

Appends of a group that overtake others are refused by the follower, and sent again.  So all of a
group go by the bulk lane to a follower that is being caught up, also those that come from memory,
until nothing of it waits in that lane any more.
"""

from collections.abc import Iterator, Sequence

from fluffle.broker.cluster.ports import Links, TrafficClass
from fluffle.raft.config import NodeId
from fluffle.raft.messages import AppendRequest, Message, SnapshotChunk, SnapshotOffer
from fluffle.raft.records import GroupId, size_of

FRAME_BYTES_MAX = 1 << 20
"""Of entries and state in one frame; a message that is larger goes alone."""


class TrafficClasses:
    """Remembers who is being caught up."""

    __slots__ = ("_catching_up", "_links", "_pages")

    def __init__(self, links: Links) -> None:
        self._links = links
        self._catching_up: dict[NodeId, set[GroupId]] = {}
        """Groups whose appends to a node go by the bulk lane."""
        self._pages: set[tuple[GroupId, int]] = set()
        """Group, and index of the first entry, of what was read from the disk in this turn."""

    def was_read(self, group: GroupId, first: int) -> None:
        """Entries from `first` on were read: an append that begins with them is a catching up."""
        self._pages.add((group, first))

    def frames(
        self, node: NodeId, messages: Sequence[Message]
    ) -> Iterator[tuple[TrafficClass, list[Message]]]:
        """What goes to a node in this turn, frame by frame, in order within each lane."""
        if len(messages) == 1:
            yield self._lane_of(node, messages[0]), list(messages)
            return
        lanes: dict[TrafficClass, list[Message]] = {}
        for message in messages:
            lanes.setdefault(self._lane_of(node, message), []).append(message)
        for lane in sorted(lanes):
            for frame in _split(lanes[lane]):
                yield lane, frame

    def end_turn(self) -> None:
        """All of its messages are sent."""
        if self._pages:
            self._pages.clear()
        for node in list(self._catching_up):
            if not self._links.waiting_bytes(node, TrafficClass.BULK):
                del self._catching_up[node]

    def _lane_of(self, node: NodeId, message: Message) -> TrafficClass:
        if isinstance(message, AppendRequest):
            return self._lane_of_append(node, message)
        if isinstance(message, SnapshotOffer | SnapshotChunk):
            return TrafficClass.BULK
        return TrafficClass.URGENT

    def _lane_of_append(self, node: NodeId, append: AppendRequest) -> TrafficClass:
        catching_up = self._catching_up.get(node)
        if catching_up is not None and append.group in catching_up:
            return TrafficClass.BULK
        if append.entries and (append.group, append.previous_index + 1) in self._pages:
            self._catching_up.setdefault(node, set()).add(append.group)
            return TrafficClass.BULK
        return TrafficClass.NORMAL


def _split(messages: list[Message]) -> list[list[Message]]:
    """Into frames of limited size."""
    if len(messages) == 1:
        return [messages]
    frames: list[list[Message]] = []
    size_bytes = 0
    for message in messages:
        message_bytes = _bytes_of(message)
        size_bytes += message_bytes
        if not frames or size_bytes > FRAME_BYTES_MAX:
            frames.append([])
            size_bytes = message_bytes
        frames[-1].append(message)
    return frames


def _bytes_of(message: Message) -> int:
    """What of it can be large."""
    if isinstance(message, AppendRequest):
        return sum(map(size_of, message.entries))
    if isinstance(message, SnapshotChunk):
        return sum(map(size_of, message.entries)) + len(message.state)
    return len(message.live) if isinstance(message, SnapshotOffer) else 0
