"""What a leadership needs of whoever leads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fluffle.broker.queues.dead import DeadLetter
from fluffle.broker.queues.replicated.contents import ReadEntry
from fluffle.broker.queues.replicated.effects import Effect
from fluffle.broker.queues.replicated.holders import Room

if TYPE_CHECKING:
    from fluffle.broker.queues.replicated.leadership import Leadership


class Propose(Protocol):
    """Appends an entry to the log that this leadership leads."""

    def __call__(self, payload: bytes, on_fate: Callable[[bool], None]) -> None:
        """`on_fate` hears once whether it was applied, in the order of the proposals."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The ports of one leadership."""

    propose: Propose
    read_entry: ReadEntry
    damaged: Callable[[int], None]
    """An entry cannot be read; whoever cannot read what it wrote must not lead."""
    takes: Callable[[int], bool]
    """Whether the log takes so many bytes of messages now.  Whoever says no asks for `pump` later:
    until then what is decided waits: none is refused for what could have been known."""
    now_ms: Callable[[], int]
    """The time of the wall; it may jump."""
    room: Room
    touch: Callable[[Leadership], None]
    """Asks for `pump` to be called before this turn ends."""
    release: Callable[[list[Effect]], None]
    """Takes what edges must be told."""
    ended: Callable[[], None]
    """An entry was not taken, or nobody knows: it is over."""
    dead_letter: DeadLetter | None = None
    """Republishes what has died.  None: nobody does, and it is gone."""
