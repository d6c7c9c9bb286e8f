"""queues.statistics and exchanges.statistics: what has happened to each, at all nodes together.

    queues.counted ---- of this node ----+
    queues.counted ---- of another ------+--> added, object by object --> queues.statistics

A message that is published at one node and delivered at another has been seen by both: each counts
what its own clients do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

from fluffle.broker.admin.all_nodes import rows as rows_everywhere
from fluffle.broker.admin.clients import channel_details
from fluffle.broker.admin.context import NodeContext, Row, Rows
from fluffle.broker.base.errors import SyntaxFailure
from fluffle.broker.observability.statistics.rows import added
from fluffle.broker.observability.statistics.sample_window import SampleWindows, windows_of
from fluffle.broker.observability.statistics.statistics import ByChannel, Statistics
from fluffle.broker.queues.queue_api import Deferred
from fluffle.broker.vhosts.vhost import VirtualHost

Key: TypeAlias = tuple[str, str]
"""Virtual host and name."""

Names: TypeAlias = Callable[[VirtualHost], Iterator[str]]
Find: TypeAlias = Callable[[Statistics, str, str, SampleWindows], Row]


def ages_asked(ages: dict[str, Any] | None) -> SampleWindows:
    """Which past is wanted, as RabbitMQ's parameters say it.  SyntaxFailure, with its text."""
    try:
        return windows_of({name: str(value) for name, value in (ages or {}).items()})
    except ValueError as error:
        raise SyntaxFailure(str(error)) from error


def queue_names(vhost: VirtualHost) -> Iterator[str]:
    return iter(tuple(vhost.queues))


def exchange_names(vhost: VirtualHost) -> Iterator[str]:
    return iter([exchange.name for exchange in vhost.topology.exchanges()])


def of_queue(statistics: Statistics, vhost: str, name: str, ages: SampleWindows) -> Row:
    return statistics.of_queue(vhost, name, ages)


def use_of_queue(statistics: Statistics, vhost: str, name: str, _ages: SampleWindows) -> Row:
    """Whatever past is asked for."""
    return statistics.use_of_queue(vhost, name)


def of_exchange(statistics: Statistics, vhost: str, name: str, ages: SampleWindows) -> Row:
    return statistics.of_exchange(vhost, name, ages)


def counted(
    known: Names,
    find: Find,
    context: NodeContext,
    *,
    vhost: str | None = None,
    name: str | None = None,
    names: list[str] | None = None,
    ages: dict[str, Any] | None = None,
) -> Rows:
    """What clients of this node have done with each, as far as they have done anything."""
    past, hosts = ages_asked(ages), context.vhosts(vhost)
    statistics = context.statistics
    if statistics is None:
        return
    for host in hosts:
        for each in wanted(known(host), name, names):
            if row := find(statistics, host.name, each, past):
                yield {"vhost": host.name, "name": each, **row}


def wanted(known: Iterator[str], name: str | None, names: list[str] | None) -> Iterable[str]:
    """One, or some, or all that there are."""
    if name is not None:
        return (name,)
    return known if names is None else names


def added_up(
    what: str,
    context: NodeContext,
    *,
    vhost: str | None = None,
    name: str | None = None,
    names: list[str] | None = None,
    ages: dict[str, Any] | None = None,
) -> Rows:
    """The same of all nodes that can be asked.  NotFound, SyntaxFailure."""
    ages_asked(ages)
    context.vhosts(vhost)
    arguments = {"vhost": vhost, "name": name, "names": names, "ages": ages}
    given = {word: value for word, value in arguments.items() if value is not None}
    found: dict[Key, Row] = {}
    for told in rows_everywhere(context, what=what, arguments=given):
        if isinstance(told, Deferred):
            yield told
        elif "row" in told:
            row = told["row"]
            key = row["vhost"], row["name"]
            found[key] = added((found[key], row)) if key in found else row
    yield from found.values()


def deliveries(
    context: NodeContext, *, vhost: str, name: str, ages: dict[str, Any] | None = None
) -> Rows:
    """What each channel of this node has got from a queue.  NotFound, SyntaxFailure."""
    past, statistics = ages_asked(ages), context.statistics
    context.vhost(vhost)
    told = statistics.deliveries(vhost, name, past) if statistics is not None else ()
    return by_channel(context, told)


def publishes(
    context: NodeContext, *, vhost: str, name: str, ages: dict[str, Any] | None = None
) -> Rows:
    """What each channel of this node has published to an exchange.  NotFound, SyntaxFailure."""
    past, statistics = ages_asked(ages), context.statistics
    context.vhost(vhost)
    told = statistics.publishes(vhost, name, past) if statistics is not None else ()
    return by_channel(context, told)


def by_channel(context: NodeContext, told: Iterable[ByChannel]) -> Rows:
    for connection, channel, stats in told:
        details = channel_details(context, connection, channel)
        yield {"stats": stats, "channel_details": details}


READS: Mapping[str, Callable[..., Any]] = {
    "queues.counted": partial(counted, queue_names, of_queue),
    "queues.statistics": partial(added_up, "queues.counted"),
    "queues.used": partial(counted, queue_names, use_of_queue),
    "queues.uses": partial(added_up, "queues.used"),
    "queues.deliveries": deliveries,
    "exchanges.publishes": publishes,
    "exchanges.counted": partial(counted, exchange_names, of_exchange),
    "exchanges.statistics": partial(added_up, "exchanges.counted"),
}
