"""Read barrier: confirmation that a node knows all definitions made before it began.

"Not there", "leads nowhere", "deleted already", "the same": what a node says by what it does *not*
know may be wrong, since what it knows may be old.  It is said once a confirmation is there that
began after the question came.  What a node finds is answered at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from fluffle.broker.base.errors import (
    AccessRefused,
    BrokerError,
    InternalError,
    NotAllowed,
    NotFound,
    PreconditionFailed,
    ResourceLocked,
)


class UnconfirmedAbsence(InternalError):
    """Raised, before anything is done, by what rests on something not being there."""

    def __init__(self) -> None:
        super().__init__("it is not known whether all definitions are known here")


ABSENCE_ERRORS = frozenset(
    {NotFound, AccessRefused, ResourceLocked, PreconditionFailed, NotAllowed, UnconfirmedAbsence}
)
"""Answers that may rest on old definitions: of these very classes, not of those below them."""


class ReadBarrier(Protocol):
    """The knowledge that a node has of definitions."""

    @property
    def is_complete(self) -> bool:
        """Whether no other node defines anything: then there is nothing to ask."""

    @property
    def mark(self) -> int:
        """Number, from 1 on, of the first confirmation that begins after now."""

    @property
    def confirmed(self) -> int:
        """Number of the last confirmation that is there."""

    def ask(
        self, done: Callable[[], None], failed: Callable[[BrokerError], None] | None = None
    ) -> None:
        """Call `done`, later, once all is known here that was answered anywhere before; or tell
        `failed` why that cannot be known.  Without `failed` it takes as long as it takes."""


class LocalReadBarrier:
    """The `ReadBarrier` of a node that is alone."""

    is_complete = True
    mark = 1
    confirmed = 1

    def ask(
        self, done: Callable[[], None], failed: Callable[[BrokerError], None] | None = None
    ) -> None:
        """Call `done` at once: nothing is defined anywhere else."""
        del failed
        done()


LOCAL_READ_BARRIER = LocalReadBarrier()
