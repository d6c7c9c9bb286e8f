"""Requests of this node's channels to one queue, as operations of its session."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.base.message import Origin
from fluffle.broker.cluster.queue_sessions import messages as m
from fluffle.broker.cluster.queue_sessions.codec import MESSAGES_MAX
from fluffle.broker.cluster.queue_sessions.session_client import SessionClient
from fluffle.broker.queues.delivery import Outcome
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.queue_api import DeadLetterIds
from fluffle.broker.queues.quorum.facts import NOBODY, Key


class ConsumerTerms(NamedTuple):
    """The arguments a consumer is attached with."""

    tag: str
    prefetch: int = 0
    priority: int = 0
    no_ack: bool = False
    is_exclusive: bool = False
    arguments: bytes = b""


class QueueRequests:
    """Most return the number of their operation, by which its outcome will be known."""

    __slots__ = ("_edge",)

    def __init__(self, edge: SessionClient) -> None:
        self._edge = edge

    def publish(
        self,
        origins: list[Origin],
        contents: list[bytes],
        *,
        persistent: bool = True,
        expiration_ms: Lifetimes = None,
        posted: DeadLetterIds | None = None,
        counts: Counts = NEW,
    ) -> int:
        """A message each; the number of the first."""
        assert 0 < len(contents) <= MESSAGES_MAX
        number = self._edge.pending.next
        publish = m.Publish(number, origins, contents, persistent, expiration_ms, posted, counts)
        return self._edge.ask(publish)

    def settle(self, tokens: Iterable[m.Token], outcome: Outcome) -> None:
        """End hand-outs.  What of them is in no hands any more is asked of nobody.

        Calls of a turn may share an operation.
        """
        by_holder: dict[Key, list[m.Token]] = {}
        for token in self._edge.hands.take(tokens):
            by_holder.setdefault(token.holder, []).append(token)
        for of_it in by_holder.values():
            self._edge.settle(outcome, of_it)

    def attach(self, channel: int, terms: ConsumerTerms, credit: int) -> int:
        """Its number, by which it is known from now on; `credit` as for `set_credit`."""
        number = self._edge.pending.next
        if self._edge.credits is EMPTY_DICT:
            self._edge.credits = {}
        self._edge.credits[number] = credit
        tag, prefetch, priority, no_ack, is_exclusive, arguments = terms
        return self._edge.ask(
            m.Attach(
                number,
                channel,
                tag,
                prefetch,
                m.Signed(priority),
                no_ack,
                is_exclusive,
                arguments,
            )
        )

    def detach(self, consumer: int) -> None:
        """It gets nothing more than what is on its way: then it is said to be cancelled.

        What it has stays in its client's hands.  One that is not attached yet never will be.
        """
        key = self._edge.keys.get(consumer)
        if key is not None:
            self._edge.leave(key, None)
        elif self._edge.pending.find(consumer) is not None:
            if self._edge.unwanted is EMPTY_DICT:
                self._edge.unwanted = {}
            self._edge.unwanted[consumer] = None

    def get(self, channel: int, *, no_ack: bool) -> int:
        """One at a time of a channel."""
        return self._edge.ask(m.Get(self._edge.pending.next, channel, no_ack))

    def purge(self) -> int:
        return self._edge.ask(m.Purge(self._edge.pending.next))

    def give_up(self, number: int) -> None:
        """Nobody waits for a get or a purge any more: unless it is on record, it is never done.

        What a get has taken comes back.
        """
        edge, nothing = self._edge, m.Detach(number, NOBODY, None)
        if edge.pending.replace(nothing):
            edge.unsent = [
                nothing if isinstance(each, m.Get | m.Purge) and each.number == number else each
                for each in edge.unsent
            ]
