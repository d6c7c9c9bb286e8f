"""Replication of what x-recent-history exchanges keep, from each node to the others.

    kept --> sent to each node that there is a link to, once a turn
    a node that has started asks the others for all of it, and takes what the first one says

Whoever is bound through any node gets it, and it lasts as long as one node does.  It is no more
than that: what does not fit into a link that is behind is not sent, and messages that are published
on two nodes at once may be in another order on each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from fluffle.broker.base.message import MessageAnnotations, Origin
from fluffle.broker.cluster.codec import TEXT_ERRORS, BadFrame, pack, unpack
from fluffle.broker.cluster.links.links import ClusterLinks
from fluffle.broker.cluster.ports import FrameKind, TrafficClass
from fluffle.broker.routing.recent_history import HistoryMessage, MessageHistory
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.raft.config import NodeId

FRAME_BYTES_MAX = 1 << 20
"""Bytes of messages in one frame; one that is larger goes alone."""
LONE_BYTES_MAX = 8 << 20
"""Bytes of the largest message that is sent."""

ASK, KEPT, ALL = range(3)
QUESTION = pack(ASK, [])

Row: TypeAlias = tuple[str, str, HistoryMessage]
"""Virtual host, exchange, message."""

NO_VHOST = ""
"""In the place of one: the row says what the origin of the message behind it has besides: the keys
of BCC, and annotations in the place of a content.  A node that does not know of them passes over
it, since there is no such virtual host."""


class HistoryReplication:
    """Replication of the recent-history exchanges of one node to and from the others."""

    def __init__(self, refused: Callable[[NodeId, str], None]) -> None:
        """`refused` hears what was not one of ours."""
        self._refused = refused
        self._links: ClusterLinks
        self._vhosts: Mapping[str, VirtualHost]
        self._call_soon: Callable[[Callable[[], None]], object]
        self._unsent: list[Row] = []
        self._is_asking = False
        """True until another node has sent what was kept before this one started."""
        self._filler: NodeId | None = None
        """Node that has sent the history kept before this one started."""
        self._filled: set[tuple[str, str]] = set()
        """Exchanges whose earlier history has been received."""

    def begin(
        self,
        links: ClusterLinks,
        vhosts: Mapping[str, VirtualHost],
        call_soon: Callable[[Callable[[], None]], object],
    ) -> None:
        """Start replicating: there are other nodes, and exchanges."""
        self._links = links
        self._vhosts = vhosts
        self._call_soon = call_soon

    def kept(self, vhost: str, exchange: str, message: HistoryMessage) -> None:
        """An exchange has kept a message that was published here."""
        if not self._unsent:
            self._call_soon(self._send_kept)
        self._unsent.append((vhost, exchange, message))

    def _send_kept(self) -> None:
        unsent, self._unsent = self._unsent, []
        frames = list(packed(KEPT, unsent))
        for node in tuple(self._links.peers):
            self._send(node, frames)

    def _send(self, node: NodeId, frames: Iterable[bytes]) -> None:
        for frame in frames:
            self._links.send(node, FrameKind.HISTORY, frame, traffic=TrafficClass.BULK)

    def ask(self) -> None:
        """The exchanges that there are are known."""
        self._is_asking = True
        for node in tuple(self._links.peers):
            self._send(node, [QUESTION])

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        if is_up and self._is_asking:
            self._send(node, [QUESTION])

    def receive(self, node: NodeId, payload: bytes) -> None:
        """Handle a frame of another node: a question, or kept messages."""
        try:
            kind, rows = unpack(payload, text_errors=TEXT_ERRORS)
            heard = [*unpacked(rows)]
        except (BadFrame, ValueError, TypeError):
            self._refused(node, "what it has kept cannot be read")
            return
        if kind == ASK:
            self._send(node, packed(ALL, self._all()))
            return
        if kind == ALL and self._is_asking:
            self._is_asking, self._filler = False, node
        if kind == ALL and node != self._filler:
            return
        for vhost, exchange, message in heard:
            history = self._history(vhost, exchange)
            if history is None:
                continue
            if kind == ALL and (vhost, exchange) not in self._filled:
                self._filled.add((vhost, exchange))
                history.forget()
            history.hear(message)

    def _history(self, vhost: str, exchange: str) -> MessageHistory | None:
        found = self._vhosts[vhost].topology.find(exchange) if vhost in self._vhosts else None
        return found.history if found is not None else None

    def _all(self) -> Iterator[Row]:
        for vhost in self._vhosts.values():
            for exchange in vhost.topology:
                for message in exchange.history or ():
                    yield vhost.name, exchange.spec.name, message


def packed(kind: int, rows: Iterable[Row]) -> Iterator[bytes]:
    """Frames with messages; at least one, so that each question has an answer."""
    part: list[tuple[Any, ...]] = []
    size_bytes = 0
    for vhost, exchange, message in rows:
        content_bytes = len(message.content)
        if content_bytes > LONE_BYTES_MAX:
            continue
        if part and size_bytes + content_bytes > FRAME_BYTES_MAX:
            yield pack(kind, part, text_errors=TEXT_ERRORS)
            part, size_bytes = [], 0
        origin = message.origin
        if origin.blind_keys or origin.annotations:
            part.append((NO_VHOST, "", "", "", 0, origin.annotations, origin.blind_keys, False))
        part.append(
            (vhost, exchange, origin.exchange, origin.routing_key, int(origin.past),
             message.content, message.more_routing_keys, message.persistent)
        )  # fmt: skip
        size_bytes += content_bytes
    yield pack(kind, part, text_errors=TEXT_ERRORS)


def unpacked(rows: Any) -> Iterator[Row]:
    """The messages of a frame.  ValueError, TypeError."""
    blind_keys: tuple[str, ...] = ()
    annotations = b""
    for vhost, exchange, published_to, routing_key, past, content, more, persistent in rows:
        if type(content) is not bytes:
            raise TypeError("the content of a message is bytes")
        if vhost == NO_VHOST:
            blind_keys, annotations = tuple(more), content
            continue
        past = MessageAnnotations(past)
        origin = Origin(published_to, routing_key, past, blind_keys, annotations)
        blind_keys, annotations = (), b""
        yield vhost, exchange, HistoryMessage(origin, content, tuple(more), persistent)
