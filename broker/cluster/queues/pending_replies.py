"""Requests of this node's channels to the leader of one queue, until their replies are known.

A request fails with the text of its queue type (`ErrorTexts`) when no reply comes in time.  What
becomes of publishes that had no outcome when their queue was deleted, `Deletions` decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from fluffle.broker.base.clock import CallLater, Timer
from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.base.errors import BrokerError, InternalError, PreconditionFailed, Unreachable
from fluffle.broker.cluster.queue_sessions.session_client import SessionRequests
from fluffle.broker.cluster.queues.ports import SessionPort
from fluffle.broker.metadata.metadata import ReadBarrier
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.publish_target import EnqueueResult
from fluffle.broker.queues.queue_api import Deferred, DeliveryBatch, Holder, SettlementStatus
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.raft.config import NodeId


class ClientRequest(Enum):
    """The kind of request that a client waits for."""

    CONSUMING = "consuming from"
    GETTING = "getting from"
    PURGING = "purging"
    SETTLING = "settling messages of"
    ASKING = "asking"


class ErrorTexts(Protocol):
    """Error texts of one queue type, where the types differ."""

    shows_counts: bool
    """True if messages say in their headers how often they were handed out in vain."""

    def unanswered(self, doing: ClientRequest, where: str) -> BrokerError:
        """Error for a queue that had no leader for too long."""


class ClassicErrorTexts:
    """Error texts of classic queues, which live on one node."""

    shows_counts = False

    def __init__(self, home: NodeId, *, is_durable: bool) -> None:
        self._home = home
        self._is_durable = is_durable
        """True if the queue outlives its home node."""

    def unanswered(self, doing: ClientRequest, where: str) -> BrokerError:
        """RabbitMQ finds other words for this, and takes a minute, while it still hopes."""
        del doing
        if not self._is_durable:
            return Unreachable(f"no {where}")
        return Unreachable(f"home node '{self._home}' of durable {where} is down or inaccessible")


class QuorumErrorTexts:
    """Error texts of quorum queues, which a Raft group leads."""

    shows_counts = True

    def unanswered(self, doing: ClientRequest, where: str) -> BrokerError:
        """Error for a queue that had no leader for too long, or for a consumer with an unknown
        outcome."""
        if doing is ClientRequest.GETTING:
            return InternalError(f"Cannot get a message from queue '{where}': timeout")
        return InternalError(f"timed out {doing.value} quorum {where}: no leader has answered")


ANSWER_S_MAX = 30
"""Time in seconds for which a leader is awaited.  RabbitMQ: 65 s, which is longer than most clients
wait."""

T = TypeVar("T")

NOTHING_ASKED: dict[int, Any] = {}
"""Never changed: of most queues nothing is asked."""


class PendingReplies(Generic[T]):
    """Pending replies of one kind, by the numbers of their operations."""

    __slots__ = ("_asked", "_call_later")

    def __init__(self, call_later: CallLater) -> None:
        self._call_later = call_later
        self._asked: dict[int, tuple[Deferred[T], Timer]] = NOTHING_ASKED

    def __contains__(self, number: int) -> bool:
        """True if a reply is waited for."""
        return number in self._asked

    def ask(self, number: int, given_up: Callable[[int], BrokerError]) -> Deferred[T]:
        """Wait for a reply.  `given_up` is called if that takes too long, and returns what it fails
        with; it is forgotten with the reply, so that its owner may own these."""
        later: Deferred[T] = Deferred()
        timer = self._call_later(ANSWER_S_MAX, lambda: self.fail(number, given_up(number)))
        if self._asked is NOTHING_ASKED:
            self._asked = {}
        self._asked[number] = later, timer
        return later

    def answer(self, number: int, answer: T) -> bool:
        """Give a reply; whether it was waited for."""
        if number not in self._asked:
            return False
        self._take(number).answer(answer)
        return True

    def fail(self, number: int, error: BrokerError) -> None:
        """Fail a pending reply."""
        self._take(number).fail(error)

    def _take(self, number: int) -> Deferred[T]:
        later, timer = self._asked.pop(number)
        timer.cancel()
        return later


def never(_seconds: float, _act: Callable[[], None]) -> Timer:
    raise AssertionError("these are shared: make questions of your own")


NO_PENDING_REPLIES: PendingReplies[Any] = PendingReplies(never)
"""Replies of a queue that was asked nothing yet."""


def answered(later: Deferred[T], unanswered: BrokerError, answer: T | None) -> None:
    """Complete `later` with an answer, or with an error if there is none."""
    if answer is not None:
        later.answer(answer)
    else:
        later.fail(unanswered)


class PendingGets:
    """Gets without a reply yet, by the numbers of their operations."""

    __slots__ = ("_answers", "_begun", "_requests", "_slots", "_unanswered")

    def __init__(
        self,
        requests: SessionRequests,
        call_later: CallLater,
        unanswered: Callable[[], BrokerError],
    ) -> None:
        self._requests = requests
        self._unanswered = unanswered
        self._slots: list[int] = []
        """Channels of the session that have had a get, and have none now.  Clients share them."""
        self._begun: dict[int, tuple[Holder, int]] = {}
        """Holder and slot of each get that was begun, by its number."""
        self._answers: PendingReplies[DeliveryBatch | None] = PendingReplies(call_later)

    def ask(self, holder: Holder) -> Deferred[DeliveryBatch | None]:
        """Get the next message, or None."""
        slot = self._slots.pop() if self._slots else len(self._begun) + 1
        number = self._requests.get(slot, no_ack=False)
        self._begun[number] = holder, slot
        return self._answers.ask(number, self._give_up)

    def end(self, number: int) -> Holder:
        """End a get that is answered; returns its holder."""
        holder, slot = self._begun.pop(number)
        self._slots.append(slot)
        return holder

    def answer(self, number: int, delivery_batch: DeliveryBatch | None) -> None:
        self._answers.answer(number, delivery_batch)

    def fail(self, number: int, error: BrokerError) -> None:
        """Fail a get, if it is waited for still."""
        if number in self._answers:
            self._answers.fail(number, error)

    def unanswered(self, number: int) -> None:
        """Fail a get whose outcome is unknown for ever."""
        self._answers.fail(number, self._give_up(number))

    def _give_up(self, number: int) -> BrokerError:
        self.end(number)
        self._requests.give_up(number)
        return self._unanswered()


@dataclass(slots=True, eq=False)
class DeferredRequest:
    """A deferred request of one client."""

    ask: Callable[[], Deferred[Any]]
    later: Deferred[Any]
    """Result that the caller waits for."""
    timer: Timer


class DeferredRequests:
    """Deferred requests of one queue, in the order in which they came.

    A client that waits for an answer asks for nothing more on its channel, so that this holds it
    back as publishers are held back.  What is given up here was never asked for.
    """

    __slots__ = ("_call_later", "requests")

    def __init__(self, call_later: CallLater) -> None:
        self._call_later = call_later
        self.requests: dict[object, DeferredRequest] = EMPTY_DICT
        """Requests by caller."""

    def add(
        self, caller: object, ask: Callable[[], Deferred[T]], too_late: BrokerError
    ) -> Deferred[T]:
        """Have something asked later; `too_late` is what it fails with, if that takes too long."""
        later: Deferred[T] = Deferred()
        timer = self._call_later(ANSWER_S_MAX, lambda: self._fail(caller, too_late))
        if self.requests is EMPTY_DICT:
            self.requests = {}
        self.requests[caller] = DeferredRequest(ask, later, timer)
        return later

    def ask(self) -> None:
        """The next is asked for now."""
        request = self._take(next(iter(self.requests)))
        request.ask().then(request.later.answer, request.later.fail)

    def give_up(self, caller: object, answer: object) -> bool:
        """Drop a request, if there is one, with this as its reply."""
        if caller not in self.requests:
            return False
        self._take(caller).later.answer(answer)
        return True

    def end(self, error: BrokerError) -> None:
        """Nothing can be asked any more."""
        for caller in tuple(self.requests):
            self._fail(caller, error)

    def _fail(self, caller: object, error: BrokerError) -> None:
        self._take(caller).later.fail(error)

    def _take(self, caller: object) -> DeferredRequest:
        request = self.requests.pop(caller)
        request.timer.cancel()
        return request


class SettlementMark(NamedTuple):
    """The last operation of a session when its barrier was set."""

    question: int
    session: int
    last: int
    """The outcome of all operations up to this one has to be known."""


NO_MARKS: list[SettlementMark] = []
"""Marks of the many queues without a question; never changed."""


@dataclass(slots=True, eq=False)
class SettlementBarriers:
    """Settlement barriers of one queue's session."""

    _port: SessionPort
    _call_later: CallLater
    _given_up: Callable[[], BrokerError]
    """Returns what it fails with if the outcome is not known in time."""
    _where: str
    _questions: PendingReplies[None] = field(default=NO_PENDING_REPLIES, init=False)
    _marks: list[SettlementMark] = field(default_factory=lambda: NO_MARKS, init=False)
    """In order."""
    _count: int = field(default=0, init=False)
    _current: SettlementStatus = field(default_factory=SettlementStatus, init=False)
    _is_current: bool = field(default=False, init=False)
    """True if anything was settled in it."""

    def asked(self) -> SettlementStatus:
        """Status once another settlement is requested."""
        self._is_current = True
        return self._current

    def failed(self) -> None:
        """Note that a settlement came to nothing, though its client believes it is done."""
        text = f"messages of {self._where} have come back and are not settled"
        self._current.error = PreconditionFailed(text)
        self._begin()

    def _begin(self) -> None:
        self._current, self._is_current = SettlementStatus(), False

    def ask(self) -> Deferred[None] | None:
        """None if it is known of everything that was asked for so far."""
        session = self._port.session
        last = session.pending.next - 1
        if session.pending.first > last:  # mutant: F3
            return None
        session.deferrable = 0
        self._port.touch()
        self._count += 1
        if self._questions is NO_PENDING_REPLIES:
            self._questions = PendingReplies(self._call_later)
        if self._marks is NO_MARKS:
            self._marks = []
        self._marks.append(SettlementMark(self._count, session.counter, last))
        return self._questions.ask(self._count, self._too_late)

    def _too_late(self, question: int) -> BrokerError:
        self._marks = [mark for mark in self._marks if mark.question != question]
        return self._given_up()

    def look(self) -> None:
        """Call back those for which enough is known."""
        session = self._port.session
        while self._marks:
            mark = self._marks[0]
            if mark.session == session.counter and session.pending.first <= mark.last:
                break
            self._questions.answer(self._marks.pop(0).question, None)
        if self._is_current and not session.pending.operations:
            self._begin()


OnDeletionResult = Callable[[EnqueueResult], None]


class Deletions:
    """Deletions of queues that one node has heard of: they decide what had no outcome until then.

    It has gone with the queue, as with RabbitMQ, and is confirmed.  But a node may hear late that a
    queue was deleted and another declared in its place: what came after that was for the other one,
    which does not have it.  So messages are confirmed only by a node that knows all that was
    answered before they came, and refused if there is another queue of that name, or if that cannot
    be known.
    """

    def __init__(self, read_barrier: ReadBarrier, vhosts: Mapping[str, VirtualHost]) -> None:
        self._read_barrier = read_barrier
        self._vhosts = vhosts

    def decide(self, queue: QueueDefinition, vhost: str, on_result: OnDeletionResult) -> None:
        """Answer for messages that had no outcome when that queue was deleted."""

        def known() -> None:
            is_replaced = self._is_replaced(queue, vhost)
            on_result(EnqueueResult.REJECTED if is_replaced else EnqueueResult.ACCEPTED)

        def unknown(_error: BrokerError) -> None:
            on_result(EnqueueResult.REJECTED)

        self._read_barrier.ask(known, unknown)  # mutant: I7 I9

    def _is_replaced(self, queue: QueueDefinition, vhost: str) -> bool:
        """True if another has its name."""
        there = self._vhosts.get(vhost)
        found = there.queues.get(queue.spec.name) if there is not None else None
        return found is not None and found.definition.id != queue.id  # mutant: I8
