"""Connections of a node: which are open, and what ends them.

After a change of users, rights or virtual hosts many may have to be closed: a few are a turn
(`ForcedCloses`).  A client that misses one of its deadlines (to log in, to be heard, to read its
answers, to close) is hung up on, since it would not hear what was said to it.

Keep alives cost nothing while clients talk: each counts how often it is read, and is looked at
twice in its interval.  What is not read, since messages wait or an alarm is raised, cannot be
heard, and is not silent.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count
from typing import TYPE_CHECKING, Protocol

from fluffle.broker.base.callbacks import call_listener
from fluffle.broker.base.clock import CallLater, Timer
from fluffle.broker.base.errors import BrokerError, NodeStops
from fluffle.broker.metadata.metadata import Metadata
from fluffle.broker.queues.journal import Owner, QueueDefinition
from fluffle.broker.runtime.background import BackgroundTasks, Task
from fluffle.broker.runtime.turn import Shares
from fluffle.broker.vhosts.queue_changes import delete_owned
from fluffle.broker.vhosts.vhost import VirtualHost

if TYPE_CHECKING:
    from fluffle.broker.core.client import ClientConnection, ListedClient, SessionKeeper

FORCED_CLOSES_AT_ONCE = 25
"""Connections that are closed, or whose consumers are looked at, in a turn: each takes 0.1 ms, more
where there are many channels and messages."""

KEEP_ALIVE_SLOT_S = 0.5
"""Between two looks at those that are due; a client is due after as many slots as it has seconds,
which is half of its interval."""

SILENT_LOOKS_MAX = 3
"""Number of checks, each half a keep-alive interval apart, after which a silent client is closed:
MQTT allows one and a half intervals."""

NO_ANSWER = "no answer in time"

NOT_LOGGED_IN = "had not logged in when others needed its place"

logger = logging.getLogger(__name__)


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
        """True if it was a connection of this life of the node, and is none any more."""
        is_of_here = (owner.node, owner.boot) == (self.node, self._boot)
        return is_of_here and owner.number not in self._open


def delete_late(
    owners: Owners, metadata: Metadata, vhost: VirtualHost, definition: QueueDefinition
) -> None:
    """Delete an exclusive queue again that has come true after its connection had ended.

    What is proposed may come true long after all that waited have gone.  The node of the
    connection applies it like all others, and is the one that knows.
    """
    owner = definition.owner
    if owner is not None and owners.has_ended(owner):  # mutant: E2
        metadata.ensure(partial(delete_owned, vhost, owner))


class DeferredBytes:
    """Size of what the connections of a node have read and cannot act on yet."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0


class Connections:
    """A set of connections in the order they came.

    Of those without a login there are `strangers_max` at most; beyond, the oldest
    makes room.  Without that, clients without a password could take all sockets of the node.
    """

    __slots__ = (
        "_empty",
        "_open",
        "_strangers",
        "busy",
        "deferred",
        "next_number",
        "requests",
        "session_keepers",
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
        """Connections of `_open` without a login."""
        self.strangers_max = strangers_max
        self.next_number = count(1).__next__
        """Next number for a client without an address of its own."""
        self.busy: set[object] = set()
        """Connections that have more to do than fitted into their turn."""
        self._open: dict[ClientConnection, None] = {}
        self.requests: set[ListedClient] = set()
        """Clients of requests that publish or get messages now; they have no connection here."""
        self.session_keepers: list[SessionKeeper] = []
        """Keepers of the sessions that may outlive their connections."""
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def arriving_max(self) -> int:
        """Most clients of one port in the handshakes of TLS and PROXY: all ports together, and
        connections without a login, must leave sockets to others."""
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
        """Add a connection without a login."""
        if len(self._strangers) >= self.strangers_max:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.drop(NOT_LOGGED_IN)
        if not self._open:
            self._empty.clear()
        self._open[connection] = self._strangers[connection] = None

    def logged_in(self, connection: ClientConnection) -> None:
        """Count a connection as logged in: it is no longer closed in favour of newer ones."""
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
        """True if the last connection went within `timeout_s`."""
        try:
            await asyncio.wait_for(self._empty.wait(), timeout_s)
        except TimeoutError:
            return False
        return True


class ForcedCloses:
    """Closes of connections that are yet to come, in order."""

    __slots__ = ("_background_tasks", "_due")

    def __init__(self, background_tasks: BackgroundTasks) -> None:
        self._background_tasks = background_tasks
        self._due: deque[Callable[[], None]] = deque()

    def add(self, act: Callable[[], None]) -> None:
        """Call `act`, which raises nothing but bugs, in one of the next turns."""
        self._due.append(act)
        if len(self._due) == 1:
            self._background_tasks.add(self._work(), self._failed)

    def _work(self) -> Task:
        while self._due:
            for _ in range(min(FORCED_CLOSES_AT_ONCE, len(self._due))):
                self._due[0]()
                self._due.popleft()
            yield None

    def _failed(self, _error: Exception) -> None:
        """A bug in one of them keeps the others from nothing."""
        self._due.popleft()
        self._background_tasks.add(self._work(), self._failed)


def close_connection(connection: ClientConnection, why: BrokerError) -> None:
    """Close a connection, or cut it off if that cannot be done in order.

    AssertionError if what it believes is wrong.
    """
    try:
        connection.fail(why)
    except AssertionError:
        raise
    except Exception:
        logger.exception("%s could not be closed in order", connection.name)
        connection.drop()


def forced_close(reason: str) -> NodeStops:
    """The error that clients hear when the node stops."""
    return NodeStops(f"broker forced connection closure with reason '{reason}'")


class DroppedConnection(Protocol):
    """Connection whose client may miss a deadline."""

    def drop(self, reason: str) -> None:
        """Hang up; `reason` is what the client has not done."""


@dataclass(slots=True, eq=False)
class Deadlines:
    """Deadlines of one connection, until `end`."""

    _call_later: Callable[[float, Callable[[], None]], Timer]
    _connection: DroppedConnection | None
    """None after the end."""
    _timers: dict[str, Timer] = field(default_factory=dict, init=False)
    _is_over: bool = field(default=False, init=False)

    def give(self, what: str, seconds: float, failure: str) -> None:
        """`what` has to be done in `seconds`, or it is a `failure`; what is under way goes on."""
        if what not in self._timers and not self._is_over:
            self._timers[what] = self._call_later(seconds, partial(self._hang_up, failure))

    def met(self, what: str) -> None:
        """The client has done this in time: its deadline ends."""
        if not self._is_over:
            self._timers.pop(what).cancel()

    def check_every(
        self, seconds: float, what: str, is_met: Callable[[], bool], failure: str
    ) -> None:
        """Ask so often whether the client still does `what`; a `failure` once it does not."""
        act = partial(self._check, seconds, what, is_met, failure)
        self._timers[what] = self._call_later(seconds, act)

    def _check(self, seconds: float, what: str, is_met: Callable[[], bool], failure: str) -> None:
        if is_met():
            self.check_every(seconds, what, is_met, failure)
        else:
            self._hang_up(failure)

    def end(self) -> None:
        """The connection is gone, and nothing here keeps it alive."""
        self._is_over = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._connection = None

    def _hang_up(self, failure: str) -> None:
        if self._connection is not None:
            self._connection.drop(failure)


class Silence:
    """Silence of one client, measured in looks at how often it has been read."""

    __slots__ = ("_grace_looks", "_looks", "_looks_max", "_reads")

    def __init__(self, looks_max: int, reads: int, *, grace_looks: int = 0) -> None:
        """`grace_looks` do not count behind one at which it was not read, since it may be read only
        since just before them."""
        self._looks_max = looks_max
        self._grace_looks = grace_looks
        self._looks = 0
        """Looks in a row at which nothing new had been read."""
        self._reads = reads

    def is_too_long(self, reads: int, *, is_read: bool) -> bool:
        """Look once more.  `reads`: how often it has been read in all; `is_read`: whether it would
        be heard if it said something."""
        if reads != self._reads:
            self._looks = 0
            self._reads = reads
        elif is_read:
            self._looks += 1
        else:
            self._looks = -self._grace_looks
        return self._looks >= self._looks_max


class WatchedClient(Protocol):
    """Client that has promised to say something in each of its intervals."""

    @property
    def reads(self) -> int:
        """How often something came from it."""

    @property
    def is_read(self) -> bool:
        """True if what it says is read now."""

    def on_silence(self) -> None:
        """End a connection that has been silent for one and a half of its intervals."""


class WatchedSilence:
    """Silence of a watched client, with the slot at which it is looked at next."""

    __slots__ = ("due", "interval_slots", "silence")

    def __init__(self, client: WatchedClient, keep_alive_s: int, slot: int) -> None:
        self.silence = Silence(SILENT_LOOKS_MAX, client.reads, grace_looks=1)
        self.interval_slots = keep_alive_s
        self.due = slot


class KeepAlives:
    """Keep alives of the clients of a node, with one timer for all of them.

    A client is given up after one and a half of its intervals, and before two of them are over.
    """

    __slots__ = ("_call_later", "_clients", "_now", "_slots", "_timer")

    def __init__(self, call_later: CallLater) -> None:
        self._call_later = call_later
        self._clients: dict[WatchedClient, WatchedSilence] = {}
        self._slots: dict[int, dict[WatchedClient, None]] = {}
        """Clients that are due, by number of the slot."""
        self._now = 0
        self._timer: Timer | None = None
        """None while there are no clients."""

    def __len__(self) -> int:
        return len(self._clients)

    def add(self, client: WatchedClient, keep_alive_s: int) -> None:
        """Watch a client that has just been heard; an interval of 0 is none."""
        if not keep_alive_s:
            return
        watched = WatchedSilence(client, keep_alive_s, self._now + keep_alive_s + 1)
        self._clients[client] = watched
        self._slots.setdefault(watched.due, {})[client] = None
        if self._timer is None:
            self._timer = self._call_later(KEEP_ALIVE_SLOT_S, self._look)

    def discard(self, client: WatchedClient) -> None:
        """Watch a client no more, if it is watched."""
        watched = self._clients.pop(client, None)
        if watched is None:
            return
        slot = self._slots.get(watched.due, {})
        slot.pop(client, None)
        if not slot:
            self._slots.pop(watched.due, None)
        if not self._clients and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = self._call_later(KEEP_ALIVE_SLOT_S, self._look)
        self._now += 1
        silent = []
        for client in self._slots.pop(self._now, ()):
            watched = self._clients[client]
            if watched.silence.is_too_long(client.reads, is_read=client.is_read):
                silent.append(client)
            watched.due += watched.interval_slots
            self._slots.setdefault(watched.due, {})[client] = None
        for client in silent:
            self.discard(client)
            call_listener(client.on_silence)
