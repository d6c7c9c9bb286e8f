"""Storage of a node: the store, the commits to it, its definitions and its messages.

A start goes so: `open_durability`, everything in the image is built again, `forget`, and only
when `durable` has returned may clients come.  An end in order is `close`.

When memory is short (`PageOut`) queues keep on disk what they can, at the pace of the disk.
Connections forget what they can find out again, and a client that leaves very many answers unread
is not waited for any longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from fluffle.broker.base.client_session import page_of
from fluffle.broker.durability.deduplication_keys import KEYS
from fluffle.broker.durability.fact_codec import (
    KEPT,
    DefinitionImage,
    VhostImage,
    decode,
    encode,
    encode_key,
    encode_keys,
)
from fluffle.broker.durability.local_journal import (
    JOURNAL,
    NUMBER,
    SEEN,
    SPILL,
    ClusterJournals,
    LocalJournals,
    delete_spilled,
    read_seen,
)
from fluffle.broker.durability.node_identity import IDENTITY, KNOWN_PEER, KnownPeers, NodeIdentity
from fluffle.broker.durability.priority_journal import LEVEL
from fluffle.broker.metadata.change import FactGroup, Key, Kind
from fluffle.broker.process.environment import OpenStore
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import PageStore
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import PREDECLARED
from fluffle.broker.runtime.commits import Commits
from fluffle.broker.runtime.turn import Turn
from fluffle.storage.errors import Corrupt, StorageError
from fluffle.storage.store import Store


class RelievedConnections(Protocol):
    """The connections of clients, which take memory, too."""

    def relieve(self) -> None:
        """Have them do with less."""


@dataclass(slots=True, eq=False)
class PageOut:
    """Goes from queue to queue, and on when the disk has taken what came from them.

    A queue may be longer than what is left of memory, and what is being written is there twice.
    """

    _queues: Callable[[], Iterable[Queue]]
    _spill: PageStore
    _commits: Commits
    _connections: RelievedConnections
    _left: list[Queue] = field(default_factory=list, init=False)
    """Queues whose turn is yet to come."""

    def rest(self) -> None:
        """Stop: messages may stay in memory again."""
        self._spill.is_wanted = False
        self._left.clear()

    def shed(self) -> None:
        """Have messages leave memory, unless that is under way."""
        self._spill.is_wanted = True
        self._connections.relieve()
        if not self._left:
            self._left = sorted(self._queues(), key=lambda queue: queue.ready_count)
            self._go_on()

    def _go_on(self) -> None:
        """Page out queues, the longest first, until the disk is behind."""
        while self._left:
            if self._commits.is_behind:
                self._commits.when_caught_up(self._go_on)
                return
            if self._left[-1].shed():
                self._left.pop()


Definitions: TypeAlias = Mapping[str, Sequence[tuple[bytes, bytes]]]
"""Names and values as they are on disk, by kind."""


def read_image(definitions: Definitions) -> DefinitionImage:
    """Build the image of what is on disk, everything in the order of its name.

    A fact in a virtual host, an exchange or a queue that is not there is damage: facts are written
    in the order in which they became true, and removed together.  Raises `Corrupt`, and
    `StorageError` for what a later version wrote.
    """
    image = DefinitionImage()
    for _, first_start in _facts(definitions, Kind.STARTED):
        image.first_start = first_start
    tables = image.tables
    tables.users.update((user.name, user) for _, user in _facts(definitions, Kind.USER))
    tables.permissions.update(_facts(definitions, Kind.PERMISSION))
    tables.topic_permissions.update(_facts(definitions, Kind.TOPIC_PERMISSION))
    for (name,), settings in _facts(definitions, Kind.VHOST):
        image.vhosts[name] = VhostImage(settings)
    for (name,), _ in _facts(definitions, Kind.DOOMED):
        if name not in image.vhosts:
            raise Corrupt(f"catalog {Kind.DOOMED} {name!r}", "there is no such vhost")
        image.doomed.append(name)
    for key, exchange in _facts(definitions, Kind.EXCHANGE):
        _vhost(image, Kind.EXCHANGE, key).exchanges.append(exchange)
    for key, queue in _facts(definitions, Kind.QUEUE):
        _vhost(image, Kind.QUEUE, key).queues.append(queue._replace(successor=None))
    for key, binding in _facts(definitions, Kind.BINDING):
        _vhost(image, Kind.BINDING, key).bindings.append(binding)
    for key, message in _facts(definitions, Kind.RETAINED):
        _vhost(image, Kind.RETAINED, key).retained[key[1]] = message
    for key, session in _facts(definitions, Kind.CLIENT_SESSION):
        _vhost(image, Kind.CLIENT_SESSION, key).client_sessions[key[1]] = session
    for key, page in _facts(definitions, Kind.CLIENT_PACKETS):
        vhost = _vhost(image, Kind.CLIENT_PACKETS, key)
        if key[1] not in vhost.client_sessions:
            raise Corrupt(f"catalog {Kind.CLIENT_PACKETS} {key[1]!r}", "there is no such session")
        packets = vhost.client_packets
        packets.setdefault(key[1], {})[page_of(key)] = page
    for key, will in _facts(definitions, Kind.CLIENT_WILL):
        _vhost(image, Kind.CLIENT_WILL, key).due_wills[key[1:]] = will
    for vhost in image.vhosts.values():
        _check_bindings(vhost)
    for kind in KEPT:
        image.kept[kind].update(_facts(definitions, kind))
    return image


def _facts(definitions: Definitions, kind: Kind) -> Iterator[tuple[Any, Any]]:
    facts = [decode(kind, name, value) for name, value in definitions.get(kind, ())]
    return iter(sorted(facts, key=lambda fact: fact[0]))


def _vhost(image: DefinitionImage, kind: Kind, key: Key) -> VhostImage:
    vhost = image.vhosts.get(str(key[0]))
    if vhost is None:
        raise Corrupt(f"catalog {kind} {key[1]!r}", f"there is no vhost {key[0]!r}")
    return vhost


def _check_bindings(vhost: VhostImage) -> None:
    exchanges = {spec.name for spec in (*PREDECLARED, *vhost.exchanges)}
    queues = {queue.spec.name for queue in vhost.queues}
    for binding in vhost.bindings:
        is_queue = binding.destination_kind is DestinationKind.QUEUE
        if binding.source not in exchanges:
            raise _dangling(binding, f"there is no exchange '{binding.source}'")
        if binding.destination not in (queues if is_queue else exchanges):
            kind = binding.destination_kind.value
            raise _dangling(binding, f"there is no {kind} '{binding.destination}'")


def _dangling(binding: Binding, why: str) -> Corrupt:
    where = f"catalog binding from '{binding.source}' to '{binding.destination}'"
    return Corrupt(where, why)


class FactRecorder:
    """Recorder that has each fact written by the commit that collects."""

    def __init__(self, commits: Commits) -> None:
        self._commits = commits

    def put(self, kind: Kind, key: Key, value: object) -> None:
        self._commits.put(kind, encode_key(key), encode(kind, value))

    def remove(self, kind: Kind, key: Key) -> None:
        self._commits.remove(kind, encode_key(key))

    def remove_group(self, group: FactGroup) -> None:
        self._commits.remove_all(group.kind, encode_keys(group), len(group.values))

    def together(self) -> AbstractContextManager[None]:
        return self._commits.together()


KINDS = frozenset((*Kind, SEEN, SPILL, KNOWN_PEER, IDENTITY, JOURNAL, KEYS, LEVEL))
"""All that this version writes."""


class Durability:
    """The durable side of one node."""

    def __init__(self, store: Store, turn: Turn) -> None:
        """Raises `Corrupt`, and `StorageError` for what a later version wrote."""
        self.store = store
        self.commits = Commits(store, turn)
        self.facts = FactRecorder(self.commits)
        definitions = store.catalog.by_kind()
        unknown = definitions.keys() - KINDS
        if unknown:
            raise StorageError(
                f"the store has definitions that this version does not know: "
                f"{', '.join(sorted(unknown))}; nothing has been changed"
            )
        self.image = read_image(definitions)
        """Definitions as the process before stored them."""
        self._seen_below = read_seen(definitions.get(SEEN, ()))
        self._spilled = definitions.get(SPILL, [])
        self.known_peers = KnownPeers(definitions.get(KNOWN_PEER, ()), self.commits)
        """Other nodes; none for one that was always alone."""
        self.identity = NodeIdentity(definitions.get(IDENTITY, ()), self.commits)
        """Empty for a node that was always alone."""
        levels, keys = definitions.get(LEVEL, ()), definitions.get(KEYS, ())
        self.journals = LocalJournals(store.log, self.commits, self._seen_below, levels, keys)
        items = definitions.get(JOURNAL, ())
        self.journals_by_id = ClusterJournals(items, self.journals, self.commits)
        """Journals of a cluster's queues by id."""
        self._is_closed = False
        self._awaited: asyncio.Future[None] | None = None
        """Future that `durable` awaits, once it was called."""

    def forget(self) -> None:
        """Begin to deliver messages: what was noted of deliveries is no longer true.

        And what was only spilled by an earlier process is of no use to this one.
        """
        delete_spilled(self._spilled, self.commits)
        for group in self._seen_below:
            self.commits.remove(SEEN, NUMBER.pack(group))

    async def durable(self) -> None:
        """Wait until everything that was put so far is on disk.  Raises what it fails by."""
        self._awaited = done = asyncio.get_running_loop().create_future()
        self.commits.wait(CommitFuture(done), self.commits.ticket)
        self.commits.flush()
        await done

    def give_up(self, error: Exception) -> None:
        """Stop writing, since nothing can be made durable any more, and let no caller wait."""
        self.commits.has_given_up = True
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_exception(error)

    def close(self, queues: Iterable[Queue]) -> None:
        """Write what is left, and of each queue what was never delivered.  Waits for the disk.

        Does nothing the second time.
        """
        if self._is_closed:
            return
        self._is_closed = True
        for queue in () if self.commits.has_given_up else queues:
            if queue.journal is not None:
                for group, number in queue.unseen:
                    self.commits.put(SEEN, NUMBER.pack(group), NUMBER.pack(number))
        self.commits.close()


class CommitFuture:
    """Future that ends with a commit."""

    __slots__ = ("_done",)

    def __init__(self, done: asyncio.Future[None]) -> None:
        self._done = done

    def on_durable(self, ticket: int) -> None:
        del ticket
        if not self._done.done():
            self._done.set_result(None)


def open_durability(
    open_store: OpenStore, turn: Turn, *, on_fatal: Callable[[StorageError], None]
) -> Durability:
    """Open what a node keeps.  Raises `StorageError`."""
    store = open_store(on_fatal)
    try:
        return Durability(store, turn)
    except BaseException:
        store.close()
        raise
