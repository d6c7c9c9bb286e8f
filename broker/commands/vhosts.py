"""`fluffle vhosts`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from fluffle.broker.commands.client import Client
from fluffle.broker.commands.options import limit_options, on_node, prints_rows
from fluffle.broker.commands.tables import Row


@click.group()
def vhosts() -> None:
    """Virtual hosts, whose queues know nothing of each other."""


@vhosts.command("list")
@prints_rows("name", "queues", "connections", more=["metadata", "max_connections", "max_queues"])
def list_vhosts(client: Client) -> Iterable[Row]:
    """All virtual hosts."""
    return client.rows("vhosts.list")


@vhosts.command()
@click.argument("name")
@on_node
def add(client: Client, name: str) -> None:
    """A new virtual host, in which nobody may do anything yet."""
    client.call("vhosts.add", name=name)


@vhosts.command()
@click.argument("name")
@on_node
def delete(client: Client, name: str) -> None:
    """Remove a virtual host with all its queues, and close its connections."""
    client.call("vhosts.delete", name=name)


@vhosts.command("default-queue-type")
@click.argument("name")
@click.argument("queue_type", metavar="TYPE", type=click.Choice(["classic", "quorum"]))
@on_node
def default_queue_type(client: Client, name: str, queue_type: str) -> None:
    """Of queues that are declared from now on without a type, if they can be of it."""
    client.call("vhosts.queue_type", name=name, queue_type=queue_type)


@vhosts.command()
@click.argument("name")
@limit_options("max-connections", "max-queues")
@on_node
def limits(client: Client, name: str, limits: dict[str, Any]) -> None:
    """Limit a virtual host, from now on; what is there stays."""
    client.call("vhosts.limits", name=name, limits=limits)
