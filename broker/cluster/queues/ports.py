"""Ports between sessions and leaders of queues: what each part asks of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import NamedTuple, Protocol, TypeAlias

from fluffle.broker.cluster.queue_sessions.events import Event
from fluffle.broker.cluster.queue_sessions.session_client import SessionClient
from fluffle.broker.cluster.queue_sessions.session_server import SessionServer
from fluffle.broker.metadata.metadata import Metadata
from fluffle.broker.queues.engine import QueueExpiry
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.queue_api import PeekRequest, PeekResult
from fluffle.broker.queues.queue_view import KeptDead, ReadyView
from fluffle.broker.queues.quorum.messages import SessionBoot
from fluffle.raft.config import NodeId

QueueId: TypeAlias = int
"""Number of a queue in its definition: the group of a session's frames, and of a quorum queue that
of Raft."""

OnEvents = Callable[[list[Event]], None]


class SessionPort(Protocol):
    """The connected session of one queue."""

    session: SessionClient

    @property
    def is_away(self) -> bool:
        """True if the node that the queue lives on cannot be reached: nothing may be asked."""

    def touch(self) -> None:
        """Schedule the session: its `output` is sent before this turn ends."""


class LeaderCounts(NamedTuple):
    """Message and consumer counts of a queue, as its leader knows them."""

    ready: int
    unacked: int
    consumers: int
    apart: int = 0
    """Messages that wait to be ready again, and those that have died and must arrive elsewhere."""


OnFailure = Callable[[Mapping[str, object], Exception], None]
"""Called with the queue, as `named` has it, and the error."""

OnCounts = Callable[[LeaderCounts | None], None]
"""Called with None if no leader could be asked."""

OnPeeked = Callable[[PeekResult | None], None]
"""The same."""


class SessionDirectory(Protocol):
    """The sessions of a node, by the id of their queue."""

    def open(self, definition: QueueDefinition, on_events: OnEvents) -> SessionPort:
        """Open a session with a queue; `on_events` is called from within a turn."""

    def close(self, queue: QueueId) -> None:
        """A queue is gone for good: `on_events` gets what becomes of what was asked."""

    def counts_here(self, queue: QueueId) -> LeaderCounts | None:
        """If it is led by this node."""

    def ask_counts(self, queue: QueueId, done: OnCounts, *, in_use: bool = False) -> None:
        """Call `done` once, within seconds and not before this returns.

        `in_use`: asking is a use of the queue, so that it does not expire.
        """

    def peek(self, queue: QueueId, view: PeekRequest, done: OnPeeked) -> None:
        """Call `done` in the same way with ready messages."""


class Reachability(Enum):
    """Reachability of the members that may lead a queue."""

    ENOUGH = "enough to lead it"
    TOO_FEW = "too few to lead it"
    NONE = "nobody, and that may last"


class KnownLeader(NamedTuple):
    """The last known leader of a queue; a greater one is later."""

    term: int = 0
    leadership: int = 0
    node: NodeId = ""
    """Empty: none, or none that is known."""


NO_LEADER = KnownLeader()


def named(queue: QueueId, vhost: str, definition: QueueDefinition | None) -> dict[str, object]:
    """Fields that name a queue in a line of the log; unknown ones are left out.

    The number is for `fluffle log dump`, and for what it is called once it is gone.
    """
    if definition is None:
        return {"group": queue}
    return {"vhost": vhost, "queue": definition.spec.name, "group": queue}


class HostedQueue(Protocol):
    """A queue that may be led here."""

    @property
    def named(self) -> Mapping[str, object]:
        """Fields that name the queue in the log."""

    @property
    def known(self) -> KnownLeader:
        """Leader of the queue, as known here."""

    @property
    def sessions(self) -> SessionServer | None:
        """While it is led here."""

    @property
    def counts(self) -> LeaderCounts:
        """While it is led here, as far as is known here: maybe others have taken over."""

    @property
    def ready_view(self) -> ReadyView:
        """Ready messages that may be shown, while the queue is led here."""

    @property
    def kept_dead(self) -> KeptDead:
        """Messages that have died and must arrive elsewhere, while it is led here."""

    def confirm(self, done: Callable[[bool], None]) -> None:
        """Call `done` once it is sure that no other led when this was asked; with False if that
        cannot be known."""

    @property
    def queue_expiry(self) -> QueueExpiry | None:
        """Idle time of the queue, while it is led here; None if it has no x-expires."""

    def pump(self) -> None:
        """Once a turn, if it was touched."""

    def fail(self) -> None:
        """Stop leading after an error, until `lead_again`."""

    def lead_again(self) -> None:
        """With nothing but what is on record."""


class QueueClusterView(Protocol):
    """The nodes of a cluster, as the queues on one of them see them."""

    @property
    def node(self) -> NodeId:
        """This one."""

    @property
    def boot(self) -> SessionBoot:
        """This life of it."""

    @property
    def incarnations(self) -> Mapping[NodeId, int]:
        """The nodes of the cluster, each in its incarnation there: none that is on its way out."""

    @property
    def own_incarnation(self) -> int:
        """Incarnation of this node, which may not be known to all."""

    @property
    def metadata(self) -> Metadata:
        """Where definitions are changed."""

    @property
    def revision(self) -> int | None:
        """Revision of the definitions on this node; None where a node is alone."""

    def boot_of(self, node: NodeId) -> SessionBoot | None:
        """The life in which a node to which there is a link is there."""

    def is_alive(self, node: NodeId) -> bool:
        """True if another node is believed to be."""

    def may_lead(self, node: NodeId) -> bool:
        """True if it is, and its disk has room."""

    def is_not_running(self, node: NodeId) -> bool:
        """True if the process of a node to which there is no link is known not to run."""

    def speaks(self, node: NodeId) -> int:
        """The newest version of links that another node and this one both speak."""

    def reads_of(self, node: NodeId) -> int:
        """The newest version of logs that a node says it reads; 0 if it has said nothing yet."""

    def hasten(self, queue: QueueId) -> None:
        """Clients wait for a leader of a queue that may have a member here."""
