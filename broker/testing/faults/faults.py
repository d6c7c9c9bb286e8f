"""`Faults`: what goes wrong at a broker, or for one virtual host of it, as a test calls it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from fluffle.broker.testing.faults.clients import Clients, Connection, Consumer, NextConnection, do
from fluffle.broker.testing.faults.fault_scope import FaultScope


class Faults:
    """Faults of a broker or virtual host, called in the loop of the broker."""

    __slots__ = ("_scope",)

    def __init__(self, scope: FaultScope) -> None:
        self._scope = scope

    # The broker, for all its virtual hosts

    async def block(self, reason: str = "low on memory") -> None:
        """Raise a resource alarm: who publishes hears connection.blocked, and is not read."""
        do(self._scope, "block", reason=reason)

    async def unblock(self) -> None:
        """Clear the alarm."""
        do(self._scope, "unblock")

    async def refuse_logins(self) -> None:
        """Refuse logins, whatever the password: 403 ACCESS_REFUSED."""
        do(self._scope, "logins.refuse")

    async def allow_logins(self) -> None:
        """Let new connections log in again."""
        do(self._scope, "logins.allow")

    async def refuse_connections(self, *, silently: bool = False) -> None:
        """Refuse connections as if there were no broker at its address; those that are open stay.

        `silently`: new ones are accepted, and nothing is said on them.
        """
        do(self._scope, "connections.refuse", silently=silently)

    async def accept_connections(self) -> None:
        """Accept connections again, and talk to them; those that were met with silence stay so."""
        do(self._scope, "connections.accept")

    # This virtual host

    async def hold_confirms(self, **time: float) -> None:
        """Confirm nothing until `release_confirms`; or, given `seconds=5`, everything so much
        later by the clock that can be moved."""
        if time:
            ms = round(timedelta(**time) / timedelta(milliseconds=1))
            do(self._scope, "confirms.delay", ms=ms)
        else:
            do(self._scope, "confirms.hold")

    async def release_confirms(self) -> None:
        """Say what has been held back, and hold back nothing more."""
        do(self._scope, "confirms.release")

    async def nack_next(
        self, count: int = 1, *, queue: str | None = None, exchange: str | None = None
    ) -> None:
        """Refuse the next so many messages that come to a queue, or through an exchange to the
        queues that are there: they are not taken, and their publishers hear basic.nack.

        NotFound for an exchange that is not there.
        """
        where = {"queue": queue, "exchange": exchange}
        do(self._scope, "publishes.nack_next", count=count, **where)

    async def unkind(
        self, seed: int | str, *, redelivered_percent: int = 25, cancelled_percent: int = 1
    ) -> None:
        """Everything that AMQP permits and naive code forgets, until `mend`.

        Of a hundred acknowledgements so many come when their messages have just been delivered once
        more, and so many when a consumer of their channel is cancelled.
        """
        do(
            self._scope,
            "unkind",
            seed=seed,
            redelivered_percent=redelivered_percent,
            cancelled_percent=cancelled_percent,
        )

    # All of them

    async def mend(self) -> None:
        """End all faults.  What has been cut stays so."""
        self._scope.mend()

    @property
    def in_effect(self) -> list[str]:
        """Faults that are in effect, in words."""
        return self._scope.in_effect

    def __repr__(self) -> str:
        return repr(self._scope)


NEAR = (Clients, Connection, Consumer, Faults, NextConnection)

Work = Callable[..., Coroutine[Any, Any, Any]]
Turn = Callable[[Work], Callable[..., Any]]


class CrossThreadProxy:
    """Proxy, for another thread, of an object of `NEAR` in the loop of a broker.

    It has the same attributes; what is a coroutine there blocks here, or is awaited in another
    loop, as `turn` makes it.  What such a call returns is turned as well.
    """

    __slots__ = ("_near", "_turn")

    def __init__(self, near: object, turn: Turn) -> None:
        self._near = near
        self._turn = turn

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return proxy_of(getattr(self._near, name), self._turn)

    def __dir__(self) -> list[str]:
        return dir(self._near)

    def __repr__(self) -> str:
        return repr(self._near)


def proxy_of(value: Any, turn: Turn) -> Any:
    """Return a proxy of a value; plain values stay what they are."""
    if isinstance(value, NEAR):
        return CrossThreadProxy(value, turn)
    if isinstance(value, list):
        return [proxy_of(each, turn) for each in value]
    if not iscoroutinefunction(value):
        return value

    @wraps(value)
    async def work(*positional: Any, **named: Any) -> Any:
        return proxy_of(await value(*positional, **named), turn)

    return turn(work)
