"""Events that the clients of a broker in trouble write down, in one list.

What is said is written down before it is sent, what is heard after it was read.  So an event that
stands before another also happened before it, whichever client wrote it: the checker needs no
clock. But what was *sent* to a client before something else may be read after it.  Only after an
answer it is certain: what comes after that on the same channel was sent after the question.

A *client* is one connection and a *channel* one channel of it; both names are used once in the
whole history.  A *run* is the life of one process, where there is only one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, NamedTuple, TypeAlias, get_args


class MessageId(NamedTuple):
    """Publisher and number of a message: the order of publishing, too."""

    publisher: str
    number: int

    def __str__(self) -> str:
        return f"{self.publisher}/{self.number}"


class Connected(NamedTuple):
    client: str
    node: str


class Published(NamedTuple):
    """Sent, perhaps in a transaction, which is confirmed by its end."""

    message: MessageId
    queues: tuple[str, ...]
    """Where it goes if everything is as it was answered."""
    persistent: bool = True


class Confirmed(NamedTuple):
    message: MessageId


class Refused(NamedTuple):
    """Message that the broker refused by basic.nack: it may be in some of its queues, or in
    none."""

    message: MessageId


class Returned(NamedTuple):
    """Message that the broker returned as unroutable."""

    message: MessageId


class Received(NamedTuple):
    channel: str
    queue: str
    message: MessageId
    redelivered: bool
    in_vain: int | None = None
    """How often it was delivered in vain before, where the broker says so."""


class Acked(NamedTuple):
    """Acknowledged, or rejected for good."""

    channel: str
    queue: str
    message: MessageId


class Requeued(NamedTuple):
    channel: str
    queue: str
    message: MessageId


class Asked(NamedTuple):
    """The channel waits for a synchronous reply from now on."""

    channel: str


class Vouched(NamedTuple):
    """The reply came: what was acknowledged on this channel before it was asked is safe."""

    channel: str


class Closing(NamedTuple):
    """The channel will be closed: what is in its hands may be handed to others from now on."""

    channel: str


class Ended(NamedTuple):
    """The channel is no more, for its client: its connection broke, or he gave it up."""

    channel: str
    why: str


class Complained(NamedTuple):
    """The broker closed a channel or a connection, and said why."""

    client: str
    what: str


class Clearing(Enum):
    """How a queue loses all it holds."""

    PURGE = auto()
    """Purge of the ready messages.  Only the consumer may ask for it."""
    DELETE = auto()


class ClearingAsked(NamedTuple):
    queue: str
    how: Clearing


class ClearingDone(NamedTuple):
    queue: str
    how: Clearing


class DeclareAsked(NamedTuple):
    queue: str


class Declared(NamedTuple):
    queue: str


class Homed(NamedTuple):
    """The queue lives on one of several nodes, which confirms what it has without the others."""

    queue: str


class Looked(NamedTuple):
    """A passive declare was answered."""

    queue: str
    found: bool


class ShortLived(NamedTuple):
    """The queue is there for a while only: how long it takes nothing is not measured."""

    queue: str


class Operation(Enum):
    """A question of a client about a *thing*: a queue, or a binding."""

    DECLARE = auto()
    """Declare or bind.  A client that is answered knows that it is there."""
    DELETE = auto()
    """Delete or unbind.  A client that is answered knows that it is not there."""
    LOOK = auto()
    """A passive declare, or a publish that comes back if the thing is not there."""


class Invoked(NamedTuple):
    """A client asks.  It asks nothing else before it has an answer, or has given up."""

    client: str
    thing: str
    operation: Operation


class Answered(NamedTuple):
    client: str
    thing: str
    found: bool
    """True if the thing is there, by this answer."""


class Abandoned(NamedTuple):
    """End without an answer, or with an error: the request may be done, now or later, or never."""

    client: str
    thing: str


class Owned(NamedTuple):
    """A client declares an exclusive queue, and may hang up before it has an answer."""

    queue: str
    client: str


class Locked(NamedTuple):
    """Another client hears that an exclusive queue is there."""

    queue: str


class GraceOver(NamedTuple):
    """All has been well for so long that nothing is left of a connection that has ended."""


class RunEnded(NamedTuple):
    """All nodes are gone at the same time, and every client knows it."""


class Isolated(NamedTuple):
    """No byte goes between this node and the others any more."""

    node: str


class Rejoined(NamedTuple):
    """End of a partition: the nodes will talk again."""

    node: str


class PutBack(NamedTuple):
    """The disk of this node, which does not run, is what it was earlier."""

    node: str


class TurnedAway(NamedTuple):
    """The node was not let in with that disk, and will come back with another."""

    node: str


class Joining(NamedTuple):
    """A node without data is started, and has to join the cluster by itself."""

    node: str


class Joined(NamedTuple):
    """The others have it as one of theirs."""

    node: str


class Fault(NamedTuple):
    """Beginning or end of a fault of the system; `what` is used once."""

    what: str
    is_over: bool = False


class Strange(NamedTuple):
    """A client received what no client should receive."""

    what: str


Event: TypeAlias = (
    Connected
    | Published
    | Confirmed
    | Refused
    | Returned
    | Received
    | Acked
    | Requeued
    | Asked
    | Vouched
    | Closing
    | Ended
    | Complained
    | ClearingAsked
    | ClearingDone
    | DeclareAsked
    | Declared
    | Homed
    | Looked
    | ShortLived
    | Invoked
    | Answered
    | Abandoned
    | Owned
    | Locked
    | GraceOver
    | RunEnded
    | Isolated
    | Rejoined
    | PutBack
    | TurnedAway
    | Joining
    | Joined
    | Fault
    | Strange
)

Note: TypeAlias = Callable[[Event], None]
"""Writes an event down."""


def to_line(at_ns: int, event: Event) -> str:
    """Return a line of a history file: `[12345678, "Confirmed", ["publisher", 7]]`."""
    fields = (field.name if isinstance(field, Enum) else field for field in event)
    return json.dumps([at_ns, type(event).__name__, *fields])


def from_line(line: str | bytes) -> tuple[int, Event]:
    """Parse a line of a history file.  ValueError, KeyError or TypeError for what is no such
    line."""
    at_ns, name, *values = json.loads(line)
    cls = KINDS[name]
    fields = (FIELDS.get(field, lambda value: value) for field in cls._fields)
    event: Event = cls(*(read(value) for read, value in zip(fields, values, strict=False)))
    return int(at_ns), event


KINDS: dict[str, Any] = {cls.__name__: cls for cls in get_args(Event)}
FIELDS: dict[str, Callable[[Any], Any]] = {
    "message": lambda value: MessageId(*value),
    "queues": tuple,
    "how": lambda value: Clearing[value],
    "operation": lambda value: Operation[value],
}
"""Decoders of fields that JSON has no type for, by name."""
