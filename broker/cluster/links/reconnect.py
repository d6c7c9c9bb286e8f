"""When a link is dialled again, and when that it is gone is said to others.

    up --lost--> dialled at once --opened--> up: a new link
                       | failed
                       v
                     down --delay--> dialled --failed--> a longer delay ...

A link that was lost soon after it came up is not dialled at once: whatever ended it would end the
next one as well, a thousand times a second.
"""

from collections.abc import Callable

from fluffle.broker.cluster.links.limits import LinkLimits


class ReconnectBackoff:
    """Reconnect delays of one peer.  Both times return how many ms to wait."""

    __slots__ = ("_chance", "_failures", "_opened_ms", "_tuning")

    def __init__(self, tuning: LinkLimits, chance: Callable[[], float]) -> None:
        """`chance`: numbers from 0 to below 1."""
        self._tuning = tuning
        self._chance = chance
        self._failures = 0
        """Since a link last settled."""
        self._opened_ms = 0

    def opened(self, now_ms: int) -> None:
        """A link is up."""
        self._opened_ms = now_ms

    def lost(self, now_ms: int) -> int:
        """It is gone; 0: dial at once."""
        if now_ms - self._opened_ms < self._tuning.settled_ms:
            return self.failed()
        self._failures = 0
        return 0

    def failed(self) -> int:
        """Dialling led to no link; at least 1."""
        tuning = self._tuning
        doublings = min(self._failures, tuning.redial_ms_max.bit_length())
        self._failures += 1
        longest_ms = min(tuning.redial_ms << doublings, tuning.redial_ms_max)
        return max(1, int(longest_ms * (0.5 + self._chance() / 2)))
