"""Families of metrics: made under RabbitMQ's names, a piece at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias, TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

from fluffle.broker.runtime.background import in_pieces
from fluffle.storage.histogram import Histogram

PIECE = 500
"""Queues, connections or samples of one step: two milliseconds or so."""

RAFT = "ra_metrics"
"""RabbitMQ's family of what is told of Raft groups."""

T = TypeVar("T")

Step: TypeAlias = list[Metric]


def pieces(items: Iterable[T]) -> Iterator[list[T]]:
    """As many as a step tells of, or reads."""
    return in_pieces(items, PIECE)


def gauge(name: str, text: str, value: float | None = None) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"rabbitmq_{name}", text, value=value)


def counter(name: str, text: str, value: float | None = None) -> CounterMetricFamily:
    """`_total` is added to its name."""
    return CounterMetricFamily(f"rabbitmq_{name}", text, value=value)


def labelled(family: Metric, value: float = 1, **labels: str) -> Metric:
    """Add a sample to a family."""
    suffix = "_total" if family.type == "counter" else ""
    family.add_sample(family.name + suffix, labels, value)
    return family


def histogram(name: str, text: str, counted: Histogram, **labels: str) -> Metric:
    """Under its whole name."""
    bounds = [*map(floatToGoString, counted.bounds), "+Inf"]
    family = HistogramMetricFamily(name, text, labels=[*labels])
    family.add_metric(
        [*labels.values()], list(zip(bounds, counted.up_to, strict=True)), counted.total
    )
    return family


def text_of(name: str) -> str:
    """A name as UTF-8, which the page is in; octets in it that are none are spelled out."""
    return name if name.isascii() else name.encode(errors="backslashreplace").decode()
