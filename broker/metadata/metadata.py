"""The port through which definitions are changed, and what is behind it on a lone node."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

from fluffle.broker.base.errors import BrokerError
from fluffle.broker.metadata.change import Change
from fluffle.broker.metadata.facts import Facts

Decide: TypeAlias = Callable[[], Change]
"""Looks at what is applied here and says what is to change; changes nothing by itself.

Raises what is to be answered if that cannot be.
"""
Consequence: TypeAlias = Callable[[], None]
"""Notification of what was applied: of a client, for one, whose consumer is gone."""
Apply: TypeAlias = Callable[[Change], Iterable[Consequence]]
OnLateError: TypeAlias = Callable[[BrokerError], None]
"""Called when a change takes too long, and may still come true."""


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

    def settle(
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

    __slots__ = ("_apply", "_facts")

    def __init__(self, apply: Apply, facts: Facts) -> None:
        self._apply = apply
        self._facts = facts

    def change(
        self, decide: Decide, done: Callable[[], None], failed: Callable[[BrokerError], None]
    ) -> None:
        """`done` is called before this returns, and before all other notifications."""
        del failed
        change = decide()
        removes, puts = change.removes, change.puts
        for kind, key, _, outlives in removes if isinstance(removes, tuple) else removes.outliving:
            if outlives:
                self._facts.remove(kind, key)
        for kind, key, value, outlives in puts:
            if outlives:
                self._facts.put(kind, key, value)
        consequences = self._apply(change) if removes or puts else ()
        done()
        for consequence in consequences:
            consequence()

    def settle(
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
