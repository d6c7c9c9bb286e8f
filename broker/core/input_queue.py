"""Input queue of a connection: what has been read is acted on in order, a share at a time.

    reader -> events -> handler of each -> confirms they earned -> (end of the turn) one write
                 ^            |
                 |            +-- takes long: in steps, and nothing behind it before it ends
                 |            +-- has to wait: with what came behind it (`pending_requests`)
                 +-- too many for one turn: the rest in the next, and the socket is not read

Input comes as batches: all events of a read, then the confirms they earned, then (in `Turn`) one
write.  The protocol gives a reader, a table of handlers, and says what becomes of errors.

The socket of a connection is read while nothing holds it (`ReadControl`): an alarm or a slow disk
has a mark there, and so has what holds it for a moment when it puts messages into a queue faster
than that queue hands them out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from fluffle.broker.alarms import Alarms
from fluffle.broker.base.clock import Timer
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.core.connections import Deadlines
from fluffle.broker.core.pending_requests import (
    WHOLE_CONNECTION,
    DeferredEvent,
    Waiter,
    WaitingRequests,
    WaitingRules,
    plain,
    raising,
)
from fluffle.broker.metadata.metadata import ignore_done, is_premature
from fluffle.broker.process.sockets import acknowledge_read, is_reset
from fluffle.broker.queues.publish_target import BlockedPublisher
from fluffle.broker.runtime.commits import Commits
from fluffle.protocol.steps import Steps

if TYPE_CHECKING:
    import asyncio

    from fluffle.broker.core.output_buffer import OutputBuffer
    from fluffle.broker.core.services import Services
    from fluffle.broker.core.session import Session


SECONDS_PER_MESSAGE = 20e-6
"""Longest wait of a publisher in debt for each message it owes, so that slow consumers slow no
publisher to less than 50,000 messages a second."""

OWED_MESSAGES_MAX = 1_000
"""A publisher reads on until it owes so many: if it were stopped after each read, reads would be
small batches, which cost a replicated queue most (benchmarks/compare --suite quorum, b1k)."""


class ReadTransport(Protocol):
    """The part of asyncio's transport that stops and goes on reading."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class BackloggedQueue(Protocol):
    """A queue, as publishers that put too much into it see it."""

    blocked_publishers: list[BlockedPublisher]


class FullQueues:
    """Queues that take nothing more for now, each of which has this among its blocked publishers.

    The connection is not read until all of them take something again.
    """

    __slots__ = ("_queues", "_read_control")

    def __init__(self, read_control: ReadControl) -> None:
        self._read_control = read_control
        self._queues: dict[BackloggedQueue, None] = {}

    def wait(self, queue: BackloggedQueue) -> None:
        if queue not in self._queues:
            self._queues[queue] = None
            queue.blocked_publishers.append(self)
            self._read_control.hold("full")

    def paid(self, queue: BackloggedQueue, count: int) -> int:
        """Note that a full queue has room again; no debt is paid by this."""
        queue.blocked_publishers.remove(self)
        del self._queues[queue]
        if not self._queues:
            self._read_control.release("full")
        return count

    def forgive(self) -> None:
        """Read the publisher again."""
        for queue in self._queues:
            queue.blocked_publishers.remove(self)
        self._queues.clear()
        self._read_control.release("full")


SLOWED_BY = frozenset({"flow", "full", "disk"})
"""Reasons of `ReadControl` that end once messages have gone where they are to go."""


class ReadControl:
    """The input side of one connection's socket."""

    __slots__ = ("_reads_ahead", "_transport", "reasons")

    def __init__(self, transport: ReadTransport) -> None:
        self._transport = transport
        self.reasons: tuple[str, ...] = ()
        """Reasons not to read it; none for as long as it is read."""
        self._reads_ahead = False
        """True if it is read although there are reasons not to."""

    def holds(self, reason: str) -> bool:
        return reason in self.reasons

    @property
    def is_slowed(self) -> bool:
        """True if messages come faster than queues or the disk take them: RabbitMQ's `flow`."""
        return not SLOWED_BY.isdisjoint(self.reasons)

    def hold(self, reason: str) -> None:
        """Do not read while `reason` lasts."""
        if not self.reasons:
            self._transport.pause_reading()
        if reason not in self.reasons:
            self.reasons += (reason,)

    def release(self, reason: str) -> None:
        """`reason` is over; read again if it was the last."""
        if reason in self.reasons:
            self.reasons = tuple(each for each in self.reasons if each != reason)
            if not self.reasons:
                self._read()

    def release_all(self) -> None:
        """Read, whatever was a reason not to."""
        if self.reasons:
            self.reasons = ()
            self._read()

    def _read(self) -> None:
        if not self._reads_ahead:
            self._transport.resume_reading()
        self._reads_ahead = False

    def read_ahead(self) -> None:
        """Read the socket although there are reasons not to: what comes is not acted on."""
        if self.reasons and not self._reads_ahead:
            self._reads_ahead = True
            self._transport.resume_reading()

    def read_no_further(self) -> None:
        """Stop reading ahead."""
        if self._reads_ahead:
            self._reads_ahead = False
            self._transport.pause_reading()


class FlowCredit:
    """Messages a publisher put into queues that are behind: a queue's `BlockedPublisher`.

    Once they are many the connection is not read until the queues have handed out as many, or its
    time is up.
    """

    __slots__ = ("_call_later", "_owed", "_read_control", "_timer", "_untimed_count")

    def __init__(
        self, read_control: ReadControl, call_later: Callable[[float, Callable[[], None]], Timer]
    ) -> None:
        self._read_control = read_control
        self._call_later = call_later
        self._owed: dict[BackloggedQueue, int] = {}
        """How many messages each queue has to hand out.  Invariant: none that is paid."""
        self._timer: Timer | None = None
        """Invariant: set while the connection is held for this."""
        self._untimed_count = 0
        """Messages owed since the timer was set, which will need another term; all that are owed
        if it is not set."""

    def owe(self, queue: BackloggedQueue, count: int) -> None:
        """`count` messages were put into `queue`, which is behind."""
        if queue not in self._owed:
            self._owed[queue] = 0
            queue.blocked_publishers.append(self)
        self._owed[queue] += count
        self._untimed_count += count
        if self._timer is None and self._untimed_count >= OWED_MESSAGES_MAX:
            self._read_control.hold("flow")
            self._set_timer()

    def _set_timer(self) -> None:
        count, self._untimed_count = self._untimed_count, 0
        self._timer = self._call_later(count * SECONDS_PER_MESSAGE, self._end_term)

    def _end_term(self) -> None:
        if self._untimed_count:
            self._set_timer()
        else:
            self.forgive()

    def paid(self, queue: BackloggedQueue, count: int) -> int:
        """Take what is owed of `count` messages that left `queue`; how many are left of them."""
        owed = self._owed[queue]
        if self._timer is None:
            self._untimed_count -= min(count, owed)
        if count < owed:
            self._owed[queue] = owed - count
            return 0
        del self._owed[queue]
        queue.blocked_publishers.remove(self)
        if not self._owed:
            self.forgive()
        return count - owed

    def forgive(self) -> None:
        """Read the publisher again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._untimed_count = 0
        for queue in self._owed:
            queue.blocked_publishers.remove(self)
        self._owed.clear()
        self._read_control.release("flow")


UNREAD_BYTES_MAX = 32 * 1_048_576
"""Beyond this in the transport's buffer, answers pile up that the client does not read: it is
not read either.  Deliveries alone, which wait, never make so much."""

UNREAD_WAIT_S_MAX = 120
"""Time in seconds for which a client may leave output unread.  Heartbeats do not tell: it may want
none, and while it is not read its silence does not count."""


def no_notification(_reason: str) -> None:
    """Where the connection is gone."""


class ReadHolds:
    """Reasons not to read a connection, from the time each begins until it is over."""

    __slots__ = (
        "_alarms",
        "_call_later",
        "_commits",
        "_deadlines",
        "_debt",
        "_full",
        "_is_ending",
        "_on_blocked",
        "_read_control",
    )  # fmt: skip

    def __init__(
        self,
        read_control: ReadControl,
        deadlines: Deadlines,
        *,
        alarms: Alarms,
        commits: Commits,
        call_later: Callable[[float, Callable[[], None]], Timer],
        on_blocked: Callable[[str], None],
    ) -> None:
        """Set the callback for alarms: `on_blocked` gets the reason while one holds the connection,
        and an empty text when that ends."""
        self._read_control = read_control
        self._deadlines = deadlines
        self._alarms = alarms
        self._commits = commits
        self._call_later = call_later
        self._debt: FlowCredit | None = None
        """None for a client that owes nothing."""
        self._full: FullQueues | None = None
        """None for a client that has not waited for any."""
        self._is_ending = False
        """True if the connection is being closed, or gone: what it has begun may still go on."""
        self._on_blocked = on_blocked

    def listen(self) -> None:
        """Alarms concern it from now on."""
        self._alarms.listen(self._on_alarm)

    def block(self) -> None:
        """A resource alarm is raised and this connection publishes."""
        self._read_control.hold("alarm")
        self._on_blocked(self._alarms.reason)

    def _on_alarm(self) -> None:
        """An alarm was raised or cleared; only the last one cleared ends a block."""
        if not self._alarms.reason and self._read_control.holds("alarm"):
            self._read_control.read_no_further()
            self._read_control.release("alarm")
            self._on_blocked("")

    def owe(self, queue: BackloggedQueue, count: int) -> None:
        """Note `count` messages of this client in `queue`, which is behind."""
        if self._debt is None:
            self._debt = FlowCredit(self._read_control, self._call_later)
        self._debt.owe(queue, count)

    def wait_for_room(self, queue: BackloggedQueue) -> None:
        """Wait for `queue`, which takes no more messages for now."""
        if self._full is None:
            self._full = FullQueues(self._read_control)
        self._full.wait(queue)

    def wait_for_disk(self) -> None:
        """Messages come faster than the disk takes them: pause until it has caught up."""
        if self._is_ending:
            return
        self._read_control.hold("disk")
        self._commits.when_caught_up(self._disk_caught_up)

    def _disk_caught_up(self) -> None:
        self._read_control.release("disk")

    @property
    def is_unread(self) -> bool:
        """True if its client leaves more answers unread than it may for long."""
        return self._read_control.holds("unread")

    def wait_until_read(self) -> None:
        """Answers pile up: do not read the client while it does not read them."""
        if not self.is_unread:
            self._read_control.hold("unread")
            self._deadlines.give("unread", UNREAD_WAIT_S_MAX, "client does not read its answers")

    def has_read(self) -> None:
        """All that was written has gone out."""
        if self.is_unread:
            self._deadlines.met("unread")
            self._read_control.release("unread")

    def hear(self) -> None:
        """The connection is being closed, and the answer to that has to be read."""
        self._is_ending = True
        self._forgive()
        self._read_control.release("alarm")

    def end(self) -> None:
        """The connection is gone: nothing is sent to it, and nothing keeps it alive."""
        self._is_ending = True
        self._on_blocked = no_notification
        self._forgive()
        self._commits.forget(self._disk_caught_up)
        self._alarms.unlisten(self._on_alarm)

    def _forgive(self) -> None:
        """Read the client whatever it has put into queues that are behind."""
        if self._debt is not None:
            self._debt.forgive()
        if self._full is not None:
            self._full.forgive()


TURN_COST_MAX = 2048
"""Most work that all connections with a backlog may do in one turn, so that a flood holds up the
others for some milliseconds only.  A run of messages costs 1, and 1 for each queue that it is put
into."""
EVENT_COST = 16
"""Cost of any other event."""
COST_BYTES = 512
"""Bytes of messages that such an event asks for, for each of which it costs 1 more."""

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

    def forget_beyond(self, count: int) -> None:
        """Forget what can be found out again, if it is more than `count` things."""


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

    def answer_held(self) -> None:
        """An alarm holds what has been read: answer of it what needs no messages to be taken."""

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
        self.events: list[E | DeferredEvent[E]] = []
        """Events that have been read and not acted on: the next one is the last."""
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

    @property
    def last_waiting(self) -> E | None:
        """The last event that was read, if it was not acted on."""
        last = self.events[:1] or self.waiting.kept.get(WHOLE_CONNECTION, [])[-1:]
        return plain(last[0]) if last else None

    def read_to_last(self) -> E | None:
        """Read all that came, for the connection ends; return the last event of it that was not
        acted on.  None of the rest will be."""
        last = self.last_waiting
        while self._reader.is_waiting:
            events = self._reader.go_on()
            last = events[-1] if events else last
        return last

    # Events that are acted on again

    def put_back(self, events: Sequence[E], mark: int = 0) -> None:
        """Act on these next; as on what has waited, if they were part of a `DeferredEvent` of that
        mark."""
        again = [DeferredEvent(event, mark) for event in events] if mark else events
        self.events += reversed(again)

    def act_again(self, event: E | DeferredEvent[E]) -> None:
        """Act on an event anew: once what it waits for is there, or else next."""
        if not self.waiting.keeps(event):
            self.events.append(event)

    # What came in

    def act(self, data: bytes = b"") -> None:
        """Act on what was read; if it is much, on the rest in the next turn or once it drains."""
        handler, busy, shares = self._handler, self._connections.busy, self._connections.shares
        if self.is_over or handler is None:
            return
        busy.discard(handler)
        if not data and is_reset(self._transport):
            handler.drop("connection reset by peer")  # what it had begun is not wanted
            return
        until_s = shares.begin(handler, len(busy))
        if data:
            self.events[:0] = reversed(self._reader.feed(data))
        is_held = "alarm" in self._read_control.reasons
        if (self.is_asking and self._output.has_enough) or self.waiting.is_blocking or is_held:
            self._read_control.hold("busy")
            self._wait_for_commit()
            if is_held:
                handler.answer_held()
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
        output, transport, session = self._output, self._transport, self.session
        # a publisher has sent no messages, whose confirm would come soon
        is_answered_later = session is not None and session.wants_confirms and not session.has_put
        if is_answered_later and 0 < len(data) <= SHORT_READ_BYTES and not self.is_over:
            acknowledge_read(transport)
        if output.is_draining and transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            self._read_holds.wait_until_read()
        is_used_up = shares.end(until_s)
        if not (self.events or self._reader.is_waiting or is_used_up or self.work):
            if self._channels is not None:
                self._channels.end_read(is_amid=self._reader.is_amid)
            if self._read_control.reasons:
                self._read_control.release("busy")
        elif not self.is_over:
            self._read_control.hold("busy")
            self.act_later()

    def act_later(self) -> None:
        """Go on in the next turn, if there is anything to go on with."""
        busy = self._connections.busy
        if "busy" in self._read_control.reasons and not self.is_over and self._handler not in busy:
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
                event = events.pop()
                if waiting.kept and (wait_cost := self._wait(event)):
                    cost += wait_cost
                    continue
                try:
                    cost += handlers[type(event)](handler, event)
                except Exception as error:  # noqa: BLE001 - a bug ends one connection
                    cost += EVENT_COST
                    self._failed(handler, error, event)
            elif self._reader.is_waiting:
                events += reversed(self._reader.go_on())
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
            self.events.append(event)
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
            self.events += reversed(kept)
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
