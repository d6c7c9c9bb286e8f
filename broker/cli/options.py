"""Options that many commands share: where the node is, how rows are printed, what a shell offers.

For names of what a node has, the shell asks the node on this machine, which answers in
milliseconds; where it does not, nothing is offered.  A node that is elsewhere is not asked: that
could take long, or ask for a password.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import click
from click.core import ParameterSource
from click.shell_completion import get_completion_class

from fluffle.broker.cli.client import LocalClient, NodeClient
from fluffle.broker.cli.output import ALL, Row, json_lines, pairs, table

SHELLS = ("bash", "zsh", "fish")
OFFERED_MAX = 200
"""More are not read, and a node may have a hundred thousand queues."""

Complete: TypeAlias = Callable[[click.Context, click.Parameter, str], list[str]]


def names(verb: str, column: str = "name", *, takes_vhost: bool = False) -> Complete:
    """Offers what is in a column of a list; `takes_vhost` if that may be of one virtual host."""

    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
        client: LocalClient | None = context.params.get("client")
        if client is None:
            return []
        where = {"vhost": context.params.get("vhost") or "/"} if takes_vhost else {}
        try:
            with client:  # the context has been closed already
                rows = client.rows(verb, **where)
                found = (row[column] for row in rows if row[column].startswith(incomplete))
                return list(islice(found, OFFERED_MAX))
        except click.ClickException:
            return []

    return complete


queue_names = names("queues.list", takes_vhost=True)
vhost_names = names("vhosts.list")
user_names = names("users.list", "user")
connection_names = names("connections.list")
policy_names = names("policies.list", takes_vhost=True)
node_names = names("cluster.status", "node")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what a shell has to read to complete fluffle's commands.

    bash: eval "$(fluffle completion bash)" in ~/.bashrc; zsh likewise in ~/.zshrc; fish: fluffle
    completion fish > ~/.config/fish/completions/fluffle.fish
    """
    kind = get_completion_class(shell)
    root = click.get_current_context().find_root().command
    assert kind is not None, "click knows these"
    click.echo(kind(root, {}, "fluffle", "_FLUFFLE_COMPLETE").source())


Command: TypeAlias = Callable[..., Any]
"""Function that click makes a command of; its options are stored in it."""


URL_KEY = "fluffle.url"
"""Under which a context remembers where a node is that is elsewhere."""


def elsewhere(context: click.Context, _parameter: click.Parameter, url: str | None) -> None:
    """Remember the node's URL, given in front of a command or behind it."""
    if url is not None:
        context.meta[URL_KEY] = url


def connected(context: click.Context, parameter: click.Parameter, data_dir: str) -> NodeClient:
    """Return the client that a command is given instead of a directory.

    What stands on the command line comes before what the environment has; UsageError for both a
    directory and a URL there.
    """
    url = context.meta.get(URL_KEY)
    is_named = context.get_parameter_source("client") is ParameterSource.COMMANDLINE
    if url is not None and is_named:
        raise click.UsageError("name a node by --data-dir or by --url")
    if url is None and not is_named:
        url = os.environ.get("FLUFFLE_URL")
    if not url:
        return context.with_resource(LocalClient(Path(data_dir)))
    if context.resilient_parsing:
        raise click.UsageError("a shell that completes words does not ask so far")
    from fluffle.broker.cli.remote import RemoteClient  # noqa: PLC0415  rarely used

    return RemoteClient(url)


with_url: Callable[[Command], Command] = click.option(
    "--url",
    metavar="http://USER@HOST:15672",
    expose_value=False,
    is_eager=True,
    callback=elsewhere,
    help="The management API of a node that is elsewhere.  [env var: FLUFFLE_URL]",
)

with_data_dir: Callable[[Command], Command] = click.option(
    "--data-dir",
    "client",
    metavar="DIR",
    default="data",
    show_default=True,
    envvar="FLUFFLE_DATA_DIR",
    show_envvar=True,
    callback=connected,
    help="Where the node keeps its data.",
)

stopped_data_dir_option = click.option(
    "--data-dir",
    metavar="DIR",
    default="data",
    show_default=True,
    envvar="FLUFFLE_DATA_DIR",
    show_envvar=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the node keeps its data; it must not run.",
)
"""The data directory of a node that the command reads or writes itself."""


def on_node(command: Command) -> Command:
    """Give a command its `client`."""
    return with_url(with_data_dir(command))


as_json: Callable[[Command], Command] = click.option(
    "--json", "is_json", is_flag=True, help="Print JSON, with everything there is."
)

in_vhost: Callable[[Command], Command] = click.option(
    "--vhost",
    "-p",
    metavar="NAME",
    default="/",
    show_default=True,
    shell_complete=vhost_names,
    help="In which virtual host.",
)
"""Option of commands about one object."""

only_vhost: Callable[[Command], Command] = click.option(
    "--vhost",
    "-p",
    metavar="NAME",
    shell_complete=vhost_names,
    help="Only those in this virtual host.",
)
"""Option of listings."""


class MeasuredColumns(NamedTuple):
    """Columns that rows get from a verb of their own."""

    columns: Sequence[str]
    add_to: Callable[[NodeClient, Iterable[Row], str | None], Iterable[Row]]
    """Returns rows of a virtual host, or of all, with these columns."""


UNMEASURED = MeasuredColumns((), lambda _client, rows, _vhost: rows)


def prints_rows(
    *columns: str,
    more: Sequence[str] = (),
    measured: MeasuredColumns = UNMEASURED,
    if_none: Callable[[NodeClient], str] | None = None,
) -> Callable[[Callable[..., Iterable[Row]]], Command]:
    """Make a command of a function that returns rows: a table of these columns, or JSON.

    `more` are the others that there are, and `measured` those that are found out, for who asks for
    them.  `if_none`: what is printed in the place of a table without rows.
    """
    known = (*columns, *more, *measured.columns)

    def decorate(list_rows: Callable[..., Iterable[Row]]) -> Command:
        @wraps(list_rows)
        def command(*, is_json: bool, chosen: str, **arguments: Any) -> None:
            names = chosen_columns(chosen, known) if chosen else columns
            rows = iter(list_rows(**arguments))
            if not {*measured.columns}.isdisjoint(names):
                rows = iter(measured.add_to(arguments["client"], rows, arguments["vhost"]))
            first = list(islice(rows, 1))
            if not first and if_none is not None and not is_json:
                click.echo(if_none(arguments["client"]))
                return
            rows = chain(first, rows)
            for line in json_lines(rows) if is_json else table(rows, names):
                click.echo(line)

        option = click.option(
            "--columns",
            "chosen",
            metavar="NAME,…",
            default="",
            help=f"What to print: some of {', '.join(known)}, or {ALL}.",
        )
        return on_node(as_json(option(command)))

    return decorate


def chosen_columns(text: str, known: Sequence[str]) -> Sequence[str]:
    """Return the names between the commas.  UsageError for one that there is not."""
    names = [name.strip() for name in text.split(",")]
    if names == [ALL]:
        return known
    for name in names:
        if name not in known:
            raise click.UsageError(f"there is no column '{name}'; there are {', '.join(known)}")
    return names


def print_row(row: Row, *, is_json: bool) -> None:
    """Print one row."""
    for line in [json.dumps(row)] if is_json else pairs(row):
        click.echo(line)


def limit_options(*names: str) -> Callable[[Command], Command]:
    """Return an option for each limit, whose name is RabbitMQ's; `limits` is what was given."""

    def decorate(set_limits: Command) -> Command:
        @wraps(set_limits)
        def command(**arguments: Any) -> None:
            keys = {name: arguments.pop(name.replace("-", "_")) for name in names}
            given = {name: parsed_limit(text) for name, text in keys.items() if text is not None}
            if not given:
                raise click.UsageError(f"name a limit: {', '.join(f'--{name}' for name in names)}")
            set_limits(limits=given, **arguments)

        result: Command = command
        for name in reversed(names):
            what = f"How many {name.removeprefix('max-')} there may be at once."
            result = click.option(f"--{name}", metavar="NUMBER|none", help=what)(result)
        return result

    return decorate


def parsed_limit(text: str) -> int | None:
    """Return a number, or None for no limit."""
    if text == "none":
        return None
    if not text.isdecimal():
        raise click.UsageError(f"cannot use '{text}' as a limit; write a number or none")
    return int(text)
