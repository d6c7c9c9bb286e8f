"""A node that is there is not suspected again and again, however late it is: invariant 23.

That a node is suspected once for being late cannot be helped; that costs each group it leads an
election.  Whoever has been wrong must wait longer, for a while.  What is a mistake the code under
test says itself, for links are its own; how many there may be is said here.
"""

from collections import defaultdict, deque
from collections.abc import Callable

from fluffle.raft.config import NodeId
from fluffle.raft.output import LivenessVerdict
from tests.simulation.facts import Violation
from tests.simulation.process import Process
from tests.simulation.virtual_time import SECOND_US
from tests.simulation.watch import Watch

SHORT_MS = 2_500
"""A silence that somebody who has just been wrong twice waits for."""

WINDOW_US = 30 * SECOND_US
NEEDLESS_MAX = 3
"""In a window: it takes two for such a silence to be none, and clocks may run twice as fast."""

Pair = tuple[NodeId, NodeId]


class Suspicions:
    """The beliefs of nodes about each other, as long as their links are up."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self._mistakes: dict[Pair, int] = {}
        """How many there were when a node was suspected for a short silence."""
        self.needless: dict[Pair, deque[int]] = defaultdict(deque)
        """When each was suspected needlessly, in the window."""

    def join(self, watch: Watch) -> None:
        watch.judged.append(self.judged)
        watch.died.append(self.died)

    def died(self, node: NodeId) -> None:
        """A node has died: the beliefs of its next life begin anew."""
        for pair in [pair for pair in self.needless if pair[0] == node]:
            del self.needless[pair]

    def judged(self, process: Process, verdict: LivenessVerdict) -> None:
        """A process has found out that another is alive, or not."""
        node = verdict.node
        pair, mistakes = (process.node, node), process.multi.mistakes.get(node, 0)
        before = self._mistakes.pop(pair, None)
        if not verdict.is_alive:
            peer = process.multi._failure_detector._peers[node]
            if peer.suspected_ms is not None and peer.suspected_ms - peer.last_ping_ms < SHORT_MS:
                self._mistakes[pair] = mistakes
        elif before is not None and mistakes > before:
            self._note(pair, self._now_us())

    def _note(self, pair: Pair, now_us: int) -> None:
        times = self.needless[pair]
        times.append(now_us)
        while times[0] < now_us - WINDOW_US:
            times.popleft()
        if len(times) > NEEDLESS_MAX:
            raise Violation(f"inv 23: {pair[0]} suspects {pair[1]} needlessly, {len(times)} times")
