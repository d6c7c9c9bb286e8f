"""`fluffle definitions`: RabbitMQ's JSON, out of a running node and into one, in pieces."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import click

from fluffle.broker.access.passwords import ARGON2, SHA256
from fluffle.broker.cli.client import NodeClient, RequestRefused
from fluffle.broker.cli.options import on_node
from fluffle.broker.cli.output import ProgressBar, Row, shown
from fluffle.broker.definitions.file_format import ENTRIES_AT_ONCE, ORDER, is_single

BYTES_PER_REQUEST = 1 << 18
"""Bytes of entries with many arguments; a request may be four times as long."""

WITHOUT_HASH = "exported without a password, which RabbitMQ could not read: "
WITH_ARGON2 = "RabbitMQ's import will stop at hashes of argon2, without --for-rabbitmq: "
"""Texts in front of the names of users."""


@click.group()
def definitions() -> None:
    """All that was made, as RabbitMQ's JSON: out and in."""


@definitions.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option("--vhost", "-p", metavar="NAME", help="Only this virtual host, without its users.")
@click.option("--for-rabbitmq", is_flag=True, help="Leave out hashes that RabbitMQ cannot read.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@on_node
def export(
    client: NodeClient, file: Path | None, *, vhost: str | None, for_rabbitmq: bool, force: bool
) -> None:
    """Write definitions to a file, or to standard output.

    Password hashes are among them: a file is made for its owner alone. RabbitMQ's import stops at
    a hash of argon2; with --for-rabbitmq such users are exported without a password.
    """
    if file is not None and file.exists() and not force:
        raise RequestRefused(f"{file} is there already; --force replaces it")
    rows = client.rows("definitions.export", vhost=vhost)
    first = next(rows)  # before there is a file, so that a refusal leaves none
    unreadable: list[str] = []
    entries = noting_argon2(rows, unreadable, without_hashes=for_rabbitmq)
    if file is None:
        write(sys.stdout, first, entries)
    else:
        write_file(file, first, entries)
    if unreadable:
        names = ", ".join(map(shown, unreadable))
        click.echo((WITHOUT_HASH if for_rabbitmq else WITH_ARGON2) + names, err=True)


def write_file(file: Path, first: Row, rows: Iterator[Row]) -> None:
    """Write a file for its owner alone, whole or not at all.  RequestRefused."""
    draft = file.with_name(f"{file.name}.part")
    try:
        draft.unlink(missing_ok=True)
        draft.touch(0o600, exist_ok=False)
        try:
            with draft.open("w", encoding="utf-8") as output:
                write(output, first, rows)
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)  # there are hashes in it
    except OSError as error:
        raise RequestRefused(f"cannot write {file}: {error.strerror}") from error


def noting_argon2(rows: Iterator[Row], names: list[str], *, without_hashes: bool) -> Iterator[Row]:
    """Yield the rows; `names` gets the users with hashes of argon2, which can be left out."""
    for row in rows:
        entry = row["entry"]
        if row["category"] != "users" or entry["hashing_algorithm"] != ARGON2:
            yield row
            continue
        names.append(entry["name"])
        without = entry | {"password_hash": "", "hashing_algorithm": SHA256}
        yield row | {"entry": without if without_hashes else entry}


def write(output: TextIO, first: Row, rows: Iterator[Row]) -> None:
    """Write one object, an entry a line, as they come."""
    head = json.dumps(first["head"], indent=1)
    output.write(head.removesuffix("\n}"))
    row = next(rows, None)
    for category in first["categories"]:
        output.write(f',\n "{category}": [')
        comma = ""
        while row is not None and row["category"] == category:
            output.write(f"{comma}\n  {json.dumps(row['entry'])}")
            comma, row = ",", next(rows, None)
        output.write("\n ]" if comma else "]")
    output.write("\n}\n")


@definitions.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option(
    "--vhost",
    "-p",
    metavar="NAME",
    default="/",
    show_default=True,
    help="Where the entries of a file about one virtual host belong.",
)
@on_node
def import_file(client: NodeClient, file: TextIO, vhost: str) -> None:
    """Make what a file names, and take nothing away; - is standard input.

    Prints what is skipped and why. An entry that cannot be taken ends it; what came before stays.
    """
    for reason in bring(client, read(file), vhost):
        click.echo(f"skipped {reason}", err=True)


def bring(client: NodeClient, content: Mapping[str, Any], vhost: str) -> Iterator[str]:
    """Have all of it made; says what is skipped and why, as it comes.  Refused."""
    home = vhost if is_single(content) else None
    total = sum(len(content.get(category, [])) for category in ORDER)
    done = 0
    with ProgressBar("imported") as progress:
        for category in ORDER:
            for entries in pieces(content.get(category, [])):
                result = client.call(
                    "definitions.import", category=category, entries=entries, home=home
                )
                done += len(entries)
                progress.at(done, total)
                yield from map(shown, result["skipped"])


def read(file: TextIO) -> Mapping[str, Any]:
    """Read an object with lists of objects.  RequestRefused."""
    try:
        content = json.load(file)
    except (ValueError, RecursionError) as error:
        raise RequestRefused(f"{file.name} is no JSON: {error}") from error
    except OSError as error:
        raise RequestRefused(f"cannot read {file.name}: {error.strerror}") from error
    if not isinstance(content, dict):
        raise RequestRefused(f"{file.name} holds no object")
    for category in ORDER:
        entries = content.get(category, [])
        if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
            raise RequestRefused(f"{file.name}: {category} is no list of objects")
    return content


def pieces(entries: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Yield the entries, some at a time."""
    piece: list[Row] = []
    size_bytes = 0
    for entry in entries:
        entry_bytes = len(json.dumps(entry))
        is_full = len(piece) == ENTRIES_AT_ONCE or size_bytes + entry_bytes > BYTES_PER_REQUEST
        if piece and is_full:
            yield piece
            piece, size_bytes = [], 0
        piece.append(entry)
        size_bytes += entry_bytes
    if piece:
        yield piece
