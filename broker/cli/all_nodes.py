"""What each node of a cluster has of its own, whichever of them a command is given to."""

from __future__ import annotations

from collections.abc import Iterator

import click

from fluffle.broker.cli.client import Client, Refused, Row
from fluffle.broker.cli.tables import shown


def rows_everywhere(client: Client, verb: str, **arguments: object) -> Iterator[Row]:
    """The rows of all nodes; of one that says nothing a word on stderr.  Refused; Unreachable."""
    for told in tellings(client, verb, arguments):
        if "error" in told:
            raise refused(told)
        yield told["row"]


def close_everywhere(client: Client, **which: object) -> int:
    """How many connections were closed.  Refused if no node has what was meant; Unreachable."""
    told = list(tellings(client, "connections.close", which))
    done = [each["row"]["closed"] for each in told if "row" in each]
    if not done and told:
        raise refused(told[0])
    return sum(done)


def tellings(client: Client, verb: str, arguments: Row) -> Iterator[Row]:
    """A `row` or an `error` of a node each."""
    given = {name: value for name, value in arguments.items() if value is not None}
    for told in client.rows("everywhere.rows", what=verb, arguments=given):
        if "silent" in told:
            who, why = shown(told["node"]), shown(told["silent"])
            click.echo(f"node '{who}' tells nothing: {why}", err=True)
        else:
            yield told


def refused(told: Row) -> Refused:
    return Refused(shown(told["error"]["text"]), told["error"]["code"])
