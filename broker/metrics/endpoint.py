"""GET /metrics and /metrics/per-object, in the formats that Prometheus asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from fluffle.broker.clock import Clock
from fluffle.broker.config import Config
from fluffle.broker.metrics.collector import NodeCollector
from fluffle.broker.metrics.http import HttpConnection, Page
from fluffle.broker.server.listener import listening_socket
from fluffle.broker.server.services import Services


class MetricsEndpoint:
    """Where one node tells its metrics."""

    __slots__ = ("_open", "_pages", "_server")

    def __init__(self, services: Services, config: Config, clock: Clock) -> None:
        self._pages = {
            "/metrics": page(NodeCollector(services, config, clock)),
            "/metrics/per-object": page(NodeCollector(services, config, clock, per_object=True)),
        }
        self._open: set[HttpConnection] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Accept on an address; what was bound.  OSError when it is taken."""
        loop = asyncio.get_running_loop()
        listening = listening_socket(host, port)
        self._server = await loop.create_server(
            lambda: HttpConnection(self._pages, self._open, loop.call_later), sock=listening
        )
        bound = listening.getsockname()
        return bound[0], bound[1]

    def stop(self) -> None:
        """Accept no more, and hang up on who is there."""
        if self._server is not None:
            self._server.close()
        for connection in self._open:
            connection.drop()


def page(collector: Collector) -> Callable[[str], Page]:
    """What a node tells, and what its process costs."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    ProcessCollector(registry=registry)

    def render(accept: str) -> Page:
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # it asks for a version that is no number
            encode, content_type = choose_encoder("")
        return Page(content_type, encode(registry))

    return render
