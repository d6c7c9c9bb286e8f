"""statistics.*: what is going on at this node, as RabbitMQ's management tells it.

The past is asked for in seconds: `messages=[600, 5]` are the last ten minutes, a sample each 5 s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from typing import Any

from fluffle.broker.access.limits import Counted
from fluffle.broker.admin.context import Parts, Row, Rows
from fluffle.broker.base.errors import SyntaxFailure
from fluffle.broker.base.traffic import Traffic
from fluffle.broker.observability.statistics.sample_window import SAMPLES_MAX, Age, Ages


def of_node(
    parts: Parts,
    *,
    messages: list[int] | None = None,
    lengths: list[int] | None = None,
    data: list[int] | None = None,
) -> Row:
    """`message_stats`, `queue_totals` and `churn_rates`; nothing where nobody counts."""
    if parts.statistics is None:
        return {}
    ages = Ages(age_of(messages), age_of(lengths), age_of(data))
    return {**parts.statistics.totals(ages), "churn_rates": parts.statistics.churn(ages)}


def of_vhosts(
    parts: Parts,
    *,
    messages: list[int] | None = None,
    lengths: list[int] | None = None,
    data: list[int] | None = None,
) -> Rows:
    """Each with its clients: `connections`, `channels`, `consumers`."""
    ages = Ages(age_of(messages), age_of(lengths), age_of(data))
    channels, consumers = clients_of(parts)
    names = tuple(parts.catalogue.vhosts)
    nothing: Iterator[Row] = repeat({})
    counted = parts.statistics.of_vhosts(names, ages) if parts.statistics is not None else nothing
    for name, counts in zip(names, counted, strict=False):
        yield {
            "name": name,
            "connections": parts.access.usage.here[Counted.CONNECTIONS_TO_VHOST][name],
            "channels": channels[name],
            "consumers": consumers[name],
            **counts,
        }


def logins(parts: Parts) -> Row:
    """Attempts to log in by AMQP."""
    traffic = parts.traffic or Traffic()
    right, wrong = traffic.logins_succeeded, traffic.logins_failed
    return {
        "protocol": "amqp091",
        "auth_attempts": right + wrong,
        "auth_attempts_failed": wrong,
        "auth_attempts_succeeded": right,
    }


def clients_of(parts: Parts) -> tuple[Counter[str], Counter[str]]:
    """Channels and consumers by virtual host."""
    channels, consumers = Counter[str](), Counter[str]()
    for connection in parts.connections:
        for channel in connection.channels:
            vhost = channel.session.vhost.name
            channels[vhost] += 1
            consumers[vhost] += len(channel.subscriptions)
    return channels, consumers


def age_of(numbers: list[int] | None) -> Age | None:
    """SyntaxFailure for what is no past."""
    if numbers is None:
        return None
    is_age = len(numbers) == len(Age._fields) and all(number > 0 for number in numbers)
    if not is_age or numbers[0] // numbers[1] > SAMPLES_MAX:
        raise SyntaxFailure(f"a past is so many seconds, and seconds apart, not {numbers}")
    return Age(*numbers)


READS: Mapping[str, Callable[..., Any]] = {
    "statistics.node": of_node,
    "statistics.vhosts": of_vhosts,
    "statistics.logins": logins,
}
