"""How far members of a queue are: asked of those that can be reached, before one goes on alone.

question  [0, number, queue]
answer    [1, number, term, last]    its last entry; or [1, number]: nothing that can be used
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from fluffle.broker.cluster.codec import BadFrame, pack
from fluffle.broker.cluster.gather import Gather, OnAnswers
from fluffle.broker.cluster.queues.leader_queries import unpacked
from fluffle.broker.cluster.queues.ports import QueueId
from fluffle.broker.cluster.raft_host import RaftHost
from fluffle.raft.config import NodeId


class LogPosition(NamedTuple):
    """The position of a log's last entry; the greater of two has more that may be committed."""

    term: int
    last: int


class LogPositions:
    """Requests of one node for positions, without an answer yet, and the answers to others."""

    __slots__ = ("_host", "_node", "_polls", "_send")

    def __init__(
        self,
        node: NodeId,
        host: RaftHost,
        send: Callable[[NodeId, bytes], None],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """`send`: to the `receive` of another node; may be lost."""
        self._node = node
        self._host = host
        self._send = send
        self._polls: Gather[LogPosition] = Gather(send, call_later)

    def here(self, queue: QueueId) -> LogPosition | None:
        """That of the member on this node; None if it has nothing to go on with."""
        if queue not in self._host:
            return None
        hosted = self._host.group(queue)
        status = hosted.status
        if status.is_quarantined or status.config.member_on(self._node) is None:
            return None
        return LogPosition(status.last_term, status.last)

    def ask(self, queue: QueueId, nodes: Collection[NodeId], done: OnAnswers[LogPosition]) -> None:
        """Told once, within seconds and not before this returns, of those that have answered."""
        self._polls.ask(nodes, lambda number: pack(0, number, queue), done)

    def receive(self, node: NodeId, payload: bytes) -> None:
        """A question or an answer.  Raises `BadFrame`."""
        kind, number, *rest = unpacked(payload)
        if kind == 0 and len(rest) == 1:
            self._send(node, pack(1, number, *(self.here(rest[0]) or ())))
        elif kind == 1 and len(rest) in (0, len(LogPosition._fields)):
            self._polls.answered(node, number, LogPosition(*rest) if rest else None)
        else:
            raise BadFrame("neither a question nor an answer")
