"""Counters of all objects of a node, their history, and counts that are yet to be entered there.

What happens is counted beside the channel on which it does, in few steps.  It is entered into the
counts of queue, exchange, virtual host and node when a page asks, at each look, or once much is
left: then an addition stands for many.  Names are RabbitMQ's; those that come together are a
*group*: an object has all of a group once it has one.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import chain
from typing import NamedTuple, Protocol

from fluffle.broker.queues.publish_target import PublishTarget
from fluffle.broker.queues.queue_api import QueueHandle
from fluffle.broker.routing.exchange import Exchange
from fluffle.broker.vhosts.vhost import VirtualHost


class NumberWidth(StrEnum):
    """Width of a number, as the type code of an array."""

    NARROW = "I"
    WIDE = "Q"


class Level(NamedTuple):
    ticks: int
    """Ticks between two rows, the last of which is kept."""
    rows: int
    """Number of rows kept."""


class NumberHistory:
    """History of a row of numbers: each change of late, fewer of the older ones."""

    __slots__ = ("_bits", "_columns", "_levels", "_rows")

    def __init__(self, columns: int, levels: Sequence[Level], width: NumberWidth) -> None:
        """`levels`: the one with most rows in a time first."""
        self._columns = columns + 1
        self._levels = levels
        self._rows = tuple(array(width) for _level in levels)
        self._bits = 8 * array(width).itemsize

    def add(self, tick: int, values: Sequence[int]) -> None:
        """Add values that hold from this tick on, which is behind all others."""
        mask, columns = (1 << self._bits) - 1, self._columns
        row = [tick, *(value & mask for value in values)]
        for level, rows in zip(self._levels, self._rows, strict=True):
            if rows and tick // level.ticks == rows[-columns] // level.ticks:
                del rows[-columns:]
            rows.extend(row)
            del rows[: -columns * level.rows]

    @property
    def last_tick(self) -> int:
        """Tick of the last row."""
        return self._rows[0][-self._columns]

    def at(self, tick: int, now: Sequence[int]) -> list[int]:
        """Values at `tick`, or the first known ones if later; `now`: the present values, or those
        of some remembered time."""
        before, after, ticks = self._around(tick)
        start = max(before[0], after[0] // ticks * ticks - 1)
        was = self._whole(before, now)
        if tick <= start:
            return was
        become = self._whole(after, now)
        passed, lasted = tick - start, after[0] - start
        return [
            a + (b - a) * passed // lasted if lasted > 0 else a
            for a, b in zip(was, become, strict=True)
        ]

    def _whole(self, row: Sequence[int], now: Sequence[int]) -> list[int]:
        """The numbers of a row, with all of their bits."""
        half = 1 << (self._bits - 1)
        mask = 2 * half - 1
        return [
            known + ((value - known + half) & mask) - half
            for known, value in zip(now, row[1:], strict=True)
        ]

    def _around(self, tick: int) -> tuple[Sequence[int], Sequence[int], int]:
        """The last row that is not behind `tick`, or the first of all, the first row behind it, or
        that same one, and the ticks of the level that has the former."""
        columns, after = self._columns, array(self._rows[0].typecode)
        for level, rows in zip(self._levels, self._rows, strict=True):
            stop = bisect_right(rows[::columns], tick) * columns
            later = rows[stop : stop + columns]
            if later and (not after or later[0] < after[0]):
                after = later
            if stop:
                before = rows[stop - columns : stop]
                return before, after or before, level.ticks
        return after, after, 1


TICK_MS = 5_000
"""RabbitMQ's collect_statistics_interval."""

SHORT = (Level(1, 13), Level(12, 12))
"""A row each 5 s for a minute, and each minute for ten: at most 25 rows, with 4 bytes a
number.  An object on which nothing happens has none."""

LONG = (Level(1, 122), Level(12, 62), Level(120, 50), Level(360, 50))
"""Levels of RabbitMQ's retention policy `global`, up to a day; of the node alone."""


RETAINED_S = tuple(level.ticks * (level.rows - 2) * TICK_MS // 1_000 for level in LONG)
"""How far back each of them goes at least, in seconds: its last row is of now, and its first may be
of the middle of a stretch."""


class CounterKind(NamedTuple):
    """The numbers that a kind of object has, and their history."""

    groups: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]
    """Names of the counters of all groups."""
    levels: tuple[Level, ...]
    width: NumberWidth = NumberWidth.NARROW


def kind(
    *groups: tuple[str, ...],
    levels: tuple[Level, ...] = SHORT,
    width: NumberWidth = NumberWidth.NARROW,
) -> CounterKind:
    return CounterKind(groups, tuple(chain.from_iterable(groups)), levels, width)


PUBLISHED = ("publish", "confirm", "return_unroutable", "drop_unroutable")
PUBLISH, CONFIRM, RETURN, DROP = range(4)

DELIVERED = (
    "deliver", "deliver_no_ack", "get", "get_no_ack", "get_empty", "redeliver", "ack",
    "deliver_get",
)  # fmt: skip
DELIVER, DELIVER_NO_ACK, GET, GET_NO_ACK, GET_EMPTY, REDELIVER, ACK, DELIVER_GET = range(8)

OF_QUEUE = kind(("publish",), DELIVERED)
OF_EXCHANGE = kind(("publish_in", "publish_out"))
OF_CHANNEL = kind(PUBLISHED, DELIVERED)
"""And of a virtual host."""
OF_PUBLISHES = kind(PUBLISHED)
OF_DELIVERIES = kind(DELIVERED)
OF_NODE = kind(PUBLISHED, DELIVERED, levels=LONG, width=NumberWidth.WIDE)

OF_LENGTHS = kind(("messages", "messages_ready", "messages_unacknowledged"))
OF_ALL_LENGTHS = kind(*OF_LENGTHS.groups, levels=LONG, width=NumberWidth.WIDE)
OF_BYTES = kind(("recv_oct", "send_oct"), width=NumberWidth.WIDE)
OF_CHURN = kind(
    (
        *("connection_created", "connection_closed", "channel_created", "channel_closed"),
        *("queue_declared", "queue_created", "queue_deleted"),
    ),
    levels=LONG,
    width=NumberWidth.WIDE,
)


class ObjectCounts:
    """The numbers of one object, and their history."""

    __slots__ = ("_history", "kind", "values")

    def __init__(self, kind: CounterKind) -> None:
        self.kind = kind
        self.values = [0] * len(kind.names)
        """Present values."""
        self._history: NumberHistory | None = None
        """None until something has been sampled that was not 0."""

    def add(self, at: int, counted: Sequence[int]) -> None:
        """Count more of the names from `at` on."""
        values = self.values
        for place, count in enumerate(counted, at):
            values[place] += count

    def sample(self, tick: int) -> None:
        """Remember them, for they have changed.  Before the first time they were 0."""
        history = self._history
        if history is None:
            history = self._begun()
            history.add(0, [0] * len(self.values))
        history.add(tick, self.values)

    def found(self, tick: int) -> None:
        """Sample an object that existed before sampling began."""
        self._begun().add(tick, self.values)

    def _begun(self) -> NumberHistory:
        columns = len(self.values)
        self._history = history = NumberHistory(columns, self.kind.levels, self.kind.width)
        return history

    @property
    def changed_tick(self) -> int | None:
        """When they were found to have changed last; None if they never have."""
        return self._history.last_tick if self._history is not None else None

    def at(self, tick: int) -> Sequence[int]:
        """Values at a tick."""
        if self._history is None:
            return [0] * len(self.values)
        return self._history.at(tick, self.values)


TOUCHED_MAX = 1_024
"""Most counts that are entered together, for a few milliseconds."""


class PendingCounts(Protocol):
    """Counts that are yet to be entered into those of the node."""

    def enter(self) -> None: ...


class VhostCounters:
    """Counters of a virtual host and of what is in it.  Objects that were never used have none;
    those that are gone have some until the next sample."""

    def __init__(self, vhost: VirtualHost) -> None:
        self.vhost = vhost
        self.counts = ObjectCounts(OF_CHANNEL)
        self.lengths = ObjectCounts(OF_LENGTHS)
        """Lengths of all its queues that are led here together."""
        self.bytes = ObjectCounts(OF_BYTES)
        self.queues: dict[QueueHandle, ObjectCounts] = {}
        self.of_lengths: dict[QueueHandle, ObjectCounts] = {}
        self.exchanges: dict[Exchange, ObjectCounts] = {}
        self.seen: dict[QueueHandle, int] = {}
        """At which tick each queue was there first."""
        self.publishers: dict[QueueHandle, int] = {}
        """How many open channels have published to each quorum queue, where any has."""

    def queue_of(self, target: PublishTarget) -> QueueHandle | None:
        """The queue that this is, or stands for; None if it is gone, or never was one."""
        vhost, name = self.vhost, target.name
        queue = vhost.queues.get(name)
        if queue is None or (queue is not target and vhost.redirects.get(name) is not target):
            return None
        return queue

    def of_queue(self, target: PublishTarget) -> ObjectCounts | None:
        """The counts of the queue that this is, or stands for; None if it is gone, or never was
        one."""
        queue = self.queue_of(target)
        return None if queue is None else self.counts_of(queue)

    def counts_of(self, queue: QueueHandle) -> ObjectCounts:
        """The counts of a queue that exists; zeros if it had none yet."""
        if queue not in self.queues:
            self.queues[queue] = ObjectCounts(OF_QUEUE)
        return self.queues[queue]

    def add_publisher(self, queue: QueueHandle) -> None:
        """A channel has published to a quorum queue for the first time."""
        self.publishers[queue] = self.publishers.get(queue, 0) + 1

    def remove_publishers(self, queues: Iterable[QueueHandle]) -> None:
        """A channel that has published to quorum queues has ended; some of them may be gone."""
        for queue in queues:
            left = self.publishers.pop(queue, 0) - 1
            if left > 0:
                self.publishers[queue] = left

    def of_exchange(self, exchange: Exchange) -> ObjectCounts | None:
        """None if it is gone."""
        if not self.has(exchange):
            return None
        if exchange not in self.exchanges:
            self.exchanges[exchange] = ObjectCounts(OF_EXCHANGE)
        return self.exchanges[exchange]

    def has(self, exchange: Exchange) -> bool:
        """True if an exchange, not another one of its name, is still there."""
        return self.vhost.topology.find(exchange.spec.name) is exchange


class NodeCounters:
    """Counters of one node, by virtual host and object."""

    def __init__(self) -> None:
        self.vhosts: dict[VirtualHost, VhostCounters] = {}
        self.node = ObjectCounts(OF_NODE)
        self.changed: dict[ObjectCounts, None] = {}
        """Since the last look."""
        self.confirming: dict[PendingCounts, None] = {}
        """Channels with publishes that were not confirmed when they were asked last."""
        self._touched: list[PendingCounts] = []

    def of(self, vhost: VirtualHost) -> VhostCounters:
        if vhost not in self.vhosts:
            self.vhosts[vhost] = VhostCounters(vhost)
        return self.vhosts[vhost]

    def touch(self, touched: PendingCounts) -> None:
        """Queue counts that will be entered, once they differ."""
        if len(self._touched) >= TOUCHED_MAX:
            self.enter_touched()
        self._touched.append(touched)

    def enter(self, at: int, counted: Sequence[int], where: Iterable[ObjectCounts]) -> None:
        """Add it, each from the name on that is there `at`."""
        for counts in where:
            counts.add(at, counted)
            self.changed[counts] = None

    def enter_all(self) -> None:
        """From now on the counts are those of this moment."""
        self.enter_touched()
        confirming, self.confirming = self.confirming, {}
        for each in confirming:
            each.enter()

    def enter_touched(self) -> None:
        """The same but for confirms that have come meanwhile: each channel that waits for any is
        asked of those, and they count neither for queues nor for exchanges."""
        while self._touched:  # a sender enters what it has where its channel takes
            touched, self._touched = self._touched, []
            for each in touched:
                each.enter()
