"""Whose the data of a store are, and in which lives their node has been: with the data themselves.

So they cannot part: a store that was wiped, or put back from a copy, remembers no more than it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgpack

from fluffle.broker.runtime.commits import Commits, WaitingCall
from fluffle.storage.errors import Corrupt
from fluffle.storage.file_mark import FileMark

IDENTITY = "identity"
"""The kind of this definition; there is one, without a name."""


class StoreOwner(NamedTuple):
    """Node that a store belongs to, and its boots."""

    node: str
    cluster: str
    """With the mark of the one that it has promised to found, or is of."""
    boot: int
    """How often it has been started."""
    nonces: tuple[bytes, ...]
    """Drawn at the last starts, the latest at the end."""
    began: tuple[int, ...] = ()
    """Which was the last commit of the store when each of them began, as far as that is known."""
    mark: FileMark | None = None
    """The mark of the file that they are in; None if any may be it."""
    founders: tuple[tuple[str, str, int], ...] = ()
    """With whom it has promised to found the cluster of that mark, the first of them in front:
    names, hosts and ports.  None if it has joined one."""
    left: tuple[str, ...] = ()
    """The marks of those that it has promised to found, and has given up for another."""


NOTHING_MORE: tuple[Any, ...] = ((), None, (), ())
"""Fields behind the first four, which earlier versions did not keep."""


class NodeIdentity:
    """Identity of the owner, as its store keeps it."""

    __slots__ = ("_commits", "owned")

    def __init__(self, items: Iterable[tuple[bytes, bytes]], commits: Commits) -> None:
        """`items` as they are on disk.  Raises `Corrupt`."""
        self._commits = commits
        self.owned = store_owner_of(items)
        """None if no node of a cluster has ever run with it."""

    def put(self, owned: StoreOwner, done: Callable[[], None] | None = None) -> None:
        """Put the identity on disk with the next commit; `done` is called once it is."""
        self.owned = owned
        self._commits.put(IDENTITY, b"", encoded(owned))
        if done is not None:
            self._commits.wait(WaitingCall(done), self._commits.ticket)


def store_owner_of(items: Iterable[tuple[bytes, bytes]]) -> StoreOwner | None:
    """Return the owner of a store by the definitions of this kind.  Raises `Corrupt`."""
    for _, value in items:
        try:
            node, cluster, boot, nonces, *later = msgpack.unpackb(value)
            began, mark, founders, left = [*list(later), *NOTHING_MORE[len(later) :]]
            file = FileMark(*mark) if mark is not None else None
            whom = tuple((name, host, port) for name, host, port in founders)
            return StoreOwner(
                node, cluster, boot, tuple(nonces), tuple(began), file, whom, tuple(left)
            )
        except (ValueError, TypeError) as error:
            raise Corrupt(f"catalog {IDENTITY}", f"it cannot be read: {error}") from error
    return None


def encoded(owned: StoreOwner) -> bytes:
    """Encode an identity as its definition has it."""
    value: bytes = msgpack.packb(owned)
    return value
