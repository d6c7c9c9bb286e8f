"""`CrossThreadProxy`: what belongs to the loop of a broker, for who is in another thread.

It has the same attributes; what is a coroutine there blocks here, or is awaited in another loop,
as it is turned.  What such a call returns is turned as well.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from fluffle.broker.testing.faults.clients import Clients, Connection, Consumer, NextConnection
from fluffle.broker.testing.faults.faults import Faults

NEAR = (Clients, Connection, Consumer, Faults, NextConnection)

Work = Callable[..., Coroutine[Any, Any, Any]]
Turn = Callable[[Work], Callable[..., Any]]


class CrossThreadProxy:
    """Proxy of an object of `NEAR` for another thread."""

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
    """The same for elsewhere: plain values stay what they are."""
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
