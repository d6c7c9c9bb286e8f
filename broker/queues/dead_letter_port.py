"""Messages that die in a queue: they are dropped, or handed to whoever republishes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.journal import Journal
from fluffle.broker.queues.pending_dead_letter import PendingDeadLetter
from fluffle.broker.queues.queue_api import DeadLetterIds
from fluffle.broker.queues.segment import TakenMessages
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

Bury: TypeAlias = Callable[[DeathReason, TakenMessages], None]
"""Is given what has died in front of a queue, and why."""


class AtMostOnceDeadLettering:
    """Dead-lettering of a queue whose journal, if it has one, is notified and not asked."""

    __slots__ = ("_dead_letter", "_journal", "_name", "settings")

    def __init__(
        self,
        name: str,
        settings: QueueSettings,
        journal: Journal | None,
        dead_letter: RepublishDeadLetters | None,
    ) -> None:
        """`dead_letter` is None where nobody republishes what has died."""
        self._name = name
        self._journal = journal
        self._dead_letter = dead_letter
        self.settings = settings
        """They say where the dead go, if they do."""

    @property
    def are_wanted(self) -> bool:
        """Whether somebody wants the dead."""
        return self._dead_letter is not None and self.settings.dead_letter_exchange is not None

    def bury(self, reason: DeathReason, taken: TakenMessages) -> None:
        """Messages that nobody held are dead: see `Bury`."""
        if taken.is_recorded and self._journal is not None:
            if taken.contents:
                self._journal.settled(taken.sequences)
            else:
                self._journal.discarded(taken.sequences[0], taken.sequences[-1] + 1)
        if self.are_wanted:
            self.hand_on(reason, taken.origins, taken.contents)
        else:
            self._count(reason, taken.count)

    def hand_on(self, reason: DeathReason, origins: list[Origin], contents: list[bytes]) -> None:
        """Messages are dead, and the journal knows."""
        if self._dead_letter is not None and self.are_wanted:
            died = DeadMessages(reason, origins, contents)
            self._dead_letter(self._name, self.settings, died)
        else:
            self._count(reason, len(contents))

    def _count(self, reason: DeathReason, count: int) -> None:
        if self._dead_letter is not None:
            died = DeadMessages(reason, [], [], unwanted=count)
            self._dead_letter(self._name, self.settings, died)
