"""`fluffle torture`: from options to a run and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from random import randrange
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fluffle.broker.amqp_client import AmqpAddress, ClientOptions
    from fluffle.broker.torture.system import System

COMMANDS = {
    "start": "Start the node {node}, if it does not run.",
    "stop": "Stop it in order.",
    "kill": "Kill it, as by SIGKILL.",
    "pause": "Stop its process for a while, as by SIGSTOP.",
    "resume": "The opposite of pause.",
    "throttle": "Leave it a small part of a processor.",
    "unthrottle": "The opposite of throttle, which may not have been.",
    "isolate": "Let no byte through between it and the other nodes.",
    "rejoin": "The opposite of isolate.",
    "fill": "Leave no room on its disk.",
    "free": "The opposite of fill.",
    "unplug": "Cut its power.",
    "copy": "Keep what is on its disk as it is now, though it runs.",
    "restore": "Put that in the place of what is on its disk.",
    "overwrite": "Write that into the files that are on its disk.",
    "refused": "Fail unless it has ended by itself, or comes to.",
    "renew": "Have it join with nothing.",
    "joined": "Fail unless it is a node of the cluster, or comes to be.",
    "grow": "Have every quorum queue have a member there.",
    "shrink": "Have none of them have a member there.",
    "forget": "Have the others forget it, when it has stopped.",
    "wipe": "Leave nothing on its disk.",
}
"""Help texts by the name of the command."""


def with_commands(command: Callable[..., None]) -> Callable[..., None]:
    for name, what in reversed(COMMANDS.items()):
        command = click.option(f"--{name}-command", metavar="COMMAND", help=what)(command)
    return command


@click.command()
@click.option(
    "--node",
    "nodes",
    metavar="NAME=amqp://USER:PASSWORD@HOST:PORT/VHOST",
    multiple=True,
    help="A node of the cluster; once for each.",
)
@click.option(
    "--spare",
    "spares",
    metavar="NAME=amqp://HOST:PORT",
    multiple=True,
    help="A node that may join: it does not run, and has nothing on its disk.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.0),
    default=60.0,
    show_default=True,
    help="How long: a fault begins every 7 to 17 s; all kinds take an hour.",
)
@click.option("--seed", type=int, help="Decides what happens; drawn and printed if not given.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0.0, min_open=True),
    default=300.0,
    show_default=True,
    help="Messages a second; with fewer than 300, definitions change more slowly, too.",
)
@click.option(
    "--queue-type", default="quorum", show_default=True, help="quorum, classic, or both in turn."
)
@click.option("--prefix", default="torture", show_default=True, help="Of the queues' names.")
@click.option("--faults", "wanted", metavar="KIND,…", help="Only these kinds of faults.")
@click.option("--no-faults", is_flag=True, help="Only work and watch.")
@click.option("--keep", is_flag=True, help="Leave the queues behind.")
@click.option(
    "--history",
    type=click.File("w", encoding="utf-8", lazy=False),
    help="Write down everything.",
)
@click.option("--check", type=click.File("rb"), help="Judge such a file.")
@with_commands
def torture(**options: Any) -> None:
    """Torture a cluster and say what it did wrong.

    Clients publish, consume and settle through every node, in queues of their own.  Their
    connections are reset, slowed and cut; with the commands that follow, nodes are killed, stopped,
    paused and cut off, too.  {node} in a command is the name of the node.

    Prints what was attempted, confirmed, received, lost and so on, and a last line for scripts.
    Exit code 0: nothing that is promised was broken.  1: something was.  2: it could not be tried.
    """
    from fluffle.broker.torture.run import (  # noqa: PLC0415  asyncio is
        RunOptions,
        check_file,
        run_and_report,
    )

    if options["check"]:
        sys.exit(check_file(options["check"], click.echo))
    system = system_of(options)
    order = RunOptions(
        seconds=options["seconds"],
        seed=randrange(1_000_000) if options["seed"] is None else options["seed"],
        kinds=kinds_of(options, system),
        rate=options["rate"],
        prefix=options["prefix"],
        client_options=client_options_of(options["nodes"]),
        keep=options["keep"],
    )
    sys.exit(run_and_report(system, order, click.echo, options["history"]))


def system_of(options: dict[str, Any]) -> System:
    """Return the nodes, and what can be done to them by commands.  UsageError without a node."""
    from fluffle.broker.torture.system import (  # noqa: PLC0415
        NodeAction,
        NodeAddress,
        System,
        by_command,
    )

    if not options["nodes"]:
        raise click.UsageError("name the nodes: --node a=amqp://guest:guest@localhost:5672/%2F")
    addresses: dict[str, NodeAddress] = {}
    for text in (*options["nodes"], *options["spares"]):
        name, at = named(text)
        if name in addresses:
            raise click.UsageError(f"two nodes are named '{name}'")
        addresses[name] = NodeAddress(name, at.host, at.port)
    every, count = [*addresses.values()], len(options["nodes"])
    given = {name: options[f"{name}_command"] for name in COMMANDS}
    actions = {NodeAction(name): by_command(text) for name, text in given.items() if text}
    queue_type = options["queue_type"]
    return System(every[:count], actions, queue_type=queue_type, spares=every[count:])


def kinds_of(options: dict[str, Any], system: System) -> tuple[str, ...]:
    """Return the faults that are wanted and possible.  UsageError for one that is not."""
    from fluffle.broker.torture.faults import possible  # noqa: PLC0415

    if options["no_faults"]:
        return ()
    kinds = possible(system)
    if options["wanted"] is None:
        return tuple(kinds)
    wanted = options["wanted"].split(",")
    for name in wanted:
        if name not in kinds:
            raise click.UsageError(
                f"'{name}' is no fault that can be brought about here; {', '.join(kinds)} are"
            )
    return tuple(wanted)


def client_options_of(nodes: Sequence[str]) -> ClientOptions:
    """Return the user of the first address: it is the same on all nodes."""
    from fluffle.broker.amqp_client import ClientOptions  # noqa: PLC0415

    _name, at = named(nodes[0])
    return ClientOptions(user=at.user, password=at.password, vhost=at.vhost)


def named(text: str) -> tuple[str, AmqpAddress]:
    """`a=amqp://…` in two parts.  UsageError for anything else."""
    from fluffle.broker.amqp_client import address_of  # noqa: PLC0415

    name, _equals, url = text.partition("=")
    try:
        at = address_of(url)
    except ValueError as error:  # a port that is no number, a bracket that is not closed
        raise no_node(text) from error
    if not name or at.is_encrypted:
        raise no_node(text)
    return name, at


def no_node(text: str) -> click.UsageError:
    from fluffle.broker.amqp_client import without_password  # noqa: PLC0415

    shown = without_password(text)
    return click.UsageError(f"'{shown}' is no NAME=amqp://USER:PASSWORD@HOST:PORT/VHOST")
