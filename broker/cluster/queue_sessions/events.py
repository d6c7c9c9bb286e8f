"""Events of a session for the channels it serves.

A message of the leader that says all is an event itself: `GetAnswer`, `RevokeNotice`, `NotLeader`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from fluffle.broker.queues.quorum.facts import Key
from fluffle.broker.queues.quorum.messages import Deliver, GetAnswer, NotLeader, RevokeNotice, Token


@dataclass(slots=True)
class PublishConfirmed:
    """Publishes are enqueued, on a majority of disks."""

    first: int
    count: int


@dataclass(slots=True)
class PublishRejected:
    """Publishes that were refused, or whose outcome is unknown: they are nacked."""

    first: int
    count: int


@dataclass(slots=True)
class PublishUndecided:
    """Publishes had no outcome when the queue was deleted.  They have gone with it, or have come
    later, and maybe for another queue of its name."""

    first: int
    count: int


@dataclass(slots=True)
class SettlementsDone:
    """Settlements, returns and detachments are done, or there is nothing left of their cause."""

    first: int
    count: int


@dataclass(slots=True)
class Attached:
    """A consumer has its key; it is known to its channel by the number with which it was asked."""

    consumer: int
    holder: Key


@dataclass(slots=True)
class AttachRejected:
    """A consumer was refused: the queue is in exclusive use, or was not to be shared with it."""

    consumer: int


@dataclass(slots=True)
class PurgeDone:
    """A purge is done."""

    number: int
    count: int


@dataclass(slots=True)
class MessagesDelivered:
    """Messages for a client.  Of a consumer that acknowledges, they are in its hands now."""

    consumer: int
    deliver: Deliver


@dataclass(slots=True)
class PurgeRejected:
    """A purge is refused: the queue is becoming one of another type."""

    number: int


@dataclass(slots=True)
class AnswerLost:
    """A get or a purge whose outcome is unknown for ever."""

    number: int


@dataclass(slots=True)
class SettleFailed:
    """Settlements that came too late: the delivery was over, or its outcome is unknown."""

    number: int


@dataclass(slots=True)
class ConsumerCancelled:
    """A consumer is not there any more: nothing more comes for it."""

    consumer: int


@dataclass(slots=True)
class BacklogReduced:
    """Messages delivered of those put into a queue that is behind."""

    count: int


@dataclass(slots=True)
class ActiveConsumerChanged:
    """A consumer alone is served from now on, or another is."""

    consumer: int
    is_active: bool


@dataclass(slots=True)
class DeliveryTimedOut:
    """Messages have been taken from a holder that had them for too long; a consumer is not there
    any more."""

    consumer: int
    """0 if it is no consumer, or was gone before."""
    tokens: list[Token]
    """Messages that it held, maybe none; they are not held any more."""
    holder: Key
    held_ms: int
    timeout_ms: int


Event: TypeAlias = (
    PublishConfirmed
    | PublishRejected
    | PublishUndecided
    | SettlementsDone
    | Attached
    | AttachRejected
    | PurgeDone
    | MessagesDelivered
    | GetAnswer
    | PurgeRejected
    | AnswerLost
    | SettleFailed
    | ConsumerCancelled
    | RevokeNotice
    | NotLeader
    | BacklogReduced
    | ActiveConsumerChanged
    | DeliveryTimedOut
)
