"""Verbs of the other nodes: everywhere.rows asks each node of the cluster, `PeerRequest` answers
one.

    -> {"verb": "everywhere.rows", "arguments": {"what": "connections.list"}}
    <- {"rows": [{"node": "a", "row": {…}}, {"node": "a", "row": {…}}, {"node": "b", "row": {…}},
                 {"node": "c", "silent": "it is down"}], "more": false}

Each row that a node gives comes with its name; a verb that gives one result gives one row.  A node
that refuses has an `error`, one that says nothing is `silent`, with the reason: it never keeps the
others waiting for long.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fluffle.broker.admin.arguments import check_arguments
from fluffle.broker.admin.context import DeferredRow, NodeContext, Result, Row, Rows
from fluffle.broker.admin.dispatch import VERBS, ControlVerb, Dispatcher, audit, error_row, line_of
from fluffle.broker.admin.dispatch import RowPage as Rendered
from fluffle.broker.base.errors import BrokerError, CommandInvalid, NotFound
from fluffle.broker.cluster.rpc import Page, Reply, RpcRefused
from fluffle.broker.core.services import Services
from fluffle.broker.queues.queue_api import Deferred
from fluffle.broker.runtime.commits import WaitingCall
from fluffle.protocol.spec import ReplyCode

if TYPE_CHECKING:
    from fluffle.broker.cluster.cluster import ClusterService
    from fluffle.broker.cluster.rpc import RpcReply, RpcRequest


OF_A_NODE = frozenset(
    {
        *("ping", "status", "nodes.row", "nodes.memory", "nodes.listeners"),
        *("alarms.list", "queues.critical", "queues.raft", "queues.voters"),
        *("queues.counted", "exchanges.counted"),
        *("queues.used", "queues.volume", "queues.deliveries", "exchanges.publishes"),
        *("statistics.node", "statistics.vhosts", "statistics.logins"),
        *("connections.list", "connections.of_protocol", "connections.close"),
        *("sessions.list", "channels.list", "consumers.list"),
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
    """Yield the rows of this node first, then those of the others by name; or of one node alone.

    Raises CommandInvalid and SyntaxFailure; NotFound if there is no such node.  No node is asked
    before the caller takes the first row; a caller that takes no more closes the iterator.
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
    context: NodeContext,
    cluster: ClusterService,
    question: tuple[str, Mapping[str, Any]],
    nodes: set[str],
) -> Rows:
    """Ask all at once, and yield their rows one node after the other."""
    what, given = question
    body = line_of({"verb": what, "arguments": given})
    requests = [cluster.rpc_client.begin(each, body) for each in sorted(nodes - {cluster.name})]
    try:
        if cluster.name in nodes:
            yield from own_rows(context, what, given)
        for request in requests:
            yield from rows_of_another(request)
    finally:
        for request in requests:
            request.stop()


def rows_of_another(request: RpcRequest) -> Rows:
    """Yield the rows of another node until it has sent all, or falls silent."""
    node, has_more = request.node, True
    while has_more:
        if not request.has_reply:
            yield request.wait()
        rows, has_more = read(request.take())
        yield from ({"node": node, **row} for row in rows)


def read(reply: RpcReply) -> tuple[list[Row], bool]:
    """Return the rows of one answer of a node, and whether the node has more of them."""
    from fluffle.broker.cluster.rpc import Page, RpcRefused  # noqa: PLC0415  of clusters alone

    try:
        if isinstance(reply, Page):
            return [{"row": dict(row)} for row in json.loads(reply.rows)], reply.has_more
        if isinstance(reply, RpcRefused):
            name = ReplyCode(reply.code).name
            return [{"error": {"code": reply.code, "name": name, "text": reply.text}}], False
    except (ValueError, TypeError):
        return [{"silent": "what it says is not understood"}], False
    return [{"silent": reply.why}], False


def verb_of_a_node(name: str) -> ControlVerb:
    """CommandInvalid for one that is no business of other nodes."""
    from fluffle.broker.admin.dispatch import VERBS  # noqa: PLC0415  which has this one, too

    if name not in OF_A_NODE:
        raise CommandInvalid(f"'{name}' is not asked of every node")
    return VERBS[name]


def own_rows(context: NodeContext, name: str, arguments: Mapping[str, Any]) -> Rows:
    """Yield the rows that the verb gives on this node."""
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
    """Return one result as a list of one row.  Raises the error that comes in its place."""
    if isinstance(result, dict):
        yield result
    elif isinstance(result, DeferredRow):
        yield from answered(result)
    else:
        yield from result


def answered(later: DeferredRow) -> Iterator[Row | Deferred[None]]:
    """Row, once it has been answered.  BrokerError."""
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


def peer_dispatcher(context: NodeContext, on_fatal: Callable[[Exception], None]) -> Dispatcher:
    """Acts on what other nodes ask."""
    return Dispatcher(context, {name: VERBS[name] for name in OF_A_NODE}, on_fatal)


class PeerRequest:
    """A verb that another node asks of this one, answered page by page: a `PagedListing`."""

    def __init__(
        self, dispatcher: Dispatcher, services: Services, body: bytes, reply: Reply
    ) -> None:
        self._dispatcher = dispatcher
        self._services = services
        self._request = body
        self._reply = reply
        self._rows: Rows | None = None
        """Once it has been acted on."""
        self._texts: list[str] = []
        """Rows of the next page as JSON, as far as they have come."""
        self._is_change = False
        self._is_over = False

    def go_on(self) -> None:
        self._services.runtime.turn.call_soon(self._work)

    def close(self) -> None:
        self._is_over = True
        if isinstance(self._rows, Generator):
            self._rows.close()

    def _work(self) -> None:
        if self._is_over:
            return
        ends_turn = self._services.runtime.turn.begin()
        try:
            self._send(self._next_page())
        finally:
            if ends_turn:
                self._services.runtime.turn.end()

    def _next_page(self) -> Rendered | BrokerError:
        if self._rows is None:
            outcome = self._dispatcher.act(self._request)
            if isinstance(outcome.result, BrokerError):
                return outcome.result
            self._is_change = outcome.is_change
            self._rows = rows_of(outcome.result)
        return self._dispatcher.page(self._rows)

    def _send(self, page: Rendered | BrokerError) -> None:
        """Send a page, unless it still has to be waited for."""
        if isinstance(page, BrokerError):
            self._send_when_durable(RpcRefused(int(page.code), page.explanation))
            return
        self._texts += page.rows
        if page.awaits is not None:
            page.awaits.then(self._on_answered, self._on_answered)
            return
        rows = f"[{', '.join(self._texts)}]".encode()
        self._texts = []
        self._send_when_durable(Page(rows, page.has_more))

    def _on_answered(self, _answer: object) -> None:
        self.go_on()

    def _send_when_durable(self, reply: Page | RpcRefused) -> None:
        """Once all has been written that it may speak of."""

        def send() -> None:
            if not self._is_over:
                self._reply(reply)

        commits = self._services.runtime.commits
        ticket = commits.ticket if self._is_change else commits.defined
        if ticket > commits.durable:
            commits.wait(WaitingCall(send), ticket)
        else:
            send()
