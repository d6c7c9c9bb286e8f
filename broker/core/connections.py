"""The open connections of a node, and a way to wait until there are none."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, count
from typing import TYPE_CHECKING

from fluffle.broker.metadata.metadata import Metadata
from fluffle.broker.queues.journal import Owner, QueueDefinition
from fluffle.broker.vhosts.queue_changes import delete_owned
from fluffle.broker.vhosts.vhost import VirtualHost

if TYPE_CHECKING:
    from fluffle.broker.core.client import ClientConnection, ListedClient


SHARE_S = 0.002
"""The time that all connections that have more to do than that may take of a turn, together."""

SHARE_S_MIN = 0.0002
"""The time that each of them may take, however many they are: less would be spent on the
changes."""


class Shares:
    """Time shares of the event loop, which limit how long one connection may act.

    Loops read a socket again and again while there is more, so a share is not of a read: what a
    connection has left of it counts until another has acted.  `now_s` is any clock.
    """

    __slots__ = ("_holder", "_left_s", "now_s")

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.now_s = now_s
        self._holder: object = None
        """The connection that has acted last, if it is still there and something is left to it."""
        self._left_s = 0.0

    def begin(self, holder: object, busy: int) -> float:
        """Until when `holder` may act, where so many others have more to do than they may."""
        if holder is not self._holder:
            self._holder = holder
            self._left_s = max(SHARE_S_MIN, SHARE_S / (1 + busy))
        return self.now_s() + self._left_s

    def forget(self, holder: object) -> None:
        """The connection is there no more."""
        if self._holder is holder:
            self._holder = None

    def end(self, until_s: float) -> bool:
        """The connection has acted; whether its share is used up, so that it has to wait for the
        others."""
        self._left_s = until_s - self.now_s()
        if self._left_s > 0:
            return False
        self._holder = None
        return True


class Owners:
    """The connections of one node, by name, as owners of queues: which there are."""

    __slots__ = ("_boot", "_numbers", "_open", "node")

    def __init__(self, node: str, boot: int = 0) -> None:
        """Nothing that a lone node remembers has an owner, so that it needs no boot."""
        self.node = node
        self._boot = boot
        self._numbers = count(1)
        self._open: set[int] = set()
        """Numbers of those that have not ended."""

    def of(self, name: str) -> Owner:
        """A connection that is shown by that name, and has just been opened."""
        number = next(self._numbers)
        self._open.add(number)
        return Owner(self.node, self._boot, number, name)

    def end(self, owner: Owner) -> None:
        """A connection has ended: what is declared for it comes too late."""
        self._open.discard(owner.number)

    def has_ended(self, owner: Owner) -> bool:
        """Whether it was a connection of this life of the node, and is none any more."""
        is_of_here = (owner.node, owner.boot) == (self.node, self._boot)
        return is_of_here and owner.number not in self._open


def delete_late(
    owners: Owners, metadata: Metadata, vhost: VirtualHost, definition: QueueDefinition
) -> None:
    """Delete an exclusive queue again that has come true after its connection had ended.

    What is proposed may come true long after everybody who waited has gone.  The node of the
    connection applies it like all others, and is the one that knows.
    """
    owner = definition.owner
    if owner is not None and owners.has_ended(owner):  # mutant: E2
        metadata.settle(partial(delete_owned, vhost, owner))


class DeferredBytes:
    """Size of what the connections of a node have read and cannot act on yet."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0


NOT_LOGGED_IN = "had not logged in when others needed its place"


class Connections:
    """A set of connections in the order they came.

    Of those on which nobody has logged in there are `strangers_max` at most; beyond, the oldest
    makes room.  Without that, who has no password could take all sockets of the node.
    """

    __slots__ = (
        "_empty",
        "_open",
        "_strangers",
        "busy",
        "deferred",
        "next_number",
        "requests",
        "shares",
        "strangers_max",
    )

    def __init__(
        self, strangers_max: int = sys.maxsize, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.shares = Shares(now_s)
        """How long each may act."""
        self.deferred = DeferredBytes()
        self._strangers: dict[ClientConnection, None] = {}
        """Those of `_open` on which nobody has logged in."""
        self.strangers_max = strangers_max
        self.next_number = count(1).__next__
        """For one that has no address of its own."""
        self.busy: set[ClientConnection] = set()
        """Those that have more to do than fitted into their turn."""
        self._open: dict[ClientConnection, None] = {}
        self.requests: set[ListedClient] = set()
        """Clients of requests that publish or get messages now; they have no connection here."""
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def arriving_max(self) -> int:
        """How many clients there may be at one port in the handshakes of TLS and PROXY: all ports
        together, and those on which nobody has logged in, must leave sockets to others."""
        return max(1, self.strangers_max // 4)

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[ClientConnection]:
        return iter(tuple(self._open))

    @property
    def listed(self) -> Iterator[ListedClient]:
        """All that lists show: connections, and clients of requests."""
        return chain(self, tuple(self.requests))

    def add(self, connection: ClientConnection) -> None:
        """There is one more, on which nobody has logged in."""
        if len(self._strangers) >= self.strangers_max:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.drop(NOT_LOGGED_IN)
        self._open[connection] = self._strangers[connection] = None
        self._empty.clear()

    def logged_in(self, connection: ClientConnection) -> None:
        """Somebody has, and keeps the connection whoever else comes."""
        self._strangers.pop(connection, None)

    def discard(self, connection: ClientConnection) -> None:
        self._open.pop(connection, None)
        self._strangers.pop(connection, None)
        self.busy.discard(connection)
        self.shares.forget(connection)
        if not self._open:
            self._empty.set()

    def relieve(self) -> None:
        """Memory is short: have them take less."""
        for connection in self:
            connection.relieve()

    async def wait_empty(self, timeout_s: float) -> bool:
        """Whether the last connection went within `timeout_s`."""
        try:
            await asyncio.wait_for(self._empty.wait(), timeout_s)
        except TimeoutError:
            return False
        return True
