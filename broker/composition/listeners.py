"""Listeners of a node: for clients, for commands, for its management and for its metrics.

What only some nodes serve is imported only by these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from fluffle.broker.admin.context import NodeContext
from fluffle.broker.admin.control_socket import ControlSocket
from fluffle.broker.cluster_port import ClusterPort
from fluffle.broker.config.config import ListenAddress, listeners_of
from fluffle.broker.core.listener import Listener
from fluffle.broker.core.services import Services
from fluffle.broker.process.sockets import cannot_listen

if TYPE_CHECKING:
    from ssl import SSLContext

    from fluffle.broker.process.certificates import Certificates


class HttpEndpoint(Protocol):
    """Somewhere that HTTP is spoken."""

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Accept on an address; what was bound.  OSError when it is taken."""

    def stop(self) -> None:
        """Accept no more, and hang up on who is there."""


class NodeListeners:
    """All addresses at which a node listens, which it tells in `addresses`."""

    def __init__(
        self,
        parts: NodeContext,
        services: Services,
        clients: Listener,
        company: ClusterPort,
        *,
        addresses: dict[str, tuple[str, int]],
        at_end: Callable[[Callable[[], None]], None],
    ) -> None:
        """`at_end` has something called when the node ends."""
        self._parts = parts
        self._services = services
        self._clients = clients
        self._company = company
        self._addresses = addresses
        self._at_end = at_end
        self._certificates: Certificates | None = None

    def reload(self) -> None:
        """Read the certificates of clients again, also if their files look unchanged."""
        if self._certificates is not None:
            self._certificates.reload()

    async def open_control(self) -> None:
        """Listen to commands.  OSError, StartFailed."""
        parts = self._parts
        control = ControlSocket(
            parts.config.data_dir, parts, self._services, self._services.runtime.on_fatal
        )
        self._at_end(control.close)
        await control.open()

    async def open_clients(self) -> None:
        """Let clients in, with TLS and without.  OSError, StartFailed."""
        config = self._parts.config
        for name, address in listeners_of(config).items():
            self._addresses[name] = await self._clients.listen(
                address.host, address.port, is_proxied=config.proxy_protocol
            )
        if config.tls_listen is not None:
            self._addresses["amqps"] = await self._open_tls(config.tls_listen)

    async def _open_tls(self, address: ListenAddress) -> tuple[str, int]:
        from fluffle.broker.process.certificates import certificates_of  # noqa: PLC0415  ssl only if it is used

        config = self._parts.config
        self._certificates = certificates_of(config, "tls-listen", verify=config.tls_verify)
        try:
            return await self._clients.listen(
                address.host,
                address.port,
                certificates=self._certificates,
                is_proxied=config.proxy_protocol,
            )
        except OSError as error:
            raise cannot_listen("--tls-listen", address, error) from error

    async def open_metrics(self) -> None:
        """Accept on its address, if there is one, and say what was bound: from the start on, since
        it tells whether the node has started.  StartFailed."""
        address = self._parts.config.metrics_listen
        if address is None:
            return
        from fluffle.broker.observability.metrics.collector import NodeCollector  # noqa: PLC0415  only if used
        from fluffle.broker.observability.metrics.endpoint import MetricsEndpoint, Readiness  # noqa: PLC0415

        parts, services = self._parts, self._services
        collector = NodeCollector(
            services, parts.config, services.runtime.clock, self._company, self._parts.statistics
        )
        readiness = Readiness(self._addresses, self._company, self._is_draining)
        endpoint = MetricsEndpoint(collector, services.runtime.background_tasks, readiness)
        self._addresses["metrics"] = await self._listen("--metrics", endpoint, address)

    def _is_draining(self) -> bool:
        maintenance = self._parts.maintenance
        return maintenance is not None and maintenance.is_draining

    async def open_management(self) -> None:
        """The same, once there is something to manage.  StartFailed."""
        address = self._parts.config.management_listen
        if address is None:
            return
        from fluffle.broker.protocols.http.server import make_endpoint  # noqa: PLC0415  slow, only if used

        endpoint = make_endpoint(
            self._parts, self._services, self._services.runtime.on_fatal, self._encryption()
        )
        self._addresses["management"] = await self._listen("--management", endpoint, address)

    def _encryption(self) -> SSLContext | None:
        """Of the management; None in the clear.  StartFailed."""
        config = self._parts.config
        if not config.management_tls:
            return None
        from fluffle.broker.process import certificates  # noqa: PLC0415  ssl only if it is used

        shown = certificates.certificates_of(config, "management-tls", verify="none")  # of browsers
        return certificates.listening_context(shown)

    async def _listen(
        self, option: str, endpoint: HttpEndpoint, address: ListenAddress
    ) -> tuple[str, int]:
        self._at_end(endpoint.stop)
        try:
            return await endpoint.listen(address.host, address.port)
        except OSError as error:
            raise cannot_listen(option, address, error) from error
