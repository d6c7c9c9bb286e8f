"""What another node asks of this one: a request as at the control socket, of fewer verbs.

One page is made in a turn of the loop, and is told when what it says is safe.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from fluffle.broker.admin.all_nodes import OF_A_NODE, rows_of
from fluffle.broker.admin.context import NodeContext, Rows
from fluffle.broker.admin.dispatch import Dispatcher
from fluffle.broker.admin.dispatch import RowPage as Rendered
from fluffle.broker.admin.verbs import VERBS
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.cluster.rpc_client import Page, RequestRefused
from fluffle.broker.cluster.rpc_server import Tell
from fluffle.broker.protocols.amqp091.services import Services
from fluffle.broker.runtime.commits import WaitingCall


def peer_dispatcher(context: NodeContext, on_fatal: Callable[[Exception], None]) -> Dispatcher:
    """Acts on what other nodes ask."""
    return Dispatcher(context, {name: VERBS[name] for name in OF_A_NODE}, on_fatal)


class PeerRequest:
    """One of their requests: a `Listing`."""

    __slots__ = (
        "_dispatcher", "_is_change", "_is_over", "_reply", "_request", "_rows", "_services",
        "_texts",
    )  # fmt: skip

    def __init__(
        self, dispatcher: Dispatcher, services: Services, request: bytes, reply: Tell
    ) -> None:
        self._dispatcher = dispatcher
        self._services = services
        self._request = request
        self._reply = reply
        self._rows: Rows | None = None
        """Once it has been acted on."""
        self._texts: list[str] = []
        """Of the next page, as far as it has come."""
        self._is_change = False
        self._is_over = False

    def go_on(self) -> None:
        self._services.call_soon(self._work)

    def close(self) -> None:
        self._is_over = True
        if isinstance(self._rows, Generator):
            self._rows.close()

    def _work(self) -> None:
        if self._is_over:
            return
        ends_turn = self._services.turn.begin()
        try:
            self._send(self._next_page())
        finally:
            if ends_turn:
                self._services.turn.end()

    def _next_page(self) -> Rendered | BrokerError:
        if self._rows is None:
            outcome = self._dispatcher.act(self._request)
            if isinstance(outcome.result, BrokerError):
                return outcome.result
            self._is_change = outcome.is_change
            self._rows = rows_of(outcome.result)
        return self._dispatcher.page(self._rows)

    def _send(self, page: Rendered | BrokerError) -> None:
        """That page, unless it still has to be waited for."""
        if isinstance(page, BrokerError):
            self._send_when_durable(RequestRefused(int(page.code), page.explanation))
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

    def _send_when_durable(self, reply: Page | RequestRefused) -> None:
        """Once all has been written that it may speak of."""

        def send() -> None:
            if not self._is_over:
                self._reply(reply)

        commits = self._services.commits
        ticket = commits.ticket if self._is_change else commits.defined
        if ticket > commits.durable:
            commits.wait(WaitingCall(send), ticket)
        else:
            send()
