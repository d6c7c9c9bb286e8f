"""Context shared by a node's connections: its identity, limits, time, chance and counters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluffle.broker.base.clock import Clock
from fluffle.broker.cluster.links.handshake import Credentials
from fluffle.broker.cluster.links.identity import Reason
from fluffle.broker.cluster.links.limits import LinkLimits
from fluffle.broker.cluster.links.refusals import RefusalLog
from fluffle.broker.cluster.links.tls import LinkCertificates
from fluffle.raft.config import NodeId

if TYPE_CHECKING:
    from fluffle.broker.cluster.links.connection import LinkConnection


class LinkCounters:
    """Counters of all links together."""

    __slots__ = (
        "accepted",
        "bytes_in",
        "bytes_out",
        "frames_dropped",
        "frames_in",
        "frames_out",
        "frames_without_room",
        "opened",
        "refused",
        "resets",
    )

    def __init__(self) -> None:
        self.bytes_in = 0
        """Handshakes and beats included; without what TLS adds."""
        self.bytes_out = 0
        self.frames_in = 0
        self.frames_out = 0
        """Put into an outbox; those that were in it when their link was lost are among them."""
        self.frames_dropped = 0
        """For nodes whose link was down."""
        self.frames_without_room = 0
        """Not taken, because too much waits in their lane already."""
        self.opened = 0
        """Links that we dialled, once both ends were proved."""
        self.accepted = 0
        """Links that others dialled, likewise."""
        self.resets = 0
        """Links of either direction that were open and ended."""
        self.refused = dict.fromkeys(Reason, 0)
        """Hellos that led to no link, whichever end refused, and certificates."""


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
