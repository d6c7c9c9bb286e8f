"""everywhere.rows: what each node of the cluster says to a verb, whichever of them is asked.

    -> {"verb": "everywhere.rows", "arguments": {"what": "connections.list"}}
    <- {"rows": [{"node": "a", "row": {…}}, {"node": "a", "row": {…}}, {"node": "b", "row": {…}},
                 {"node": "c", "silent": "it is down"}], "more": false}

Each row that a node gives comes with its name; a verb that gives one result gives one row.  A node
that refuses has an `error`, one that says nothing is `silent`, with the reason: it never keeps the
others waiting for long.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fluffle.broker.admin.arguments import check_arguments
from fluffle.broker.admin.context import DeferredRow, NodeContext, Result, Row, Rows
from fluffle.broker.admin.dispatch import Verb, audit, error_row, line_of
from fluffle.broker.base.errors import BrokerError, CommandInvalid, NotFound
from fluffle.broker.queues.queue_api import Deferred
from fluffle.protocol.spec import ReplyCode

if TYPE_CHECKING:
    from fluffle.broker.cluster.cluster import Cluster
    from fluffle.broker.cluster.rpc_client import RpcRequest, Told

OF_A_NODE = frozenset(
    {
        *("ping", "status", "nodes.row", "nodes.memory", "nodes.listeners"),
        *("alarms.list", "queues.critical", "queues.raft", "queues.voters"),
        *("queues.counted", "exchanges.counted"),
        *("queues.used", "queues.volume", "queues.deliveries", "exchanges.publishes"),
        *("statistics.node", "statistics.vhosts", "statistics.logins"),
        *("connections.list", "connections.close", "channels.list", "consumers.list"),
        "messages.held",
    }
)
"""Verbs of which each node knows, or does, its own part: another node may ask for these alone."""


def rows(
    context: NodeContext,
    *,
    what: str,
    arguments: dict[str, Any] | None = None,
    node: str | None = None,
) -> Rows:
    """Of this node first, then of the others by name; or of one alone.

    CommandInvalid, SyntaxFailure; NotFound if there is no such node.  Nobody is asked before the
    first row is taken; whoever takes no more closes it.
    """
    given = arguments or {}
    check_arguments(verb_of_a_node(what).arguments, given)
    own, cluster = context.config.node_name, context.cluster
    nodes = {own, *context.catalogue.nodes.entries}
    if node is not None and node not in nodes:
        raise NotFound(f"there is no node '{node}' in the cluster")
    asked = nodes if node is None else {node}
    if cluster is None or asked == {own}:
        return own_rows(context, what, given)
    return rows_of_some(context, cluster, (what, given), asked)


def rows_of_some(
    context: NodeContext, cluster: Cluster, question: tuple[str, Mapping[str, Any]], nodes: set[str]
) -> Rows:
    """All are asked at once, and told of one after the other."""
    what, given = question
    request = line_of({"verb": what, "arguments": given})
    errands = [cluster.errands.begin(each, request) for each in sorted(nodes - {cluster.name})]
    try:
        if cluster.name in nodes:
            yield from own_rows(context, what, given)
        for errand in errands:
            yield from rows_of_another(errand)
    finally:
        for errand in errands:
            errand.stop()


def rows_of_another(errand: RpcRequest) -> Rows:
    """Until it has said all, or falls silent."""
    node, has_more = errand.node, True
    while has_more:
        if not errand.is_told:
            yield errand.wait()
        rows, has_more = read(errand.take())
        yield from ({"node": node, **row} for row in rows)


def read(told: Told) -> tuple[list[Row], bool]:
    """What a node has said, row by row, and whether it has more to say."""
    from fluffle.broker.cluster.rpc_client import Page, RequestRefused  # noqa: PLC0415  of clusters alone

    try:
        if isinstance(told, Page):
            return [{"row": dict(row)} for row in json.loads(told.rows)], told.has_more
        if isinstance(told, RequestRefused):
            name = ReplyCode(told.code).name
            return [{"error": {"code": told.code, "name": name, "text": told.text}}], False
    except (ValueError, TypeError):
        return [{"silent": "nobody understands what it says"}], False
    return [{"silent": told.why}], False


def verb_of_a_node(name: str) -> Verb:
    """CommandInvalid for one that is no business of other nodes."""
    from fluffle.broker.admin.verbs import VERBS  # noqa: PLC0415  which has this one, too

    if name not in OF_A_NODE:
        raise CommandInvalid(f"'{name}' is not asked of every node")
    return VERBS[name]


def own_rows(context: NodeContext, name: str, arguments: Mapping[str, Any]) -> Rows:
    """What this node says."""
    node, verb = context.config.node_name, verb_of_a_node(name)
    try:
        result = verb.act(context, **arguments)
        if verb.is_change:
            audit(name, arguments)
        for row in rows_of(result):
            yield row if isinstance(row, Deferred) else {"node": node, "row": row}
    except BrokerError as error:
        yield {"node": node, "error": error_row(error)}


def rows_of(result: Result) -> Rows:
    """One result as a list of one row.  Raises what comes in its place."""
    if isinstance(result, dict):
        yield result
    elif isinstance(result, DeferredRow):
        yield from answered(result)
    else:
        yield from result


def answered(later: DeferredRow) -> Iterator[Row | Deferred[None]]:
    """Its row, once it is there.  BrokerError."""
    come: Deferred[None] = Deferred()
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
