"""`Leaders`: which node leads a queue, and which of them are its members."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from fluffle.broker.admin.local_client import ask
from fluffle.broker.base.errors import NotFound
from fluffle.broker.cluster.queues.quorum_member import QuorumQueueMember
from fluffle.broker.queues.queue_api import QueueHandle
from fluffle.broker.testing.cluster.node import ClusterNode
from fluffle.broker.testing.cluster.nodes import Nodes

WITHIN_S = 10.0
"""An election takes a second if a leader has to be missed first."""


class Led(NamedTuple):
    """A queue where it is led."""

    node: ClusterNode
    queue: QueueHandle


class Leaders:
    """Leaders and members of the queues of one cluster.  Queues are those of the first virtual
    host unless another is named."""

    __slots__ = ("_vhost", "nodes")

    def __init__(self, nodes: Nodes, vhost: str) -> None:
        self.nodes = nodes
        self._vhost = vhost

    def led(self, vhost: str, name: str) -> Led | None:
        """Return the leader among the nodes that run; of two that believe that they lead, the later
        one.  None if there is none."""
        found: tuple[tuple[int, ...], Led] | None = None
        for node in self.nodes.running:
            host = node.node.catalogue.vhosts.get(vhost)
            queue = host.queues.get(name) if host is not None else None
            if queue is None:
                continue
            since = reign(node, queue)
            if since is not None and (found is None or since > found[0]):
                found = since, Led(node, queue)
        return found[1] if found is not None else None

    async def leader(
        self,
        queue: str,
        *,
        vhost: str = "",
        other_than: int | None = None,
        within: float = WITHIN_S,
    ) -> int:
        """Return the node that leads a queue, or has it if it is a classic one, once there is one
        that runs, and is not `other_than`.  TimeoutError."""
        vhost = vhost or self._vhost
        found: list[int] = []

        def leads() -> bool:
            led = self.led(vhost, queue)
            if led is not None and led.node.number != other_than:
                found.append(led.node.number)
            return bool(found)

        def what() -> str:
            if not any(queue in names for names in self._queues(vhost)):
                return f"there is no queue '{queue}' in vhost '{vhost}'"
            who = "nobody" if other_than is None else f"nobody but node {other_than}"
            return f"{who} leads queue '{queue}'"

        await self.nodes.until(leads, within, what)
        return found[0]

    def _queues(self, vhost: str) -> Iterator[Collection[str]]:
        """Yield the names that each node knows which runs."""
        for node in self.nodes.running:
            host = node.node.catalogue.vhosts.get(vhost)
            yield () if host is None else host.queues.keys()

    async def move_leader(
        self, queue: str, node: int, *, vhost: str = "", within: float = WITHIN_S
    ) -> None:
        """Have another member lead a quorum queue, and return once it does.

        NotFound, PreconditionFailed for who is no member; TimeoutError.
        """
        vhost = vhost or self._vhost
        parts = self.nodes.well().parts
        await ask(parts, "queues.transfer", name=queue, vhost=vhost, node=self.nodes[node].name)

        def leads() -> bool:
            led = self.led(vhost, queue)
            return led is not None and led.node.number == node

        def what() -> str:
            led = self.led(vhost, queue)
            seen = "nobody" if led is None else f"node {led.node.number}"
            return f"node {node} does not lead queue '{queue}', but {seen}"

        await self.nodes.until(leads, within, what)

    async def members(self, queue: str, *, vhost: str = "") -> set[int]:
        """Return the nodes that have the messages of a queue.  NotFound."""
        vhost = vhost or self._vhost
        found = self.nodes.well().parts.vhost(vhost).queues.get(queue)
        if found is None:
            raise NotFound(f"no queue '{queue}' in vhost '{vhost}'")
        definition = found.definition
        names = {*dict(definition.members)} or {definition.home}
        return {node.number for node in self.nodes if node.name in names}


def reign(node: ClusterNode, queue: QueueHandle) -> tuple[int, ...] | None:
    """Return since when a node leads a queue; None if it does not.  Greater is later."""
    definition = queue.definition
    if definition.home:
        return () if definition.home == node.name else None
    hosted = node.parts.company.groups.get(definition.id)
    if hosted is None:
        return None
    assert isinstance(hosted.machine, QuorumQueueMember)
    member = hosted.machine.member
    return tuple(member.reign) if member.leadership is not None else None
