"""Batch of changes that must become durable together.  It is never split over two commits."""

from fluffle.storage.layout import INDEX_END, Table, catalog_key, catalog_value, cut
from fluffle.storage.record import Change, Deletion


class Batch:
    """Changes of logs, in order, and values of other tables."""

    __slots__ = ("changes", "size_bytes", "values")

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.values: dict[tuple[Table, bytes], bytes | None] = {}
        """Table and key -> value as on disk; None removes."""
        self.size_bytes = 0
        """Bytes of payload and values."""

    def __bool__(self) -> bool:
        return bool(self.changes or self.values)

    def append(self, group: int, index: int, payload: bytes, *, tag: int = 0) -> None:
        """Add an entry to a group's log.

        `index`, from 1, is greater than that of every entry before it; gaps do not matter.
        `tag` is 64 bits that `Log.entries` tells without reading the payload: the Raft term, or
        how many messages are in it.  Raises `ValueError` for numbers that have no place on disk.
        """
        if not (0 < index < INDEX_END and 0 <= tag <= INDEX_END and 0 <= group < INDEX_END):
            raise ValueError(f"group {group} index {index} tag {tag}")
        self.changes += cut(group, index, tag, payload)
        self.size_bytes += len(payload)

    def delete(self, group: int, first: int, stop: int) -> None:
        """Delete a group's entries from index `first` up to, not including, `stop`.

        Costs the same for one and for a million: the space is freed by later commits, slice by
        slice.  After deleting a tail its indexes may be used again.
        """
        if not (0 <= first <= stop <= INDEX_END and 0 <= group < INDEX_END):
            raise ValueError(f"group {group} from {first} up to {stop}")
        self.changes.append(Deletion(group, first, stop))

    def put(self, kind: str, name: bytes, value: bytes) -> None:
        """Write a definition, in place of what had its name."""
        self.write(Table.CATALOG, catalog_key(kind, name), catalog_value(kind, name, value))

    def remove(self, kind: str, name: bytes) -> None:
        """Delete a definition, if there is one."""
        self.erase(Table.CATALOG, catalog_key(kind, name))

    def write(self, table: Table, key: bytes, value: bytes) -> None:
        """Write a value of a table other than hot, in place of what was there."""
        self.values[table, key] = value
        self.size_bytes += len(value)

    def add(self, other: "Batch") -> None:
        """Add everything of another batch behind what is here."""
        self.changes += other.changes
        self.values.update(other.values)
        self.size_bytes += other.size_bytes

    def erase(self, table: Table, key: bytes) -> None:
        """Delete a value, if it is there."""
        self.values[table, key] = None
