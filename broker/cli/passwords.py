"""Where a command finds a password, and what it makes of it: the node sees only the hash."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import click

from fluffle.broker.access.passwords import ARGON2, SHA256, SHA512, UnusableHash, hashed
from fluffle.broker.cli.client import RequestRefused
from fluffle.broker.cli.options import Command

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
            ready_hash = hash_of(asked_password(password, is_stdin=is_stdin), algorithm)
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


def asked_password(password: str | None, *, is_stdin: bool) -> bytes:
    """From the command line, from standard input up to the end of the line, or from the terminal.

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
