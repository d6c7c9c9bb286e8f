"""Queries between nodes about a queue, which change nothing.

`LeaderQueries` ask its leader for its counts and its next messages:

    question  [kind, number, queue, argument ...]
    answer    [1, number, field ...]    or [1, number]: it is not led there

    kind  arguments                      answer
    0     none                           ready, unacked, consumers
    2     none                           the same, and asking is a use of the queue
    3     offset, count, body bytes      damage, then the fields of each message that is seen

`LogPositions` ask its members how far their logs are, before one goes on alone:

    question  [0, number, queue]
    answer    [1, number, term, last]    its last entry; or [1, number]: nothing that can be used
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from fluffle.broker.base.clock import EventLoop, Timer
from fluffle.broker.cluster.codec import BadFrame, are_numbers, pack, unpack
from fluffle.broker.cluster.queues.leader_routes import LeaderRoutes
from fluffle.broker.cluster.queues.local_leaders import LocalLeaders, local_leader_of
from fluffle.broker.cluster.queues.ports import (
    HostedQueue,
    LeaderCounts,
    OnCounts,
    OnPeeked,
    QueueId,
    Reachability,
)
from fluffle.broker.cluster.queues.session_transport import SessionTransport
from fluffle.broker.cluster.raft_host import RaftHost
from fluffle.broker.cluster.rpc import Gather, OnAnswers
from fluffle.broker.queues.queue_api import PeekedMessage, PeekRequest, PeekResult
from fluffle.broker.queues.queue_view import peek
from fluffle.raft.config import NodeId

GIVE_UP_S = 5.0
FEW_GIVE_UP_S = 0.5
"""The same while too few of its members can be reached to lead it.  RabbitMQ: 0.25 s."""
ASKED, ANSWERED, USED, PEEKED = 0, 1, 2, 3

AGAIN_S = 0.25
"""Time after which an unanswered question is asked again."""
TRIES = round(GIVE_UP_S / AGAIN_S)
TRIES_OF_FEW = round(FEW_GIVE_UP_S / AGAIN_S)

Done: TypeAlias = Callable[[Any], None]
"""Callback for the answer, or None: no node could be asked."""


class QueryKind(NamedTuple):
    """A kind of query, with its encoding."""

    arguments: int
    """How many numbers say more exactly what."""
    look: Callable[[HostedQueue, Sequence[int]], object]
    """The answer, of a queue that is led here."""
    write: Callable[[Any], Sequence[object]]
    """An answer, as fields."""
    read: Callable[[Sequence[Any]], Any]
    """And back.  Raises `BadFrame`."""


class PendingQuery(NamedTuple):
    """A query that waits for its answer."""

    queue: QueueId
    kind: int
    arguments: Sequence[int]
    done: Done
    tries: int
    """How many are left."""
    again: Timer | None = None
    """Time to ask again, once it has been asked; cancelled by the answer."""


class LeaderQueries:
    """Queries of one node without an answer yet, and the answers to others."""

    def __init__(
        self, transport: SessionTransport, leaders: LocalLeaders, routes: LeaderRoutes
    ) -> None:
        self._transport = transport
        self._leaders = leaders
        self._routes = routes
        self._questions: dict[int, PendingQuery] = {}
        self._number = 0

    def count(self, queue: QueueId, done: OnCounts, *, in_use: bool) -> None:
        """Ask the leader of a queue for its counts, as `SessionDirectory.ask_counts` has it."""
        self._ask(queue, USED if in_use else ASKED, (), done)

    def peek(self, queue: QueueId, view: PeekRequest, done: OnPeeked) -> None:
        """Ask the leader of a queue for some ready messages, as `SessionDirectory.peek` has it."""
        self._ask(queue, PEEKED, view, done)

    def _ask(self, queue: QueueId, kind: int, arguments: Sequence[int], done: Done) -> None:
        self._number = number = self._number + 1
        self._questions[number] = PendingQuery(queue, kind, arguments, done, TRIES)
        self._transport.loop.call_later(0.0, partial(self._try, number))

    def changed(self, queue: QueueId) -> None:
        """Ask again at once, for another node may lead the queue."""
        for number, question in self._questions.items():
            if question.queue == queue:
                self._transport.loop.call_later(0.0, partial(self._put, number))

    def _put(self, number: int) -> None:
        """Send a question to the leader of the queue, if it is known."""
        question = self._questions.get(number)
        if question is None:
            return
        queue, kind, arguments, *_ = question
        served = local_leader_of(self._leaders, queue)
        if served is not None:
            ask(served, kind, arguments, partial(self._found, number))
        elif leader := self._routes.leader_of(queue).node:
            self._transport.query(leader, pack(kind, number, queue, *arguments))

    def _try(self, number: int) -> None:
        question = self._questions.get(number)
        if question is None:
            return
        reachable, tries = self._routes.reachable(question.queue), question.tries
        if tries <= 0 or reachable is Reachability.NONE:
            self._answered(number, None)
            return
        tries -= TRIES // TRIES_OF_FEW if reachable is Reachability.TOO_FEW else 1
        again = self._transport.loop.call_later(AGAIN_S, partial(self._try_again, number))
        self._questions[number] = question._replace(tries=tries, again=again)
        self._put(number)

    def _try_again(self, number: int) -> None:
        """Ask again: the node asked is down, or does not lead."""
        if (question := self._questions.get(number)) is not None:
            self._routes.search(question.queue)
            self._try(number)

    def _found(self, number: int, answer: object) -> None:
        """Handle an answer found here; if another may lead by now, ask again."""
        if answer is not None:
            self._answered(number, answer)

    def _answered(self, number: int, answer: object) -> None:
        question = self._questions.pop(number, None)
        if question is not None:
            if question.again is not None:
                question.again.cancel()
            question.done(answer)

    def receive(self, node: NodeId, payload: bytes) -> None:
        """A question or an answer.  Raises `BadFrame`."""
        kind, number, *rest = fields_of(payload)
        if kind == ANSWERED:
            question = self._questions.get(number)
            if rest and question is not None:
                self._answered(number, KINDS[question.kind].read(rest))
            return
        if kind not in KINDS or len(rest) != 1 + KINDS[kind].arguments or not are_numbers(*rest):
            raise BadFrame("neither a question nor an answer")
        answer = partial(self._answer, node, kind, number)
        served = local_leader_of(self._leaders, rest[0])
        if served is not None:
            ask(served, kind, rest[1:], answer)
        else:
            answer(None)

    def _answer(self, node: NodeId, kind: int, number: int, answer: object) -> None:
        fields = KINDS[kind].write(answer) if answer is not None else ()
        self._transport.query(node, pack(ANSWERED, number, *fields))


def ask(served: HostedQueue, kind: int, arguments: Sequence[int], done: Done) -> None:
    """Have it looked at once it is sure that it is led here."""
    if kind == USED and served.queue_expiry is not None:
        served.queue_expiry.used()
    look = KINDS[kind].look
    served.confirm(lambda is_sure: done(look(served, arguments) if is_sure else None))


def counts_of(served: HostedQueue, _arguments: Sequence[int]) -> LeaderCounts:
    return served.counts


def read_counts(fields: Sequence[Any]) -> LeaderCounts:
    if len(fields) != len(LeaderCounts._fields) or not are_numbers(*fields):
        raise BadFrame("these are no counts")
    return LeaderCounts(*fields)


def peeked_of(served: HostedQueue, arguments: Sequence[int]) -> PeekResult:
    return peek(served, PeekRequest(*arguments))


def write_peeked(peeked: PeekResult) -> Sequence[object]:
    """Names that are no UTF-8 stay what they are."""
    rows = [[named(each) for each in seen] for seen in peeked.seen]
    return (peeked.damage, *rows)


def read_peeked(fields: Sequence[Any]) -> PeekResult:
    damage, *rows = fields
    if type(damage) is not str or any(kinds_of(row) != SEEN for row in rows):
        raise BadFrame("this is nothing that was seen")
    return PeekResult(
        [PeekedMessage(unnamed(row[0]), unnamed(row[1]), *row[2:]) for row in rows], damage
    )


SEEN = (bytes, bytes, bytes, bytes, int, bool, int, int, int)
"""The fields of a message that is seen."""


def kinds_of(row: object) -> tuple[type, ...]:
    return tuple(map(type, row)) if type(row) is list else ()


def named(field: object) -> object:
    return field.encode(errors="surrogateescape") if isinstance(field, str) else field


def unnamed(name: bytes) -> str:
    return name.decode(errors="surrogateescape")


KINDS: Mapping[int, QueryKind] = {
    ASKED: QueryKind(0, counts_of, tuple, read_counts),
    USED: QueryKind(0, counts_of, tuple, read_counts),
    PEEKED: QueryKind(len(PeekRequest._fields), peeked_of, write_peeked, read_peeked),
}


def fields_of(payload: bytes) -> list[Any]:
    """Two numbers at least, and whatever follows them.  Raises `BadFrame`."""
    row = unpack(payload)
    if type(row) is not list or len(row) < 2 or not are_numbers(*row[:2]):
        raise BadFrame(f"{row!r:.40} for numbers")
    return row


def unpacked(payload: bytes) -> list[int]:
    """At least two numbers.  Raises `BadFrame`."""
    row = fields_of(payload)
    if not are_numbers(*row):
        raise BadFrame(f"{row!r:.40} for numbers")
    return row


class LogPosition(NamedTuple):
    """The position of a log's last entry; the greater of two has more that may be committed."""

    term: int
    last: int


class LogPositions:
    """Requests of one node for positions, without an answer yet, and the answers to others."""

    def __init__(
        self,
        node: NodeId,
        host: RaftHost,
        send: Callable[[NodeId, bytes], None],
        loop: EventLoop,
    ) -> None:
        """`send`: to the `receive` of another node; may be lost."""
        self._node = node
        self._host = host
        self._send = send
        self._polls: Gather[LogPosition] = Gather(send, loop)

    def here(self, queue: QueueId) -> LogPosition | None:
        """Position of the member on this node; None if it has nothing to go on with."""
        if queue not in self._host:
            return None
        hosted = self._host.group(queue)
        status = hosted.status
        if status.is_quarantined or status.config.member_on(self._node) is None:
            return None
        return LogPosition(status.last_term, status.last)

    def ask(self, queue: QueueId, nodes: Collection[NodeId], done: OnAnswers[LogPosition]) -> None:
        """Ask nodes; `done` is called once, within seconds and not before this returns, with the
        answers that came."""
        self._polls.ask(nodes, lambda number: pack(0, number, queue), done)

    def receive(self, node: NodeId, payload: bytes) -> None:
        """A question or an answer.  Raises `BadFrame`."""
        kind, number, *rest = unpacked(payload)
        if kind == 0 and len(rest) == 1:
            self._send(node, pack(1, number, *(self.here(rest[0]) or ())))
        elif kind == 1 and len(rest) in (0, len(LogPosition._fields)):
            self._polls.answered(node, number, LogPosition(*rest) if rest else None)
        else:
            raise BadFrame("neither a question nor an answer")
