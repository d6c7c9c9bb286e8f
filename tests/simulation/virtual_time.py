"""Virtual time: a heap of events, and all chance, from one seed.

Events at the same moment happen in an order that the seed chooses.  Every purpose has a `Random` of
its own, so that drawing more for one leaves the others as they were.  `digest` is a running hash of
what happened: two runs that differ in it differ in something.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

SECOND_US = 1_000_000
MS_US = 1_000

Event = tuple[int, int, Callable[..., None], tuple[Any, ...]]


class VirtualTime:
    """Calls what was planned, in the order of time."""

    __slots__ = ("_count", "_heap", "_tie_bits", "digest", "events", "now_us", "seed")

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now_us = 0
        self.events = 0
        """How many have happened."""
        self.digest = seed
        self._heap: list[Event] = []
        self._count = 0
        self._tie_bits = self.chance("ties").getrandbits

    def chance(self, purpose: str) -> Random:
        """Randomness for one purpose: the same for the same seed, whatever else is drawn."""
        return Random(f"{self.seed}/{purpose}")

    def at(self, when_us: int, call: Callable[..., None], *args: Any) -> None:
        """Plan a call; at once if the time has passed."""
        self._count += 1
        tie = self._tie_bits(20) << 40 | self._count
        heappush(self._heap, (max(when_us, self.now_us), tie, call, args))

    def after(self, delay_us: int, call: Callable[..., None], *args: Any) -> None:
        self.at(self.now_us + delay_us, call, *args)

    def note(self, fact: int) -> None:
        """Something happened that another run must repeat."""
        self.digest = hash((self.digest, self.now_us, fact))

    def run(self, until_us: int) -> None:
        """Let everything happen that is planned before then."""
        heap = self._heap
        while heap and heap[0][0] < until_us:
            self.now_us, _, call, args = heappop(heap)
            self.events += 1
            call(*args)
        self.now_us = until_us
