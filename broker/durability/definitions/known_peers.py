"""Known peers: other nodes as this one last heard of them, stored on its own disk.

It needs that before it can hear from any of them what all know together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgpack

from fluffle.broker.config.config import ListenAddress
from fluffle.broker.runtime.commits import Commits
from fluffle.storage.errors import Corrupt

KNOWN_PEER = "acquaintance"
"""The kind of these definitions."""

UNREADABLE = (ValueError, TypeError)


class KnownPeer(NamedTuple):
    """Another node, as it was last heard of."""

    address: ListenAddress | None = None
    """None if it was never said where it is."""
    boot: int = 0
    nonce: bytes = b""
    id: int = 0
    """As it is registered."""
    reached: tuple[tuple[int, int, int], ...] = ()
    """How far its disk is known to have come, in some of its lives: see `storage_progress`."""
    began: tuple[int, int, tuple[int, ...]] = (0, 0, ())
    """The commits with which its last lives began: see `Beginnings`."""


class KnownPeers:
    """The others by name, each change of which is on disk soon."""

    __slots__ = ("_commits", "_known")

    def __init__(self, items: Iterable[tuple[bytes, bytes]], commits: Commits) -> None:
        """`items` as they are on disk.  Raises `Corrupt`."""
        self._commits = commits
        self._known = dict(_decoded(name, value) for name, value in items)

    @property
    def known(self) -> Mapping[str, KnownPeer]:
        return self._known

    def id_of(self, node: str) -> int:
        return self._known.get(node, KnownPeer()).id

    def meet(self, node: str, address: ListenAddress, registered: int) -> None:
        """Note that a peer is registered under this `id`."""
        known = self._known.get(node, KnownPeer())
        self._put(node, known._replace(address=address, id=registered))

    def lives(self, node: str, boot: int, nonce: bytes) -> None:
        """Note the life in which a peer is."""
        known = self._known.get(node, KnownPeer())
        self._put(node, known._replace(boot=boot, nonce=nonce))

    def has_reached(
        self,
        node: str,
        rows: Sequence[tuple[int, int, int]],
        began: tuple[int, int, tuple[int, ...]],
    ) -> None:
        """Note how far the disk of a peer has come; it is on this disk with whatever is written
        next.

        No commit begins for it: each would be sent, and remembered, and so on for ever.
        """
        known = self._known.get(node, KnownPeer())._replace(reached=tuple(rows), began=began)
        self._known[node] = known
        self._commits.batch().put(KNOWN_PEER, node.encode(), encoded(known))

    def forget(self, node: str) -> None:
        if self._known.pop(node, None) is not None:
            self._commits.remove(KNOWN_PEER, node.encode())

    def _put(self, node: str, peer: KnownPeer) -> None:
        if self._known.get(node) == peer:
            return
        self._known[node] = peer
        self._commits.put(KNOWN_PEER, node.encode(), encoded(peer))


def encoded(peer: KnownPeer) -> bytes:
    """Return a peer as bytes; what it has reached last is apart, as it was alone once."""
    address = peer.address
    where = None if address is None else (address.host, address.port)
    *earlier, newest = peer.reached or [(0, 0, 0)]
    value: bytes = msgpack.packb((where, *peer[1:4], newest, earlier, peer.began))
    return value


def _decoded(name: bytes, value: bytes) -> tuple[str, KnownPeer]:
    try:
        where, boot, nonce, registered, *later = msgpack.unpackb(value)
        address = None if where is None else ListenAddress(*where)
        newest = later[0] if later else (0, 0, 0)
        rows = (*later[1], newest) if len(later) > 1 else (newest,)
        reached = tuple((incarnation, life, commit) for incarnation, life, commit in rows)
        if not reached[-1][0]:
            reached = ()
        incarnation, life, commits = later[2] if len(later) > 2 else (0, 0, ())
        began = incarnation, life, tuple(commits)
        return name.decode(), KnownPeer(address, boot, nonce, registered, reached, began)
    except UNREADABLE as error:
        raise Corrupt(f"catalog {KNOWN_PEER} {name!r}", f"it cannot be read: {error}") from error
