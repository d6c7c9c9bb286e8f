"""Session of a client that outlives its connection, and the packets that it is in the midst of."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

INCOMING, OUTGOING, SENT = "in", "out", "sent"
"""Stages of a packet that are kept: INCOMING, the broker has taken it from the client; OUTGOING,
the client has confirmed its receipt; SENT, it was sent to the client, which may have it or not."""

PACKETS_PER_PAGE = 64
"""Numbers that are kept in one fact: a client uses them in turn, so that a run of messages takes a
fact or two."""

PageName: TypeAlias = tuple[str, int]
"""Stage, and the place of a page among all numbers."""

PacketPage: TypeAlias = "dict[int, int | None]"
"""Packets of one stage whose numbers are neighbours, with what is kept of each; never changed, but
replaced by another."""


class ClientSession(NamedTuple):
    """Session of a client that outlives its connection."""

    user: str
    expiry_s: int
    """How long it lasts once its client has gone.  0: it lasts no longer than the connection, as
    its client asked for that, or a queue of it was deleted; if the client has gone, its protocol is
    about to delete it, with all that it has defined of it."""
    ended_at_ms: int
    """When that was, since 1970; 0 while the client is connected."""
    node: str
    """Node to which the client is connected, or was last."""
    record: bytes
    """Further state of the session, which only its protocol reads."""
    number: int = 0
    """Number that it was given when it began or came to its node, greater than the one before: what
    was asked for it under another is of another session, or is over."""


class DueWill(NamedTuple):
    """Message that a client has left to be published, since its connection has ended, and that may
    not be in its queues yet."""

    node: str
    """Node that is to publish it."""
    record: bytes
    """The message, which only its protocol reads."""


WillName: TypeAlias = tuple[str, str]
"""Client, and what tells this will from its others."""


def page_of(key: tuple[str | bytes, ...]) -> PageName:
    """Return the page of packets that the key of a fact names."""
    _vhost, _client_id, stage, place = key
    return str(stage), int(place)
