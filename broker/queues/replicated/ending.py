"""How hand-outs end, and what becomes of the messages then.

    acknowledged -----------> Settled
    given back, or lost ----> Returned, and waiting again; but if that is once too often, dead
    not wanted back --------> dead
    in front of too many ---> dead

    dead, without an exchange for that ----> Dropped
          with one ------------------------> DeadLettering --> handed on --> DeadLettered

The dead are kept, and handed on when the log has it that they are dead.  A leader that finds some
in its log hands them on again: none is lost by a change of leader, but some may come twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from fluffle.broker.message import Origin
from fluffle.broker.queues.counts import Counts
from fluffle.broker.queues.dead import DeadLetter, DeadMessages
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.handout import FAILED, Outcome
from fluffle.broker.queues.journal import Unreadable
from fluffle.broker.queues.lane import Taken
from fluffle.broker.queues.replicated.contents import Contents
from fluffle.broker.queues.replicated.draft import Draft
from fluffle.broker.queues.replicated.effects import Dead
from fluffle.broker.queues.replicated.facts import (
    NOBODY,
    DeadLettered,
    DeadLettering,
    Dropped,
    How,
    Key,
    Reason,
    Returned,
    Settled,
)
from fluffle.broker.queues.replicated.gate import Gate
from fluffle.broker.queues.replicated.holders import Part
from fluffle.broker.queues.replicated.runs import runs_of
from fluffle.broker.queues.replicated.state import State
from fluffle.protocol.deaths import DeathReason

HOW = {
    Outcome.RETURNED: How.NACKED,
    Outcome.REFUSED: How.REJECTED,
    Outcome.LOST: How.LOST,
    Outcome.SUSPECTED: How.SUSPECTED,
    Outcome.UNSENT: How.UNKNOWN,
}
"""Outcomes after which a message comes back."""

DEATH_REASONS = {
    Reason.REJECTED: DeathReason.REJECTED,
    Reason.EXPIRED: DeathReason.EXPIRED,
    Reason.MAXLEN: DeathReason.MAXLEN,
    Reason.DELIVERY_LIMIT: DeathReason.DELIVERY_LIMIT,
}


class Ending:
    """Of one leadership."""

    __slots__ = ("_contents", "_dead_letter", "_draft", "_gate", "_now_ms", "_queue")

    def __init__(
        self,
        queue: Queue,
        contents: Contents,
        draft: Draft,
        gate: Gate,
        *,
        dead_letter: DeadLetter | None,
        now_ms: Callable[[], int],
    ) -> None:
        self._queue = queue
        self._contents = contents
        self._draft = draft
        self._gate = gate
        self._dead_letter = dead_letter
        self._now_ms = now_ms

    def settle(self, holder: Key, parts: Iterable[Part], outcome: Outcome) -> None:
        """Parts of hand-outs of somebody have ended: said, and told to the engine."""
        for part in parts:
            counts = part.handout.counts
            engine_outcome = outcome
            if outcome is Outcome.ACKED:
                self._draft.say(Settled(holder, counts.acquired, [part.run]))
            elif outcome is Outcome.REJECTED:
                self._die(Reason.REJECTED, holder, counts, part)
            elif not self._comes_back(holder, part, outcome):
                engine_outcome = Outcome.REJECTED
            self._queue.settle(part.handout, part.start, part.stop, engine_outcome)

    def _comes_back(self, holder: Key, part: Part, outcome: Outcome) -> bool:
        """Whether messages wait again.  As in RabbitMQ 4.3, what has a limit is failures."""
        before, limit = part.handout.counts, self._queue.spec.delivery_limit
        counts = Counts(before.acquired + 1, before.failed + (outcome in FAILED))
        how = HOW[outcome]
        self._draft.say(Returned(holder, before.acquired, counts.failed, how, 0, [part.run]))
        is_dead = limit is not None and counts.failed > limit
        if is_dead:
            self._die(Reason.DELIVERY_LIMIT, NOBODY, counts, part)
        return not is_dead

    def drop(self, taken: Taken) -> None:
        """Messages are off the front of the queue, because too many waited."""
        start = 0
        for run in runs_of(taken.sequences):
            inside = slice(start, start + len(run))
            messages = taken.origins[inside], taken.contents[inside]
            self._bury(Reason.MAXLEN, NOBODY, taken.counts, run, *messages)
            start = inside.stop

    def _die(self, reason: Reason, holder: Key, counts: Counts, part: Part) -> None:
        """Messages that somebody held until now, or nobody; with the counts they have now."""
        handout, inside = part.handout, slice(part.start, part.stop)
        contents = handout.contents[inside] if handout.origins else []
        self._bury(reason, holder, counts, part.run, handout.origins[inside], contents)

    def _bury(
        self,
        reason: Reason,
        holder: Key,
        counts: Counts,
        run: range,
        *messages: *tuple[list[Origin], list[bytes]],
    ) -> None:
        """Messages are dead: gone, or kept until they have been handed on."""
        if not self._is_kept():
            self._draft.say(Dropped(reason, holder, counts.acquired, [run]))
            return
        time_ms = self._draft.time_ms(self._now_ms())
        self._draft.say(DeadLettering(reason, time_ms, holder, counts.acquired, [run]))
        self._gate.keep(partial(_alone, Dead(reason, time_ms, counts, run, *messages)))

    def _is_kept(self) -> bool:
        """Whether somebody wants the dead."""
        return self._dead_letter is not None and self._queue.spec.dead_letter_exchange is not None

    def take_up(self, state: State) -> None:
        """What an earlier leader has not handed on, as far as the log says."""
        for run, (reason, time_ms, counts) in state.pending:
            dead = Dead(reason, time_ms, counts, run, [], [])
            self._gate.keep_known(partial(_alone, dead))

    def hand_on(self, dead: Dead) -> None:
        """Messages are dead by what is applied: they are republished, and that is said."""
        if self._dead_letter is not None and self._is_kept():
            origins, contents = dead.origins, dead.contents
            if not contents:
                try:
                    origins, contents = self._contents.fetch(dead.run)
                except Unreadable:
                    return  # whoever owns this has been told that it is damaged
            died = DeadMessages(
                DEATH_REASONS[dead.reason], origins, contents, dead.time_ms, dead.counts
            )
            self._dead_letter(self._queue.spec, died)
        self._draft.say(DeadLettered([dead.run]))


def _alone(dead: Dead) -> list[Dead]:
    return [dead]
