"""statistics.*: what is going on at this node, as RabbitMQ's management tells it.

The past is asked for in seconds: `messages=[600, 5]` are the last ten minutes, a sample each 5 s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from typing import Any

from fluffle.broker.access.limits import LimitedResource
from fluffle.broker.admin.context import NodeContext, Row, Rows
from fluffle.broker.base.errors import SyntaxFailure
from fluffle.broker.base.traffic import Traffic
from fluffle.broker.observability.statistics.sample_window import (
    SAMPLES_MAX,
    SampleWindow,
    SampleWindows,
)


def node_statistics(
    context: NodeContext,
    *,
    messages: list[int] | None = None,
    lengths: list[int] | None = None,
    data: list[int] | None = None,
) -> Row:
    """`message_stats`, `queue_totals` and `churn_rates`; nothing where nobody counts."""
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


def logins(context: NodeContext) -> Row:
    """Attempts to log in by AMQP."""
    traffic = context.traffic or Traffic()
    right, wrong = traffic.logins_succeeded, traffic.logins_failed
    return {
        "protocol": "amqp091",
        "auth_attempts": right + wrong,
        "auth_attempts_failed": wrong,
        "auth_attempts_succeeded": right,
    }


def clients_of(context: NodeContext) -> tuple[Counter[str], Counter[str]]:
    """Channels and consumers by virtual host."""
    channels, consumers = Counter[str](), Counter[str]()
    for connection in context.connections:
        for channel in connection.channels:
            vhost = channel.session.vhost.name
            channels[vhost] += 1
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


READS: Mapping[str, Callable[..., Any]] = {
    "statistics.node": node_statistics,
    "statistics.vhosts": vhost_statistics,
    "statistics.logins": logins,
}
