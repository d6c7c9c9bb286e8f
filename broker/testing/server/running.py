"""A broker and its control API, for as long as a command runs, or until a signal."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from secrets import token_urlsafe
from typing import TYPE_CHECKING, TypeAlias

from fluffle.broker.testing.broker import Broker
from fluffle.broker.testing.server.child import run_child, stopped
from fluffle.broker.testing.server.http import HttpServer
from fluffle.broker.testing.server.operations import OPERATIONS, Operations
from fluffle.broker.testing.server.serving import Serving

if TYPE_CHECKING:
    from fluffle.broker.testing.cluster.cluster import Cluster

TOKEN_BYTES = 16

Urls: TypeAlias = dict[str, str]
"""By the variables that they are in."""


async def run(served: Broker | Cluster, words: Sequence[str], tell: Callable[[Urls], None]) -> int:
    """Run a command with a broker; the exit code.  Without one, `tell` is told when it serves.

    CannotRun, OSError, and what a node raises that cannot start.
    """
    async with served:
        serving = Serving(served, operations_on(served))
        server = HttpServer(serving.answer, token_urlsafe(TOKEN_BYTES))
        urls = {"AMQP_URL": served.url, "FLUFFLE_CONTROL_URL": await server.start()}
        if not isinstance(served, Broker):
            urls["AMQP_URLS"] = ",".join(served.urls)
        try:
            if words:
                return await run_child(words, os.environ | urls)
            tell(urls)
            await stopped()
            return 0
        finally:
            await server.stop()


def operations_on(served: Broker | Cluster) -> Operations:
    if isinstance(served, Broker):
        return OPERATIONS
    from fluffle.broker.testing.server import cluster_operations  # noqa: PLC0415  slow to import

    return cluster_operations.OPERATIONS
