"""Input queue of a connection: what has been read is acted on in order, a share at a time.

    reader -> events -> handler of each -> confirms they earned -> (end of the turn) one write
                 ^            |
                 |            +-- takes long: in steps, and nothing behind it before it ends
                 |            +-- has to wait: with what came behind it (`pending_requests`)
                 +-- too many for one turn: the rest in the next, and the socket is not read

Input comes as batches: all events of a read, then the confirms they earned, then (in `Turn`) one
write.  The protocol gives a reader, a table of handlers, and says what becomes of errors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from fluffle.broker.base.errors import BrokerError
from fluffle.broker.core.pending_requests import (
    DeferredEvent,
    Waiter,
    WaitingRequests,
    WaitingRules,
    plain,
    raising,
)
from fluffle.broker.core.read_control import UNREAD_BYTES_MAX
from fluffle.broker.metadata.metadata import ignore_done, is_premature
from fluffle.broker.process.sockets import acknowledge_read, is_reset
from fluffle.protocol.steps import Steps

if TYPE_CHECKING:
    import asyncio

    from fluffle.broker.core.output_buffer import OutputBuffer
    from fluffle.broker.core.read_control import ReadControl, ReadHolds
    from fluffle.broker.core.services import Services
    from fluffle.broker.core.session import Session

TURN_COST_MAX = 2048
EVENT_COST = 16
COST_BYTES = 512
"""Most work that all connections with a backlog may do in one turn, so that a flood holds up the
others for some milliseconds only: a run of messages costs 1, and 1 for each queue it is put into;
another event costs 1, and 1 for each `COST_BYTES` of messages that it asks for."""

SHORT_READ_BYTES = 64
"""A read that is no longer may be all that a publisher sends before TCP acknowledges it: three
basic.ack, with the next publish held back by Nagle's algorithm."""

E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)
E_contra = TypeVar("E_contra", contravariant=True)


class InputReader(Protocol[E_co]):
    """Reader of a protocol: it makes events of bytes, and stops after some milliseconds."""

    is_waiting: bool
    """True if there is more to read in what was fed: `go_on` once the events are acted on."""

    @property
    def is_amid(self) -> bool:
        """True if the last of what was fed is not whole."""

    def feed(self, data: bytes) -> Sequence[E_co]:
        """Decode events that `data` completes, in order; less if the reader `is_waiting`."""

    def go_on(self) -> Sequence[E_co]:
        """Yield what there is to read in what was fed already."""

    def discard(self) -> None:
        """Drop all that was fed: nothing will be read any more."""


class InputHandler(Waiter, Protocol[E_contra]):
    """Protocol's side of a connection: what its events mean, and what becomes of its errors."""

    @property
    def waiting_rules(self) -> WaitingRules[E_contra]:
        """Rules by which an event waits for another."""

    @property
    def event_handlers(self) -> Mapping[type, Callable[[Any, Any], int]]:
        """Return a handler for each kind of event, and for a `DeferredEvent`: it is called with
        this and the event, and returns its cost (`TURN_COST_MAX`)."""

    @property
    def client_errors(self) -> tuple[type[Exception], ...]:
        """Errors that are the client's: these are refused, all others are bugs."""

    def refuse(self, error: Exception, event: E_contra) -> None:
        """Say what was wrong with an event; close what has to be closed."""

    def give_up(self, error: Exception, event: E_contra) -> None:
        """Close the connection for a bug that an event has met: it ends one connection, not the
        node."""

    def drop(self, reason: str) -> None:
        """Cut it off, without a word."""


class InputChannels(Protocol):
    """Channels of a connection, if its protocol has any."""

    def opened(self, number: int) -> Waiter | None:
        """The channel of a number, if it is open."""

    def end_read(self, *, is_amid: bool) -> None:
        """All that was read has been acted on.  `is_amid`: the last of it is not whole."""


class LongEvent(Generic[E]):
    """Event that is being acted on, in steps."""

    __slots__ = ("event", "steps", "waiter")

    def __init__(
        self, event: E | DeferredEvent[E], waiter: Waiter | None, steps: Steps[None]
    ) -> None:
        self.event = event
        self.waiter = waiter
        """The work ends with this channel, if there is one."""
        self.steps = steps

    @property
    def is_wanted(self) -> bool:
        """True if its channel has not ended, maybe in a step of it."""
        return self.waiter is None or self.waiter.is_open

    def go_on(self) -> bool:
        """Do one step; whether there are more."""
        try:
            next(self.steps)
        except StopIteration:
            return False
        return True


class InputQueue(Generic[E]):
    """Queue of the events of one connection that have been read and not acted on: empty between
    turns, unless there is very much.  It waits for commits: a `CommitWaiter`."""

    __slots__ = (
        "_channels",
        "_commits",
        "_connections",
        "_handler",
        "_output",
        "_read_control",
        "_read_holds",
        "_reader",
        "_transport",
        "_turn",
        "events",
        "is_asking",
        "is_over",
        "session",
        "waiting",
        "work",
    )

    def __init__(
        self,
        handler: InputHandler[E],
        reader: InputReader[E],
        services: Services,
        *,
        transport: asyncio.Transport,
        output: OutputBuffer,
        read_control: ReadControl,
        read_holds: ReadHolds,
    ) -> None:
        self._handler: InputHandler[E] | None = handler
        """None once the connection is gone."""
        self._reader: InputReader[Any] = reader
        self._connections = services.connections
        self._turn, self._commits = services.runtime.turn, services.runtime.commits
        self._transport, self._output = transport, output
        self._read_control, self._read_holds = read_control, read_holds
        self._channels: InputChannels | None = None
        self.events: deque[E | DeferredEvent[E]] = deque()
        """Events that have been read and not acted on."""
        self.waiting: WaitingRequests[E] = WaitingRequests(
            handler.waiting_rules, self._go_on, services.connections.deferred
        )
        self.work: LongEvent[E] | None = None
        """An event that takes long: nothing that came behind it is acted on before it ends."""
        self.session: Session | None = None
        """Session of the client, from its login until it ends."""
        self.is_asking = False
        """True if its last request was answered with a message."""
        self.is_over = False
        """True if nothing more is acted on."""

    # The life of a connection

    def begin(self, session: Session, channels: InputChannels | None = None) -> None:
        """The client has logged in.  Without `channels` what waits is the whole connection."""
        self.session, self._channels = session, channels
        self.waiting.read_barrier = session.read_barrier

    def end_session(self) -> None:
        """The session has ended: what waits is not wanted any more, nor what takes long."""
        self.session = self._channels = self.work = None
        self.waiting.clear()

    def stop(self) -> None:
        """Act on nothing more; the event that is being acted on is the last."""
        if not self.is_over:
            self.is_over = True
            self._connections.busy.discard(self._handler)

    def discard(self) -> None:
        """Drop all that has come: it is over."""
        self.is_over, self.work = True, None
        self.events.clear()
        self._reader.discard()

    def end(self) -> None:
        """The connection is gone, and nothing here keeps it alive."""
        self.discard()
        self.waiting.clear()
        self._handler = None

    # Events that are acted on again

    def put_back(self, events: Sequence[E], mark: int = 0) -> None:
        """Act on these next; as on what has waited, if they were part of a `DeferredEvent` of that
        mark."""
        again = [DeferredEvent(event, mark) for event in events] if mark else events
        self.events.extendleft(reversed(again))

    def act_again(self, event: E | DeferredEvent[E]) -> None:
        """Act on an event anew: once what it waits for is there, or else next."""
        if not self.waiting.keeps(event):
            self.events.appendleft(event)

    # What came in

    def act(self, data: bytes = b"") -> None:
        """Act on what was read; if it is much, on the rest in the next turn or once it drains."""
        handler, busy, shares = self._handler, self._connections.busy, self._connections.shares
        if self.is_over or handler is None:
            return
        busy.discard(handler)
        if not data and is_reset(self._transport):
            handler.drop("connection reset by peer")  # and nobody wants what it had begun
            return
        until_s = shares.begin(handler, len(busy))
        if data:
            self.events.extend(self._reader.feed(data))
        has_enough = self._output.has_enough and self.is_asking
        if self._read_control.holds("alarm") or has_enough or self.waiting.is_blocking:
            self._read_control.hold("busy")
            self._wait_for_commit()
            return
        ends_turn = self._turn.begin()
        if ends_turn and self.session is not None:
            self.session.has_put = False
        try:
            cost_max = max(EVENT_COST, TURN_COST_MAX // (1 + len(busy)))
            self._act_on_events(handler, cost_max, until_s)
            if self.session is not None and self.session.confirming:
                self.session.confirm()
        finally:
            if ends_turn:
                self._turn.end(len(data))
        output, transport = self._output, self._transport
        if 0 < len(data) <= SHORT_READ_BYTES and self._is_answered_later:
            acknowledge_read(transport)
        if output.is_draining and transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            self._read_holds.wait_until_read()
        is_used_up = shares.end(until_s)
        if not (self.events or self._reader.is_waiting or is_used_up or self.work):
            if self._channels is not None:
                self._channels.end_read(is_amid=self._reader.is_amid)
            self._read_control.release("busy")
        elif not self.is_over:
            self._read_control.hold("busy")
            self.act_later()

    @property
    def _is_answered_later(self) -> bool:
        """True if the read brought no messages of a publisher, whose confirm would come soon."""
        session = self.session
        if session is None or self.is_over:
            return False
        return session.wants_confirms and not session.has_put

    def act_later(self) -> None:
        """Go on in the next turn, if there is anything to go on with."""
        busy = self._connections.busy
        if self._read_control.holds("busy") and not self.is_over and self._handler not in busy:
            busy.add(self._handler)
            self._turn.call_soon(self.act)

    def _act_on_events(self, handler: InputHandler[E], cost_max: int, until_s: float) -> None:
        """Act for so much and so long, and on one event at least; `cost_max` is more than 0."""
        handlers, waiting, events = handler.event_handlers, self.waiting, self.events
        cost, now_s = 0, self._connections.shares.now_s
        while cost < cost_max and not self.is_over:
            if self.work is not None:
                cost += self._work_on(handler, self.work, until_s)
            elif events:
                event = events.popleft()
                if waiting.kept and (wait_cost := self._wait(event)):
                    cost += wait_cost
                    continue
                try:
                    cost += handlers[type(event)](handler, event)
                except Exception as error:  # noqa: BLE001 - a bug ends one connection
                    cost += EVENT_COST
                    self._failed(handler, error, event)
            elif self._reader.is_waiting:
                events.extend(self._reader.go_on())
            else:
                break
            if now_s() >= until_s:
                break

    def _work_on(self, handler: InputHandler[E], work: LongEvent[E], until_s: float) -> int:
        """Go on with what takes long, for so long; what that costs."""
        now_s, cost, goes_on = self._connections.shares.now_s, 0, True
        try:
            while goes_on and cost < EVENT_COST:
                cost += 1
                goes_on = work.is_wanted and work.go_on()
                if now_s() >= until_s:
                    break
        except Exception as error:  # noqa: BLE001 - as in `_act_on_events`
            goes_on = False
            self._failed(handler, error, work.event)
        if not goes_on and self.work is work:
            self.work = None
        return cost

    def _failed(
        self, handler: InputHandler[E], error: Exception, event: E | DeferredEvent[E]
    ) -> None:
        """An event could not be acted on."""
        if not isinstance(error, handler.client_errors):
            handler.give_up(error, plain(event))
        elif not self._doubts(handler, error, event):
            handler.refuse(error, plain(event))

    # What has to wait

    def _doubts(
        self, handler: InputHandler[E], error: Exception, event: E | DeferredEvent[E]
    ) -> bool:
        """True if it is said only once more is known; then the event waits for that."""
        if not is_premature(error, self.waiting.read_barrier):
            return False
        if isinstance(event, DeferredEvent) and self.waiting.is_known(event):
            return False
        waiter = self._waiter_of(handler, plain(event))
        if waiter is None:
            return False
        self.waiting.begin(waiter.number)
        self.waiting.keeps(event)
        self.ask(waiter, plain(event), ignore_done)
        return True

    def _waiter_of(self, handler: InputHandler[E], event: E) -> Waiter | None:
        """Return the waiter for an event whose negative answer would be premature."""
        rules = handler.waiting_rules
        number = rules.number_of(event) if rules.asks_definitions(event) else None
        if number is None or self.session is None:
            return None
        return self._channels.opened(number) if self._channels is not None else handler

    def ask(self, waiter: Waiter, event: E, act: Callable[[], None]) -> None:
        """Go on with what has begun to wait once all is known that was answered anywhere before."""
        over = partial(self.waiting.over, waiter, event)

        def failed(error: BrokerError) -> None:
            over(raising(error))

        self.waiting.read_barrier.ask(partial(over, act), failed)

    def _wait(self, event: E | DeferredEvent[E]) -> int:
        """Let it wait with its channel, or all with it, if it has to; what that costs."""
        if not self.waiting.keeps(event):
            if not self.waiting.blocks(event):
                return 0
            self.events.appendleft(event)
        return TURN_COST_MAX if self.waiting.is_blocking else EVENT_COST

    def _go_on(self, waiter: Waiter, event: E, act: Callable[[], None]) -> None:
        """Act for what has waited, if it is still there, and on what came for it."""
        handler = self._handler
        if handler is None:
            return
        kept = self.waiting.end(waiter.number)  # `act` may wait anew
        try:
            if waiter.is_open:
                act()
        except handler.client_errors as error:
            handler.refuse(error, event)
        except Exception as error:  # noqa: BLE001 - as in `_act_on_events`
            handler.give_up(error, event)
        if self.session is not None:
            self.events.extendleft(reversed(kept))
        if self.events and not self.is_over:
            self._read_control.hold("busy")
        self.act_later()

    def _wait_for_commit(self) -> None:
        """Go on when what is held back has gone out, if anything is."""
        if self._output.is_holding:
            self._commits.wait(self, self._output.ticket)

    def on_durable(self, _ticket: int) -> None:
        """The commit that was waited for has been done."""
        self.act_later()
