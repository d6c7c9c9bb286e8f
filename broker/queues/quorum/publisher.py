"""Publishing to the queue of a leader, for sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fluffle.broker.base.message import MessageAnnotations, Origin
from fluffle.broker.queues.delivery_counts import NEW, Counts, DeliveryCountIndex
from fluffle.broker.queues.expiry_times import Lifetimes, lifetimes_in
from fluffle.broker.queues.publish_target import (
    DeadLetterIds,
    Enqueue,
    EnqueueResult,
    MessageResult,
    PartialResult,
    results_of,
)
from fluffle.broker.queues.quorum.dead_letter_dedup import ArrivalKind, DeadLetterDedup
from fluffle.broker.queues.quorum.effect_buffer import EffectBuffer
from fluffle.broker.queues.quorum.effects import Done, NotTaken
from fluffle.broker.queues.quorum.encoding import CARRIES
from fluffle.broker.queues.quorum.entry_version import EntryVersions
from fluffle.broker.queues.quorum.facts import Acted, Key, OperationsRefused, Published
from fluffle.broker.queues.quorum.session_table import SessionTable


class Publisher(NamedTuple):
    """Publisher for the sessions of one leadership."""

    enqueue: Enqueue
    """Into the queue."""
    sessions: SessionTable
    gate: EffectBuffer
    arrivals: DeadLetterDedup
    delivery_counts: DeliveryCountIndex | None
    """None in a delayed queue, where messages wait and are handed to nobody."""
    announcing: EntryVersions
    may_grow: Callable[[], bool]
    """See `LeaderHost`."""

    def publish(
        self,
        session: Key,
        first: int,
        origins: list[Origin],
        contents: list[bytes],
        *,
        expiration_ms: Lifetimes,
        posted: DeadLetterIds | None,
        counts: Counts,
    ) -> None:
        """Operations `first`, `first + 1` ... are a message each; those that were done before are
        answered again.  Some may not fit, all others are recorded."""
        if done := self.sessions.known(session, first, len(contents)):
            first, origins, contents = first + done, origins[done:], contents[done:]
            expiration_ms = lifetimes_in(expiration_ms, slice(done, None))  # mutant: BA1 BA2
            posted = posted.after(done) if posted is not None else None  # mutant: BA3
        if not contents:
            return
        delivery_counts = self.delivery_counts
        if counts is not NEW and delivery_counts is not None and self.announcing.version >= CARRIES:
            delivery_counts.coming = counts  # mutant: BA4 CA3
        self._take(session, first, origins, contents, expiration_ms=expiration_ms, posted=posted)
        if delivery_counts is not None:
            delivery_counts.coming = NEW  # mutant: BA5 CA4

    def _take(
        self,
        session: Key,
        first: int,
        origins: list[Origin],
        contents: list[bytes],
        *,
        expiration_ms: Lifetimes,
        posted: DeadLetterIds | None,
    ) -> None:
        """What has not been done before."""
        if posted is None:
            self._put(session, first, origins, contents, expiration_ms)
            return
        for start, stop, fate in self.arrivals.sift(posted):
            if fate in (ArrivalKind.STALE, ArrivalKind.EARLY):  # mutant: BA8
                self._refuse(session, first + start, stop - start)
            elif fate is ArrivalKind.HERE:
                self.sessions.advance(Acted(session, first + start, stop - start))
                self._confirm(session, first + start, stop - start)  # mutant: BA9
            else:
                run, number = slice(start, stop), first + start
                lifetimes_ms = lifetimes_in(expiration_ms, run)  # mutant: BA6
                taken = self._put(session, number, origins[run], contents[run], lifetimes_ms)
                for low, high in taken:
                    self.arrivals.add(posted.part(start + low, start + high))  # mutant: BA7

    def _put(
        self,
        session: Key,
        first: int,
        origins: list[Origin],
        contents: list[bytes],
        expiration_ms: Lifetimes,
    ) -> list[tuple[int, int]]:
        """From where to where they are taken."""
        fate: EnqueueResult | PartialResult = EnqueueResult.REFUSED
        # What has died makes room where it did, and nobody has it any more if it is refused.
        if origins[0].past is not MessageAnnotations.NONE or self.may_grow():  # mutant: BA11 BA12
            size_bytes = sum(map(len, contents))
            fate = self.enqueue(  # mutant: BA10
                origins, contents, size_bytes, persistent=True, expiration_ms=expiration_ms
            )
        taken: list[tuple[int, int]] = []
        for start, stop, part in results_of(fate, len(contents)):  # mutant: LE23
            number, count = first + start, stop - start  # mutant: BA15
            if part is MessageResult.REFUSED:  # mutant: BA13
                self._refuse(session, number, count)
                continue
            if part is MessageResult.DUPLICATE:
                self.sessions.advance(Acted(session, number, count))
            else:
                taken.append((start, stop))  # mutant: BA14
                self.sessions.advance(Published(session, number, count))
            self._confirm(session, number, count)
        return taken

    def _refuse(self, session: Key, first: int, count: int) -> None:
        self.sessions.advance(OperationsRefused(session, first, count))
        told = NotTaken(session, first, count)
        self.gate.keep(lambda: [told])  # mutant: LE24

    def _confirm(self, session: Key, first: int, count: int) -> None:
        told = Done(session, first, count)
        self.gate.keep(lambda: [told])
