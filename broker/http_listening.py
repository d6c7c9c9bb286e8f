"""The two addresses at which a node speaks HTTP: that of its management, and that of its metrics.

What is served there is imported only by nodes that serve it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from fluffle.broker.clock import Clock
from fluffle.broker.company import Company
from fluffle.broker.config import ListenAddress
from fluffle.broker.control.parts import Parts
from fluffle.broker.server.services import Services
from fluffle.broker.starting import cannot_listen


class HttpEndpoint(Protocol):
    """Somewhere that HTTP is spoken."""

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Accept on an address; what was bound.  OSError when it is taken."""

    def stop(self) -> None:
        """Accept no more, and hang up on who is there."""


class HttpListening(NamedTuple):
    """The node, as far as it is told of by HTTP."""

    parts: Parts
    services: Services
    clock: Clock
    company: Company
    at_end: Callable[[Callable[[], None]], None]
    """Has something called when the node ends."""
    on_fatal: Callable[[Exception], None]

    async def open(self, addresses: dict[str, tuple[str, int]]) -> None:
        """Accept on the addresses of the configuration, and say what was bound.  StartFailed."""
        config = self.parts.config
        if config.management_listen is not None:
            addresses["management"] = await self._management(config.management_listen)
        if config.metrics_listen is not None:
            addresses["metrics"] = await self._metrics(config.metrics_listen)

    async def _management(self, address: ListenAddress) -> tuple[str, int]:
        from fluffle.broker.management.endpoint import begun  # noqa: PLC0415  slow, only if used

        endpoint = begun(self.parts, self.services, self.on_fatal)
        return await self._listen("--management", endpoint, address)

    async def _metrics(self, address: ListenAddress) -> tuple[str, int]:
        from fluffle.broker.metrics.endpoint import MetricsEndpoint  # noqa: PLC0415  only if used

        config = self.parts.config
        endpoint = MetricsEndpoint(self.services, config, self.clock, self.company)
        return await self._listen("--metrics", endpoint, address)

    async def _listen(
        self, option: str, endpoint: HttpEndpoint, address: ListenAddress
    ) -> tuple[str, int]:
        self.at_end(endpoint.stop)
        try:
            return await endpoint.listen(address.host, address.port)
        except OSError as error:
            raise cannot_listen(option, address, error) from error
