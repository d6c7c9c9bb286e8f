"""A view of a cluster for tests of what queues do on one of its nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from fluffle.broker.base.errors import BrokerError
from fluffle.broker.cluster.links.handshake import COUNTS_SINCE
from fluffle.broker.cluster.ports import FrameKind, OnFrame, OnLink, Payload, TrafficClass
from fluffle.broker.cluster.queues.ports import QueueId
from fluffle.broker.metadata.metadata import Decide, Metadata, OnLateError, ignore_done
from fluffle.broker.queues.quorum.entry_codec import VERSION
from fluffle.broker.queues.quorum.messages import SessionBoot
from fluffle.raft.config import NodeId

NOBODY: Mapping[NodeId, int] = MappingProxyType({})


class NoChanges:
    """The `Metadata` of a node on which nothing is to be changed."""

    def change(
        self, decide: Decide, done: Callable[[], None], failed: Callable[[BrokerError], None]
    ) -> None:
        raise AssertionError("nothing is declared")

    def ensure(
        self,
        decide: Decide,
        done: Callable[[], None] = ignore_done,
        late: OnLateError | None = None,
    ) -> None:
        raise AssertionError("all is as it is known")


class FakeClusterView:
    """A `ClusterView` of a node that has all others beside it; a test has it otherwise."""

    revision: int | None = None
    own_incarnation = 1

    def __init__(
        self,
        node: NodeId,
        boot: SessionBoot,
        incarnations: Mapping[NodeId, int] = NOBODY,
        metadata: Metadata | None = None,
    ) -> None:
        self.node = node
        self.boot = boot
        self.incarnations = incarnations
        self.metadata = metadata if metadata is not None else NoChanges()

    def boot_of(self, _node: NodeId) -> SessionBoot | None:
        return None

    def is_alive(self, _node: NodeId) -> bool:
        return True

    def may_lead(self, node: NodeId) -> bool:
        return self.is_alive(node)

    def is_not_running(self, _node: NodeId) -> bool:
        return False

    def speaks(self, _node: NodeId) -> int:
        return COUNTS_SINCE

    def reads_of(self, _node: NodeId) -> int:
        return VERSION

    def hasten(self, queue: QueueId) -> None:
        """Ignore the call: no caller waits."""


class NoLinks:
    """The `Links` of a node that sends nothing."""

    on_frame: OnFrame
    on_link: OnLink

    def send(
        self, node: NodeId, kind: FrameKind, payload: Payload, *, traffic: TrafficClass
    ) -> None:
        raise AssertionError(f"nobody need be asked, and {node} is sent {payload!r}")

    def is_up(self, node: NodeId) -> bool:
        return bool(node)

    def waiting_bytes(self, node: NodeId, traffic: TrafficClass) -> int:
        del node, traffic
        return 0
