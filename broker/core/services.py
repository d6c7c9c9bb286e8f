"""Services of a node that every connection is given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluffle.broker.access.access import Access
from fluffle.broker.alarms import Alarms
from fluffle.broker.config.config import AUTH_MECHANISMS, Config, Limits, QuorumConfig
from fluffle.broker.core.connections import Connections, ForcedCloses, Owners
from fluffle.broker.core.direct_reply_to import ReplyTargets
from fluffle.broker.core.observer import ChangedBy, Observer
from fluffle.broker.definitions.retained import RetainedStore
from fluffle.broker.metadata.change import Entry, Key
from fluffle.broker.metadata.metadata import LOCAL_READ_BARRIER, Metadata, ReadBarrier
from fluffle.broker.metadata.nodes import Nodes
from fluffle.broker.runtime.runtime import Runtime
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.wire import FieldTable, to_table

if TYPE_CHECKING:
    from fluffle.broker.core.interceptors import Interceptors


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a node that connections use."""

    runtime: Runtime
    limits: Limits
    server_properties: FieldTable
    access: Access
    vhosts: dict[str, VirtualHost]
    metadata: Metadata
    retained: RetainedStore
    replies: ReplyTargets
    alarms: Alarms
    random_name: Callable[[], str]
    """A random, URL-safe name of 22 letters."""
    connections: Connections
    owners: Owners
    forced_closes: ForcedCloses
    observers: tuple[Observer, ...] = ()
    """See what happens, where that is wanted."""
    mechanisms: Collection[str] = AUTH_MECHANISMS
    """How clients may log in: some of `AUTH_MECHANISMS`, and EXTERNAL."""
    certificate_login: str = "distinguished_name"
    """Where EXTERNAL finds the name of a user: a key of `sasl.LOGIN_FROM`."""
    quorum: QuorumConfig = field(default_factory=QuorumConfig)
    """Limits of quorum queues that clients may not exceed."""
    nodes: Nodes = field(default_factory=dict)
    """Nodes of the cluster; none where a node is alone."""
    global_parameters: Mapping[Key, Entry] = field(default_factory=dict)
    """Global parameters as they are stored, by name."""
    interceptors: Interceptors | None = None
    """Adds headers to messages, if there are any to add."""
    read_barrier: ReadBarrier = LOCAL_READ_BARRIER
    """Barrier that confirms that this node has applied all earlier definitions."""

    def metadata_of(self, by: ChangedBy) -> Metadata:
        """Metadata for changes by `by`, which are observed where that is wanted."""
        metadata = self.metadata
        for observer in self.observers:
            metadata = observer.metadata(metadata, by)
        return metadata


CAPABILITIES = (
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
)
"""Capabilities of RabbitMQ, in its order."""


def server_properties(config: Config) -> FieldTable:
    """Return the properties of connection.start: clients adapt to product and version."""
    return to_table(
        {
            "capabilities": dict.fromkeys(CAPABILITIES, True),
            "cluster_name": config.cluster.name if config.cluster else config.node_name,
            "copyright": "fluffle contributors",
            "information": "Licensed under Apache-2.0",
            "platform": config.platform,
            "product": config.product,
            "version": config.product_version,
            "fluffle_version": config.version,
        }
    )
