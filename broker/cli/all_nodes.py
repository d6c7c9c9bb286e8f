"""What each node of a cluster has of its own, whichever of them a command is given to."""

from __future__ import annotations

from collections.abc import Iterator

import click

from fluffle.broker.cli.client import Client, RequestRefused, Row
from fluffle.broker.cli.tables import shown


def rows_everywhere(client: Client, verb: str, **arguments: object) -> Iterator[Row]:
    """The rows of all nodes; of one that says nothing a word on stderr.  Refused; Unreachable."""
    for answer in answers_of_nodes(client, verb, arguments):
        if "error" in answer:
            raise refusal(answer)
        yield answer["row"]


def close_everywhere(client: Client, **which: object) -> int:
    """How many connections were closed.  Refused if no node has what was meant; Unreachable."""
    answer = list(answers_of_nodes(client, "connections.close", which))
    done = [each["row"]["closed"] for each in answer if "row" in each]
    if not done and answer:
        raise refusal(answer[0])
    return sum(done)


def answers_of_nodes(client: Client, verb: str, arguments: Row) -> Iterator[Row]:
    """A `row` or an `error` of a node each."""
    given = {name: value for name, value in arguments.items() if value is not None}
    for answer in client.rows("everywhere.rows", what=verb, arguments=given):
        if "silent" in answer:
            who, why = shown(answer["node"]), shown(answer["silent"])
            click.echo(f"node '{who}' tells nothing: {why}", err=True)
        else:
            yield answer


def refusal(answer: Row) -> RequestRefused:
    return RequestRefused(shown(answer["error"]["text"]), answer["error"]["code"])
