"""Clients of a led queue as their nodes know them: what they have asked for, and what they hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fluffle.broker.queues.quorum.entry_codec import decode, read_messages
from fluffle.broker.queues.quorum.facts import SessionId
from fluffle.broker.queues.quorum.leadership import Leadership


@dataclass
class Operation:
    """Request of a client node without an outcome so far."""

    ask: Callable[[Leadership, int, int], None]
    """(leadership, session, number)"""
    count: int = 1
    """How many numbers it takes."""
    contents: list[bytes] = field(default_factory=list)
    """Contents that it publishes."""
    acknowledges: bool | None = None
    """True if the consumer does that it attaches."""
    ends: set[tuple[int, int]] = field(default_factory=set)
    """Sequence numbers and ordinals of what it settles or gives back."""
    is_final: bool = False
    is_refusal: bool = False


@dataclass
class Hold:
    """A message in somebody's hands, as its edge knows it."""

    holder: int
    ordinal: int


@dataclass
class SessionClients:
    """A node with clients of the queue, and what they have heard."""

    id: SessionId
    next: int = 1
    pending: dict[int, Operation] = field(default_factory=dict)
    consumers: dict[int, bool] = field(default_factory=dict)
    """Acknowledgement mode of consumers, by key."""
    modes: dict[int, bool] = field(default_factory=dict)
    """The same, of consumers that have ended, too."""
    gets: dict[int, bool] = field(default_factory=dict)
    """Acknowledgement mode of gets, by number."""
    getters: set[int] = field(default_factory=set)
    """Keys."""
    holds: dict[int, Hold] = field(default_factory=dict)
    """Holds by sequence number."""
    is_cut: bool = False
    """Nothing comes through."""


def contents_of(entry: bytes) -> list[bytes]:
    return read_messages(entry).contents if decode(entry).enqueued is not None else []
