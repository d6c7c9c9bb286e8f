"""Application of facts to the state: one function a kind of fact.

Nothing here decides.  A fact that contradicts the state raises `InvalidEntry`; then the state is
worth nothing any more, for facts before it in its entry have been applied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import error as StructError  # noqa: N812  it is an exception
from typing import Any

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.queues.deduplication_window import DeduplicationWindow
from fluffle.broker.queues.delivery_counts import Counts
from fluffle.broker.queues.quorum.encoding import DATED_HOLDS, FactBatch
from fluffle.broker.queues.quorum.errors import InvalidEntry
from fluffle.broker.queues.quorum.facts import (
    DEATHS,
    NOBODY,
    Acknowledged,
    Acted,
    Answered,
    ArrivalsKnown,
    Arrived,
    ConsumerAttached,
    DeadLettered,
    DeadLettering,
    DelayElapsed,
    Delivered,
    DeliveredWithoutAck,
    Detached,
    Dropped,
    Fact,
    GetterAttached,
    Key,
    OperationsRefused,
    Published,
    Purged,
    Reason,
    Remembered,
    Requeued,
    SacActive,
    SessionClosed,
    SessionOpened,
    Settled,
    SourceGone,
    SpecChanged,
    VersionAnnounced,
)
from fluffle.broker.queues.quorum.messages import Enqueued
from fluffle.broker.queues.quorum.runs import dealt
from fluffle.broker.queues.quorum.state import (
    UNKNOWN_SOURCE,
    Delayed,
    Hold,
    Holder,
    Session,
    Source,
    State,
    UnrepublishedDead,
    check_ordinal,
)
from fluffle.raft.ranges import Ranges


def apply(state: State, index: int, batch: FactBatch) -> None:
    """An entry, the next of the log.  Raises `InvalidEntry`."""
    pass_over(state, index)
    if batch.stamp_ms < state.queue_time_ms:
        raise InvalidEntry(f"queue time {batch.stamp_ms} behind {state.queue_time_ms}")
    if batch.revision != state.revision:
        raise InvalidEntry(
            f"decided by specification {batch.revision}; {state.revision} is in force"
        )
    state.queue_time_ms = batch.stamp_ms  # mutant: IM18 M39
    state.dates_holds = batch.version >= DATED_HOLDS
    unpublished = 0
    if batch.enqueued is not None:
        on_enqueued(state, index, batch.enqueued)
        unpublished = batch.enqueued.count
    for fact in batch.facts:
        APPLY[type(fact)](state, fact)
        if isinstance(fact, Published):
            unpublished -= fact.count
    if unpublished:
        raise InvalidEntry(f"an entry has {unpublished} messages more than publishes")


def pass_over(state: State, index: int) -> None:
    """An entry without facts, which consensus has put there for itself.  Raises `InvalidEntry`."""
    if index != state.index + 1:
        raise InvalidEntry(f"entry {index} behind {state.index}")
    state.index = index


def on_enqueued(state: State, index: int, new: Enqueued) -> None:
    if new.first != state.next_sequence:
        raise InvalidEntry(f"message {new.first}, where {state.next_sequence} is next")
    state.next_sequence += new.count
    state.entries.add(index, new)
    for start, stop, counts in new.columns.counts:
        state.delivery_counts.put(new.first + start, new.first + stop, counts)  # mutant: IM19


# Sessions


def on_session_opened(state: State, fact: SessionOpened) -> None:
    state.take_key(fact.key)
    if any(session.id == fact.id for session in state.sessions.values()):  # mutant: RE9
        raise InvalidEntry(f"session {fact.id} is open")
    if state.sessions is EMPTY_DICT:
        state.sessions = {}
    state.sessions[fact.key] = Session(fact.id)


def on_session_closed(state: State, fact: SessionClosed) -> None:
    state.session(fact.key)
    if any(holder.attached.session == fact.key for holder in state.holders.values()):  # mutant: RE8
        raise InvalidEntry(f"session {fact.key} is closed and has consumers")
    del state.sessions[fact.key]


def on_done(state: State, fact: Published | Acted) -> None:
    state.session(fact.session).advance(fact.first, fact.count)


def on_refused(state: State, fact: OperationsRefused) -> None:
    session = state.session(fact.session)
    session.advance(fact.first, fact.count)
    session.refused = session.refused.plus(Ranges.of((fact.first, session.next)))  # mutant: IM13


def on_answered(state: State, fact: Answered) -> None:
    session = state.session(fact.session)
    session.advance(fact.number, 1)
    session.answers[fact.number] = fact.answer  # mutant: IM17


def on_acknowledged(state: State, fact: Acknowledged) -> None:
    session = state.session(fact.session)
    if fact.below > session.next:  # mutant: RE10
        raise InvalidEntry(f"outcomes below {fact.below} are known; {session.next} is next")
    session.refused = session.refused.within(fact.below, session.next)  # mutant: IM14 IM15
    for number in [number for number in session.answers if number < fact.below]:  # mutant: IM16
        del session.answers[number]


# Consumers


def on_attached(state: State, fact: ConsumerAttached | GetterAttached) -> None:
    state.take_key(fact.key)
    state.session(fact.session)
    if state.holders is EMPTY_DICT:
        state.holders = {}
    state.holders[fact.key] = Holder(fact)


def on_detached(state: State, fact: Detached) -> None:
    holder = state.holder(fact.key)
    if holder.is_detached:
        raise InvalidEntry(f"{fact.key} is detached again")
    if state.sac_active == fact.key:
        raise InvalidEntry(f"{fact.key} is detached while it is the active consumer")
    holder.is_detached = True
    state.release(fact.key)


def on_sac_active(state: State, fact: SacActive) -> None:
    if fact.key != NOBODY:
        holder = state.holder(fact.key)
        if holder.is_detached or type(holder.attached) is not ConsumerAttached:  # mutant: RE17
            raise InvalidEntry(f"{fact.key} cannot be the active consumer")
    state.sac_active = fact.key


# Messages come and go


def on_delivered(state: State, fact: Delivered) -> None:
    holders = [_served(state, key, may_hold=True) for key in fact.holders]
    since_ms = state.queue_time_ms if state.dates_holds else 0
    dealt_before = 0
    for run in fact.runs:
        pieces = state.take_waiting(run)
        check_ordinal(pieces, fact.ordinal)
        for piece, counts in pieces:
            _deal(piece, Hold(counts, since_ms), holders, dealt_before)
            dealt_before += len(piece)  # mutant: IM1


def _deal(run: range, hold: Hold, holders: list[Holder], dealt_before: int) -> None:
    for place, holder in enumerate(holders):
        if share := dealt(run, place, len(holders), dealt_before):
            holder.held.put(share, hold)


def on_delivered_without_ack(state: State, fact: DeliveredWithoutAck) -> None:
    for key in fact.holders:
        _served(state, key, may_hold=False)
    for run in fact.runs:
        check_ordinal(state.take_waiting(run), fact.ordinal)
        state.bury(run, Reason.HANDED_OVER)  # mutant: IM2


def _served(state: State, key: Key, *, may_hold: bool) -> Holder:
    """Who may be handed messages; a getter says each time whether it acknowledges."""
    holder = state.holder(key)
    if holder.is_detached:
        raise InvalidEntry(f"{key} is detached and gets messages")
    if state.sac_active not in (NOBODY, key):
        raise InvalidEntry(f"{key} gets messages; {state.sac_active} is the active consumer")
    attached = holder.attached
    if type(attached) is ConsumerAttached and attached.no_ack == may_hold:  # mutant: RE14
        raise InvalidEntry(f"{key} gets messages as if it acknowledged otherwise")
    return holder


def on_settled(state: State, fact: Settled) -> None:
    for run in fact.runs:
        state.take_held(fact.holder, fact.ordinal, run)
        state.bury(run, Reason.ACKED)
    state.release(fact.holder)  # mutant: IM7


def on_requeued(state: State, fact: Requeued) -> None:
    counts = Counts(fact.ordinal + 1, fact.delivery_count)  # mutant: IM3 IM4
    for run in fact.runs:
        for _piece, before in state.take_held(fact.holder, fact.ordinal, run):
            if counts.failed - before.failed not in (0, 1):  # mutant: RE11
                raise InvalidEntry(f"delivery count {counts.failed} behind {before.failed}")
        if fact.ready_at_ms:  # mutant: IM5
            state.delayed.put(run, Delayed(fact.ready_at_ms, counts))
        else:
            state.returned.put(run, counts)
    state.release(fact.holder)  # mutant: IM6


def on_delay_elapsed(state: State, fact: DelayElapsed) -> None:
    for run in fact.runs:
        for piece, delayed in state.delayed.take(run):
            state.returned.put(piece, delayed.counts)  # mutant: IM8


def on_dropped(state: State, fact: Dropped) -> None:
    for run in fact.runs:
        _die(state, fact, run)
        state.bury(run, fact.reason)  # mutant: IM9
    if fact.holder != NOBODY:
        state.release(fact.holder)


def on_dead_lettering(state: State, fact: DeadLettering) -> None:
    for run in fact.runs:
        for piece, counts in _die(state, fact, run):
            state.pending.put(
                piece, UnrepublishedDead(fact.reason, fact.time_ms, counts)
            )  # mutant: IM10
    if fact.holder != NOBODY:
        state.release(fact.holder)


def _die(state: State, fact: Dropped | DeadLettering, run: range) -> list[tuple[range, Counts]]:
    """Messages leave their place for a reason that fits it."""
    # mutant: RE12 RE13
    if fact.reason not in DEATHS or (fact.reason is Reason.REJECTED) != (fact.holder != NOBODY):
        raise InvalidEntry(f"messages held by {fact.holder} die for {fact.reason!r}")
    if fact.holder != NOBODY:
        return state.take_held(fact.holder, fact.ordinal, run)
    pieces = state.take_waiting(run)
    check_ordinal(pieces, fact.ordinal)
    return pieces


def on_dead_lettered(state: State, fact: DeadLettered) -> None:
    for run in fact.runs:
        state.pending.take(run)
        state.bury(run, Reason.DEAD_LETTERED)  # mutant: IM11


def on_purged(state: State, fact: Purged) -> None:
    for run in fact.runs:
        state.take_unheld(run)
        state.bury(run, Reason.PURGED)  # mutant: IM12


# Dead letters of other queues


def on_arrived(state: State, fact: Arrived) -> None:
    _know(state, fact.source, _source(state, fact).with_arrived(fact))


def on_arrivals_known(state: State, fact: ArrivalsKnown) -> None:
    _know(state, fact.source, _source(state, fact).with_known(fact))


def _know(state: State, group: int, source: Source) -> None:
    if state.sources is EMPTY_DICT:
        state.sources = {}
    state.sources[group] = source


def _source(state: State, fact: Arrived | ArrivalsKnown) -> Source:
    source = state.sources.get(fact.source, UNKNOWN_SOURCE)
    if fact.term < source.term:
        raise InvalidEntry(f"queue {fact.source} of term {fact.term} behind {source.term}")
    return source


def on_source_gone(state: State, fact: SourceGone) -> None:
    """Maybe nothing is known of it: what had come of it was not said while a member read none of
    that."""
    state.sources.pop(fact.source, None)


# The queue itself


def on_spec_changed(state: State, fact: SpecChanged) -> None:
    if fact.revision <= state.revision:  # mutant: RE15
        raise InvalidEntry(f"specification {fact.revision} behind {state.revision}")
    state.revision, state.spec = fact.revision, fact.spec  # mutant: IM20


def on_version_announced(state: State, fact: VersionAnnounced) -> None:
    if fact.version < state.versions.get(fact.member, 0):  # mutant: RE16
        raise InvalidEntry(f"{fact.member} announces version {fact.version}, lower than before")
    state.versions[fact.member] = fact.version


def on_remembered(state: State, fact: Remembered) -> None:
    window = state.window if state.window is not None else DeduplicationWindow()
    try:
        window.add(fact.packed)
    except StructError as error:
        raise InvalidEntry(f"keys that are none: {error}") from error
    if fact.kept > len(window):
        raise InvalidEntry(f"{fact.kept} keys are known, and there are {len(window)}")
    window.keep(fact.kept)
    state.window = window if fact.kept else None


APPLY: Mapping[type[Fact], Callable[[State, Any], None]] = {
    Published: on_done,
    OperationsRefused: on_refused,
    Acted: on_done,
    Answered: on_answered,
    Acknowledged: on_acknowledged,
    SessionOpened: on_session_opened,
    SessionClosed: on_session_closed,
    ConsumerAttached: on_attached,
    GetterAttached: on_attached,
    Detached: on_detached,
    SacActive: on_sac_active,
    Delivered: on_delivered,
    DeliveredWithoutAck: on_delivered_without_ack,
    Settled: on_settled,
    Requeued: on_requeued,
    DelayElapsed: on_delay_elapsed,
    Dropped: on_dropped,
    DeadLettering: on_dead_lettering,
    DeadLettered: on_dead_lettered,
    Purged: on_purged,
    SpecChanged: on_spec_changed,
    VersionAnnounced: on_version_announced,
    Arrived: on_arrived,
    ArrivalsKnown: on_arrivals_known,
    SourceGone: on_source_gone,
    Remembered: on_remembered,
}
