"""Environment of a node: its clock, its timers, its store, how clients come in.

A daemon has those of the machine.  Who embeds nodes may give them others: a clock that can be
moved, a disk in memory, a disk that fails, a line to clients that can be cut.  What runs by the
loop itself (links between nodes) is no part of this.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from fluffle.broker.base.clock import CallLater, Clock, SystemClock
from fluffle.storage.errors import StorageError
from fluffle.storage.store import Store, open_store

if TYPE_CHECKING:
    from fluffle.broker.core.observer import Observer
    from fluffle.broker.queues.dead_letter_port import DeadLetterFrom

OpenStore: TypeAlias = Callable[[Callable[[StorageError], None]], Store]
"""Given whom to tell that the disk has failed.  Raises `StorageError`."""


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
    """By the running loop."""
    loop = asyncio.get_running_loop()
    if listening.family == socket.AF_UNIX:
        return await loop.create_unix_server(make, sock=listening, backlog=BACKLOG)
    return await loop.create_server(make, sock=listening, backlog=BACKLOG)


def dead_letters_unobserved(inner: DeadLetterFrom) -> DeadLetterFrom:
    """Where nobody wants to see it."""
    return inner


def same_clock(clock: Clock) -> Clock:
    """The time of messages is that of machines."""
    return clock


class Environment(NamedTuple):
    """Clock, timers, store and listener of one node."""

    clock: Clock
    """For messages and queues."""
    call_later: CallLater
    """By `clock`, and never before it says so: for messages and queues."""
    clients_call_later: CallLater
    """For how long clients may be silent, and the like."""
    open_store: OpenStore
    """The same data each time, as the last one who had them open left them."""
    accept: Accept = accept
    """For clients without TLS that come by themselves and not through a proxy."""
    close_wait_s: float = CLOSE_WAIT_S
    observers: tuple[Observer, ...] = ()
    """See what clients do; nobody does in a daemon."""
    seen_dead: Callable[[DeadLetterFrom], DeadLetterFrom] = dead_letters_unobserved
    """Who sees what has died in queues, before it is published again by what is given."""
    moved: Callable[[Clock], Clock] = same_clock
    """What a clock of machines, which nodes watch each other by, is to show for messages."""


def machine_environment(data_dir: Path) -> Environment:
    """For a node in the running loop."""
    loop = asyncio.get_running_loop()
    later = loop.call_later
    return Environment(SystemClock(), later, later, store_in(data_dir, loop.call_soon_threadsafe))


def store_in(data_dir: Path, call_soon: Callable[[Callable[[], None]], object]) -> OpenStore:
    """A store of files."""

    def opened(on_fatal: Callable[[StorageError], None]) -> Store:
        return open_store(data_dir, call_soon=call_soon, on_fatal=on_fatal)

    return opened
