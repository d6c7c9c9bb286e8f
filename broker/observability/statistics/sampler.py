"""Sampler of a node's numbers: each few seconds it remembers those that have changed.

A look is done in pieces, so that it holds up nothing else.  Its tick is the number of a stretch of
five seconds of the wall clock, as it was at the start: samples of all nodes are of the same
moments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import filterfalse
from operator import attrgetter

from fluffle.broker.base.clock import CallLater, Clock, Timer
from fluffle.broker.base.traffic import Traffic
from fluffle.broker.observability.statistics.counters import (
    OF_ALL_LENGTHS,
    OF_CHURN,
    OF_LENGTHS,
    TICK_MS,
    NodeCounters,
    ObjectCounts,
    VhostCounters,
)
from fluffle.broker.observability.statistics.observer import StatisticsObserver
from fluffle.broker.observability.statistics.report import Row, SampleTimes, time_of
from fluffle.broker.queues.queue_api import QueueHandle
from fluffle.broker.runtime.background import BackgroundTasks, Task, in_pieces
from fluffle.broker.vhosts.vhost import QueueLifecycleCounters, VirtualHost

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
