"""A connection to the control socket: request lines in, answer lines out, all of it bounded.

One thing is done in a turn of the loop, a request or a page of a list, so that no script holds up
clients.  While there is something to do the socket is not read, and nothing is done for who does
not read.  An answer leaves when what it says is safe: after a change, once all that the store was
given has been written; else once every declaration has that it may speak of.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Generator
from functools import partial
from typing import cast

from fluffle.broker.admin.context import DeferredRow, Row, Rows
from fluffle.broker.admin.dispatch import (
    Dispatcher,
    RequestId,
    RequestOutcome,
    RowPage,
    answer_line,
    page_line,
)
from fluffle.broker.base.clock import Timer
from fluffle.broker.base.errors import BrokerError, PreconditionFailed, SyntaxFailure
from fluffle.broker.core.output_buffer import OutputBuffer
from fluffle.broker.core.services import Services

CONNECTIONS_MAX = 32
"""Operators and their scripts are few."""

LINE_BYTES_MAX = 1 << 20
"""Most bytes of a request; definitions come in pieces."""

WRITE_BUFFER_BYTES_MAX = 1 << 18
UNREAD_WAIT_S_MAX = 60.0
"""Time in seconds after which a client that does not read its answers is disconnected."""

UNANSWERED_MAX = 64
"""Answers that wait for the disk or for a slow check; with so many, nothing more is begun."""


class ControlConnection(asyncio.Protocol):
    """A client of the control socket; its requests are acted on in order."""

    def __init__(
        self, dispatcher: Dispatcher, services: Services, open_conversations: set[ControlConnection]
    ) -> None:
        """Serve one client of the control socket, listed in `open_conversations` while its socket
        is open."""
        self._dispatcher = dispatcher
        self._services = services
        self._open_connections = open_conversations
        self._input = bytearray()
        """Bytes of a line that has not arrived whole."""
        self._lines: deque[bytes] = deque()
        self._list: tuple[RequestId, Rows] | None = None
        """Request whose rows are being sent, with the rows left."""
        self._later_count = 0
        self._is_changing = False
        """True if a change is under way: what was asked for behind it may rest on it."""
        self._held_count = 0
        self._is_awaiting = False
        """True if a list waits for what it has asked."""
        self._is_scheduled = False
        self._is_last = False
        """True if nothing more will come, so that the end of the answers is the end."""
        self._timer: Timer | None = None

    # Calls of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        self._output = OutputBuffer(
            self._transport, touch=self._services.runtime.turn.touch_output_buffer
        )
        self._open_connections.add(self)
        if len(self._open_connections) > CONNECTIONS_MAX:
            self._refuse(PreconditionFailed(f"there are {CONNECTIONS_MAX} connections already"))

    def data_received(self, data: bytes) -> None:
        if self._is_last:
            return
        start = len(self._input)
        self._input += data
        if b"\n" in data:
            last = self._input.rindex(b"\n", start)
            self._lines.extend(filter(None, bytes(self._input[:last]).split(b"\n")))
            del self._input[: last + 1]
        if max(map(len, (*self._lines, self._input))) > LINE_BYTES_MAX:
            self._refuse(SyntaxFailure(f"a request is longer than {LINE_BYTES_MAX} bytes"))
        self._schedule()

    def eof_received(self) -> bool:
        """Answer what was asked for, then close."""
        self._is_last = True
        self._schedule()
        return True

    def pause_writing(self) -> None:
        self._output.is_draining = True
        self._drop_later()

    def resume_writing(self) -> None:
        self._output.drained()
        self._stop_timer()
        self._schedule()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._open_connections.discard(self)
        self._lines.clear()
        if self._list is not None and isinstance(self._list[1], Generator):
            self._list[1].close()  # what is done for it ends now
        self._list = None
        self._output.discard()

    def drop(self) -> None:
        """Hang up."""
        self._output.discard()
        self._transport.abort()

    def _drop_later(self) -> None:
        """Unless what there is has been read by then."""
        self._stop_timer()
        self._timer = self._services.runtime.clients_call_later(UNREAD_WAIT_S_MAX, self.drop)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # What there is to do

    def _refuse(self, error: BrokerError) -> None:
        """Say what is wrong, and close."""
        self._lines.clear()
        self._input.clear()
        self._send(answer_line(None, error), ticket=0)
        self._is_last = True
        self._schedule()

    @property
    def _is_busy(self) -> bool:
        return self._list is not None or bool(self._lines)

    @property
    def _is_gone(self) -> bool:
        return self not in self._open_connections or self._transport.is_closing()

    @property
    def _may_act(self) -> bool:
        waiting = self._later_count + self._held_count
        is_held = self._output.is_draining or self._is_changing or self._is_awaiting
        return not is_held and waiting < UNANSWERED_MAX

    def _schedule(self) -> None:
        """Go on in the next turn, if there is something to do and it may be done."""
        if self._is_scheduled or self._is_gone:
            return
        if self._is_busy:
            self._transport.pause_reading()
            if self._may_act:
                self._is_scheduled = True
                self._services.runtime.turn.call_soon(self._act)
        elif not self._is_last:
            self._transport.resume_reading()
        elif not (self._later_count or self._held_count):
            self._output.flush()
            self._transport.close()
            self._drop_later()

    def _act(self) -> None:
        self._is_scheduled = False
        ends_turn = self._services.runtime.turn.begin()
        try:
            if self._list is not None:
                self._send_page(*self._list)
            elif self._lines:
                self._answer(self._dispatcher.act(self._lines.popleft()))
        finally:
            if ends_turn:
                self._services.runtime.turn.end()
        self._schedule()

    def _answer(self, outcome: RequestOutcome) -> None:
        request_id, result = outcome.request_id, outcome.result
        if isinstance(result, DeferredRow):
            self._later_count += 1
            self._is_changing = outcome.is_change
            error = self._dispatcher.guarded(
                partial(result.begin, partial(self._answer_later, outcome))
            )
            if error is not None:
                self._answer_later(outcome, error)
        elif isinstance(result, dict | BrokerError):
            if result or outcome.is_change:
                self._send(answer_line(request_id, result), self._ticket_of(outcome))
            else:
                self._send(answer_line(request_id, result), ticket=0)  # {} says nothing: a ping
        else:
            self._list = request_id, result

    def _answer_later(self, outcome: RequestOutcome, result: Row | BrokerError) -> None:
        self._later_count -= 1
        self._is_changing = self._is_changing and not outcome.is_change
        self._send(answer_line(outcome.request_id, result), self._ticket_of(outcome))
        self._schedule()

    def _ticket_of(self, outcome: RequestOutcome) -> int:
        """The commit that makes safe what an answer says."""
        commits = self._services.runtime.commits
        return commits.ticket if outcome.is_change else commits.defined

    def _send_page(self, request_id: RequestId, rows: Rows) -> None:
        """Send a page."""
        page = self._dispatcher.page(rows)
        if isinstance(page, RowPage) and page.awaits is not None:
            self._is_awaiting = True
            page.awaits.then(self._on_answered, self._on_answered)
        if isinstance(page, BrokerError):
            self._list = None
            line = answer_line(request_id, page)
        else:
            line = page_line(request_id, page)
            self._list = (request_id, rows) if page.has_more else None
        self._send(line, self._services.runtime.commits.defined)

    def _on_answered(self, _answer: object) -> None:
        """Go on with a list once what it waited for is known, or failed."""
        self._is_awaiting = False
        self._schedule()

    def _send(self, line: bytes, ticket: int) -> None:
        """Send a line once the commit `ticket` has been done."""
        if self._is_gone:
            return
        commits = self._services.runtime.commits
        if ticket > commits.durable:
            self._output.hold(ticket)
            commits.wait(self._output, ticket)
            commits.wait(self, ticket)
        if self._output.is_holding:
            self._held_count += 1
        self._output.add(line)

    def on_durable(self, _ticket: int) -> None:
        """A commit has been done that answers have waited for."""
        if not self._output.is_holding:
            self._held_count = 0
        self._schedule()
