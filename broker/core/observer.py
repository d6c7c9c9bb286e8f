"""Observers of what clients do on a node, and of what becomes of the messages of each channel.

They are composed in at the start.  Without any, nothing is called but where connections, channels
and consumers come and go, and a batch of messages meets one `is not None`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fluffle.broker.core.settlement import SettlementObserver
from fluffle.broker.metadata.metadata import Metadata
from fluffle.protocol.wire import FieldTable

if TYPE_CHECKING:
    from fluffle.broker.base.errors import BrokerError
    from fluffle.broker.core.client import Client, ObservedChannel, ObservedSession
    from fluffle.broker.core.route_lookup import RoutedBatch
    from fluffle.broker.core.settlement import Stretch
    from fluffle.broker.queues.queue_api import Consumer, DeliveryBatch, Outcome, QueueHandle


class ChangedBy(NamedTuple):
    """User and connection that change definitions."""

    actor: str
    """Name of the user, or a fixed name for a command of the machine."""
    settler: str
    """Name of the author of changes that follow from this one."""
    connection: str = ""
    """Name of the connection, for a client's."""


class ChannelObserver(SettlementObserver, Protocol):
    """Observer of the messages of one channel."""

    def enqueued(self, routed: RoutedBatch) -> None:
        """Messages have been put into their queues, or returned, or dropped."""

    def delivered(self, delivery_batch: DeliveryBatch) -> None:
        """Messages of a queue have been sent to a consumer of the channel."""

    def got(self, queue: QueueHandle, delivery_batch: DeliveryBatch | None) -> None:
        """The client has been answered what it asked of a queue: a message, or that it is empty."""


class Observer(Protocol):
    """Observer of the clients of a node, called at the moment at which something is so."""

    def metadata(self, inner: Metadata, by: ChangedBy) -> Metadata:
        """Definitions whose changes are seen."""

    def logged_in(self, connection: Client, mechanism: str, name: str) -> None: ...

    def refused(self, connection: Client, mechanism: str, name: str, reason: str) -> None: ...

    def opened(self, connection: Client, session: ObservedSession) -> None:
        """A virtual host, by a client."""

    def closed(self, session: ObservedSession) -> None: ...

    def channel_opened(self, channel: ObservedChannel) -> ChannelObserver | None:
        """A channel is there; what is to see its messages, if anything is."""

    def channel_refused(self, channel: ObservedChannel, error: BrokerError) -> None:
        """Note that a channel is about to be closed because of an error."""

    def channel_closed(self, channel: ObservedChannel, consumer_count: int) -> None: ...

    def consumer_started(
        self, channel: ObservedChannel, consumer: Consumer, arguments: FieldTable
    ) -> None: ...

    def consumer_ended(self, channel: ObservedChannel, consumer: Consumer) -> None: ...


class ChannelObservers:
    """Several observers of one channel, used as one."""

    __slots__ = ("_observers",)

    def __init__(self, observers: Sequence[ChannelObserver]) -> None:
        self._observers = observers

    def enqueued(self, routed: RoutedBatch) -> None:
        for each in self._observers:
            each.enqueued(routed)

    def delivered(self, delivery_batch: DeliveryBatch) -> None:
        for each in self._observers:
            each.delivered(delivery_batch)

    def got(self, queue: QueueHandle, delivery_batch: DeliveryBatch | None) -> None:
        for each in self._observers:
            each.got(queue, delivery_batch)

    def settled(self, stretches: list[Stretch], outcome: Outcome) -> None:
        for each in self._observers:
            each.settled(stretches, outcome)


def joined(observers: Sequence[ChannelObserver | None]) -> ChannelObserver | None:
    """Make one observer of those of one channel that there are; None if there is none."""
    found = [each for each in observers if each is not None]
    return ChannelObservers(found) if len(found) > 1 else found[0] if found else None
