"""How many messages a queue has, asked of whoever leads it.

question  [0, number, queue]
answer    [1, number, ready, unacked, consumers]    or [1, number]: it is not led there
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import msgpack

from fluffle.broker.cluster.codec import BadFrame, unpack
from fluffle.broker.cluster.queues.ports import Counts, Known, OnCounts, QueueId, Served
from fluffle.raft.config import NodeId

GIVE_UP_S = 5.0
AGAIN_S = 0.25
"""Who has no answer asks again after this."""


class Ports(NamedTuple):
    """Whom to ask, and how."""

    leader_of: Callable[[QueueId], Known]
    """As far as it is known."""
    search: Callable[[QueueId], None]
    """Find out."""
    is_away: Callable[[QueueId], bool]
    """Whether nobody can be asked, and that may last."""
    send: Callable[[NodeId, bytes], None]
    """To the `receive` of another node; may be lost."""
    led_here: Callable[[QueueId], Served | None]
    """A queue that is led by this node."""
    call_later: Callable[[float, Callable[[], None]], object]
    """After so many seconds."""


class Question(NamedTuple):
    """Somebody waits."""

    queue: QueueId
    done: OnCounts
    tries: int
    """How many are left."""


class Counting:
    """The questions of one node that have no answer yet, and the answers to others."""

    __slots__ = ("_number", "_ports", "_questions")

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._questions: dict[int, Question] = {}
        self._number = 0

    def ask(self, queue: QueueId, done: OnCounts) -> None:
        """See `Hub.ask_counts`."""
        self._number = number = self._number + 1
        self._questions[number] = Question(queue, done, round(GIVE_UP_S / AGAIN_S))
        self._ports.call_later(0.0, partial(self._try, number))

    def changed(self, queue: QueueId) -> None:
        """Somebody else may lead a queue: whoever waits asks again at once."""
        for number, question in self._questions.items():
            if question.queue == queue:
                self._ports.call_later(0.0, partial(self._ask, number))

    def _ask(self, number: int) -> None:
        """Whoever leads the queue, if it is known."""
        question = self._questions.get(number)
        if question is None:
            return
        served = self._ports.led_here(question.queue)
        if served is not None:
            served.count(partial(self._counted, number))
        elif leader := self._ports.leader_of(question.queue).node:
            self._ports.send(leader, packed(0, number, question.queue))

    def _try(self, number: int) -> None:
        question = self._questions.get(number)
        if question is None:
            return
        if not question.tries or self._ports.is_away(question.queue):
            self._answered(number, None)
            return
        self._questions[number] = question._replace(tries=question.tries - 1)
        self._ports.call_later(AGAIN_S, partial(self._try_again, number))
        self._ask(number)

    def _try_again(self, number: int) -> None:
        """Whoever was asked is down, or does not lead."""
        if (question := self._questions.get(number)) is not None:
            self._ports.search(question.queue)
            self._try(number)

    def _counted(self, number: int, counts: Counts | None) -> None:
        """Here; if nobody knows whether another leads by now, it is asked again."""
        if counts is not None:
            self._answered(number, counts)

    def _answered(self, number: int, counts: Counts | None) -> None:
        question = self._questions.pop(number, None)
        if question is not None:
            question.done(counts)

    def receive(self, node: NodeId, payload: bytes) -> None:
        """A question or an answer.  Raises `BadFrame`."""
        kind, number, *rest = unpacked(payload)
        if kind == 0 and len(rest) == 1:
            tell = partial(self._tell, node, number)
            served = self._ports.led_here(rest[0])
            if served is not None:
                served.count(tell)
            else:
                tell(None)
        elif kind == 1 and len(rest) == len(Counts._fields):
            self._answered(number, Counts(*rest))
        elif kind != 1 or rest:
            raise BadFrame("neither a question nor an answer")

    def _tell(self, node: NodeId, number: int, counts: Counts | None) -> None:
        self._ports.send(node, packed(1, number, *(counts or ())))


def packed(*row: int) -> bytes:
    data: bytes = msgpack.packb(row)
    return data


def unpacked(payload: bytes) -> list[int]:
    """At least two numbers.  Raises `BadFrame`."""
    row = unpack(payload)
    if type(row) is not list or len(row) < 2 or not all(type(each) is int for each in row):
        raise BadFrame(f"{row!r:.40} for numbers")
    return row
