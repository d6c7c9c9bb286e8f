"""`ByCaller`: the virtual host of a test, for whoever uses it.

Plain tests, fixtures and helpers get what blocks, coroutines of tests and fixtures what is awaited:
who asks is seen when he asks, for one test may have both.
"""

from __future__ import annotations

from typing import Any

from fluffle.broker.testing.calls import in_coroutine
from fluffle.broker.testing.threaded import AwaitedVhost, BlockingVhost


class ByCaller:
    """Virtual host that blocks in plain code and is awaited in coroutines."""

    __slots__ = ("awaited", "blocking")

    def __init__(self, vhost: BlockingVhost) -> None:
        self.blocking: BlockingVhost = vhost
        """Whoever asks."""
        self.awaited: AwaitedVhost = vhost.awaited

    def __getattr__(self, name: str) -> Any:
        __tracebackhide__ = True
        return getattr(self.awaited if in_coroutine() else self.blocking, name)

    def __dir__(self) -> list[str]:
        return [*AwaitedVhost.__slots__, *ByCaller.__slots__]
