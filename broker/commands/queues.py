"""`fluffle queues`, `fluffle exchanges`, `fluffle bindings`."""

from __future__ import annotations

from collections.abc import Iterable

import click

from fluffle.broker.commands.client import Client
from fluffle.broker.commands.options import (
    as_json,
    in_vhost,
    on_node,
    only_vhost,
    print_row,
    prints_rows,
)
from fluffle.broker.commands.tables import Row

FORCE_SHRINK = """\
What those have confirmed that are given up and this node never got is lost; what was acknowledged
there comes again.  How much that is nobody here knows: those that can be reached have no more.
Their members are deleted when they come back.  The queue is on this node alone then; have it on
others again with `fluffle queues add-member` or `grow`."""


@click.group()
def queues() -> None:
    """Queues: what is in them, and away with it."""


@queues.command("list")
@prints_rows(
    "vhost",
    "name",
    "type",
    "state",
    "messages_ready",
    "messages_unacknowledged",
    "messages",
    "consumers",
    more=["durable", "auto_delete", "exclusive", "owner", "arguments"],
)
@only_vhost
def list_queues(client: Client, vhost: str | None) -> Iterable[Row]:
    """All queues."""
    return client.rows("queues.list", vhost=vhost)


@queues.command()
@click.argument("name")
@in_vhost
@as_json
@on_node
def show(client: Client, name: str, vhost: str, *, is_json: bool) -> None:
    """Everything about one queue."""
    print_row(client.call("queues.show", name=name, vhost=vhost), is_json=is_json)


@queues.command()
@click.argument("name")
@in_vhost
@on_node
def purge(client: Client, name: str, vhost: str) -> None:
    """Drop the messages that are ready; prints how many."""
    click.echo(client.call("queues.purge", name=name, vhost=vhost)["messages"])


@queues.command()
@click.argument("name")
@in_vhost
@click.option("--drop-damaged", is_flag=True, help="Give up what cannot be read.")
@on_node
def repair(client: Client, *, name: str, vhost: str, drop_damaged: bool) -> None:
    """Have a crashed queue go on behind damaged messages; prints how many are dropped."""
    result = client.call("queues.repair", name=name, vhost=vhost, drop_damaged=drop_damaged)
    click.echo(result["messages"])


@queues.command()
@click.argument("name")
@in_vhost
@click.option("--if-unused", is_flag=True, help="Only if it has no consumers.")
@click.option("--if-empty", is_flag=True, help="Only if no message is ready in it.")
@on_node
def delete(client: Client, *, name: str, vhost: str, if_unused: bool, if_empty: bool) -> None:
    """Remove a queue with its messages; prints how many were ready."""
    result = client.call(
        "queues.delete", name=name, vhost=vhost, if_unused=if_unused, if_empty=if_empty
    )
    click.echo(result["messages"])


@queues.command()
@click.argument("name")
@prints_rows("node", "role", "wanted", "running")
@in_vhost
def members(client: Client, *, name: str, vhost: str) -> Iterable[Row]:
    """On which nodes a quorum queue is."""
    return client.rows("queues.members", name=name, vhost=vhost)


@queues.command("add-member")
@click.argument("name")
@click.argument("node")
@in_vhost
@on_node
def add_member(client: Client, *, name: str, node: str, vhost: str) -> None:
    """Have a quorum queue on one node more."""
    client.call("queues.add_member", name=name, node=node, vhost=vhost)


@queues.command("delete-member")
@click.argument("name")
@click.argument("node")
@in_vhost
@on_node
def delete_member(client: Client, *, name: str, node: str, vhost: str) -> None:
    """Have a quorum queue on one node less."""
    client.call("queues.delete_member", name=name, node=node, vhost=vhost)


@queues.command()
@click.argument("name")
@click.argument("node")
@in_vhost
@on_node
def transfer(client: Client, *, name: str, node: str, vhost: str) -> None:
    """Have another member lead a quorum queue."""
    client.call("queues.transfer", name=name, node=node, vhost=vhost)


@queues.command()
@click.argument("node")
@on_node
def grow(client: Client, node: str) -> None:
    """Have all quorum queues on one node more; prints how many there are."""
    click.echo(client.call("queues.grow", node=node)["queues"])


@queues.command()
@click.argument("node")
@on_node
def shrink(client: Client, node: str) -> None:
    """Have all quorum queues on one node less; prints how many are elsewhere, too."""
    click.echo(client.call("queues.shrink", node=node)["queues"])


@queues.command("force-shrink")
@click.argument("name", required=False)
@click.option("--all", "is_all", is_flag=True, help="All that have lost most of their members.")
@only_vhost
@click.option("--yes", is_flag=True, help="Do not ask.")
@on_node
def force_shrink(
    client: Client, *, name: str | None, vhost: str | None, is_all: bool, yes: bool
) -> None:
    """Have a quorum queue go on with its member here alone, when most are lost for good."""
    if is_all == (name is not None):
        raise click.UsageError("write NAME, or --all")
    rows = list(client.rows("queues.check_force_shrink", name=name, vhost=vhost))
    if name is not None and rows[0]["refused"]:
        raise click.ClickException(rows[0]["refused"])
    for row in rows:
        given_up = ", ".join(row["given_up"])
        click.echo(
            f"queue '{row['name']}' in vhost '{row['vhost']}' ends here with entry "
            f"{row['last_index']}; given up: {given_up}"
        )
    if not rows:
        click.echo("no queue with a member here has lost most of its members")
        return
    click.echo(FORCE_SHRINK)
    if not yes:
        click.confirm("Go on?", abort=True)
    for row in rows:
        client.call("queues.force_shrink", name=row["name"], vhost=row["vhost"])


@queues.command()
@on_node
def rebalance(client: Client) -> None:
    """Have all nodes lead equally many quorum queues; prints how many change hands."""
    click.echo(client.call("queues.rebalance")["queues"])


@click.group()
def exchanges() -> None:
    """Exchanges: which there are."""


@exchanges.command("list")
@prints_rows("vhost", "name", "type", "durable", "auto_delete", "internal", more=["arguments"])
@only_vhost
def list_exchanges(client: Client, vhost: str | None) -> Iterable[Row]:
    """All exchanges; the default one has no name."""
    return client.rows("exchanges.list", vhost=vhost)


@click.group()
def bindings() -> None:
    """Bindings: what leads where."""


@bindings.command("list")
@prints_rows(
    "vhost",
    "source_name",
    "destination_name",
    "destination_kind",
    "routing_key",
    "arguments",
    more=["source_kind"],
)
@only_vhost
def list_bindings(client: Client, vhost: str | None) -> Iterable[Row]:
    """All bindings, those that the default exchange has by itself included."""
    return client.rows("bindings.list", vhost=vhost)
