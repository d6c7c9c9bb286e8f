"""`fluffle users`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import click

from fluffle.broker.cli.client import Client
from fluffle.broker.cli.completion import user_names
from fluffle.broker.cli.options import (
    as_json,
    limit_options,
    on_node,
    print_row,
    prints_rows,
)
from fluffle.broker.cli.passwords import (
    asked_password,
    from_stdin,
    password_argument,
    with_hash,
)
from fluffle.broker.cli.tables import Row


@click.group()
def users() -> None:
    """Who may log in: passwords, tags and limits."""


@users.command("list")
@prints_rows("user", "tags", "max_connections", "max_channels", more=["hashing_algorithm"])
def list_users(client: Client) -> Iterable[Row]:
    """All users."""
    return client.rows("users.list")


@users.command()
@click.argument("name", shell_complete=user_names)
@as_json
@on_node
def show(client: Client, name: str, *, is_json: bool) -> None:
    """Everything about one user."""
    print_row(client.call("users.show", name=name), is_json=is_json)


@users.command()
@click.argument("name")
@with_hash
@click.option("--tags", metavar="TAG,…", default="", help="Such as administrator, monitoring.")
@on_node
def add(client: Client, name: str, stored: dict[str, str], tags: str) -> None:
    """A new user, who has no permissions yet.

    What stands on a command line, others on the machine can see: use --password-stdin, or give no
    password to be asked for it.
    """
    client.call("users.add", name=name, tags=parts_of(tags), **stored)


@users.command()
@click.argument("name", shell_complete=user_names)
@click.option("--force", is_flag=True, help="Also the last administrator.")
@on_node
def delete(client: Client, name: str, *, force: bool) -> None:
    """Remove a user and his permissions, and close his connections."""
    client.call("users.delete", name=name, force=force)


@users.command()
@click.argument("name", shell_complete=user_names)
@with_hash
@on_node
def password(client: Client, name: str, stored: dict[str, str]) -> None:
    """Give a user another password; who is logged in stays."""
    client.call("users.password", name=name, **stored)


@users.command()
@click.argument("name", shell_complete=user_names)
@click.argument("names", metavar="[TAG]...", nargs=-1)
@on_node
def tags(client: Client, name: str, names: tuple[str, ...]) -> None:
    """Give a user these tags and no others."""
    client.call("users.tags", name=name, tags=list(names))


@users.command()
@click.argument("name", shell_complete=user_names)
@limit_options("max-connections", "max-channels")
@on_node
def limits(client: Client, name: str, limits: dict[str, Any]) -> None:
    """Limit a user, from now on; what he has stays open."""
    client.call("users.limits", name=name, limits=limits)


@users.command()
@click.argument("name", shell_complete=user_names)
@password_argument
@from_stdin
@on_node
def authenticate(client: Client, name: str, *, password: str | None, is_stdin: bool) -> None:
    """Whether that is the user's password."""
    octets = asked_password(password, is_stdin=is_stdin)
    client.call("users.authenticate", name=name, password=os.fsdecode(octets))


def parts_of(text: str) -> list[str]:
    """What stands between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]
