"""queues.statistics, exchanges.statistics, queues.volumes, statistics.*: counts of a node or of
all.

    queues.counted ---- of this node ----+
    queues.counted ---- of another ------+--> added, object by object --> queues.statistics

A message that is published at one node and delivered at another has been seen by both: each counts
what its own clients do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any, TypeAlias

from fluffle.broker.access.limits import LimitedResource
from fluffle.broker.admin.all_nodes import rows as rows_everywhere
from fluffle.broker.admin.context import NodeContext, Row, Rows
from fluffle.broker.base.errors import SyntaxFailure
from fluffle.broker.core.client import WITHOUT_CHANNELS, channel_name
from fluffle.broker.queues.queue_api import Deferred
from fluffle.broker.statistics.report import (
    SAMPLES_MAX,
    SampleWindow,
    SampleWindows,
    added,
    windows_of,
)
from fluffle.broker.statistics.statistics import ByChannel, Statistics
from fluffle.broker.statistics.volumes import NOTHING, Held, note_held, volume_row
from fluffle.broker.vhosts.vhost import VirtualHost

if TYPE_CHECKING:
    from fluffle.broker.core.client import Client, SessionChannel

Key: TypeAlias = tuple[str, str]
"""Virtual host and name."""

Names: TypeAlias = Callable[[VirtualHost], Iterator[str]]
Find: TypeAlias = Callable[[Statistics, str, str, SampleWindows], Row]


def ages_asked(ages: dict[str, Any] | None) -> SampleWindows:
    """Sample windows of a request, from RabbitMQ's parameters.  SyntaxFailure, with its text."""
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
    """Yield the counts of each object that clients of this node have used."""
    past, hosts = ages_asked(ages), context.vhosts(vhost)
    statistics = context.statistics
    if statistics is None:
        return
    for host in hosts:
        for each in wanted(known(host), name, names):
            if row := find(statistics, host.name, each, past):
                yield {"vhost": host.name, "name": each, **row}


def wanted(known: Iterator[str], name: str | None, names: list[str] | None) -> Iterable[str]:
    """Return the one name, the names, or all known ones."""
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
    for answer in rows_everywhere(context, what=what, arguments=given):
        if isinstance(answer, Deferred):
            yield answer
        elif "row" in answer:
            row = answer["row"]
            key = row["vhost"], row["name"]
            found[key] = added((found[key], row)) if key in found else row
    yield from found.values()


def deliveries(
    context: NodeContext, *, vhost: str, name: str, ages: dict[str, Any] | None = None
) -> Rows:
    """Yield the deliveries of a queue by channel of this node.  NotFound, SyntaxFailure."""
    past, statistics = ages_asked(ages), context.statistics
    context.vhost(vhost)
    counted_rows = statistics.deliveries(vhost, name, past) if statistics is not None else ()
    return by_channel(context, counted_rows)


def publishes(
    context: NodeContext, *, vhost: str, name: str, ages: dict[str, Any] | None = None
) -> Rows:
    """Yield the publishes to an exchange by channel of this node.  NotFound, SyntaxFailure."""
    past, statistics = ages_asked(ages), context.statistics
    context.vhost(vhost)
    counted_rows = statistics.publishes(vhost, name, past) if statistics is not None else ()
    return by_channel(context, counted_rows)


def by_channel(context: NodeContext, counted_rows: Iterable[ByChannel]) -> Rows:
    for connection, channel, stats in counted_rows:
        details = channel_details(context, connection, channel)
        yield {"stats": stats, "channel_details": details}


def volumes_here(
    context: NodeContext, *, vhost: str | None = None, names: list[str] | None = None
) -> Rows:
    """The volumes that this node has of each queue, or of some.  NotFound."""
    hosts = context.vhosts(vhost)
    held: Held = {}
    for connection in context.connections.listed:
        note_held(connection, held)
    for host in hosts:
        for name in tuple(host.queues) if names is None else names:
            queue = host.queues.get(name)
            if queue is None:
                continue
            row = volume_row(context.cluster_view, queue, held.get((host.name, name), NOTHING))
            if row is not None:
                yield {"vhost": host.name, "name": name, **row}


def node_statistics(
    context: NodeContext,
    *,
    messages: list[int] | None = None,
    lengths: list[int] | None = None,
    data: list[int] | None = None,
) -> Row:
    """Row of `message_stats`, `queue_totals` and `churn_rates`; empty without statistics."""
    if context.statistics is None:
        return {}
    windows = SampleWindows(age_of(messages), age_of(lengths), age_of(data))
    return {**context.statistics.totals(windows), "churn_rates": context.statistics.churn(windows)}


def vhost_statistics(
    context: NodeContext,
    *,
    messages: list[int] | None = None,
    lengths: list[int] | None = None,
    data: list[int] | None = None,
) -> Rows:
    """Each with its clients: `connections`, `channels`, `consumers`."""
    windows = SampleWindows(age_of(messages), age_of(lengths), age_of(data))
    channels, consumers = clients_of(context)
    names = tuple(context.catalogue.vhosts)
    nothing: Iterator[Row] = repeat({})
    counted = (
        context.statistics.of_vhosts(names, windows) if context.statistics is not None else nothing
    )
    for name, counts in zip(names, counted, strict=False):
        yield {
            "name": name,
            "connections": context.access.usage.here[LimitedResource.CONNECTIONS_TO_VHOST][name],
            "channels": channels[name],
            "consumers": consumers[name],
            **counts,
        }


def logins(context: NodeContext) -> Rows:
    """Attempts to log in, by protocol."""
    for protocol, counted in context.runtime.traffic.logins.items():
        yield {
            "protocol": protocol,
            "auth_attempts": counted.attempted,
            "auth_attempts_failed": counted.failed,
            "auth_attempts_succeeded": counted.succeeded,
        }


def clients_of(context: NodeContext) -> tuple[Counter[str], Counter[str]]:
    """Channels and consumers by virtual host."""
    channels, consumers = Counter[str](), Counter[str]()
    for connection in context.connections.listed:
        for channel in connection.channels:
            vhost = channel.session.vhost.name
            channels[vhost] += channel.number != WITHOUT_CHANNELS
            consumers[vhost] += len(channel.subscriptions)
    return channels, consumers


def age_of(numbers: list[int] | None) -> SampleWindow | None:
    """SyntaxFailure for what is no past."""
    if numbers is None:
        return None
    is_age = len(numbers) == len(SampleWindow._fields) and all(number > 0 for number in numbers)
    if not is_age or numbers[0] // numbers[1] > SAMPLES_MAX:
        raise SyntaxFailure(f"a past is so many seconds, and seconds apart, not {numbers}")
    return SampleWindow(*numbers)


def channel_details(context: NodeContext, client: Client, channel: SessionChannel) -> Row:
    """Columns that identify a channel and its connection."""
    return {
        "name": channel_name(client, channel) if channel.number else "",
        "number": channel.number,
        "node": context.config.node_name,
        "user": channel.session.user.name,
        "connection_name": client.name,
        "peer_host": client.ends[0][0],
        "peer_port": client.ends[0][1],
    }


READS: Mapping[str, Callable[..., Any]] = {
    "queues.counted": partial(counted, queue_names, of_queue),
    "queues.statistics": partial(added_up, "queues.counted"),
    "queues.used": partial(counted, queue_names, use_of_queue),
    "queues.uses": partial(added_up, "queues.used"),
    "queues.deliveries": deliveries,
    "exchanges.publishes": publishes,
    "exchanges.counted": partial(counted, exchange_names, of_exchange),
    "exchanges.statistics": partial(added_up, "exchanges.counted"),
    "queues.volume": volumes_here,
    "queues.volumes": partial(added_up, "queues.volume"),
    "statistics.node": node_statistics,
    "statistics.vhosts": vhost_statistics,
    "statistics.logins": logins,
}
