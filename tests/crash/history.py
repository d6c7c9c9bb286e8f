"""What the clients of a node that is killed again and again write down, in one list.

What is said is written down before it is sent, what is heard after it was read.  So an event that
stands before another also happened before it, whoever wrote it down: the checker needs no clock.
A *channel* is named once in the whole history; a *run* is the life of one process.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple, TypeAlias


class Message(NamedTuple):
    """Who published it, and the how manyeth it was of him: also the order."""

    publisher: str
    number: int


class Published(NamedTuple):
    """Sent, perhaps in a transaction, which is confirmed by its end."""

    message: Message
    queues: tuple[str, ...]
    """Where it goes if everything is as it was answered."""
    persistent: bool = True


class Confirmed(NamedTuple):
    message: Message


class Returned(NamedTuple):
    """As unroutable."""

    message: Message


class Received(NamedTuple):
    channel: str
    queue: str
    message: Message
    redelivered: bool


class Acked(NamedTuple):
    """Acknowledged, or rejected for good."""

    channel: str
    queue: str
    message: Message


class Requeued(NamedTuple):
    channel: str
    queue: str
    message: Message


class Vouched(NamedTuple):
    """A synchronous reply came on this channel: what was acknowledged on it before is safe."""

    channel: str


class Closing(NamedTuple):
    """The channel will be closed: what is in its hands may be handed to others from now on."""

    channel: str


class Clearing(Enum):
    """How a queue loses all it holds."""

    PURGE = auto()
    """Of what is in nobody's hands.  Only the one who consumes may ask for it."""
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


class Looked(NamedTuple):
    """A passive declare was answered."""

    queue: str
    found: bool


class RunEnded(NamedTuple):
    """The process is gone, and every client knows it."""


class Strange(NamedTuple):
    """A client heard what nobody should hear."""

    what: str


Event: TypeAlias = (
    Published
    | Confirmed
    | Returned
    | Received
    | Acked
    | Requeued
    | Vouched
    | Closing
    | ClearingAsked
    | ClearingDone
    | DeclareAsked
    | Declared
    | Looked
    | RunEnded
    | Strange
)
