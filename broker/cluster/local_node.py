"""A node as its own formation changes it: its disk, its links, its group of definitions."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from fluffle.broker.cluster.formation import Founders, Promise
from fluffle.broker.cluster.group_owner import METADATA_GROUP
from fluffle.broker.cluster.links.handshake import FORMATION_SINCE
from fluffle.broker.cluster.links.identity import MARK_LETTERS, mark_of, marked
from fluffle.broker.cluster.membership import begun_as
from fluffle.broker.cluster.ports import FrameKind, TrafficClass
from fluffle.broker.config.config import ListenAddress
from fluffle.broker.durability.definitions.node_identity import NodeIdentity, StoreOwner
from fluffle.raft.config import Config, NodeId

if TYPE_CHECKING:
    from fluffle.broker.cluster.cluster import Cluster


UNKNOWN_MARK = "?"
"""In the place of the mark of a cluster that knew this node before it had lost its disk."""

FOUNDED_AS = 1
"""The incarnation of all founders: see `Config.initial`."""


class LocalClusterNode:
    """The `LocalNode` of a daemon."""

    __slots__ = ("_cluster", "_kept")

    def __init__(self, cluster: Cluster, kept: NodeIdentity) -> None:
        self._cluster = cluster
        self._kept = kept

    @property
    def is_begun(self) -> bool:
        return begun_as(self._cluster.running.host) > 0

    @property
    def members(self) -> Founders | None:
        if not self._cluster.entering.is_over:
            return None
        return {node: known.address for node, known in self._cluster.registered.items()}

    def is_founder(self, node: NodeId) -> bool:
        member = self._cluster.metadata_config.member_on(node)
        return member is not None and member.incarnation == FOUNDED_AS

    @property
    def linked(self) -> Collection[NodeId]:
        links = self._cluster.links
        spoken = links.speaks.items()
        return [node for node, speaks in spoken if speaks >= FORMATION_SINCE and links.is_up(node)]

    @property
    def marks_nearby(self) -> Collection[str]:
        links = self._cluster.links
        hindrances = map(links.hindrance, links.peers)
        if any(each is not None and each.is_remembered for each in hindrances):
            return {UNKNOWN_MARK}
        return {mark_of(each.cluster) for each in links.heard if each.is_begun}

    def send(self, node: NodeId, payload: bytes) -> None:
        links = self._cluster.links
        if links.speaks.get(node, 0) >= FORMATION_SINCE:
            links.send(node, FrameKind.FORMATION, payload, lane=TrafficClass.URGENT)

    def draw_mark(self) -> str:
        return secrets.token_hex(MARK_LETTERS // 2)

    def keep(self, promise: Promise, done: Callable[[], None]) -> None:
        owned = self._kept.owned
        assert owned is not None, "the life that goes on is on disk"
        cluster = self._cluster
        name = marked(cluster.config.name, promise.mark)
        founders = tuple((node, at.host, at.port) for node, at in promise.founders.items())

        def kept() -> None:
            if cluster.running.is_running:
                cluster.links.cluster = name
                done()

        owned = owned._replace(cluster=name, founders=founders, left=promise.left)
        self._kept.put(owned, kept)

    def go_by(self, promise: Promise) -> None:
        """See `LocalNode.go_by`.  The leader tells a node that joins as which member it may begin,
        and that begins without a configuration.  A group that has a configuration and no entry is
        of a founding that came to nothing."""
        host = self._cluster.running.host
        voters = {member.node for member in self._cluster.metadata_config.voters}
        is_there = METADATA_GROUP in host
        if is_there and voters and voters != set(promise.founders) and not self.is_begun:
            host.delete(METADATA_GROUP)
            is_there = False
        if promise.founders and not is_there and self._cluster.progress.may_begin_as(FOUNDED_AS):
            host.create(METADATA_GROUP, FOUNDED_AS, Config.initial(promise.founders))
            self._cluster.running.hasten(METADATA_GROUP)
        self._cluster.entering.look_again()

    def reach(self, node: NodeId, address: ListenAddress) -> None:
        if node not in self._cluster.links.peers:
            self._cluster.set_peer(node, address)

    def admit(self, node: NodeId, address: ListenAddress) -> None:
        cluster = self._cluster
        host = address.host or cluster.links.hosts.get(node, "")
        if cluster.config.admit and host:
            cluster.admission.admit(node, ListenAddress(host, address.port))


def promise_of(owned: StoreOwner, config: Config, addresses: Founders) -> Promise:
    """The promise on disk.

    Earlier versions kept no founders, and made the mark of their names: they are known by that, as
    long as all of them are members in `config`, so that the last can be helped to begin.
    """
    mark = mark_of(owned.cluster)
    founders = {node: ListenAddress(host, port) for node, host, port in owned.founders}
    first = {each.node for each in config.members if each.incarnation == FOUNDED_AS}
    if not founders and first <= addresses.keys() and mark == mark_of_names(first):
        founders = {node: addresses[node] for node in sorted(first)}
    return Promise(mark, founders, owned.left)


def mark_of_names(founders: Collection[NodeId]) -> str:
    """The mark of a cluster that an earlier version has founded."""
    return hashlib.sha256("\0".join(sorted(founders)).encode()).hexdigest()[:MARK_LETTERS]
