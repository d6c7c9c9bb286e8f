"""Monitor of whether this node sees a majority of the metadata group; logs each change.

Without one nothing fails at once: what is asked for waits, and nobody may ask.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from fluffle.broker.base.logs import event
from fluffle.raft.config import Config, Member, NodeId, is_majority, majority_of

SEEN_AFTER_MS = 5_000
"""Links with all that are there are up long before: a second try included."""

logger = logging.getLogger(__name__)


class MajorityMonitor:
    """Majority as one node sees it, from its join on: there was one then, perhaps seen through its
    link with the leader alone.
    """

    __slots__ = ("_config", "_is_alive", "_is_seen", "_now_ms", "_since_ms", "_voters", "is_there")

    def __init__(
        self,
        config: Callable[[], Config],
        is_alive: Callable[[NodeId], bool],
        now_ms: Callable[[], int],
    ) -> None:
        """`config`: of the metadata group.  `is_alive`: of this node, too."""
        self._config = config
        self._is_alive = is_alive
        self._now_ms = now_ms
        self._since_ms: int | None = None
        """When it has looked first, since there were voters whom it had not seen as such."""
        self._is_seen = False
        """Whether this node has ever seen all that make one, or should have by now."""
        self._voters: frozenset[Member] = frozenset()
        """The voters at the last look."""
        self.is_there = True
        """Whether there was a majority at the last look."""

    def look(self) -> None:
        """Say what is otherwise than at the last look."""
        voters = self._config().voters
        alive = {voter for voter in voters if self._is_alive(voter.node)}
        is_there = not voters or is_majority(alive, voters)
        if not self._voters.issuperset(voters):  # who has just joined may not have been heard yet
            self._is_seen, self._since_ms = False, None
        self._voters = frozenset(voters)
        self._is_seen = self._is_seen or is_there or self._has_looked_for_long()
        if is_there == self.is_there or not self._is_seen:
            return
        self.is_there = is_there
        up = ",".join(sorted(voter.node for voter in alive))
        if is_there:
            event(logger, logging.INFO, "majority_regained", up=up)
            return
        away = ",".join(sorted(voter.node for voter in voters if voter not in alive))
        advice = (
            f"until {majority_of(len(voters))} of {len(voters)} nodes see each other nothing is "
            "defined or changed: start those that are away, or look why there is no link to them; "
            "if their disks are lost for good, `fluffle salvage`"
        )
        event(logger, logging.WARNING, "majority_lost", up=up, away=away, advice=advice)

    def _has_looked_for_long(self) -> bool:
        now_ms = self._now_ms()
        if self._since_ms is None:
            self._since_ms = now_ms
        return now_ms - self._since_ms >= SEEN_AFTER_MS
