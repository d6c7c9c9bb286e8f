"""The port to the rest of the cluster: of one node alone, or of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from fluffle.broker.access.limits import Usage
from fluffle.broker.alarms import Alarms
from fluffle.broker.metadata.metadata import Metadata, ReadBarrier
from fluffle.broker.queues.queue_api import QueueFactory
from fluffle.broker.vhosts.vhost import OnKept

if TYPE_CHECKING:
    from fluffle.broker.cluster.client_takeover import ClientTakeover
    from fluffle.broker.cluster.cluster import ClusterService
    from fluffle.broker.cluster.hosted_group import HostedGroup
    from fluffle.broker.core.direct_reply_to import ReplyTargets
    from fluffle.broker.definitions.catalogue import Catalogue


class ClusterView(Protocol):
    """View of the other nodes, and of what this one shares with them."""

    @property
    def cluster(self) -> ClusterService | None:
        """None where it is alone."""

    @property
    def read_barrier(self) -> ReadBarrier:
        """The knowledge of definitions; in a cluster once it has begun."""

    @property
    def groups(self) -> Mapping[int, HostedGroup]:
        """The Raft groups with a member here."""

    @property
    def leader_changes(self) -> int:
        """How often one of these was found to have another leader since the node started."""

    def shown(self, member: str) -> str:
        """How people call a node that has a member of a queue."""

    def known(self, node: str) -> str | None:
        """The other way round; None for an unknown node."""

    def is_alive(self, member: str) -> bool:
        """True if it is believed to be; of this node it is known."""

    def leader_of(self, queue: int) -> str:
        """Member that leads a quorum queue, as far as known; empty if unknown."""


class ClusterPort(ClusterView, Protocol):
    """Made before the catalogue, whose queues it makes.

    A start goes so: the catalogue is restored with `maker`, `begin`, `enter`; then clients come.
    """

    boot: int
    """How often the node was started as one of a cluster; 0 where it is alone."""
    maker: QueueFactory
    kept: OnKept
    """Callback for a message published here that an exchange has kept: other nodes keep it, too."""

    @property
    def clients(self) -> ClientTakeover | None:
        """Clients that may be connected to one node only, once they are shared; None where it is
        alone."""

    def begin(self, catalogue: Catalogue) -> Metadata:
        """Start with the definitions that were on disk; returns where they are changed from now
        on.

        StartFailed, `StorageError`.
        """

    def share(self, alarms: Alarms, usage: Usage, requesters: ReplyTargets) -> None:
        """Share alarms, counts of connections and direct reply-to with the other nodes."""

    def watch_room(self, lost: Callable[[], object]) -> Callable[[], bool]:
        """Function that says if quorum queues may grow, by all that is known of the nodes' disks.

        `lost` is called, maybe from within a turn, as soon as they may not.
        """

    async def enter(self, addresses: dict[str, tuple[str, int]]) -> None:
        """Return once all that others know is known here; what was bound for it is in `addresses`.

        StartFailed, `StorageError`.
        """

    def reload(self) -> None:
        """Read certificates again."""

    async def hand_over(self) -> None:
        """The node is about to stop: have others do what it does for all."""

    async def stop(self) -> None:
        """Clients are gone: have leaders know what they have done, and do nothing any more.

        The store is still open."""

    def cut_off(self) -> None:
        """Do nothing any more, at once; `stop` is still to come."""
