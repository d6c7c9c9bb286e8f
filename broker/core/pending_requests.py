"""Requests that wait until what they asked for has come true, and what comes behind them meanwhile.

What a client sends behind a declaration may rest on what it declares, so nothing of it is acted on
before.  A protocol says which of its events wait for which others, by small numbers: those of a
channel for that channel, where there are channels.  Those of number 0 concern all of the
connection: they wait for all others, and all others for them.  So it is with what a queue that is
led elsewhere must be asked.  On a lone node nothing has to wait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeAlias, TypeVar

from fluffle.broker.base.errors import BrokerError, QueueDeleted
from fluffle.broker.core.connections import DeferredBytes
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.metadata.metadata import LOCAL_READ_BARRIER, Decide, ReadBarrier
from fluffle.broker.queues.queue_api import Deferred

KEPT_BYTES_MAX = 1 << 20
"""Beyond this the connection goes no further: so much is mostly read at once."""

ALL_KEPT_BYTES_MAX = 1 << 25
"""Beyond this, of all connections together, none goes further that has anything kept."""

EVENT_BYTES = 256
"""Memory that a kept event takes besides its content."""

WHOLE_CONNECTION = 0
"""The number of what concerns all of a connection."""

T = TypeVar("T")
E = TypeVar("E")
E_contra = TypeVar("E_contra", contravariant=True)


class Waiter(Protocol):
    """Channel, or connection as a whole, that has asked for something and waits."""

    @property
    def number(self) -> int:
        """Number of the events that wait with it."""

    @property
    def is_open(self) -> bool:
        """True if what it has asked for is still wanted."""


class WaitingRules(Protocol[E_contra]):
    """Rules of a protocol for events that have to wait: they know no connection."""

    def number_of(self, event: E_contra) -> int | None:
        """Number of what an event has to wait for; None if it waits for nothing."""

    def size_of(self, event: E_contra) -> int:
        """Bytes that it costs to keep an event."""

    def asks_definitions(self, event: E_contra) -> bool:
        """True if an event asks something of definitions, and does nothing before it is refused:
        then that waits until more is known, and the event is acted on anew."""


@dataclass(slots=True)
class DeferredEvent(Generic[E]):
    """Event that has waited, and the first confirmation of `ReadBarrier` begun after it came:
    once that is there, the answer may rest on something not being here."""

    event: E
    mark: int


GoOn: TypeAlias = Callable[[Waiter, E, Callable[[], None]], None]
"""(what has waited, with which event, what to do if it is still open)."""


def no_continuation(_waiter: Waiter, _event: object, _act: Callable[[], None]) -> None:
    """Where the connection has ended."""


def plain(event: E | DeferredEvent[E]) -> E:
    """The event itself, whether it has waited or not."""
    return event.event if isinstance(event, DeferredEvent) else event


@dataclass(slots=True, eq=False)
class WaitingRequests(Generic[E]):
    """Table of what waits on one connection, and of the events that wait with it."""

    rules: WaitingRules[E]
    """Rules of the protocol, which may be others while a client is asked for something."""
    _go_on: GoOn[E]
    """Acts for what has waited, and then on what is taken with `end`."""
    _of_all: DeferredBytes
    read_barrier: ReadBarrier = LOCAL_READ_BARRIER
    """Read barrier of the node, once anything is asked of it."""
    kept: dict[int, list[E | DeferredEvent[E]]] = field(default_factory=dict)
    """Events that wait, by number."""
    _kept_bytes: int = field(default=0, init=False)
    is_blocking: bool = False
    """True if nothing more of the connection may be acted on until something has gone on."""

    def begin(self, number: int) -> None:
        """Keep what comes for a number from now on; for number 0 that is all."""
        self.kept[number] = []

    def keeps(self, event: E | DeferredEvent[E]) -> bool:
        """True if an event is for what waits; then it has been kept."""
        number = self.rules.number_of(plain(event))
        if number is None:
            return False
        kept = self.kept.get(number, self.kept.get(WHOLE_CONNECTION))
        if kept is None:
            return False
        if not (self.read_barrier.is_complete or isinstance(event, DeferredEvent)):
            event = DeferredEvent(event, self.read_barrier.mark)
        kept.append(event)
        self._count(self._size_of(event))
        self.is_blocking = self.is_blocking or self._is_much
        return True

    def _size_of(self, event: E | DeferredEvent[E]) -> int:
        return self.rules.size_of(plain(event))

    def _count(self, more_bytes: int) -> None:
        self._kept_bytes += more_bytes
        self._of_all.total += more_bytes

    @property
    def _is_much(self) -> bool:
        """True if no more may be kept, of this connection or of all."""
        is_full = self._of_all.total > ALL_KEPT_BYTES_MAX
        return self._kept_bytes > (0 if is_full else KEPT_BYTES_MAX)

    def keeps_first(self, number: int, event: E) -> None:
        """Act on something anew, before all that came behind it for a number that waits, if that
        still does."""
        if (kept := self.kept.get(number)) is not None:
            kept.insert(0, event)
            self._count(self._size_of(event))

    def blocks(self, event: E | DeferredEvent[E]) -> bool:
        """True if one that was not kept has to wait for all numbers, and all behind it."""
        number = self.rules.number_of(plain(event))
        if number is None:
            return False
        self.is_blocking = self.is_blocking or number == WHOLE_CONNECTION
        return self.is_blocking

    def over(self, waiter: Waiter, event: E, act: Callable[[], None]) -> None:
        """The answer that something has waited for, with an event, is there, or cannot be."""
        self._go_on(waiter, event, act)

    def is_known(self, kept: DeferredEvent[E]) -> bool:
        """True if all is known here that was answered anywhere before an event came."""
        return self.read_barrier.confirmed >= kept.mark

    def end(self, number: int) -> list[E | DeferredEvent[E]]:
        """Wait no more; what has been kept for the number, to be acted on before all else."""
        kept = self.kept.pop(number, [])
        if kept:
            self._count(-sum(map(self._size_of, kept)))
        self.is_blocking = self._kept_bytes > 0 and self._is_much
        return kept

    def clear(self) -> None:
        """Nothing that waits is wanted any more, and nothing here keeps the connection alive."""
        self._go_on = no_continuation
        self.kept.clear()
        if self._kept_bytes:
            self._count(-self._kept_bytes)
        self.is_blocking = False


class PendingRequest(Generic[E]):
    """Change of definitions that was asked for and that may take its time."""

    __slots__ = ("_decide", "_done", "_event", "_is_late", "_is_over", "_waiter", "_waiting")

    def __init__(
        self,
        waiting: WaitingRequests[E],
        waiter: Waiter,
        event: E,
        *,
        decide: Decide,
        done: Callable[[], None],
    ) -> None:
        """`event` has asked for it."""
        self._waiting = waiting
        self._waiter = waiter
        self._event = event
        self._decide = decide
        self._done = done
        self._is_late = False
        self._is_over = False

    def wait(self) -> None:
        """Let the waiter wait, unless it is over."""
        if not self._is_over:
            self._is_late = True
            self._waiting.begin(self._waiter.number)

    def decide(self) -> Change:
        """Decide the change; an empty one once its requester is gone."""
        if self._is_late and self._waiter.number not in self._waiting.kept:
            return NOTHING
        return self._decide()

    def done(self) -> None:
        """Answer the request: its change is committed."""
        self._is_over = True
        if self._is_late:
            self._waiting.over(self._waiter, self._event, self._done)
        else:
            self._done()

    def failed(self, error: BrokerError) -> None:
        """Refuse the request, whose change has turned out to be impossible."""
        self._is_over = True
        self._waiting.over(self._waiter, self._event, raising(error))


class ChannelQuery(Generic[E, T]):
    """Query to a queue that is led elsewhere, which has not been answered yet."""

    __slots__ = ("_act", "_event", "_undo", "_unwanted", "_waiter", "_waiting")

    def __init__(
        self,
        waiting: WaitingRequests[E],
        waiter: Waiter,
        event: E,
        *,
        act: Callable[[T], None],
        unwanted: Callable[[T], None],
        undo: Callable[[], None],
    ) -> None:
        """`act` goes on with the answer; if the waiter has ended by then, `unwanted` does.  `undo`
        comes before the event that has asked is acted on anew."""
        self._waiting = waiting
        self._waiter = waiter
        self._event = event
        self._act = act
        self._unwanted = unwanted
        self._undo = undo

    def wait(self, later: Deferred[T]) -> None:
        self._waiting.begin(self._waiter.number)
        later.then(self._answered, self._failed)

    def _answered(self, answer: T) -> None:
        is_wanted = False

        def act() -> None:
            nonlocal is_wanted
            is_wanted = True
            self._act(answer)

        self._waiting.over(self._waiter, self._event, act)
        if not is_wanted:
            self._unwanted(answer)

    def _failed(self, error: BrokerError) -> None:
        """Refuse; but if the queue was deleted, ask the one that has its name, or find none."""
        act = raising(error)
        if isinstance(error, QueueDeleted):
            self._waiting.keeps_first(self._waiter.number, self._event)
            act = self._undo
        self._waiting.over(self._waiter, self._event, act)


def raising(error: BrokerError) -> Callable[[], None]:
    """Return a function that raises `error`."""

    def act() -> None:
        raise error

    return act
