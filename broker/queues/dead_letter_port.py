"""The port to whoever republishes what has died in a queue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.pending_dead_letter import PendingDeadLetter
from fluffle.broker.queues.queue_api import DeadLetterIds
from fluffle.broker.queues.settings import QueueSettings
from fluffle.protocol.deaths import DeathReason

Stamp: TypeAlias = Callable[[object, list[PendingDeadLetter]], DeadLetterIds | None]
"""What a queue, told apart from others as parcels do, is told of some that it is given."""


def do_nothing() -> None:
    """Of those that nobody keeps."""


def unstamped(_queue: object, _parcels: list[PendingDeadLetter]) -> None:
    """Nobody tries again but who does now."""


@dataclass(slots=True)
class DeadMessages:
    """Messages of one queue that have died together, in order; one origin a content."""

    reason: DeathReason
    origins: list[Origin]
    contents: list[bytes]
    time_ms: int | None = None
    """When, if it is on record."""
    counts: Counts = NEW
    """What each of them brings along to the next quorum queue."""
    queue_type: QueueType = QueueType.CLASSIC
    """Of the queue."""
    parcels: list[PendingDeadLetter] | None = None
    """Of those that must arrive, one each; None: they are to be published once, and that is all."""
    hasten: Callable[[], None] = do_nothing
    """Called when something has changed since they could not arrive."""
    stamp: Stamp = unstamped
    unwanted: int = 0
    """If there are none: so many have died of which nobody wants to know more."""


class RepublishDeadLetters(Protocol):
    """Publishes them where the settings of the queue say, and is done with them when it returns,
    but for parcels: those hear what becomes of them, maybe before."""

    def __call__(self, queue: str, settings: QueueSettings, dead: DeadMessages) -> None: ...


DeadLetterFrom: TypeAlias = Callable[[str, str, QueueSettings, DeadMessages], None]
"""A `RepublishDeadLetters` for queues of the virtual host with a name."""
