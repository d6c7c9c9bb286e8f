"""Listeners of a node: for clients, for commands, for its management and for its metrics.

What only some nodes serve is imported only by these.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Protocol

from fluffle.broker.admin.context import NodeContext
from fluffle.broker.admin.control_socket import ControlSocket
from fluffle.broker.cluster_port import ClusterPort
from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.config.listeners import ClientListener, ListenerKind, listeners_of
from fluffle.broker.core.listener import Listener, MakeConnection
from fluffle.broker.core.services import Services
from fluffle.broker.process.sockets import cannot_listen
from fluffle.broker.protocols.amqp091.connection import Connection
from fluffle.broker.protocols.amqp091.event_handlers import EVENT_HANDLERS

if TYPE_CHECKING:
    from ssl import SSLContext

    from fluffle.broker.process.certificates import Certificates
    from fluffle.broker.protocols.mqtt.server import MqttServer
    from fluffle.protocol.proxy import ForwardedConnection


class HttpEndpoint(Protocol):
    """Somewhere that HTTP is spoken."""

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Accept on an address; what was bound.  OSError when it is taken."""

    def stop(self) -> None:
        """Accept no more, and hang up on all clients."""


def import_management(config: Config) -> None:
    """Import what management needs, if there is any: it takes a second, in which no client would
    be answered, and other nodes would take this one for dead."""
    if config.management_listen is not None:
        import fluffle.broker.protocols.http.server  # noqa: F401, PLC0415  slow, only if used


class NodeListeners:
    """Listeners of a node, whose bound addresses are in `addresses`."""

    def __init__(
        self,
        parts: NodeContext,
        services: Services,
        clients: Listener,
        cluster_view: ClusterPort,
        *,
        addresses: dict[str, tuple[str, int]],
        at_end: Callable[[Callable[[], None]], None],
    ) -> None:
        """`at_end` has something called when the node ends."""
        self._parts = parts
        self._services = services
        self._clients = clients
        self._cluster_view = cluster_view
        self._addresses = addresses
        self._at_end = at_end
        self._mqtt: MqttServer | None = None
        """Once something is opened for MQTT."""
        self._lost: list[tuple[str, Callable[[], bool]]] | None = []
        """Nodes that were lost before clients were let in; None from then on."""
        parts.catalogue.node_loss_listeners.append(self._node_lost)
        self._certificates: dict[str, Certificates] = {}
        """Certificates for listeners, by how those of clients are verified."""

    def reload(self) -> None:
        """Read the certificates of clients again, also if their files look unchanged."""
        for certificates in self._certificates.values():
            certificates.reload()

    async def open_control(self) -> None:
        """Listen to commands.  OSError, StartFailed."""
        parts = self._parts
        control = ControlSocket(
            parts.config.data_dir, parts, self._services, self._services.runtime.on_fatal
        )
        self._at_end(control.close)
        await control.open()

    async def open_clients(self) -> None:
        """Let clients in, with TLS and without.  OSError for what is not encrypted, StartFailed."""
        for listener in listeners_of(self._parts.config):
            self._addresses[listener.name] = await self._open(listener)
        if self._has_sessions_of(self._services.owners.node):
            self._mqtt_server()
        lost, self._lost = self._lost or [], None
        for each in lost:
            self._node_lost(*each)

    def _node_lost(self, node: str, is_lost: Callable[[], bool]) -> None:
        """Look after the sessions of a node that is lost, whether or not MQTT is spoken here."""
        if self._lost is not None:
            self._lost.append((node, is_lost))
        elif self._mqtt is not None or self._has_sessions_of(node):
            self._mqtt_server().adoption.node_lost(node, is_lost)

    def _has_sessions_of(self, node: str) -> bool:
        """True if clients of MQTT have left anything for a node to do."""
        vhosts = self._services.vhosts.values()
        return any(vhost.client_sessions.has_any_of(node) for vhost in vhosts)

    async def open_late(self, kind: ListenerKind, address: ListenAddress) -> None:
        """Let clients in at one more address, with nothing made for them before the first comes,
        unless sessions wait for theirs.  OSError."""

        connections = cache(partial(CONNECTIONS_OF[kind.protocol], self))

        def make(forwarded: ForwardedConnection | None = None) -> asyncio.Protocol:
            return connections()(forwarded)

        vhosts = self._services.vhosts.values()
        sessions = [vhost.client_sessions for vhost in vhosts]
        if any(each.by_client or each.due_wills for each in sessions):
            connections()
        self._addresses[kind.name] = await self._clients.listen(make, address.host, address.port)

    async def _open(self, listener: ClientListener) -> tuple[str, int]:
        kind, address = listener.kind, listener.address
        try:
            return await self._clients.listen(
                self._connections(kind),
                address.host,
                address.port,
                certificates=self._certificates_of(kind) if kind.is_encrypted else None,
                is_proxied=listener.is_proxied,
            )
        except OSError as error:
            if kind.is_encrypted:
                raise cannot_listen(f"--{kind.option}", address, error) from error
            raise

    def _connections(self, kind: ListenerKind) -> MakeConnection:
        return CONNECTIONS_OF[kind.protocol](self)

    def _amqp_connections(self) -> MakeConnection:
        return partial(Connection, self._services, EVENT_HANDLERS)

    def _mqtt_connections(self) -> MakeConnection:
        from fluffle.broker.protocols.mqtt.connection import Connection as MqttConnection  # noqa: PLC0415  only if it is used
        from fluffle.broker.protocols.mqtt.packet_handlers import PACKET_HANDLERS  # noqa: PLC0415  as above

        return partial(MqttConnection, self._mqtt_server(), PACKET_HANDLERS)

    def _web_mqtt_connections(self) -> MakeConnection:
        from fluffle.broker.protocols.mqtt.websocket import WebSockets  # noqa: PLC0415  as above

        connections = self._mqtt_connections()
        call_later = self._services.runtime.clients_call_later
        return WebSockets(self._mqtt_server().config, call_later, connections)

    def _mqtt_server(self) -> MqttServer:
        """Server of all listeners for MQTT, which begins with the first of them."""
        if self._mqtt is None:
            from fluffle.broker.protocols.mqtt.server import MqttServer  # noqa: PLC0415  as above

            config = self._parts.config.mqtt
            queue_type = config.durable_queue_type
            if queue_type is None:
                queue_type = "classic" if self._cluster_view.cluster is None else "quorum"
            self._mqtt = MqttServer(self._services, config, queue_type)
            self._parts.catalogue.session_listeners.append(self._mqtt.session_changed)
            self._parts.catalogue.will_listeners.append(self._mqtt.due_wills.changed)
            if (clients := self._cluster_view.clients) is not None:
                unkept = self._mqtt.unkept
                clients.here, unkept.announce = unkept, clients.came
            self._mqtt.restore()
        return self._mqtt

    def _certificates_of(self, kind: ListenerKind) -> Certificates:
        """Return the certificates that clients are shown, which are read once.  StartFailed."""
        from fluffle.broker.process.certificates import certificates_of  # noqa: PLC0415  ssl only if it is used

        config = self._parts.config
        verify = config.tls_verify if kind.verifies else "none"
        found = self._certificates.get(verify)
        if found is None:
            found = self._certificates[verify] = certificates_of(config, kind.option, verify=verify)
        return found

    async def open_metrics(self) -> None:
        """Open the metrics endpoint, if there is one, and log its address: early, since it shows
        whether the node has started.  StartFailed."""
        address = self._parts.config.metrics_listen
        if address is None:
            return
        from fluffle.broker.metrics.collector import NodeCollector  # noqa: PLC0415  only if used
        from fluffle.broker.metrics.endpoint import MetricsEndpoint, Readiness  # noqa: PLC0415

        parts, services = self._parts, self._services
        collector = NodeCollector(
            services,
            parts.config,
            services.runtime.clock,
            self._cluster_view,
            self._parts.statistics,
        )
        readiness = Readiness(self._addresses, self._cluster_view, self._is_draining)
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
        """TLS context of the management listener; None without TLS.  StartFailed."""
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


CONNECTIONS_OF: dict[str, Callable[[NodeListeners], MakeConnection]] = {
    "amqp": NodeListeners._amqp_connections,
    "mqtt": NodeListeners._mqtt_connections,
    "web-mqtt": NodeListeners._web_mqtt_connections,
}
"""Table of protocols: what makes the connections of each, by `ListenerKind.protocol`."""
