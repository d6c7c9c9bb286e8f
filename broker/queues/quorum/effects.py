"""Effects of the leader of a quorum queue on its clients: the whole list.

An effect leaves when everything that it rests on is committed and applied, and never if the
leadership has ended before.  Operations are known by session and number; who repeats one gets
its outcome again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.delivery_counts import Counts
from fluffle.broker.queues.queue_api import DeliveryBatch
from fluffle.broker.queues.quorum.facts import Key, RemovalReason


@dataclass(slots=True)
class DoneEffect:
    """Operations are done: publishes are confirmed, whatever else was asked has happened."""

    session: Key
    first: int
    count: int


@dataclass(slots=True)
class RejectedEffect:
    """Publishes were refused, or settlements came too late to count: see
    `OperationsRejected`.  A purge, too, but that is not on record."""

    session: Key
    first: int
    count: int


@dataclass(slots=True)
class AnswerEffect:
    """An operation is done, and this is its answer."""

    session: Key
    number: int
    answer: int


@dataclass(slots=True)
class ExpectedEffect:
    """An operation came before those in front of it, and was not done; nor was any behind it."""

    session: Key
    number: int
    """The next one."""


@dataclass(slots=True)
class TimedOut:
    """Messages have gone back that were held for too long.  A consumer gets nothing more."""

    session: Key
    holder: Key
    tokens: list[tuple[int, range]]
    """Messages as ordinals and runs; none if they were settled in the meantime."""
    held_ms: int
    timeout_ms: int


@dataclass(slots=True)
class Delivery:
    """Messages are in a consumer's hands."""

    session: Key
    holder: Key
    delivery_batch: DeliveryBatch
    """With the counts that make its tokens, and the contents."""


@dataclass(slots=True)
class GetResult:
    """Result of a basic.get."""

    session: Key
    number: int
    holder: Key
    delivery_batch: DeliveryBatch | None
    """None: there was nothing."""


@dataclass(slots=True)
class Withdrawn:
    """End of a consumer or getter that its client has not asked for."""

    session: Key
    holder: Key
    tokens: list[tuple[int, range]]
    """Messages that it held, as pairs of delivery ordinal and run of sequence numbers."""
    is_replaced: bool = False
    """True if its client has come over another connection, so that nobody waits for this one."""


@dataclass(slots=True)
class ActiveConsumerEffect:
    """A consumer alone is served from now on, or another is."""

    session: Key
    holder: Key
    is_active: bool


Effect: TypeAlias = (
    DoneEffect
    | RejectedEffect
    | AnswerEffect
    | ExpectedEffect
    | Delivery
    | GetResult
    | Withdrawn
    | TimedOut
    | ActiveConsumerEffect
)
"""Effect that reaches a client."""


@dataclass(slots=True)
class Dead:
    """Messages are on record as dead, and are to be republished.  For no client."""

    reason: RemovalReason
    time_ms: int
    counts: Counts
    """Delivery counts of each of them."""
    run: range
    origins: list[Origin]
    """None at all if the messages have to be read."""
    contents: list[bytes]
    must_arrive: bool = False
    """See `DeadLetterOutbox`."""
