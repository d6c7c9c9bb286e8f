"""Observer of connections and channels that has what they do counted.

The methods of `ChannelStatistics` are all that a message meets: they count a run in one or two
steps.  What it means is found out later (`counters`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING

from fluffle.broker.base.message import Origin
from fluffle.broker.core.direct_reply_to import ReplyTarget
from fluffle.broker.core.observer import ChangedBy
from fluffle.broker.metadata.metadata import Metadata
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.statistics.counters import (
    ACK,
    CONFIRM,
    DELIVER,
    DELIVER_GET,
    DELIVER_NO_ACK,
    DELIVERED,
    DROP,
    GET,
    GET_EMPTY,
    GET_NO_ACK,
    OF_BYTES,
    OF_CHANNEL,
    OF_DELIVERIES,
    OF_PUBLISHES,
    PUBLISH,
    PUBLISHED,
    REDELIVER,
    RETURN,
    NodeCounters,
    ObjectCounts,
    VhostCounters,
)
from fluffle.protocol.properties import body_size
from fluffle.protocol.wire import FieldTable

if TYPE_CHECKING:
    from fluffle.broker.base.errors import BrokerError
    from fluffle.broker.core.client import Client, ObservedChannel, ObservedSession
    from fluffle.broker.core.confirms import Confirms
    from fluffle.broker.core.route_lookup import RoutedBatch
    from fluffle.broker.core.settlement import Stretch
    from fluffle.broker.queues.publish_target import PublishTarget
    from fluffle.broker.queues.queue_api import Consumer, DeliveryBatch, QueueHandle
    from fluffle.broker.routing.exchange import Exchange
    from fluffle.broker.routing.topology import Topology
    from fluffle.storage.histogram import Histogram


DELIVERED_AT = len(PUBLISHED)
"""Where these begin in the counts of a channel, a virtual host and a node."""

OF_QUEUE_DELIVERED_AT = 1

ACKED, LOST = Outcome.ACKED, Outcome.LOST

exchange_of = attrgetter("exchange")

ORIGINS_MAX = 1_024
"""Most origins of one channel that are entered together."""


class PublishCounts:
    """Counts of what one channel published to one exchange."""

    __slots__ = ("counts", "exchange")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.counts = ObjectCounts(OF_PUBLISHES)


@dataclass(slots=True, eq=False)
class DeliveryCounts:
    """Counts of what one channel got from one queue."""

    _counters: NodeCounters
    _vhost_counters: VhostCounters
    _channel: ObjectCounts
    """Counts of the channel."""
    _queue: QueueHandle
    counts: ObjectCounts = field(default_factory=lambda: ObjectCounts(OF_DELIVERIES))
    counted: list[int] = field(default_factory=lambda: [0] * len(DELIVERED))
    """Values that are yet to be entered."""
    is_touched: bool = False
    """True if there may be something there."""

    def touch(self) -> None:
        """Mark these counts as changed."""
        self.is_touched = True
        self._counters.touch(self)

    def enter(self) -> None:
        self.is_touched = False
        counted, self.counted = self.counted, [0] * len(DELIVERED)
        counted[DELIVER_GET] = sum(counted[at] for at in (DELIVER, DELIVER_NO_ACK, GET, GET_NO_ACK))
        counters, vhost_counters = self._counters, self._vhost_counters
        counters.enter(DELIVERED_AT, counted, (self._channel, vhost_counters.counts, counters.node))
        counters.enter(0, counted, (self.counts,))
        of_queue = vhost_counters.of_queue(self._queue)
        if of_queue is not None:
            counters.enter(OF_QUEUE_DELIVERED_AT, counted, (of_queue,))


@dataclass(slots=True, eq=False)
class OriginCounts:
    """Messages of one origin that went the same way and are yet to be entered."""

    origin: Origin
    targets: tuple[PublishTarget, ...] | None
    """None where they went nowhere."""
    _: KW_ONLY
    mandatory: bool
    count: int = 0


NO_ORIGIN = OriginCounts(Origin("", ""), None, mandatory=False)
"""Placeholder before the first origin."""


@dataclass(slots=True, eq=False)
class ChannelStatistics:
    """Counts of one channel: a `ChannelObserver`."""

    _counters: NodeCounters
    _channel: ObservedChannel | None
    """None once it has ended."""
    vhost_counters: VhostCounters = field(init=False)
    _topology: Topology = field(init=False)
    _epoch: int = field(init=False)
    """Epoch of the topology when the exchanges in `published` were those of their names."""
    _sizes: Histogram = field(init=False)
    _confirms: Confirms | None = field(default=None, init=False)
    """Confirms of the channel when it ended."""
    _confirmed: int = field(default=0, init=False)
    """How many of them are entered."""
    _published_to: set[QueueHandle] = field(default_factory=set, init=False)
    """The quorum queues that it counts as a publisher of."""
    _unconfirmed: dict[str, int] = field(default_factory=dict, init=False)
    """Publishes that are not known to be confirmed, by exchange."""
    _acked_queue: QueueHandle | None = field(default=None, init=False)
    _acked: int = field(default=0, init=False)
    """How many messages of it were acknowledged and are yet to be counted."""
    _latest: OriginCounts = field(default=NO_ORIGIN, init=False)
    """The one of the last messages."""
    _by_origin: dict[Origin, OriginCounts] = field(default_factory=dict, init=False)
    """Messages that are yet to be entered; several origins of an exchange may share one."""
    _full: list[OriginCounts] = field(default_factory=list, init=False)
    """Full counts of other origins, which are yet to be entered."""
    counts: ObjectCounts = field(default_factory=lambda: ObjectCounts(OF_CHANNEL))
    published: dict[str, PublishCounts] = field(default_factory=dict)
    """Counts by exchange."""
    taken: dict[QueueHandle, DeliveryCounts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self._channel is not None
        session = self._channel.session
        self.vhost_counters = self._counters.of(session.vhost)
        self._topology = session.vhost.topology
        self._epoch = self._topology.epoch
        self._sizes = session.traffic.sizes

    # A `ChannelObserver`

    def enqueued(self, routed: RoutedBatch) -> None:
        first, body_bytes = routed.contents[0], routed.content_bytes
        origins, cell = routed.origins, self._latest
        origin, count = origins[0], len(origins)
        if cell.origin is not origin or cell.targets is not routed.targets:
            cell = self._latest = self._counts_of(origin, routed)
        if count == 1 or origins.count(origin) == count:
            cell.count += count
        else:
            self._count_mixed(cell, routed)
        body_bytes -= count * (len(first) - body_size(first))
        self._sizes.add(max(body_bytes, 0), count)

    def delivered(self, delivery_batch: DeliveryBatch) -> None:
        holder, count = delivery_batch.holder, len(delivery_batch.contents)
        taken = self.taken.get(holder.queue)
        if taken is not None and taken.is_touched:
            counted = taken.counted
        else:
            counted = self.counted_of(holder.queue)
        counted[DELIVER_NO_ACK if holder.no_ack else DELIVER] += count
        if delivery_batch.redelivered:
            counted[REDELIVER] += count

    def settled(self, stretches: list[Stretch], outcome: Outcome) -> None:
        if outcome is ACKED:
            for delivery_batch, start, stop in stretches:
                queue = delivery_batch.holder.queue
                if queue is not self._acked_queue:
                    self._turn_to(queue)
                self._acked += stop - start
        elif outcome is LOST and self._channel is not None:
            self._confirms = self._channel.confirms  # it ends, and will not have them any more

    def got(self, queue: QueueHandle, delivery_batch: DeliveryBatch | None) -> None:
        counted = self.counted_of(queue)
        if delivery_batch is None:
            counted[GET_EMPTY] += 1
            return
        counted[GET_NO_ACK if delivery_batch.holder.no_ack else GET] += 1
        counted[REDELIVER] += delivery_batch.redelivered

    def counted_of(self, queue: QueueHandle) -> list[int]:
        """Where what is got from it is counted: `DELIVERED`, until it is entered."""
        taken = self.taken.get(queue)
        if taken is None:
            taken = self.taken[queue] = DeliveryCounts(
                self._counters, self.vhost_counters, self.counts, queue
            )
        if not taken.is_touched:
            taken.touch()
        return taken.counted

    # What is rare

    def _turn_to(self, queue: QueueHandle | None) -> None:
        """From now on acknowledgements are of another queue, or of none that is known."""
        if self._acked_queue is not None:
            self.counted_of(self._acked_queue)[ACK] += self._acked
        elif not self._by_origin:
            self._counters.touch(self)
        self._acked_queue, self._acked = queue, 0

    def _counts_of(self, origin: Origin, routed: RoutedBatch) -> OriginCounts:
        """Where messages that are like the first of these are counted.  While what exchanges lead
        to is what it was, the same targets are the same object, unless they are none."""
        if self._topology.epoch != self._epoch:
            self._leave_behind()
        cell = self._by_origin.get(origin)
        if cell is None or cell.targets != (routed.targets or None):
            return self._begin(origin, routed)
        return cell if cell.mandatory is routed.mandatory else self._begin(origin, routed)

    def _begin(self, origin: Origin, routed: RoutedBatch) -> OriginCounts:
        if len(self._by_origin) + len(self._full) >= ORIGINS_MAX:
            self._enter_publishes()
        elif not self._by_origin and self._acked_queue is None:
            self._counters.touch(self)
        if origin in self._by_origin:
            self._full.append(self._by_origin[origin])
        exchange = origin.exchange
        found = self._topology.find(exchange)
        if exchange not in self.published and found is not None:
            self.published[exchange] = PublishCounts(found)
        targets = routed.targets or None
        cell = self._by_origin[origin] = OriginCounts(origin, targets, mandatory=routed.mandatory)
        return cell

    def _count_mixed(self, cell: OriginCounts, routed: RoutedBatch) -> None:
        """Messages of several origins, which mostly are those of one exchange."""
        exchanges = Counter(map(exchange_of, routed.origins))
        cell.count += exchanges.pop(cell.origin.exchange)
        for origin in dict.fromkeys(routed.origins) if exchanges else ():
            self._begin(origin, routed).count += exchanges.pop(origin.exchange, 0)

    def _leave_behind(self) -> None:
        """Names may be those of other exchanges from now on."""
        self._enter_publishes()
        self.forget_gone()
        self._epoch = self._topology.epoch

    def forget_gone(self) -> None:
        """Queues and exchanges that are not there any more."""
        vhost_counters = self.vhost_counters
        self.published = {
            name: published
            for name, published in self.published.items()
            if vhost_counters.has(published.exchange)
        }
        vhost = vhost_counters.vhost
        self.taken = {
            queue: taken
            for queue, taken in self.taken.items()
            if taken.is_touched or vhost.has(queue)
        }
        self._published_to = {queue for queue in self._published_to if vhost.has(queue)}

    def end(self) -> None:
        """The channel has ended.  What it has not entered yet it will, and then is forgotten."""
        self._channel = None
        self.vhost_counters.remove_publishers(self._published_to)
        self._published_to.clear()

    # Into the book

    def enter(self) -> None:
        if self._acked_queue is not None:
            self._turn_to(None)
        self._enter_publishes()
        self._enter_confirms()

    def _enter_publishes(self) -> None:
        cells, self._by_origin, self._full = (*self._full, *self._by_origin.values()), {}, []
        self._latest = NO_ORIGIN
        for cell in cells:
            exchange, count = cell.origin.exchange, cell.count
            counted = [0] * len(PUBLISHED)
            counted[PUBLISH] = count
            if not cell.targets:
                counted[RETURN if cell.mandatory else DROP] = count
            self._enter_published(exchange, counted)
            self._unconfirmed[exchange] = self._unconfirmed.get(exchange, 0) + count
            targets = cell.targets or ()
            queues = tuple(each for each in targets if not isinstance(each, ReplyTarget))
            self._enter_routed(exchange, queues, count)

    def _enter_published(self, exchange: str, counted: list[int]) -> None:
        counters, published = self._counters, self.published.get(exchange)
        counters.enter(0, counted, (self.counts, self.vhost_counters.counts, counters.node))
        if published is not None:
            counters.enter(0, counted, (published.counts,))

    def _enter_routed(self, exchange: str, queues: tuple[PublishTarget, ...], count: int) -> None:
        """Messages went through an exchange into queues, if it is still there, and they are."""
        counters, vhost_counters, published = (
            self._counters,
            self.vhost_counters,
            self.published.get(exchange),
        )
        of_exchange = (
            vhost_counters.of_exchange(published.exchange) if published is not None else None
        )
        if of_exchange is not None:
            counters.enter(0, (count, count * len(queues)), (of_exchange,))
        there = [queue for queue in map(vhost_counters.queue_of, queues) if queue is not None]
        counters.enter(0, (count,), map(vhost_counters.counts_of, there))
        if self._channel is not None:
            self._note_publisher(there)

    def _note_publisher(self, queues: Iterable[QueueHandle]) -> None:
        """The channel is open and has published to some queues; RabbitMQ counts those that have, of
        quorum queues."""
        for queue in queues:
            is_quorum = queue.spec.queue_type is QueueType.QUORUM
            if is_quorum and queue not in self._published_to:
                self._published_to.add(queue)
                self.vhost_counters.add_publisher(queue)

    def _enter_confirms(self) -> None:
        """Enter confirms by exchange: which publishes they belong to is unknown, so those of the
        first exchange with open ones count first; the sum is right once all are confirmed."""
        confirms = self._confirms
        if self._channel is not None and confirms is None:
            confirms = self._channel.confirms
        if confirms is None:
            self._unconfirmed.clear()
            return
        new = confirms.accepted_count - self._confirmed
        self._confirmed += new
        for exchange, count in tuple(self._unconfirmed.items()):
            if not new:
                break
            some = min(new, count)
            new -= some
            counted = [0] * len(PUBLISHED)
            counted[CONFIRM] = some
            self._enter_published(exchange, counted)
            self._unconfirmed[exchange] -= some
            if some == count:
                del self._unconfirmed[exchange]
        if self._channel is not None and confirms.open_count:
            self._counters.confirming[self] = None


@dataclass(slots=True, eq=False)
class ConnectionStatistics:
    """Counts of a connection that has opened a virtual host."""

    _counters: NodeCounters
    _connection: Client
    vhost_counters: VhostCounters
    counts: ObjectCounts = field(default_factory=lambda: ObjectCounts(OF_BYTES))
    """Values that are entered."""

    def enter(self) -> None:
        """Add what is new."""
        counted = zip(bytes_of(self._connection), self.counts.values, strict=True)
        new = [now - before for now, before in counted]
        if any(new):
            self._counters.enter(0, new, (self.counts, self.vhost_counters.bytes))


def bytes_of(connection: Client) -> tuple[int, int]:
    """Read and written bytes, as `OF_BYTES`."""
    return connection.read_bytes, connection.written_bytes


class StatisticsObserver:
    """Observer of the clients of one node: an `Observer`."""

    def __init__(self, counters: NodeCounters) -> None:
        self._counters = counters
        self.connections: dict[Client, ConnectionStatistics] = {}
        """Connections that have opened a virtual host."""
        self._connections: dict[ObservedSession, Client] = {}
        self.channels: dict[ObservedChannel, ChannelStatistics] = {}
        """Open channels."""

    def metadata(self, inner: Metadata, by: ChangedBy) -> Metadata:
        """Definitions are counted where they change."""
        del by
        return inner

    def logged_in(self, connection: Client, mechanism: str, name: str) -> None:
        """`Traffic` counts it."""

    def refused(self, connection: Client, mechanism: str, name: str, reason: str) -> None:
        """`Traffic` counts it."""

    def opened(self, connection: Client, session: ObservedSession) -> None:
        self._connections[session] = connection
        vhost_counters = self._counters.of(session.vhost)
        self.connections[connection] = ConnectionStatistics(
            self._counters, connection, vhost_counters
        )

    def closed(self, session: ObservedSession) -> None:
        self.connections.pop(self._connections.pop(session)).enter()

    def connection_of(self, channel: ObservedChannel) -> Client:
        """Connection of an open channel."""
        return self._connections[channel.session]

    def channel_opened(self, channel: ObservedChannel) -> ChannelStatistics:
        statistics = self.channels[channel] = ChannelStatistics(self._counters, channel)
        return statistics

    def channel_refused(self, channel: ObservedChannel, error: BrokerError) -> None:
        """Ignore it: the channel will be closed."""

    def channel_closed(self, channel: ObservedChannel, consumer_count: int) -> None:
        self.channels.pop(channel).end()

    def consumer_started(
        self, channel: ObservedChannel, consumer: Consumer, arguments: FieldTable
    ) -> None:
        """Ignore it: deliveries are counted on the channel."""

    def consumer_ended(self, channel: ObservedChannel, consumer: Consumer) -> None:
        """Nothing is kept of it."""
