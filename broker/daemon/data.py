"""`fluffle log`, `data` and `salvage`: what a stopped node has on disk.

`log` reads the store, also beside a running node; `data` says what the data of a copied directory
are, and `salvage` those of a cluster that lost most of its nodes.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import click

from fluffle.broker.cli.options import stopped_data_dir_option
from fluffle.broker.cluster.data_directory import (
    NotACopy,
    NothingToRecover,
    accept_moved,
    force_single_node,
    set_aside_restored,
)
from fluffle.broker.cluster.links.identity import MARK_LETTERS
from fluffle.broker.cluster.ports import METADATA_GROUP
from fluffle.broker.durability.fact_codec import describe
from fluffle.broker.process.data_directory import LOCK_FILE, lock
from fluffle.storage.check import Finding, inspect, inspect_groups
from fluffle.storage.environment import LmdbEnvironment, read_environment
from fluffle.storage.errors import StorageError

DIRECTORY = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))

WARNING = """\
This says that nothing is lacking in {place}: that the node was stopped when its data were moved,
that these are all of it, and that it has not run anywhere since. If the node has confirmed
anything later, that is lost, and the cluster may lose what others have confirmed, too; then run
`fluffle data restored --data-dir {place}` instead."""


RESTORED = """\
Node '{name}' begins with nothing. What was there is in {place}: keep it.
Its classic queues, and all others that are on no other node, are only in there: `fluffle cluster
forget` deletes them with their messages. To save these, as old as the copy is, run it apart:
  mkdir OTHER && cp -r {place} OTHER/store && fluffle salvage --data-dir OTHER
  fluffle serve --data-dir OTHER --listen 127.0.0.1:PORT --node {name} \\
    --peers {name}=127.0.0.1:PORT2 --cluster-secret ANOTHER
then consume them there, and publish to the cluster.
To have the node join: on another one `fluffle cluster forget {name}`; then start '{name}' (with
`--cluster-admit no`, after `fluffle cluster add {name}=HOST:PORT` there)."""


@click.group()
def data() -> None:
    """Say what the data of a node are that does not start with them."""


@data.command()
@stopped_data_dir_option
def restored(data_dir: Path) -> None:
    """These are a copy of earlier: join with nothing.

    A node of a cluster may not go on with an older state than it had: it has confirmed what is not
    there. What is in the directory is set aside, not deleted. The others have definitions and
    quorum queues; classic queues of this node, and others that are on it alone, they have not:
    these are lost unless you save them from what was set aside, and it says how.
    """
    with _unused(data_dir):
        owner, place = set_aside_restored(data_dir)
    name = owner or "NAME"
    click.echo(RESTORED.format(name=name, place=place))


@data.command()
@stopped_data_dir_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def moved(data_dir: Path, *, yes: bool) -> None:
    """These are all of the node's data, moved after it had stopped: go on with them."""
    click.echo(WARNING.format(place=data_dir))
    if not yes:
        click.confirm("Go on?", abort=True)
    with _unused(data_dir):
        owned = accept_moved(data_dir)
    click.echo(f"node '{owned.node}' goes on with what is in {data_dir}; start it")


@contextmanager
def _unused(data_dir: Path) -> Iterator[None]:
    """Keep others from the directory meanwhile.  ClickException for all that goes wrong."""
    try:
        with lock(data_dir / LOCK_FILE):
            yield
    except BlockingIOError as error:
        raise click.ClickException(f"the node in {data_dir} runs; stop it first") from error
    except OSError as error:
        raise click.ClickException(f"cannot use {data_dir} ({error.strerror})") from error
    except (NotACopy, StorageError) as error:
        raise click.ClickException(str(error)) from error


SALVAGE_WARNING = """\
This makes the node in {place} the only one of its cluster, with what is on its disk.
What the others have confirmed and this node never got is lost, in whichever quorum queue it was.
The others must never run again with the data that they have. Start this node, have it forget them
(`fluffle cluster forget`): that deletes their classic queues with all messages, even of nodes that
are merely stopped. Then start them with empty data directories: they join by themselves (with
`--cluster-admit no`, after `fluffle cluster add`); their --peers may stay as they were.
Do this only if a majority of the nodes is lost for good, on the node that was the last to run."""


@click.command(name="salvage")
@stopped_data_dir_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def salvage_node(data_dir: Path, *, yes: bool) -> None:
    """Have a node go on alone, when most others are lost for good."""
    try:
        with lock(data_dir / LOCK_FILE):  # it must not be started while its owner thinks, either
            click.echo(SALVAGE_WARNING.format(place=data_dir))
            if not yes:
                click.confirm("Go on?", abort=True)
            done = force_single_node(data_dir, lambda: secrets.token_hex(MARK_LETTERS // 2))
    except BlockingIOError as error:
        raise click.ClickException(f"the node in {data_dir} runs; stop it first") from error
    except OSError as error:
        raise click.ClickException(f"cannot use {data_dir} ({error.strerror})") from error
    except (NothingToRecover, StorageError) as error:
        raise click.ClickException(str(error)) from error
    count = len([group for group in done.groups if group != METADATA_GROUP])
    click.echo(
        f"this node goes on alone, with {count} quorum queue{'' if count == 1 else 's'}; start it, "
        "then have it forget the others with `fluffle cluster forget`, which deletes the classic "
        "queues that are on them"
    )
    if done.damaged:
        listed = ", ".join(map(str, done.damaged))
        raise click.ClickException(f"damaged here, and not usable: groups {listed}")


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
def _reading(directory: Path) -> Iterator[LmdbEnvironment]:
    try:
        environment = read_environment(directory)
        try:
            yield environment
        finally:
            environment.close()
    except StorageError as error:
        raise click.ClickException(str(error)) from error
