"""Identity of a node on disk: the owner of the store, the node's boots, and the peers that it
knows.

The identity is with the data themselves, so that they cannot part: a store that was wiped, or put
back from a copy, remembers no more than it has.  Peers are as this node last heard of them, which
it needs before it can hear from any of them what all know together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgpack

from fluffle.broker.config.config import ListenAddress
from fluffle.broker.runtime.commits import Commits, WaitingCall
from fluffle.storage.errors import Corrupt
from fluffle.storage.file_mark import FileMark

IDENTITY = "identity"
"""The kind of this definition; there is one, without a name."""

KNOWN_PEER = "acquaintance"
"""The kind of these definitions."""

NOTHING_MORE: tuple[Any, ...] = ((), None, (), ())
"""Fields behind the first four, which earlier versions did not keep."""

UNREADABLE = (ValueError, TypeError)


# Identity


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
    """Number of the store's last commit when each of them began, as far as known."""
    mark: FileMark | None = None
    """The mark of the file that they are in; None if any may be it."""
    founders: tuple[tuple[str, str, int], ...] = ()
    """Nodes with which it has promised to found the cluster of that mark, the first of them in
    front: names, hosts and ports.  None if it has joined one."""
    left: tuple[str, ...] = ()
    """The marks of those that it has promised to found, and has given up for another."""


class NodeIdentity:
    """Identity of the owner, as its store keeps it."""

    def __init__(self, items: Iterable[tuple[bytes, bytes]], commits: Commits) -> None:
        """`items` as they are on disk.  Raises `Corrupt`."""
        self._commits = commits
        self.owned = store_owner_of(items)
        """None if no node of a cluster has ever run with it."""

    def put(self, owned: StoreOwner, done: Callable[[], None] | None = None) -> None:
        """Put the identity on disk with the next commit; `done` is called once it is."""
        self.owned = owned
        self._commits.put(IDENTITY, b"", encode_store_owner(owned))
        if done is not None:
            self._commits.wait(WaitingCall(done), self._commits.ticket)


def store_owner_of(items: Iterable[tuple[bytes, bytes]]) -> StoreOwner | None:
    """Return the owner of a store by the definitions of this kind.  Raises `Corrupt`."""
    for _, value in items:
        try:
            node, cluster, boot, nonces, *later = msgpack.unpackb(value)
            began, mark, founders, left = [*list(later), *NOTHING_MORE[len(later) :]]
            file = FileMark(*mark) if mark is not None else None
            promised_to = tuple((name, host, port) for name, host, port in founders)
            return StoreOwner(
                node, cluster, boot, tuple(nonces), tuple(began), file, promised_to, tuple(left)
            )
        except (ValueError, TypeError) as error:
            raise Corrupt(f"catalog {IDENTITY}", f"it cannot be read: {error}") from error
    return None


def encode_store_owner(owned: StoreOwner) -> bytes:
    """Encode an identity as its definition has it."""
    value: bytes = msgpack.packb(owned)
    return value


# Known peers


class KnownPeer(NamedTuple):
    """Another node, as it was last heard of."""

    address: ListenAddress | None = None
    """None if it was never said where it is."""
    boot: int = 0
    nonce: bytes = b""
    id: int = 0
    """Id under which it is registered."""
    reached: tuple[tuple[int, int, int], ...] = ()
    """How far its disk is known to have come, in some of its lives: see `storage_progress`."""
    began: tuple[int, int, tuple[int, ...]] = (0, 0, ())
    """The commits with which its last lives began: see `Beginnings`."""


class KnownPeers:
    """The others by name, each change of which is on disk soon."""

    def __init__(self, items: Iterable[tuple[bytes, bytes]], commits: Commits) -> None:
        """`items` as they are on disk.  Raises `Corrupt`."""
        self._commits = commits
        self._known = dict(decode_peer(name, value) for name, value in items)

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
        self._commits.batch().put(KNOWN_PEER, node.encode(), encode_peer(known))

    def forget(self, node: str) -> None:
        if self._known.pop(node, None) is not None:
            self._commits.remove(KNOWN_PEER, node.encode())

    def _put(self, node: str, peer: KnownPeer) -> None:
        if self._known.get(node) == peer:
            return
        self._known[node] = peer
        self._commits.put(KNOWN_PEER, node.encode(), encode_peer(peer))


def encode_peer(peer: KnownPeer) -> bytes:
    """Return a peer as bytes; what it has reached last is apart, as it was alone once."""
    address = peer.address
    where = None if address is None else (address.host, address.port)
    *earlier, newest = peer.reached or [(0, 0, 0)]
    value: bytes = msgpack.packb((where, *peer[1:4], newest, earlier, peer.began))
    return value


def decode_peer(name: bytes, value: bytes) -> tuple[str, KnownPeer]:
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
