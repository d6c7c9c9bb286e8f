"""Session of a client: one user in one virtual host, whatever the protocol."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from fluffle.broker.access.access import Rights
from fluffle.broker.access.users import User
from fluffle.broker.base.traffic import Deliveries
from fluffle.broker.core.direct_reply_to import ReplyInbox
from fluffle.broker.core.observer import ChangedBy
from fluffle.broker.core.property_facts import PropertyFacts
from fluffle.broker.core.route_lookup import RouteCache
from fluffle.broker.core.services import Services
from fluffle.broker.events.event_publisher import INTERNAL
from fluffle.broker.metadata.metadata import OnLateError, ignore_done
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.queue_api import Consumer
from fluffle.broker.vhosts.queue_changes import (
    compare,
    compare_relaxed,
    delete_owned,
    delete_unused,
)
from fluffle.broker.vhosts.vhost import VirtualHost

if TYPE_CHECKING:
    from fluffle.broker.core.client import Client
    from fluffle.broker.queues.queue_api import QueueHandle

REMEMBERED_WHEN_SHORT_MAX = 16
"""When memory is short, who remembers more of a kind forgets all of it.  So many are no more than
what a connection costs anyhow, and to find those of everybody again would take too long."""


class ConfirmReporter(Protocol):
    """Part of a publisher that says which of its messages are confirmed."""

    def report(self) -> None:
        """Say what is known by now."""


class Session:
    """Session of a client that has logged in and opened a virtual host."""

    __slots__ = (
        "access",
        "background_tasks",
        "client",
        "commits",
        "compare",
        "confirming",
        "facts",
        "has_put",
        "inbox",
        "interceptors",
        "limits",
        "metadata",
        "name",
        "nodes",
        "observers",
        "owner",
        "quorum_global_qos",
        "random_name",
        "read_barrier",
        "replies",
        "rights",
        "route_cache",
        "traffic",
        "uncommitted_bytes",
        "user",
        "vhost",
        "vhosts",
    )

    def __init__(
        self,
        *,
        user: User,
        vhost: VirtualHost,
        services: Services,
        client: Client,
    ) -> None:
        self.client = client
        self.name = name = client.name
        self.owner = services.owners.of(name)
        """Of the queues that only this connection may use."""
        self.user = user
        """As he is now: see `admission.ask_again`."""
        self.metadata = services.metadata_of(ChangedBy(user.name, INTERNAL, name))
        self.nodes, self.observers = services.nodes, services.observers
        runtime, self.interceptors = services.runtime, services.interceptors
        self.access, self.commits, self.limits = services.access, runtime.commits, services.limits
        self.vhost, self.vhosts, self.read_barrier = vhost, services.vhosts, services.read_barrier
        self.rights = Rights(services.access, user, vhost.name)
        self.background_tasks, self.traffic = runtime.background_tasks, runtime.traffic
        self.replies, self.inbox = services.replies, ReplyInbox()
        """What the requesters of this connection are answered through."""
        self.random_name = services.random_name
        """A random, URL-safe name of 22 letters."""
        self.quorum_global_qos = services.quorum.global_qos
        """Whether consumers of quorum queues share the prefetch of their channel."""
        self.compare = compare_relaxed if services.quorum.relaxed_redeclare else compare
        """Whether a queue is as it is declared again."""
        self.route_cache = RouteCache(vhost, self.rights, services.replies)
        self.facts: dict[bytes, PropertyFacts] = {}
        """What the broker must know of properties, by their raw bytes."""
        self.uncommitted_bytes = 0
        """Of messages in transactions."""
        self.confirming: dict[ConfirmReporter, None] = {}
        """Publishers with messages to confirm at the end of this batch."""
        self.has_put = False
        """Whether queues may not have dealt out yet what it has put into them."""

    def detach(self, consumer: Consumer) -> None:
        """Stop a consumer, and delete its queue if that was the last and it wants that."""
        self.vhost.detach(consumer)
        if consumer.queue.spec.auto_delete:
            self.metadata.settle(partial(delete_unused, self.vhost, consumer.queue))

    def drop_owned(
        self, done: Callable[[], None] = ignore_done, late: OnLateError | None = None
    ) -> None:
        """Delete the queues that only this connection could use, and call `done` then."""
        self.metadata.settle(partial(delete_owned, self.vhost, self.owner), done, late)

    def deliveries_from(self, queue: QueueHandle) -> Deliveries:
        """Where what its clients get from a queue is counted."""
        is_quorum = queue.spec.queue_type is QueueType.QUORUM
        return self.traffic.from_quorum_queues if is_quorum else self.traffic.from_queues

    def confirm(self) -> None:
        """Answer the publishes of this batch, one publisher at a time."""
        for reporter in self.confirming:
            reporter.report()
        self.confirming.clear()

    def remember_less(self) -> None:
        """Memory is short: forget what can be found out again, where that is much."""
        for remembered in (self.route_cache.by_key, self.facts):
            if len(remembered) > REMEMBERED_WHEN_SHORT_MAX:
                remembered.clear()
        self.rights.forget_beyond(REMEMBERED_WHEN_SHORT_MAX)

    def forget(self) -> None:
        """The connection has ended: keep nothing alive, for the collector may come much later."""
        self.route_cache.clear()
        self.facts.clear()
