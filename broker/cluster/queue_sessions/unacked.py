"""Deliveries of one queue that a node's clients have not settled: by holder, in runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.cluster.queue_sessions.messages import Token
from fluffle.broker.queues.quorum.facts import Key
from fluffle.broker.queues.quorum.runs import MarkedRuns, without


def join(tokens: list[Token], others: list[Token]) -> None:
    """Put tokens of the same holder behind others; what goes on where one ends is one with it."""
    for token in others:
        holder, ordinal, run = token
        last = tokens[-1]
        goes_on = last.run.step == run.step == 1 and last.run.stop == run.start
        if goes_on and last.ordinal == ordinal:
            tokens[-1] = Token(holder, ordinal, range(last.run.start, run.stop))
        else:
            tokens.append(token)


class Unacked:
    """Unsettled deliveries of all holders."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[Key, MarkedRuns[int]] = EMPTY_DICT

    def __iter__(self) -> Iterator[Token]:
        """Everything, by holder, in the order in which it came."""
        for holder, held in self._held.items():
            for run, ordinal in held:
                yield Token(holder, ordinal, run)

    def __bool__(self) -> bool:
        return bool(self._held)

    def count(self, holder: Key) -> int:
        """How many messages somebody has."""
        held = self._held.get(holder)
        return held.count if held is not None else 0

    def put(self, token: Token) -> None:
        """Messages that nobody has."""
        if self._held is EMPTY_DICT:
            self._held = {}
        self._held.setdefault(token.holder, MarkedRuns()).put(token.run, token.ordinal)

    def found(self, token: Token) -> list[range]:
        """What of a hand-out is in its holder's hands."""
        held = self._held.get(token.holder)
        pieces = held.found(token.run) if held is not None else ()
        return [run for run, ordinal in pieces if ordinal == token.ordinal]

    def rest(self, token: Token) -> list[Token]:
        """What of a hand-out is not."""
        holder, ordinal, run = token
        return [Token(holder, ordinal, part) for part in without(run, self.found(token))]

    def take(self, tokens: Iterable[Token]) -> list[Token]:
        """What of these is in hands, which it is not any more then."""
        taken = []
        for token in tokens:
            for run in self.found(token):
                held = self._held[token.holder]
                held.take(run)
                taken.append(Token(token.holder, token.ordinal, run))
                if not held:
                    del self._held[token.holder]
        return taken

    def take_all(self, holder: Key | None = None) -> list[Token]:
        """All that one has, or everybody has."""
        return self.take([token for token in self if holder in (None, token.holder)])
