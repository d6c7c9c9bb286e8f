"""`ClusterNode`: the machine of one node, its disk, and the process on it if it runs: `cluster[0]`.

Faults of a disk are of the machine, not of the process on it: they are still there after a restart,
until they are repaired.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from fluffle.broker.admin.context import NodeContext
from fluffle.broker.alarms import MachineMeasures, Measures
from fluffle.broker.base.clock import CallLater, Clock, Timer
from fluffle.broker.base.logs import event
from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.config.listeners import MQTT
from fluffle.broker.node import Node, NodeFailed
from fluffle.broker.process.environment import ListeningServer
from fluffle.broker.queues.dead_letters import DeadLetterFrom
from fluffle.broker.testing.broker import LOOPBACK, filter_packets, hang_up
from fluffle.broker.testing.clock import MovableClock
from fluffle.broker.testing.cluster.network import Address, Network
from fluffle.broker.testing.cluster.process import Process
from fluffle.broker.testing.faults.faults import Clients, Faults
from fluffle.broker.testing.faults.tapped_transport import CLOSE_WAIT_S, ClientAcceptor, FaultScope
from fluffle.broker.testing.loop_thread import CrossThreadProxy, LoopBound, Work
from fluffle.broker.testing.recorder import Recorder, seen_dead
from fluffle.storage.disk import CommitResult, Disk, MemoryDisk, View, WriteTransaction
from fluffle.storage.environment import open_environment
from fluffle.storage.errors import StorageError
from fluffle.storage.layout import Bytes, Table
from fluffle.storage.raft_log import GROWTH_SHARE, ROOM_BYTES_MIN
from fluffle.storage.store import InstantWriter, Result, Store, Writer, WriterThread

WaitUntilIdle = Callable[[], Awaitable[None]]

READ = (Table.HOT, Table.COLD)
"""Where entries of logs are."""

LEFT_BYTES = ROOM_BYTES_MIN // GROWTH_SHARE
"""On a full disk: nothing grows, and what makes room is still written."""


PATIENCE_S = 1.0
"""A disk that is slower than this is not waited for when time is to pass."""


class InjectedDiskError(StorageError):
    """Error of a commit that a test has asked for."""


class DiskFaults(LoopBound):
    """Faults of the disk of one machine: `cluster[0].disk`."""

    def __init__(self, look: Callable[[], None], wait_until_idle: WaitUntilIdle) -> None:
        """`look` has the node see that there is room, or none, without waiting for the next time
        that it looks; `wait_until_idle` waits until all that the cluster knows is on disks."""
        self._look = look
        self._wait_until_idle = wait_until_idle
        self.delay_s = 0.0
        self.is_full = False
        self.failure: InjectedDiskError | None = None
        """Error that each commit raises, or None."""
        self.damaged: dict[tuple[Table, bytes], int] = {}
        """Values of which a byte is not what was written: which byte."""
        self.disk: Disk | None = None
        """Open disk, or None."""

    async def slow(self, ms: float) -> None:
        """Delay each commit by so much."""
        self.delay_s = ms / 1_000

    async def full(self) -> None:
        """Leave no room: the node reports it, and publishers are held back if it is needed for a
        majority."""
        self.is_full = True
        self._look()

    async def fail(self) -> None:
        """Let the next commit fail, and all after it: the node ends."""
        self.failure = InjectedDiskError("a commit failed: the disk of this node was made to fail")

    async def corrupt(self, body: bytes | str) -> None:
        """A byte of each entry that holds this is not what was written.

        The node finds out when it reads one, at the latest when it is started again.  ValueError if
        there is none.
        """
        await self._wait_until_idle()
        sought = body.encode() if isinstance(body, str) else body
        if self.disk is None:
            raise ValueError("the node does not run")
        with self.disk.view() as view:
            read = ((table, item) for table in READ for item in view.scan(table, b"", None))
            places = {
                (table, bytes(key)): bytes(value).find(sought) for table, (key, value) in read
            }
        found = {place: at for place, at in places.items() if at >= 0}
        if not found:
            raise ValueError(f"no entry on this disk holds {body!r}")
        self.damaged.update(found)

    async def repair(self) -> None:
        """Repair the disk; what was corrupt is again what was written."""
        self.delay_s, self.is_full, self.failure = 0.0, False, None
        self.damaged.clear()
        self._look()


class FaultyDisk:
    """A `Disk` for one life of a process."""

    def __init__(self, disk: Disk, faults: DiskFaults) -> None:
        self._disk = disk
        self._faults = faults
        self.is_gone = False
        """Its process has been killed: what is not durable by now never is."""

    @property
    def room_bytes(self) -> int:
        if self._faults.is_full:
            with self._disk.view() as view:
                return view.used_bytes() + LEFT_BYTES
        return self._disk.room_bytes

    @property
    def commit_number(self) -> int:
        return self._disk.commit_number

    def look_for_room(self) -> None:
        self._disk.look_for_room()

    def view(self) -> AbstractContextManager[View]:
        return self._damaged_view() if self._faults.damaged else self._disk.view()

    @contextmanager
    def _damaged_view(self) -> Iterator[View]:
        with self._disk.view() as view:
            yield DamagedView(view, self._faults.damaged)

    def commit(self, work: WriteTransaction) -> CommitResult:
        if self.is_gone:
            raise InjectedDiskError("the process was killed")
        if self._faults.failure is not None:
            raise self._faults.failure
        outcome = self._disk.commit(work)
        for table, key in work.removes:
            self._faults.damaged.pop((table, key), None)
        for table, key, _value in work.puts:
            self._faults.damaged.pop((table, key), None)
        return outcome

    def close(self) -> None:
        self._disk.close()


class DamagedView:
    """A `View` of a disk that does not return all as it was written."""

    def __init__(self, view: View, damaged: dict[tuple[Table, bytes], int]) -> None:
        self._view = view
        self._damaged = damaged

    def get(self, table: Table, key: bytes) -> Bytes | None:
        value = self._view.get(table, key)
        return None if value is None else self._seen(table, key, value)

    def scan(self, table: Table, first: bytes, stop: bytes | None) -> Iterator[tuple[Bytes, Bytes]]:
        for key, value in self._view.scan(table, first, stop):
            yield key, self._seen(table, bytes(key), value)

    def _seen(self, table: Table, key: bytes, value: Bytes) -> Bytes:
        at = self._damaged.get((table, key))
        if at is None:
            return value
        seen = bytearray(value)
        seen[at] ^= 0x01
        return bytes(seen)

    def last_key(self, table: Table, stop: bytes | None) -> bytes | None:
        return self._view.last_key(table, stop)

    def used_bytes(self) -> int:
        return self._view.used_bytes()


class SlowWriter:
    """A `Writer` that waits before each commit for as long as the disk is slow."""

    def __init__(self, writer: Writer, faults: DiskFaults, call_later: CallLater) -> None:
        self._writer = writer
        self._faults = faults
        self._call_later = call_later
        self._waiting: tuple[Timer, WriteTransaction] | None = None

    def start(self, work: WriteTransaction) -> None:
        if not self._faults.delay_s:
            self._writer.start(work)
            return
        self._waiting = self._call_later(self._faults.delay_s, self._begin), work

    def _begin(self) -> None:
        assert self._waiting is not None
        (_timer, work), self._waiting = self._waiting, None
        self._writer.start(work)

    def take(self) -> Result | None:
        return self._writer.take()

    @property
    def is_stuck(self) -> bool:
        """True if it does nothing for so long that no call should wait for it."""
        return self._waiting is not None and self._faults.delay_s > PATIENCE_S

    def stop(self) -> None:
        """Return at once: closing the store waits for nothing."""
        if self._waiting is not None:
            self._waiting[0].cancel()
            self._begin()
        self._writer.stop()


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
    """The `Environment` of one process of a node: its clocks, its disk, its measures and its
    acceptor."""

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
        self.measures: Measures = MachineMeasures(place)
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
