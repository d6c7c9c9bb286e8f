"""Direct reply-to: answers that go straight to the channel that asked, past any queue.

A requester consumes from the pseudo-queue `amq.rabbitmq.reply-to`; its requests carry a name
made for its channel; whoever publishes to the default exchange with that name as routing key
reaches it.  Nothing is kept: an answer to a channel that is gone is dropped, and counts as
routed (RabbitMQ since 4.2).
"""

from __future__ import annotations

from collections.abc import Sequence

from fluffle.broker.message import Origin
from fluffle.broker.queues.engine import Debtor
from fluffle.broker.queues.handout import Handout, Holder
from fluffle.broker.server.properties import REPLY_TO

PREFIX = REPLY_TO + "."


class ReplyTarget:
    """Where messages for one requester go: a target of publishing, as a queue is."""

    __slots__ = ("_requester", "debtors")

    is_behind = False
    """Nothing ever waits here."""

    def __init__(self, requester: Holder | None) -> None:
        self._requester = requester
        self.debtors: list[Debtor] = []

    def enqueue(self, origin: Origin, contents: list[bytes], content_bytes: int) -> None:
        """Deliver at once, or drop when nobody asks any more."""
        requester = self._requester
        if requester is not None:
            sequences: Sequence[int] = range(1, len(contents) + 1)
            origins = [origin] * len(contents)
            requester.deliver(Handout(requester, origins, contents, sequences, redelivered=False))


class ReplyTargets:
    """The requesters of a node by the name they were given."""

    __slots__ = ("_targets",)

    def __init__(self) -> None:
        self._targets: dict[str, ReplyTarget] = {}

    def add(self, name: str, requester: Holder) -> None:
        """Make `name`, which begins with PREFIX, reach `requester`."""
        self._targets[name] = ReplyTarget(requester)

    def remove(self, name: str) -> None:
        """Make `name` reach nobody; routes that are remembered fall silent too."""
        target = self._targets.pop(name, None)
        if target is not None:
            target._requester = None

    def target(self, name: str) -> ReplyTarget:
        """Where messages to `name` go; nowhere when nobody is there."""
        return self._targets.get(name) or ReplyTarget(None)

    def is_alive(self, name: str) -> bool:
        return name in self._targets
