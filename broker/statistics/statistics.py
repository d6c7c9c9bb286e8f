"""`Statistics`: a sampler of the counts of a node, and what can be asked of them, as rows.

Each few seconds the numbers that have changed are remembered.  A look is done in pieces, so that it
holds up nothing else.  Its tick is the number of a stretch of five seconds of the wall clock, as it
was at the start: samples of all nodes are of the same moments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import filterfalse
from operator import attrgetter
from typing import TYPE_CHECKING, TypeAlias

from fluffle.broker.base.clock import CallLater, Clock, Timer
from fluffle.broker.base.traffic import Traffic
from fluffle.broker.queues.queue_api import QueueHandle
from fluffle.broker.runtime.background import BackgroundTasks, Task, in_pieces
from fluffle.broker.statistics.counters import (
    OF_ALL_LENGTHS,
    OF_BYTES,
    OF_CHURN,
    OF_LENGTHS,
    TICK_MS,
    NodeCounters,
    ObjectCounts,
    VhostCounters,
)
from fluffle.broker.statistics.observer import StatisticsObserver, bytes_of
from fluffle.broker.statistics.report import (
    NO_PAST,
    Row,
    SampleTimes,
    SampleWindows,
    only_details,
    row_of,
    time_of,
    whole_row_of,
)
from fluffle.broker.vhosts.vhost import QueueLifecycleCounters, VirtualHost

if TYPE_CHECKING:
    from fluffle.broker.core.client import Client, ListedClient, ObservedChannel


PIECE = 256
"""Objects sampled in one turn of the loop: half a millisecond."""

NO_LENGTHS = ObjectCounts(OF_LENGTHS)
"""Lengths of a queue that has been empty."""

count_of_queues = attrgetter("declared", "created", "deleted")


class Sampler:
    """Sampler of the counters and queue lengths of one node."""

    def __init__(
        self,
        counters: NodeCounters,
        counting: StatisticsObserver,
        vhosts: Mapping[str, VirtualHost],
        traffic: Traffic,
        *,
        clock: Clock,
        tick_ms: int = TICK_MS,
    ) -> None:
        self._counters = counters
        self._counting = counting
        self._vhosts = vhosts
        self._traffic = traffic
        self._clock = clock
        self._tick_ms = tick_ms
        self._offset_ms = clock.wall_ms() - clock.now_ms()
        self._looked_ms = clock.now_ms()
        self.looks = SampleTimes(self.tick - 1, self.tick - 2, tick_ms, tick_ms)
        self._is_first = True
        """True if what is found has been there before: the first look is at the start."""
        self._gone = QueueLifecycleCounters()
        """Counters of deleted virtual hosts."""
        self._swept: dict[VirtualHost, tuple[int, int]] = {}
        """Epochs of a virtual host when counters of deleted objects were last removed."""
        self.lengths = ObjectCounts(OF_ALL_LENGTHS)
        """Lengths of all queues that are led here together."""
        self.churn = ObjectCounts(OF_CHURN)

    @property
    def tick(self) -> int:
        """Tick of this moment."""
        return self.wall_ms // self._tick_ms

    @property
    def wall_ms(self) -> int:
        """This moment, by the clock that ticks are of."""
        return self._clock.now_ms() + self._offset_ms

    @property
    def until_next_ms(self) -> int:
        """How long until the next one."""
        return self._tick_ms - self.wall_ms % self._tick_ms

    def look(self) -> Task:
        """Once, in pieces; nothing if that has been done at this tick."""
        tick, now_ms = self.tick, self._clock.now_ms()
        if tick <= self.looks.last:
            return
        yield from self._count_bytes()
        self._counters.enter_all()
        yield from self._sample_changed(tick)
        for name, vhost in tuple(self._vhosts.items()):
            if self._vhosts.get(name) is vhost:
                yield from self._measure(self._counters.of(vhost), tick)
        self._forget_vhosts()
        for vhost_counters in tuple(self._counters.vhosts.values()):
            yield from self._forget_gone(vhost_counters)
        self._renew_counts(self.lengths, lengths_of(self._lengths), tick)
        self._renew_counts(self.churn, self.churned(), tick)
        apart_ms = self._tick_ms if self._is_first else now_ms - self._looked_ms
        self.looks = SampleTimes(tick, self.looks.last, apart_ms, self._tick_ms)
        self._looked_ms, self._is_first = now_ms, False

    def _sample_changed(self, tick: int) -> Task:
        changed, self._counters.changed = self._counters.changed, {}
        for piece in in_pieces(changed, PIECE):
            for counts in piece:
                counts.sample(tick)
            yield None

    # Lengths

    @property
    def _lengths(self) -> Iterable[ObjectCounts]:
        return (vhost_counters.lengths for vhost_counters in self._counters.vhosts.values())

    def _measure(self, vhost_counters: VhostCounters, tick: int) -> Task:
        """How long each queue is that is led here."""
        totals = [0, 0, 0]
        for piece in in_pieces(tuple(vhost_counters.vhost.queues.values()), PIECE):
            for queue in piece:
                self._measure_queue(vhost_counters, queue, totals, tick)
            yield None
        self._renew_counts(vhost_counters.lengths, totals, tick)

    def _measure_queue(
        self, vhost_counters: VhostCounters, queue: QueueHandle, totals: list[int], tick: int
    ) -> None:
        lengths = length_of(queue)
        known = vhost_counters.of_lengths.get(queue)
        vhost_counters.seen.setdefault(queue, tick)
        if lengths is None:
            vhost_counters.of_lengths.pop(queue, None)
        elif known is not None or any(lengths):
            if known is None:
                known = vhost_counters.of_lengths[queue] = ObjectCounts(OF_LENGTHS)
            self._renew_counts(known, lengths, tick)
            for place, length in enumerate(lengths):
                totals[place] += length

    def _renew_counts(self, counts: ObjectCounts, values: Iterable[int], tick: int) -> None:
        """The numbers are these now."""
        values = list(values)
        if values == counts.values:
            return
        counts.values[:] = values
        if self._is_first:
            counts.found(tick)
        else:
            counts.sample(tick)

    # Idleness

    def used_ms(self, *known: ObjectCounts) -> int | None:
        """When something happened to an object last, as far as it was looked at, on the wall clock;
        None if nothing has.  `known`: its counts, with all entered that has happened."""
        if any(counts in self._counters.changed for counts in known):
            return self.wall_ms
        ticks = [counts.changed_tick for counts in known]
        return max((tick * self._tick_ms for tick in ticks if tick is not None), default=None)

    def idleness(self, counts: ObjectCounts) -> Row:
        """`idle_since`, if nothing has happened for as long as looks are apart."""
        used_ms = self.used_ms(counts)
        if used_ms is None or used_ms >= self.wall_ms - self._tick_ms:
            return {}
        return {"idle_since": time_of(used_ms)}

    def queue_used_ms(self, vhost_counters: VhostCounters, queue: QueueHandle) -> int | None:
        """Time of the last use in ms, as `used_ms`; a queue that was never used counts from when
        it was found; None before that."""
        seen, lengths = vhost_counters.seen.get(queue), length_of(queue)
        known = [
            of[queue] for of in (vhost_counters.queues, vhost_counters.of_lengths) if queue in of
        ]
        of_lengths = vhost_counters.of_lengths.get(queue, NO_LENGTHS)
        if lengths is not None and list(lengths) != of_lengths.values:
            return self.wall_ms
        return self.used_ms(*known) or (None if seen is None else seen * self._tick_ms)

    # Bytes and churn

    def _count_bytes(self) -> Task:
        for piece in in_pieces(tuple(self._counting.connections.values()), PIECE):
            for on_connection in piece:
                on_connection.enter()
            yield None

    def churned(self) -> list[int]:
        """Totals of objects opened and closed, as `OF_CHURN`."""
        traffic = self._traffic
        of_queues = map(count_of_queues, (*self._counted, self._gone))
        return [
            traffic.connections_opened,
            traffic.connections_closed,
            traffic.channels_opened,
            traffic.channels_closed,
            *map(sum, zip(*of_queues, strict=True)),
        ]

    @property
    def _counted(self) -> Iterable[QueueLifecycleCounters]:
        there = (vhost.counts for vhost in self._vhosts.values())
        gone = (vhost.counts for vhost in self._counters.vhosts if self._is_gone(vhost))
        return (*there, *gone)

    # What is gone

    def _is_gone(self, vhost: VirtualHost) -> bool:
        return self._vhosts.get(vhost.name) is not vhost

    def _forget_vhosts(self) -> None:
        for vhost in tuple(filter(self._is_gone, self._counters.vhosts)):
            del self._counters.vhosts[vhost]
            self._swept.pop(vhost, None)
            self._gone.declared += vhost.counts.declared
            self._gone.created += vhost.counts.created
            self._gone.deleted += vhost.counts.deleted

    def _forget_gone(self, vhost_counters: VhostCounters) -> Task:
        """Remove counters of deleted objects of a virtual host, if anything has changed."""
        vhost = vhost_counters.vhost
        state = vhost.epoch, vhost.topology.epoch
        if self._swept.get(vhost) == state:
            return
        self._swept[vhost] = state
        known = {**vhost_counters.seen, **vhost_counters.queues, **vhost_counters.of_lengths}
        for queues in in_pieces(tuple(known), PIECE):
            for queue in filterfalse(vhost.has, queues):
                vhost_counters.queues.pop(queue, None)
                vhost_counters.of_lengths.pop(queue, None)
                vhost_counters.seen.pop(queue, None)
                vhost_counters.publishers.pop(queue, None)
            yield None
        for exchange in tuple(filterfalse(vhost_counters.has, vhost_counters.exchanges)):
            del vhost_counters.exchanges[exchange]
        for channels in in_pieces(tuple(self._counting.channels.values()), PIECE):
            for on_channel in channels:
                if on_channel.vhost_counters is vhost_counters:
                    on_channel.forget_gone()
            yield None


def length_of(queue: QueueHandle) -> tuple[int, int, int] | None:
    """Lengths of a queue, as `OF_LENGTHS`; None if it is led elsewhere."""
    queue_counts = queue.local_counts
    if queue_counts is None:
        return None
    return (
        queue_counts.ready + queue_counts.unacked + queue_counts.apart,
        queue_counts.ready,
        queue_counts.unacked,
    )


def lengths_of(lengths: Iterable[ObjectCounts]) -> list[int]:
    columns = zip((0, 0, 0), *(each.values for each in lengths), strict=True)
    return [sum(column) for column in columns]


class SampleTimer:
    """Timer that starts a sample at each tick."""

    def __init__(
        self, sampler: Sampler, background_tasks: BackgroundTasks, call_later: CallLater
    ) -> None:
        self._sampler = sampler
        self._background_tasks = background_tasks
        self._call_later = call_later
        self._timer: Timer | None = None
        self._is_ended = False

    def start(self) -> None:
        """Begin with a look at what is there."""
        self._look()

    def stop(self) -> None:
        self._is_ended = True
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        if not self._is_ended:
            delay_s = self._sampler.until_next_ms / 1_000
            self._timer = self._call_later(delay_s, self._look)

    def _look(self) -> None:
        self._background_tasks.add(self._looked(), self._failed)

    def _looked(self) -> Task:
        yield from self._sampler.look()
        self._wait()

    def _failed(self, _error: Exception) -> None:
        """Schedule the next sample after a failure, which is logged."""
        self._wait()


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
