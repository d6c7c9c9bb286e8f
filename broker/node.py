"""The composition root: builds every part of a node, starts and stops them in order."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluffle.broker.access.access import Access
from fluffle.broker.access.verification import Answer, PasswordVerdict, Verifier
from fluffle.broker.admin.context import NodeContext
from fluffle.broker.admin.control_socket import ControlSocket
from fluffle.broker.admin.maintenance import Maintenance
from fluffle.broker.alarms.alarms import Alarms, watermarks_of
from fluffle.broker.alarms.disk import DiskWatch
from fluffle.broker.alarms.memory import MemoryWatch
from fluffle.broker.base.coroutines import completion_of
from fluffle.broker.base.logs import event
from fluffle.broker.base.traffic import Traffic
from fluffle.broker.cluster_port import ClusterPort, NodeServices
from fluffle.broker.composition.http_listeners import HttpListeners
from fluffle.broker.composition.observers import (
    node_observers,
    own_exchanges,
    start_log_publisher,
    start_sampling,
)
from fluffle.broker.composition.single_node import SingleNode
from fluffle.broker.config.config import Config, ListenAddress, listeners_of
from fluffle.broker.config.start_error import cannot_listen
from fluffle.broker.core.connections import Connections, Owners, delete_late
from fluffle.broker.core.direct_reply_to import ReplyTargets
from fluffle.broker.core.forced_closes import ForcedCloses
from fluffle.broker.core.interceptors import interceptors_of
from fluffle.broker.core.observer import ChangedBy
from fluffle.broker.core.services import Services, server_properties
from fluffle.broker.definitions.catalogue import Catalogue, policies_of, queues_here, restored
from fluffle.broker.definitions.changes import unfinished
from fluffle.broker.definitions.first_start import (
    first_start,
    ignored_after_first_start,
    load_definitions,
)
from fluffle.broker.definitions.policy_renewal import PolicyRenewal
from fluffle.broker.durability.definitions.image import Image, VhostImage
from fluffle.broker.durability.durability import Durability, open_durability
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.durability.page_out import PageOut
from fluffle.broker.events.event_publisher import COMMANDS, INTERNAL
from fluffle.broker.metadata.read_barrier import ReadBarrier
from fluffle.broker.process.environment import Environment, MachineEnvironment
from fluffle.broker.process.sockets import unauthenticated_max
from fluffle.broker.protocols.amqp091.listener import Listener
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.routing.changes import have_own
from fluffle.broker.runtime.background import BackgroundTasks
from fluffle.broker.runtime.commits import when_safe
from fluffle.broker.runtime.runtime import Runtime
from fluffle.broker.runtime.timers import LocalQueueClock, QueueTiming, Timers
from fluffle.broker.runtime.turn import Turn
from fluffle.broker.transfer.conversion.converter import Converter
from fluffle.broker.transfer.dead_letters import DeadLetters
from fluffle.broker.vhosts.declare_warnings import DeclareWarnings
from fluffle.broker.vhosts.queue_changes import delete_disused
from fluffle.broker.vhosts.vhost import VirtualHost

if TYPE_CHECKING:
    from fluffle.broker.cluster.cluster import Cluster
    from fluffle.broker.process.tls import Certificates

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

    __slots__ = (
        "_certificates", "_closed", "_company", "_config", "_converter", "_dead_letters",
        "_durability", "_enders", "_listener", "_make_outside", "_noting", "_on_fatal", "_outside",
        "_password_threads", "_policies", "_renewing", "_runtime", "_services", "_watched",
        "addresses", "catalogue", "failure", "metadata", "parts",
    )  # fmt: skip

    def __init__(
        self,
        config: Config,
        *,
        outside: Callable[[Path], Environment] = MachineEnvironment,
        on_fatal: Callable[[Exception], None] = log_fatal,
    ) -> None:
        """`outside` is made at the start, in the loop, for the directory of the node.

        `on_fatal` is told when the node fails, before anything else: it may end the process.
        """
        self._config = config
        self._make_outside = outside
        self._outside: Environment
        self._on_fatal = on_fatal
        self.failure: Exception | None = None
        """Why it has ended by itself, if it has."""
        self._closed = asyncio.Event()
        self._enders: list[Callable[[], None]] = []
        """What ends the parts that run, the first one last."""
        self.addresses: dict[str, tuple[str, int]] = {}
        """What was bound, by protocol; complete once `start` returns."""
        self._password_threads = ThreadPoolExecutor(1, "passwords")
        """For slow hashes, one at a time: they are made to use a core and much memory."""
        self._certificates: Certificates | None = None
        self._listener: Listener | None = None
        self._company: ClusterPort | None = None
        """Once it has been started."""

    @property
    def cluster(self) -> Cluster | None:
        """None for a node that is alone."""
        return self._company.cluster if self._company is not None else None

    @property
    def turn(self) -> Turn:
        """Its turns, once it has been started."""
        return self._runtime.turn

    @property
    def is_at_rest(self) -> bool:
        """Whether it does nothing in the next round of the loop, unless a client speaks then."""
        runtime, store = self._runtime, self._durability.store
        is_busy = store.is_busy or runtime.background_tasks.is_scheduled
        return not (runtime.turn.is_scheduled or is_busy)

    async def start(self) -> None:
        """Take up what was there, and accept connections.

        OSError when `listen` cannot be bound, DefinitionsError, StorageError, and StartFailed for
        the rest; NodeFailed if it fails meanwhile.
        """
        self._outside = self._make_outside(self._config.data_dir)
        turn = Turn(asyncio.get_running_loop().call_soon, self.fail)
        self._durability = self._opened(turn)
        self._runtime = self._made_runtime(turn)
        self._policies = policies_of(self._durability.image)
        self._noting = DeclareWarnings(self._policies.settings_of, self._policies.definition_of)
        company = self._restore()
        try:
            self.metadata = company.begin(self.catalogue)
            self._make_services(company)
            await self._unless_failed(self._open(company))
        except BaseException:
            self._end_parts()
            await company.stop()
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

    def _opened(self, turn: Turn) -> Durability:
        """What is on disk, as that of a cluster if this is to be a node of one.

        StartFailed, StorageError.
        """
        config, open_store = self._config, self._outside.open_store
        durability = open_durability(open_store, turn, on_fatal=self.fail)
        if config.cluster is None or durability.image == Image():
            return durability
        durability.close(())
        from fluffle.broker.cluster.bootstrap import Bootstrap, take_along  # noqa: PLC0415  once

        founder = Bootstrap(config.node_name, config.cluster, secrets.randbits)
        take_along(config.data_dir, open_store, founder)
        return open_durability(open_store, turn, on_fatal=self.fail)

    def _made_runtime(self, turn: Turn) -> Runtime:
        outside, commits = self._outside, self._durability.commits
        return Runtime(
            clock=outside.clock,
            call_later=outside.call_later,
            clients_call_later=outside.clients_call_later,
            timers=Timers(outside.clock.now_ms, outside.call_later, self.fail),
            turn=turn,
            commits=commits,
            background_tasks=BackgroundTasks(turn.call_soon, turn, commits, self.fail),
            traffic=Traffic(),
            on_fatal=self.fail,
        )

    def _restore(self) -> ClusterPort:
        """Make the parts of the node as they were; whom it is with.  StartFailed, StorageError."""
        try:
            company = self._company = self._made_company()
            self.catalogue = self._restored(company)
        except BaseException:
            self._durability.close(())
            raise
        return company

    def _made_company(self) -> ClusterPort:
        config, durability, runtime = self._config, self._durability, self._runtime

        def find_vhost(name: str) -> VirtualHost | None:
            return self.catalogue.vhosts.get(name)

        def read_barrier() -> ReadBarrier:
            assert self._company is not None, "it has made what asks"
            return self._company.read_barrier

        turn, deaths = runtime.turn, runtime.traffic.deaths
        safe = partial(when_safe, runtime.commits)
        self._dead_letters = DeadLetters(find_vhost, runtime.clock, deaths, safe, read_barrier)
        dead_letter = self._outside.seen_dead(self._dead_letters.publish)
        time = LocalQueueClock(runtime.clock, runtime.timers, turn.touch_queue)
        self._converter = Converter(runtime, time)
        around = NodeServices(
            runtime=runtime,
            config=config,
            environment=self._outside,
            durability=durability,
            local=LocalQueues(
                turn,
                durability.journals,
                dead_letter,
                time=time,
                disused=self._delete_disused,
                settings=self._noting.settings_of,
                traffic=runtime.traffic,
            ),
            dead_letter=dead_letter,
            dead_letters=self._dead_letters,
            aging=QueueTiming(runtime.timers, self._delete_disused),
            settings=self._noting.settings_of,
            at_end=self._enders.append,
        )
        if config.cluster is None:
            return SingleNode(around)
        from fluffle.broker.composition.clustered_node import ClusteredNode  # noqa: PLC0415  slow, and only if it is used

        return ClusteredNode(around, config.cluster)

    def _delete_disused(
        self, vhost_name: str, definition: QueueDefinition, is_disused: Callable[[], bool]
    ) -> None:
        vhost = self.catalogue.vhosts.get(vhost_name)
        if vhost is not None:
            metadata = self._services.metadata_of(ChangedBy(INTERNAL, INTERNAL))
            metadata.settle(partial(delete_disused, vhost, definition, is_disused))

    def _restored(self, company: ClusterPort) -> Catalogue:
        def make_vhost(name: str, image: VhostImage | None = None) -> VirtualHost:
            return VirtualHost(
                name, company.maker, on_new_queue=self._noting.new_queue, on_kept=company.kept,
                policies=self._policies, image=image, pick=secrets.randbelow,
                later=self._runtime.background_tasks.finish,
            )  # fmt: skip

        image = self._durability.image
        access = Access(
            loopback_users=self._config.loopback_users,
            verifier=Verifier(self._run_elsewhere),
            tables=image.tables,
        )
        self._renewing = PolicyRenewal(self._runtime.background_tasks.add, self._policies.count)
        catalogue = restored(image, access, make_vhost, self._policies, self._renewing)
        catalogue.transient_listeners.append(self._on_transient_queue)
        return replace(
            catalogue,
            dead_letters=self._dead_letters,
            converter=self._converter,
            default_queue_type=self._config.default_queue_type,
        )

    def _on_transient_queue(self, vhost: VirtualHost, definition: QueueDefinition) -> None:
        metadata = self._services.metadata_of(ChangedBy(INTERNAL, INTERNAL))
        delete_late(self._services.owners, metadata, vhost, definition)

    def _make_services(self, company: ClusterPort) -> None:
        """What connections use; there are none yet."""
        config, runtime = self._config, self._runtime
        alarms = Alarms(watermarks_of(config))
        seen = self._watched = node_observers(
            config, self._outside, self.catalogue, alarms, runtime.traffic
        )
        self._services = Services(
            runtime=runtime,
            limits=config.limits,
            server_properties=server_properties(config),
            access=self.catalogue.access,
            vhosts=self.catalogue.vhosts,
            nodes=self.catalogue.nodes.entries,
            metadata=self.metadata,
            replies=ReplyTargets(),
            alarms=alarms,
            random_name=random_name,
            connections=Connections(unauthenticated_max()),
            owners=Owners(config.node_name, company.boot),
            consequences=ForcedCloses(runtime.background_tasks),
            observers=seen.observers,
            mechanisms=config.auth_mechanisms,
            certificate_login=config.tls_login_from,
            quorum=config.quorum,
            interceptors=interceptors_of(config, self._outside.clock),
            read_barrier=company.read_barrier,
        )

    async def _open(self, company: ClusterPort) -> None:
        """Be as one was before, and let clients in."""
        loop = asyncio.get_running_loop()
        config, durability = self._config, self._durability
        self._listener = Listener(
            self._services, self._outside.accept, close_wait_s=self._outside.close_wait_s
        )
        control = self._control_socket(company, self._listener)
        self._enders.append(control.close)
        await control.open()
        listening = HttpListeners(
            self.parts,
            self._services,
            company,
            self._enders.append,
            self._watched.statistics,
        )
        await listening.open_metrics(self.addresses)
        services = self._services
        company.share(services.alarms, services.access.usage, services.replies)
        await company.enter(self.addresses)
        self._converter.open(company.boot, self.metadata, self.catalogue.vhosts.values())
        await self._fill()
        self._enders.append(start_log_publisher(config, self.catalogue.vhosts))
        self._renewing.open()
        durability.forget()
        await durability.durable()
        self._runtime.timers.start()
        self._enders.append(self._listener.accept_no_more)
        statistics = self._watched.statistics
        self._enders.append(start_sampling(statistics, self._runtime))
        shedding = PageOut(
            self._queues,
            durability.journals.spill,
            self._runtime.commits,
            self._services.connections.relieve,
        )
        alarms = self._services.alarms
        watch = MemoryWatch(alarms, loop.call_later, shedding)
        disk_watch = DiskWatch(alarms, loop.call_later, config.data_dir)
        disk_watch.has_room = company.watch_room(partial(loop.call_soon, disk_watch.look))
        for each in (watch, disk_watch):
            self._enders.append(each.stop)
            each.start()
        for name, address in listeners_of(config).items():
            self.addresses[name] = await self._listener.listen(
                address.host, address.port, is_proxied=config.proxy_protocol
            )
        if config.tls_listen is not None:
            self.addresses["amqps"] = await self._listen_tls(self._listener, config.tls_listen)
        await listening.open_management(self.addresses)
        self._check()

    def _control_socket(self, company: ClusterPort, listener: Listener) -> ControlSocket:
        connections = self._services.connections
        self.parts = NodeContext(
            runtime=self._runtime,
            config=self._config,
            catalogue=self.catalogue,
            metadata=self._services.metadata_of(ChangedBy(COMMANDS, COMMANDS)),
            connections=connections,
            alarms=self._services.alarms,
            addresses=self.addresses,
            started_ms=self._runtime.clock.now_ms(),
            company=company,
            converter=self._converter,
            maintenance=Maintenance(listener, connections, company),
            statistics=self._watched.statistics,
        )
        return ControlSocket(self._config.data_dir, self.parts, self._services, self.fail)

    async def _listen_tls(self, listener: Listener, address: ListenAddress) -> tuple[str, int]:
        from fluffle.broker.process.tls import certificates_of  # noqa: PLC0415  ssl only if it is used

        config = self._config
        self._certificates = certificates_of(config, "tls-listen", verify=config.tls_verify)
        try:
            return await listener.listen(
                address.host,
                address.port,
                certificates=self._certificates,
                is_proxied=config.proxy_protocol,
            )
        except OSError as error:
            raise cannot_listen("--tls-listen", address, error) from error

    def reload(self) -> None:
        """Read the certificates again, also if their files look unchanged."""
        if self._certificates is not None:
            self._certificates.reload()
        if self._company is not None:
            self._company.reload()

    async def stop(self, reason: str) -> None:
        """Close every connection with 320 CONNECTION_FORCED and let go of everything.

        Raises `NodeFailed`, once that is done, if the node had failed.
        """
        self._end_parts()
        company = self._company
        if company is not None and self.failure is None:
            await company.hand_over()
        if self._listener is not None:
            await self._listener.stop(reason)
        if company is not None:
            await company.stop()
        self._password_threads.shutdown(wait=False, cancel_futures=True)
        self._durability.close(self._queues())
        self._closed.set()
        self._check()

    async def wait_closed(self) -> None:
        """Wait until the node has been stopped, or fails.  NodeFailed."""
        await self._closed.wait()
        self._check()

    def fail(self, error: Exception) -> None:
        """End at once, without a word to anybody: what else fails now is a consequence of it."""
        if self.failure is not None:
            return
        self.failure = error
        self._on_fatal(error)
        self._durability.give_up(error)
        self._end_parts()
        if self._listener is not None:
            self._listener.cut_off()
        if self._company is not None:
            self._company.cut_off()
        self._closed.set()

    def _check(self) -> None:
        """NodeFailed."""
        if self.failure is not None:
            raise NodeFailed(f"the node has failed: {self.failure}") from self.failure

    def _end_parts(self) -> None:
        while self._enders:
            self._enders.pop()()

    def _queues(self) -> Iterator[Queue]:
        """Those of all virtual hosts that are in this process."""
        yield from queues_here(self.catalogue)

    async def _fill(self) -> None:
        """Make what there is at a start, and log what is not as it was asked for."""
        catalogue, config, metadata = self.catalogue, self._config, self.metadata
        for decide in unfinished(catalogue):
            metadata.settle(decide)
        log_skipped(await load_definitions(catalogue, config, metadata))
        await completion_of(partial(metadata.settle, partial(first_start, catalogue, config)))
        for home, exchange in own_exchanges(config, catalogue.vhosts):
            await completion_of(
                partial(metadata.settle, partial(have_own, home.topology, exchange))
            )
        made = catalogue.kept.first_start
        if made and (commands := ignored_after_first_start(catalogue, config, made)):
            event(logger, logging.WARNING, "ignored_after_first_start", instead=commands)
        for vhost in catalogue.vhosts.values():
            for queue in vhost.queues.values():
                self._noting.new_queue(queue.spec, vhost.name)

    def _run_elsewhere(self, job: Callable[[], PasswordVerdict], answer: Answer) -> None:
        """Compare a password in a thread, and answer in the event loop."""
        running = asyncio.get_running_loop().run_in_executor(self._password_threads, job)
        running.add_done_callback(lambda done: None if done.cancelled() else answer(done.result()))


def log_skipped(reasons: list[str]) -> None:
    """What of the definitions is not as it was asked for."""
    for reason in reasons:
        event(logger, logging.WARNING, "definition_skipped", reason=reason)


def random_name() -> str:
    """22 letters that nobody can guess, as RabbitMQ makes them for queues and consumers."""
    return base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
