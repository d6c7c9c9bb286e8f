"""`ClusterNode`: the machine of one node, and the process on it if it runs: `cluster[0]`."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from fluffle.broker.admin.context import NodeContext
from fluffle.broker.base.clock import Clock
from fluffle.broker.base.logs import event
from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.config.listeners import MQTT
from fluffle.broker.node import Node, NodeFailed
from fluffle.broker.process.environment import ListeningServer
from fluffle.broker.queues.dead_letters import DeadLetterFrom
from fluffle.broker.testing.broker import LOOPBACK, filter_packets, hang_up
from fluffle.broker.testing.clock import MovableClock
from fluffle.broker.testing.cluster.disk import (
    DiskFaults,
    FaultyDisk,
    InjectedDiskError,
    SlowWriter,
    WaitUntilIdle,
)
from fluffle.broker.testing.cluster.network import Address, Network
from fluffle.broker.testing.cluster.process import Process
from fluffle.broker.testing.faults.faults import Clients, Faults
from fluffle.broker.testing.faults.tapped_transport import CLOSE_WAIT_S, ClientAcceptor, FaultScope
from fluffle.broker.testing.loop_thread import CrossThreadProxy, LoopBound, Work
from fluffle.broker.testing.recorder import Recorder, seen_dead
from fluffle.storage.disk import Disk, MemoryDisk
from fluffle.storage.environment import open_environment
from fluffle.storage.errors import StorageError
from fluffle.storage.store import InstantWriter, Store, Writer, WriterThread

logger = logging.getLogger(__name__)


class ProcessKilled(Exception):
    """Error that ends a process that the test has killed."""


class ProcessState(Enum):
    """State of the process of a node."""

    RUNS = "running"
    PAUSED = "paused"
    DOWN = "down"
    FAILED = "failed"
    """The process has ended by itself."""


class ChangeListener(Protocol):
    """Listener for all nodes together: waiting tests check again."""

    def changed(self) -> None:
        """Something may be otherwise than a moment ago; called often."""


class ClusterRuntime(NamedTuple):
    """Clocks, network and recorder that all nodes of a cluster share."""

    clock: MovableClock
    clients_clock: MovableClock
    network: Network
    wait_until_idle: WaitUntilIdle
    """Waits until there is nothing to do for any of them."""
    nodes: ChangeListener
    recorder: Recorder
    """Sees what happens on all of them."""


class ClusterNode(LoopBound):
    """Called by its number; in the loop of the cluster."""

    def __init__(
        self, number: int, config: Config, runtime: ClusterRuntime, *, in_memory: bool
    ) -> None:
        """`config`: with its name, its directory, and the others."""
        self.number = number
        self.name = config.node_name
        self._config = config
        self._runtime = runtime
        self._memory = MemoryDisk() if in_memory else None
        self.is_wiped = False
        """Its disk was, and it has not been started since."""
        self.disk = DiskFaults(self._look_for_room, runtime.wait_until_idle)
        """Faults of its disk."""
        self._mqtt_listen = LOOPBACK
        self._now: tuple[Node, Process] | None = None
        self._acceptor = ClientAcceptor(runtime.recorder, filter_packets)
        self._scopes: dict[str | None, FaultScope] = {}
        """Faults of its clients, in a virtual host or in all, in this boot."""
        self._open: tuple[FaultyDisk, SlowWriter] | None = None

    # How it is

    @property
    def state(self) -> ProcessState:
        if self._now is None:
            return ProcessState.DOWN
        node, process = self._now
        if node.failure is not None:
            return ProcessState.FAILED
        return ProcessState.PAUSED if process.stands_still else ProcessState.RUNS

    @property
    def node(self) -> Node:
        """RuntimeError if it is down."""
        if self._now is None:
            raise RuntimeError(f"node {self.number} is down")
        return self._now[0]

    @property
    def process(self) -> Process:
        """RuntimeError if it is down."""
        if self._now is None:
            raise RuntimeError(f"node {self.number} is down")
        return self._now[1]

    @property
    def parts(self) -> NodeContext:
        return self.node.parts

    @property
    def amqp(self) -> Address:
        """Address where clients connect, the same in all its lives."""
        return self._listen.host, self._listen.port

    @property
    def mqtt(self) -> Address:
        """Address where MQTT clients connect, the same in all its lives."""
        return self._mqtt_listen.host, self._mqtt_listen.port

    @property
    def _listen(self) -> ListenAddress:
        assert self._config.listen is not None, "its clients come in the clear"
        return self._config.listen

    @property
    def failure(self) -> Exception | None:
        """Why it has ended by itself, if no test has asked for that."""
        failure = self._now[0].failure if self._now is not None else None
        return None if isinstance(failure, InjectedDiskError) else failure

    @property
    def is_at_rest(self) -> bool:
        """True if it does nothing until something comes in or time passes."""
        if self.state is not ProcessState.RUNS or self._open is None:
            return True
        return self._open[1].is_stuck or self.node.is_at_rest

    def listens_at(self) -> Address | None:
        """Address for other nodes; None if it does not listen."""
        if self._now is None or self._now[0].failure is not None:
            return None
        return self._now[0].addresses.get("cluster")

    def scope(self, vhost: str | None = None) -> FaultScope:
        """Scope of faults for `operations.perform`; by default all virtual hosts."""
        scope = self._scopes.get(vhost)
        if scope is None:
            node, process = self.node, self.process
            later = process.timers(self._runtime.clock.call_later)
            scope = FaultScope(node.parts, self._acceptor, later, vhost)
            self._scopes[vhost] = scope
        return scope

    @property
    def faults(self) -> CrossThreadProxy:
        """`Faults` for the clients of this node."""
        return CrossThreadProxy(Faults(self.scope()), self._in_it)

    @property
    def clients(self) -> CrossThreadProxy:
        """`Clients` of this node."""
        return CrossThreadProxy(Clients(self.scope()), self._in_it)

    def _in_it(self, work: Work) -> Work:
        """Done in its process."""

        async def done(*positional: object, **named: object) -> object:
            return await self.process.do(work(*positional, **named))

        return done

    # Its process

    async def start(self) -> None:
        """Once it has failed or been killed, with the disk that it had.  RuntimeError if it runs;
        else what a node raises that cannot start."""
        if self.state is ProcessState.FAILED:
            await self.kill()
        if self._now is not None:
            raise RuntimeError(f"node {self.number} is {self.state.value}")
        self._config.data_dir.mkdir(parents=True, exist_ok=True)
        process = Process(self._runtime.network.dial_from(self.number))
        self._acceptor = ClientAcceptor(self._runtime.recorder, filter_packets)
        self._scopes = {}
        node = Node(
            self._config,
            environment=partial(self._environment, process),
            observers=(self._runtime.recorder,),
            on_fatal=self._on_fatal,
        )
        self._now = node, process
        try:
            await process.do(node.start())
        except BaseException:
            self._now = None
            raise
        await self._keep_addresses(node, process)
        node.turn.watchers.add(self._runtime.nodes.changed)
        self.is_wiped = False

    async def _keep_addresses(self, node: Node, process: Process) -> None:
        """Open the port for MQTT, and have clients find the node where they do in its next life,
        too."""
        if "mqtt" not in node.addresses:
            await process.do(node.open_late(MQTT, self._mqtt_listen))
        self._mqtt_listen = ListenAddress(*node.addresses["mqtt"])
        if not self._listen.port:
            address = replace(self._listen, port=node.addresses["amqp"][1])
            self._config = replace(self._config, listen=address)

    async def stop(self) -> None:
        """Stop the node in order, as an operator would: others lead first what it leads."""
        node, process = self.node, self.process
        self._mend()
        await process.do(node.stop("shutdown"))
        self._now = None

    async def kill(self) -> None:
        """Kill the node as SIGKILL does: it sends nothing more, and what is not on disk is lost."""
        node, process = self.node, self.process
        self._mend()
        if self._open is not None:
            self._open[0].is_gone = True
        process.go_on()  # it fails before it hears of anything
        process.run(node.fail, ProcessKilled("killed"))
        with suppress(NodeFailed):
            await process.do(node.stop("killed"))
        self._now = None

    def pause(self) -> None:
        """Pause the node as SIGSTOP does.  RuntimeError if it does not run."""
        if self.state is not ProcessState.RUNS:
            raise RuntimeError(f"node {self.number} is {self.state.value}")
        self.process.stop()

    def resume(self) -> None:
        """RuntimeError if it is not paused."""
        if self.state is not ProcessState.PAUSED:
            raise RuntimeError(f"node {self.number} is {self.state.value}")
        self.process.go_on()

    def wipe(self) -> None:
        """Replace its disk by an empty one."""
        if self._now is not None:
            raise RuntimeError(f"node {self.number} is {self.state.value}; kill it first")
        self.is_wiped = True
        if self._memory is not None:
            self._memory = MemoryDisk()
        else:
            from shutil import rmtree  # noqa: PLC0415  slow, and rarely used

            rmtree(self._config.data_dir)

    def forget(self, vhost: str) -> None:
        """A virtual host is about to go: what goes wrong ends with it, and its clients go first."""
        scopes = self._scopes.pop(vhost, None), self._scopes.get(None)
        if self.state in (ProcessState.RUNS, ProcessState.PAUSED):
            for scope in scopes:
                if scope is not None:
                    self.process.run(scope.mend)
            self.process.run(hang_up, self.parts, vhost)

    async def mend(self) -> None:
        """End the faults of its process, its disk and its clients; if it is down, it stays so."""
        await self.disk.repair()
        if self.state is ProcessState.PAUSED:
            self.resume()
        if self._now is not None:
            self._mend()

    # Within

    def _mend(self) -> None:
        for scope in self._scopes.values():
            self.process.run(scope.mend)

    def _on_fatal(self, error: Exception) -> None:
        """Note that the node ends by an error."""
        if not isinstance(error, ProcessKilled):
            event(logger, logging.CRITICAL, "fatal", node=self.name, reason=error)
        self._runtime.nodes.changed()

    def _look_for_room(self) -> None:
        if self.state is ProcessState.RUNS and (cluster := self.node.cluster) is not None:
            self.process.run(cluster.room.look)

    def _environment(self, process: Process, place: Path) -> NodeEnvironment:
        return NodeEnvironment(self, self._runtime, process, place, self._acceptor)

    def opened(
        self, place: Path, process: Process, on_fatal: Callable[[StorageError], None]
    ) -> Store:
        """Its disk, for a process on it.  StorageError."""
        if self._memory is not None:
            disk: Disk = self._memory
        else:
            disk = open_environment(place)
        self.disk.disk = faulty = FaultyDisk(disk, self.disk)

        def made(disk: Disk, wake: Callable[[], None]) -> Writer:
            within: Writer = (
                InstantWriter(disk, lambda: process.loop.call_soon(wake))
                if self._memory is not None
                else WriterThread(disk, lambda: process.loop.call_soon_threadsafe(wake))
            )
            writer = SlowWriter(within, self.disk, process.loop.call_later)
            self._open = faulty, writer
            return writer

        try:
            return Store(faulty, made, on_fatal=on_fatal)
        except BaseException:
            faulty.close()
            raise


class NodeEnvironment:
    """The `Environment` of one process of a node: its clocks, its disk and its acceptor."""

    close_wait_s = CLOSE_WAIT_S

    def __init__(
        self,
        node: ClusterNode,
        runtime: ClusterRuntime,
        process: Process,
        place: Path,
        acceptor: ClientAcceptor,
    ) -> None:
        self._node = node
        self._process = process
        self._place = place
        self._acceptor = acceptor
        self._recorder = runtime.recorder
        self.clock = runtime.clock
        self.call_later = process.timers(runtime.clock.call_later)
        self.clients_call_later = process.timers(runtime.clients_clock.call_later)

    def open_store(self, on_fatal: Callable[[StorageError], None]) -> Store:
        return self._node.opened(self._place, self._process, on_fatal)

    async def accept(
        self, make: Callable[[], asyncio.Protocol], listening: socket.socket
    ) -> ListeningServer:
        return await self._acceptor.accept(make, listening)

    def seen_dead(self, inner: DeadLetterFrom) -> DeadLetterFrom:
        return seen_dead(self._recorder.of, inner)

    def moved(self, clock: Clock) -> Clock:
        """Clock that is moved with that of messages."""
        return self.clock.over(clock)
