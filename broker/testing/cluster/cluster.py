"""`Cluster`: some nodes in the running event loop, for as long as an `async with` lasts.

    async with Cluster(nodes=3) as cluster:
        connection = await aio_pika.connect(cluster.url)
        await cluster.kill(await cluster.leader("orders"))

Each is as a daemon would be, with real sockets for clients and for each other; what they share is a
thread.  What was done to them is undone when it is left.  `Nodes` are all its nodes and their
processes, `Leaders` which of them leads a queue; `ClusterVhost` is a virtual host of it, seen
wherever each of its queues is led.  `ThreadedCluster` is the same in a thread of its own, for code
that blocks:

    with ThreadedCluster(nodes=3) as cluster:
        connection = pika.BlockingConnection(pika.URLParameters(cluster.url))
        cluster.kill(cluster.leader("orders"))
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Self, TypeVar

from fluffle.broker.admin.context import Row
from fluffle.broker.admin.local_client import ask, in_time
from fluffle.broker.base.clock import CallLater, SystemClock
from fluffle.broker.base.errors import NotFound, PreconditionFailed
from fluffle.broker.cluster.queues.quorum_member import QuorumQueueMember
from fluffle.broker.config.config import (
    CLUSTER_PORT,
    DEFAULT_VHOST,
    ClusterConfig,
    Config,
    ListenAddress,
)
from fluffle.broker.metadata.change import Name
from fluffle.broker.node import NodeFailed
from fluffle.broker.queues.queue_api import QueueCounts, QueueHandle
from fluffle.broker.routing.explain import Explanation
from fluffle.broker.testing.arguments import (
    NOTHING_SPECIAL,
    MqttUrl,
    PathArgument,
    VhostRequirements,
    VhostUrls,
    amqp_url,
    first_url,
    mqtt_urls,
    path_of,
)
from fluffle.broker.testing.broker import (
    LOOPBACK,
    create_vhost,
    delete_vhost,
    rested,
    with_arguments,
)
from fluffle.broker.testing.clock import MovableClock
from fluffle.broker.testing.cluster.network import Network
from fluffle.broker.testing.cluster.node import ClusterNode, ClusterRuntime, ProcessState
from fluffle.broker.testing.loop_thread import (
    PATIENCE_S,
    Calls,
    CrossThreadProxy,
    LoopBound,
    LoopThread,
    Turn,
    blocking,
    in_coroutine,
    proxy_of,
)
from fluffle.broker.testing.messages import HeldMessage, Message, is_met, shown, wanted_counts
from fluffle.broker.testing.recorder import Recorder
from fluffle.broker.testing.timeline import Timeline, until, wake
from fluffle.broker.testing.vhost import PEEKED_MAX, AssertedVhost, Vhost, tally_here
from fluffle.broker.vhosts.vhost import VirtualHost

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
            node = "no node" if other_than is None else f"no node but node {other_than}"
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
            seen = "no node does" if led is None else f"node {led.node.number} does"
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


RESTS = 5
"""So many rounds of the loop in which no node has anything to do are rest: what one writes to a
socket, another reads in the next, and acts on in the one after that."""

SECRET_BYTES = 16


class Cluster(LoopBound):
    """Not started until it is entered; what it held is gone when it is left, unless a directory was
    named.  Nodes are called by their numbers, from 0."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        nodes: int = 3,
        data_dir: PathArgument | None = None,
        users: Mapping[str, str] | None = None,
        vhosts: Sequence[str] = (DEFAULT_VHOST,),
        definitions: PathArgument | None = None,
        seed: int | None = None,
    ) -> None:
        """Make a cluster with the arguments of `Broker`; `config` is for each node.  `seed`: of
        what the network drops."""
        if nodes < 1:
            raise ValueError(f"a cluster of {nodes} nodes is none")
        self._count = nodes
        self._config = with_arguments(config, users, vhosts, definitions)
        self._data_dir = path_of("data_dir", data_dir)
        self._seed = secrets.randbits(32) if seed is None else seed
        self._entered = AsyncExitStack()
        self._wanted: dict[str, VhostRequirements] = {}
        """Requirements of virtual hosts that were added, if they have more than the default."""
        self.numbers = itertools.count(1)
        """Numbers for virtual hosts without a given name; none is used twice."""
        self.clock: MovableClock
        """The time of messages and queues, on all nodes; what they know of each other goes by that
        of the machine."""
        self.clients_clock: MovableClock
        self.net: Network
        self.nodes: Nodes
        self._recorder: Recorder
        self._leaders: Leaders

    async def __aenter__(self) -> Self:
        """Returns once all nodes take clients.  What a node raises that cannot start."""
        async with AsyncExitStack() as entering:
            data_dir = self._data_dir
            if data_dir is None:
                data_dir = Path(entering.enter_context(TemporaryDirectory(prefix="fluffle-")))
            self._make(data_dir)
            entering.push_async_callback(self._end)
            await self.nodes.start()
            self._entered = entering.pop_all()
        return self

    async def __aexit__(self, *failure: Any) -> None:
        """NodeFailed if a node has ended by itself and no test has asked for that."""
        failures = [node.failure for node in self.nodes if node.failure is not None]
        await self._entered.__aexit__(*failure)
        if failures and failure[1] is None:
            raise NodeFailed(f"a node has failed: {failures[0]}") from failures[0]

    def _make(self, data_dir: Path) -> None:
        loop = asyncio.get_running_loop()
        self.clock = self._made_clock(loop.call_later)
        self.clients_clock = self._made_clock(loop.call_later)
        self.nodes = nodes = Nodes(self.clock)
        names = [f"node{number}" for number in range(self._count)]
        self.net = net = Network(names, lambda number: nodes[number].listens_at(), self._seed)
        self._recorder = recorder = Recorder(self.clock.now_ms, self._known)
        clocks = self.clock, self.clients_clock
        runtime = ClusterRuntime(*clocks, net, self.wait_until_idle, nodes, recorder)
        peers = {name: ListenAddress(name, CLUSTER_PORT) for name in names}
        shared = ClusterConfig(peers, secrets.token_bytes(SECRET_BYTES), listen=LOOPBACK)
        config = replace(self._config, cluster=shared)
        nodes.made(
            [
                ClusterNode(
                    number,
                    replace(config, node_name=name, data_dir=data_dir / name),
                    runtime,
                    in_memory=self._data_dir is None,
                )
                for number, name in enumerate(names)
            ]
        )
        self._leaders = leaders = Leaders(nodes, self._config.vhosts[0])
        self.start, self.stop, self.restart = nodes.start, nodes.stop, nodes.restart
        self.kill, self.pause, self.resume = nodes.kill, nodes.pause, nodes.resume
        self.wipe = nodes.wipe
        self.partition, self.cut, self.heal = net.partition, net.cut, net.heal
        self.leader, self.move_leader = leaders.leader, leaders.move_leader
        self.members = leaders.members

    async def _end(self) -> None:
        """End all nodes, whatever has been done to them."""
        await self.net.heal()
        for node in self.nodes:
            if node.state is ProcessState.PAUSED:
                node.resume()
        await self.nodes.kill(
            *(node.number for node in self.nodes if node.state is not ProcessState.DOWN)
        )

    def __getitem__(self, number: int) -> ClusterNode:
        """Return one of the nodes."""
        return self.nodes[number]

    @property
    def url(self) -> str:
        """URL of the first node."""
        return self.url_of(self._config.vhosts[0])

    @property
    def urls(self) -> tuple[str, ...]:
        """URLs of all nodes."""
        vhost = self._config.vhosts[0]
        return tuple(self.url_of(vhost, node.number) for node in self.nodes)

    def url_of(self, vhost: str, node: int = 0) -> str:
        """Return a URL for any client, of any language, in any process; a node keeps it when it is
        restarted."""
        return next(iter(self._urls_of(vhost, node).values()))

    def _urls_of(self, vhost: str, node: int = 0) -> dict[str, str]:
        host, port = self.nodes[node].amqp
        users = self._users_of(vhost)
        return {user: amqp_url(user, users[user], f"{host}:{port}", vhost) for user in users}

    @property
    def mqtt_url(self) -> MqttUrl:
        """MQTT URL of the first node, with its parts as attributes."""
        return self.mqtt_url_of(self._config.vhosts[0])

    @property
    def mqtt_urls(self) -> tuple[MqttUrl, ...]:
        """MQTT URLs of all nodes."""
        vhost = self._config.vhosts[0]
        return tuple(self.mqtt_url_of(vhost, node.number) for node in self.nodes)

    def mqtt_url_of(self, vhost: str, node: int = 0) -> MqttUrl:
        """Return a URL for MQTT clients; a node keeps it when it is restarted."""
        return first_url(self._mqtt_urls_of(vhost, node))

    def _mqtt_urls_of(self, vhost: str, node: int = 0) -> dict[str, MqttUrl]:
        return mqtt_urls(self._users_of(vhost), self.nodes[node].mqtt, vhost)

    def _users_of(self, vhost: str) -> dict[str, str]:
        """Names and passwords of users of a virtual host, its own first."""
        return {**self._wanted.get(vhost, NOTHING_SPECIAL).users, **self._config.users}

    @property
    def seen_vhosts(self) -> tuple[str, ...]:
        """Virtual hosts in which something has happened."""
        return self._recorder.seen

    def vhost(self, name: str = "") -> ClusterVhost:
        """Return what is in a virtual host, by default the first one.  NotFound."""
        name = name or self._config.vhosts[0]
        self.nodes.well().parts.vhost(name)
        urls = VhostUrls(self._urls_of(name), self._mqtt_urls_of(name))
        return ClusterVhost(name, urls, self._leaders, self._recorder.of(name))

    async def add_vhost(
        self, name: str, wanted: VhostRequirements = NOTHING_SPECIAL
    ) -> ClusterVhost:
        """Add a virtual host as `Broker.add_vhost` does."""
        await create_vhost(self.nodes.well().parts, name, wanted, self._config.users)
        self._wanted[name] = wanted
        return self.vhost(name)

    async def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all that is in it; its connections are closed.  NotFound.

        What goes wrong ends with it, what goes wrong for all virtual hosts of a node, too.
        """
        self.nodes.well().parts.vhost(name)
        for node in self.nodes:
            node.forget(name)
        await delete_vhost(self.nodes.well().parts, name, self._wanted.pop(name, NOTHING_SPECIAL))
        self._recorder.forget(name)

    async def mend(self) -> None:
        """End all faults between nodes, on their disks and with their clients, and let paused nodes
        go on; those that are down stay so."""
        await self.net.heal()
        for node in self.nodes:
            await node.mend()
        self.nodes.changed()

    async def wait_until_idle(self) -> None:
        """Return when there is nothing to do for nodes that run, until a client speaks, time passes
        or what is under way between them arrives.  TimeoutError if there always is."""
        await rested(lambda: all(node.is_at_rest for node in self.nodes), RESTS)

    def _known(self, fact: Name) -> object:
        return self.nodes.well().parts.catalogue.known(fact)

    def _made_clock(self, call_later: CallLater) -> MovableClock:
        return MovableClock(SystemClock(), call_later, self.wait_until_idle)


class ClusterVhost(AssertedVhost):
    """Made by its cluster.  What goes on where no majority is, is not seen."""

    def __init__(self, name: str, urls: VhostUrls, leaders: Leaders, timeline: Timeline) -> None:
        super().__init__(name, urls, timeline)
        self._leaders = leaders
        self.advance = leaders.nodes.clock.advance
        """Moves the clock of messages, on all nodes."""

    def _look(self) -> VirtualHost:
        return self._leaders.nodes.well().parts.vhost(self.name)

    def _queue_counts(self, name: str) -> QueueCounts | None:
        led = self._leaders.led(self.name, name)
        return tally_here(led.node.parts, led.queue) if led is not None else None

    async def _wait_until_idle(self) -> None:
        await self.advance()

    async def queues(self) -> dict[str, Row]:
        """Return all queues by their names, as `fluffle queues list` shows them."""
        return await self._anywhere().queues()

    async def sessions(self) -> dict[str, Row]:
        """Return sessions of MQTT by their client identifiers, from the nodes where they are."""
        found: dict[str, Row] = {}
        for node in self._leaders.nodes.running:
            for client_id, row in (await self._at(node).sessions()).items():
                if row["connection"] or client_id not in found:
                    found[client_id] = row
        return found

    async def expect(
        self,
        queue: str,
        *,
        count: int | None = None,
        ready: int | None = None,
        unacked: int | None = None,
        consumers: int | None = None,
        within: float = 5.0,
    ) -> None:
        """Return once a queue has so many messages (in all, ready, unacknowledged) and consumers,
        for who leads it.

        AssertionError after `within` seconds, with what is there instead.
        """
        wanted = wanted_counts(count, ready, unacked, consumers)

        def is_so() -> bool:
            counts = self._counts(queue)
            return counts is not None and is_met(wanted, counts)

        def what() -> str:
            found = self._counts(queue)
            seen = "nobody leads it" if found is None else f"it has {shown(found)}"
            return f"queue '{queue}' has not had {shown(wanted)}; {seen}"

        try:
            await self._leaders.nodes.until(is_so, within, what)
        except TimeoutError as error:
            raise AssertionError(str(error)) from None

    async def messages(self, queue: str, *, count: int = PEEKED_MAX) -> list[Message]:
        """Return messages as `Vhost.messages` does, from the queue's leader."""
        return await (await self._where_led(queue)).messages(queue, count=count)

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, Any] | None = None,
        **properties: Any,
    ) -> None:
        """Publish as `Vhost.publish` does, at a node that sees a majority."""
        await self._anywhere().publish(exchange, routing_key, body, headers=headers, **properties)

    async def explain(
        self,
        exchange: str,
        routing_key: str,
        headers: Mapping[str, Any] | None = None,
        **properties: Any,
    ) -> Explanation:
        """Explain routing as `Vhost.explain` does."""
        return await self._anywhere().explain(exchange, routing_key, headers, **properties)

    async def get(self, queue: str, *, within: float = 5.0) -> HeldMessage:
        """Get a message as `Vhost.get` does, at the queue's leader."""
        return await (await self._where_led(queue)).get(queue, within=within)

    async def consume(self, queue: str, *, count: int = 1, within: float = 5.0) -> list[Message]:
        """Consume as `Vhost.consume` does, at the queue's leader."""
        return await (await self._where_led(queue)).consume(queue, count=count, within=within)

    async def purge(self, queue: str) -> int:
        """Drop ready messages; return how many there were.  NotFound."""
        return await self._anywhere().purge(queue)

    def _anywhere(self) -> Vhost:
        return self._at(self._leaders.nodes.well())

    async def _where_led(self, queue: str) -> Vhost:
        number = await self._leaders.leader(queue, vhost=self.name)
        return self._at(self._leaders.nodes[number])

    def _at(self, node: ClusterNode) -> Vhost:
        scope = node.scope(self.name)
        clock = self._leaders.nodes.clock
        return Vhost(
            self.name, VhostUrls(self.urls, self.mqtt_urls), node.parts, node.node.turn, clock,
            scope=scope, timeline=self._timeline,
        )  # fmt: skip


T = TypeVar("T")


class ThreadedCluster:
    """A `Cluster` with the same arguments and attributes, all of which block."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        nodes: int = 3,
        data_dir: PathArgument | None = None,
        users: Mapping[str, str] | None = None,
        vhosts: Sequence[str] = (DEFAULT_VHOST,),
        definitions: PathArgument | None = None,
        seed: int | None = None,
    ) -> None:
        self.cluster = Cluster(
            config, nodes=nodes, data_dir=data_dir, users=users, vhosts=vhosts,
            definitions=definitions, seed=seed,
        )  # fmt: skip
        """Belongs to the thread: whatever is called there goes through `call`."""
        self._thread = LoopThread("fluffle cluster")
        self._turn: Turn = partial(blocking, self._thread)
        self.unawaited: dict[object, str] = {}
        """Names of `awaited` functions that were called and never awaited, and so have done
        nothing."""
        self.awaited = CrossThreadProxy(self.cluster, Calls(self._thread, self.unawaited).of)
        """The same for coroutines of other loops."""

    def __enter__(self) -> Self:
        """Raises what a node raises that cannot start."""
        self._thread.enter(self.cluster)
        return self

    def __exit__(self, *failure: Any) -> None:
        self._thread.leave(self.cluster, *failure)

    def __getattr__(self, name: str) -> Any:
        __tracebackhide__ = True
        if name.startswith("_"):
            raise AttributeError(name)
        return proxy_of(getattr(self.cluster, name), self._turn)

    def __getitem__(self, number: int) -> Any:
        """Return one of the nodes."""
        return proxy_of(self.cluster[number], self._turn)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *dir(self.cluster)]

    def call(
        self, work: Callable[[], Coroutine[Any, Any, T]], *, patience_s: float = PATIENCE_S
    ) -> T:
        """Return what `work` gives, done in the cluster's thread.  TimeoutError."""
        __tracebackhide__ = True
        return self._thread.call(work, patience_s=patience_s)


class ClusterByCaller:
    """Blocks, or in a coroutine is awaited."""

    def __init__(self, cluster: ThreadedCluster) -> None:
        self.blocking: ThreadedCluster = cluster
        """In plain code and in coroutines alike."""

    def _as_asked(self) -> Any:
        return self.blocking.awaited if in_coroutine() else self.blocking

    def __getattr__(self, name: str) -> Any:
        __tracebackhide__ = True
        return getattr(self._as_asked(), name)

    def __getitem__(self, number: int) -> Any:
        """Return one of the nodes."""
        __tracebackhide__ = True
        return self._as_asked()[number]

    def __dir__(self) -> list[str]:
        return dir(self.blocking)
