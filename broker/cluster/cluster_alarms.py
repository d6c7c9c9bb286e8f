"""Resource alarms of a cluster: while one node is low, publishers of all are held back.

A message that is published at one node is kept by others, so that only all together can hold it
back; RabbitMQ does the same.  What each is low on is said when it changes and over each new link;
of a node to which there is no link nobody knows, so it holds nobody back.
"""

from __future__ import annotations

from collections.abc import Callable

import msgpack

from fluffle.broker.alarms.alarms import RESOURCES, Alarms
from fluffle.broker.cluster.links.links import ClusterLinks
from fluffle.broker.cluster.ports import FrameKind, TrafficClass
from fluffle.raft.config import NodeId

Refused = Callable[[NodeId, str], None]


class SharedAlarms:
    """Those of one node, and what it hears of the others."""

    __slots__ = ("_alarms", "_links", "_refused", "_said")

    def __init__(self, links: ClusterLinks, alarms: Alarms, refused: Refused) -> None:
        """`refused` hears what was not one of ours."""
        self._links = links
        self._alarms = alarms
        self._refused = refused
        self._said: tuple[str, ...] = ()
        alarms.listen(self._changed)

    def _changed(self) -> None:
        if self._said != self._alarms.raised:
            self._said = self._alarms.raised
            for node in tuple(self._links.peers):
                self._say(node)

    def _say(self, node: NodeId) -> None:
        """Urgently: a frame that does not fit resets the link, and is not lost with it."""
        payload = msgpack.packb(self._said)
        self._links.send(node, FrameKind.ALARM, payload, lane=TrafficClass.URGENT)

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        self._alarms.set_elsewhere(node, ())
        if is_up and self._said:
            self._say(node)

    def receive(self, node: NodeId, payload: bytes) -> None:
        """What another node is low on."""
        try:
            resources = msgpack.unpackb(payload)
        except (ValueError, msgpack.exceptions.UnpackException):
            resources = None
        if type(resources) is list and all(each in RESOURCES for each in resources):
            self._alarms.set_elsewhere(node, resources)
        else:
            self._refused(node, "it is low on what nobody knows")
