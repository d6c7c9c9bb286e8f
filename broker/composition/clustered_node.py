"""Clustered node: the part of a node that belongs to a cluster, for its queues and definitions."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from fluffle.broker.access.limits import Usage
from fluffle.broker.alarms import Alarms
from fluffle.broker.base.callbacks import completion_of
from fluffle.broker.base.logs import event
from fluffle.broker.cluster.client_takeover import ClientTakeover
from fluffle.broker.cluster.cluster import ClusterService
from fluffle.broker.cluster.direct_reply_to import RemoteReplies
from fluffle.broker.cluster.history_replication import HistoryReplication
from fluffle.broker.cluster.hosted_group import HostedGroup
from fluffle.broker.cluster.join import DiskAtStart, begin_boot
from fluffle.broker.cluster.links.handshake import CLIENTS_SINCE, REPLIES_SINCE, USAGE_SINCE
from fluffle.broker.cluster.links.identity import BOOT_NONCE_BYTES
from fluffle.broker.cluster.links.links import LinkSender
from fluffle.broker.cluster.ports import FrameKind, TrafficClass
from fluffle.broker.cluster.queues.classic_queues import ClassicQueues, ClassicQueuesEnvironment
from fluffle.broker.cluster.queues.quorum_member import QuorumServices
from fluffle.broker.cluster.queues.quorum_queues import QuorumQueues
from fluffle.broker.cluster.raft_host import log_refused
from fluffle.broker.cluster.resources import SharedAlarms, SharedUsage
from fluffle.broker.config.config import ClusterConfig
from fluffle.broker.core.direct_reply_to import ReplyTargets
from fluffle.broker.definitions.catalogue import Catalogue, queues_here
from fluffle.broker.definitions.ended_queues import (
    EndedQueues,
    count_on,
    ended_before,
    remove_ended,
)
from fluffle.broker.metadata.metadata import Metadata, ReadBarrier
from fluffle.broker.node_services import NodeServices
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.queue_api import FactoryByType, QueueFactory
from fluffle.broker.transfer.dead_letters import DeadLetters
from fluffle.broker.vhosts.vhost import OnKept
from fluffle.raft.config import NodeId
from fluffle.storage.environment import data_file
from fluffle.storage.file_mark import mark_of

logger = logging.getLogger(__name__)


class SharedState(Protocol):
    """State that a node sends to all others."""

    def receive(self, node: NodeId, payload: bytes) -> None:
        """Handle a frame of another node."""

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        """A link has come, or gone."""


class ClusteredNode:
    """Implementation of `ClusterPort` for a node of a cluster."""

    def __init__(
        self,
        services: NodeServices,
        config: ClusterConfig,
        *,
        dead_letters: DeadLetters,
        at_end: Callable[[Callable[[], None]], object],
    ) -> None:
        """A life of the node begins.  `at_end` has something called when the node ends, before it
        is stopped.  StartFailed.
        """
        durability, node = services.durability, services.config.node_name
        self._services = services
        self._dead_letters = dead_letters
        self._at_end = at_end
        self._config = config
        nonce = secrets.token_bytes(BOOT_NONCE_BYTES)
        disk = DiskAtStart(
            durability.store.disk.commit_number, mark_of(data_file(services.config.data_dir))
        )
        self._life = begin_boot(durability.identity, services.config, config, nonce, disk)
        self.boot = self._life.identity.boot.count
        self._classic_queues = ClassicQueues(
            node, self.boot, services.local, durability.journals_by_id, draw_bits=secrets.randbits
        )
        quorum_services = QuorumServices(
            services.dead_letter,
            services.settings,
            services.runtime.traffic,
            services.config.quorum,
        )
        self._quorum_queues = QuorumQueues(node, secrets.randbits, quorum_services)
        self.maker: QueueFactory = FactoryByType(
            {
                QueueType.CLASSIC: lambda: self._classic_queues,
                QueueType.MQTT_QOS0: lambda: self._classic_queues,
                QueueType.QUORUM: lambda: self._quorum_queues,
            }
        )
        self._histories = HistoryReplication(log_refused)
        self.kept: OnKept = self._histories.kept
        self.cluster: ClusterService | None = None
        """None until it has begun."""
        self.clients: ClientTakeover | None = None
        """None until they are shared."""
        self._catalogue: Catalogue

    def begin(self, catalogue: Catalogue) -> Metadata:
        """Start applying the definitions that all nodes share."""
        self._catalogue = catalogue
        self._quorum_queues.locator_by_policy = catalogue.policies.locator_of
        services, durability = self._services, self._services.durability
        self.cluster = cluster = ClusterService(
            self._life,
            self._config,
            services,
            catalogue,
            queues=self._quorum_queues,
            queues_on=partial(count_on, catalogue),
        )
        self._classic_queues.environment = ClassicQueuesEnvironment(
            cluster.node_sessions, asyncio.get_running_loop().call_later, durability.commits,
            cluster.applied_barrier, catalogue.vhosts, cluster.deletions,
        )  # fmt: skip
        loop = asyncio.get_running_loop()
        self._histories.begin(cluster.links, catalogue.vhosts, loop.call_soon)
        self._listen(FrameKind.HISTORY, self._histories)
        switch = cluster.running.switch
        switch.link_listeners.append(lambda _node, _is_up: self._dead_letters.hasten())
        return cluster.applied_barrier

    def share(self, alarms: Alarms, usage: Usage, requesters: ReplyTargets) -> None:
        links, loop = self._begun.links, asyncio.get_running_loop()
        shared_alarms = SharedAlarms(
            LinkSender(links, FrameKind.ALARM, TrafficClass.URGENT), alarms, log_refused
        )
        self._listen(FrameKind.ALARM, shared_alarms)
        self._begun.running.switch.accept_listeners.append(shared_alarms.link_accepted)
        usages = LinkSender(links, FrameKind.USAGE, TrafficClass.URGENT, since=USAGE_SINCE)
        self._listen(FrameKind.USAGE, SharedUsage(usage, usages, loop))
        replies = LinkSender(links, FrameKind.REPLY, since=REPLIES_SINCE)
        requesters.elsewhere = distant = RemoteReplies(self._begun.name, requesters, replies, loop)
        self._listen(FrameKind.REPLY, distant)
        sender = LinkSender(links, FrameKind.CLIENTS, TrafficClass.URGENT, since=CLIENTS_SINCE)
        self.clients = ClientTakeover(self._begun.name, sender, loop)
        self._listen(FrameKind.CLIENTS, self.clients)

    def _listen(self, kind: FrameKind, shared: SharedState) -> None:
        """Give it what is for it."""
        switch = self._begun.running.switch
        switch.takers[kind] = shared.receive
        switch.link_listeners.append(shared.link_changed)

    def watch_room(self, lost: Callable[[], object]) -> Callable[[], bool]:
        cluster, space = self._begun, self._begun.running.host.space
        cluster.room.on_needed = lost
        space.on_no_room = partial(asyncio.get_running_loop().call_soon, cluster.room.look)

        def has_room() -> bool:
            space.look()
            return space.has_room or not space.is_needed

        return has_room

    async def enter(self, addresses: dict[str, tuple[str, int]]) -> None:
        """Join the cluster and remove what has ended with earlier boots of this node."""
        cluster, services = self._begun, self._services
        await services.durability.durable()  # with the life that begins, before a word is said
        listening = cluster.start()
        addresses["cluster"] = listening.host, listening.port
        await cluster.enter()
        catalogue = self._catalogue
        is_ended = ended_before(cluster.name, self.boot)
        await completion_of(partial(remove_ended, catalogue, cluster.applied_barrier, is_ended))
        queues = {queue.definition.id for queue in queues_here(catalogue)}
        if count := services.durability.journals_by_id.sweep(queues):
            event(logger, logging.INFO, "journals_deleted", count=count)
        leftovers = EndedQueues(catalogue, cluster, asyncio.get_running_loop().call_later)
        self._at_end(leftovers.stop)
        leftovers.watch()
        self._histories.ask()

    @property
    def _begun(self) -> ClusterService:
        assert self.cluster is not None, "it has begun"
        return self.cluster

    # Questions

    @property
    def read_barrier(self) -> ReadBarrier:
        return self._begun.metadata.reads

    @property
    def groups(self) -> Mapping[int, HostedGroup]:
        return self._begun.running.host.groups

    @property
    def leader_changes(self) -> int:
        return self._begun.running.host.leader_changes

    def shown(self, member: str) -> str:
        return member

    def known(self, node: str) -> str | None:
        return node if node in self._catalogue.nodes.entries else None

    def is_alive(self, member: str) -> bool:
        return member == self._begun.name or self._begun.absent.is_alive(member)

    def leader_of(self, queue: int) -> str:
        return self._begun.node_sessions.routes.leader_of(queue).node

    # Ending

    def reload(self) -> None:
        if self.cluster is not None:
            self.cluster.reload()

    async def hand_over(self) -> None:
        if self.cluster is not None:
            await self.cluster.hand_over()

    async def stop(self) -> None:
        if self.cluster is not None:
            await self.cluster.stop()

    def cut_off(self) -> None:
        if self.cluster is not None:
            self.cluster.cut_off()
