"""Definitions that change when a test says so, as in a cluster: later, if they still hold."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from fluffle.broker.base.errors import BrokerError
from fluffle.broker.cluster.metadata_group import timed_out
from fluffle.broker.metadata.change import Change, Fact, Facts, Kind
from fluffle.broker.metadata.metadata import Apply, Decide, OnLateError, ignore_done
from fluffle.broker.metadata.state import MetadataState, Proposal, ProposalOutcome


@dataclass(slots=True)
class PendingChange:
    """A change under way, and who waits for it."""

    proposal: Proposal
    decide: Decide
    done: Callable[[], None]
    failed: Callable[[BrokerError], None]


def ignore_error(_error: BrokerError) -> None:
    """Ignore the error: those that waited have been answered already."""


class ManualMetadata:
    """Commits the oldest change at each `commit`.  There is a virtual host `/` already."""

    def __init__(self, apply: Apply, facts: Facts) -> None:
        del facts  # the log remembers
        self._apply = apply
        self._state = MetadataState()
        self._state.put(Fact(Kind.VHOST, ("/",)), self._state.last_revision)
        self._asked: deque[PendingChange] = deque()
        self._number = 0
        self.stale_count = 0
        self.late: OnLateError | None = None
        """Last callback for a change that must happen and takes too long."""

    def __len__(self) -> int:
        """How many changes are under way."""
        return len(self._asked)

    def change(
        self, decide: Decide, done: Callable[[], None], failed: Callable[[BrokerError], None]
    ) -> None:
        change = decide()
        if change.changes_nothing:
            done()
            return
        self._asked.append(PendingChange(self._propose(change), decide, done, failed))

    def ensure(
        self,
        decide: Decide,
        done: Callable[[], None] = ignore_done,
        late: OnLateError | None = None,
    ) -> None:
        def impossible(error: BrokerError) -> None:
            raise AssertionError from error

        self.late = late
        self.change(decide, done, impossible)

    def _propose(self, change: Change) -> Proposal:
        self._number += 1
        revisions = self._state.revisions(change.rests_on)
        return Proposal("a", 1, self._number, self._number, change, revisions)

    def give_up(self) -> None:
        """Tell who waits that it takes too long; all of it may still come true."""
        for asked in self._asked:
            self._give_up(asked)

    def give_up_last(self) -> None:
        """Tell who waits for the newest change that it takes too long; it may still come true."""
        self._give_up(self._asked[-1])

    def _give_up(self, asked: PendingChange) -> None:
        failed, asked.failed, asked.done = asked.failed, ignore_error, ignore_done
        failed(timed_out())

    def commit_last(self) -> None:
        """Apply the newest change: those before were lost on their way, and come again."""
        self._asked.rotate(1)
        self.commit()

    def commit(self) -> None:
        """Apply the oldest change, or have it decided anew if it does not hold any more."""
        asked = self._asked.popleft()
        outcome = self._state.apply(asked.proposal)
        if outcome is ProposalOutcome.APPLIED:
            consequences = self._apply(asked.proposal.change)
            asked.done()
            for consequence in consequences:
                consequence()
            return
        self.stale_count += 1
        try:
            self.change(asked.decide, asked.done, asked.failed)
        except BrokerError as error:
            asked.failed(error)
