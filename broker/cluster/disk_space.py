"""Free space of a node's disk, for those who admit work and those who write."""

from __future__ import annotations

from collections.abc import Callable

from fluffle.broker.runtime.turn import do_nothing
from fluffle.raft.log_store import LogStore


class DiskSpace:
    """Free space of the disk as last reported; see `LogStore`."""

    __slots__ = ("_store", "has_room", "is_needed", "may_grow", "on_no_room", "takes_entries")

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self.has_room = self.may_grow = self.takes_entries = True
        self.is_needed = True
        """Whether some group has no majority with room without this node."""
        self.on_no_room: Callable[[], object] = do_nothing
        """Called when there is none any more, maybe from within a turn."""

    def look(self) -> None:
        """See what the disk says now."""
        store, had_room = self._store, self.has_room
        self.has_room = has_room = store.has_room
        self.may_grow = has_room or store.may_grow
        self.takes_entries = has_room or store.takes_entries
        if had_room and not has_room:
            self.on_no_room()

    @property
    def follows(self) -> bool:
        """Whether entries of leaders elsewhere are taken: as long as there is room for any where
        they cannot be committed without, else only as long as there is some for more."""
        return self.takes_entries if self.is_needed else self.may_grow
