"""A broker and its control API, for as long as a command runs, or until a signal."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from secrets import token_urlsafe
from typing import TYPE_CHECKING, TypeAlias

from fluffle.broker.testing.broker import Broker
from fluffle.broker.testing.server.child import Child, stop_signal
from fluffle.broker.testing.server.http import HttpResponse, HttpServer, Serve
from fluffle.broker.testing.server.target import Cluster, parts_of

if TYPE_CHECKING:
    from fluffle.broker.testing.server.dispatch import Dispatcher

TOKEN_BYTES = 16

Urls: TypeAlias = dict[str, str]
"""By the variables that they are in."""


async def run(
    served: Broker | Cluster, words: Sequence[str], on_failure: Callable[[str], None] | None
) -> int:
    """Run a command with a broker; the exit code.  If that is not 0, `on_failure` is told the
    timeline of each virtual host.

    CannotRun, OSError, and what a node raises that cannot start.
    """
    child = Child()
    async with controlled(served) as urls:
        code = await child.run(words, os.environ | urls)
        if code and on_failure is not None:
            async for timeline in timelines(served):
                on_failure(timeline)
        return code


async def timelines(served: Broker | Cluster) -> AsyncIterator[str]:
    """Of all virtual hosts."""
    try:
        for name in parts_of(served).catalogue.vhosts:
            yield f"virtual host '{name}':\n{await served.vhost(name).timeline()}"
    except RuntimeError as error:  # no node runs
        yield str(error)


async def serve(served: Broker | Cluster, tell: Callable[[Urls], None]) -> int:
    """Until a signal comes; `tell` is told when it serves.  Raises as `run`."""
    stopping = stop_signal()
    async with controlled(served) as urls:
        tell(urls)
        await stopping.wait()
    return 0


@asynccontextmanager
async def controlled(served: Broker | Cluster) -> AsyncIterator[Urls]:
    """It runs, and so does its control API."""
    async with served:
        server = HttpServer(answering(served), token_urlsafe(TOKEN_BYTES))
        urls = {"AMQP_URL": served.url, "FLUFFLE_CONTROL_URL": await server.start()}
        if not isinstance(served, Broker):
            urls["AMQP_URLS"] = ",".join(served.urls)
        try:
            yield urls
        finally:
            await server.stop()


def answering(served: Broker | Cluster) -> Serve:
    """Imported with the first request: until then the command is on its way."""

    @cache
    def serving() -> Dispatcher:
        from fluffle.broker.testing.server.dispatch import Dispatcher  # noqa: PLC0415

        if isinstance(served, Broker):
            from fluffle.broker.testing.server.operations import OPERATIONS  # noqa: PLC0415
        else:
            from fluffle.broker.testing.server.cluster_operations import OPERATIONS  # noqa: PLC0415
        return Dispatcher(served, OPERATIONS)

    async def answer(path: str, body: bytes) -> HttpResponse:
        return await serving().answer(path, body)

    return answer
