"""`ThreadedCluster`: a cluster in a thread of its own, for code that blocks.

with ThreadedCluster(nodes=3) as cluster:
    connection = pika.BlockingConnection(pika.URLParameters(cluster.url))
    cluster.kill(cluster.leader("orders"))
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Self, TypeVar

from fluffle.broker.config.config import DEFAULT_VHOST, Config
from fluffle.broker.testing.arguments import PathArgument
from fluffle.broker.testing.cluster.cluster import Cluster
from fluffle.broker.testing.loop_thread import (
    PATIENCE_S,
    Calls,
    CrossThreadProxy,
    LoopThread,
    Turn,
    blocking,
    in_coroutine,
    proxy_of,
)

T = TypeVar("T")


class ThreadedCluster:
    """A `Cluster` with the same arguments and attributes, all of which block."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        nodes: int = 3,
        data_dir: PathArgument | None = None,
        users: Mapping[str, str] | None = None,
        vhosts: Sequence[str] = (DEFAULT_VHOST,),
        definitions: PathArgument | None = None,
        seed: int | None = None,
    ) -> None:
        self.cluster = Cluster(
            config, nodes=nodes, data_dir=data_dir, users=users, vhosts=vhosts,
            definitions=definitions, seed=seed,
        )  # fmt: skip
        """Belongs to the thread: whatever is called there goes through `call`."""
        self._thread = LoopThread("fluffle cluster")
        self._turn: Turn = partial(blocking, self._thread)
        self.unawaited: dict[object, str] = {}
        """Names of `awaited` functions that were called and never awaited, and so have done
        nothing."""
        self.awaited = CrossThreadProxy(self.cluster, Calls(self._thread, self.unawaited).of)
        """The same for coroutines of other loops."""

    def __enter__(self) -> Self:
        """Raises what a node raises that cannot start."""
        self._thread.enter(self.cluster)
        return self

    def __exit__(self, *failure: Any) -> None:
        self._thread.leave(self.cluster, *failure)

    def __getattr__(self, name: str) -> Any:
        __tracebackhide__ = True
        if name.startswith("_"):
            raise AttributeError(name)
        return proxy_of(getattr(self.cluster, name), self._turn)

    def __getitem__(self, number: int) -> Any:
        """Return one of the nodes."""
        return proxy_of(self.cluster[number], self._turn)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *dir(self.cluster)]

    def call(
        self, work: Callable[[], Coroutine[Any, Any, T]], *, patience_s: float = PATIENCE_S
    ) -> T:
        """Return what `work` gives, done in the cluster's thread.  TimeoutError."""
        __tracebackhide__ = True
        return self._thread.call(work, patience_s=patience_s)


class ClusterByCaller:
    """Blocks, or in a coroutine is awaited."""

    def __init__(self, cluster: ThreadedCluster) -> None:
        self.blocking: ThreadedCluster = cluster
        """In plain code and in coroutines alike."""

    def _as_asked(self) -> Any:
        return self.blocking.awaited if in_coroutine() else self.blocking

    def __getattr__(self, name: str) -> Any:
        __tracebackhide__ = True
        return getattr(self._as_asked(), name)

    def __getitem__(self, number: int) -> Any:
        """Return one of the nodes."""
        __tracebackhide__ = True
        return self._as_asked()[number]

    def __dir__(self) -> list[str]:
        return dir(self.blocking)
