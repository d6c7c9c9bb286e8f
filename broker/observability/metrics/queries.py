"""GET /metrics/detailed: what its parameters ask for, as RabbitMQ reads them.

`family` and `vhost` may be given several times; `queue` is a regular expression that is searched
for in the names of queues.  What is no family, or no virtual host, asks for nothing.  Rows that
name no virtual host, or no queue, are told whatever is asked of those.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qs

from fluffle.broker.observability.metrics.tables import Labels, TableView
from fluffle.broker.patterns.patterns import Finds, UnusablePattern, compiled_once

PATTERN_BYTES_MAX = 1_024
SEARCHED_AT_ONCE = 20
"""Names, for an expression of which each may take a millisecond."""


class InvalidQuery(ValueError):
    """It says what is wrong."""


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
    """Whether a row is wanted, by its labels."""

    def takes(labels: Labels) -> bool:
        vhost = labels.get("vhost", labels.get("queue_vhost"))
        if vhosts is not None and vhost is not None and vhost not in vhosts:
            return False
        return finds is None or "queue" not in labels or finds(labels["queue"].encode())

    return takes
