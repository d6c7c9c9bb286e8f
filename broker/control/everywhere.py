"""everywhere.rows: what each node of the cluster says to a verb, whichever of them is asked.

    -> {"verb": "everywhere.rows", "arguments": {"what": "connections.list"}}
    <- {"rows": [{"node": "a", "row": {…}}, {"node": "a", "row": {…}}, {"node": "b", "row": {…}},
                 {"node": "c", "silent": "it is down"}], "more": false}

Each row that a node gives comes with its name; a verb that gives one result gives one row.  A node
that refuses has an `error`, one that says nothing is `silent`, with the reason: it never keeps the
others waiting for long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fluffle.broker.control.arguments import check_arguments
from fluffle.broker.control.dispatch import Verb, audit, error_row
from fluffle.broker.control.parts import Later, Parts, Result, Row, Rows
from fluffle.broker.errors import BrokerError, CommandInvalid
from fluffle.broker.queues.served import Later as Asked

OF_A_NODE = frozenset(
    {"ping", "status", "connections.list", "connections.close", "channels.list", "consumers.list"}
)
"""Verbs of which each node knows, or does, its own part: another node may ask for these alone."""


def rows(parts: Parts, *, what: str, arguments: dict[str, Any] | None = None) -> Rows:
    """Of this node first.  CommandInvalid, SyntaxFailure; NotFound as the verb has it."""
    given = arguments or {}
    check_arguments(verb_of_a_node(what).arguments, given)
    return own_rows(parts, what, given)


def verb_of_a_node(name: str) -> Verb:
    """CommandInvalid for one that is no business of other nodes."""
    from fluffle.broker.control.verbs import VERBS  # noqa: PLC0415  which has this one, too

    if name not in OF_A_NODE:
        raise CommandInvalid(f"'{name}' is not asked of every node")
    return VERBS[name]


def own_rows(parts: Parts, name: str, arguments: Mapping[str, Any]) -> Rows:
    """What this node says."""
    node, verb = parts.config.node_name, verb_of_a_node(name)
    try:
        result = verb.act(parts, **arguments)
        if verb.is_change:
            audit(name, arguments)
        for row in rows_of(result):
            yield row if isinstance(row, Asked) else {"node": node, "row": row}
    except BrokerError as error:
        yield {"node": node, "error": error_row(error)}


def rows_of(result: Result) -> Rows:
    """One result as a list of one row.  Raises what comes in its place."""
    if isinstance(result, dict):
        yield result
    elif isinstance(result, Later):
        yield from answered(result)
    else:
        yield from result


def answered(later: Later) -> Iterator[Row | Asked[None]]:
    """Its row, once it is there.  BrokerError."""
    come: Asked[None] = Asked()
    outcomes: list[Row | BrokerError] = []
    is_awaited = False

    def take(outcome: Row | BrokerError) -> None:
        outcomes.append(outcome)
        if is_awaited:
            come.answer(None)

    later.begin(take)
    if not outcomes:
        is_awaited = True
        yield come
    (outcome,) = outcomes
    if isinstance(outcome, BrokerError):
        raise outcome
    yield outcome


READS: Mapping[str, Callable[..., Any]] = {"everywhere.rows": rows}
