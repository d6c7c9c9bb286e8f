"""Which nodes run, as each of the others sees it: asked before one is forgotten.

That a link between two nodes is cut says nothing of either.

question  [0, number]
answer    [1, number, node ...]    those that the one who is asked sees
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from fluffle.broker.cluster.absent_nodes import AbsentNodes
from fluffle.broker.cluster.codec import BadFrame, pack, unpack
from fluffle.broker.cluster.gather import Gather, OnAnswers
from fluffle.raft.config import NodeId


class PeerViews:
    """The questions of one node that have no answer yet, and the answers to others."""

    __slots__ = ("_absent", "_polls", "_send")

    def __init__(
        self,
        absent: AbsentNodes,
        send: Callable[[NodeId, bytes], None],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """`send`: to the `receive` of another node; may be lost."""
        self._absent = absent
        self._send = send
        self._polls: Gather[frozenset[NodeId]] = Gather(send, call_later)

    def ask(self, nodes: Collection[NodeId], done: OnAnswers[frozenset[NodeId]]) -> None:
        """Told once, within seconds and not before this returns, whom those see that answered."""
        self._polls.ask(nodes, lambda number: pack(0, number), done)

    @property
    def asked(self) -> int:
        """How often."""
        return self._polls.asked

    def receive(self, node: NodeId, payload: bytes) -> None:
        """A question or an answer.  Raises `BadFrame`."""
        kind, number, seen = unpacked(payload)
        if kind == 1:
            self._polls.answered(node, number, seen)
        else:
            self._send(node, pack(1, number, *sorted(self._absent.alive)))


def unpacked(payload: bytes) -> tuple[int, int, frozenset[NodeId]]:
    """Raises `BadFrame`."""
    row = unpack(payload)
    if (
        type(row) is not list
        or row[:1] not in ([0], [1])
        or [type(each) for each in row] != [int, int, *[str] * (len(row) - 2)]
    ):
        raise BadFrame(f"{row!r:.40} for who is seen")
    return row[0], row[1], frozenset(row[2:])
