"""`Statistics`: what can be asked of the counts of a node, as rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

from fluffle.broker.base.clock import CallLater, Clock
from fluffle.broker.base.traffic import Traffic
from fluffle.broker.observability.statistics.counters import (
    OF_BYTES,
    OF_LENGTHS,
    TICK_MS,
    NodeCounters,
    ObjectCounts,
    VhostCounters,
)
from fluffle.broker.observability.statistics.observer import StatisticsObserver, bytes_of
from fluffle.broker.observability.statistics.report import (
    NO_PAST,
    Row,
    SampleWindows,
    only_details,
    row_of,
    time_of,
    whole_row_of,
)
from fluffle.broker.observability.statistics.sampler import (
    NO_LENGTHS,
    Sampler,
    SampleTimer,
    length_of,
)
from fluffle.broker.runtime.background import BackgroundTasks
from fluffle.broker.vhosts.vhost import VirtualHost

if TYPE_CHECKING:
    from fluffle.broker.core.client import Client, ListedClient, ObservedChannel

ByChannel: TypeAlias = tuple["Client", "ObservedChannel", Row]
"""Counts of a channel with one queue or exchange."""

NO_BYTES = ObjectCounts(OF_BYTES)
"""Counts of the past of a connection without a virtual host."""


class Statistics:
    """Statistics of one node.  `observer` sees its clients; `sample_timer` samples the numbers."""

    def __init__(
        self,
        vhosts: Mapping[str, VirtualHost],
        traffic: Traffic,
        *,
        clock: Clock,
        tick_ms: int = TICK_MS,
    ) -> None:
        self._vhosts = vhosts
        self.counters = NodeCounters()
        self.observer = StatisticsObserver(self.counters)
        self._sampler = Sampler(
            self.counters, self.observer, vhosts, traffic, clock=clock, tick_ms=tick_ms
        )

    def sample_timer(self, background_tasks: BackgroundTasks, call_later: CallLater) -> SampleTimer:
        """Timer that takes samples, once it is started."""
        return SampleTimer(self._sampler, background_tasks, call_later)

    def of_queue(self, vhost: str, name: str, windows: SampleWindows = NO_PAST) -> Row:
        """`message_stats`, `consumers_with_room`, `publishers` of a quorum queue, and
        `messages_details` and the like where it is led here."""
        self.counters.enter_touched()
        vhost_counters = self._found(vhost)
        queue = vhost_counters.vhost.queues.get(name) if vhost_counters is not None else None
        if vhost_counters is None or queue is None:
            return {}
        row = self._message_stats(vhost_counters.queues.get(queue), windows)
        if consumers := queue.consumers:
            row["consumers_with_room"] = sum(consumer.has_room for consumer in consumers)
        if queue in vhost_counters.publishers:
            row["publishers"] = vhost_counters.publishers[queue]
        lengths = length_of(queue)
        if lengths is None:
            return row
        known = vhost_counters.of_lengths.get(queue, NO_LENGTHS)
        return row | only_details(known, self._sampler.looks, windows.lengths)

    def use_of_queue(self, vhost: str, name: str) -> Row:
        """`used_at`: when something happened to it last, or, while it does, now."""
        self.counters.enter_touched()
        vhost_counters = self._found(vhost)
        queue = vhost_counters.vhost.queues.get(name) if vhost_counters is not None else None
        if vhost_counters is None or queue is None:
            return {}
        used_ms = self._sampler.queue_used_ms(vhost_counters, queue)
        return {} if used_ms is None else {"used_at": time_of(used_ms)}

    def deliveries(
        self, vhost: str, queue: str, windows: SampleWindows = NO_PAST
    ) -> Iterator[ByChannel]:
        """Deliveries of a queue by channel."""
        self.counters.enter_touched()
        vhost_counters = self._found(vhost)
        found = vhost_counters.vhost.queues.get(queue) if vhost_counters is not None else None
        for channel, on_channel in tuple(self.observer.channels.items()):
            taken = on_channel.taken.get(found) if found is not None else None
            if taken is not None and any(taken.counts.values):
                yield self._by_channel(channel, taken.counts, windows)

    def publishes(
        self, vhost: str, exchange: str, windows: SampleWindows = NO_PAST
    ) -> Iterator[ByChannel]:
        """Publishes to an exchange by channel."""
        self.counters.enter_all()
        vhost_counters = self._found(vhost)
        for channel, on_channel in tuple(self.observer.channels.items()):
            published = on_channel.published.get(exchange)
            if on_channel.vhost_counters is vhost_counters and published is not None:
                yield self._by_channel(channel, published.counts, windows)

    def _by_channel(
        self, channel: ObservedChannel, counts: ObjectCounts, windows: SampleWindows
    ) -> ByChannel:
        row = row_of(counts, self._sampler.looks, windows.messages)
        return self.observer.connection_of(channel), channel, row

    def of_exchange(self, vhost: str, name: str, windows: SampleWindows = NO_PAST) -> Row:
        """`message_stats`."""
        self.counters.enter_touched()
        vhost_counters = self._found(vhost)
        exchange = vhost_counters.vhost.topology.find(name) if vhost_counters is not None else None
        if vhost_counters is None or exchange is None:
            return {}
        return self._message_stats(vhost_counters.exchanges.get(exchange), windows)

    def of_channel(self, channel: ObservedChannel, windows: SampleWindows = NO_PAST) -> Row:
        """`message_stats`, `idle_since`, and counts apart in `publishes` and `deliveries`."""
        self.counters.enter_touched()
        on_channel = self.observer.channels.get(channel)
        if on_channel is None:
            return {}
        on_channel.enter()
        vhost, looks = channel.session.vhost.name, self._sampler.looks
        return {
            **self._message_stats(on_channel.counts, windows),
            **self._sampler.idleness(on_channel.counts),
            "publishes": [
                {
                    "exchange": {"name": name, "vhost": vhost},
                    "stats": row_of(published.counts, looks, windows.messages),
                }
                for name, published in on_channel.published.items()
            ],
            "deliveries": [
                {
                    "queue": {"name": queue.name, "vhost": vhost},
                    "stats": row_of(taken.counts, looks, windows.messages),
                }
                for queue, taken in on_channel.taken.items()
                if any(taken.counts.values)
            ],
        }

    def of_connection(self, connection: ListedClient, windows: SampleWindows = NO_PAST) -> Row:
        """`recv_oct`, `recv_cnt`, `send_oct`, `send_cnt`, `send_pend`."""
        on_connection, looks = self.observer.connections.get(connection), self._sampler.looks
        counts = on_connection.counts if on_connection is not None else NO_BYTES
        return {
            **whole_row_of(counts, looks, windows.data),
            **dict(zip(OF_BYTES.names, bytes_of(connection), strict=True)),
            "recv_cnt": connection.reads,
            "send_cnt": connection.writes,
            "send_pend": connection.unwritten_bytes,
        }

    def of_vhosts(self, names: Iterable[str], windows: SampleWindows = NO_PAST) -> Iterator[Row]:
        """Statistics of each virtual host: `message_stats`, `messages` and the like, `recv_oct`,
        `send_oct`.

        Clients are asked once for all, when the first is taken.
        """
        self.counters.enter_all()
        for on_connection in self.observer.connections.values():
            on_connection.enter()
        for name in names:
            yield self._of_vhost(name, windows)

    def _of_vhost(self, name: str, windows: SampleWindows) -> Row:
        vhost_counters, looks = self._found(name), self._sampler.looks
        if vhost_counters is None:
            return {}
        return {
            **self._message_stats(vhost_counters.counts, windows),
            **whole_row_of(vhost_counters.lengths, looks, windows.lengths),
            **lengths_now((vhost_counters.vhost,)),
            **whole_row_of(vhost_counters.bytes, looks, windows.data),
        }

    def totals(self, windows: SampleWindows = NO_PAST) -> Row:
        """`message_stats` and `queue_totals` of the node."""
        self.counters.enter_all()
        lengths = whole_row_of(self._sampler.lengths, self._sampler.looks, windows.lengths)
        return {
            **self._message_stats(self.counters.node, windows),
            "queue_totals": {**lengths, **lengths_now(tuple(self._vhosts.values()))},
        }

    def churn(self, windows: SampleWindows = NO_PAST) -> Row:
        """`connection_created` and the like, of the node."""
        churn, looks = self._sampler.churn, self._sampler.looks
        row = whole_row_of(churn, looks, windows.messages)
        return row | dict(zip(churn.kind.names, self._sampler.churned(), strict=True))

    def _found(self, vhost: str) -> VhostCounters | None:
        """Counters of the virtual host of that name."""
        found = self._vhosts.get(vhost)
        return self.counters.of(found) if found is not None else None

    def _message_stats(self, counts: ObjectCounts | None, windows: SampleWindows) -> Row:
        """None of it while nothing has happened."""
        if counts is None:
            return {}
        row = row_of(counts, self._sampler.looks, windows.messages)
        return {"message_stats": row} if row else {}


def lengths_now(vhosts: tuple[VirtualHost, ...]) -> Row:
    """How many messages are in the queues that are led here."""
    totals = [0, 0, 0]
    for vhost in vhosts:
        for queue in vhost.queues.values():
            for place, length in enumerate(length_of(queue) or ()):
                totals[place] += length
    return dict(zip(OF_LENGTHS.names, totals, strict=True))
