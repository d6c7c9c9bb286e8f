"""`fluffle users` and `fluffle permissions`; a command gets a password, the node only its hash."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any

import click

from fluffle.broker.access.passwords import ARGON2, SHA256, SHA512, UnusableHash, hashed
from fluffle.broker.cli.client import NodeClient, RequestRefused
from fluffle.broker.cli.options import (
    Command,
    as_json,
    in_vhost,
    limit_options,
    on_node,
    only_vhost,
    print_row,
    prints_rows,
    user_names,
)
from fluffle.broker.cli.output import Row

ALGORITHMS: Mapping[str, str] = {"sha256": SHA256, "sha512": SHA512, "argon2": ARGON2}

password_argument: Callable[[Command], Command] = click.argument("password", required=False)
from_stdin: Callable[[Command], Command] = click.option(
    "--password-stdin", "is_stdin", is_flag=True, help="Read the password from standard input."
)


def with_hash(command: Command) -> Command:
    """Give a command the ways to say a password; it gets `stored`, arguments for the node."""

    @wraps(command)
    def hashing(
        *,
        password: str | None,
        is_stdin: bool,
        ready_hash: str | None,
        algorithm: str,
        is_none: bool,
        **arguments: Any,
    ) -> None:
        ways = [password is not None, is_stdin, ready_hash is not None, is_none]
        if sum(ways) > 1:
            raise click.UsageError("give one of PASSWORD, --password-stdin, --hash, --no-password")
        if is_none:
            ready_hash = ""
        if ready_hash is None:
            ready_hash = hash_of(read_password(password, is_stdin=is_stdin), algorithm)
        stored = {"password_hash": ready_hash, "hashing_algorithm": ALGORITHMS[algorithm]}
        command(stored=stored, **arguments)

    options: tuple[Callable[[Command], Command], ...] = (
        password_argument,
        from_stdin,
        click.option("--hash", "ready_hash", metavar="HASH", help="A hash that is made already."),
        click.option("--no-password", "is_none", is_flag=True, help="No login by password at all."),
        click.option(
            "--algorithm",
            type=click.Choice(list(ALGORITHMS)),
            default="sha256",
            show_default=True,
            help="How the password is hashed; RabbitMQ does not know argon2.",
        ),
    )
    result: Command = hashing
    for option in reversed(options):
        result = option(result)
    return result


def read_password(password: str | None, *, is_stdin: bool) -> bytes:
    """Read a password from the command line, from standard input up to the end of the line, or from
    the terminal.

    UsageError when it is nowhere, or empty.
    """
    if password is not None:
        octets = os.fsencode(password)
    elif is_stdin:
        octets = sys.stdin.buffer.readline().rstrip(b"\r\n")
    elif sys.stdin.isatty():
        octets = str(click.prompt("Password", hide_input=True, confirmation_prompt=True)).encode()
    else:
        raise click.UsageError("give a password as an argument or with --password-stdin")
    if not octets:
        raise click.UsageError("the password is empty; --no-password is for none")
    return octets


def hash_of(password: bytes, algorithm: str) -> str:
    """RequestRefused when the algorithm is not installed."""
    try:
        return hashed(password, ALGORITHMS[algorithm]).hash
    except UnusableHash as error:
        raise RequestRefused(str(error)) from error


@click.group()
def users() -> None:
    """Users that may log in: passwords, tags and limits."""


@users.command("list")
@prints_rows("user", "tags", "max_connections", "max_channels", more=["hashing_algorithm"])
def list_users(client: NodeClient) -> Iterable[Row]:
    """All users."""
    return client.rows("users.list")


@users.command()
@click.argument("name", shell_complete=user_names)
@as_json
@on_node
def show(client: NodeClient, name: str, *, is_json: bool) -> None:
    """Everything about one user."""
    print_row(client.call("users.show", name=name), is_json=is_json)


@users.command()
@click.argument("name")
@with_hash
@click.option("--tags", metavar="TAG,…", default="", help="Such as administrator, monitoring.")
@on_node
def add(client: NodeClient, name: str, stored: dict[str, str], tags: str) -> None:
    """A new user, who has no permissions yet.

    What stands on a command line, others on the machine can see: use --password-stdin, or give no
    password to be asked for it.
    """
    client.call("users.add", name=name, tags=parts_of(tags), **stored)


@users.command()
@click.argument("name", shell_complete=user_names)
@click.option("--force", is_flag=True, help="Also the last administrator.")
@on_node
def delete(client: NodeClient, name: str, *, force: bool) -> None:
    """Remove a user and his permissions, and close his connections."""
    client.call("users.delete", name=name, force=force)


@users.command()
@click.argument("name", shell_complete=user_names)
@with_hash
@on_node
def password(client: NodeClient, name: str, stored: dict[str, str]) -> None:
    """Give a user another password; who is logged in stays."""
    client.call("users.password", name=name, **stored)


@users.command()
@click.argument("name", shell_complete=user_names)
@click.argument("names", metavar="[TAG]...", nargs=-1)
@on_node
def tags(client: NodeClient, name: str, names: tuple[str, ...]) -> None:
    """Give a user these tags and no others."""
    client.call("users.tags", name=name, tags=list(names))


@users.command()
@click.argument("name", shell_complete=user_names)
@limit_options("max-connections", "max-channels")
@on_node
def limits(client: NodeClient, name: str, limits: dict[str, Any]) -> None:
    """Limit a user, from now on; what he has stays open."""
    client.call("users.limits", name=name, limits=limits)


@users.command()
@click.argument("name", shell_complete=user_names)
@password_argument
@from_stdin
@on_node
def authenticate(client: NodeClient, name: str, *, password: str | None, is_stdin: bool) -> None:
    """Check a user's password."""
    octets = read_password(password, is_stdin=is_stdin)
    client.call("users.authenticate", name=name, password=os.fsdecode(octets))


def parts_of(text: str) -> list[str]:
    """Return what stands between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


only_user: Callable[[Command], Command] = click.option(
    "--user", metavar="NAME", shell_complete=user_names, help="Only those of this user."
)


@click.group()
def permissions() -> None:
    """Permissions of users in virtual hosts.

    Each right is a regular expression that is looked for in the names of queues and exchanges:
    '.*' finds all of them, '^orders\\.' those that begin so, and '' none.
    """


@permissions.command("list")
@prints_rows("user", "vhost", "configure", "write", "read")
@only_user
@only_vhost
def list_permissions(client: NodeClient, user: str | None, vhost: str | None) -> Iterable[Row]:
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
    client: NodeClient, *, user: str, vhost: str, configure: str, write: str, read: str
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
def clear(client: NodeClient, user: str, vhost: str) -> None:
    """Take all rights in a virtual host from a user."""
    client.call("permissions.clear", user=user, vhost=vhost)


@permissions.command()
@prints_rows("user", "vhost", "exchange", "write", "read")
@only_user
@only_vhost
def topic_list(client: NodeClient, user: str | None, vhost: str | None) -> Iterable[Row]:
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
    client: NodeClient, *, user: str, vhost: str, exchange: str, write: str, read: str
) -> None:
    """Allow a user only these routing keys at a topic exchange.

    {username} and {vhost} in an expression stand for the names of the user and the virtual host,
    {client_id} for the identifier of an MQTT client.
    """
    client.call(
        "permissions.topic_set", user=user, vhost=vhost, exchange=exchange, write=write, read=read
    )


@permissions.command()
@click.argument("user", shell_complete=user_names)
@click.argument("exchange", required=False)
@in_vhost
@on_node
def topic_clear(client: NodeClient, user: str, vhost: str, exchange: str | None) -> None:
    """Allow a user all routing keys again.

    At one exchange, or without EXCHANGE at all in the virtual host."""
    client.call("permissions.topic_clear", user=user, vhost=vhost, exchange=exchange)
