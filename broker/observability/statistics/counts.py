"""What is counted of each kind of object, by RabbitMQ's names.

Names that come together are a *group*: an object has all of a group once it has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from fluffle.broker.observability.statistics.history import Level, NumberHistory, NumberWidth

TICK_MS = 5_000
"""RabbitMQ's collect_statistics_interval."""

SHORT = (Level(1, 13), Level(12, 12))
"""A row each 5 s for a minute, and each minute for ten: at most 25 rows, with 4 bytes a
number.  An object on which nothing happens has none."""

LONG = (Level(1, 122), Level(12, 62), Level(120, 50), Level(360, 50))
"""Those of RabbitMQ's retention policy `global`, up to a day; of the node alone."""


RETAINED_S = tuple(level.ticks * (level.rows - 2) * TICK_MS // 1_000 for level in LONG)
"""How far back each of them goes at least, in seconds: its last row is of now, and its first may be
of the middle of a stretch."""


class CounterKind(NamedTuple):
    """Of an object."""

    groups: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]
    """Of all groups."""
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


class Counts:
    """The numbers of one object, and what they were."""

    __slots__ = ("_history", "kind", "values")

    def __init__(self, kind: CounterKind) -> None:
        self.kind = kind
        self.values = [0] * len(kind.names)
        """What they are now."""
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
        """As `sample`, of what has been there before anybody looked."""
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
        """What they were."""
        if self._history is None:
            return [0] * len(self.values)
        return self._history.at(tick, self.values)
