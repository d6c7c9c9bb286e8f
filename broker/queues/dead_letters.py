"""Dead letters: messages that die in a queue are dropped, or handed to what republishes them.

A `DeadMessages` is published once and forgotten, unless its messages must arrive: then each is a
`PendingDeadLetter`, which its queue keeps until every queue has it where it leads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, TypeAlias

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.journal import Journal
from fluffle.broker.queues.publish_target import DeadLetterIds
from fluffle.broker.queues.segment import TakenMessages
from fluffle.broker.queues.settings import QueueSettings
from fluffle.protocol.headers import DeathReason


class OnDeadLetterResult(Protocol):
    """Hears of a try whether the parcel has arrived, or must be tried again."""

    def __call__(self, *, is_there: bool) -> None: ...


NO_TARGETS: frozenset[object] = frozenset()
NO_SUCCESSORS: Mapping[object, object] = MappingProxyType({})


@dataclass(slots=True, eq=False)
class PendingDeadLetter:
    """Arrives once every queue has it where it leads, and one at least.

    It is kept until then, and tried again; where it is known to have arrived, or is sure to, it is
    not put again.
    Queues are distinguished by anything but their names: one that is made anew has nothing yet.
    """

    _on_result: OnDeadLetterResult
    """May be called before a try is over, and after the next has begun: queues may say something
    late.  Or never: then nothing is heard."""
    sequence: int = 0
    """Its number in its queue, if it has one there."""
    _awaited: frozenset[object] = field(default=NO_TARGETS, init=False)
    _sure: frozenset[object] = field(default=NO_TARGETS, init=False)
    """Targets that have the message and will confirm it, or end with this process."""
    _successors: Mapping[object, object] = field(default_factory=lambda: NO_SUCCESSORS, init=False)
    """Targets that replaced others of these before they confirmed, by the one replaced."""
    reached: frozenset[object] = NO_TARGETS
    """Targets known to have the message."""
    tries: int = 0
    doubt: int = 0
    """Confirmation that must arrive before the message can be let go; 0 if each try was
    routed."""
    is_refused: bool = False
    """True if this try is known to have failed."""

    def lead(self, queues: Iterable[object]) -> frozenset[object]:
        """Where it leads now: to which of them it has to be put with this try."""
        self.tries += 1
        self._awaited = frozenset(queues) - self.reached
        self.is_refused = False
        return self._awaited - self._sure

    def recorded(self, queue: object) -> None:
        """A queue has it, and says so by `known` once it is on disk."""
        self._sure |= {queue}

    def succeed(self, successor: object, queue: object) -> None:
        """A queue has taken the place of another, with its messages."""
        if queue in self.reached:
            self.reached |= {successor}
        elif queue in self._sure:
            self._sure |= {successor}
            self._successors = {**self._successors, queue: successor}

    @property
    def is_there(self) -> bool:
        """Nothing is missing, by where it leads now; what leads nowhere has not arrived."""
        return bool(self.reached) and not self._awaited

    def known(self, queue: object, *, is_accepted: bool) -> bool:
        """A queue has it, or has it not; of whatever try that was.  Whether it arrives so.

        What it says is true of its successor."""
        while queue in self._successors:
            queue = self._successors[queue]
        was_there = self.is_there
        if is_accepted:  # mutant: R14e
            self.reached |= {queue}
            self._awaited -= {queue}
        elif queue in self._awaited:
            self._refuse()
        if was_there or not self.is_there:
            return False
        self._on_result(is_there=True)
        return True

    @property
    def leads_nowhere(self) -> bool:
        return not (self._awaited or self.reached)

    def finish(self) -> None:
        """Nothing more is put anywhere with this try."""
        if self.is_there:
            self._on_result(is_there=True)
        elif self.leads_nowhere:
            self._refuse()

    def let_go(self) -> None:
        """Give the message up: it is routed nowhere and need not arrive."""
        self._on_result(is_there=True)

    def _refuse(self) -> None:
        if not self.is_refused:
            self.is_refused = True
            self._on_result(is_there=False)


DeadLetterIdsFor: TypeAlias = Callable[[object, list[PendingDeadLetter]], DeadLetterIds | None]
"""Gives the ids by which a queue recognizes some dead letters that come again, if it does."""


def do_nothing() -> None:
    """Do nothing: the callback of dead letters that are not kept."""


def no_ids(_queue: object, _parcels: list[PendingDeadLetter]) -> None:
    """No ids: these messages are not retried by a later leader."""


@dataclass(slots=True)
class DeadMessages:
    """Messages of one queue that have died together, in order; one origin a content."""

    reason: DeathReason
    origins: list[Origin]
    contents: list[bytes]
    time_ms: int | None = None
    """When, if it is on record."""
    counts: Counts = NEW
    """Delivery counts that each message takes to the next quorum queue."""
    queue_type: QueueType = QueueType.CLASSIC
    """Type of the queue in which the messages died."""
    parcels: list[PendingDeadLetter] | None = None
    """Pending dead letter of each message, if it must arrive; None: published once only."""
    hasten: Callable[[], None] = do_nothing
    """Called when something has changed since they could not arrive."""
    ids_for: DeadLetterIdsFor = no_ids
    unwanted: int = 0
    """Number of dead messages that are only counted, if there are none."""


class RepublishDeadLetters(Protocol):
    """Publishes them where the settings of the queue say, and is done with them when it returns,
    but for parcels: those hear what becomes of them, maybe before."""

    def __call__(self, queue: str, settings: QueueSettings, dead: DeadMessages) -> None: ...


DeadLetterFrom: TypeAlias = Callable[[str, str, QueueSettings, DeadMessages], None]
"""A `RepublishDeadLetters` for queues of the virtual host with a name."""

Bury: TypeAlias = Callable[[DeathReason, TakenMessages], None]
"""Is given what has died in front of a queue, and why."""


@dataclass(slots=True, eq=False)
class AtMostOnceDeadLettering:
    """Dead-lettering of a queue whose journal, if it has one, is notified and not asked."""

    _spec: QueueSpec
    settings: QueueSettings
    """Settings of the queue, among them the dead letter exchange."""
    _journal: Journal | None
    _dead_letter: RepublishDeadLetters | None
    """None where dead messages are not republished."""

    @property
    def are_wanted(self) -> bool:
        """True if an exchange is configured for the dead."""
        return self._dead_letter is not None and self.settings.dead_letter_exchange is not None

    def bury(self, reason: DeathReason, taken: TakenMessages) -> None:
        """Handle dead messages that no client held: see `Bury`."""
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
            self._dead_letter(self._spec.name, self.settings, died)
        else:
            self._count(reason, len(contents))

    def _count(self, reason: DeathReason, count: int) -> None:
        if self._dead_letter is not None:
            kind = self._spec.queue_type
            died = DeadMessages(reason, [], [], queue_type=kind, unwanted=count)
            self._dead_letter(self._spec.name, self.settings, died)
