"""For how long clients hold messages that they have not acknowledged.

Nobody writes down when a message is handed out, which would cost something for each.  Instead it is
remembered which message of a channel was the oldest one, and when that was first seen: so an age is
too low by the time between two scrapes at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from fluffle.broker.observability.metrics.families import Step, labelled, pieces, text_of
from fluffle.broker.observability.metrics.tables import TableView
from fluffle.broker.protocols.amqp091.channel import Channel
from fluffle.broker.protocols.amqp091.listings import channel_name
from fluffle.broker.protocols.amqp091.registry import Connections

NAME, TEXT = (
    "fluffle_channel_unacknowledged_age_seconds",
    "How long the oldest unacknowledged message of a channel, or of all, has been seen to be one",
)


class UnackedAges:
    """Of the oldest message of each channel."""

    __slots__ = ("_connections", "_now_ms", "_seen")

    def __init__(self, connections: Connections, now_ms: Callable[[], int]) -> None:
        self._connections = connections
        self._now_ms = now_ms
        self._seen: dict[Channel, tuple[int, int]] = {}
        """The delivery tag, and since when; of channels that were there at the last scrape."""

    def steps(self, view: TableView) -> Iterator[Step]:
        """A row a channel that holds something; or the greatest age, 0 if nobody holds anything."""
        seen: dict[Channel, tuple[int, int]] = {}
        oldest_ms = 0
        if view.has_rows:
            yield [GaugeMetricFamily(NAME, TEXT)]
        for piece in pieces(self._channels()):
            family: Metric = GaugeMetricFamily(NAME, TEXT)
            for name, channel, tag in filter(None, piece):
                seen[channel] = _, since_ms = self._since(channel, tag)
                age_ms = self._now_ms() - since_ms
                oldest_ms = max(oldest_ms, age_ms)
                labelled(family, age_ms / 1_000, channel=text_of(name))
            yield [family] if view.has_rows else []
        self._seen = seen
        if not view.has_rows:
            yield [GaugeMetricFamily(NAME, TEXT, value=oldest_ms / 1_000)]

    def _channels(self) -> Iterator[tuple[str, Channel, int] | None]:
        """None for what holds nothing: no step looks at many of these."""
        for connection in self._connections:
            yield None
            for channel in tuple(connection.channels):
                tag = channel.unacked.oldest_tag
                yield (channel_name(connection, channel), channel, tag) if tag is not None else None

    def _since(self, channel: Channel, tag: int) -> tuple[int, int]:
        known = self._seen.get(channel)
        return known if known is not None and known[0] == tag else (tag, self._now_ms())
