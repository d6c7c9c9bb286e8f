"""Tables of numbers as metric families: row by row with labels, or one sum a column.

A table has the columns of one or several of RabbitMQ's *families*, which `/metrics/detailed` is
asked for by their names.  It is read in pieces, between which the node goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeAlias, TypeVar
from urllib.parse import parse_qs

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

from fluffle.broker.patterns.patterns import Finds, UnusablePattern, compiled_once
from fluffle.broker.runtime.background import in_pieces
from fluffle.storage.histogram import Histogram

PIECE = 500
"""Queues, connections or samples of one step: two milliseconds or so."""

RAFT = "ra_metrics"
"""RabbitMQ's family of metrics of Raft groups."""

T = TypeVar("T")

Step: TypeAlias = list[Metric]


def pieces(items: Iterable[T]) -> Iterator[list[T]]:
    """Lists of the items that one step shows or reads."""
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
    family = HistogramMetricFamily(name, text, labels=[*labels])
    add_histogram(family, [*labels.values()], counted)
    return family


def histograms(name: str, text: str, counted: Mapping[str, Histogram], *, label: str) -> Metric:
    """Return a family under its whole name, with a histogram for each value of its label."""
    family = HistogramMetricFamily(name, text, labels=[label])
    for value, each in counted.items():
        add_histogram(family, [value], each)
    return family


def add_histogram(family: HistogramMetricFamily, labels: list[str], counted: Histogram) -> None:
    bounds = [*map(floatToGoString, counted.bounds), "+Inf"]
    family.add_metric(labels, list(zip(bounds, counted.up_to, strict=True)), counted.total)


def text_of(name: str) -> str:
    """A name as UTF-8, which the page is in; octets in it that are none are spelled out."""
    return name if name.isascii() else name.encode(errors="backslashreplace").decode()


Kind: TypeAlias = type[GaugeMetricFamily] | type[CounterMetricFamily]

GAUGE, COUNTER = GaugeMetricFamily, CounterMetricFamily


Labels: TypeAlias = dict[str, str]


class Column(NamedTuple):
    name: str
    """Without the prefix, and without `_total`."""
    text: str
    families: str
    """With blanks between."""
    kind: Kind = GAUGE


class Reading(NamedTuple):
    """A row: what something was at one moment."""

    labels: Labels
    values: tuple[float | None, ...]
    """In the order of the columns; None where there is no such number."""


class MetricTable(NamedTuple):
    columns: tuple[Column, ...]
    read: Callable[[], Iterator[Reading | None]]
    """Function that reads all rows; objects may come and go meanwhile.  None stands for something
    that was looked at and has no row, so that no step looks at many of these."""
    together: Callable[[], tuple[float, ...]] | None = None
    """The values of all rows together, by column, or nothing; None: the sums of the rows."""


def anything(_labels: Labels) -> bool:
    return True


class TableView(NamedTuple):
    """The families and rows of tables that a request wants."""

    endpoint: str
    prefix: str = "rabbitmq_"
    has_rows: bool = False
    """True if each row is shown, and not their sum."""
    families: frozenset[str] | None = None
    """None: all."""
    takes: Callable[[Labels], bool] = anything
    """Filter of rows by their labels."""
    read_at_once: int | None = None
    """Rows read in one step; None: as many as a step shows."""

    def wants(self, families: str) -> bool:
        return self.families is None or not self.families.isdisjoint(families.split())


def table_steps(table: MetricTable, view: TableView) -> Iterator[Step]:
    """All that a view wants of a table, a piece at a time."""
    columns = [
        (at, column) for at, column in enumerate(table.columns) if view.wants(column.families)
    ]
    if not columns:
        return
    if not view.has_rows:
        yield from sum_steps(table, columns, view)
        return
    readings: list[Reading] = []
    for piece in in_pieces(table.read(), view.read_at_once or PIECE):
        readings += (row for row in piece if row is not None and view.takes(row.labels))
        yield []
    for at, column in columns:
        yield [made(column, view)]
        for rows in pieces(readings):
            yield [with_rows(made(column, view), at, rows)]


def sum_steps(
    table: MetricTable, columns: list[tuple[int, Column]], view: TableView
) -> Iterator[Step]:
    if table.together is not None:
        sums = table.together()
        families = [made(column, view) for _, column in columns]
        yield (
            [labelled(made(column, view), sums[at]) for at, column in columns] if sums else families
        )
        return
    totals = dict.fromkeys((at for at, _ in columns), 0.0)
    for piece in pieces(table.read()):
        for at in totals:
            totals[at] += sum(row.values[at] or 0 for row in piece if row is not None)
        yield []
    yield [labelled(made(column, view), totals[at]) for at, column in columns]


def made(column: Column, view: TableView) -> Metric:
    return column.kind(view.prefix + column.name, column.text)


def with_rows(family: Metric, at: int, readings: list[Reading]) -> Metric:
    for labels, values in readings:
        if (value := values[at]) is not None:
            labelled(family, value, **labels)
    return family


PATTERN_BYTES_MAX = 1_024
SEARCHED_AT_ONCE = 20
"""Names, for an expression of which each may take a millisecond."""


class InvalidQuery(ValueError):
    """Error in the query of a request, in words."""


def detailed_view(query: str) -> TableView:
    """InvalidQuery."""
    asked = parse_qs(query, keep_blank_values=True, errors="backslashreplace")
    vhosts = frozenset(asked["vhost"]) if "vhost" in asked else None
    finds = searched(asked.get("queue", []))
    view = TableView(
        "detailed",
        prefix="rabbitmq_detailed_",
        has_rows=True,
        families=frozenset(asked.get("family", ())),
        takes=taking(vhosts, finds),
    )
    return view if finds is None else view._replace(read_at_once=SEARCHED_AT_ONCE)


def searched(patterns: list[str]) -> Finds | None:
    """InvalidQuery."""
    if len(patterns) > 1:
        raise InvalidQuery("Only one 'queue' query parameter is allowed")
    pattern = "".join(patterns)
    if len(pattern.encode()) > PATTERN_BYTES_MAX:
        raise InvalidQuery("'queue' regex too long")
    try:
        return compiled_once(pattern) if pattern else None
    except UnusablePattern as error:
        raise InvalidQuery(f"Invalid 'queue' regex: {error}") from error


def taking(vhosts: frozenset[str] | None, finds: Finds | None) -> Callable[[Labels], bool]:
    """Filter of rows by virtual hosts and by a pattern of names."""

    def takes(labels: Labels) -> bool:
        vhost = labels.get("vhost", labels.get("queue_vhost"))
        if vhosts is not None and vhost is not None and vhost not in vhosts:
            return False
        return finds is None or "queue" not in labels or finds(labels["queue"].encode())

    return takes
