"""Tables of numbers: told row by row, with labels, or as one sum a column.

A table has the columns of one or several of RabbitMQ's *families*, which `/metrics/detailed` is
asked for by their names.  It is read in pieces, between which the node goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from fluffle.broker.observability.metrics import families
from fluffle.broker.observability.metrics.families import Step, labelled, pieces
from fluffle.broker.runtime.background import in_pieces

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


class Table(NamedTuple):
    columns: tuple[Column, ...]
    read: Callable[[], Iterator[Reading | None]]
    """All rows; what they tell of may come and go meanwhile.  None stands for something that was
    looked at and has no row, so that no step looks at many of these."""
    together: Callable[[], tuple[float, ...]] | None = None
    """The values of all rows together, by column, or nothing; None: the sums of the rows."""


def anything(_labels: Labels) -> bool:
    return True


class TableView(NamedTuple):
    """What is wanted of tables."""

    endpoint: str
    prefix: str = "rabbitmq_"
    has_rows: bool = False
    """Whether each row is told, and not their sum."""
    families: frozenset[str] | None = None
    """None: all."""
    takes: Callable[[Labels], bool] = anything
    """Whether a row with these labels is told of."""
    read_at_once: int | None = None
    """Rows; None: as many as a step tells of."""

    def wants(self, families: str) -> bool:
        return self.families is None or not self.families.isdisjoint(families.split())


def table_steps(table: Table, view: TableView) -> Iterator[Step]:
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
    for piece in in_pieces(table.read(), view.read_at_once or families.PIECE):
        readings += (row for row in piece if row is not None and view.takes(row.labels))
        yield []
    for at, column in columns:
        yield [made(column, view)]
        for rows in pieces(readings):
            yield [with_rows(made(column, view), at, rows)]


def sum_steps(table: Table, columns: list[tuple[int, Column]], view: TableView) -> Iterator[Step]:
    if table.together is not None:
        told = table.together()
        families = [made(column, view) for _, column in columns]
        yield (
            [labelled(made(column, view), told[at]) for at, column in columns] if told else families
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
