"""Confirms: the publish sequence numbers of one publisher, and what is known of each.

Every publish is either accepted or refused, once.  What is known is collected in a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple, Protocol, TypeAlias

from fluffle.broker.queues.publish_target import PartialResult, PublishReceipt
from fluffle.broker.runtime.commits import Commits

Run: TypeAlias = tuple[int, int]
"""The first and the last of consecutive sequence numbers."""


class KnownOutcomes(NamedTuple):
    """Sequence numbers whose publishes have been accepted or refused, as runs."""

    accepted: list[Run]
    refused: list[Run]
    open_from: int
    """The first number that is still open."""


@dataclass(slots=True, eq=False)
class Confirms:
    """Sequence numbers from 1, and what is known of them."""

    _next_sequence: int = field(default=1, init=False)
    _open: dict[int, int] = field(default_factory=dict, init=False)
    """First and last of each run that waits for its queues.  Invariant: rising."""
    _deferred: list[tuple[int, int]] = field(default_factory=list, init=False)
    """Runs that a commit will make safe: its ticket, and their first number.  Both rise."""
    accepted: list[Run] = field(default_factory=list)
    """Runs that have become known as such since the last `take`; `refused` likewise."""
    refused: list[Run] = field(default_factory=list)
    _refused_count: int = field(default=0, init=False)
    is_ended: bool = False

    def assign(self, count: int) -> int:
        """Number `count` publishes; the first number."""
        first = self._next_sequence
        self._next_sequence = first + count
        self._open[first] = first + count - 1
        return first

    def split(self, first: int) -> None:
        """Have each number of the run that was assigned from `first` on be a run of its own."""
        last = self._open.pop(first)
        self._open |= {number: number for number in range(first, last + 1)}
        self._open = dict(sorted(self._open.items()))

    def accept(self, first: int) -> None:
        """Every queue has taken the run that was assigned from `first` on."""
        self.accepted.append((first, self._open.pop(first)))

    def refuse(self, first: int) -> None:
        """A queue has refused the run that was assigned from `first` on."""
        last = self._open.pop(first)
        self.refused.append((first, last))
        self._refused_count += last - first + 1

    def assign_accepted(self, count: int) -> None:
        """Number `count` publishes that every queue has taken already.

        As `assign` and `accept`, for what is settled where it is published; runs that follow
        each other become one.
        """
        first = self._next_sequence
        last = self._next_sequence = first + count
        accepted = self.accepted
        if accepted and accepted[-1][1] + 1 == first:
            accepted[-1] = (accepted[-1][0], last - 1)
        else:
            accepted.append((first, last - 1))

    def defer(self, count: int, ticket: int) -> None:
        """Number `count` publishes that are accepted once the commit `ticket` has been done."""
        deferred, first = self._deferred, self._next_sequence
        if deferred and deferred[-1][0] == ticket:
            run = deferred[-1][1]
            if self._open[run] + 1 == first:
                self._open[run] += count
                self._next_sequence += count
                return
        deferred.append((ticket, self.assign(count)))

    def accept_durable(self, ticket: int) -> bool:
        """Accept what commits up to this one have made safe; whether there was anything."""
        durable_count = 0
        for deferred_ticket, first in self._deferred:
            if deferred_ticket > ticket:
                break
            self.accept(first)
            durable_count += 1
        del self._deferred[:durable_count]
        return durable_count > 0

    @property
    def open_count(self) -> int:
        """Publishes that are neither accepted nor refused."""
        return sum(last - first + 1 for first, last in self._open.items())

    @property
    def assigned_count(self) -> int:
        """All publishes so far."""
        return self._next_sequence - 1

    @property
    def accepted_count(self) -> int:
        """Publishes that have been accepted."""
        return self.assigned_count - self.open_count - self._refused_count

    def take(self) -> KnownOutcomes:
        """Take what has become known since the last call."""
        outcomes = KnownOutcomes(
            self.accepted, self.refused, next(iter(self._open), self._next_sequence)
        )
        self.accepted, self.refused = [], []
        return outcomes

    def end(self) -> None:
        """Number no more, and know no more: the publisher has ended."""
        self.is_ended = True
        self._deferred.clear()
        self.take()


class ConfirmOutcomes(Protocol):
    """Where a publisher says which of its messages are accepted, and which are refused."""

    def report(self, confirms: Confirms) -> None:
        """Report what `confirms.take` returns: something of it is new."""

    def report_later(self, confirms: Confirms) -> None:
        """Report it before this turn ends, for more may become known by then."""


class PendingPublishes:
    """Messages of a routed batch, until all the queues that were asked to take them have answered.

    Mostly a queue answers for all of them together, and then this costs nothing for each.
    """

    __slots__ = ("_confirms", "_count", "_each", "_left", "_numbers", "_outcomes")

    def __init__(
        self, confirms: Confirms, outcomes: ConfirmOutcomes, numbers: list[tuple[int, int]]
    ) -> None:
        """`numbers`: stretches of publish sequence numbers, each by its first one and length, as
        they were assigned."""
        self._confirms = confirms
        self._outcomes = outcomes
        self._numbers = numbers
        self._count = sum(map(itemgetter(1), numbers))
        self._left = 0
        """Queues that have not answered yet; 0 once no answer counts any more."""
        self._each: list[int] = []
        """Answer for each message, once their answers differ; empty until then."""

    def wait(
        self, receipts: Sequence[PublishReceipt | PartialResult], commits: Commits | None
    ) -> None:
        """Wait for these, and for the commit that collects if they are recorded here as well."""
        self._left = len(receipts) + (commits is not None)
        for receipt in receipts:
            receipt.then(self._known)
        if commits is not None:
            commits.wait(self, commits.ticket)

    def on_durable(self, ticket: int) -> None:
        """Count what is recorded on this node as one more answer."""
        del ticket
        self._known(0, self._count, is_accepted=True)

    def _known(self, start: int, stop: int, *, is_accepted: bool) -> None:
        """A queue has answered for the messages from `start` up to `stop`."""
        if self._confirms.is_ended or not self._left:
            return
        if self._each or (start, stop) != (0, self._count):
            self._known_apart(start, stop, is_accepted=is_accepted)
        else:
            self._left = self._left - 1 if is_accepted else 0
            if self._left:
                return
            settle = self._confirms.accept if is_accepted else self._confirms.refuse
            for first, _count in self._numbers:
                settle(first)
        self._outcomes.report_later(self._confirms)

    def _known_apart(self, start: int, stop: int, *, is_accepted: bool) -> None:
        """From now on each message by itself."""
        confirms, each = self._confirms, self._each
        if not each:
            each += [self._left] * self._count
            for first, _count in self._numbers:
                confirms.split(first)
            self._numbers = [
                (number, 1)
                for first, count in self._numbers
                for number in range(first, first + count)
            ]
        for index in range(start, stop):
            if not each[index]:
                continue
            each[index] = each[index] - 1 if is_accepted else 0
            if not each[index]:
                settle = confirms.accept if is_accepted else confirms.refuse
                settle(self._numbers[index][0])
