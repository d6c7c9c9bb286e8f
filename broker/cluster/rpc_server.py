"""Requests of other nodes, answered here; the other end of `rpc_client`.

A list is open until it is told to its end, nobody reads it any more, or its next page is not wanted
for long.  So that no node can be asked to hold much, another may have some open and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeAlias

from fluffle.broker.base.clock import EventLoop, Timer
from fluffle.broker.base.errors import ResourceError
from fluffle.broker.cluster.codec import BadFrame, pack
from fluffle.broker.cluster.ports import FrameSender
from fluffle.broker.cluster.rpc_client import PAGE, REFUSAL, Page, RequestRefused
from fluffle.raft.config import NodeId

OPEN_MAX = 64
"""Of one node that asks."""

UNREAD_S_MAX = 60.0
"""A page that is not asked for by then never is."""


class Listing(Protocol):
    """Something that is told page by page."""

    def go_on(self) -> None:
        """Have the next page told, not before this returns."""

    def close(self) -> None:
        """Nobody reads it any more: tell nothing, and end what is done for it."""


Tell: TypeAlias = Callable[[Page | RequestRefused], None]
Begin: TypeAlias = Callable[[bytes, Tell], Listing]
"""Looks at a request; what comes of it is told to that function, when it is asked to go on."""


class OpenListing:
    """A listing that another node reads."""

    __slots__ = ("listing", "unread")

    def __init__(self) -> None:
        self.listing: Listing
        self.unread: Timer | None = None
        """While it is for the other to ask."""

    def read(self) -> None:
        if self.unread is not None:
            self.unread.cancel()
            self.unread = None


class RpcServer:
    """Answers to all requests of other nodes."""

    __slots__ = ("_begin_listing", "_loop", "_open", "_sender")

    def __init__(self, sender: FrameSender, loop: EventLoop, begin: Begin) -> None:
        self._sender = sender
        self._loop = loop
        self._begin_listing = begin
        self._open: dict[NodeId, dict[int, OpenListing]] = {}

    def asked(self, node: NodeId, row: list[Any]) -> None:
        """See `RpcClient.receive`.  Raises `BadFrame`."""
        match row:
            case [0, number, bytes(request)]:
                self._begin(node, number, request)
            case [1, number]:
                self._go_on(node, number)
            case [2, number]:
                self._close(node, number)
            case _:
                raise BadFrame("no errand")

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        """Whoever is at its end now has asked nothing yet."""
        del is_up
        for number in tuple(self._open.get(node, ())):
            self._close(node, number)

    def _begin(self, node: NodeId, number: int, request: bytes) -> None:
        self._close(node, number)  # of another life
        of_it = self._open.setdefault(node, {})
        if len(of_it) >= OPEN_MAX:
            text = f"{OPEN_MAX} lists are read by '{node}' already"
            self._sender.send(node, pack(REFUSAL, number, int(ResourceError.code), text))
            return
        of_it[number] = begun = OpenListing()
        begun.listing = self._begin_listing(request, partial(self._tell, node, number))
        begun.listing.go_on()

    def _go_on(self, node: NodeId, number: int) -> None:
        """Nothing of one that has been closed: who asks gives up."""
        begun = self._open.get(node, {}).get(number)
        if begun is not None and begun.unread is not None:
            begun.read()
            begun.listing.go_on()

    def _tell(self, node: NodeId, number: int, told: Page | RequestRefused) -> None:
        begun = self._open[node][number]
        if isinstance(told, RequestRefused):
            self._forget(node, number)
            self._sender.send(node, pack(REFUSAL, number, *told))
            return
        if told.has_more:
            close = partial(self._close, node, number)
            begun.unread = self._loop.call_later(UNREAD_S_MAX, close)
        else:
            self._forget(node, number)
        self._sender.send(node, pack(PAGE, number, told.has_more, told.rows))

    def _close(self, node: NodeId, number: int) -> None:
        begun = self._forget(node, number)
        if begun is not None:
            begun.read()
            begun.listing.close()

    def _forget(self, node: NodeId, number: int) -> OpenListing | None:
        of_it = self._open.get(node, {})
        begun = of_it.pop(number, None)
        if not of_it:
            self._open.pop(node, None)
        return begun
