"""How much there is of what, and what is going on, in the whole cluster: all nodes' rows added."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from typing import Any

from fluffle.broker.admin.context import Row
from fluffle.broker.base.errors import NotFound
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.responses import unlike
from fluffle.broker.statistics.report import SampleWindows, added, windows_of

AGES: Mapping[str, str] = {
    "msg_rates_age": "how much of the past is wanted of what happens, in seconds",
    "msg_rates_incr": "a sample each so many seconds",
    "lengths_age": "how much of the past is wanted of how many messages there were, in seconds",
    "lengths_incr": "a sample each so many seconds",
}
"""Parameters for samples of queues and exchanges."""

COUNTS = (
    "message_stats", "_details", "consumer_capacity", "consumer_utilisation", "idle_since",
    "publishers",
)  # fmt: skip
"""Parts of column names for columns that hold statistics."""
VOLUMES = (
    "message_bytes", "_ram", "messages_persistent", "memory", "head_message_timestamp",
    "messages_ready_", "messages_dlx",
)  # fmt: skip
"""Parts of column names for columns that hold measurements."""

OF_LISTS, OF_OBJECTS = "invalid_range_parameters", "bad_request"
"""RabbitMQ's names of the refusal of a past that is too long: in lists of queues, exchanges and
virtual hosts, and everywhere else."""

OBJECTS = ("connections", "channels", "consumers")
"""Kinds of objects that each node knows of itself alone."""


def windows_asked(call: Call, refusal: str = OF_OBJECTS) -> SampleWindows:
    """Sample windows of the query.  Refusal."""
    try:
        return windows_of(call.query)
    except ValueError as error:
        raise unlike(refusal, str(error)) from None


def check_windows(call: Call) -> None:
    """Refuse a list of queues or exchanges whose past is too long, be it empty."""
    if are_wanted(call, COUNTS):
        windows_asked(call, OF_LISTS)


async def objects_and_counts(call: Call, windows: SampleWindows) -> Row:
    """`message_stats`, `queue_totals`, `churn_rates` and `object_totals`.

    A user who does not monitor gets those of the virtual hosts that he may look at.
    """
    visible = set(call.visible_vhosts())
    vhosts = [row for row in await counts_of_vhosts(call, windows) if row["name"] in visible]
    nodes = await rows_of_nodes(call, "statistics.node", windows)
    total = added(nodes)
    if not call.is_monitor:
        total = added(counted(row) for row in vhosts)
    return {
        "message_stats": total.get("message_stats", {}),
        "churn_rates": added(nodes).get("churn_rates", {}),
        "queue_totals": total.get("queue_totals", {}),
        "object_totals": {
            **{name: sum(row[name] for row in vhosts) for name in OBJECTS},
            **objects_of(call, visible),
        },
    }


def objects_of(call: Call, visible: set[str]) -> Row:
    """Totals of what every node knows."""
    vhosts = [each for name, each in call.context.catalogue.vhosts.items() if name in visible]
    return {
        "exchanges": sum(sum(1 for _ in vhost.topology.exchanges()) for vhost in vhosts),
        "queues": sum(len(vhost.queues) for vhost in vhosts),
    }


def counted(row: Row) -> Row:
    """A row of a virtual host as one of a node."""
    totals = {name: value for name, value in row.items() if name.startswith("messages")}
    return {"message_stats": row.get("message_stats", {}), "queue_totals": totals}


async def counts_of_vhosts(call: Call, windows: SampleWindows) -> list[Row]:
    """Rows by virtual host: `connections`, `channels`, `consumers`, and the columns of
    `Statistics.of_vhost`."""
    by_name: dict[str, list[Row]] = {}
    for row in await rows_of_nodes(call, "statistics.vhosts", windows):
        by_name.setdefault(row["name"], []).append(row)
    return [{**added(rows), "name": name} for name, rows in by_name.items()]


async def rows_of_nodes(call: Call, verb: str, windows: SampleWindows) -> list[Row]:
    """Rows of all nodes for a verb, without the column `node`."""
    arguments: dict[str, Any] = {
        name: list(age) for name, age in windows._asdict().items() if age is not None
    }
    rows = await call.rows_everywhere(verb, **arguments)
    return [{name: value for name, value in row.items() if name != "node"} for row in rows]


def past_asked(call: Call, refusal: str = OF_OBJECTS) -> Row:
    """Sample parameters of the query, in the form that verbs take.  Refusal."""
    windows_asked(call, refusal)
    return {name: value for name, value in call.query.items() if name.endswith(("_age", "_incr"))}


def are_wanted(call: Call, words: Iterable[str]) -> bool:
    """Not by who names columns without any of these words, and no such order."""
    said = call.query.get("columns", "")
    return not said or any(word in f"{said},{call.query.get('sort', '')}" for word in words)


async def by_channel(call: Call, verb: str, vhost: str, name: str) -> list[Row]:
    """Rows of the statistics of a queue or an exchange by channel, of all nodes."""
    answers = await call.rows_everywhere(verb, vhost=vhost, name=name, ages=past_asked(call))
    return [{"stats": row["stats"], "channel_details": row["channel_details"]} for row in answers]


async def with_counts(call: Call, verb: str, rows: Iterable[Row]) -> list[Row]:
    """`verb` has a row for each that anything has happened to: `message_stats`, and rates.

    It is asked for these alone, a virtual host at a time.
    """
    if not are_wanted(call, COUNTS):
        return [*rows]
    refusal = OF_OBJECTS if "name" in call.path else OF_LISTS
    return await joined(call, verb, rows, ages=past_asked(call, refusal))


async def with_volumes(call: Call, rows: Iterable[Row]) -> list[Row]:
    """Queues, with how many bytes are in each, if that is wanted."""
    if not are_wanted(call, VOLUMES):
        return [*rows]
    return await joined(call, "queues.volumes", rows)


async def joined(call: Call, verb: str, rows: Iterable[Row], **more: Any) -> list[Row]:
    """Rows with those that a verb has of them, asked for a virtual host at a time."""
    of_vhosts = groupby(rows, itemgetter("vhost"))
    found: list[Row] = []
    for vhost, some in ((vhost, [*some]) for vhost, some in of_vhosts):
        names = [row["name"] for row in some]
        counts: dict[str, Row] = {}
        with suppress(NotFound):  # the virtual host is gone since its rows were made
            answers = await call.rows(verb, vhost=vhost, names=names, **more)
            counts = {row["name"]: row for row in answers}
        found += ({**row, **counts.get(row["name"], {})} for row in some)
    return found
