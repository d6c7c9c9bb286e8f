"""Messages between a session client and the leader of a queue.

A **client node** is one that serves clients of the queue.  It has one **session** with the queue,
in which each request that changes something, an operation, has a number.  Publishes of a run have
consecutive ones.

    client node --> leader    operations, in order; to each leader until their outcome is known
    leader --> client node    frames, numbered from 1 in each leadership, until they have arrived

A **leadership** is known by its term and its number in it: a leader of a whole term may have to
begin anew within it, with nothing but what is on record.

Whenever the client node begins to talk to a leader, or a link was opened again, that is an
**opening**, with a number that rises for the whole life of the client node's process.  Frames of
earlier openings are late, and dropped.

An `Effect` of the leader is a message for one of its sessions: what it decides is what it sends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, NewType, TypeAlias

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.publish_target import DeadLetterIds
from fluffle.broker.queues.queue_api import DeliveryBatch, Outcome
from fluffle.broker.queues.quorum.facts import Key, SessionId
from fluffle.broker.queues.quorum.runs import runs_of

MESSAGES_MAX = 1 << 16
"""In one message of ours: their origins are made one by one before there is anything of them."""

IN_EXCLUSIVE_USE = 0
"""The answer to a consumer that is not attached, for it or another would be alone.  No key."""


Signed = NewType("Signed", int)
"""Signed number of 64 bits; other numbers are not below zero."""


class SessionBoot(NamedTuple):
    """The boot of a node, as sessions name it."""

    counter: int
    nonce: int


class Token(NamedTuple):
    """Messages in one holder's hands, by the hand-out that put them there."""

    holder: Key
    ordinal: int
    run: range


# From a client node


@dataclass(slots=True)
class Open:
    """An opening: operations follow from `first` on, the lowest whose outcome is not known."""

    first: int


@dataclass(slots=True)
class Publish:
    """Operations `number`, `number + 1` ... are a message each."""

    number: int
    origins: list[Origin]
    contents: list[bytes]
    is_persistent: bool
    """True if they are to outlive the process, if the queue does."""
    expiration_ms: Lifetimes = None
    """TTL in ms, at most."""
    dead_letter_ids: DeadLetterIds | None = None
    """Ids of the messages that are another queue's dead letters."""
    counts: Counts = NEW
    """Delivery counts that each message brings along."""


@dataclass(slots=True)
class Settle:
    """Hand-outs end: settled, or given back."""

    number: int
    outcome: Outcome
    tokens: list[Token]
    """All of one holder; at least one."""


@dataclass(slots=True)
class Attach:
    """A consumer; the answer is its key, or `IN_EXCLUSIVE_USE`."""

    number: int
    channel: int
    tag: str
    prefetch: int
    priority: Signed
    no_ack: bool
    is_exclusive: bool
    arguments: bytes


@dataclass(slots=True)
class Detach:
    """A consumer or getter gets nothing more; with an outcome, all that it holds comes back."""

    number: int
    holder: Key
    outcome: Outcome | None


@dataclass(slots=True)
class Get:
    """The next message for a channel, if there is one; it is answered by a `GetAnswer`."""

    number: int
    channel: int
    no_ack: bool


@dataclass(slots=True)
class Purge:
    """The answer is how many messages waited."""

    number: int


@dataclass(slots=True)
class Credit:
    """Limit of the messages that a consumer may hold, or that are on their way to it.  Never a
    delta."""

    holder: Key
    limit: int


@dataclass(slots=True)
class NeverArrived:
    """The answer to `SessionRecord`: what of it has never arrived."""

    missing: list[Token]


@dataclass(slots=True)
class Forget:
    """The client node wants nothing more of its sessions below this one: they are over."""

    below: int


# From a leader


@dataclass(slots=True)
class DoneReply:
    """Operations are done; if they were publishes, messages are confirmed."""

    first: int
    count: int


@dataclass(slots=True)
class RejectedReply:
    """Publishes were refused, settlements came too late to count, or a purge does so: the queue is
    becoming one of another type."""

    first: int
    count: int


@dataclass(slots=True)
class AnswerReply:
    """An operation is done, and this is its answer."""

    number: int
    answer: int


@dataclass(slots=True)
class ExpectedReply:
    """An operation came before those in front of it; this one is next."""

    number: int


@dataclass(slots=True)
class Deliver:
    """Messages are in a consumer's hands; of one that does not acknowledge, they are gone."""

    holder: Key
    ordinal: int
    failed: int
    """How often handing each of them out has failed."""
    redelivered: bool
    runs: list[range]
    origins: list[Origin]
    contents: list[bytes]
    """Content of each message, in the order of the runs; `origins` likewise."""


@dataclass(slots=True)
class GetAnswer:
    """A get is done."""

    number: int
    holder: Key
    """Holder of what this channel gets."""
    ready: int
    """How many messages were ready then."""
    delivers: list[Deliver]
    """Delivery of the message, or empty."""
    is_crashed: bool = False
    """True if there is none because the queue hands out nothing."""


@dataclass(slots=True)
class CancelNotice:
    """A consumer is there no more, and its client node has not asked for that."""

    holder: Key


@dataclass(slots=True)
class RevokeNotice:
    """Messages are in their holder's hands no more, and have gone back."""

    tokens: list[Token]


@dataclass(slots=True)
class SessionRecord:
    """The session as the leader's log records it, sent first in a leadership."""

    next: int
    """Operations below are done, and nothing more comes of them than what is said here."""
    consumers: list[Key]
    getters: list[tuple[Key, int]]
    """With their channels."""
    tokens: list[Token]
    """All that is held."""


@dataclass(slots=True)
class SessionLost:
    """The session existed and is lost: nothing of it is left, or ever comes back."""


@dataclass(slots=True)
class NotLeader:
    """Notice of the leader of the queue, from a node that does not or from the leader unasked."""

    term: int
    leader: str
    """Node that leads in that term; empty if not known."""
    leadership: int
    """The last one of that term, as far as is known."""


@dataclass(slots=True)
class Backlog:
    """Number of the client node's messages that wait in a queue which is behind."""

    count: int


@dataclass(slots=True)
class ActiveConsumerNotice:
    """A consumer alone is served from now on, or another is."""

    holder: Key
    is_active: bool


@dataclass(slots=True)
class TimeoutNotice:
    """Deliveries held for too long: they are requeued, and a consumer gets nothing more."""

    holder: Key
    tokens: list[Token]
    """Messages taken from the holder; none if they were settled in the meantime."""
    held_ms: int
    timeout_ms: int


FromClient: TypeAlias = (
    Open | Publish | Settle | Attach | Detach | Get | Purge | Credit | NeverArrived | Forget
)
Operation: TypeAlias = Publish | Settle | Attach | Detach | Get | Purge
"""Operation with a number; a `Publish` takes as many after it as it has messages."""
FromLeader: TypeAlias = (
    DoneReply
    | RejectedReply
    | AnswerReply
    | ExpectedReply
    | Deliver
    | GetAnswer
    | CancelNotice
    | RevokeNotice
    | SessionRecord
    | SessionLost
    | NotLeader
    | Backlog
    | ActiveConsumerNotice
    | TimeoutNotice
)


class Effect(NamedTuple):
    """Message of the leader for one of its sessions.

    It leaves when everything that it rests on is committed and applied, and never if the leadership
    has ended before.  Operations are known by session and number; one that is repeated gets its
    outcome again.
    """

    session: Key
    message: FromLeader


@dataclass(slots=True)
class ClientFrame:
    """From a client node to the leader of a group."""

    group: int
    term: int
    """In which the receiver leads, as far as the client node knows."""
    leadership: int
    sender: SessionBoot
    receiver: SessionBoot
    session: int
    """The sessions of one life of a client node are counted."""
    opening: int
    received: int
    """Number of the last frame received of this leadership; all before it have arrived."""
    known: int
    """The outcome of all operations below is known."""
    messages: list[FromClient]


def without_counts(frame: ClientFrame) -> ClientFrame:
    """Frame without delivery counts, for a peer whose version of links does not know them."""
    if not any(isinstance(each, Publish) and each.counts is not NEW for each in frame.messages):
        return frame
    messages: list[FromClient] = [
        replace(each, counts=NEW) if isinstance(each, Publish) else each for each in frame.messages
    ]
    return replace(frame, messages=messages)


@dataclass(slots=True)
class LeaderFrame:
    """From the leader of a group to a client node."""

    group: int
    term: int
    leadership: int
    sender: SessionBoot
    receiver: SessionBoot
    session: int
    opening: int
    number: int
    """From 1 in each leadership.  0: beside all others, and never repeated."""
    messages: list[FromLeader]


Frame: TypeAlias = ClientFrame | LeaderFrame


class Leader(NamedTuple):
    """Where frames of a client node go."""

    node: str
    boot: SessionBoot
    term: int
    leadership: int = 1
    """Leadership within that term, counted from 1."""

    @property
    def leader_epoch(self) -> tuple[int, int]:
        """Later ones are higher."""
        return self.term, self.leadership


def deliver_of(holder: Key, delivery_batch: DeliveryBatch) -> Deliver:
    """With lists of its own: those of the hand-out are emptied when it is settled."""
    return Deliver(
        holder,
        delivery_batch.counts.acquired,
        delivery_batch.counts.failed,
        delivery_batch.redelivered,
        runs_of(delivery_batch.sequences),
        delivery_batch.origins[:],
        delivery_batch.contents[:],
    )


def tokens_of(deliver: Deliver) -> list[Token]:
    """Tokens that a delivery gives its holder."""
    return [Token(deliver.holder, deliver.ordinal, run) for run in deliver.runs]


def reply_beside(asked: ClientFrame, own: SessionBoot, messages: list[FromLeader]) -> LeaderFrame:
    """Return a reply that is not repeated: a client without it asks again, over another link."""
    return LeaderFrame(
        group=asked.group,
        term=asked.term,
        leadership=asked.leadership,
        sender=own,
        receiver=asked.sender,
        session=asked.session,
        opening=asked.opening,
        number=0,
        messages=messages,
    )


def leader_notice(group: int, leader: Leader, session: SessionId) -> LeaderFrame:
    """Return the notice of the leader, for a client node with a session that may wait to be served.

    Its term is 0, as in every frame that names a leader and does not come from it; `leader.boot` is
    the boot of the node that sends it.
    """
    return LeaderFrame(
        group=group,
        term=0,
        leadership=0,
        sender=leader.boot,
        receiver=SessionBoot(session.boot, session.nonce),
        session=session.counter,
        opening=0,
        number=0,
        messages=[NotLeader(leader.term, leader.node, leader.leadership)],
    )


def not_leading(asked: ClientFrame, hint: Leader) -> LeaderFrame:
    """Return the reply of a node whose leadership is not the one addressed."""
    answer = NotLeader(hint.term, hint.node, hint.leadership)
    return reply_beside(asked, asked.receiver, [answer])
