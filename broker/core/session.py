"""Session of a client: one user in one virtual host, whatever the protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from fluffle.broker.access.access import Rights, User
from fluffle.broker.base.callbacks import call_listener
from fluffle.broker.base.traffic import Deliveries
from fluffle.broker.core.direct_reply_to import ReplyInbox
from fluffle.broker.core.observer import ChangedBy, ChannelObserver, Observer, joined
from fluffle.broker.core.property_facts import PropertyFacts
from fluffle.broker.core.route_lookup import RouteCache
from fluffle.broker.core.services import Services
from fluffle.broker.event_publisher import INTERNAL
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
    from fluffle.broker.core.client import Client, ObservedChannel
    from fluffle.broker.queues.queue_api import QueueHandle

REMEMBERED_WHEN_SHORT_MAX = 16
"""When memory is short, a session that remembers more of a kind forgets all of it.  So many are no
more than what a connection costs anyhow, and to find those of all again would take too long."""


class ConfirmReporter(Protocol):
    """Part of a publisher that says which of its messages are confirmed."""

    def report(self) -> None:
        """Say what is known by now."""


class Session:
    """Session of a client that has logged in and opened a virtual host, until `end`."""

    __slots__ = (
        "_is_open",
        "_node_traffic",
        "_on_access",
        "_owners",
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
        "retained",
        "rights",
        "route_cache",
        "traffic",
        "uncommitted_bytes",
        "user",
        "vhost",
        "vhosts",
        "wants_confirms",
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
        self._owners = services.owners
        self.owner = services.owners.of(name)
        """Owner of the queues that only this connection may use."""
        self._on_access: Callable[[], None] = ignore_done
        self._is_open = False
        """True if it is counted and observed."""
        self.user = user
        """User in its present form: see `login.ask_again`."""
        self.metadata = services.metadata_of(ChangedBy(user.name, INTERNAL, name))
        self.nodes, self.observers = services.nodes, services.observers
        runtime, self.interceptors = services.runtime, services.interceptors
        self.access, self.commits, self.limits = services.access, runtime.commits, services.limits
        self.vhost, self.vhosts, self.read_barrier = vhost, services.vhosts, services.read_barrier
        self.rights = Rights(services.access, user, vhost.name)
        self.background_tasks, self._node_traffic = runtime.background_tasks, runtime.traffic
        self.traffic = runtime.traffic.of(client.traffic_labels)
        self.replies, self.inbox = services.replies, ReplyInbox()
        """Replies and inbox of direct reply-to for the requesters of this connection."""
        self.retained = services.retained
        self.random_name = services.random_name
        """A random, URL-safe name of 22 letters."""
        self.quorum_global_qos = services.quorum.global_qos
        """True if consumers of quorum queues share the prefetch of their channel."""
        self.compare = compare_relaxed if services.quorum.relaxed_redeclare else compare
        """Comparison of a queue with its redeclaration."""
        self.route_cache = RouteCache(vhost, self.rights, services.replies)
        self.facts: dict[bytes, PropertyFacts] = {}
        """Facts about properties, by their raw bytes."""
        self.uncommitted_bytes = 0
        """Bytes of messages in transactions."""
        self.confirming: dict[ConfirmReporter, None] = {}
        """Publishers with messages to confirm at the end of this batch."""
        self.wants_confirms = False
        """True if it has published messages that are each answered."""
        self.has_put = False
        """True if queues may not have dealt out yet what it has put into them."""

    # Its beginning and its end

    def listen(self, on_access: Callable[[], None]) -> None:
        """Have `on_access` called, until the end, when the user, his permissions or the virtual
        host have changed."""
        self._on_access = on_access
        self.access.listen(self.user.name, on_access)

    def open(self) -> None:
        """Count a connection, and show it to observers.  What one of them raises; then it is not
        open, and has to be ended as one that never was."""
        self._is_open = True
        self._node_traffic.connections_opened += 1
        self.access.usage.opened(self.user.name, self.vhost.name)
        opened: list[Observer] = []
        try:
            for observer in self.observers:
                observer.opened(self.client, self)
                opened.append(observer)
        except BaseException:
            self._count_closed()
            for observer in opened:
                call_listener(partial(observer.closed, self))
            raise

    def _count_closed(self) -> None:
        self._is_open = False
        self._node_traffic.connections_closed += 1
        self.access.usage.closed(self.user.name, self.vhost.name)

    def end(self, done: Callable[[], None] = ignore_done, late: OnLateError | None = None) -> None:
        """Undo `listen` and `open`, and delete the queues that only this client could use: `done`
        is called once they are gone, `late` if that takes too long.

        An observer that fails keeps nothing from the others.
        """
        was_open = self._is_open
        if was_open:
            self._count_closed()
        self.access.unlisten(self.user.name, self._on_access)
        self._on_access = ignore_done
        self._forget()
        self._owners.end(self.owner)
        self.metadata.ensure(partial(delete_owned, self.vhost, self.owner), done, late)
        if was_open:
            for observer in self.observers:
                call_listener(partial(observer.closed, self))

    def _forget(self) -> None:
        """Keep nothing alive, for the collector may come much later."""
        self.route_cache.clear()
        self.facts.clear()

    def open_channel(self, channel: ObservedChannel) -> ChannelObserver | None:
        """Count a channel, unless the protocol has none, and show it to observers; what sees its
        messages, if anything does.

        What one of them raises; then it is not open.
        """
        if channel.number:
            self.access.usage.channel_opened(self.user.name)
            self._node_traffic.channels_opened += 1
        found: list[ChannelObserver | None] = []
        try:
            for observer in self.observers:
                found.append(observer.channel_opened(channel))  # noqa: PERF401 - it may raise
        except BaseException:
            self._end_channel(channel, 0, self.observers[: len(found)])
            raise
        return joined(found) if found else None

    def end_channel(self, channel: ObservedChannel, consumer_count: int) -> None:
        """Undo `open_channel` for a channel that had so many consumers.

        An observer that fails keeps nothing from the others.
        """
        self._end_channel(channel, consumer_count, self.observers)

    def _end_channel(
        self, channel: ObservedChannel, consumer_count: int, observers: Sequence[Observer]
    ) -> None:
        if channel.number:
            self.access.usage.channel_closed(self.user.name)
            self._node_traffic.channels_closed += 1
        for observer in observers:
            call_listener(partial(observer.channel_closed, channel, consumer_count))

    # While it lasts

    def detach(self, consumer: Consumer) -> None:
        """Stop a consumer, and delete its queue if that was the last and it wants that."""
        self.vhost.detach(consumer)
        if consumer.queue.spec.auto_delete:
            self.metadata.ensure(partial(delete_unused, self.vhost, consumer.queue))

    def deliveries_from(self, queue: QueueHandle) -> Deliveries:
        """Where what its clients get from a queue is counted."""
        if queue.spec.queue_type is QueueType.MQTT_QOS0:
            return self.traffic.from_qos0_queues
        is_quorum = queue.spec.queue_type is QueueType.QUORUM
        return self.traffic.from_quorum_queues if is_quorum else self.traffic.from_queues

    def confirm(self) -> None:
        """Answer the publishes of this batch, one publisher at a time."""
        while self.confirming:  # one may be ended, or another be added, by what is reported
            confirming, self.confirming = self.confirming, {}
            for reporter in confirming:
                reporter.report()

    def remember_less(self) -> None:
        """Memory is short: forget what can be found out again, where that is much."""
        for remembered in (self.route_cache.by_key, self.facts):
            if len(remembered) > REMEMBERED_WHEN_SHORT_MAX:
                remembered.clear()
        self.rights.forget_beyond(REMEMBERED_WHEN_SHORT_MAX)
