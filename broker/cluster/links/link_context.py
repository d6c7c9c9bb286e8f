"""Context shared by a node's connections: its identity, limits, time, chance and counters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluffle.broker.base.clock import Clock
from fluffle.broker.cluster.links.counters import LinkCounters
from fluffle.broker.cluster.links.handshake import Credentials
from fluffle.broker.cluster.links.limits import LinkLimits
from fluffle.broker.cluster.links.refusals import RefusalLog
from fluffle.broker.cluster.links.tls import LinkCertificates
from fluffle.raft.config import NodeId

if TYPE_CHECKING:
    from fluffle.broker.cluster.links.connection import LinkConnection


@dataclass(frozen=True, slots=True)
class LinkContext:
    """Context of the links, one for each node."""

    credentials: Credentials
    tuning: LinkLimits
    clock: Clock
    chance: Callable[[], float]
    """From 0 to below 1: so that nodes do not dial in step."""
    draw: Callable[[int], bytes]
    """So many bytes that nobody can guess, for challenges."""
    certificates: LinkCertificates | None = None
    """None: links speak in the clear."""
    counters: LinkCounters = field(default_factory=LinkCounters)
    refusals: RefusalLog = field(default_factory=RefusalLog)
    sockets: set[LinkConnection] = field(default_factory=set)
    """Of either direction, linked or not, until they are closed."""
    apart_ms: dict[NodeId, int] = field(default_factory=dict)
    """When a node was met last that is of another cluster of our name and secret."""
