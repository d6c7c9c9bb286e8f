"""Takeover of clients between nodes: a client is connected once in a cluster, where it came last.

    frame    [[virtual host, client, time], ...]     it has connected there at that time

The connection that came last stays, by the time that nodes have in common, and then by the name of
its node: whichever of two nodes hears of the other's first, both come to the same.  If a node
receives a row for a client that has connected to it later, it answers with its own row.  Over a new
link each node sends the rows of all its clients, since what was sent over the one before may be
lost.  Nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, Protocol

from fluffle.broker.base.clock import EventLoop
from fluffle.broker.cluster.codec import TEXT_ERRORS, BadFrame, pack, unpack
from fluffle.broker.cluster.ports import FrameSender
from fluffle.raft.config import NodeId

ROWS_MAX = 1_000
"""Clients in one frame."""


class LocalClients(Protocol):
    """Clients of a protocol that are connected to this node."""

    def connected_since(self) -> Iterable[tuple[str, str, int]]:
        """Return virtual host and identifier of each that is to be so only once, and when it came,
        in ms of common time."""

    def came_at_ms(self, vhost: str, client_id: str) -> int | None:
        """Return when one of them came; None if it is not here."""

    def came_elsewhere(self, vhost: str, client_id: str) -> None:
        """End the connection of one: the same client has come to another node."""


class ClientTakeover:
    """Sends the other nodes which clients have connected here, and ends those that came to them."""

    def __init__(self, node: NodeId, sender: FrameSender, loop: EventLoop) -> None:
        self.here: LocalClients | None = None
        """None on a node that does not speak such a protocol."""
        self._node = node
        self._sender = sender
        self._loop = loop
        self._unsent: list[tuple[str, str, int]] = []
        """Clients that came in this turn."""

    def came(self, client: tuple[str, str], at_ms: int) -> None:
        """Send the other nodes a client of a virtual host, at the end of the turn."""
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append((*client, at_ms))

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        for node in self._sender.reached:
            self._send_to(node, unsent)

    def _send_to(self, node: NodeId, rows: Iterable[tuple[str, str, int]]) -> None:
        rows = iter(rows)
        while part := [*islice(rows, ROWS_MAX)]:
            self._sender.send(node, pack(*part, text_errors=TEXT_ERRORS))

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        if is_up and self.here is not None and not self._sender.hindrance(node):
            self._send_to(node, self.here.connected_since())

    def receive(self, node: NodeId, payload: bytes) -> None:
        """Handle clients that have connected to another node.  Raises `BadFrame`."""
        try:
            rows = [client_in(row) for row in unpack(payload, text_errors=TEXT_ERRORS)]
        except (BadFrame, TypeError, ValueError) as error:
            raise BadFrame("it has what is no client") from error
        here = self.here
        if here is None:
            return
        later: list[tuple[str, str, int]] = []
        for vhost, client_id, at_ms in rows:
            own_ms = here.came_at_ms(vhost, client_id)
            if own_ms is None:
                continue
            if (own_ms, self._node) < (at_ms, node):  # mutant: MQ39
                here.came_elsewhere(vhost, client_id)
            else:
                later.append((vhost, client_id, own_ms))
        self._send_to(node, later)  # mutant: MQ40


def client_in(row: Any) -> tuple[str, str, int]:
    """ValueError, TypeError."""
    vhost, client_id, at_ms = row
    if type(vhost) is not str or type(client_id) is not str or type(at_ms) is not int:
        raise TypeError("no client of any connection")
    return vhost, client_id, at_ms
