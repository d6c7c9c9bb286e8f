"""A dead message that must arrive, as its queue and whoever republishes it see it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Protocol


class OnDeadLetterResult(Protocol):
    """Hears of a try whether the parcel has arrived, or must be tried again."""

    def __call__(self, *, is_there: bool) -> None: ...


NOBODY: frozenset[object] = frozenset()
NO_HEIRS: Mapping[object, object] = MappingProxyType({})


class PendingDeadLetter:
    """Arrives once every queue has it where it leads, and one at least.

    It is kept until then, and tried again; where it is known to have arrived, or is sure to, it is
    not put again.
    Queues are told apart by anything but their names: one that is made anew has nothing yet.
    """

    __slots__ = (
        "_awaited", "_heirs", "_sure", "_tell", "doubt", "is_refused", "reached", "sequence",
        "tries",
    )  # fmt: skip

    def __init__(self, tell: OnDeadLetterResult, sequence: int = 0) -> None:
        """`sequence`: its number in its queue, if it has one there.

        `tell` may be called before a try is over, and after the next has begun: queues may say
        something late.  Or never: then nothing is heard."""
        self._tell = tell
        self._awaited = NOBODY
        self._sure = NOBODY
        """Who has it, and will say so, or end with this process."""
        self._heirs = NO_HEIRS
        """Who has taken the place of whom of these, before it has said so."""
        self.reached = NOBODY
        """Who has it, as far as is known."""
        self.sequence = sequence
        self.tries = 0
        self.doubt = 0
        """Which confirmation has to be there before it can be let go of; 0 if it has always led
        somewhere."""
        self.is_refused = False
        """Whether it is known that it will not arrive with this try."""

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
            self._heirs = {**self._heirs, queue: successor}

    @property
    def is_there(self) -> bool:
        """Nothing is missing, by where it leads now; what leads nowhere has not arrived."""
        return bool(self.reached) and not self._awaited

    def known(self, queue: object, *, is_taken: bool) -> bool:
        """A queue has it, or has it not; of whatever try that was.  Whether it arrives so.

        What it says is true of its heir."""
        while queue in self._heirs:
            queue = self._heirs[queue]
        was_there = self.is_there
        if is_taken:  # mutant: R14e
            self.reached |= {queue}
            self._awaited -= {queue}
        elif queue in self._awaited:
            self._refuse()
        if was_there or not self.is_there:
            return False
        self._tell(is_there=True)
        return True

    @property
    def leads_nowhere(self) -> bool:
        return not (self._awaited or self.reached)

    def settle(self) -> None:
        """Nothing more is put anywhere with this try."""
        if self.is_there:
            self._tell(is_there=True)
        elif self.leads_nowhere:
            self._refuse()

    def let_go(self) -> None:
        """It leads nowhere, and need not arrive."""
        self._tell(is_there=True)

    def _refuse(self) -> None:
        if not self.is_refused:
            self.is_refused = True
            self._tell(is_there=False)
