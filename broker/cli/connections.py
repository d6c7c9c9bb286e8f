"""`fluffle connections`, `fluffle channels`, `fluffle consumers`."""

from __future__ import annotations

from collections.abc import Iterable

import click

from fluffle.broker.cli.client import NodeClient, close_everywhere, rows_everywhere
from fluffle.broker.cli.options import (
    connection_names,
    on_node,
    only_vhost,
    prints_rows,
    user_names,
    vhost_names,
)
from fluffle.broker.cli.output import Row


@click.group()
def connections() -> None:
    """Connections: who is there, and out with them."""


@connections.command("list")
@prints_rows(
    "name",
    "user_provided_name",
    "client_id",
    "user",
    "vhost",
    "protocol",
    "state",
    "channels",
    more=[
        "node",
        *("peer_host", "peer_port", "host", "port", "type"),
        *("timeout", "channel_max", "frame_max"),
        *("auth_mechanism", "connected_at", "client_properties", "user_who_performed_action"),
        *("ssl", "ssl_protocol", "ssl_key_exchange", "ssl_cipher", "ssl_hash"),
        *("peer_cert_subject", "peer_cert_issuer", "peer_cert_validity"),
    ],
)
def list_connections(client: NodeClient) -> Iterable[Row]:
    """All connections, at whichever node of the cluster.

    Under an alarm, who has tried to publish is blocked, and who has not is blocking. A publisher
    that waits for slow consumers or for the disk is in flow.
    """
    for row in rows_everywhere(client, "connections.list"):
        yield {**row, "client_id": row["client_properties"].get("client_id")}


@connections.command()
@click.argument("name", required=False, shell_complete=connection_names)
@click.option("--user", metavar="NAME", shell_complete=user_names, help="All of this user.")
@click.option(
    "--vhost", "-p", metavar="NAME", shell_complete=vhost_names, help="All in this virtual host."
)
@click.option("--all", "everybody", is_flag=True, help="All there are.")
@click.option("--reason", metavar="TEXT", help="Reason that the clients get.")
@on_node
def close(
    client: NodeClient,
    *,
    name: str | None,
    user: str | None,
    vhost: str | None,
    everybody: bool,
    reason: str | None,
) -> None:
    """Close connections with 320 CONNECTION_FORCED, at whichever node; prints how many.

    NAME is the one that `fluffle connections list` shows.
    """
    if name is None and user is None and vhost is None and not everybody:
        raise click.UsageError("say which: NAME, --user, --vhost or --all")
    click.echo(
        close_everywhere(
            client, name=name, user=user, vhost=vhost, everybody=everybody, reason=reason
        )
    )


@click.group()
def channels() -> None:
    """Channels: what they are for, and what is unsettled."""


@channels.command("list")
@prints_rows(
    "name",
    "user",
    "vhost",
    "consumer_count",
    "messages_unacknowledged",
    "prefetch_count",
    more=[
        *("node", "connection", "connection_details", "number", "state"),
        *("transactional", "confirm", "global_prefetch_count", "user_who_performed_action"),
        *("messages_unconfirmed", "messages_uncommitted", "acks_uncommitted"),
        "pending_raft_commands",
    ],
)
def list_channels(client: NodeClient) -> Iterable[Row]:
    """All channels that are open, at whichever node."""
    return rows_everywhere(client, "channels.list")


@click.group()
def consumers() -> None:
    """Consumers: who takes from which queue."""


@consumers.command("list")
@prints_rows(
    "vhost",
    "queue_name",
    "consumer_tag",
    "channel",
    "ack_required",
    "prefetch_count",
    "messages_unacknowledged",
    more=[
        *("exclusive", "priority", "active", "activity_status", "arguments"),
        *("queue", "channel_details", "consumer_timeout"),
    ],
)
@only_vhost
def list_consumers(client: NodeClient, vhost: str | None) -> Iterable[Row]:
    """All consumers of queues, at whichever node."""
    return rows_everywhere(client, "consumers.list", vhost=vhost)
