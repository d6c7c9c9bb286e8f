"""Snapshots and the sparse log beneath them: invariants 8, 13 and 14."""

import zlib
from collections.abc import Mapping

from fluffle.raft.config import NodeId
from fluffle.raft.log import GroupId, SnapshotMeta
from fluffle.raft.log_store import Write
from fluffle.raft.messages import SnapshotOffer
from fluffle.raft.ranges import Ranges
from tests.simulation.facts import Facts, Replica, Stored, Violation
from tests.simulation.watch import Disk, Watch
from tests.support.raft_memory import GroupImage


class Snapshots:
    """Looks into the disks whenever the sparse part of a log changes."""

    def __init__(self, disks: Mapping[NodeId, Disk]) -> None:
        self._disks = disks
        self._facts = Facts()
        self._watch: Watch
        self._made: dict[tuple[GroupId, int], tuple[bytes, int]] = {}
        """(group, index) -> what is live, and the checksum of the state."""

    def join(self, watch: Watch) -> None:
        self._facts = watch.facts
        self._watch = watch
        watch.rewritten.append(self.rewritten)
        watch.snapped.append(self.snapped)
        watch.wrote.append(self.wrote)
        watch.durable.append(self.durable)
        watch.sent[SnapshotOffer].append(self.offered)

    def snapped(self, group: GroupId, index: int, live: Ranges, state: bytes) -> None:
        made = live.to_bytes(), zlib.crc32(state)
        if self._made.setdefault((group, index), made) != made:
            raise Violation(f"inv 7: two snapshots at {index} of group {group} differ")

    def wrote(self, node: NodeId, replica: Replica | None, write: Write) -> None:
        """8: the floor only rises.  13: with a snapshot goes what was live in it."""
        meta = write.snapshot.meta if write.snapshot is not None else write.install
        if meta is None or replica is None or not meta.index:
            return
        if meta.index < replica.log.floor:
            raise Violation(
                f"inv 8: {node} lowers the floor of group {write.group} from {replica.log.floor} "
                f"to {meta.index}"
            )
        self._is_what_was_made(node, write.group, meta)

    def _is_what_was_made(self, node: NodeId, group: GroupId, meta: SnapshotMeta) -> None:
        made = self._made.get((group, meta.index))
        if made != (meta.live.to_bytes(), meta.state_crc):
            raise Violation(
                f"inv 13: {node} has another snapshot at {meta.index} of {group}: {meta}"
            )

    def offered(self, node: NodeId, receiver: NodeId, offer: SnapshotOffer) -> None:
        if self._made.get((offer.group, offer.index)) != (offer.live, offer.state_crc):
            raise Violation(f"inv 13: {node} offers another snapshot than was made: {offer}")

    def durable(self, node: NodeId, stored: Stored | None, write: Write) -> None:
        """13: whenever something was taken away or put in its place, all that is live is there."""
        if stored is not None and (write.deletes or write.snapshot or write.install):
            self.is_whole(node, write.group)

    def rewritten(self, node: NodeId, group: GroupId) -> None:
        """13: that, too, may have taken something away."""
        if group in self._disks[node].image.groups:
            self.is_whole(node, group)

    def is_whole(self, node: NodeId, group: GroupId) -> None:
        """13: each live entry is on this disk, with all that is live of what was written once."""
        image = self._disks[node].image.groups[group]
        if image.quarantine is not None or image.damaged or image.is_state_damaged:
            return
        known = self._facts.group(group)
        for first, stop in image.meta.live:
            for index in range(first, stop):
                entry = image.entries.get(index)
                if entry is None:
                    raise Violation(f"inv 13: {node} has lost live entry {index} of group {group}")
                expected, _ = known.entries[index, known.committed[index]]
                is_same = entry is expected or entry.payload == expected.payload
                if not is_same and not self._watch.is_left(image, entry, expected):
                    raise Violation(f"inv 13: {node} has {entry} of group {group}, not {expected}")


def leaked(image: GroupImage) -> list[int]:
    """14: entries at or below the floor that nobody needs any more."""
    live = image.meta.live
    return [index for index in image.entries if index <= image.meta.index and index not in live]
