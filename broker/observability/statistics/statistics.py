"""`Statistics`: what can be asked of the counts of a node, as rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

from fluffle.broker.base.clock import CallLater, Clock
from fluffle.broker.base.traffic import Traffic
from fluffle.broker.observability.statistics.connections import bytes_of
from fluffle.broker.observability.statistics.counters import Book, OfVhost
from fluffle.broker.observability.statistics.counts import OF_BYTES, OF_LENGTHS, TICK_MS, Counts
from fluffle.broker.observability.statistics.observer import Counting
from fluffle.broker.observability.statistics.report import only_details, row_of, whole_row_of
from fluffle.broker.observability.statistics.rows import Row, time_of
from fluffle.broker.observability.statistics.sample_window import NO_PAST, Ages
from fluffle.broker.observability.statistics.sampler import (
    NO_LENGTHS,
    Clockwork,
    Lookout,
    length_of,
)
from fluffle.broker.runtime.background import Chores
from fluffle.broker.vhosts.vhost import VirtualHost

if TYPE_CHECKING:
    from fluffle.broker.protocols.amqp091.channel import Channel
    from fluffle.broker.protocols.amqp091.connection import Connection

ByChannel: TypeAlias = tuple["Connection", "Channel", Row]
"""What a channel has done with one queue or exchange."""

NO_BYTES = Counts(OF_BYTES)
"""Those that are known of the past of a connection without a virtual host."""


class Statistics:
    """Of one node.  `observer` sees its clients; `clockwork` looks at the numbers."""

    __slots__ = ("_lookout", "_vhosts", "book", "observer")

    def __init__(
        self,
        vhosts: Mapping[str, VirtualHost],
        traffic: Traffic,
        *,
        clock: Clock,
        tick_ms: int = TICK_MS,
    ) -> None:
        self._vhosts = vhosts
        self.book = Book()
        self.observer = Counting(self.book)
        self._lookout = Lookout(
            self.book, self.observer, vhosts, traffic, clock=clock, tick_ms=tick_ms
        )

    def clockwork(self, chores: Chores, call_later: CallLater) -> Clockwork:
        """What has them sampled in time, once it is started."""
        return Clockwork(self._lookout, chores, call_later)

    def of_queue(self, vhost: str, name: str, ages: Ages = NO_PAST) -> Row:
        """`message_stats`, `consumers_with_room`, `publishers` of a quorum queue, and
        `messages_details` and the like where it is led here."""
        self.book.enter_touched()
        of_vhost = self._found(vhost)
        queue = of_vhost.vhost.queues.get(name) if of_vhost is not None else None
        if of_vhost is None or queue is None:
            return {}
        row = self._message_stats(of_vhost.queues.get(queue), ages)
        if consumers := queue.consumers:
            row["consumers_with_room"] = sum(consumer.has_room for consumer in consumers)
        if queue in of_vhost.publishers:
            row["publishers"] = of_vhost.publishers[queue]
        lengths = length_of(queue)
        if lengths is None:
            return row
        known = of_vhost.of_lengths.get(queue, NO_LENGTHS)
        return row | only_details(known, self._lookout.looks, ages.lengths)

    def use_of_queue(self, vhost: str, name: str) -> Row:
        """`used_at`: when something happened to it last, or, while it does, now."""
        self.book.enter_touched()
        of_vhost = self._found(vhost)
        queue = of_vhost.vhost.queues.get(name) if of_vhost is not None else None
        if of_vhost is None or queue is None:
            return {}
        used_ms = self._lookout.queue_used_ms(of_vhost, queue)
        return {} if used_ms is None else {"used_at": time_of(used_ms)}

    def deliveries(self, vhost: str, queue: str, ages: Ages = NO_PAST) -> Iterator[ByChannel]:
        """What each channel has got from a queue."""
        self.book.enter_touched()
        of_vhost = self._found(vhost)
        found = of_vhost.vhost.queues.get(queue) if of_vhost is not None else None
        for channel, on_channel in tuple(self.observer.channels.items()):
            taken = on_channel.taken.get(found) if found is not None else None
            if taken is not None and any(taken.counts.values):
                yield self._by_channel(channel, taken.counts, ages)

    def publishes(self, vhost: str, exchange: str, ages: Ages = NO_PAST) -> Iterator[ByChannel]:
        """What each channel has published to an exchange."""
        self.book.enter_all()
        of_vhost = self._found(vhost)
        for channel, on_channel in tuple(self.observer.channels.items()):
            published = on_channel.published.get(exchange)
            if on_channel.of_vhost is of_vhost and published is not None:
                yield self._by_channel(channel, published.counts, ages)

    def _by_channel(self, channel: Channel, counts: Counts, ages: Ages) -> ByChannel:
        row = row_of(counts, self._lookout.looks, ages.messages)
        return self.observer.connection_of(channel), channel, row

    def of_exchange(self, vhost: str, name: str, ages: Ages = NO_PAST) -> Row:
        """`message_stats`."""
        self.book.enter_touched()
        of_vhost = self._found(vhost)
        exchange = of_vhost.vhost.topology.find(name) if of_vhost is not None else None
        if of_vhost is None or exchange is None:
            return {}
        return self._message_stats(of_vhost.exchanges.get(exchange), ages)

    def of_channel(self, channel: Channel, ages: Ages = NO_PAST) -> Row:
        """`message_stats`, `idle_since`, and counts apart in `publishes` and `deliveries`."""
        self.book.enter_touched()
        on_channel = self.observer.channels.get(channel)
        if on_channel is None:
            return {}
        on_channel.enter()
        vhost, looks = channel.session.vhost.name, self._lookout.looks
        return {
            **self._message_stats(on_channel.counts, ages),
            **self._lookout.idleness(on_channel.counts),
            "publishes": [
                {
                    "exchange": {"name": name, "vhost": vhost},
                    "stats": row_of(published.counts, looks, ages.messages),
                }
                for name, published in on_channel.published.items()
            ],
            "deliveries": [
                {
                    "queue": {"name": queue.name, "vhost": vhost},
                    "stats": row_of(taken.counts, looks, ages.messages),
                }
                for queue, taken in on_channel.taken.items()
                if any(taken.counts.values)
            ],
        }

    def of_connection(self, connection: Connection, ages: Ages = NO_PAST) -> Row:
        """`recv_oct`, `recv_cnt`, `send_oct`, `send_cnt`, `send_pend`."""
        on_connection, looks = self.observer.connections.get(connection), self._lookout.looks
        counts = on_connection.counts if on_connection is not None else NO_BYTES
        return {
            **whole_row_of(counts, looks, ages.data),
            **dict(zip(OF_BYTES.names, bytes_of(connection), strict=True)),
            "recv_cnt": connection.reads,
            "send_cnt": connection.outlet.writes,
            "send_pend": connection.unwritten_bytes,
        }

    def of_vhosts(self, names: Iterable[str], ages: Ages = NO_PAST) -> Iterator[Row]:
        """Of each: `message_stats`, `messages` and the like, `recv_oct`, `send_oct`.

        Clients are asked once for all, when the first is taken.
        """
        self.book.enter_all()
        for on_connection in self.observer.connections.values():
            on_connection.enter()
        for name in names:
            yield self._of_vhost(name, ages)

    def _of_vhost(self, name: str, ages: Ages) -> Row:
        of_vhost, looks = self._found(name), self._lookout.looks
        if of_vhost is None:
            return {}
        return {
            **self._message_stats(of_vhost.counts, ages),
            **whole_row_of(of_vhost.lengths, looks, ages.lengths),
            **lengths_now((of_vhost.vhost,)),
            **whole_row_of(of_vhost.bytes, looks, ages.data),
        }

    def totals(self, ages: Ages = NO_PAST) -> Row:
        """`message_stats` and `queue_totals` of the node."""
        self.book.enter_all()
        lengths = whole_row_of(self._lookout.lengths, self._lookout.looks, ages.lengths)
        return {
            **self._message_stats(self.book.node, ages),
            "queue_totals": {**lengths, **lengths_now(tuple(self._vhosts.values()))},
        }

    def churn(self, ages: Ages = NO_PAST) -> Row:
        """`connection_created` and the like, of the node."""
        churn, looks = self._lookout.churn, self._lookout.looks
        row = whole_row_of(churn, looks, ages.messages)
        return row | dict(zip(churn.kind.names, self._lookout.churned(), strict=True))

    def _found(self, vhost: str) -> OfVhost | None:
        """Of the virtual host of that name."""
        found = self._vhosts.get(vhost)
        return self.book.of(found) if found is not None else None

    def _message_stats(self, counts: Counts | None, ages: Ages) -> Row:
        """None of it while nothing has happened."""
        if counts is None:
            return {}
        row = row_of(counts, self._lookout.looks, ages.messages)
        return {"message_stats": row} if row else {}


def lengths_now(vhosts: tuple[VirtualHost, ...]) -> Row:
    """How many messages are in the queues that are led here."""
    totals = [0, 0, 0]
    for vhost in vhosts:
        for queue in vhost.queues.values():
            for place, length in enumerate(length_of(queue) or ()):
                totals[place] += length
    return dict(zip(OF_LENGTHS.names, totals, strict=True))
