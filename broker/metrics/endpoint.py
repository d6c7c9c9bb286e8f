"""GET /metrics and /metrics/per-object, in the formats that Prometheus asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from prometheus_client import Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from fluffle.broker.clock import Clock
from fluffle.broker.company import Neighbours
from fluffle.broker.config import Config
from fluffle.broker.metrics.collector import NodeCollector
from fluffle.broker.metrics.families import Step
from fluffle.broker.metrics.http import HttpConnection, Page
from fluffle.broker.server.services import Services
from fluffle.broker.sockets import listening_socket


class MetricsEndpoint:
    """Where one node tells its metrics."""

    __slots__ = ("_chores", "_open", "_pages", "_server")

    def __init__(
        self, services: Services, config: Config, clock: Clock, company: Neighbours
    ) -> None:
        self._chores = services.chores
        aggregated = NodeCollector(services, config, clock, company)
        per_object = NodeCollector(services, config, clock, company, per_object=True)
        self._pages = {
            "/metrics": page(aggregated.steps),
            "/metrics/per-object": page(per_object.steps),
        }
        self._open: set[HttpConnection] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Accept on an address; what was bound.  OSError when it is taken."""
        loop = asyncio.get_running_loop()
        listening = listening_socket(host, port)
        self._server = await loop.create_server(
            lambda: HttpConnection(self._pages, self._open, loop.call_later, self._chores),
            sock=listening,
        )
        bound = listening.getsockname()
        return bound[0], bound[1]

    def stop(self) -> None:
        """Accept no more, and hang up on who is there."""
        if self._server is not None:
            self._server.close()
        for connection in self._open:
            connection.drop()


def page(steps: Callable[[], Iterator[Step]]) -> Callable[[str], Page]:
    """What a node tells, and what its process costs."""
    process = ProcessCollector(registry=None)

    def render(accept: str) -> Page:
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # it asks for a version that is no number
            encode, content_type = choose_encoder("")
        return Page(content_type, encoded(encode, chain(steps(), [process.collect()])))

    return render


class Found(Collector):
    """Metrics in the place of who collects them."""

    def __init__(self, metrics: Iterable[Metric] = ()) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def encoded(
    encode: Callable[[Collector], bytes], steps: Iterable[Iterable[Metric]]
) -> Iterator[bytes]:
    """What `encode` makes of all metrics, step by step.

    One that has the name of the one before, at the beginning of a step, goes on with its samples.
    """
    end = encode(Found())
    name = ""
    for step in steps:
        metrics = list(step)
        if not metrics:
            yield b""
            continue
        text = encode(Found(metrics)).removesuffix(end)
        yield without_heading(text) if metrics[0].name == name else text
        name = metrics[-1].name
    yield end


def without_heading(text: bytes) -> bytes:
    """Samples only: what describes them is known."""
    while text.startswith(b"# "):
        _, _, text = text.partition(b"\n")
    return text
