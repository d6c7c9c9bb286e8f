"""`fluffle cluster`."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from fluffle.broker.commands.client import Client
from fluffle.broker.commands.options import on_node, prints_rows
from fluffle.broker.commands.tables import Row
from fluffle.broker.commands.together import Member, Together

HOST = "127.0.0.1"
NAMES = "abcdefghi"
CLUSTER_PORT_OFFSET = 20_000
"""From the port for clients to that for the other nodes, as with RabbitMQ."""
BASE_PORT_MAX = 65_535 - CLUSTER_PORT_OFFSET - len(NAMES)
SECRET_FILE = "secret"


@click.group()
def cluster() -> None:
    """The nodes of a cluster; and one on this machine, for trying things out."""


@cluster.command()
@prints_rows("node", "state", "role", "address", "boot", more=["link"])
def status(client: Client) -> Iterable[Row]:
    """All nodes, as the one that is asked sees them."""
    return client.rows("cluster.status")


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
@click.argument("name")
@on_node
def forget(client: Client, name: str) -> None:
    """Remove a node that has stopped, for good, with the queues that were on it alone."""
    row = client.call("cluster.forget", name=name)
    if row["queues"]:
        click.echo(f"{row['queues']} queues were on it alone, and are gone with their messages")


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
def up(nodes: int, data_dir: Path, base_port: int) -> None:
    """Run a cluster on this machine, for trying things out, until Ctrl-C.

    Its nodes are processes of their own, with the names a, b, c and so on.  Data, logs and the
    secret that they share stay in the directory, so that the same command starts them again.
    """
    names = NAMES[:nodes]
    ports = {name: base_port + number for number, name in enumerate(names)}
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        secret_file = keep_secret(data_dir / SECRET_FILE)
    except OSError as error:
        raise click.ClickException(f"cannot keep data in {data_dir} ({error.strerror})") from error
    members = [member_of(name, ports, data_dir, secret_file) for name in names]
    for name, port in ports.items():
        folder = data_dir / name
        click.echo(f"{name}: amqp {HOST}:{port}, --data-dir {folder}, log {folder}.log")
    sys.exit(Together(members, click.echo).run("all are ready; Ctrl-C stops them"))


def keep_secret(file: Path) -> Path:
    """Draw one if there is none yet.  OSError."""
    if not file.exists():
        file.touch(0o600)
        file.write_text(secrets.token_hex(32) + "\n", encoding="ascii")
    return file


def member_of(name: str, ports: dict[str, int], data_dir: Path, secret_file: Path) -> Member:
    """One of the nodes, each of which is told the same of all."""
    listening = {node: f"{HOST}:{port + CLUSTER_PORT_OFFSET}" for node, port in ports.items()}
    words = {
        "node": name,
        "data-dir": str(data_dir / name),
        "listen": f"{HOST}:{ports[name]}",
        "cluster-listen": listening[name],
        "peers": ",".join(f"{node}={address}" for node, address in listening.items()),
        "cluster-secret-file": str(secret_file),
    }
    options = [word for option, value in words.items() for word in (f"--{option}", value)]
    command = [sys.executable, "-m", "fluffle.broker", "serve", *options]
    return Member(name, command, data_dir / name, Path(f"{data_dir / name}.log"))
