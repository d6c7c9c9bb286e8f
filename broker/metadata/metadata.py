"""Metadata: ports through which definitions are changed and confirmed, and those of a lone node.

"Not there", "leads nowhere", "deleted already", "the same": what a node says by what it does *not*
know may be wrong, since what it knows may be old.  It is said once a confirmation of the read
barrier is there that began after the question came.  What a node finds is answered at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

from fluffle.broker.base.errors import (
    AccessRefused,
    BrokerError,
    InternalError,
    NotAllowed,
    NotFound,
    PreconditionFailed,
    ResourceLocked,
)
from fluffle.broker.metadata.change import NOTHING, Change, Facts, in_groups

Decide: TypeAlias = Callable[[], Change]
"""Looks at what is applied here and says what is to change; changes nothing by itself.

Raises what is to be answered if that cannot be.
"""
Consequence: TypeAlias = Callable[[], None]
"""Notification of what was applied: of a client, for one, whose consumer is gone."""
Apply: TypeAlias = Callable[[Change], Iterable[Consequence]]
OnLateError: TypeAlias = Callable[[BrokerError], None]
"""Called when a change takes too long, and may still come true."""


def change_or_refuse(
    metadata: Metadata,
    decide: Decide,
    done: Callable[[], None],
    failed: Callable[[BrokerError], None],
) -> None:
    """Ask for a change as `Metadata.change` does, and call `failed` with immediate refusals,
    too."""
    refusals: list[BrokerError] = []

    def decide_or_refuse() -> Change:
        refusals.clear()
        try:
            return decide()
        except BrokerError as refused:
            refusals.append(refused)
            return NOTHING

    def answer() -> None:
        if refusals:
            failed(refusals[0])
        else:
            done()

    metadata.change(decide_or_refuse, answer, failed)


def ignore_done() -> None:
    """Do nothing when a change is done: no client waits for it."""


class Metadata(Protocol):
    """Where definitions are changed."""

    def change(
        self, decide: Decide, done: Callable[[], None], failed: Callable[[BrokerError], None]
    ) -> None:
        """Have what `decide` returns come true, then call `done`: before this returns, or later.

        `decide` is called now, and what it raises is raised here.  If what it rests on has changed
        before it could come true it is called again, and `failed` is called with what it raises.
        """

    def ensure(
        self,
        decide: Decide,
        done: Callable[[], None] = ignore_done,
        late: OnLateError | None = None,
    ) -> None:
        """Have a change made that must be, however long it takes; `decide` must not raise.

        If it takes too long, `late` is called, if there is any, and `done` is not called any more.
        """


class LocalMetadata:
    """A lone node: nothing comes between what was decided and what is applied."""

    def __init__(self, apply: Apply, facts: Facts) -> None:
        self._apply = apply
        self._facts = facts

    def change(
        self, decide: Decide, done: Callable[[], None], failed: Callable[[BrokerError], None]
    ) -> None:
        """`done` is called before this returns, and before all other notifications."""
        del failed
        change = decide()
        if not (change.puts or change.removes):
            done()
            return
        puts, removes = change.puts, in_groups(change.removes)
        with self._facts.together():
            for group in removes.groups:
                if group.outlives:
                    self._facts.remove_group(group)
            for kind, key, _, outlives in removes.others:
                if outlives:
                    self._facts.remove(kind, key)
            for kind, key, value, outlives in puts:
                if outlives:
                    self._facts.put(kind, key, value)
        consequences = self._apply(change)
        done()
        for consequence in consequences:
            consequence()

    def ensure(
        self,
        decide: Decide,
        done: Callable[[], None] = ignore_done,
        late: OnLateError | None = None,
    ) -> None:
        del late
        self.change(decide, done, never)


def never(error: BrokerError) -> None:
    """Ignore a callback for later failures: on a single node there are none."""
    raise AssertionError from error


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
        """True if no other node defines anything: then there is nothing to ask."""

    @property
    def mark(self) -> int:
        """Number, from 1 on, of the first confirmation that begins after now."""

    @property
    def confirmed(self) -> int:
        """Number of the last confirmation that is there."""

    def ask(
        self, done: Callable[[], None], failed: Callable[[BrokerError], None] | None = None
    ) -> None:
        """Call `done`, later, once all is known here that was answered anywhere before; or `failed`
        with the reason why that cannot be known.  Without `failed` it takes as long as it takes."""


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


def is_premature(error: Exception, read_barrier: ReadBarrier) -> bool:
    """True if an answer may rest on old definitions, so that it is given only after `ask`: if what
    was asked is refused once more by then, it is so."""
    return type(error) in ABSENCE_ERRORS and not read_barrier.is_complete
