"""Image of a node's stored definitions: plain values from which its parts are built."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fluffle.broker.access.access import AccessTables
from fluffle.broker.access.limits import VhostSettings
from fluffle.broker.base.client_session import (
    ClientSession,
    DueWill,
    PacketPage,
    PageName,
    WillName,
)
from fluffle.broker.base.message import RetainedMessage
from fluffle.broker.metadata.change import Entry, Key, Kind
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.routing.bindings import Binding
from fluffle.broker.routing.exchange import ExchangeSpec

KEPT: Mapping[Kind, tuple[str, ...]] = {
    Kind.POLICY: ("vhost", "name"),
    Kind.PARAMETER: ("vhost", "component", "name"),
    Kind.GLOBAL_PARAMETER: ("name",),
}
"""Kinds of stored entries that have no effect here, with the fields of their names."""


class FirstStart(NamedTuple):
    """Users and virtual hosts made at the first start; they may be deleted since."""

    users: tuple[str, ...] = ()
    vhosts: tuple[str, ...] = ()


@dataclass(slots=True)
class VhostImage:
    """Stored definitions of one virtual host.

    Both ends of every binding are there.
    """

    settings: VhostSettings = field(default_factory=VhostSettings)
    exchanges: list[ExchangeSpec] = field(default_factory=list)
    queues: list[QueueDefinition] = field(default_factory=list)
    bindings: list[Binding] = field(default_factory=list)
    retained: dict[str, RetainedMessage] = field(default_factory=dict)
    """Retained messages by topic."""
    client_sessions: dict[str, ClientSession] = field(default_factory=dict)
    """Sessions by client, as are the packets below."""
    client_packets: dict[str, dict[PageName, PacketPage]] = field(default_factory=dict)
    due_wills: dict[WillName, DueWill] = field(default_factory=dict)


@dataclass(slots=True)
class DefinitionImage:
    """Stored definitions of the whole node."""

    first_start: FirstStart | None = None
    """None if there was none yet."""
    tables: AccessTables = field(default_factory=AccessTables)
    vhosts: dict[str, VhostImage] = field(default_factory=dict)
    doomed: list[str] = field(default_factory=list)
    """Virtual hosts whose deletion had begun."""
    kept: dict[Kind, dict[Key, Entry]] = field(default_factory=lambda: {kind: {} for kind in KEPT})
