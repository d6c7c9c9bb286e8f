"""`ClusterByCaller`: the cluster of a test, for whoever uses it, as `testing.by_caller` has it."""

from __future__ import annotations

from typing import Any

from fluffle.broker.testing.calls import in_coroutine
from fluffle.broker.testing.cluster.threaded import ThreadedCluster


class ClusterByCaller:
    """Blocks, or in a coroutine is awaited."""

    __slots__ = ("blocking",)

    def __init__(self, cluster: ThreadedCluster) -> None:
        self.blocking: ThreadedCluster = cluster
        """Whoever asks."""

    def _as_asked(self) -> Any:
        return self.blocking.awaited if in_coroutine() else self.blocking

    def __getattr__(self, name: str) -> Any:
        __tracebackhide__ = True
        return getattr(self._as_asked(), name)

    def __getitem__(self, number: int) -> Any:
        """One of the nodes."""
        __tracebackhide__ = True
        return self._as_asked()[number]

    def __dir__(self) -> list[str]:
        return dir(self.blocking)
