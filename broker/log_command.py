"""`fluffle log`: what a node has on disk, for people.  Reads only, also beside a running node."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from fluffle.broker.recording.encoding import describe
from fluffle.storage.check import inspect
from fluffle.storage.environment import Environment, read_environment
from fluffle.storage.errors import StorageError

DIRECTORY = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))


@click.group()
def log() -> None:
    """Read the store of a node in its data directory."""


@log.command()
@DIRECTORY
def verify(directory: Path) -> None:
    """Check every byte against its checksum; exit with 1 if one is wrong."""
    values = damaged = 0
    with _reading(directory) as environment:
        for finding in inspect(environment, describe):
            values += 1
            for damage in finding.damage:
                damaged += 1
                click.echo(damage)
    click.echo(f"{values} values read, {damaged} damaged")
    sys.exit(1 if damaged else 0)


@log.command()
@DIRECTORY
def dump(directory: Path) -> None:
    """Print everything in it; exit with 1 if something is damaged."""
    damaged = False
    with _reading(directory) as environment:
        for finding in inspect(environment, describe):
            damaged = damaged or bool(finding.damage)
            texts = finding.text, *map(str, finding.damage)
            click.echo("\n".join(filter(None, texts)))
    sys.exit(1 if damaged else 0)


@contextmanager
def _reading(directory: Path) -> Iterator[Environment]:
    try:
        environment = read_environment(directory)
        try:
            yield environment
        finally:
            environment.close()
    except StorageError as error:
        raise click.ClickException(str(error)) from error
