"""Handlers of the leader's messages in a session client: one function a message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.cluster.queue_sessions import events as happened
from fluffle.broker.cluster.queue_sessions import messages as m
from fluffle.broker.cluster.queue_sessions.events import Event
from fluffle.broker.cluster.queue_sessions.session_client import (
    FRAMES_UNREPORTED_MAX,
    SessionClient,
    Unacked,
)
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum.facts import Key

COMMITTED = (m.Done, m.Rejected, m.Answer)
"""What counts whoever says it, and however late: it is in the log."""


def apply_frame(edge: SessionClient, frame: m.LeaderFrame) -> list[Event]:
    """What has come from whoever leads, has led, or does not lead."""
    addressed = (frame.group, frame.receiver, frame.session)
    if addressed != (edge.group, edge.boot, edge.session):  # mutant: ST9
        return []
    is_of_reign = (frame.term, frame.leadership) == edge.reign  # mutant: R15a ST3
    is_next = is_of_reign and frame.number == edge.received + 1  # mutant: ST2
    if is_next:
        edge.received += 1
        if edge.received - edge.told >= FRAMES_UNREPORTED_MAX:
            edge.owes = True
    is_taken = is_next or (is_of_reign and (frame.number, frame.opening) == (0, edge.opening))
    if is_taken:
        edge.is_remembered = False
    events: list[Event] = []
    for message in frame.messages:
        if is_taken or isinstance(message, COMMITTED):
            events += HEAR[type(message)](edge, message)
    return events


# Outcomes


def on_done(edge: SessionClient, message: m.Done) -> list[Event]:
    kinds = (m.Publish, m.Settle, m.Detach)
    known = edge.pending.of_kinds(message.first, message.count, kinds)
    events: list[Event] = []
    for operation, first, count in known:
        if isinstance(operation, m.Publish):
            events.append(happened.PublishConfirmed(first, count))
            continue
        events.append(happened.OperationsDone(first, count))
        if isinstance(operation, m.Detach) and (left := edge.forget(operation.holder)) is not None:
            events.append(happened.Cancelled(left.number))
    return events


def on_not_taken(edge: SessionClient, message: m.Rejected) -> list[Event]:
    """Whoever believes that a settlement has ended hand-outs is told; a detachment is in the place
    of a purge that was given up."""
    events: list[Event] = []
    kinds = (m.Publish, m.Settle, m.Purge, m.Detach)
    for operation, first, count in edge.pending.of_kinds(message.first, message.count, kinds):
        match operation:
            case m.Publish():
                events.append(happened.PublishRefused(first, count))
            case m.Purge():
                events.append(happened.NotPurged(first))
            case m.Settle():
                events += [happened.SettleFailed(first), happened.OperationsDone(first, count)]
            case _:
                events.append(happened.OperationsDone(first, count))
    return events


def on_answer(edge: SessionClient, message: m.Answer) -> list[Event]:
    kinds = (m.Attach, m.Purge, m.Detach)
    for operation, number, _ in edge.pending.of_kinds(message.number, 1, kinds):
        if isinstance(operation, m.Detach):
            return [happened.OperationsDone(number, 1)]  # in the place of a purge that was given up
        if not isinstance(operation, m.Attach):
            return [happened.Purged(number, message.answer)]
        if message.answer == m.IN_EXCLUSIVE_USE:
            del edge.credits[number]
            is_wanted = number not in edge.unwanted
            edge.unwanted.pop(number, None)
            return [happened.NotAttached(number)] if is_wanted else []
        if number in edge.unwanted:
            edge.unwanted.pop(number, None)
            edge.credits.pop(number)
            edge.leave(message.answer, Outcome.UNSENT)
            return []
        edge.know(message.answer, operation)
        return [happened.Attached(number, message.answer)]
    return []


def on_expected(edge: SessionClient, message: m.Expected) -> list[Event]:
    others = [each for each in edge.unsent if not isinstance(each, m.Operation)]
    edge.unsent = [*others, *edge.pending.from_number(message.number)]
    edge.put_off = 0
    return []


# Messages


def on_deliver(edge: SessionClient, message: m.Deliver) -> list[Event]:
    consumer = edge.consumers.get(message.holder)
    if consumer is not None and not consumer.no_ack:
        edge.keep(message)
        return [happened.Delivered(consumer.number, message)]
    edge.owes = True
    if consumer is not None:
        return [happened.Delivered(consumer.number, message)]
    number = edge.awaited.pop(message.holder, None)
    if number is not None:
        return _got(edge, number, message.holder, 0, message)
    give_back(edge, m.tokens_of(message))
    return []


def on_get_answer(edge: SessionClient, message: m.GetAnswer) -> list[Event]:
    edge.owes = True
    deliver = message.delivers[0] if message.delivers else None
    events = _got(edge, message.number, message.holder, message.ready, deliver)
    for event in events:
        if isinstance(event, happened.Got):
            event.is_crashed = message.is_crashed
    return events


def _got(
    edge: SessionClient, number: int, holder: Key | None, ready: int, deliver: m.Deliver | None
) -> list[Event]:
    """A get is done; there is no holder if it was taken from its channel since.

    If it was given up, another operation stands in its place, or stood there.
    """
    known = edge.pending.of_kinds(number, 1, (m.Get, m.Detach))
    if known and isinstance(operation := known[0].operation, m.Get):
        if holder is not None:
            if edge.getters is EMPTY_DICT:
                edge.getters = {}
            edge.getters[operation.channel] = holder
        if deliver is not None and not operation.no_ack:
            edge.keep(deliver)
        return [happened.Got(number, ready, deliver)]
    if deliver is not None:
        give_back(edge, m.tokens_of(deliver))
    return [happened.OperationsDone(first, count) for _, first, count in known]


def give_back(edge: SessionClient, tokens: list[m.Token]) -> None:
    """Nobody is here any more whom they are for: at once, and that does not count."""
    if tokens:  # mutant: R9c
        edge.ask(m.Settle(edge.pending.next, Outcome.UNSENT, tokens))


# What is gone


def on_cancelled(edge: SessionClient, message: m.Cancelled) -> list[Event]:
    consumer = edge.forget(message.holder)
    edge.getters = {channel: key for channel, key in edge.getters.items() if key != message.holder}
    awaited = edge.awaited.pop(message.holder, None)
    if awaited is not None:
        return _got(edge, awaited, None, 0, None)
    return [happened.Cancelled(consumer.number)] if consumer is not None else []


def on_revoked(edge: SessionClient, message: m.Revoked) -> list[Event]:
    revoked = edge.hands.take(message.tokens)
    return [happened.Revoked(revoked)] if revoked else []


def on_timed_out(edge: SessionClient, message: m.DeliveryTimedOut) -> list[Event]:
    """What a client has settled just before, nobody takes from it: but then that came too late."""
    consumer = edge.forget(message.holder)
    number = consumer.number if consumer is not None else 0
    revoked = edge.hands.take(message.tokens)
    timed_out = happened.DeliveryTimedOut(
        number, revoked, message.holder, message.held_ms, message.timeout_ms
    )
    return [happened.Revoked(revoked), timed_out] if revoked else [timed_out]


def on_session_lost(edge: SessionClient, _message: m.SessionLost) -> list[Event]:
    return edge.lost()


def on_not_leader(edge: SessionClient, message: m.NotLeader) -> list[Event]:
    edge.connect(None)
    return [happened.WrongLeader(message.term, message.leader, message.leadership)]


# A queue that is behind


def on_owing(edge: SessionClient, message: m.Backlog) -> list[Event]:
    paid = edge.owing - message.count
    edge.owing = message.count
    return [happened.BacklogReduced(paid)] if paid > 0 else []


def on_activity(edge: SessionClient, message: m.ActiveConsumerChanged) -> list[Event]:
    consumer = edge.consumers.get(message.holder)
    return (
        [happened.ActiveConsumerChanged(consumer.number, message.is_active)]
        if consumer is not None
        else []
    )


# A new leader


def on_record(edge: SessionClient, message: m.SessionRecord) -> list[Event]:
    """Compare what the log says with what is in hands here, and answer."""
    events: list[Event] = []
    attached = set(message.consumers)
    for key, attach in list(edge.consumers.items()):
        # Its answer may have come first, for it counts out of order: then this says nothing of it.
        if attach.number < message.next and key not in attached:
            events += on_cancelled(edge, m.Cancelled(key))
    events += _not_recognised(edge, message)
    channels = dict(message.getters)
    missing = []
    for token in _never_arrived(edge, message.tokens):
        if token.holder in channels:
            _await(edge, token.holder, channels[token.holder], message.next)
        if token.holder in edge.consumers or token.holder in edge.awaited:
            missing.append(token)  # mutant: R9b
        else:
            give_back(edge, [token])
    events += _resolve_gets(edge, message.next, {key: value for value, key in channels.items()})
    edge.answer = m.NeverArrived(missing)
    edge.unsent.append(edge.answer)
    return events


def _not_recognised(edge: SessionClient, message: m.SessionRecord) -> list[Event]:
    """What is in hands here, and not on record."""
    record = Unacked()
    for token in message.tokens:
        record.put(token)
    unknown = [token for held in edge.hands for token in record.rest(held)]
    return on_revoked(edge, m.Revoked(unknown))  # mutant: R15b


def _never_arrived(edge: SessionClient, tokens: list[m.Token]) -> list[m.Token]:
    """What is neither in hands, nor is its end under way."""
    ended, left = Unacked(), set()
    for operation in edge.pending:
        if isinstance(operation, m.Settle):
            for token in operation.tokens:
                ended.put(token)  # mutant: ST5
        elif isinstance(operation, m.Detach) and operation.outcome is not None:
            left.add(operation.holder)
    return [
        rest
        for token in tokens
        if token.holder not in left
        for not_in_hands in edge.hands.rest(token)
        for rest in ended.rest(not_in_hands)
    ]


def _await(edge: SessionClient, getter: Key, channel: int, next_number: int) -> None:
    """What a getter holds on record is for the get of its channel that is pending and done."""
    for operation in edge.pending:
        if (
            isinstance(operation, m.Get)
            and operation.channel == channel
            and operation.number < next_number
            and not operation.no_ack
        ):
            if edge.awaited is EMPTY_DICT:
                edge.awaited = {}
            edge.awaited[getter] = operation.number


def _resolve_gets(edge: SessionClient, next_number: int, getters: dict[int, Key]) -> list[Event]:
    """Gets that are done have got nothing, but for those whose message is on record."""
    events: list[Event] = []
    awaited = set(edge.awaited.values())
    for operation in list(edge.pending):
        if not isinstance(operation, m.Get) or operation.number in awaited:
            continue
        if operation.number < next_number:
            holder = getters.get(operation.channel)
            events += _got(edge, operation.number, holder, 0, None)
    return events


HEAR: Mapping[type[m.FromLeader], Callable[[SessionClient, Any], list[Event]]] = {
    m.Done: on_done,
    m.Rejected: on_not_taken,
    m.Answer: on_answer,
    m.Expected: on_expected,
    m.Deliver: on_deliver,
    m.GetAnswer: on_get_answer,
    m.Cancelled: on_cancelled,
    m.Revoked: on_revoked,
    m.SessionLost: on_session_lost,
    m.NotLeader: on_not_leader,
    m.SessionRecord: on_record,
    m.Backlog: on_owing,
    m.ActiveConsumerChanged: on_activity,
    m.DeliveryTimedOut: on_timed_out,
}
