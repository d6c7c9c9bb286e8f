"""`Nodes`: all nodes of a cluster and their processes; `Leaders`: which of them leads a queue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from fluffle.broker.admin.local_client import ask, in_time
from fluffle.broker.base.errors import NotFound, PreconditionFailed
from fluffle.broker.cluster.queues.quorum_member import QuorumQueueMember
from fluffle.broker.config.config import CLUSTER_PORT
from fluffle.broker.queues.queue_api import QueueHandle
from fluffle.broker.testing.clock import MovableClock
from fluffle.broker.testing.cluster.node import ClusterNode, ProcessState
from fluffle.broker.testing.timeline import until, wake

LEADER_WITHIN_S = 10.0
"""An election takes a second if a leader has to be missed first."""

START_S = 20.0
"""Time in seconds for nodes to start or to stop: nothing takes so long where there is a
majority."""

Step = Callable[[ClusterNode], Awaitable[None]]


class Nodes:
    """Nodes of a cluster by number.  An operation on several of them starts on all at once."""

    def __init__(self, clock: MovableClock) -> None:
        self.clock = clock
        """Clock of messages and queues, for all nodes."""
        self._nodes: Sequence[ClusterNode] = ()
        self._watchers: set[Callable[[], None]] = set()

    def made(self, nodes: Sequence[ClusterNode]) -> None:
        """Take the nodes, which are all of them."""
        self._nodes = nodes

    def __getitem__(self, number: int) -> ClusterNode:
        """Return a node.  ValueError."""
        if number not in range(len(self._nodes)):
            raise ValueError(f"there is no node {number}, but 0 to {len(self._nodes) - 1}")
        return self._nodes[number]

    def __iter__(self) -> Iterator[ClusterNode]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def running(self) -> list[ClusterNode]:
        return [node for node in self._nodes if node.state is ProcessState.RUNS]

    def well(self) -> ClusterNode:
        """Return a node that runs, and sees a majority if any does.  RuntimeError if none runs."""
        if not (running := self.running):
            raise RuntimeError(f"no node runs: {self.shown()}")
        return max(running, key=sees_majority)

    def shown(self) -> str:
        return ", ".join(f"node {node.number} is {node.state.value}" for node in self)

    # Their processes

    async def start(self, *numbers: int) -> None:
        """After `stop`, `kill` or a failure, each with the disk that it had; all that are not
        running if none is named.  Returns once they take clients.

        If its disk was wiped, the others forget a node first and let it in anew, as an operator
        would have them: they refuse one that does not know what it has agreed to.

        TimeoutError, if so for lack of a majority; and what a node raises that cannot start.
        """
        down = [
            node.number for node in self if node.state in (ProcessState.DOWN, ProcessState.FAILED)
        ]
        if self.running:
            for node in [node for node in map(self.__getitem__, numbers or down) if node.is_wiped]:
                await self._have_done("cluster.forget", name=node.name)
                address = f"{node.name}:{CLUSTER_PORT}"
                await self._have_done("cluster.add", name=node.name, address=address)
        await self._each(numbers or down, ClusterNode.start, "started")

    async def _have_done(self, verb: str, **arguments: str) -> None:
        """Ask again as long as it is refused: for a moment not all others have missed a node.

        TimeoutError.
        """
        changed = asyncio.Event()
        self._watchers.add(changed.set)
        try:
            async with in_time(verb):
                while not await self._is_done(verb, arguments):
                    await changed.wait()
                    changed.clear()
        finally:
            self._watchers.discard(changed.set)

    async def _is_done(self, verb: str, arguments: Mapping[str, str]) -> bool:
        """True if it was not refused."""
        try:
            await ask(self.well().parts, verb, **arguments)
        except PreconditionFailed:
            return False
        return True

    async def stop(self, *numbers: int) -> None:
        """Stop nodes in order: others lead what they lead, and clients get connection.close."""
        await self._each(numbers, ClusterNode.stop, "stopped")

    async def restart(self, *numbers: int) -> None:
        """Restart nodes in order, one after the other, so that there is a majority all the time."""
        for number in numbers:
            await self.stop(number)
            await self.start(number)

    async def kill(self, *numbers: int) -> None:
        """Kill nodes as SIGKILL does: what is in memory is gone, and what is on disk is there as of
        the last sync."""
        await self._each(numbers, ClusterNode.kill, "killed")

    async def pause(self, *numbers: int) -> None:
        """Pause nodes as SIGSTOP does: sockets are open, and nothing answers."""
        for number in numbers:
            self[number].pause()
        self.changed()

    async def resume(self, *numbers: int) -> None:
        """Resume nodes as SIGCONT does."""
        for number in numbers:
            self[number].resume()
        self.changed()

    async def wipe(self, *numbers: int) -> None:
        """Wipe nodes that are down: what was on their disks is gone."""
        for number in numbers:
            self[number].wipe()

    async def _each(self, numbers: Sequence[int], step: Step, done: str) -> None:
        nodes = [self[number] for number in numbers]
        try:
            async with asyncio.timeout(START_S), asyncio.TaskGroup() as tasks:
                for node in nodes:
                    tasks.create_task(self._one(node, step))
        except TimeoutError:
            named = ", ".join(map(str, numbers))
            raise TimeoutError(
                f"nodes {named} have not {done} in {START_S} s: {self.shown()}"
            ) from None
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self.changed()

    @staticmethod
    async def _one(node: ClusterNode, step: Step) -> None:
        await step(node)

    # What they do

    def changed(self) -> None:
        """Something may be otherwise than before."""
        wake(self._watchers)

    async def until(
        self, is_so: Callable[[], bool], within: float, what: Callable[[], str]
    ) -> None:
        """Return once it is so; looked at after each turn of any node.

        TimeoutError, with what is not so by then.
        """
        try:
            async with asyncio.timeout(within):
                await until(self._watchers, is_so)
        except TimeoutError:
            raise TimeoutError(f"{what()} ({within} s; {self.shown()})") from None


def sees_majority(node: ClusterNode) -> bool:
    cluster = node.node.cluster
    return cluster is not None and cluster.majority.is_there


class Led(NamedTuple):
    """A queue where it is led."""

    node: ClusterNode
    queue: QueueHandle


class Leaders:
    """Leaders and members of the queues of one cluster.  Queues are those of the first virtual
    host unless another is named."""

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
            since = leader_epoch(node, queue)
            if since is not None and (found is None or since > found[0]):
                found = since, Led(node, queue)
        return found[1] if found is not None else None

    async def leader(
        self,
        queue: str,
        *,
        vhost: str = "",
        other_than: int | None = None,
        within: float = LEADER_WITHIN_S,
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
            node = "nobody" if other_than is None else f"nobody but node {other_than}"
            return f"{node} leads queue '{queue}'"

        await self.nodes.until(leads, within, what)
        return found[0]

    def _queues(self, vhost: str) -> Iterator[Collection[str]]:
        """Yield the names that each node knows which runs."""
        for node in self.nodes.running:
            host = node.node.catalogue.vhosts.get(vhost)
            yield () if host is None else host.queues.keys()

    async def move_leader(
        self, queue: str, node: int, *, vhost: str = "", within: float = LEADER_WITHIN_S
    ) -> None:
        """Have another member lead a quorum queue, and return once it does.

        NotFound, PreconditionFailed for a node that is no member; TimeoutError.
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


def leader_epoch(node: ClusterNode, queue: QueueHandle) -> tuple[int, ...] | None:
    """Return since when a node leads a queue; None if it does not.  Greater is later."""
    definition = queue.definition
    if definition.home:
        return () if definition.home == node.name else None
    hosted = node.parts.cluster_view.groups.get(definition.id)
    if hosted is None:
        return None
    assert isinstance(hosted.machine, QuorumQueueMember)
    member = hosted.machine.replica
    return tuple(member.leader_epoch) if member.leadership is not None else None
