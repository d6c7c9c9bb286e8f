"""`fluffle cluster`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import click

from fluffle.broker.cli.client import Client
from fluffle.broker.cli.cluster_up import (
    BASE_PORT_MAX,
    HOST,
    NAMES,
    SECRET_FILE,
    JoinApproval,
    ProcessGroup,
    check_ended,
    client_port,
    cluster_address,
    keep_founders,
    keep_secret,
    member_of,
    pages_of,
    taken,
    why_not_ready,
)
from fluffle.broker.cli.completion import node_names
from fluffle.broker.cli.options import on_node, prints_rows
from fluffle.broker.cli.status import nodes_of, shown_cluster
from fluffle.broker.cli.tables import Row, counted

GOING_SHOWN_MAX = 10
"""Queues that are named of those that go with a node."""

PAGES_PORT = click.IntRange(1, 65_535 - len(NAMES))


@click.group()
def cluster() -> None:
    """The nodes of a cluster; and one on this machine, for trying things out."""


@cluster.command()
@prints_rows(
    "node", "state", "role", "address", "boot", "clock_ahead_ms", "hindrance",
    more=["link", "maintenance"],
    if_none=lambda client: shown_cluster(client.call("status")["cluster"]),
)  # fmt: skip
def status(client: Client) -> Iterable[Row]:
    """All nodes, as the one that is asked sees them; itself if it is alone."""
    return nodes_of(client, client.call("status"))


@cluster.command()
@click.argument("node", metavar="NAME=HOST:PORT")
@on_node
def add(client: Client, node: str) -> None:
    """Let a node in, that listens there for the others; then start it.

    It is started with an empty data directory, --node NAME, and the --peers of the others.
    """
    name, equals, address = node.partition("=")
    if not equals:
        raise click.UsageError("write NAME=HOST:PORT")
    client.call("cluster.add", name=name, address=address)


@cluster.command()
@click.argument("name", shell_complete=node_names)
@click.option("--yes", is_flag=True, help="Do not ask.")
@on_node
def forget(client: Client, *, name: str, yes: bool) -> None:
    """Remove a node that has stopped, for good, with the queues that were on it alone.

    Those are its classic queues and quorum queues without another member: they are deleted with all
    messages. It names them and asks, if there are any.
    """
    going = [] if yes else list(client.rows("cluster.check_forget", name=name))
    if going:
        for each in going[:GOING_SHOWN_MAX]:
            click.echo(f"{each['type']} queue '{each['name']}' in vhost '{each['vhost']}'")
        if len(going) > GOING_SHOWN_MAX:
            click.echo(f"and {len(going) - GOING_SHOWN_MAX} more")
        one, more = (f"{verb} on '{name}' alone, and to be deleted" for verb in ("is", "are"))
        click.echo(f"{counted(len(going), one, more)} with all messages")
        click.confirm("Go on?", abort=True)
    row = client.call("cluster.forget", name=name)
    if count := row["queues"]:
        one, more = (f"{verb} on it alone, and gone with all messages" for verb in ("was", "were"))
        click.echo(counted(count, one, more))


@cluster.command()
@click.option(
    "--nodes",
    type=click.IntRange(1, len(NAMES)),
    default=3,
    show_default=True,
    help="How many.",
)
@click.option(
    "--data-dir",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data/cluster"),
    show_default=True,
    help="Where all of them keep their data and logs.",
)
@click.option(
    "--base-port",
    type=click.IntRange(1, BASE_PORT_MAX),
    default=5672,
    show_default=True,
    help="For clients of the first node; each further node has the next.",
)
@click.option(
    "--management",
    type=PAGES_PORT,
    help="For the management API of the first node, such as 15672; each further has the next.",
)
@click.option(
    "--metrics",
    type=PAGES_PORT,
    help="For the metrics of the first node, such as 15692; each further has the next.",
)
def up(nodes: int, data_dir: Path, base_port: int, **pages: int | None) -> None:
    """Run a cluster on this machine, for trying things out, until Ctrl-C.

    Its nodes are processes of their own, with the names a, b, c and so on.  Data, logs and the
    secret that they share stay in the directory, so that the same command starts them again.
    """
    names = NAMES[:nodes]
    with ExitStack() as stack:
        try:
            stack.enter_context(taken(data_dir))
            check_ended(data_dir, names)
            keep_secret(data_dir / SECRET_FILE)
            founders = keep_founders(data_dir, names)
        except OSError as error:
            why = f"cannot keep data in {data_dir} ({error.strerror})"
            raise click.ClickException(why) from error
        members = [
            member_of(name, founders, data_dir, base_port, pages_of(name, pages)) for name in names
        ]
        for member in members:
            port, folder = client_port(member.name, base_port), member.data_dir
            served = "".join(f", {what} {at}" for what, at in pages_of(member.name, pages).items())
            where = f"amqp {HOST}:{port}{served}"
            click.echo(f"{member.name}: {where}, --data-dir {folder}, log {member.log}")
        others = {name: cluster_address(name, base_port) for name in names if name not in founders}
        letting_in = JoinApproval(others, data_dir, click.echo)
        together = ProcessGroup(members, click.echo, letting_in.ready, why_not_ready)
        sys.exit(together.run("all are ready; Ctrl-C stops them"))
