"""What is answered, until who has asked for it has read it: not too much of all at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fluffle.broker.protocols.http.responses import unavailable

ANSWERS_BYTES_MAX = 64 << 20
"""Of all long ones together: whole lists of some ten thousand queues, for five readers."""
SHORT_BYTES = 1 << 16
"""About what a socket takes at once: so much is always answered."""


class ResponseBudget:
    """Those that are not read yet."""

    __slots__ = ("_bytes_max", "_held_bytes")

    def __init__(self, bytes_max: int = ANSWERS_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._held_bytes = 0

    @contextmanager
    def holding(self, size_bytes: int) -> Iterator[None]:
        """As long as the block lasts.  Refusal of a long one beside others; alone it may be longer
        than all together."""
        held = size_bytes if size_bytes > SHORT_BYTES else 0
        if held and self._held_bytes and self._held_bytes + held > self._bytes_max:
            raise unavailable("too much is waiting to be read by others")
        self._held_bytes += held
        try:
            yield
        finally:
            self._held_bytes -= held
