"""`ClusterProxy`: what belongs to the loop of a cluster, for who is in another thread.

It has the same attributes.  What is a coroutine there blocks here, or is awaited in another loop,
as it is turned; what is none only looks, and does so at once.  What comes of either is turned, too.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from inspect import iscoroutinefunction, ismethod
from typing import Any

from fluffle.broker.testing.clock import MovableClock
from fluffle.broker.testing.cluster.cluster import Cluster
from fluffle.broker.testing.cluster.disk import DiskFaults
from fluffle.broker.testing.cluster.network import Network
from fluffle.broker.testing.cluster.node import ClusterNode
from fluffle.broker.testing.cluster.vhost import ClusterVhost
from fluffle.broker.testing.faults.cross_thread import CrossThreadProxy

NEAR = (Cluster, ClusterNode, ClusterVhost, DiskFaults, MovableClock, Network, CrossThreadProxy)

Work = Callable[..., Coroutine[Any, Any, Any]]
Turn = Callable[[Work], Callable[..., Any]]


class ClusterProxy:
    """Proxy of an object of `NEAR` for another thread."""

    __slots__ = ("_near", "_turn")

    def __init__(self, near: Any, turn: Turn) -> None:
        self._near = near
        self._turn = turn

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return cluster_proxy_of(getattr(self._near, name), self._turn)

    def __getitem__(self, number: int) -> Any:
        """One of the nodes of a cluster."""
        return cluster_proxy_of(self._near[number], self._turn)

    def __dir__(self) -> list[str]:
        return dir(self._near)

    def __repr__(self) -> str:
        return repr(self._near)


def cluster_proxy_of(value: Any, turn: Turn) -> Any:
    """The same for elsewhere: plain values stay what they are."""
    if isinstance(value, NEAR):
        return ClusterProxy(value, turn)
    if isinstance(value, list):
        return [cluster_proxy_of(each, turn) for each in value]
    if iscoroutinefunction(value):

        @wraps(value)
        async def work(*positional: Any, **named: Any) -> Any:
            return cluster_proxy_of(await value(*positional, **named), turn)

        return turn(work)
    if ismethod(value):
        return lambda *positional, **named: cluster_proxy_of(value(*positional, **named), turn)
    return value
