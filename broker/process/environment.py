"""Environment of a node: its clock, its timers, its store, what it measures, how clients come in.

A daemon has those of the machine.  Who embeds nodes may give them others: a clock that can be
moved, a disk in memory, a disk that fails, a line to clients that can be cut.  What runs by the
loop itself (links between nodes) is no part of this.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from fluffle.broker.alarms import MachineMeasures, Measures
from fluffle.broker.base.clock import CallLater, Clock, SystemClock
from fluffle.storage.errors import StorageError
from fluffle.storage.store import Store, open_store

if TYPE_CHECKING:
    from fluffle.broker.queues.dead_letters import DeadLetterFrom

OpenStore: TypeAlias = Callable[[Callable[[StorageError], None]], Store]
"""Function that opens a store, given the callback for a failure of the disk.  Raises
`StorageError`."""


BACKLOG = 1024
"""Connections the kernel accepts for us while a turn lasts."""


CLOSE_WAIT_S = 3.0
"""How long clients have to answer the close of a node that stops."""


class ListeningServer(Protocol):
    def close(self) -> None:
        """Accept no more."""


Accept: TypeAlias = Callable[
    [Callable[[], asyncio.Protocol], socket.socket], Awaitable[ListeningServer]
]
"""Given what makes a connection, and the socket to listen on, which is its own from then on."""


async def accept(make: Callable[[], asyncio.Protocol], listening: socket.socket) -> ListeningServer:
    """Accept connections by the running loop."""
    loop = asyncio.get_running_loop()
    if listening.family == socket.AF_UNIX:
        return await loop.create_unix_server(make, sock=listening, backlog=BACKLOG)
    return await loop.create_server(make, sock=listening, backlog=BACKLOG)


class Environment(Protocol):
    """Clock, timers, store, measures and listener of one node."""

    @property
    def clock(self) -> Clock:
        """Clock for messages and queues."""

    @property
    def call_later(self) -> CallLater:
        """Timers by `clock`, never early: for messages and queues."""

    @property
    def clients_call_later(self) -> CallLater:
        """Timers for clients: how long they may be silent, and the like."""

    @property
    def measures(self) -> Measures:
        """Measures of its memory and its disk."""

    @property
    def close_wait_s(self) -> float:
        """How long clients have to answer the close of a node that stops."""

    def open_store(self, on_fatal: Callable[[StorageError], None], /) -> Store:
        """The same data each time, as the last process that had them open left them: see
        `OpenStore`."""

    async def accept(
        self, make: Callable[[], asyncio.Protocol], listening: socket.socket, /
    ) -> ListeningServer:
        """Listen for clients without TLS and without a proxy."""

    def seen_dead(self, inner: DeadLetterFrom) -> DeadLetterFrom:
        """Wrap the function that republishes dead letters, so that it may be observed."""

    def moved(self, clock: Clock) -> Clock:
        """Clock for messages, made from the one by which nodes watch each other."""


class MachineEnvironment:
    """The environment of a daemon, in the running loop."""

    close_wait_s = CLOSE_WAIT_S

    def __init__(self, data_dir: Path) -> None:
        loop = asyncio.get_running_loop()
        self.clock: Clock = SystemClock()
        self.call_later: CallLater = loop.call_later
        self.clients_call_later: CallLater = loop.call_later
        self.measures: Measures = MachineMeasures(data_dir)
        self._data_dir = data_dir
        self._call_soon = loop.call_soon_threadsafe

    def open_store(self, on_fatal: Callable[[StorageError], None]) -> Store:
        return store_in(self._data_dir, self._call_soon)(on_fatal)

    async def accept(
        self, make: Callable[[], asyncio.Protocol], listening: socket.socket
    ) -> ListeningServer:
        return await accept(make, listening)

    def seen_dead(self, inner: DeadLetterFrom) -> DeadLetterFrom:
        return inner

    def moved(self, clock: Clock) -> Clock:
        """The time of messages is that of machines."""
        return clock


def store_in(data_dir: Path, call_soon: Callable[[Callable[[], None]], object]) -> OpenStore:
    """A store of files."""

    def opened(on_fatal: Callable[[StorageError], None]) -> Store:
        return open_store(data_dir, call_soon=call_soon, on_fatal=on_fatal)

    return opened
