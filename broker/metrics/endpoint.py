"""GET /metrics and the pages below it, in the formats of Prometheus; /health; the memory breakdown.

GET /health/live and /health/ready are what Kubernetes asks a node.  It lives as long as its loop
answers.  It is ready once it has taken up what was there, has entered its cluster, and takes
clients, and as long as no operator has taken it out of service; else 503 says why not.  Who ends
does not answer any more.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from http import HTTPStatus
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from prometheus_client import ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from fluffle.broker.cluster_port import ClusterView
from fluffle.broker.config.listeners import kind_of
from fluffle.broker.metrics.collector import NodeCollector
from fluffle.broker.metrics.http import (
    PLAIN,
    HttpConnection,
    MetricsPage,
    Pages,
    Request,
)
from fluffle.broker.metrics.tables import (
    InvalidQuery,
    Step,
    TableView,
    detailed_view,
    gauge,
    labelled,
)
from fluffle.broker.process.sockets import listening_socket
from fluffle.broker.runtime.background import BackgroundTasks

JSON = "application/json"


def live(_request: Request) -> MetricsPage:
    return health_page(HTTPStatus.OK, "live", ())


class Readiness(NamedTuple):
    """Reasons why a node is not ready for clients, if there are any."""

    addresses: Mapping[str, object]
    """Addresses bound so far: those for clients come last."""
    cluster_view: ClusterView
    is_draining: Callable[[], bool]
    """Function that says if the node is in maintenance mode."""

    def page(self, _request: Request) -> MetricsPage:
        found = tuple(self._hindrances())
        if found:
            return health_page(HTTPStatus.SERVICE_UNAVAILABLE, "not ready", found)
        return health_page(HTTPStatus.OK, "ready", ())

    def _hindrances(self) -> Iterator[str]:
        if self.is_draining():
            yield "it is in maintenance"
        if not any(map(kind_of, self.addresses)):
            yield "it is starting, and takes no clients yet"
            if self.cluster_view.cluster is not None:
                links = self.cluster_view.cluster.links
                away = sorted(node for node in links.peers if not links.is_up(node))
                yield from (f"there is no link to {node}" for node in away)


def health_page(status: HTTPStatus, word: str, reasons: tuple[str, ...]) -> MetricsPage:
    body = json.dumps({"status": word, "reasons": list(reasons)}) + "\n"
    return MetricsPage(JSON, iter((body.encode(),)), status)


STATUS = Path("/proc/self/status")
KINDS = {"Anon": "own", "File": "mapped", "Shmem": "shared"}
"""Kinds of resident pages by Linux's name: of the process, of files, of several processes."""


class Mallinfo2(ctypes.Structure):
    """The structure of glibc's `mallinfo2`, since 2.33."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
            "fordblks", "keepcost",
        )
    )  # fmt: skip


def memory_metrics() -> Iterator[Metric]:
    resident = GaugeMetricFamily("fluffle_memory_resident_bytes", "Resident memory, by what it is")
    for kind, size_bytes in resident_kinds().items():
        labelled(resident, size_bytes, kind=kind)
    yield resident
    unused_bytes = allocated_unused_bytes()
    if unused_bytes is not None:
        text = "Runtime allocated but unused blocks size in bytes"
        yield gauge("memory_runtime_allocated_unused_bytes", text, unused_bytes)


def resident_kinds() -> dict[str, int]:
    """Resident bytes by kind; empty where the system does not say."""
    if not STATUS.exists():
        return {}
    found = re.findall(r"^Rss(\w+):\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    return {KINDS[name]: int(size_kb) * 1024 for name, size_kb in found if name in KINDS}


def allocated_unused_bytes() -> int | None:
    """Bytes that the allocator keeps after they were freed; None where it does not say."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        return None
    ask.restype = Mallinfo2
    return int(ask().fordblks)


AGGREGATED = TableView("aggregated")
PER_OBJECT = TableView("per-object", has_rows=True)


class MetricsEndpoint:
    """The listener that serves metrics and health of one node."""

    def __init__(
        self, collector: NodeCollector, background_tasks: BackgroundTasks, readiness: Readiness
    ) -> None:
        self._background_tasks = background_tasks
        aggregated = page(partial(collector.steps, AGGREGATED))
        self._pages: Pages = {
            "/metrics": aggregated,
            "/metrics/": aggregated,
            "/metrics/per-object": page(partial(collector.steps, PER_OBJECT)),
            "/metrics/detailed": partial(detailed, collector),
            "/metrics/memory-breakdown": partial(breakdown, collector),
            "/health/live": live,
            "/health/ready": readiness.page,
        }
        self._open: dict[HttpConnection, None] = {}
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Accept on an address; what was bound.  OSError when it is taken."""
        loop = asyncio.get_running_loop()
        listening = listening_socket(host, port)
        self._server = await loop.create_server(
            lambda: HttpConnection(
                self._pages, self._open, loop.call_later, self._background_tasks
            ),
            sock=listening,
        )
        bound = listening.getsockname()
        return bound[0], bound[1]

    def stop(self) -> None:
        """Accept no more, and hang up on all clients."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._open):
            connection.drop()


def detailed(collector: NodeCollector, request: Request) -> MetricsPage:
    """Page of the metric families in the query."""
    try:
        view = detailed_view(request.query)
    except InvalidQuery as error:
        return MetricsPage(PLAIN, iter((f"{error}\n".encode(),)), HTTPStatus.BAD_REQUEST)
    return text_page(collector.detailed_steps(view), request.accept)


def breakdown(collector: NodeCollector, request: Request) -> MetricsPage:
    """Page of the memory metrics."""
    identity = collector.identity(TableView("memory-breakdown"))
    return text_page([[*memory_metrics(), *identity]], request.accept)


def page(steps: Callable[[], Iterator[Step]]) -> Callable[[Request], MetricsPage]:
    """Function that renders a node's metrics and those of its process."""
    process = ProcessCollector(registry=None)

    def render(request: Request) -> MetricsPage:
        return text_page(chain(steps(), [process.collect()]), request.accept)

    return render


def text_page(steps: Iterable[Iterable[Metric]], accept: str) -> MetricsPage:
    """In the format that is asked for, if there is one."""
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # it asks for a version that is no number
        encode, content_type = choose_encoder("")
    return MetricsPage(content_type, encoded(encode, steps))


class CollectedFamilies(Collector):
    """Collector that returns families collected before."""

    def __init__(self, metrics: Iterable[Metric] = ()) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def encoded(
    encode: Callable[[Collector], bytes], steps: Iterable[Iterable[Metric]]
) -> Iterator[bytes]:
    """Encode all metrics with `encode`, step by step.

    One that has the name of the one before, at the beginning of a step, goes on with its samples.
    """
    end = encode(CollectedFamilies())
    name = ""
    for step in steps:
        metrics = list(step)
        if not metrics:
            yield b""
            continue
        text = encode(CollectedFamilies(metrics)).removesuffix(end)
        yield without_heading(text) if metrics[0].name == name else text
        name = metrics[-1].name
    yield end


def without_heading(text: bytes) -> bytes:
    """Samples only: what describes them is known."""
    while text.startswith(b"# "):
        _, _, text = text.partition(b"\n")
    return text
