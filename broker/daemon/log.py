"""`fluffle log`: what a node has on disk, for people.  Reads only, also beside a running node."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import click

from fluffle.broker.durability.definitions.fact_codec import describe
from fluffle.storage.check import Finding, inspect, inspect_groups
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
    with _reading(directory) as environment:
        damaged = _verify(inspect(environment, describe), "values read")
        damaged += _verify(inspect_groups(environment), "Raft groups")
    sys.exit(1 if damaged else 0)


def _verify(findings: Iterator[Finding], what: str) -> int:
    """Print what is damaged, and how much there is; how much of it is damaged."""
    count = damaged = 0
    for finding in findings:
        count += 1
        for damage in finding.damage:
            damaged += 1
            click.echo(damage)
    if count:
        click.echo(f"{count} {what}, {damaged} damaged")
    return damaged


@log.command()
@DIRECTORY
def dump(directory: Path) -> None:
    """Print everything in it; exit with 1 if something is damaged."""
    damaged = False
    with _reading(directory) as environment:
        for finding in chain(inspect(environment, describe), inspect_groups(environment)):
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
