"""Compaction of logs: whether what is left of an entry on a disk is good enough: rule 19."""

from __future__ import annotations

from fluffle.broker.queues.quorum.entry_codec import read_messages
from fluffle.broker.queues.quorum.snapshot import restored_image
from fluffle.raft.log import Entry
from tests.support.raft_memory import GroupImage


def is_left(disk: GroupImage, found: Entry, written: Entry) -> bool:
    """All that is live by the snapshot beside it is in it, and as it was written."""
    if (found.index, found.term, found.kind) != (written.index, written.term, written.kind):
        return False
    before = dict(rows(written))
    left = rows(found)
    if any(before.get(sequence) != row for sequence, row in left):
        return False
    return live_of(disk, found.index) <= {sequence for sequence, _row in left}


def rows(entry: Entry) -> list[tuple[int, tuple[str, str, bytes]]]:
    """Its messages: number, and what was published to where."""
    return [
        (sequence, (origin.exchange, origin.routing_key, content))
        for sequence, origin, content in zip(*read_messages(entry.payload), strict=True)
    ]


def live_of(disk: GroupImage, index: int) -> set[int]:
    """The numbers of the messages of an entry that are live by the snapshot."""
    image = restored_image(disk.state)
    [entry] = [entry for entry in image.state.entries if entry.index == index]
    return {sequence for run in image.live_of(entry) for sequence in run}
