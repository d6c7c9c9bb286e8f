"""Messages of one publisher, until all the queues that were asked to take them have answered.

Mostly a queue answers for all of them together, and then this costs nothing for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fluffle.broker.queues.queue_api import Deferred, PartialResult, PublishReceipt

if TYPE_CHECKING:
    from fluffle.broker.protocols.amqp091.channel import Channel


class PendingPublishes:
    """Messages of a parcel, for a channel in confirm mode."""

    __slots__ = ("_channel", "_confirms", "_each", "_left", "_numbers")

    def __init__(self, channel: Channel, numbers: list[tuple[int, int]]) -> None:
        """`numbers`: stretches of publish sequence numbers, each by its first one and length, as
        they were assigned."""
        self._channel = channel
        self._confirms = channel.confirms
        self._numbers = numbers
        self._left = 0
        """How many are yet to answer; 0 once nothing more is to come of it."""
        self._each: list[int] = []
        """The same for each message, once they fare differently; empty until then."""

    def of(self, receipts: Sequence[PublishReceipt | PartialResult], *, is_recorded: bool) -> None:
        """Wait for these, and for the commit that collects if they are recorded here as well."""
        self._left = len(receipts) + is_recorded
        for receipt in receipts:
            receipt.then(self._known)
        if is_recorded:
            commits = self._channel.session.commits
            commits.wait(self, commits.ticket)

    @property
    def _count(self) -> int:
        return sum(count for _first, count in self._numbers)

    def on_durable(self, ticket: int) -> None:
        """What is here is safe."""
        del ticket
        self._known(0, self._count, is_taken=True)

    def _known(self, start: int, stop: int, *, is_taken: bool) -> None:
        """A queue has answered for the messages from `start` up to `stop`."""
        if self._channel.confirms is not self._confirms or not self._left:
            return
        if self._each or (start, stop) != (0, self._count):
            self._known_apart(start, stop, is_taken=is_taken)
        elif is_taken:
            self._left -= 1
            if self._left:
                return
            self._tell_all(is_taken=True)
        else:
            self._left = 0
            self._tell_all(is_taken=False)
        self._channel.session.output.ask_later(self._channel)

    def _tell_all(self, *, is_taken: bool) -> None:
        assert self._confirms is not None
        tell = self._confirms.accept if is_taken else self._confirms.refuse
        for first, _count in self._numbers:
            tell(first)

    def _known_apart(self, start: int, stop: int, *, is_taken: bool) -> None:
        """From now on each message by itself."""
        confirms, each = self._confirms, self._each
        assert confirms is not None
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
            each[index] = each[index] - 1 if is_taken else 0
            if not each[index]:
                tell = confirms.accept if is_taken else confirms.refuse
                tell(self._numbers[index][0])


class PendingTransactionPublishes:
    """Messages of a transaction: whether all of them were taken."""

    __slots__ = ("_answer", "_left", "are_all")

    def __init__(self) -> None:
        self.are_all = True
        """Whether all have been taken, as far as that is known."""
        self._left = 0
        """How many have no answer yet."""
        self._answer: Deferred[bool] | None = None

    def wait(self, receipt: PublishReceipt) -> None:
        """Some of them are taken only if a queue says so, which it has not yet."""
        self._left += receipt.count
        receipt.then(self._known)

    def answer(self) -> bool | Deferred[bool]:
        """Whether all of them were, if that is known; there are no more to come."""
        if not (self.are_all and self._left):
            return self.are_all
        self._answer = Deferred()
        return self._answer

    def _known(self, start: int, stop: int, *, is_taken: bool) -> None:
        self._left -= stop - start
        self.are_all &= is_taken
        if self._answer is not None and not self._left:
            self._answer.answer(self.are_all)
