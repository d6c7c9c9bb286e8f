"""A queue that is being changed: it hands out nothing, and nothing in it expires or is dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluffle.broker.base.errors import PreconditionFailed

if TYPE_CHECKING:
    from fluffle.broker.queues.conversion_buffer import ConversionBuffer


class ConversionHold:
    """Hold on a queue during its conversion: its users stay, and are served again afterwards."""

    __slots__ = ("_where", "is_decided", "standstill")

    def __init__(self, where: str) -> None:
        """`where`: the queue, for people."""
        self._where = where
        self.is_decided = False
        """Whether the change is asked for after which another queue has its messages.  That cannot
        be undone by taking them away here."""
        self.standstill: ConversionBuffer | None = None
        """What takes messages in its place; None as long as it takes them itself."""

    def check_purge(self) -> None:
        """PreconditionFailed once all that is purged would be back."""
        if self.is_decided:
            raise conversion_in_progress(self._where)


def conversion_in_progress(where: str) -> PreconditionFailed:
    return PreconditionFailed(f"{where} is becoming a quorum queue; purge it again")
