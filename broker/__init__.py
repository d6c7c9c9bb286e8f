"""The broker: routing, queues, the AMQP server around them and the daemon around that.

For programs that have one inside: `Broker` and `Cluster` in their own loop, `ThreadedBroker` and
`ThreadedCluster` in a thread.
"""

import gc
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluffle.broker.testing.broker import Broker
    from fluffle.broker.testing.cluster.cluster import Cluster, ThreadedCluster
    from fluffle.broker.testing.threaded import ThreadedBroker

__all__ = ["Broker", "Cluster", "ThreadedBroker", "ThreadedCluster"]

_WHERE = {
    "Broker": "fluffle.broker.testing.broker",
    "Cluster": "fluffle.broker.testing.cluster.cluster",
    "ThreadedBroker": "fluffle.broker.testing.threaded",
    "ThreadedCluster": "fluffle.broker.testing.cluster.cluster",
}


def __getattr__(name: str) -> Any:
    """Import a module when it is first used: one module costs nothing for the others."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_imported(_WHERE[name]), name)


def _imported(module: str) -> ModuleType:
    """Garbage is not looked for meanwhile, because it is faster (benchmarks/embedded, start-up):
    what modules make stays."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return import_module(module)
    finally:
        if was_enabled:
            gc.enable()
