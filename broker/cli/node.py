"""`fluffle node` and `fluffle alarms`: one node, while it runs."""

from __future__ import annotations

from collections.abc import Iterable

import click

from fluffle.broker.cli.client import Client
from fluffle.broker.cli.options import on_node, prints_rows
from fluffle.broker.cli.sizes import ShareOrSize, amount_of
from fluffle.broker.cli.tables import Row

LEVELS = ("debug", "info", "warning", "error", "critical", "none")


def amount(context: click.Context, parameter: click.Parameter, text: str) -> ShareOrSize:
    """Return a share such as 0.4, or a size such as 2GB."""
    try:
        return amount_of(text)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


@click.group()
def node() -> None:
    """This node: drained, or set otherwise, until it ends."""


@node.command()
@on_node
def drain(client: Client) -> None:
    """Take the node out of service: others lead, its clients go; prints how many went.

    They are told 320 CONNECTION_FORCED, and new ones find nobody. It stays a member of its queues,
    and can be stopped then, or revived.
    """
    click.echo(client.call("node.drain")["closed"])


@node.command()
@on_node
def revive(client: Client) -> None:
    """Put it into service again: it takes clients, and leads what it led."""
    client.call("node.revive")


@node.command()
@click.argument("amount", metavar="SHARE|SIZE", callback=amount)
@on_node
def memory_watermark(client: Client, amount: ShareOrSize) -> None:
    """Pause publishers above that much memory: a share of what there is, or a size."""
    client.call("node.memory_watermark", **amount.argument())


@node.command()
@click.argument("amount", metavar="SIZE|SHARE", callback=amount)
@on_node
def disk_free_limit(client: Client, amount: ShareOrSize) -> None:
    """Pause publishers when less than that is free: a size, or a share of the memory."""
    client.call("node.disk_free_limit", **amount.argument())


@node.command()
@click.argument("level", type=click.Choice(LEVELS))
@on_node
def log_level(client: Client, level: str) -> None:
    """Log from this level on."""
    client.call("node.log_level", level=level)


@click.group()
def alarms() -> None:
    """What is low, so that publishers wait."""


@alarms.command("list")
@prints_rows("node", "resource", if_none=lambda _client: "no alarm")
def list_alarms(client: Client) -> Iterable[Row]:
    """Alarms of all nodes, as far as this one has heard."""
    return client.rows("alarms.list")
