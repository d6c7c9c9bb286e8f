"""Rows of all nodes of a cluster, whichever of them a command is given to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

from fluffle.broker.cli.client import Client, RequestRefused, Row
from fluffle.broker.cli.tables import shown


def rows_everywhere(client: Client, verb: str, **arguments: object) -> Iterator[Row]:
    """Yield the rows of all nodes; of one that says nothing a word on stderr.  Refused;
    Unreachable."""
    for answer in answers_of_nodes(client, verb, arguments):
        if "error" in answer:
            raise refusal(answer)
        yield answer["row"]


def close_everywhere(client: Client, **which: object) -> int:
    """Return how many connections were closed.  Refused if no node has what was meant;
    Unreachable."""
    answer = list(answers_of_nodes(client, "connections.close", which))
    done = [each["row"]["closed"] for each in answer if "row" in each]
    if not done and answer:
        raise refusal(answer[0])
    return sum(done)


def answers_of_nodes(client: Client, verb: str, arguments: Row) -> Iterator[Row]:
    """Yield a `row` or an `error` of a node each."""
    given = {name: value for name, value in arguments.items() if value is not None}
    for answer in client.rows("everywhere.rows", what=verb, arguments=given):
        if "silent" in answer:
            who, why = shown(answer["node"]), shown(answer["silent"])
            click.echo(f"node '{who}' tells nothing: {why}", err=True)
        else:
            yield answer


def refusal(answer: Row) -> RequestRefused:
    return RequestRefused(shown(answer["error"]["text"]), answer["error"]["code"])


VOLUMES = (
    "message_bytes", "message_bytes_ready", "message_bytes_unacknowledged", "message_bytes_ram",
    "message_bytes_persistent", "messages_ram", "messages_ready_ram", "messages_unacknowledged_ram",
    "messages_persistent", "memory", "head_message_timestamp",
)  # fmt: skip
"""Measured columns that rabbitmqctl has."""

MORE_VOLUMES = (
    "messages_paged_out", "message_bytes_paged_out", "messages_ready_high",
    "messages_ready_normal", "messages_ready_returned", "messages_dlx", "message_bytes_dlx",
)  # fmt: skip
"""Measured columns that only RabbitMQ's management API has; the last five are of quorum queues."""


def with_volumes(client: Client, rows: Iterable[Row], vhost: str | None) -> Iterator[Row]:
    """Queues with how much is in each, and null for what no node knows."""
    measured = client.rows("queues.volumes", vhost=vhost)
    volumes = {(row["vhost"], row["name"]): row for row in measured}
    nothing = dict.fromkeys((*VOLUMES, *MORE_VOLUMES))
    return ({**nothing, **volumes.get((row["vhost"], row["name"]), {}), **row} for row in rows)
