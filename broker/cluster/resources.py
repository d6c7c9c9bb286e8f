"""Resources of all nodes: alarms hold publishers back everywhere, and usage counts against limits.

    alarm   [resource, ...]                                        what a node is low on
    usage   [is all, is asking, [[what, name, how many], ...]]     of users and virtual hosts

A message that is published at one node is kept by others, so that only all together can hold it
back; RabbitMQ does the same.  Alarms are sent when they change, changed usage once a turn, and
everything over each new link.  Urgently: a frame that does not fit resets the link, and is not lost
with it.  A node to which there is no link holds no publisher back, and nothing of it counts.  Two
clients that come to two nodes at once may both be let in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import msgpack

from fluffle.broker.access.limits import LimitedResource, Usage
from fluffle.broker.alarms import RESOURCES, Alarms
from fluffle.broker.base.clock import EventLoop
from fluffle.broker.cluster.codec import TEXT_ERRORS, BadFrame, pack, unpack
from fluffle.broker.cluster.ports import FrameSender
from fluffle.raft.config import NodeId

Refused = Callable[[NodeId, str], None]

Key: TypeAlias = tuple[LimitedResource, str]


class SharedAlarms:
    """Alarms of this node sent to the others, and theirs received."""

    def __init__(self, sender: FrameSender, alarms: Alarms, refused: Refused) -> None:
        """`refused` hears what was not one of ours."""
        self._sender = sender
        self._alarms = alarms
        self._refused = refused
        self._said: tuple[str, ...] = ()
        alarms.listen(self._changed)

    def _changed(self) -> None:
        if self._said != self._alarms.raised:
            self._said = self._alarms.raised
            self._sender.send_all(msgpack.packb(self._said))

    def _say(self, node: NodeId) -> None:
        if self._said:
            self._sender.send(node, msgpack.packb(self._said))

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        """The link to a node has come: it may have said already what it is low on, over its own."""
        if is_up:
            self._say(node)
        else:
            self._alarms.set_elsewhere(node, ())

    def link_accepted(self, node: NodeId) -> None:
        """A new link from a node: it says over that what it is low on, and may have forgotten what
        it has heard."""
        self._alarms.set_elsewhere(node, ())
        self._say(node)

    def receive(self, node: NodeId, payload: bytes) -> None:
        """Handle the list of resources that another node is low on."""
        try:
            resources = msgpack.unpackb(payload)
        except (ValueError, msgpack.exceptions.UnpackException):
            resources = None
        if type(resources) is list and all(each in RESOURCES for each in resources):
            self._alarms.set_elsewhere(node, resources)
        else:
            self._refused(node, "it is low on an unknown resource")


class SharedUsage:
    """Usage of limited resources by one node, and by each of the others."""

    def __init__(self, usage: Usage, sender: FrameSender, loop: EventLoop) -> None:
        self._usage = usage
        self._sender = sender
        self._loop = loop
        self._unsent: dict[Key, None] = {}
        """Counts that changed in this turn."""
        usage.on_change = self._changed

    def _changed(self, what: LimitedResource, name: str) -> None:
        if not self._unsent:
            self._loop.call_soon(self._send_changes)
        self._unsent[what, name] = None

    def _send_changes(self) -> None:
        unsent, self._unsent = self._unsent, {}
        frame = self._packed(unsent)
        for node in self._sender.reached:
            self._sender.send(node, frame)

    def _send_all(self, node: NodeId, *, is_asking: bool) -> None:
        here = self._usage.here.items()
        every = [(what, name) for what, counts in here for name in counts]
        self._sender.send(node, self._packed(every, is_all=True, is_asking=is_asking))

    def _packed(
        self, keys: Iterable[Key], *, is_all: bool = False, is_asking: bool = False
    ) -> bytes:
        here = self._usage.here
        rows = [(int(what), name, here[what][name]) for what, name in keys]
        return pack(is_all, is_asking, rows, text_errors=TEXT_ERRORS)

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        self._usage.elsewhere.pop(node, None)
        if is_up and not self._sender.hindrance(node):
            self._send_all(node, is_asking=True)

    def receive(self, node: NodeId, payload: bytes) -> None:
        """Handle the counts of another node.  Raises `BadFrame`."""
        try:
            is_all, is_asking, rows = unpack(payload, text_errors=TEXT_ERRORS)
            heard = [usage_in(row) for row in rows]
        except (BadFrame, TypeError, ValueError) as error:
            raise BadFrame("its numbers cannot be read") from error
        counts = self._usage.elsewhere.get(node)
        if is_all or counts is None:
            counts = self._usage.elsewhere[node] = {what: {} for what in LimitedResource}
        for what, name, count in heard:
            if count:
                counts[what][name] = count
            else:
                counts[what].pop(name, None)
        if is_asking:
            self._send_all(node, is_asking=False)


def usage_in(row: Any) -> tuple[LimitedResource, str, int]:
    """ValueError, TypeError."""
    what, name, count = row
    if type(name) is not str or type(count) is not int or count < 0:
        raise TypeError("no count of a resource")
    return LimitedResource(what), name, count
