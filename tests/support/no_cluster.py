"""The neighbours of a node that has none, and no quorum queue."""

from __future__ import annotations

from collections.abc import Mapping

from fluffle.broker.cluster.hosted_group import HostedGroup
from fluffle.broker.metadata.metadata import LOCAL_READ_BARRIER, ReadBarrier


class NoCluster:
    """Port to a cluster of a node that is alone."""

    cluster = None
    read_barrier: ReadBarrier = LOCAL_READ_BARRIER
    groups: Mapping[int, HostedGroup] = {}
    leader_changes = 0

    def shown(self, member: str) -> str:
        return member

    def known(self, node: str) -> str | None:
        del node
        return None

    def is_alive(self, member: str) -> bool:
        del member
        return True

    def leader_of(self, queue: int) -> str:
        del queue
        return ""
