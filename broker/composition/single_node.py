"""Single node: a node without a cluster, and the one-member groups of its quorum queues."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from fluffle.broker.access.limits import Usage
from fluffle.broker.alarms import Alarms
from fluffle.broker.base.errors import StartFailed
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.metadata.metadata import (
    LOCAL_READ_BARRIER,
    LocalMetadata,
    Metadata,
    ReadBarrier,
)
from fluffle.broker.node_services import NodeServices
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.queue_api import FactoryByType, QueueFactory
from fluffle.broker.runtime.turn import do_nothing
from fluffle.broker.vhosts.vhost import OnKept, ignore_kept

if TYPE_CHECKING:
    from fluffle.broker.cluster.hosted_group import HostedGroup
    from fluffle.broker.cluster.single_node_quorum import SingleNodeQuorum
    from fluffle.broker.core.direct_reply_to import ReplyTargets

NO_GROUPS: Mapping[int, HostedGroup] = MappingProxyType({})


class SingleNode:
    """Implementation of `ClusterPort` for a node without a cluster."""

    boot = 0
    cluster = None
    clients = None
    read_barrier: ReadBarrier = LOCAL_READ_BARRIER

    def __init__(self, services: NodeServices) -> None:
        """StartFailed for the data of a node of a cluster."""
        if owned := services.durability.identity.owned:
            raise StartFailed(
                f"{services.config.data_dir} holds the data of node '{owned.node}' of a cluster; "
                "name its nodes with --peers, or another place with --data-dir"
            )
        self._services = services
        self.kept: OnKept = ignore_kept
        self.maker: QueueFactory = FactoryByType(
            {
                QueueType.CLASSIC: lambda: services.local,
                QueueType.MQTT_QOS0: lambda: services.local,
                QueueType.QUORUM: self._quorum_queues,
            }
        )
        self._metadata: Metadata | None = None
        """Once it has begun."""
        self._lone: SingleNodeQuorum | None = None
        """Once there has been a quorum queue."""
        self._on_no_room: Callable[[], object] = do_nothing

    def begin(self, catalogue: Catalogue) -> Metadata:
        self._metadata = LocalMetadata(catalogue.apply, self._services.durability.facts)
        if self._lone is not None:
            self._lone.start(self._metadata)
        return self._metadata

    def _quorum_queues(self) -> QueueFactory:
        """The first one is declared, or was there when the process before this ended."""
        from fluffle.broker.cluster.single_node_quorum import SingleNodeQuorum  # noqa: PLC0415  slow, and rarely used

        self._lone = lone = SingleNodeQuorum(self._services)
        lone.running.host.space.on_no_room = self._no_room
        if self._metadata is not None:
            lone.start(self._metadata)
        return lone.queues

    def share(self, alarms: Alarms, usage: Usage, requesters: ReplyTargets) -> None:
        """Do nothing: there are no other nodes."""

    def watch_room(self, lost: Callable[[], object]) -> Callable[[], bool]:
        self._on_no_room = lost
        return self._has_room

    def _has_room(self) -> bool:
        if self._lone is None:
            return True
        space = self._lone.running.host.space
        space.look()
        return space.has_room

    def _no_room(self) -> None:
        self._on_no_room()

    # Questions

    @property
    def groups(self) -> Mapping[int, HostedGroup]:
        return self._lone.running.host.groups if self._lone is not None else NO_GROUPS

    @property
    def leader_changes(self) -> int:
        return self._lone.running.host.leader_changes if self._lone is not None else 0

    def shown(self, member: str) -> str:
        del member
        return self._services.config.node_name

    def known(self, node: str) -> str | None:
        if node != self._services.config.node_name:
            return None
        return self._lone.name if self._lone is not None else node

    def is_alive(self, member: str) -> bool:
        del member
        return True

    def leader_of(self, queue: int) -> str:
        return (
            self._lone.node_sessions.routes.leader_of(queue).node if self._lone is not None else ""
        )

    # No other node

    async def enter(self, addresses: dict[str, tuple[str, int]]) -> None:
        """Nothing that others know is of interest."""

    def reload(self) -> None:
        """Do nothing: there are no certificates."""

    async def hand_over(self) -> None:
        """Do nothing: there are no other nodes."""

    async def stop(self) -> None:
        if self._lone is not None and self._lone.running.is_running:
            from fluffle.broker.cluster.leadership_transfer import await_settled_sessions  # noqa: PLC0415  as above

            await await_settled_sessions(self._lone.node_sessions.routes)
        self.cut_off()

    def cut_off(self) -> None:
        if self._lone is not None:
            self._lone.running.stop()
