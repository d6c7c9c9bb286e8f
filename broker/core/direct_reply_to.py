"""Direct reply-to: answers that go straight to the channel that asked, past any queue.

A requester consumes from the pseudo-queue `amq.rabbitmq.reply-to`; its requests carry a name
made for its channel; a message to the default exchange with that name as routing key
reaches it, on whatever node of the cluster that is.  Nothing is kept: an answer to a channel that
is gone is dropped, and counts as routed (RabbitMQ since 4.2).  So is one to a connection that does
not read, once there is much that it has not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.publish_target import BlockedPublisher, EnqueueResult
from fluffle.broker.queues.queue_api import Deferred, DeliveryBatch, Holder
from fluffle.protocol.spec import DIRECT_REPLY_TO

PREFIX = DIRECT_REPLY_TO + "."

UNREAD_BYTES_MAX = 16 * 1_048_576
"""Answers are sent to a connection whose socket is full until they are so many; the last, which may
be of any size, goes beyond."""


class ReplyInbox:
    """Where the answers to one connection go: its socket, as far as responders must know it."""

    __slots__ = ("_unread_bytes", "is_full")

    def __init__(self) -> None:
        self.is_full = False
        """True if the socket does not drain: the client reads more slowly than it is answered."""
        self._unread_bytes = 0

    def filled(self) -> None:
        """The socket takes no more."""
        self.is_full = True

    def drained(self) -> None:
        """The client has read what was sent."""
        self.is_full = False
        self._unread_bytes = 0

    def takes(self, size_bytes: int) -> bool:
        """True if so much may be sent; if not, it is dropped."""
        if self.is_full:
            if self._unread_bytes > UNREAD_BYTES_MAX:
                return False
            self._unread_bytes += size_bytes
        return True


class ReplyTarget:
    """Where messages for one requester go: a target of publishing, as a queue is."""

    __slots__ = ("_inbox", "_requester", "blocked_publishers", "name")

    def __init__(self, name: str, requester: Holder | None, inbox: ReplyInbox) -> None:
        self.name = name
        self._requester = requester
        self._inbox = inbox
        self.blocked_publishers: list[BlockedPublisher] = []
        """Publishers that wait for their time to be up: nothing is kept here that could be
        delivered."""

    @property
    def is_behind(self) -> bool:
        """True if the requester reads more slowly than it is answered."""
        return self._requester is not None and self._inbox.is_full

    @property
    def is_full(self) -> bool:
        """Answers beyond that are dropped."""
        return False

    def enqueue(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool,
        expiration_ms: Lifetimes = None,
    ) -> EnqueueResult:
        """Deliver at once, or drop when the requester is gone or does not read."""
        del persistent, expiration_ms  # nothing is kept
        requester = self._requester
        if requester is not None and self._inbox.takes(content_bytes):
            sequences: Sequence[int] = range(1, len(contents) + 1)
            requester.deliver(
                DeliveryBatch(requester, origins, contents, sequences, redelivered=False)
            )
        return EnqueueResult.ACCEPTED


class RemoteRequesters(Protocol):
    """The requesters of other nodes."""

    @property
    def mark(self) -> str:
        """How names end that are given here."""

    def requester(self, name: str) -> Holder | None:
        """Holder for the requester of that name, connected or not; None if only this node could
        have it."""

    def is_there(self, name: str) -> bool | Deferred[bool]:
        """True if it is."""


class NoRemoteRequesters:
    """Requesters of other nodes, where there are none."""

    mark = ""

    def requester(self, name: str) -> Holder | None:
        del name
        return None

    def is_there(self, name: str) -> bool:
        del name
        return False


class ReplyTargets:
    """The requesters of a node by the name they were given, and the way to those of others."""

    __slots__ = ("_targets", "elsewhere")

    def __init__(self) -> None:
        self._targets: dict[str, ReplyTarget] = {}
        self.elsewhere: RemoteRequesters = NoRemoteRequesters()

    def new_name(self, random: str) -> str:
        """Name for a requester of this node; other nodes find this one by it."""
        mark = self.elsewhere.mark
        return f"{PREFIX}{random}.{mark}" if mark else PREFIX + random

    def add(self, name: str, requester: Holder, inbox: ReplyInbox) -> None:
        """Make `name`, which begins with PREFIX, reach `requester` on the way through `inbox`."""
        self._targets[name] = ReplyTarget(name, requester, inbox)

    def remove(self, name: str) -> None:
        """Make `name` unroutable; remembered routes end, too."""
        target = self._targets.pop(name, None)
        if target is not None:
            target._requester = None

    def target(self, name: str) -> ReplyTarget:
        """Target of messages to `name`; it drops them when there is no requester."""
        found = self._targets.get(name)
        return found or ReplyTarget(name, self.elsewhere.requester(name), ReplyInbox())

    def is_alive(self, name: str) -> bool | Deferred[bool]:
        """True if a requester of that name is there, on any node."""
        return self.has(name) or self.elsewhere.is_there(name)

    # What other nodes tell and ask

    def has(self, name: str) -> bool:
        """True if it is one of this node."""
        return name in self._targets

    def deliver_reply(self, name: str, origins: list[Origin], contents: list[bytes]) -> None:
        """Deliver to one of this node, if it is there."""
        target = self._targets.get(name)
        if target is not None:
            target.enqueue(origins, contents, sum(map(len, contents)), persistent=False)
