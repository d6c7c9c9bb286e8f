"""Catalog of named definitions: what a node must know before any message, read whole when it
starts.

A definition has a kind ("queue", "user"), a name of any length, unique within its kind, and a
value; what is in the bytes is its owner's business.  Changes go through `Batch.put` and
`Batch.remove`, in the same commits as everything else.
"""

from collections.abc import Iterator
from itertools import islice

from fluffle.storage.disk import Disk
from fluffle.storage.layout import Table, catalog_item, catalog_prefix

SLICE = 1024
"""No view looks at more definitions before it ends."""


class Catalog:
    """Catalog of the definitions on disk."""

    __slots__ = ("_disk",)

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def items(self, kind: str) -> Iterator[tuple[bytes, bytes]]:
        """Return names and values of all definitions of a kind, in no useful order.  Raises
        `Corrupt`."""
        prefix = catalog_prefix(kind)
        return (item[1:] for item in self._scan(prefix, prefix[:-1] + b"\1"))

    def by_kind(self) -> dict[str, list[tuple[bytes, bytes]]]:
        """Return the names and values of all definitions there are.  Raises `Corrupt`."""
        kinds: dict[str, list[tuple[bytes, bytes]]] = {}
        for kind, name, value in self._scan(b"\0", None):
            kinds.setdefault(kind, []).append((name, value))
        return kinds

    def _scan(self, first: bytes, stop: bytes | None) -> Iterator[tuple[str, bytes, bytes]]:
        while True:
            with self._disk.view() as view:
                found = list(islice(view.scan(Table.CATALOG, first, stop), SLICE))
                items = [catalog_item(key, value) for key, value in found]
                following = bytes(found[-1][0]) + b"\0" if found else b""
            yield from items
            if len(items) < SLICE:
                return
            first = following
