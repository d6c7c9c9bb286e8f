"""Shared queues of MQTT: each is given to all who subscribe to `$share/NAME/FILTER`.

    $share/g/a/# --> queue mqtt-shared-g-… --> one consumer a member, at whichever node it is
                     one binding a member: it ends with the session, or with the connection

A queue goes with its last binding.  Source: S5 4.8.2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from fluffle.broker.base.queue_names import shared_queue
from fluffle.broker.core.consumer import SubscriptionChannel, forget_consumer, stop_consumer
from fluffle.broker.core.observer import ChangedBy
from fluffle.broker.event_publisher import INTERNAL
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.vhosts import queue_changes

if TYPE_CHECKING:
    from fluffle.broker.config.config import MqttConfig
    from fluffle.broker.core.services import Services
    from fluffle.broker.protocols.mqtt.outgoing_publishes import PublishWriter
    from fluffle.broker.protocols.mqtt.session_state import (
        SessionKey,
        SessionState,
        TopicSubscription,
    )
    from fluffle.broker.queues.journal import Owner
    from fluffle.broker.routing.bindings import Binding
    from fluffle.broker.routing.topic_filter import FilterBinding
    from fluffle.broker.runtime.turn import Turn
    from fluffle.broker.vhosts.vhost import VirtualHost

LASTS = ""
"""Connection of subscriptions of shared queues that end with none."""


def connection_mark(owner: Owner) -> str:
    """Return what a binding says of the connection with which it ends."""
    return f"{owner.node} {owner.boot} {owner.number}"


def node_of(mark: str) -> str:
    """Return the node of a connection."""
    return mark.rpartition(" ")[0].rpartition(" ")[0]


def memberships(
    vhost: VirtualHost, exchange: str, member: str, connection: str | None = None
) -> dict[Binding, FilterBinding]:
    """Find the bindings by which a client shares queues of groups, and no others; with `connection`
    those that end with it."""
    found = queue_changes.memberships(vhost, exchange, member, connection)
    if not found:
        return found
    return {
        binding: each
        for binding, each in found.items()
        if binding.destination == shared_queue(each.group, each.topic_filter)
    }


def leave_groups(services: Services, exchange: str, key: SessionKey, connection: str) -> None:
    """Have a client share no queue any more by subscriptions that end with a connection."""
    vhost_name, client_id = key

    def decide() -> Change:
        vhost = services.vhosts.get(vhost_name)
        if vhost is None:
            return NOTHING
        leaving = memberships(vhost, exchange, client_id, connection)
        return queue_changes.leave_groups(vhost, leaving)

    services.metadata_of(ChangedBy(INTERNAL, INTERNAL)).ensure(decide)


def end_memberships(services: Services, exchange: str) -> None:
    """Have connections that this node had before it ended share no queue any more."""
    for vhost in tuple(services.vhosts.values()):
        found = vhost.topology.find(exchange)
        marks = {
            (member, each.connection)
            for member in (() if found is None else found.members)
            for each in memberships(vhost, exchange, member).values()
        }
        for member, mark in marks:
            if node_of(mark) == services.owners.node:
                leave_groups(services, exchange, (vhost.name, member), mark)


class SharingServer(Protocol):
    """Server of a node whose clients share queues."""

    config: MqttConfig
    services: Services
    shared_subscriptions: int
    """How many of connected clients are shared."""


class SubscribingConnection(Protocol):
    """Connection of a client that subscribes."""

    def subscribe_again(self, subscription: TopicSubscription) -> None:
        """Make a subscription anew whose queue has been deleted; if that cannot be, end it."""


class SharingChannel(SubscriptionChannel, Protocol):
    """Channel of a client that shares queues."""

    is_open: bool
    prefetch: int
    state: SessionState
    turn: Turn
    writers: dict[str, PublishWriter]
    """Writers of its consumers, by their tags."""

    def give_up(self, error: Exception) -> None:
        """Close the connection for an error of the broker's own that concerns it alone."""

    def consume(self, qos: int) -> None:
        """Have the client given what is in a queue of its session, if that is there."""

    def consume_from(
        self, queue_name: str, tag: str, queue_qos: int, *, full_filter: str = ""
    ) -> None:
        """Consume from a queue, if it is there, of a subscription that is shared."""


class SharedQueues:
    """Shared queues that one client is given over one connection."""

    __slots__ = ("_channel", "_connection", "_server")

    def __init__(
        self, channel: SharingChannel, server: SharingServer, connection: SubscribingConnection
    ) -> None:
        self._channel = channel
        self._server = server
        self._connection = connection

    @property
    def mark(self) -> str:
        """The connection with which a new subscription ends; empty if it lasts."""
        channel = self._channel
        return LASTS if channel.state.is_lasting else connection_mark(channel.session.owner)

    def resume(self) -> None:
        """Have the client given what comes for its session: what is its own, and what it shares."""
        for qos in (0, 1):
            self._channel.consume(qos)
        for subscription in self._channel.state.shared:
            if subscription.queue("") in self._channel.session.vhost.queues:
                self.consume(subscription)
            else:
                self._connection.subscribe_again(subscription)

    def consume(self, subscription: TopicSubscription) -> None:
        """Have the client given what comes for a subscription that is shared."""
        channel = self._channel
        channel.shared_credit.limit = channel.prefetch
        name = subscription.queue(channel.state.client_id)
        if name in channel.writers:
            return
        channel.consume_from(name, name, 1, full_filter=subscription.full_filter)
        self._server.shared_subscriptions += name in channel.writers

    def stop(self, subscription: TopicSubscription, done: Callable[[], None]) -> None:
        """Have the client given nothing more of a queue; what it has been sent it may still
        acknowledge.  `done` is called once nothing more is on its way."""
        name = subscription.queue(self._channel.state.client_id)
        stopped = partial(self._stopped, name, done)
        left = stop_consumer(self._channel, name)
        if left is None:
            stopped()
        else:
            left.then(stopped, stopped)

    def _stopped(self, tag: str, done: Callable[[], None], _answer: object = None) -> None:
        forget_consumer(self._channel, tag)
        if self._channel.writers.pop(tag, None) is not None:
            self._server.shared_subscriptions -= 1
        done()

    def lost(self, tag: str) -> None:
        """A queue has been deleted, and with it all subscriptions to it: have it there anew."""
        channel = self._channel
        if channel.writers.pop(tag, None) is not None:
            self._server.shared_subscriptions -= 1
        for subscription in channel.state.shared:
            if subscription.queue("") == tag:
                act = partial(self._subscribe_again, subscription)
                channel.turn.act_later(act, channel.give_up)

    def _subscribe_again(self, subscription: TopicSubscription) -> None:
        channel = self._channel
        if channel.is_open and subscription.full_filter in channel.state.subscriptions:
            self._connection.subscribe_again(subscription)

    def leave(self) -> None:
        """Have no part in queues that are shared for as long as this connection."""
        channel, server = self._channel, self._server
        mark = connection_mark(channel.session.owner)
        leave_groups(server.services, server.config.exchange, channel.state.key, mark)

    def end(self) -> None:
        """The connection ends, and its consumers have."""
        names = {each.queue("") for each in self._channel.state.shared}
        for name in names & self._channel.writers.keys():
            del self._channel.writers[name]
            self._server.shared_subscriptions -= 1
        if names:
            self.leave()
