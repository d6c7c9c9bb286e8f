"""Definitions of a node, and the parts that they need: what makes queues and what becomes of them.

The catalogue is made of what was on disk, with queues that the cluster port makes; whoever changes
definitions later does so through the services of the node.

Definitions may be imported at each start.  What they have the users and virtual hosts of the first
start do not change; as with RabbitMQ, these stay away once they were deleted.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from fluffle.broker.access.access import ADMINISTRATOR, Access, Permission, User
from fluffle.broker.access.passwords import hashed
from fluffle.broker.access.verification import Answer, PasswordVerdict, Verifier
from fluffle.broker.base.callbacks import completion_of
from fluffle.broker.base.logs import event
from fluffle.broker.cluster_port import ClusterPort
from fluffle.broker.composition.observers import own_exchanges
from fluffle.broker.composition.single_node import SingleNode
from fluffle.broker.config.config import DEFAULT_USER, DEFAULT_VHOST, Config, UserRights
from fluffle.broker.core.connections import delete_late
from fluffle.broker.core.observer import ChangedBy
from fluffle.broker.definitions.catalogue import Catalogue, PolicyRenewal, policies_of, restored
from fluffle.broker.definitions.changes import keep, new_settings, unfinished
from fluffle.broker.definitions.retained import RetainedLimits, RetainedStore
from fluffle.broker.durability.durability import Durability
from fluffle.broker.durability.fact_codec import FirstStart, VhostImage
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.event_publisher import INTERNAL
from fluffle.broker.metadata.change import NOTHING, Change, Fact, Kind
from fluffle.broker.metadata.metadata import Metadata, ReadBarrier
from fluffle.broker.node_services import NodeServices
from fluffle.broker.patterns.patterns import found
from fluffle.broker.process.environment import Environment
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.routing.changes import have_own
from fluffle.broker.runtime.commits import when_safe
from fluffle.broker.runtime.runtime import Runtime
from fluffle.broker.runtime.timers import LocalQueueClock, QueueTiming
from fluffle.broker.transfer.converter import Converter
from fluffle.broker.transfer.dead_letters import DeadLetters
from fluffle.broker.vhosts.queue_changes import DeclareWarnings, delete_disused
from fluffle.broker.vhosts.vhost import VirtualHost

if TYPE_CHECKING:
    from fluffle.broker.core.services import Services


NAME = "internal_definitions_hash"
"""Global parameter that holds the hash of the last import, shared by the nodes of a cluster.

RabbitMQ does not import parameters whose names begin so."""


def fingerprint(files: Sequence[Path]) -> str:
    """Return a hash of all that the files hold."""
    total = sha256()
    for file in files:
        total.update(sha256(file.read_bytes()).digest())
    return total.hexdigest()


def noted(catalogue: Catalogue) -> str | None:
    """Return the fingerprint of the last import; None before there was one."""
    entry = catalogue.kept.entries[Kind.GLOBAL_PARAMETER].get((NAME,))
    return None if entry is None else str(entry["value"])


def note(digest: str) -> Change:
    """Have it known that these have been imported."""
    return keep(Kind.GLOBAL_PARAMETER, {"name": NAME, "value": digest})


EVERYWHERE = UserRights()


async def load_definitions(catalogue: Catalogue, config: Config, metadata: Metadata) -> list[str]:
    """Import what `config` names; what was skipped and why, a sentence each.  DefinitionsError.

    All files are read before the first is imported.
    """
    if config.definitions is None:
        return []
    from fluffle.broker.definitions.file_format import files_of, read_file  # noqa: PLC0415  slow,
    from fluffle.broker.definitions.importer import import_definitions  # noqa: PLC0415  and seldom used

    files = files_of(config.definitions)
    definitions = [read_file(file) for file in files]
    digest = fingerprint(files) if config.definitions_skip_unchanged else None
    if digest is not None and noted(catalogue) == digest:
        return []
    skipped: list[str] = []
    for each in definitions:
        skipped += await import_definitions(each, catalogue, metadata)
    if digest is not None:
        await completion_of(partial(metadata.ensure, partial(note, digest)))
    return skipped


def first_start(catalogue: Catalogue, config: Config) -> Change:
    """Return the users and virtual hosts that are configured, with a note that they have been made.

    These users may do everything in every virtual host there is then, unless it is said that one
    may do less.  The note comes last: if the
    process ends before it is on disk, the next start is a first one again.  Nothing if it is there,
    as it may be in a cluster: then another node came first.
    """
    if catalogue.kept.first_start is not None:
        return NOTHING
    vhosts = [name for name in config.vhosts if name not in catalogue.vhosts]
    facts = [Fact(Kind.VHOST, (name,), new_settings(catalogue)) for name in vhosts]
    for name, password in config.users.items():
        if name not in catalogue.access.users:
            tags = config.user_tags.get(name, (ADMINISTRATOR,))
            user = User(name, hashed(password.encode()), tags)
            facts.append(Fact(Kind.USER, (name,), user))
            rights = config.user_rights.get(name, EVERYWHERE)
            facts += [
                Fact(Kind.PERMISSION, (name, vhost), permission_of(rights))
                for vhost in (*catalogue.vhosts, *vhosts)
                if found(rights.vhosts, vhost)
            ]
    made = FirstStart(tuple(config.users), tuple(config.vhosts))
    note = Fact(Kind.STARTED, (), made)
    return Change(puts=(*facts, note), rests_on=tuple(fact.name for fact in (*facts, note)))


def permission_of(rights: UserRights) -> Permission:
    return Permission(rights.configure, rights.write, rights.read)


def ignored_after_first_start(catalogue: Catalogue, config: Config, made: FirstStart) -> str | None:
    """Return how to make the users and virtual hosts that are configured, as commands, if any is
    missing.

    What was `made` at the first start has been deleted on purpose.  guest and / do not count
    either, since no option names them.
    """
    vhosts = missing(config.vhosts, (*catalogue.vhosts, *made.vhosts, DEFAULT_VHOST))
    users = missing(config.users, (*catalogue.access.users, *made.users, DEFAULT_USER))
    if not (vhosts or users):
        return None
    from shlex import quote  # noqa: PLC0415  seldom used

    commands = [f"fluffle vhosts add {quote(name)}" for name in vhosts]
    for name in map(quote, users):
        commands += [f"fluffle users add {name}", f"fluffle permissions set {name} '.*' '.*' '.*'"]
    return "; ".join(commands)


def missing(wanted: Iterable[str], there: Sequence[str]) -> list[str]:
    """Yield what is configured and does not exist."""
    return [name for name in wanted if name not in there]


logger = logging.getLogger(__name__)


class PasswordThreads:
    """A thread for slow hashes, one at a time: they are made to use a core and much memory."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "passwords")

    def run(self, job: Callable[[], PasswordVerdict], answer: Answer) -> None:
        """Compare a password in a thread, and answer in the event loop."""
        running = asyncio.get_running_loop().run_in_executor(self._executor, job)
        running.add_done_callback(lambda done: None if done.cancelled() else answer(done.result()))

    def close(self) -> None:
        """Compare no more; what waits hears nothing."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class NodeDefinitions:
    """Catalogue of a node, with the parts that follow its changes, and the cluster port.

    Raises StartFailed, StorageError when it is made.
    """

    def __init__(
        self,
        config: Config,
        environment: Environment,
        runtime: Runtime,
        durability: Durability,
        *,
        passwords: PasswordThreads,
        at_end: Callable[[Callable[[], None]], object],
    ) -> None:
        """`at_end` has something called when the node ends."""
        self._config = config
        self._environment = environment
        self._runtime = runtime
        self._durability = durability
        self._services: Services
        """From `share` on."""
        self.metadata: Metadata
        """From `begin` on, and so is the next."""
        self.retained: RetainedStore
        self._policies = policies_of(durability.image)
        self._warnings = DeclareWarnings(self._policies.settings_of, self._policies.definition_of)
        self.dead_letters = DeadLetters(
            self._find_vhost,
            runtime.clock,
            runtime.traffic.deaths,
            partial(when_safe, runtime.commits),
            self._read_barrier,
        )
        self._time = time = LocalQueueClock(runtime.clock, runtime.timers, runtime.turn.touch_queue)
        self.converter = Converter(runtime, time)
        self._renewal = PolicyRenewal(runtime.background_tasks.add, self._policies.count)
        self.cluster_view = self._made_cluster_port(time, at_end)
        self.catalogue = self._restored(passwords)

    def _made_cluster_port(
        self, time: LocalQueueClock, at_end: Callable[[Callable[[], None]], object]
    ) -> ClusterPort:
        """Port to the cluster, or to a lone node's substitute for it."""
        config, runtime, durability = self._config, self._runtime, self._durability
        dead_letter = self._environment.seen_dead(self.dead_letters.publish)
        settings = self._warnings.settings_of
        services = NodeServices(
            runtime=runtime,
            config=config,
            environment=self._environment,
            durability=durability,
            local=LocalQueues(
                runtime.turn,
                durability.journals,
                dead_letter,
                time=time,
                queue_expired=self._delete_disused,
                settings=settings,
                traffic=runtime.traffic,
            ),
            dead_letter=dead_letter,
            aging=QueueTiming(runtime.timers, self._delete_disused),
            settings=settings,
        )
        if config.cluster is None:
            return SingleNode(services)
        from fluffle.broker.composition.clustered_node import ClusteredNode  # noqa: PLC0415  slow, and only if it is used

        return ClusteredNode(
            services, config.cluster, dead_letters=self.dead_letters, at_end=at_end
        )

    def _restored(self, passwords: PasswordThreads) -> Catalogue:
        image = self._durability.image
        access = Access(
            loopback_users=self._config.loopback_users,
            verifier=Verifier(passwords.run),
            tables=image.tables,
        )
        catalogue = restored(image, access, self._made_vhost, self._policies, self._renewal)
        catalogue.transient_listeners.append(self._on_transient_queue)
        return replace(
            catalogue,
            dead_letters=self.dead_letters,
            converter=self.converter,
            default_queue_type=self._config.default_queue_type,
        )

    def _made_vhost(self, name: str, image: VhostImage | None = None) -> VirtualHost:
        return VirtualHost(
            name,
            self.cluster_view.maker,
            on_new_queue=self._warnings.new_queue,
            on_kept=self.cluster_view.kept,
            policies=self._policies,
            image=image,
            pick=secrets.randbelow,
            later=self._runtime.background_tasks.finish,
        )

    # What the parts ask for later

    def _find_vhost(self, name: str) -> VirtualHost | None:
        return self.catalogue.vhosts.get(name)

    def _read_barrier(self) -> ReadBarrier:
        return self.cluster_view.read_barrier

    def _delete_disused(
        self, vhost_name: str, definition: QueueDefinition, is_queue_expired: Callable[[], bool]
    ) -> None:
        vhost = self._find_vhost(vhost_name)
        if vhost is not None:
            metadata = self._services.metadata_of(ChangedBy(INTERNAL, INTERNAL))
            metadata.ensure(partial(delete_disused, vhost, definition, is_queue_expired))

    def _on_transient_queue(self, vhost: VirtualHost, definition: QueueDefinition) -> None:
        metadata = self._services.metadata_of(ChangedBy(INTERNAL, INTERNAL))
        delete_late(self._services.owners, metadata, vhost, definition)

    # A start, step by step

    def begin(self) -> None:
        """Definitions can be changed from now on.  StartFailed, StorageError."""
        self.metadata = self.cluster_view.begin(self.catalogue)
        mqtt, cluster_view = self._config.mqtt, self.cluster_view
        cluster = cluster_view.cluster
        self.retained = RetainedStore(
            self.catalogue,
            self.metadata,
            RetainedLimits(mqtt.retained_messages_max, mqtt.retained_bytes_max),
            self._runtime,
            now_ms=self._time.now_ms if cluster is None else cluster.common_time.wall_ms,
            is_leader=lambda: cluster is None or cluster.metadata.leads,
        )

    def share(self, services: Services) -> None:
        """Use these services when the node itself deletes something."""
        self._services = services

    async def enter(self, addresses: dict[str, tuple[str, int]]) -> None:
        """Know all that others know, and finish what an earlier process had begun.

        StartFailed, StorageError, DefinitionsError.
        """
        services, cluster_view = self._services, self.cluster_view
        cluster_view.share(services.alarms, services.access.usage, services.replies)
        await cluster_view.enter(addresses)
        self.converter.open(cluster_view.boot, self.metadata, self.catalogue.vhosts.values())
        await self._fill()

    def open(self) -> None:
        """Clients may come: policies that have changed are gone by before that."""
        self._renewal.open()

    async def _fill(self) -> None:
        """Make what there is at a start, and log what is not as it was asked for."""
        catalogue, config, metadata = self.catalogue, self._config, self.metadata
        for decide in unfinished(catalogue):
            metadata.ensure(decide)
        log_skipped(await load_definitions(catalogue, config, metadata))
        await completion_of(partial(metadata.ensure, partial(first_start, catalogue, config)))
        for home, exchange in own_exchanges(config, catalogue.vhosts):
            await completion_of(
                partial(metadata.ensure, partial(have_own, home.topology, exchange))
            )
        made = catalogue.kept.first_start
        if made and (commands := ignored_after_first_start(catalogue, config, made)):
            event(logger, logging.WARNING, "ignored_after_first_start", instead=commands)
        for vhost in catalogue.vhosts.values():
            for queue in vhost.queues.values():
                self._warnings.new_queue(queue.spec, vhost.name)


def log_skipped(reasons: list[str]) -> None:
    """Log what of the definitions is not as it was asked for."""
    for reason in reasons:
        event(logger, logging.WARNING, "definition_skipped", reason=reason)
