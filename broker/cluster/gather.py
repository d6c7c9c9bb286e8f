"""Questions that one node asks of several at once: whoever asks goes on when all have answered, or
after a while with what it has."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Generic, TypeAlias, TypeVar

from fluffle.raft.config import NodeId

GIVE_UP_S = 2.0
"""Who can be reached has answered by then."""

Answer = TypeVar("Answer")

OnAnswers: TypeAlias = Callable[[Mapping[NodeId, Answer]], None]


class PendingGather(Generic[Answer]):
    """A request that waits for the answers of these nodes."""

    __slots__ = ("done", "found", "missing")

    def __init__(self, nodes: Collection[NodeId], done: OnAnswers[Answer]) -> None:
        self.missing = set(nodes)
        self.found: dict[NodeId, Answer] = {}
        self.done = done


class Gather(Generic[Answer]):
    """Requests of one node to several, without all answers yet."""

    __slots__ = ("_call_later", "_polls", "_send", "asked")

    def __init__(
        self,
        send: Callable[[NodeId, bytes], None],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """`send`: to another node; may be lost."""
        self._send = send
        self._call_later = call_later
        self._polls: dict[int, PendingGather[Answer]] = {}
        self.asked = 0
        """How many there were; the number of the last."""

    def ask(
        self,
        nodes: Collection[NodeId],
        question: Callable[[int], bytes],
        done: OnAnswers[Answer],
    ) -> None:
        """Told once, within seconds and not before this returns, of those that have answered.

        `question`: what is sent, with the number that comes back with the answer.
        """
        self.asked = number = self.asked + 1
        self._polls[number] = PendingGather(nodes, done)
        for node in nodes:
            self._send(node, question(number))
        self._call_later(GIVE_UP_S if nodes else 0.0, partial(self._end, number))

    def answered(self, node: NodeId, number: int, answer: Answer | None) -> None:
        """None: there is nothing that it can say."""
        poll = self._polls.get(number)
        if poll is None or node not in poll.missing:
            return
        poll.missing.discard(node)
        if answer is not None:
            poll.found[node] = answer
        if not poll.missing:
            self._end(number)

    def _end(self, number: int) -> None:
        poll = self._polls.pop(number, None)
        if poll is not None:
            poll.done(poll.found)
