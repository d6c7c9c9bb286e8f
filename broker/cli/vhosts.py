"""`fluffle vhosts`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from fluffle.broker.cli.client import NodeClient
from fluffle.broker.cli.options import limit_options, on_node, prints_rows, vhost_names
from fluffle.broker.cli.output import Row

MORE = (
    "description", "tags", "default_queue_type", "metadata", "max_connections", "max_queues",
    "protected_from_deletion", "tracing",
)  # fmt: skip
TYPES = click.Choice(["classic", "quorum"])

description_option = click.option("--description", metavar="TEXT", help="What it is for.")
tags_option = click.option("--tags", metavar="TAG,…", help="Words of your own.")


@click.group()
def vhosts() -> None:
    """Virtual hosts, whose queues know nothing of each other."""


@vhosts.command("list")
@prints_rows("name", "queues", "connections", more=MORE)
def list_vhosts(client: NodeClient) -> Iterable[Row]:
    """All virtual hosts."""
    return client.rows("vhosts.list")


def tags_of(text: str | None) -> list[str] | None:
    """Return what stands between commas, if anything was said."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


@vhosts.command()
@click.argument("name")
@description_option
@tags_option
@click.option("--default-queue-type", "queue_type", type=TYPES, help="Of queues that name none.")
@on_node
def add(
    client: NodeClient,
    *,
    name: str,
    description: str | None,
    tags: str | None,
    queue_type: str | None,
) -> None:
    """Make a virtual host, in which no user has rights yet."""
    fields = {"description": description, "tags": tags_of(tags), "queue_type": queue_type}
    client.call("vhosts.add", name=name, **without_none(fields))


def without_none(fields: Mapping[str, object]) -> dict[str, object]:
    """Return the fields that were given."""
    return {name: value for name, value in fields.items() if value is not None}


@vhosts.command()
@click.argument("name", shell_complete=vhost_names)
@description_option
@tags_option
@on_node
def describe(client: NodeClient, *, name: str, description: str | None, tags: str | None) -> None:
    """Say what a virtual host is for."""
    fields = without_none({"description": description, "tags": tags_of(tags)})
    if not fields:
        raise click.UsageError("say something: --description, --tags")
    client.call("vhosts.metadata", name=name, **fields)


@vhosts.command()
@click.argument("name", shell_complete=vhost_names)
@on_node
def delete(client: NodeClient, name: str) -> None:
    """Remove a virtual host with all its queues, and close its connections."""
    client.call("vhosts.delete", name=name)


@vhosts.command("default-queue-type")
@click.argument("name", shell_complete=vhost_names)
@click.argument("queue_type", metavar="TYPE", type=TYPES)
@on_node
def default_queue_type(client: NodeClient, name: str, queue_type: str) -> None:
    """Set the default queue type for queues declared from now on without one."""
    client.call("vhosts.metadata", name=name, queue_type=queue_type)


@vhosts.command()
@click.argument("name", shell_complete=vhost_names)
@limit_options("max-connections", "max-queues")
@on_node
def limits(client: NodeClient, name: str, limits: dict[str, Any]) -> None:
    """Limit a virtual host, from now on; what is there stays."""
    client.call("vhosts.limits", name=name, limits=limits)


@vhosts.command()
@click.argument("name", shell_complete=vhost_names)
@click.argument("state", type=click.Choice(["on", "off"]))
@on_node
def protect(client: NodeClient, name: str, state: str) -> None:
    """Refuse to delete a virtual host, or do not."""
    client.call("vhosts.metadata", name=name, is_protected=state == "on")


@vhosts.command()
@click.argument("name", shell_complete=vhost_names)
@click.argument("state", type=click.Choice(["on", "off"]))
@on_node
def trace(client: NodeClient, name: str, state: str) -> None:
    """Copy all messages to amq.rabbitmq.trace, or no more.

    Those that clients of this node publish to the virtual host, under publish.EXCHANGE, and those
    that they are given from it, under deliver.QUEUE; until it is switched off or the node ends.
    """
    client.call("vhosts.trace", name=name, on=state == "on")
