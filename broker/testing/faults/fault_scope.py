"""`FaultScope`: what faults of one broker, or of one virtual host of it, act on.

It remembers those that last, so that each of them ends with the test at the latest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

from fluffle.broker.admin.context import NodeContext
from fluffle.broker.base.clock import CallLater
from fluffle.broker.base.errors import NotFound
from fluffle.broker.testing.faults.acceptor import ClientAcceptor
from fluffle.broker.testing.faults.tapped_transport import TappedConnection
from fluffle.broker.vhosts.vhost import VirtualHost

REASON = "closed by the operator"
NEXT = "next"
"""The name of the connection that is yet to come."""


class FaultScope:
    """Used in the loop of the broker."""

    __slots__ = ("_in_effect", "acceptor", "call_later", "parts", "vhost_name")

    def __init__(
        self,
        parts: NodeContext,
        acceptor: ClientAcceptor,
        call_later: CallLater,
        vhost_name: str | None,
    ) -> None:
        """`call_later` goes by the clock that can be moved; None: all virtual hosts."""
        self.parts = parts
        self.acceptor = acceptor
        self.call_later = call_later
        self.vhost_name = vhost_name
        self._in_effect: dict[object, tuple[str, Callable[[], None]]] = {}
        """In words, with what ends it; by what it is done to, or is called."""

    def taps(self) -> Iterator[TappedConnection]:
        """Return those of the clients that have opened the virtual host."""
        return (tap for tap in self.acceptor.taps() if self.has(tap))

    def has(self, tap: TappedConnection) -> bool:
        session = tap.connection.session
        return self.vhost_name is None or (
            session is not None and session.vhost.name == self.vhost_name
        )

    def tap(self, name: str) -> TappedConnection:
        """That of a connection, by its name or the one that its client has given it.  NotFound."""
        for tap in self.taps():
            if name in (tap.connection.name, tap.connection.handshake.client_name):
                return tap
        there = ", ".join(repr(tap.connection.name) for tap in self.taps()) or "none"
        raise NotFound(f"no connection '{name}', but: {there}")

    def vhost(self) -> VirtualHost:
        """Return the virtual host, or the first of the broker."""
        return self.parts.vhost(self.vhost_name or self.parts.config.vhosts[0])

    # Faults that last

    def begin(self, key: object, what: str, end: Callable[[], None]) -> None:
        """Something goes wrong from now on, until `end` is called; what was so before goes on.

        `key` tells it from all else, and `what` says it in words, which may be those of another.
        """
        self._in_effect.setdefault(key, (what, end))

    def end(self, key: object) -> None:
        """End a fault; nothing if it is not in effect."""
        if key in self._in_effect:
            _what, end = self._in_effect.pop(key)
            end()

    @property
    def in_effect(self) -> list[str]:
        """Faults that are in effect, in words."""
        return [what for what, _end in self._in_effect.values()]

    def mend(self) -> None:
        """End all faults.  What the end of one raises comes once all have ended."""
        with ExitStack() as ending:
            for _what, end in self._in_effect.values():
                ending.callback(end)
            self._in_effect.clear()

    @property
    def place(self) -> str:
        """Name of the virtual host, or of all, in words."""
        return f"vhost '{self.vhost_name}'" if self.vhost_name is not None else "the broker"

    def __repr__(self) -> str:
        return f"<faults of {self.place}: {', '.join(self.in_effect) or 'none'}>"
