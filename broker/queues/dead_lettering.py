"""At-most-once dead-lettering: messages that die in a queue are dropped, or republished first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.dead_letter_port import DeadMessages, RepublishDeadLetters
from fluffle.broker.queues.journal import Journal
from fluffle.broker.queues.segment import TakenMessages
from fluffle.broker.queues.settings import QueueSettings
from fluffle.protocol.deaths import DeathReason

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
