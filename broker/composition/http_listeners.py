"""The two addresses at which a node speaks HTTP: that of its management, and that of its metrics.

What is served there is imported only by nodes that serve it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fluffle.broker.admin.context import NodeContext
from fluffle.broker.cluster_port import ClusterPort
from fluffle.broker.config.config import ListenAddress
from fluffle.broker.config.start_error import cannot_listen
from fluffle.broker.core.services import Services

if TYPE_CHECKING:
    from ssl import SSLContext

    from fluffle.broker.observability.statistics.statistics import Statistics


class HttpEndpoint(Protocol):
    """Somewhere that HTTP is spoken."""

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Accept on an address; what was bound.  OSError when it is taken."""

    def stop(self) -> None:
        """Accept no more, and hang up on who is there."""


class HttpListeners(NamedTuple):
    """The node, as far as it is told of by HTTP."""

    parts: NodeContext
    services: Services
    company: ClusterPort
    at_end: Callable[[Callable[[], None]], None]
    """Has something called when the node ends."""
    statistics: Statistics | None
    """What metrics tell of objects."""

    async def open_metrics(self, addresses: dict[str, tuple[str, int]]) -> None:
        """Accept on its address, if there is one, and say what was bound: from the start on, since
        it tells whether the node has started.  StartFailed."""
        address = self.parts.config.metrics_listen
        if address is None:
            return
        from fluffle.broker.observability.metrics.collector import NodeCollector  # noqa: PLC0415  only if used
        from fluffle.broker.observability.metrics.endpoint import MetricsEndpoint  # noqa: PLC0415
        from fluffle.broker.observability.metrics.health import Readiness  # noqa: PLC0415

        parts, services = self.parts, self.services
        collector = NodeCollector(
            services, parts.config, services.runtime.clock, self.company, self.statistics
        )
        maintenance = parts.maintenance
        readiness = Readiness(
            addresses, self.company, lambda: maintenance is not None and maintenance.is_draining
        )
        endpoint = MetricsEndpoint(collector, services.runtime.background_tasks, readiness)
        addresses["metrics"] = await self._listen("--metrics", endpoint, address)

    async def open_management(self, addresses: dict[str, tuple[str, int]]) -> None:
        """The same, once there is something to manage.  StartFailed."""
        address = self.parts.config.management_listen
        if address is None:
            return
        from fluffle.broker.protocols.http.server import make_endpoint  # noqa: PLC0415  slow, only if used

        endpoint = make_endpoint(
            self.parts, self.services, self.services.runtime.on_fatal, self._encryption()
        )
        addresses["management"] = await self._listen("--management", endpoint, address)

    def _encryption(self) -> SSLContext | None:
        """Of the management; None in the clear.  StartFailed."""
        config = self.parts.config
        if not config.management_tls:
            return None
        from fluffle.broker.process import tls  # noqa: PLC0415  ssl only if it is used

        certificates = tls.certificates_of(config, "management-tls", verify="none")  # of browsers
        return tls.listening_context(certificates)

    async def _listen(
        self, option: str, endpoint: HttpEndpoint, address: ListenAddress
    ) -> tuple[str, int]:
        self.at_end(endpoint.stop)
        try:
            return await endpoint.listen(address.host, address.port)
        except OSError as error:
            raise cannot_listen(option, address, error) from error
