"""The composition root: builds every part of a node, starts and stops them in order."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from fluffle.broker.access.access import Access
from fluffle.broker.access.verifying import Answer, Verdict, Verifier
from fluffle.broker.alarms import Alarms
from fluffle.broker.alone import Alone
from fluffle.broker.awaiting import done
from fluffle.broker.chores import Chores
from fluffle.broker.clock import SystemClock
from fluffle.broker.company import Around, Company
from fluffle.broker.config import Config, ListenAddress
from fluffle.broker.control.dispatch import Dispatcher
from fluffle.broker.control.endpoint import ControlSocket
from fluffle.broker.control.parts import Parts
from fluffle.broker.control.verbs import VERBS
from fluffle.broker.dead_letters import DeadLetters
from fluffle.broker.definitions.catalogue import Catalogue, queues_here, restored
from fluffle.broker.definitions.deciding import unfinished
from fluffle.broker.definitions.first_start import (
    first_start,
    ignored_after_first_start,
    load_definitions,
)
from fluffle.broker.disk import DiskWatch
from fluffle.broker.durability import Durability, open_durability
from fluffle.broker.local_queues import LocalQueues
from fluffle.broker.logs import event
from fluffle.broker.memory import MemoryWatch
from fluffle.broker.queues.arguments import QueueSpec, features_not_in_effect
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.making import QueueMaker
from fluffle.broker.recording.image import Image, VhostImage
from fluffle.broker.server.consequences import Consequences
from fluffle.broker.server.listener import Listener
from fluffle.broker.server.registry import Connections, Owners
from fluffle.broker.server.replies import ReplyTargets
from fluffle.broker.server.services import Services
from fluffle.broker.shedding import Shedding
from fluffle.broker.starting import StartFailed, cannot_listen
from fluffle.broker.turn import Turn
from fluffle.broker.vhost import VirtualHost
from fluffle.protocol.types import FieldTable
from fluffle.protocol.wire import to_table

if TYPE_CHECKING:
    from fluffle.broker.cluster.cluster import Cluster
    from fluffle.broker.server.tls import Certificates

CAPABILITIES = (
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
)
"""Those of RabbitMQ, in its order."""

logger = logging.getLogger(__name__)


class NodeFailed(Exception):
    """A node has ended by itself.  What it had confirmed is on disk; it says nothing any more."""


def log_fatal(error: Exception) -> None:
    """In a process that is not ours."""
    event(logger, logging.CRITICAL, "fatal", reason=error)


class Node:
    """One broker in one event loop.

    When nothing more can be made durable, or what it believes is wrong, it fails: it hangs up on
    everybody in the same turn, `failure` says why, and so do `start`, `wait_closed` and `stop`.
    """

    __slots__ = (
        "_certificates",
        "_closed",
        "_company",
        "_config",
        "_durability",
        "_enders",
        "_listener",
        "_noticed",
        "_on_fatal",
        "_password_threads",
        "_services",
        "addresses",
        "catalogue",
        "failure",
        "metadata",
        "parts",
    )

    def __init__(
        self, config: Config, *, on_fatal: Callable[[Exception], None] = log_fatal
    ) -> None:
        """`on_fatal` is told when the node fails, before anything else: it may end the process."""
        self._config = config
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
        self._noticed: set[str] = set()
        """Features that were asked for, are not in effect, and have been logged."""
        self._certificates: Certificates | None = None
        self._listener: Listener | None = None
        self._company: Company | None = None
        """Once it has been started."""

    @property
    def cluster(self) -> Cluster | None:
        """None for a node that is alone."""
        return self._company.cluster if self._company is not None else None

    async def start(self) -> None:
        """Take up what was there, and accept connections.

        OSError when `listen` cannot be bound, DefinitionsError, StorageError, and StartFailed for
        the rest; NodeFailed if it fails meanwhile.
        """
        turn = Turn(asyncio.get_running_loop().call_soon, self._fail)
        self._durability = self._opened(turn)
        company = self._restore(turn)
        try:
            self.metadata = company.begin(self.catalogue)
            self._make_services(turn, company)
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
        config = self._config
        durability = open_durability(config.data_dir, turn, on_fatal=self._fail)
        if config.cluster is None or durability.image == Image():
            return durability
        durability.close(())
        from fluffle.broker.cluster.founding import take_along  # noqa: PLC0415  once in a life

        take_along(config.data_dir, config.node_name, config.cluster, secrets.randbits)
        return open_durability(config.data_dir, turn, on_fatal=self._fail)

    def _restore(self, turn: Turn) -> Company:
        """Make the parts of the node as they were; whom it is with.  StartFailed, StorageError."""
        try:
            company = self._company = self._made_company(turn)
            self.catalogue = self._restored(company.maker)
        except BaseException:
            self._durability.close(())
            raise
        return company

    def _made_company(self, turn: Turn) -> Company:
        config, durability = self._config, self._durability

        def find_vhost(name: str) -> VirtualHost | None:
            return self.catalogue.vhosts.get(name)

        dead_letter = DeadLetters(find_vhost, SystemClock()).publish
        around = Around(
            config=config,
            durability=durability,
            turn=turn,
            local=LocalQueues(turn.touch_queue, durability.journals, dead_letter),
            dead_letter=dead_letter,
            at_end=self._enders.append,
            on_fatal=self._fail,
        )
        if config.cluster is None:
            return Alone(around)
        from fluffle.broker.clustered import Clustered  # noqa: PLC0415  slow, and only if it is used

        return Clustered(around, config.cluster)

    def _restored(self, maker: QueueMaker) -> Catalogue:
        def make_vhost(name: str, image: VhostImage | None = None) -> VirtualHost:
            return VirtualHost(name, maker, on_new_queue=self._note_features, image=image)

        image = self._durability.image
        access = Access(
            loopback_users=self._config.loopback_users,
            verifier=Verifier(self._run_elsewhere),
            tables=image.tables,
        )
        return restored(image, access, make_vhost)

    def _make_services(self, turn: Turn, company: Company) -> None:
        """What connections use; there are none yet."""
        loop = asyncio.get_running_loop()
        config, durability = self._config, self._durability
        chores = Chores(loop.call_soon, turn, durability.commits, self._fail)
        self._services = Services(
            limits=config.limits,
            server_properties=server_properties(config),
            access=self.catalogue.access,
            vhosts=self.catalogue.vhosts,
            metadata=self.metadata,
            turn=turn,
            commits=durability.commits,
            chores=chores,
            replies=ReplyTargets(),
            alarms=Alarms(),
            random_name=random_name,
            call_soon=loop.call_soon,
            call_later=loop.call_later,
            connections=Connections(),
            owners=Owners(config.node_name, company.boot),
            consequences=Consequences(chores),
            on_fatal=self._fail,
            certificate_login=config.tls_login_from,
        )

    async def _open(self, company: Company) -> None:
        """Be as one was before, and let clients in."""
        loop = asyncio.get_running_loop()
        config, durability = self._config, self._durability
        control = self._control_socket(company)
        self._enders.append(control.close)
        await control.open()
        company.share(self._services.alarms)
        await company.enter(self.addresses)
        await self._fill()
        durability.forget()
        await durability.durable()
        self._listener = Listener(self._services)
        self._enders.append(self._listener.accept_no_more)
        shedding = Shedding(
            self._queues,
            durability.journals.spill,
            durability.commits,
            self._services.connections.relieve,
        )
        alarms = self._services.alarms
        watch = MemoryWatch(alarms, loop.call_later, config.memory_bytes_max, shedding)
        disk_watch = DiskWatch(alarms, loop.call_later, config.data_dir, config.disk_free_bytes_min)
        for each in (watch, disk_watch):
            self._enders.append(each.stop)
            each.start()
        self.addresses["amqp"] = await self._listener.listen(
            config.listen.host, config.listen.port, is_proxied=config.proxy_protocol
        )
        if config.tls_listen is not None:
            self.addresses["amqps"] = await self._listen_tls(self._listener, config.tls_listen)
        if config.metrics_listen is not None:
            self.addresses["metrics"] = await self._listen_metrics(config.metrics_listen, company)
        self._check()

    def _control_socket(self, company: Company) -> ControlSocket:
        clock = SystemClock()
        self.parts = Parts(
            config=self._config,
            catalogue=self.catalogue,
            metadata=self.metadata,
            connections=self._services.connections,
            chores=self._services.chores,
            commits=self._durability.commits,
            alarms=self._services.alarms,
            addresses=self.addresses,
            clock=clock,
            started_ms=clock.now_ms(),
            company=company,
        )
        dispatcher = Dispatcher(self.parts, VERBS, self._fail)
        return ControlSocket(self._config.data_dir, dispatcher, self._services)

    async def _listen_tls(self, listener: Listener, address: ListenAddress) -> tuple[str, int]:
        from fluffle.broker.server.tls import Certificates  # noqa: PLC0415  ssl only if it is used

        config = self._config
        if config.tls_cert is None:
            raise StartFailed(
                "--tls-listen needs a certificate; name its PEM file with --tls-cert, and that of "
                "its key with --tls-key"
            )
        self._certificates = Certificates(
            config.tls_cert, config.tls_key, config.tls_ca, verify=config.tls_verify
        )
        try:
            return await listener.listen(
                address.host,
                address.port,
                certificates=self._certificates,
                is_proxied=config.proxy_protocol,
            )
        except OSError as error:
            raise cannot_listen("--tls-listen", address, error) from error

    async def _listen_metrics(self, address: ListenAddress, company: Company) -> tuple[str, int]:
        from fluffle.broker.metrics.endpoint import MetricsEndpoint  # noqa: PLC0415  only if used

        metrics = MetricsEndpoint(self._services, self._config, SystemClock(), company)
        self._enders.append(metrics.stop)
        try:
            return await metrics.listen(address.host, address.port)
        except OSError as error:
            raise cannot_listen("--metrics", address, error) from error

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

    def _fail(self, error: Exception) -> None:
        """Say nothing any more to anybody: what else fails now is a consequence of it."""
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
        await done(partial(metadata.settle, partial(first_start, catalogue, config)))
        made = catalogue.kept.first_start
        if made and (commands := ignored_after_first_start(catalogue, config, made)):
            event(logger, logging.WARNING, "ignored_after_first_start", instead=commands)
        for vhost in catalogue.vhosts.values():
            for queue in vhost.queues.values():
                self._note_features(queue.spec, vhost.name)

    def _run_elsewhere(self, job: Callable[[], Verdict], answer: Answer) -> None:
        """Compare a password in a thread, and answer in the event loop."""
        running = asyncio.get_running_loop().run_in_executor(self._password_threads, job)
        running.add_done_callback(lambda done: None if done.cancelled() else answer(done.result()))

    def _note_features(self, spec: QueueSpec, vhost: str) -> None:
        """Log what a declare asks for and does not get yet: each feature once, for who is first."""
        for feature in features_not_in_effect(spec):
            if feature not in self._noticed:
                self._noticed.add(feature)
                event(
                    logger,
                    logging.WARNING,
                    "not_yet_in_effect",
                    feature=feature,
                    queue=spec.name,
                    vhost=vhost,
                )


def log_skipped(reasons: list[str]) -> None:
    """What of the definitions is not as it was asked for."""
    for reason in reasons:
        event(logger, logging.WARNING, "definition_skipped", reason=reason)


def random_name() -> str:
    """22 letters that nobody can guess, as RabbitMQ makes them for queues and consumers."""
    return base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()


def server_properties(config: Config) -> FieldTable:
    """What connection.start says of us: clients choose their behaviour by product and version."""
    return to_table(
        {
            "capabilities": dict.fromkeys(CAPABILITIES, True),
            "cluster_name": config.cluster.name if config.cluster else config.node_name,
            "copyright": "fluffle contributors",
            "information": "Licensed under Apache-2.0",
            "platform": config.platform,
            "product": config.product,
            "version": config.product_version,
            "fluffle_version": config.version,
        }
    )
