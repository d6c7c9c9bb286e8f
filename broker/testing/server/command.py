"""`fluffle test-server`: from options to a broker, and an exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from fluffle.broker.config.option_values import parse_user, parse_vhost

NODES_MAX = 9
EXIT_OURS = 125
"""Exit code for failures other than the command's: as with `docker run` and `env`."""


class NoBroker(click.ClickException):
    exit_code = EXIT_OURS


def each(parse: Callable[[str], Any]) -> Callable[[object, object, Sequence[str]], list[Any]]:
    """Reads all that an option was given."""

    def read(_context: object, _option: object, texts: Sequence[str]) -> list[Any]:
        try:
            return [parse(text) for text in texts]
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return read


@click.command("test-server", context_settings={"allow_interspersed_args": False})
@click.option(
    "--user",
    "users",
    metavar="NAME:PASSWORD",
    multiple=True,
    callback=each(parse_user),
    help="A user with every right, instead of guest; the first one is in AMQP_URL.",
)
@click.option(
    "--vhost",
    "vhosts",
    metavar="NAME",
    multiple=True,
    callback=each(parse_vhost),
    help="A virtual host, instead of /; the first one is in AMQP_URL.",
)
@click.option(
    "--definitions",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Definitions, as exported by RabbitMQ.",
)
@click.option(
    "--nodes",
    metavar="NUMBER",
    type=click.IntRange(1, NODES_MAX),
    default=1,
    show_default=True,
    help="A cluster of so many nodes; AMQP_URLS and MQTT_URLS have those of all of them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the URLs as JSON.")
@click.option(
    "--timeline",
    is_flag=True,
    help="If the command fails, print what happened in each virtual host that is still there.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="error",
    show_default=True,
    help="What the broker logs, to standard error.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def test_server(
    users: Sequence[tuple[str, str]],
    vhosts: Sequence[str],
    definitions: Path | None,
    nodes: int,
    *,
    as_json: bool,
    timeline: bool,
    log_level: str,
    command: Sequence[str],
) -> None:
    """Run a COMMAND with a broker, as in: fluffle test-server -- npm test

    It finds the URLs of the broker in AMQP_URL and MQTT_URL, and in FLUFFLE_CONTROL_URL that of the
    control API, by which tests look inside, move the clock and break things.  The broker is in
    memory, and gone with the command, whose exit code is ours: 125 if there is no broker, 126 or
    127 if the command cannot be run.  Signals are passed on to it.

    Without a command the URLs are printed, and the broker serves until Ctrl-C.
    """
    import asyncio  # noqa: PLC0415  slow to import, all of these, and --help needs none

    import fluffle.broker  # noqa: PLC0415
    from fluffle.broker.base.errors import StartFailed  # noqa: PLC0415
    from fluffle.broker.base.logs import configure  # noqa: PLC0415
    from fluffle.broker.definitions.file_format import DefinitionsError  # noqa: PLC0415
    from fluffle.broker.node import NodeFailed  # noqa: PLC0415
    from fluffle.broker.testing.server.run import CommandNotRun, run, serve  # noqa: PLC0415

    def echo_urls(urls: dict[str, str]) -> None:
        shown = json.dumps(urls) if as_json else "\n".join(map("=".join, urls.items()))
        click.echo(shown)

    def on_failure(text: str) -> None:
        click.echo(text, err=True)

    configure("text", log_level, sys.stderr)
    wanted: dict[str, Any] = {
        "users": dict(users) or None,
        "vhosts": vhosts or ("/",),
        "definitions": definitions,
    }
    served = (
        fluffle.broker.Broker(**wanted)
        if nodes == 1
        else fluffle.broker.Cluster(nodes=nodes, **wanted)
    )
    running = (
        run(served, command, on_failure if timeline else None)
        if command
        else serve(served, echo_urls)
    )
    try:
        code = asyncio.run(running)
    except CommandNotRun as error:
        click.echo(f"Error: {error}", err=True)
        code = error.exit_code
    except (OSError, StartFailed, DefinitionsError, NodeFailed) as error:
        raise NoBroker(str(error)) from error
    sys.exit(code)
