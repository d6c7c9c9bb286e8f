"""`fluffle permissions`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

from fluffle.broker.cli.client import Client
from fluffle.broker.cli.completion import user_names
from fluffle.broker.cli.options import Command, in_vhost, on_node, only_vhost, prints_rows
from fluffle.broker.cli.tables import Row

only_user: Callable[[Command], Command] = click.option(
    "--user", metavar="NAME", shell_complete=user_names, help="Only those of this user."
)


@click.group()
def permissions() -> None:
    """What users may do in virtual hosts.

    Each right is a regular expression that is looked for in the names of queues and exchanges:
    '.*' finds all of them, '^orders\\.' those that begin so, and '' none.
    """


@permissions.command("list")
@prints_rows("user", "vhost", "configure", "write", "read")
@only_user
@only_vhost
def list_permissions(client: Client, user: str | None, vhost: str | None) -> Iterable[Row]:
    """Rights to configure, write and read."""
    return client.rows("permissions.list", user=user, vhost=vhost)


@permissions.command("set")
@click.argument("user", shell_complete=user_names)
@click.argument("configure")
@click.argument("write")
@click.argument("read")
@in_vhost
@on_node
def set_permission(
    client: Client, *, user: str, vhost: str, configure: str, write: str, read: str
) -> None:
    """Give a user these rights in a virtual host.

    He has no others there, and without any he cannot open it."""
    client.call(
        "permissions.set", user=user, vhost=vhost, configure=configure, write=write, read=read
    )


@permissions.command()
@click.argument("user", shell_complete=user_names)
@in_vhost
@on_node
def clear(client: Client, user: str, vhost: str) -> None:
    """Take all rights in a virtual host from a user."""
    client.call("permissions.clear", user=user, vhost=vhost)


@permissions.command()
@prints_rows("user", "vhost", "exchange", "write", "read")
@only_user
@only_vhost
def topic_list(client: Client, user: str | None, vhost: str | None) -> Iterable[Row]:
    """Rights to routing keys."""
    return client.rows("permissions.topic_list", user=user, vhost=vhost)


@permissions.command()
@click.argument("user", shell_complete=user_names)
@click.argument("exchange")
@click.argument("write")
@click.argument("read")
@in_vhost
@on_node
def topic_set(
    client: Client, *, user: str, vhost: str, exchange: str, write: str, read: str
) -> None:
    """Allow a user only these routing keys at a topic exchange.

    {username} and {vhost} in an expression stand for the names of the user and the virtual host.
    """
    client.call(
        "permissions.topic_set", user=user, vhost=vhost, exchange=exchange, write=write, read=read
    )


@permissions.command()
@click.argument("user", shell_complete=user_names)
@click.argument("exchange", required=False)
@in_vhost
@on_node
def topic_clear(client: Client, user: str, vhost: str, exchange: str | None) -> None:
    """Allow a user all routing keys again.

    At one exchange, or without EXCHANGE at all in the virtual host."""
    client.call("permissions.topic_clear", user=user, vhost=vhost, exchange=exchange)
