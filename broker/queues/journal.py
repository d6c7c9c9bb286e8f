"""The port to what remembers a durable queue's messages when the process does not.

The engine tells it what happened, in batches, and asks for what it no longer holds in memory.
"""

from __future__ import annotations

from typing import Protocol


class Journal(Protocol):
    """The log of one queue."""

    groups: tuple[int, ...]
    """The logs in the store that are its own: recorded with the queue, so that it is found again."""

    def drop(self) -> None:
        """The queue is gone: so is all that was written of it."""


class Journals(Protocol):
    """Makes journals, for the queues of a node."""

    def create(self) -> Journal:
        """For a queue that has just been declared."""

    def reopen(self, groups: tuple[int, ...]) -> Journal:
        """For a queue that was there when the node last ended."""
