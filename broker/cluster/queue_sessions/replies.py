"""Handlers of the leader's messages in a session client: one function a message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.cluster.queue_sessions import events as happened
from fluffle.broker.cluster.queue_sessions.events import Event
from fluffle.broker.cluster.queue_sessions.session_client import (
    FRAMES_UNREPORTED_MAX,
    HeldTokens,
    SessionClient,
)
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.facts import NO_HOLDER, Key

COMMITTED = (m.DoneReply, m.RejectedReply, m.AnswerReply)
"""Replies that count from any leader, and however late: they are in the log."""


def apply_frame(session: SessionClient, frame: m.LeaderFrame) -> list[Event]:
    """Take a frame of a node that leads, has led, or does not lead: what events it gives."""
    addressed = (frame.group, frame.receiver, frame.session)
    if addressed != (session.group, session.boot, session.counter):  # mutant: ST9
        return []
    is_of_epoch = (frame.term, frame.leadership) == session.leader_epoch  # mutant: R15a ST3
    is_next = is_of_epoch and frame.number == session.received + 1  # mutant: ST2
    if is_next:
        session.received += 1
        if session.received - session.reported >= FRAMES_UNREPORTED_MAX:
            session.owes_report = True
    is_taken = is_next or (is_of_epoch and (frame.number, frame.opening) == (0, session.opening))
    if is_taken:
        session.is_remembered = False
    events: list[Event] = []
    for message in frame.messages:
        if is_taken or isinstance(message, COMMITTED):
            events += REPLY_HANDLERS[type(message)](session, message)
    return events


# Outcomes


def on_done(session: SessionClient, message: m.DoneReply) -> list[Event]:
    kinds = (m.Publish, m.Settle, m.Detach)
    known = session.pending.of_kinds(message.first, message.count, kinds)
    events: list[Event] = []
    for operation, first, count in known:
        if isinstance(operation, m.Publish):
            events.append(happened.PublishConfirmed(first, count))
            continue
        events.append(happened.SettlementsDone(first, count))
        if (
            isinstance(operation, m.Detach)
            and (left := session.forget(operation.holder)) is not None
        ):
            events.append(happened.ConsumerCancelled(left.number))
    return events


def on_rejected(session: SessionClient, message: m.RejectedReply) -> list[Event]:
    """Events for refused operations.  A refused settlement that was believed done is reported; a
    detachment stands for a purge that was given up."""
    events: list[Event] = []
    kinds = (m.Publish, m.Settle, m.Purge, m.Detach)
    for operation, first, count in session.pending.of_kinds(message.first, message.count, kinds):
        match operation:
            case m.Publish():
                events.append(happened.PublishRejected(first, count))
            case m.Purge():
                events.append(happened.PurgeRejected(first))
            case m.Settle():
                events += [happened.SettleFailed(first), happened.SettlementsDone(first, count)]
            case _:
                events.append(happened.SettlementsDone(first, count))
    return events


def on_answer(session: SessionClient, message: m.AnswerReply) -> list[Event]:
    kinds = (m.Attach, m.Purge, m.Detach)
    for operation, number, _ in session.pending.of_kinds(message.number, 1, kinds):
        if isinstance(operation, m.Detach):
            return [
                happened.SettlementsDone(number, 1)
            ]  # in the place of a purge that was given up
        if not isinstance(operation, m.Attach):
            return [happened.PurgeDone(number, message.answer)]
        if message.answer == m.IN_EXCLUSIVE_USE:
            del session.credits[number]
            is_wanted = number not in session.unwanted
            session.unwanted.pop(number, None)
            return [happened.AttachRejected(number)] if is_wanted else []
        if number in session.unwanted:
            session.unwanted.pop(number, None)
            session.credits.pop(number)
            session.leave(message.answer, Outcome.UNSENT)
            return []
        session.know(message.answer, operation)
        return [happened.Attached(number, message.answer)]
    return []


def on_expected(session: SessionClient, message: m.ExpectedReply) -> list[Event]:
    others = [each for each in session.unsent if not isinstance(each, m.Operation)]
    session.unsent = [*others, *session.pending.from_number(message.number)]
    session.deferrable = 0
    return []


# Messages


def on_deliver(session: SessionClient, message: m.Deliver) -> list[Event]:
    consumer = session.consumers.get(message.holder)
    if consumer is not None and not consumer.no_ack:
        session.keep(message)
        return [happened.MessagesDelivered(consumer.number, message)]
    session.owes_report = True
    if consumer is not None:
        return [happened.MessagesDelivered(consumer.number, message)]
    number = session.awaited.pop(message.holder, None)
    if number is not None:
        return _got(session, m.GetAnswer(number, message.holder, 0, [message]))
    give_back(session, m.tokens_of(message))
    return []


def on_get_answer(session: SessionClient, message: m.GetAnswer) -> list[Event]:
    session.owes_report = True
    return _got(session, message)


def _got(session: SessionClient, answer: m.GetAnswer) -> list[Event]:
    """A get is done; it has `NO_HOLDER` if that was taken from its channel since.

    If it was given up, another operation stands in its place, or stood there.
    """
    known = session.pending.of_kinds(answer.number, 1, (m.Get, m.Detach))
    if known and isinstance(operation := known[0].operation, m.Get):
        if answer.holder != NO_HOLDER:
            if session.getters is EMPTY_DICT:
                session.getters = {}
            session.getters[operation.channel] = answer.holder
        for deliver in () if operation.no_ack else answer.delivers:
            session.keep(deliver)
        return [answer]
    for deliver in answer.delivers:
        give_back(session, m.tokens_of(deliver))
    return [happened.SettlementsDone(first, count) for _, first, count in known]


def give_back(session: SessionClient, tokens: list[m.Token]) -> None:
    """Return messages at once whose receiver is gone, without counting a failed delivery."""
    if tokens:  # mutant: R9c
        session.ask(m.Settle(session.pending.next, Outcome.UNSENT, tokens))


# What is gone


def on_cancelled(session: SessionClient, message: m.CancelNotice) -> list[Event]:
    consumer = session.forget(message.holder)
    session.getters = {
        channel: key for channel, key in session.getters.items() if key != message.holder
    }
    awaited = session.awaited.pop(message.holder, None)
    if awaited is not None:
        return _got(session, m.GetAnswer(awaited, NO_HOLDER, 0, []))
    return [happened.ConsumerCancelled(consumer.number)] if consumer is not None else []


def on_revoked(session: SessionClient, message: m.RevokeNotice) -> list[Event]:
    revoked = session.unacked.take(message.tokens)
    return [m.RevokeNotice(revoked)] if revoked else []


def on_timed_out(session: SessionClient, message: m.TimeoutNotice) -> list[Event]:
    """Events for deliveries that timed out, among them those settled just before: these settlements
    came too late."""
    consumer = session.forget(message.holder)
    number = consumer.number if consumer is not None else 0
    revoked = session.unacked.take(message.tokens)
    timed_out = happened.DeliveryTimedOut(
        number, revoked, message.holder, message.held_ms, message.timeout_ms
    )
    return [m.RevokeNotice(revoked), timed_out] if revoked else [timed_out]


def on_session_lost(session: SessionClient, _message: m.SessionLost) -> list[Event]:
    return session.lost()


def on_not_leader(session: SessionClient, message: m.NotLeader) -> list[Event]:
    session.connect(None)
    return [message]


# A queue that is behind


def on_backlog(session: SessionClient, message: m.Backlog) -> list[Event]:
    paid = session.backlog - message.count
    session.backlog = message.count
    return [happened.BacklogReduced(paid)] if paid > 0 else []


def on_activity(session: SessionClient, message: m.ActiveConsumerNotice) -> list[Event]:
    consumer = session.consumers.get(message.holder)
    return (
        [happened.ActiveConsumerChanged(consumer.number, message.is_active)]
        if consumer is not None
        else []
    )


# A new leader


def on_record(session: SessionClient, message: m.SessionRecord) -> list[Event]:
    """Compare what the log says with what is in hands here, and answer."""
    events: list[Event] = []
    attached = set(message.consumers)
    for key, attach in list(session.consumers.items()):
        # Its answer may have come first, for it counts out of order: then this says nothing of it.
        if attach.number < message.next and key not in attached:
            events += on_cancelled(session, m.CancelNotice(key))
    events += _not_recognised(session, message)
    channels = dict(message.getters)
    missing = []
    for token in _never_arrived(session, message.tokens):
        if token.holder in channels:
            _await(session, token.holder, channels[token.holder], message.next)
        if token.holder in session.consumers or token.holder in session.awaited:
            missing.append(token)  # mutant: R9b
        else:
            give_back(session, [token])
    events += _resolve_gets(session, message.next, {key: value for value, key in channels.items()})
    session.answer = m.NeverArrived(missing)
    session.unsent.append(session.answer)
    return events


def _not_recognised(session: SessionClient, message: m.SessionRecord) -> list[Event]:
    """Revoke what is held here and not on record."""
    record = HeldTokens()
    for token in message.tokens:
        record.put(token)
    unknown = [token for held in session.unacked for token in record.rest(held)]
    return on_revoked(session, m.RevokeNotice(unknown))  # mutant: R15b


def _never_arrived(session: SessionClient, tokens: list[m.Token]) -> list[m.Token]:
    """Tokens that are neither held nor being settled."""
    ended, left = HeldTokens(), set()
    for operation in session.pending:
        if isinstance(operation, m.Settle):
            for token in operation.tokens:
                ended.put(token)  # mutant: ST5
        elif isinstance(operation, m.Detach) and operation.outcome is not None:
            left.add(operation.holder)
    return [
        rest
        for token in tokens
        if token.holder not in left
        for not_in_hands in session.unacked.rest(token)
        for rest in ended.rest(not_in_hands)
    ]


def _await(session: SessionClient, getter: Key, channel: int, next_number: int) -> None:
    """Match what a getter holds on record with the pending get of its channel."""
    for operation in session.pending:
        if (
            isinstance(operation, m.Get)
            and operation.channel == channel
            and operation.number < next_number
            and not operation.no_ack
        ):
            if session.awaited is EMPTY_DICT:
                session.awaited = {}
            session.awaited[getter] = operation.number


def _resolve_gets(session: SessionClient, next_number: int, getters: dict[int, Key]) -> list[Event]:
    """Gets that are done have got nothing, but for those whose message is on record."""
    events: list[Event] = []
    awaited = set(session.awaited.values())
    for operation in list(session.pending):
        if not isinstance(operation, m.Get) or operation.number in awaited:
            continue
        if operation.number < next_number:
            holder = getters.get(operation.channel, NO_HOLDER)
            events += _got(session, m.GetAnswer(operation.number, holder, 0, []))
    return events


REPLY_HANDLERS: Mapping[type[m.FromLeader], Callable[[SessionClient, Any], list[Event]]] = {
    m.DoneReply: on_done,
    m.RejectedReply: on_rejected,
    m.AnswerReply: on_answer,
    m.ExpectedReply: on_expected,
    m.Deliver: on_deliver,
    m.GetAnswer: on_get_answer,
    m.CancelNotice: on_cancelled,
    m.RevokeNotice: on_revoked,
    m.SessionLost: on_session_lost,
    m.NotLeader: on_not_leader,
    m.SessionRecord: on_record,
    m.Backlog: on_backlog,
    m.ActiveConsumerNotice: on_activity,
    m.TimeoutNotice: on_timed_out,
}
