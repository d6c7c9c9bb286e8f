"""Direct reply-to across nodes: answers, and whether a client still waits for them.

    answers     [0, name, [[exchange, routing key, content], ...]]
    question    [1, number, name]        whether a requester of that name is there
    it is       [2, number, yes or no]

The name of a requester ends with the mark of its node, so that any node knows where to send
replies.  As within a node nothing is kept for later: what the link to that node does not take now
is dropped.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from fluffle.broker.base.clock import EventLoop
from fluffle.broker.base.message import Origin, Origins
from fluffle.broker.cluster.codec import TEXT_ERRORS, BadFrame, pack, unpack
from fluffle.broker.cluster.ports import FrameSender
from fluffle.broker.queues.queue_api import Deferred
from fluffle.raft.config import NodeId

if TYPE_CHECKING:
    from fluffle.broker.queues.queue_api import (
        DeliveryBatch,
        OverdueDeliveries,
        QueueHandle,
        TimedOutDeliveries,
    )

ANSWERS, QUESTION, IT_IS = range(3)

MARK_BYTES = 6
"""Bytes of the digest of a node's name: practically never the same for two nodes of a cluster."""

FRAME_BYTES_MAX = 1 << 20
"""Bytes of answers in one frame; one that is larger goes alone."""
LONE_BYTES_MAX = 100 << 20
"""Bytes of the largest answer that a link takes; larger ones are dropped."""

REPLY_TIMEOUT_S = 5.0
"""Time after which a requester counts as gone."""


@lru_cache(maxsize=64)
def mark_of(node: NodeId) -> str:
    """How names end that this node gives."""
    digest = sha256(node.encode()).digest()[:MARK_BYTES]
    return urlsafe_b64encode(digest).decode()


class LocalRequesters(Protocol):
    """Requesters of direct reply-to on this node."""

    def has(self, name: str) -> bool:
        """True if one of that name is there."""

    def deliver_reply(self, name: str, origins: list[Origin], contents: list[bytes]) -> None:
        """Have it hear answers, if it is."""


class RemoteReplies:
    """Frames of direct reply-to that one node exchanges with the others."""

    def __init__(
        self, node: NodeId, here: LocalRequesters, sender: FrameSender, loop: EventLoop
    ) -> None:
        self.mark = mark_of(node)
        """Mark of this node in reply names."""
        self._here = here
        self._sender = sender
        self._loop = loop
        self._origins = Origins()
        self._number = 0
        self._asked: dict[int, tuple[NodeId, Deferred[bool]]] = {}
        """Questions that other nodes have not answered yet."""

    def requester(self, name: str) -> RemoteRequester | None:
        """Requester of that name on another node, connected or not; None if this node made the
        name."""
        return None if name.endswith(self.mark) else RemoteRequester(self, name)

    def is_there(self, name: str) -> bool | Deferred[bool]:
        """True if a requester of another node is."""
        node = self._node_of(name)
        if node is None:
            return False
        self._number = number = self._number + 1
        later = Deferred[bool]()
        self._asked[number] = node, later
        self._sender.send(node, pack(QUESTION, number, name, text_errors=TEXT_ERRORS))
        self._loop.call_later(REPLY_TIMEOUT_S, partial(self._answered, number, is_there=False))
        return later

    def send(self, name: str, origins: Sequence[Origin], contents: Sequence[bytes]) -> None:
        """Send replies to the node of a requester."""
        node = self._node_of(name)
        if node is not None:
            for rows in packed(origins, contents):
                self._sender.send(node, pack(ANSWERS, name, rows, text_errors=TEXT_ERRORS))

    def _node_of(self, name: str) -> NodeId | None:
        marked = (node for node in self._sender.reached if name.endswith(mark_of(node)))
        return next(marked, None)

    def _answered(self, number: int, *, is_there: bool) -> None:
        _node, later = self._asked.pop(number, (None, None))
        if later is not None:
            later.answer(is_there)

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        """Questions and answers are lost with a link, and so are requesters, often."""
        del is_up
        for number in [each for each, (asked, _) in self._asked.items() if asked == node]:
            self._answered(number, is_there=False)

    def receive(self, node: NodeId, payload: bytes) -> None:
        """Take replies, or a question, of another node.  Raises `BadFrame`."""
        try:
            self._heard(node, unpack(payload, text_errors=TEXT_ERRORS))
        except (BadFrame, TypeError, ValueError) as error:
            raise BadFrame("its answer cannot be read") from error

    def _heard(self, node: NodeId, row: list[Any]) -> None:
        match row:
            case [0, str(name), list(rows)]:
                origins, contents = unpacked(rows, self._origins)
                self._here.deliver_reply(name, origins, contents)
            case [1, int(number), str(name)]:
                self._sender.send(node, pack(IT_IS, number, self._here.has(name)))
            case [2, int(number), bool(is_there)]:
                if self._asked.get(number, ("", None))[0] == node:
                    self._answered(number, is_there=is_there)
            case _:
                raise BadFrame("neither answers nor a question")


class RemoteRequester:
    """Stands for one at another node: what it is handed goes there."""

    __slots__ = ("_name", "_replies")

    no_ack = True
    timeout_ms = None

    def __init__(self, replies: RemoteReplies, name: str) -> None:
        self._replies = replies
        self._name = name

    @property
    def queue(self) -> QueueHandle:
        raise AssertionError("answers are in no queue")

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        self._replies.send(self._name, delivery_batch.origins, delivery_batch.contents)

    def took(self, delivery_batch: DeliveryBatch) -> None:
        """Nothing is counted."""

    def settled(self, count: int) -> None:
        raise AssertionError("it holds nothing")

    def overdue(self, late: OverdueDeliveries) -> None:
        raise AssertionError("it holds nothing")

    def timed_out(self, lost: TimedOutDeliveries) -> None:
        raise AssertionError("it holds nothing")


Row: TypeAlias = tuple[str, str, bytes]


def packed(origins: Sequence[Origin], contents: Sequence[bytes]) -> Iterator[list[Row]]:
    """In portions, each for a frame."""
    portion: list[Row] = []
    size_bytes = 0
    for origin, content in zip(origins, contents, strict=True):
        if len(content) > LONE_BYTES_MAX:
            continue
        if portion and size_bytes + len(content) > FRAME_BYTES_MAX:
            yield portion
            portion, size_bytes = [], 0
        portion.append((origin.exchange, origin.routing_key, content))
        size_bytes += len(content)
    if portion:
        yield portion


def unpacked(rows: list[Any], known: Origins) -> tuple[list[Origin], list[bytes]]:
    """BadFrame, ValueError, TypeError."""
    origins, contents = [], []
    for exchange, routing_key, content in rows:
        if type(content) is not bytes or type(exchange) is not str or type(routing_key) is not str:
            raise BadFrame("no answer")
        origins.append(known.of(exchange, routing_key))
        contents.append(content)
    if not contents:
        raise BadFrame("no answers")
    return origins, contents
