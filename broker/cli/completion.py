"""`fluffle completion`, and names of what a node has, for the shell to offer.

It asks the node on this machine, which answers in milliseconds; where it does not, nothing is
offered.  A node that is elsewhere is not asked: that could take long, or ask for a password.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TypeAlias

import click
from click.shell_completion import get_completion_class

from fluffle.broker.cli.client import LocalClient

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
