"""`fluffle mqtt`: sessions of clients of MQTT, and what topics retain."""

from __future__ import annotations

from collections.abc import Iterable

import click

from fluffle.broker.cli.client import NodeClient, rows_everywhere
from fluffle.broker.cli.options import (
    as_json,
    in_vhost,
    on_node,
    only_vhost,
    print_row,
    prints_rows,
)
from fluffle.broker.cli.output import Row


@click.group()
def mqtt() -> None:
    """MQTT: sessions of its clients, and what topics retain."""


@mqtt.command()
@prints_rows(
    "vhost",
    "client_id",
    "user",
    "connection",
    "expiry_s",
    "expires_at_ms",
    "filters",
    more=[
        *("node", "subscriptions", "queues"),
        *("packets_from_client", "packets_to_client"),
    ],
)
@only_vhost
def sessions(client: NodeClient, vhost: str | None) -> Iterable[Row]:
    """All sessions, at whichever node; who is away has no connection, and a time when its session
    ends, in milliseconds since 1970, unless it lasts for ever.

    A session ends with a queue of it: `fluffle queues delete` ends one.
    """
    for row in rows_everywhere(client, "sessions.list", vhost=vhost):
        yield {**row, "filters": [each["topic_filter"] for each in row["subscriptions"]]}


@mqtt.command()
@prints_rows("vhost", "topic", "user", "payload_bytes", more=["stored_at_ms", "expires_at_ms"])
@only_vhost
def retained(client: NodeClient, vhost: str | None) -> Iterable[Row]:
    """All topics that retain a message."""
    return client.rows("retained.list", vhost=vhost)


@mqtt.command("retained-show")
@click.argument("topic")
@in_vhost
@as_json
@on_node
def show_retained(client: NodeClient, *, topic: str, vhost: str, is_json: bool) -> None:
    """Show the message that a topic retains, with properties and payload."""
    print_row(client.call("retained.show", topic=topic, vhost=vhost), is_json=is_json)


@mqtt.command("retained-clear")
@click.argument("topic", required=False)
@click.option("--all", "everything", is_flag=True, help="All of the virtual host.")
@in_vhost
@on_node
def clear_retained(client: NodeClient, *, topic: str | None, vhost: str, everything: bool) -> None:
    """Remove the message that a topic retains; with --all those of all topics, and print how many.

    No client hears of it.
    """
    if (topic is None) is not everything:
        raise click.UsageError("say which: TOPIC or --all")
    if everything:
        click.echo(client.call("retained.clear_all", vhost=vhost)["messages"])
    else:
        client.call("retained.clear", topic=topic, vhost=vhost)
