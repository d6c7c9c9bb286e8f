"""The composition root: builds every part of a node, starts and stops them in order."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluffle.broker.admin.context import NodeContext
from fluffle.broker.admin.maintenance import Maintenance
from fluffle.broker.alarms import Alarms, watermarks_of
from fluffle.broker.base.logs import event
from fluffle.broker.base.traffic import Traffic
from fluffle.broker.composition.definitions import NodeDefinitions, PasswordThreads
from fluffle.broker.composition.listeners import NodeListeners, import_management
from fluffle.broker.composition.observers import (
    node_observers,
    start_log_publisher,
    start_sampling,
    start_watches,
)
from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.config.listeners import ListenerKind
from fluffle.broker.core.connections import Connections, ForcedCloses, Owners
from fluffle.broker.core.direct_reply_to import ReplyTargets
from fluffle.broker.core.interceptors import interceptors_of
from fluffle.broker.core.listener import Listener
from fluffle.broker.core.observer import ChangedBy, Observer
from fluffle.broker.core.services import Services, server_properties
from fluffle.broker.definitions.catalogue import Catalogue, queues_here
from fluffle.broker.durability.durability import Durability, open_durability
from fluffle.broker.durability.fact_codec import DefinitionImage
from fluffle.broker.event_publisher import COMMANDS
from fluffle.broker.metadata.change import Kind
from fluffle.broker.metadata.metadata import Metadata
from fluffle.broker.process.environment import Environment, MachineEnvironment
from fluffle.broker.process.sockets import unauthenticated_max
from fluffle.broker.queues.engine import Queue
from fluffle.broker.runtime.background import BackgroundTasks
from fluffle.broker.runtime.runtime import Runtime
from fluffle.broker.runtime.timers import Timers
from fluffle.broker.runtime.turn import Turn

if TYPE_CHECKING:
    from fluffle.broker.cluster.cluster import ClusterService

logger = logging.getLogger(__name__)


class NodeFailed(Exception):
    """A node has ended by itself.  What it had confirmed is on disk; it says nothing any more."""


def log_fatal(error: Exception) -> None:
    """In a process that is not ours."""
    event(logger, logging.CRITICAL, "fatal", reason=error)


class Node:
    """Single broker in an event loop.

    When nothing more can be made durable, or what it believes is wrong, it fails: it hangs up on
    everybody in the same turn, `failure` says why, and so do `start`, `wait_closed` and `stop`.
    """

    def __init__(
        self,
        config: Config,
        *,
        environment: Callable[[Path], Environment] = MachineEnvironment,
        observers: tuple[Observer, ...] = (),
        on_fatal: Callable[[Exception], None] = log_fatal,
    ) -> None:
        """`environment` is made at the start, in the loop, for the directory of the node.
        `observers` see what clients do.

        `on_fatal` is called when the node fails, before anything else: it may end the process.
        """
        self._config = config
        self._make_environment = environment
        self._environment: Environment
        self._observers = observers
        self._on_fatal = on_fatal
        self.failure: Exception | None = None
        """Why it has ended by itself, if it has."""
        self._closed = asyncio.Event()
        self._enders: list[Callable[[], None]] = []
        """Functions that end the running parts, the first one last."""
        self.addresses: dict[str, tuple[str, int]] = {}
        """Bound addresses by protocol; complete once `start` returns."""
        self._passwords = PasswordThreads()
        self._definitions: NodeDefinitions | None = None
        self._listener: Listener | None = None
        self._listeners: NodeListeners | None = None
        """All three once it has been started."""

    @property
    def cluster(self) -> ClusterService | None:
        """None for a node that is alone."""
        return self._definitions.cluster_view.cluster if self._definitions is not None else None

    @property
    def catalogue(self) -> Catalogue:
        """Definitions, once the node has been started."""
        return self._begun.catalogue

    @property
    def metadata(self) -> Metadata:
        """Where definitions are changed, once it has been started."""
        return self._begun.metadata

    @property
    def _begun(self) -> NodeDefinitions:
        assert self._definitions is not None, "it has been started"
        return self._definitions

    @property
    def turn(self) -> Turn:
        """Turns of the node, once it has been started."""
        return self._runtime.turn

    @property
    def is_at_rest(self) -> bool:
        """True if it does nothing in the next round of the loop, unless a client speaks then."""
        runtime, store = self._runtime, self._durability.store
        is_busy = store.is_busy or runtime.background_tasks.is_scheduled
        return not (runtime.turn.is_scheduled or is_busy)

    async def start(self) -> None:
        """Take up what was there, and accept connections.

        OSError when `listen` cannot be bound, DefinitionsError, StorageError, and StartFailed for
        the rest; NodeFailed if it fails meanwhile.
        """
        config = self._config
        import_management(config)
        self._environment = environment = self._make_environment(config.data_dir)
        turn = Turn(asyncio.get_running_loop().call_soon, self.fail)
        self._durability = opened_durability(config, environment, turn, self.fail)
        self._runtime = runtime_of(environment, turn, self._durability, self.fail)
        self._definitions = definitions = self._restored()
        try:
            definitions.begin()
            self._make_services(definitions)
            await self._unless_failed(self._open(definitions))
        except BaseException:
            self._end_parts()
            await definitions.cluster_view.stop()
            self._durability.close(self._queues())
            self._check()
            raise

    async def _unless_failed(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it, but not on when the node fails meanwhile.  NodeFailed."""
        working = asyncio.ensure_future(work)
        failing = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait((working, failing), return_when=asyncio.FIRST_COMPLETED)
            self._check()
            await working
        finally:
            working.cancel()
            failing.cancel()

    def _restored(self) -> NodeDefinitions:
        """Definitions as an earlier process left them.  StartFailed, StorageError."""
        try:
            return NodeDefinitions(
                self._config,
                self._environment,
                self._runtime,
                self._durability,
                passwords=self._passwords,
                at_end=self._enders.append,
            )
        except BaseException:
            self._durability.close(())
            raise

    def _make_services(self, definitions: NodeDefinitions) -> None:
        """Make the services that connections use; there are none yet."""
        config, runtime, cluster_view = self._config, self._runtime, definitions.cluster_view
        catalogue = definitions.catalogue
        alarms = Alarms(watermarks_of(config))
        seen = self._node_observers = node_observers(
            config,
            self._observers,
            catalogue,
            clock=self._environment.clock,
            alarms=alarms,
            traffic=runtime.traffic,
        )
        self._services = Services(
            runtime=runtime,
            limits=config.limits,
            server_properties=server_properties(config),
            access=catalogue.access,
            vhosts=catalogue.vhosts,
            nodes=catalogue.nodes.entries,
            metadata=definitions.metadata,
            retained=definitions.retained,
            replies=ReplyTargets(),
            alarms=alarms,
            random_name=random_name,
            connections=Connections(unauthenticated_max()),
            owners=Owners(config.node_name, cluster_view.boot),
            forced_closes=ForcedCloses(runtime.background_tasks),
            observers=seen.observers,
            mechanisms=config.auth_mechanisms,
            certificate_login=config.tls_login_from,
            quorum=config.quorum,
            global_parameters=catalogue.kept.entries[Kind.GLOBAL_PARAMETER],
            interceptors=interceptors_of(config, self._environment.clock),
            read_barrier=cluster_view.read_barrier,
        )
        definitions.share(self._services)

    async def _open(self, definitions: NodeDefinitions) -> None:
        """Be as one was before, and let clients in."""
        config, environment, durability = self._config, self._environment, self._durability
        services, cluster_view = self._services, definitions.cluster_view
        self._listener = clients = Listener(
            services.connections, environment.accept, close_wait_s=environment.close_wait_s
        )
        self.parts = self._made_parts(definitions, clients)
        self._listeners = listeners = NodeListeners(
            self.parts,
            services,
            clients,
            cluster_view,
            addresses=self.addresses,
            at_end=self._enders.append,
        )
        await listeners.open_control()
        await listeners.open_metrics()
        await definitions.enter(self.addresses)
        self._enders.append(start_log_publisher(config, definitions.catalogue.vhosts))
        definitions.open()
        durability.forget()
        await durability.durable()
        self._runtime.timers.start()
        self._enders.append(clients.accept_no_more)
        self._enders.append(start_sampling(self._node_observers.statistics, self._runtime))
        self._enders += start_watches(config, services, durability, cluster_view, self._queues)
        await listeners.open_clients()
        await listeners.open_management()
        self._check()

    def _made_parts(self, definitions: NodeDefinitions, clients: Listener) -> NodeContext:
        """Context that verbs work on."""
        services, cluster_view = self._services, definitions.cluster_view
        return NodeContext(
            runtime=self._runtime,
            config=self._config,
            catalogue=definitions.catalogue,
            metadata=services.metadata_of(ChangedBy(COMMANDS, COMMANDS)),
            connections=services.connections,
            alarms=services.alarms,
            addresses=self.addresses,
            started_ms=self._runtime.clock.now_ms(),
            cluster_view=cluster_view,
            converter=definitions.converter,
            maintenance=Maintenance(clients, services.connections, cluster_view),
            statistics=self._node_observers.statistics,
        )

    async def open_late(self, kind: ListenerKind, address: ListenAddress) -> None:
        """Let clients in at one more address, which costs a running node little until the first
        comes.  OSError."""
        assert self._listeners is not None, "it has been started"
        await self._listeners.open_late(kind, address)

    def reload(self) -> None:
        """Read the certificates again, also if their files look unchanged."""
        if self._listeners is not None:
            self._listeners.reload()
        if self._definitions is not None:
            self._definitions.cluster_view.reload()

    async def stop(self, reason: str) -> None:
        """Close every connection with 320 CONNECTION_FORCED and let go of everything.

        Raises `NodeFailed`, once that is done, if the node had failed.
        """
        self._end_parts()
        cluster_view = self._definitions.cluster_view if self._definitions is not None else None
        if cluster_view is not None and self.failure is None:
            await cluster_view.hand_over()
        if self._listener is not None:
            await self._listener.stop(reason)
        if cluster_view is not None:
            await cluster_view.stop()
        self._passwords.close()
        self._durability.close(self._queues())
        self._closed.set()
        self._check()

    async def wait_closed(self) -> None:
        """Wait until the node has been stopped, or fails.  NodeFailed."""
        await self._closed.wait()
        self._check()

    def fail(self, error: Exception) -> None:
        """End at once, without a goodbye: later failures are consequences of this one."""
        if self.failure is not None:
            return
        self.failure = error
        self._on_fatal(error)
        self._durability.give_up(error)
        self._end_parts()
        if self._listener is not None:
            self._listener.cut_off()
        if self._definitions is not None:
            self._definitions.cluster_view.cut_off()
        self._closed.set()

    def _check(self) -> None:
        """NodeFailed."""
        if self.failure is not None:
            raise NodeFailed(f"the node has failed: {self.failure}") from self.failure

    def _end_parts(self) -> None:
        while self._enders:
            self._enders.pop()()

    def _queues(self) -> Iterator[Queue]:
        """Queues of all virtual hosts that are in this process."""
        yield from queues_here(self.catalogue)


def opened_durability(
    config: Config, environment: Environment, turn: Turn, on_fatal: Callable[[Exception], None]
) -> Durability:
    """Store of this node, converted for a cluster if it is to join one.

    StartFailed, StorageError.
    """
    open_store = environment.open_store
    durability = open_durability(open_store, turn, on_fatal=on_fatal)
    if config.cluster is None or durability.image == DefinitionImage():
        return durability
    durability.close(())
    from fluffle.broker.cluster.data_directory import Bootstrap, take_along  # noqa: PLC0415  once

    founder = Bootstrap(config.node_name, config.cluster, secrets.randbits)
    take_along(config.data_dir, open_store, founder)
    return open_durability(open_store, turn, on_fatal=on_fatal)


def runtime_of(
    environment: Environment,
    turn: Turn,
    durability: Durability,
    on_fatal: Callable[[Exception], None],
) -> Runtime:
    """The runtime of a node whose store is open; its timers do not run yet."""
    clock, commits = environment.clock, durability.commits
    return Runtime(
        clock=clock,
        call_later=environment.call_later,
        clients_call_later=environment.clients_call_later,
        timers=Timers(clock, environment.call_later, on_fatal),
        turn=turn,
        commits=commits,
        background_tasks=BackgroundTasks(turn, commits, on_fatal),
        traffic=Traffic(),
        measures=environment.measures,
        on_fatal=on_fatal,
    )


def random_name() -> str:
    """Random name of 22 letters, as RabbitMQ makes them for queues and consumers."""
    return base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
