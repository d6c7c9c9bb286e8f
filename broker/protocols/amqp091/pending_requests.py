"""Channels that wait until what they asked for has come true, and what comes for them meanwhile.

What a channel sends behind a declaration may rest on what it declares, so nothing of it is acted on
before; the other channels of the connection go on.  What concerns all of them waits for all.  So it
is with what a queue that is led elsewhere must be asked.  On a lone node nothing has to wait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from fluffle.broker.base.errors import BrokerError, QueueDeleted
from fluffle.broker.core.connections import DeferredBytes
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.metadata.metadata import LOCAL_READ_BARRIER, Decide, ReadBarrier
from fluffle.broker.queues.queue_api import Deferred
from fluffle.protocol.events import Event, MethodReceived, Publishes, Violation
from fluffle.protocol.methods import Method, encode_payload

if TYPE_CHECKING:
    from fluffle.broker.core.client import SessionChannel

KEPT_BYTES_MAX = 1 << 20
"""Beyond this the connection goes no further: so much is mostly read at once."""

ALL_KEPT_BYTES_MAX = 1 << 25
"""Beyond this, of all connections together, none goes further that has anything kept."""

EVENT_BYTES = 256
"""What an event costs beside what came with it."""

T = TypeVar("T")

Ids: TypeAlias = tuple[int, int]
"""Class and method, for errors about them."""

GoOn: TypeAlias = Callable[["SessionChannel | None", Ids, Callable[[], None]], None]
"""(channel, or None for the connection itself, about which method, what to do there if it is still
open)."""


def no_continuation(_channel: SessionChannel | None, _ids: Ids, _act: Callable[[], None]) -> None:
    """Where the connection has ended."""


@dataclass(slots=True)
class DeferredEvent:
    """Event that has waited, and the first confirmation of `ReadBarrier` begun after it came:
    once that is there, the answer may rest on something not being here."""

    event: Event
    mark: int

    @property
    def channel(self) -> int:
        return self.event.channel


Occurrence: TypeAlias = Event | DeferredEvent


class WaitingChannels:
    """The channels of one connection that wait."""

    __slots__ = ("_go_on", "_kept_bytes", "_of_all", "is_blocking", "kept", "read_barrier")

    def __init__(self, go_on: GoOn, of_all: DeferredBytes) -> None:
        """`go_on` acts on a channel that has waited, and then on what is taken with `end`."""
        self._go_on = go_on
        self._of_all = of_all
        self.read_barrier: ReadBarrier = LOCAL_READ_BARRIER
        """That of the node, once anything is asked of it."""
        self.kept: dict[int, list[Occurrence]] = {}
        """What came for each channel that waits."""
        self._kept_bytes = 0
        self.is_blocking = False
        """Whether nothing more of the connection may be acted on until channels have gone on."""

    def begin(self, channel: int) -> None:
        """Keep what comes for a channel from now on."""
        self.kept[channel] = []

    def begin_all(self) -> None:
        """Act on nothing more of the connection."""
        self.begin(0)
        self.is_blocking = True

    def keeps(self, event: Occurrence) -> bool:
        """Whether an event is for a channel that waits; then it has been kept."""
        kept = self.kept.get(event.channel)
        if kept is None or isinstance(event, Violation):
            return False
        if not (self.read_barrier.is_complete or isinstance(event, DeferredEvent)):
            event = DeferredEvent(event, self.read_barrier.mark)
        kept.append(event)
        self._count(size_of(event))
        self.is_blocking = self.is_blocking or self._is_much
        return True

    def _count(self, more_bytes: int) -> None:
        self._kept_bytes += more_bytes
        self._of_all.total += more_bytes

    @property
    def _is_much(self) -> bool:
        """Whether no more may be kept, of this connection or of all."""
        is_full = self._of_all.total > ALL_KEPT_BYTES_MAX
        return self._kept_bytes > (0 if is_full else KEPT_BYTES_MAX)

    def keeps_first(self, event: Event) -> None:
        """Act on something anew, before all that came behind it for a channel that waits, if that
        still does."""
        if (kept := self.kept.get(event.channel)) is not None:
            kept.insert(0, event)
            self._count(size_of(event))

    def blocks(self, event: Occurrence) -> bool:
        """Whether one that was not kept has to wait for all channels, and all behind it."""
        if isinstance(event, Violation):
            return False
        self.is_blocking = self.is_blocking or event.channel == 0
        return self.is_blocking

    def over(self, channel: SessionChannel | None, ids: Ids, act: Callable[[], None]) -> None:
        """The answer that a channel has waited for is there, or cannot be."""
        self._go_on(channel, ids, act)

    def end(self, channel: int) -> list[Occurrence]:
        """Wait no more; what has been kept for the channel, to be acted on before all else."""
        kept = self.kept.pop(channel, [])
        self._count(-sum(map(size_of, kept)))
        self.is_blocking = self._is_much
        return kept

    def clear(self) -> None:
        """The connection has ended, and nothing here keeps it alive."""
        self._go_on = no_continuation
        self.kept.clear()
        self._count(-self._kept_bytes)
        self.is_blocking = False


class PendingRequest:
    """Something that a channel has asked for and that may take its time."""

    __slots__ = ("_channel", "_decide", "_done", "_is_late", "_is_over", "_method", "_waiting")

    def __init__(
        self,
        waiting: WaitingChannels,
        channel: SessionChannel,
        method: Method,
        *,
        decide: Decide,
        done: Callable[[], None],
    ) -> None:
        self._waiting = waiting
        self._channel = channel
        self._method = method
        self._decide = decide
        self._done = done
        self._is_late = False
        self._is_over = False

    def wait(self) -> None:
        """Let the channel wait, unless it is over."""
        if not self._is_over:
            self._is_late = True
            self._waiting.begin(self._channel.number)

    def decide(self) -> Change:
        """What is to change; nothing once nobody waits for it."""
        if self._is_late and self._channel.number not in self._waiting.kept:
            return NOTHING
        return self._decide()

    def done(self) -> None:
        """It has come true."""
        self._is_over = True
        if self._is_late:
            self._go_on(self._done)
        else:
            self._done()

    def failed(self, error: BrokerError) -> None:
        """It cannot be, as has turned out meanwhile."""

        def refuse() -> None:
            raise error

        self._is_over = True
        self._go_on(refuse)

    def _go_on(self, act: Callable[[], None]) -> None:
        self._waiting.over(self._channel, ids_of(self._method), act)


class PendingQuery(Generic[T]):
    """Query of a channel to a queue that is led elsewhere, which has not been answered yet."""

    __slots__ = ("_act", "_channel", "_method", "_undo", "_unwanted", "_waiting")

    def __init__(
        self,
        waiting: WaitingChannels,
        channel: SessionChannel,
        method: Method,
        *,
        act: Callable[[T], None],
        unwanted: Callable[[T], None],
        undo: Callable[[], None],
    ) -> None:
        """`act` goes on with the answer; if the channel has ended by then, `unwanted` does.  `undo`
        comes before the method is acted on anew."""
        self._waiting = waiting
        self._channel = channel
        self._method = method
        self._act = act
        self._unwanted = unwanted
        self._undo = undo

    def wait(self, later: Deferred[T]) -> None:
        self._waiting.begin(self._channel.number)
        later.then(self._answered, self._failed)

    def _answered(self, answer: T) -> None:
        is_wanted = False

        def act() -> None:
            nonlocal is_wanted
            is_wanted = True
            self._act(answer)

        self._go_on(act)
        if not is_wanted:
            self._unwanted(answer)

    def _failed(self, error: BrokerError) -> None:
        """Refuse; but if the queue was deleted, ask the one that has its name, or find none."""

        def refuse() -> None:
            raise error

        if not isinstance(error, QueueDeleted):
            self._go_on(refuse)
            return
        number, method = self._channel.number, self._method
        again = MethodReceived(number, encode_payload(method))
        self._waiting.keeps_first(again)
        self._go_on(self._undo)

    def _go_on(self, act: Callable[[], None]) -> None:
        self._waiting.over(self._channel, ids_of(self._method), act)


def ids_of(method: Method) -> Ids:
    return divmod(method.index, 1 << 16)


def size_of(event: Occurrence) -> int:
    """What it costs to keep an event, in bytes."""
    if isinstance(event, DeferredEvent):
        event = event.event
    if isinstance(event, Publishes):
        return EVENT_BYTES * len(event.contents) + event.content_bytes
    return EVENT_BYTES + (len(event.payload) if isinstance(event, MethodReceived) else 0)
