"""Observers that keep what they see, and an `Observer` of a node that does nothing else."""

from __future__ import annotations

from fluffle.broker.base.errors import BrokerError
from fluffle.broker.core.client import Client, ObservedChannel, ObservedSession
from fluffle.broker.core.observer import ChangedBy, ChannelObserver
from fluffle.broker.core.route_lookup import RoutedBatch
from fluffle.broker.core.settlement import Stretch
from fluffle.broker.metadata.metadata import Metadata
from fluffle.broker.queues.queue_api import Consumer, DeliveryBatch, Outcome, QueueHandle
from fluffle.protocol.wire import FieldTable


class ChannelRecorder:
    """Keeps what it sees of a channel, in order: a `ChannelObserver`."""

    def __init__(self, seen: list[tuple[str, object]] | None = None) -> None:
        """`seen`: where it is kept; several may share it."""
        self.seen: list[tuple[str, object]] = [] if seen is None else seen

    def enqueued(self, routed: RoutedBatch) -> None:
        self.seen.append(("enqueued", len(routed.contents)))

    def delivered(self, delivery_batch: DeliveryBatch) -> None:
        self.seen.append(("delivered", len(delivery_batch.contents)))

    def got(self, queue: QueueHandle, delivery_batch: DeliveryBatch | None) -> None:
        self.seen.append(("got", queue.name if delivery_batch is not None else None))

    def settled(self, stretches: list[Stretch], outcome: Outcome) -> None:
        count = sum(stop - start for _batch, start, stop in stretches)
        self.seen.append((outcome.name, count))


class NodeRecorder:
    """An `Observer` whose channels are seen by what it is given; of the rest it keeps nothing."""

    def __init__(self, channel_observer: ChannelObserver | None) -> None:
        self._channel_observer = channel_observer

    def metadata(self, inner: Metadata, by: ChangedBy) -> Metadata:
        del by
        return inner

    def logged_in(self, connection: Client, mechanism: str, name: str) -> None:
        """Nothing is kept of it."""

    def refused(self, connection: Client, mechanism: str, name: str, reason: str) -> None:
        """Nothing is kept of it."""

    def opened(self, connection: Client, session: ObservedSession) -> None:
        """Nothing is kept of it."""

    def closed(self, session: ObservedSession) -> None:
        """Nothing is kept of it."""

    def channel_opened(self, channel: ObservedChannel) -> ChannelObserver | None:
        del channel
        return self._channel_observer

    def channel_refused(self, channel: ObservedChannel, error: BrokerError) -> None:
        """Nothing is kept of it."""

    def channel_closed(self, channel: ObservedChannel, consumer_count: int) -> None:
        """Nothing is kept of it."""

    def consumer_started(
        self, channel: ObservedChannel, consumer: Consumer, arguments: FieldTable
    ) -> None:
        """Nothing is kept of it."""

    def consumer_ended(self, channel: ObservedChannel, consumer: Consumer) -> None:
        """Nothing is kept of it."""


class FailingObserver(NodeRecorder):
    """An observer that fails at one of the steps of a channel, and notes those that it hears of."""

    def __init__(self, fails_at: str) -> None:
        super().__init__(None)
        self._fails_at = fails_at
        self.steps: list[str] = []

    def _note(self, step: str) -> None:
        self.steps.append(step)
        if step == self._fails_at:
            raise RuntimeError(step)

    def opened(self, connection: Client, session: ObservedSession) -> None:
        self._note("opened")

    def channel_opened(self, channel: ObservedChannel) -> None:
        self._note("channel opened")

    def channel_closed(self, channel: ObservedChannel, consumer_count: int) -> None:
        self._note("channel closed")

    def closed(self, session: ObservedSession) -> None:
        self._note("closed")
