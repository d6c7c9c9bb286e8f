"""Requests of this node's channels to one queue led elsewhere, until their outcome is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from fluffle.broker.base.clock import CallLater, Timer
from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.base.errors import BrokerError, PreconditionFailed
from fluffle.broker.base.message import Origin
from fluffle.broker.cluster.queue_sessions.codec import MESSAGES_MAX
from fluffle.broker.cluster.queue_sessions.messages import Publish
from fluffle.broker.cluster.queue_sessions.pending_operations import PendingOperations
from fluffle.broker.cluster.queue_sessions.requests import QueueRequests
from fluffle.broker.cluster.queues.ports import SessionPort
from fluffle.broker.queues.delivery import DeliveryBatch, Holder
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.expiry_times import Lifetimes, lifetimes_in
from fluffle.broker.queues.queue_api import (
    DeadLetterIds,
    Deferred,
    EnqueueResult,
    PublishReceipt,
    QueueTarget,
    SettlementStatus,
    enqueue_again,
)

ANSWER_S_MAX = 30
"""For so long a leader is waited for.  RabbitMQ: 65 s, which is longer than most clients wait."""

T = TypeVar("T")

NOTHING_ASKED: dict[int, Any] = {}
"""Never changed: of most queues nothing is asked."""


class PendingReplies(Generic[T]):
    """Pending replies of one kind, by the numbers of their operations."""

    __slots__ = ("_asked", "_call_later", "_given_up")

    def __init__(self, call_later: CallLater, given_up: Callable[[int], BrokerError]) -> None:
        """`given_up` is told of one that has taken too long, and says what it fails with."""
        self._call_later = call_later
        self._given_up = given_up
        self._asked: dict[int, tuple[Deferred[T], Timer]] = NOTHING_ASKED

    def __contains__(self, number: int) -> bool:
        """Whether somebody waits for it."""
        return number in self._asked

    def ask(self, number: int) -> Deferred[T]:
        later: Deferred[T] = Deferred()
        timer = self._call_later(ANSWER_S_MAX, lambda: self.fail(number, self._given_up(number)))
        if self._asked is NOTHING_ASKED:
            self._asked = {}
        self._asked[number] = later, timer
        return later

    def answer(self, number: int, answer: T) -> bool:
        """Whether somebody has waited for that."""
        if number not in self._asked:
            return False
        self._take(number).answer(answer)
        return True

    def fail(self, number: int, error: BrokerError) -> None:
        """Somebody waits for it."""
        self._take(number).fail(error)

    def _take(self, number: int) -> Deferred[T]:
        later, timer = self._asked.pop(number)
        timer.cancel()
        return later


def nobody(_number: int) -> BrokerError:
    raise AssertionError("nothing is asked here")


def never(_seconds: float, _act: Callable[[], None]) -> Timer:
    raise AssertionError("these are everybody's: make questions of your own")


NO_PENDING_REPLIES: PendingReplies[Any] = PendingReplies(never, nobody)
"""Of a queue of which nothing was asked yet."""


def answered(later: Deferred[T], unanswered: BrokerError, answer: T | None) -> None:
    """Whoever waits has an answer, or is told so if there is none."""
    if answer is not None:
        later.answer(answer)
    else:
        later.fail(unanswered)


class PendingGets:
    """PendingGets without an answer yet, by the numbers of their operations."""

    __slots__ = ("_answers", "_asking", "_begun", "_slots", "_unanswered")

    def __init__(
        self, asking: QueueRequests, call_later: CallLater, unanswered: Callable[[], BrokerError]
    ) -> None:
        self._asking = asking
        self._unanswered = unanswered
        self._slots: list[int] = []
        """Channels of the stream that have had a get, and have none now.  Clients share them."""
        self._begun: dict[int, tuple[Holder, int]] = {}
        """For whom, and in which slot."""
        self._answers: PendingReplies[DeliveryBatch | None] = PendingReplies(
            call_later, self._give_up
        )

    def ask(self, holder: Holder) -> Deferred[DeliveryBatch | None]:
        """For the next message, or none."""
        slot = self._slots.pop() if self._slots else len(self._begun) + 1
        number = self._asking.get(slot, no_ack=False)
        self._begun[number] = holder, slot
        return self._answers.ask(number)

    def end(self, number: int) -> Holder:
        """There is an answer: for whom."""
        holder, slot = self._begun.pop(number)
        self._slots.append(slot)
        return holder

    def answer(self, number: int, delivery_batch: DeliveryBatch | None) -> None:
        self._answers.answer(number, delivery_batch)

    def fail(self, number: int, error: BrokerError) -> None:
        """Nothing, if nobody waits for it any more."""
        if number in self._answers:
            self._answers.fail(number, error)

    def unanswered(self, number: int) -> None:
        """Nobody can say what became of it."""
        self._answers.fail(number, self._give_up(number))

    def _give_up(self, number: int) -> BrokerError:
        self.end(number)
        self._asking.give_up(number)
        return self._unanswered()


@dataclass(slots=True, eq=False)
class DeferredRequest:
    """A deferred request of one client."""

    ask: Callable[[], Deferred[Any]]
    later: Deferred[Any]
    """What it waits for."""
    timer: Timer


class DeferredRequests:
    """Deferred requests of one queue, in the order in which they came.

    A client that waits for an answer asks for nothing more on its channel, so that this holds it
    back as publishers are held back.  What is given up here was never asked for.
    """

    __slots__ = ("_call_later", "_requests")

    def __init__(self, call_later: CallLater) -> None:
        self._call_later = call_later
        self._requests: dict[object, DeferredRequest] = EMPTY_DICT
        """By who asks."""

    def __bool__(self) -> bool:
        return bool(self._requests)

    def add(
        self, who: object, ask: Callable[[], Deferred[T]], too_late: BrokerError
    ) -> Deferred[T]:
        """Have something asked later; `too_late` is what it fails with, if that takes too long."""
        later: Deferred[T] = Deferred()
        timer = self._call_later(ANSWER_S_MAX, lambda: self._fail(who, too_late))
        if self._requests is EMPTY_DICT:
            self._requests = {}
        self._requests[who] = DeferredRequest(ask, later, timer)
        return later

    def ask(self) -> None:
        """The next is asked for now."""
        request = self._take(next(iter(self._requests)))
        request.ask().then(request.later.answer, request.later.fail)

    def give_up(self, who: object, answer: object) -> bool:
        """Somebody does not want it any more, if he has asked: he is told this."""
        if who not in self._requests:
            return False
        self._take(who).later.answer(answer)
        return True

    def end(self, error: BrokerError) -> None:
        """Nothing can be asked any more."""
        for who in tuple(self._requests):
            self._fail(who, error)

    def _fail(self, who: object, error: BrokerError) -> None:
        self._take(who).later.fail(error)

    def _take(self, who: object) -> DeferredRequest:
        request = self._requests.pop(who)
        request.timer.cancel()
        return request


class SettlementMark(NamedTuple):
    """Where a stream was when somebody asked."""

    question: int
    session: int
    last: int
    """The outcome of all operations up to this one has to be known."""


NO_MARKS: list[SettlementMark] = []
"""Never changed: of most queues nobody asks."""


class Settlements:
    """Settlement barriers of one queue's session."""

    __slots__ = (
        "_call_later", "_count", "_current", "_given_up", "_is_current", "_marks", "_port",
        "_questions", "_where",
    )  # fmt: skip

    def __init__(
        self,
        port: SessionPort,
        call_later: CallLater,
        given_up: Callable[[], BrokerError],
        where: str,
    ) -> None:
        """`given_up` says what it fails with if the outcome is not known in time."""
        self._port = port
        self._where = where
        self._given_up = given_up
        self._call_later = call_later
        self._questions: PendingReplies[None] = NO_PENDING_REPLIES
        self._marks: list[SettlementMark] = NO_MARKS
        """In order."""
        self._count = 0
        self._current = SettlementStatus()
        self._is_current = False
        """Whether anything was settled in it."""

    def asked(self) -> SettlementStatus:
        """Something more is."""
        self._is_current = True
        return self._current

    def failed(self) -> None:
        """Something that was asked for comes to nothing, though its client believes it is done."""
        text = f"messages of {self._where} have come back and are not settled"
        self._current.error = PreconditionFailed(text)
        self._begin()

    def _begin(self) -> None:
        self._current, self._is_current = SettlementStatus(), False

    def ask(self) -> Deferred[None] | None:
        """None if it is known of everything that was asked for so far."""
        edge = self._port.edge
        last = edge.pending.next - 1
        if edge.pending.first > last:  # mutant: F3
            return None
        edge.put_off = 0
        self._port.touch()
        self._count += 1
        if self._questions is NO_PENDING_REPLIES:
            self._questions = PendingReplies(self._call_later, self._too_late)
        if self._marks is NO_MARKS:
            self._marks = []
        self._marks.append(SettlementMark(self._count, edge.session, last))
        return self._questions.ask(self._count)

    def _too_late(self, question: int) -> BrokerError:
        self._marks = [mark for mark in self._marks if mark.question != question]
        return self._given_up()

    def look(self) -> None:
        """Tell those for whom enough is known."""
        edge = self._port.edge
        while self._marks:
            mark = self._marks[0]
            if mark.session == edge.session and edge.pending.first <= mark.last:
                break
            self._questions.answer(self._marks.pop(0).question, None)
        if self._is_current and not len(edge.pending):
            self._begin()


RUN_BYTES_MAX = 1 << 20
"""Of an operation of more than one message, so that others come between."""


@dataclass(slots=True)
class PublishRun:
    """Operations with consecutive numbers, a message each."""

    first: int
    count: int
    receipt: PublishReceipt
    offset: int
    """Of the first message, among those of the receipt."""
    left: int
    """How many have no outcome."""


class PublishReceipts:
    """PublishReceipts of unconfirmed publishes, by the numbers of their operations."""

    __slots__ = ("_runs",)

    def __init__(self) -> None:
        self._runs: dict[int, PublishRun] = EMPTY_DICT
        """By the number of the first operation."""

    def __len__(self) -> int:
        return len(self._runs)

    def ask(
        self,
        asking: QueueRequests,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool,
        expiration_ms: Lifetimes,
        posted: DeadLetterIds | None = None,
        counts: Counts = NEW,
    ) -> PublishReceipt:
        """Have messages published, so many in a run that others come between."""
        count = len(contents)
        receipt = PublishReceipt(count)
        step = min(MESSAGES_MAX, count)
        if content_bytes > RUN_BYTES_MAX:
            step = max(1, min(step, count * RUN_BYTES_MAX // content_bytes))
        if self._runs is EMPTY_DICT:
            self._runs = {}
        for start in range(0, count, step):  # mutant: BA21
            stop = min(start + step, count)
            first = asking.publish(  # mutant: BA18 BA19
                origins[start:stop],
                contents[start:stop],
                persistent=persistent,
                expiration_ms=lifetimes_in(expiration_ms, slice(start, stop)),  # mutant: BA16 BA17
                posted=posted.part(start, stop) if posted is not None else None,
                counts=counts,  # mutant: BA20
            )
            # mutant: BA22
            self._runs[first] = PublishRun(first, stop - start, receipt, start, stop - start)
        return receipt

    def pass_on(self, pending: PendingOperations, successor: QueueTarget) -> None:
        """What has no outcome is for another queue, which has all that has one."""
        publishes = pending.of_kinds(0, pending.next, (Publish,))  # mutant: BA23
        for operation, first, count in publishes:
            assert isinstance(operation, Publish)
            start, posted = first - operation.first, operation.posted  # mutant: BA24
            part = slice(start, start + count)
            contents = operation.contents[part]
            posted = posted.part(start, part.stop) if posted is not None else None  # mutant: BA26
            put = enqueue_again(successor, posted, operation.counts)  # mutant: BA27
            fate = put(
                operation.origins[part],
                contents,
                sum(map(len, contents)),
                persistent=operation.is_persistent,
                expiration_ms=lifetimes_in(operation.expiration_ms, part),  # mutant: BA25
            )
            if isinstance(fate, PublishReceipt):
                fate.then(partial(self._passed, first))
            else:
                self.known(first, count, is_taken=fate is not EnqueueResult.REFUSED)  # mutant: BA28

    def _passed(self, first: int, start: int, stop: int, *, is_taken: bool) -> None:
        self.known(first + start, stop - start, is_taken=is_taken)

    def known(self, first: int, count: int, *, is_taken: bool) -> None:
        """Numbers of one run have this outcome: all of it, mostly."""
        run = self._runs.get(first) or self._find(first)
        run.left -= count
        if not run.left:
            del self._runs[run.first]
        start = run.offset + first - run.first
        run.receipt.known(start, start + count, is_taken=is_taken)

    def _find(self, number: int) -> PublishRun:
        return next(
            run for run in self._runs.values() if run.first <= number < run.first + run.count
        )
