"""`ClientAcceptor`: accepts the clients of one broker, with a `TappedConnection` for each.

While it is shut the address stays its own: a socket that is bound and does not listen refuses
whoever comes.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from fluffle.broker.access.access import Access, LoginAnswer, LoginRefused
from fluffle.broker.process.environment import BACKLOG, ListeningServer
from fluffle.broker.process.sockets import Acceptor
from fluffle.broker.protocols.amqp091.connection import Connection
from fluffle.broker.testing.faults.tapped_transport import TappedConnection

Make = Callable[[], asyncio.Protocol]
Plan = Callable[[TappedConnection], None]
"""What is to be done to a tap once its client is there."""

CLOSE_WAIT_S = 0.1
"""The limit instead of a node's: what a test has left open mostly has no client any more, so that
no answer would come later."""


class RefusedLogins:
    """`Access` in the eyes of who logs in while logins are refused."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def __getattr__(self, name: str) -> object:
        return getattr(self._access, name)

    def login(self, name: str, _password: bytes, answer: LoginAnswer, **_of: object) -> None:
        answer(self.admit(name, from_loopback=True))

    def admit(self, name: str, *, from_loopback: bool) -> LoginRefused:
        del from_loopback
        return LoginRefused(f"user '{name}' may not log in: a test has it so")


class ListenAddress:
    """Address on which clients are accepted, or refused for a while: a `ListeningServer`."""

    __slots__ = ("_address", "_doorway", "_kept", "_make", "_protocol")

    def __init__(self, make: Make, listening: socket.socket) -> None:
        self._make = make
        self._address = listening.family, listening.getsockname()
        self._protocol = listening.proto
        self._doorway: Acceptor | None = None
        """None while no client is let in."""
        self._kept: socket.socket | None = None
        """Bound to the address meanwhile."""
        self._listen(listening)

    def _listen(self, listening: socket.socket) -> None:
        listening.listen(BACKLOG)
        self._doorway = Acceptor(self._let_in)
        self._doorway.open(listening)

    def _bound(self) -> socket.socket:
        """Bind the address again, unless another process has.  OSError."""
        family, address = self._address
        if family == socket.AF_UNIX:
            Path(address).unlink(missing_ok=True)
        bound = socket.socket(family, proto=self._protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
        return bound

    async def _let_in(self, client: socket.socket, _address: tuple[Any, ...]) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(self._make, client)

    def shut(self) -> None:
        """Refuse new connections.  OSError if another process has taken the address: it answers
        now."""
        if self._doorway is not None:
            self._doorway.close()
            self._doorway = None
            self._kept = self._bound()

    def open(self) -> None:
        """Accept again.  OSError as above."""
        if self._doorway is None:
            bound, self._kept = self._kept or self._bound(), None
            self._listen(bound)

    def close(self) -> None:
        for each in (self._kept, self._doorway):
            if each is not None:
                each.close()


class ClientAcceptor:
    """Acceptor of the clients of one broker."""

    __slots__ = ("_entries", "_shutting", "_taps", "lasting_plans", "plans", "refusing_logins")

    def __init__(self) -> None:
        self._entries: list[ListenAddress] = []
        self._taps: dict[TappedConnection, None] = {}
        self.plans: deque[Plan] = deque()
        """One for each of the next clients."""
        self.lasting_plans: dict[object, Plan] = {}
        """For every client that comes, by who has it so."""
        self.refusing_logins: set[object] = set()
        """Who has it so."""
        self._shutting: set[object] = set()
        """Who has it shut."""

    async def accept(self, make: Make, listening: socket.socket) -> ListeningServer:
        """Return an `outside.Accept`."""
        entry = ListenAddress(lambda: self._tap(cast(Connection, make())), listening)
        self._entries.append(entry)
        return entry

    def shut(self, by: object) -> None:
        """Refuse connections, as if there were no broker; those that are open stay."""
        self._shutting.add(by)
        for entry in self._entries:
            entry.shut()

    def open(self, by: object) -> None:
        """Accept again, unless another scope has it shut."""
        self._shutting.discard(by)
        for entry in () if self._shutting else self._entries:
            entry.open()

    def taps(self) -> Iterator[TappedConnection]:
        """Return the connections that are open, in the order in which they came."""
        return iter(tuple(self._taps))

    def _tap(self, connection: Connection) -> TappedConnection:
        if self.refusing_logins:
            access = cast(Access, RefusedLogins(connection.services.access))
            connection.services = replace(connection.services, access=access)
        return TappedConnection(connection, self._opened, self._taps.pop)

    def _opened(self, tap: TappedConnection) -> None:
        self._taps[tap] = None
        for plan in self.lasting_plans.values():
            plan(tap)
        if self.plans:
            self.plans.popleft()(tap)
