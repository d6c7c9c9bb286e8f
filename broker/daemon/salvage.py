"""`fluffle salvage`: what is left when most of a cluster is lost."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from fluffle.broker.cli.options import stopped_data_dir_option
from fluffle.broker.cluster.disaster_recovery import NothingToRecover, force_single_node
from fluffle.broker.cluster.group_owner import METADATA_GROUP
from fluffle.broker.cluster.links.identity import MARK_LETTERS
from fluffle.broker.process.lock import LOCK_FILE, lock
from fluffle.storage.errors import StorageError

WARNING = """\
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
            click.echo(WARNING.format(place=data_dir))
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
