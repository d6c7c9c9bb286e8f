"""How hand-outs end, and what becomes of the messages then.

    acknowledged -----------> Settled
    given back, or lost ----> Requeued, and waiting again, maybe delayed; if once too often, dead
    not wanted back --------> dead
    in front of too many ---> dead
    expired ----------------> dead

    dead, without an exchange for that ----> Dropped
          with one ------------------------> DeadLettering --> handed on --> DeadLettered
               where they must arrive ----------> DeadLettering --> see `DeadLetterOutbox`

The dead are kept, and handed on when the log has it that they are dead.  A leader that finds some
in its log hands them on again: none is lost by a change of leader, but some may come twice, except
those that must arrive in a quorum queue (`DeadLetterDedup`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from functools import partial

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.dead_letters import DeadMessages, RepublishDeadLetters
from fluffle.broker.queues.delivery_counts import Counts
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import UnreadableMessages
from fluffle.broker.queues.queue_api import FAILED, Outcome, OverdueDeliveries
from fluffle.broker.queues.quorum.dead_letter_outbox import (
    DeadLetterOutbox,
    counts_along,
)
from fluffle.broker.queues.quorum.facts import (
    DEATH_REASONS,
    NO_HOLDER,
    REASONS,
    DeadLettered,
    DeadLettering,
    Dropped,
    Key,
    RemovalReason,
    Requeued,
    RequeueReason,
    Settled,
)
from fluffle.broker.queues.quorum.holders import DeliveryPart, HolderState
from fluffle.broker.queues.quorum.log_journal import LogJournal
from fluffle.broker.queues.quorum.messages import Effect, TimeoutNotice, Token
from fluffle.broker.queues.quorum.proposals import (
    DeadLetterEffect,
    EffectBuffer,
    EntryBuilder,
    QueueTime,
)
from fluffle.broker.queues.quorum.runs import runs_of
from fluffle.broker.queues.quorum.state import QueueState
from fluffle.broker.queues.requeue import delay_ms
from fluffle.broker.queues.segment import TakenMessages
from fluffle.broker.queues.settings import DelayedRetry
from fluffle.protocol.headers import DeathReason

HOW = {
    Outcome.NACK_REQUEUED: RequeueReason.NACKED,
    Outcome.REJECT_REQUEUED: RequeueReason.REJECTED,
    Outcome.LOST: RequeueReason.LOST,
    Outcome.SUSPECTED: RequeueReason.SUSPECTED,
    Outcome.UNSENT: RequeueReason.UNKNOWN,
    Outcome.TIMED_OUT: RequeueReason.TIMED_OUT,
}
"""Outcomes after which a message comes back."""


@dataclass(slots=True, eq=False)
class Settlement:
    """Settlement of the deliveries of one leadership."""

    _queue: Queue
    _contents: LogJournal
    _builder: EntryBuilder
    _effects: EffectBuffer
    _: KW_ONLY
    dead_letter: RepublishDeadLetters
    time: QueueTime
    outbox: DeadLetterOutbox

    def settle(self, holder: Key, parts: Iterable[DeliveryPart], outcome: Outcome) -> None:
        """Parts of hand-outs of one holder have ended: on record, and in the engine."""
        for part in parts:
            counts = part.delivery_batch.counts
            engine_outcome = outcome
            if outcome is Outcome.ACKED:
                self._builder.add_fact(Settled(holder, counts.acquired, [part.run]))
            elif outcome is Outcome.REJECTED:
                self._die(RemovalReason.REJECTED, holder, counts, part)
            else:
                engine_outcome = self._come_back(holder, part, outcome)
            self._queue.settle(part.delivery_batch, part.start, part.stop, engine_outcome)

    def take_back(self, held: HolderState, late: OverdueDeliveries) -> None:
        """Take back messages that were held for too long."""
        key, parts = held.attached.key, held.take_of(late.delivery_batches)
        tokens = [Token(key, part.delivery_batch.counts.acquired, part.run) for part in parts]
        self.settle(key, parts, Outcome.TIMED_OUT)
        notice = TimeoutNotice(key, tokens, late.held_ms, late.timeout_ms)
        effect = Effect(held.session, notice)
        self._effects.keep(lambda: [effect])

    def _come_back(self, holder: Key, part: DeliveryPart, outcome: Outcome) -> Outcome:
        """Messages wait again, unless that is once too often, or must wait for that; what it is for
        the engine.  As in RabbitMQ 4.3, what has a limit is failures."""
        before, limit = part.delivery_batch.counts, self._queue.settings.delivery_limit
        is_failure = outcome in FAILED  # mutant: LE13 LE14
        counts = Counts(before.acquired + 1, before.failed + is_failure)
        is_dead = limit is not None and counts.failed > limit  # mutant: B3 LE15
        ready_at_ms = 0 if is_dead else self._ready_at_ms(counts, outcome)
        how, ordinal = HOW[outcome], before.acquired
        self._builder.add_fact(
            Requeued(holder, ordinal, counts.failed, how, ready_at_ms, [part.run])
        )
        if is_dead:
            self._die(RemovalReason.DELIVERY_LIMIT, NO_HOLDER, counts, part)
            return Outcome.REJECTED  # mutant: LE16
        if ready_at_ms:
            self._delay(part, counts, ready_at_ms)
            return Outcome.ACKED  # mutant: LE18
        return outcome

    def _ready_at_ms(self, counts: Counts, outcome: Outcome) -> int:
        """When they may be handed out again; 0: at once, as what no client has had."""
        settings = self._queue.settings
        if settings.delayed_retry is DelayedRetry.DISABLED or outcome is Outcome.UNSENT:
            return 0
        wait_ms = delay_ms(settings, counts, is_failure=outcome in FAILED)
        return self.time.now_ms() + wait_ms if wait_ms else 0

    def _delay(self, part: DeliveryPart, counts: Counts, ready_at_ms: int) -> None:
        """A client may be gone before what it was to be handed is in the image."""
        delivery_batch, inside = part.delivery_batch, slice(part.start, part.stop)
        expiries = delivery_batch.expiries and delivery_batch.expiries[inside]
        messages = None
        if part.run[-1] >= self._contents.state.next_sequence:
            messages = delivery_batch.origins[inside], delivery_batch.contents[inside]
        self._queue.delays.add(part.run, counts, ready_at_ms, expiries, messages)

    def drop(self, why: DeathReason, taken: TakenMessages) -> None:
        """Messages are off the front of the queue, because too many waited or they have expired."""
        start, reason = 0, REASONS[why]
        runs: Iterable[range]
        if taken.is_exact:
            runs = runs_of(taken.sequences)
        else:
            runs = self._contents.ready_within(taken.sequences[0], taken.sequences[-1] + 1)
        for run in runs:
            inside = slice(start, start + len(run))
            messages = taken.origins[inside], taken.contents[inside]
            self._bury(reason, NO_HOLDER, taken.counts, run, *messages)  # mutant: LE17
            start = inside.stop

    def _die(self, reason: RemovalReason, holder: Key, counts: Counts, part: DeliveryPart) -> None:
        """Messages that a holder had until now, or none; with the counts they have now."""
        delivery_batch, inside = part.delivery_batch, slice(part.start, part.stop)
        contents = delivery_batch.contents[inside] if delivery_batch.origins else []
        self._bury(reason, holder, counts, part.run, delivery_batch.origins[inside], contents)

    def _bury(
        self,
        reason: RemovalReason,
        holder: Key,
        counts: Counts,
        run: range,
        *messages: *tuple[list[Origin], list[bytes]],
    ) -> None:
        """Messages are dead: gone, or kept until they have been handed on."""
        if not self._is_kept():  # mutant: LE19
            self._builder.add_fact(Dropped(reason, holder, counts.acquired, [run]))
            self._count_unwanted(DEATH_REASONS[reason], len(run))
            return
        time_ms = self.time.now_ms()
        self._builder.add_fact(DeadLettering(reason, time_ms, holder, counts.acquired, [run]))
        dead = DeadLetterEffect(reason, time_ms, counts, run, *messages)
        if self.outbox.is_wanted:
            self.outbox.under_decision += len(run)
            dead = DeadLetterEffect(reason, time_ms, counts, run, [], [], must_arrive=True)
        self._effects.keep(partial(_alone, dead))  # mutant: LE20 R14a

    def _count_unwanted(self, reason: DeathReason, count: int) -> None:
        self._effects.keep(partial(self._unwanted, reason, count))

    def _unwanted(self, reason: DeathReason, count: int) -> list[DeadLetterEffect]:
        """Count messages that died without a dead letter exchange; they are gone once applied."""
        died = DeadMessages(reason, [], [], queue_type=QueueType.QUORUM, unwanted=count)
        self.dead_letter(self._queue.name, self._queue.settings, died)
        return []

    def _is_kept(self) -> bool:
        """True if a dead letter exchange is configured."""
        return self._queue.settings.dead_letter_exchange is not None

    def take_up(self, state: QueueState) -> None:
        """Resume what an earlier leader left by the log: dead letters not handed on, and messages
        that wait for their retry delay."""
        for run, (ready_at_ms, counts) in state.delayed:
            # mutant: C2
            self._queue.delays.add(run, counts, ready_at_ms, self._contents.expiries_of(run))
        must_arrive = self.outbox.is_wanted
        for run, (reason, time_ms, counts) in state.pending:
            dead = DeadLetterEffect(reason, time_ms, counts, run, [], [], must_arrive)
            self.outbox.under_decision += len(run) * must_arrive
            self._effects.keep_known(partial(_alone, dead))  # mutant: R14b

    def hand_on(self, dead: DeadLetterEffect) -> None:
        """Messages are dead by what is applied: they are republished, and that is said."""
        if dead.must_arrive:
            self.outbox.take(dead)
            return
        if self._is_kept():
            origins, contents = dead.origins, dead.contents
            if not contents:
                try:
                    origins, contents = self._contents.fetch(dead.run)  # mutant: LE21
                except UnreadableMessages:
                    return  # the damage is reported already
            reason, counts = DEATH_REASONS[dead.reason], counts_along(dead)
            died = DeadMessages(reason, origins, contents, dead.time_ms, counts, QueueType.QUORUM)
            self.dead_letter(self._queue.name, self._queue.settings, died)  # mutant: R14c
        self._builder.add_fact(DeadLettered([dead.run]))  # mutant: LE22


def _alone(dead: DeadLetterEffect) -> list[DeadLetterEffect]:
    return [dead]
