"""What a node keeps on disk: the store, the commits to it, and the journals of the queues.

A start goes so: `open_durability`, everything that was there is taken up, `forget`, and only
when `durable` has returned may clients come.  An end in order is `close`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

from fluffle.broker.commits import Commits
from fluffle.broker.journals.local import (
    NUMBER,
    SEEN,
    LocalJournals,
    read_seen,
)
from fluffle.broker.journals.spill import SPILL, delete_spilled
from fluffle.broker.queues.engine import Queue
from fluffle.broker.turn import Turn
from fluffle.storage.errors import StorageError
from fluffle.storage.store import Store, open_store


class Durability:
    """The durable side of one node."""

    __slots__ = ("_seen_below", "commits", "journals", "store")

    def __init__(self, store: Store, turn: Turn) -> None:
        self.store = store
        self.commits = Commits(store, turn)
        self._seen_below = read_seen(store.catalog.items(SEEN))
        self.journals = LocalJournals(store.log, self.commits, self._seen_below)

    def forget(self) -> None:
        """From now on messages are handed out: what was known of that is no longer true.

        And what was only spilled by an earlier process is of no use to this one.
        """
        delete_spilled(self.store.catalog.items(SPILL), self.commits)
        for group in self._seen_below:
            self.commits.remove(SEEN, NUMBER.pack(group))

    async def durable(self) -> None:
        """Wait until everything that was told so far is on disk."""
        done = asyncio.get_running_loop().create_future()
        self.commits.wait(Resolving(done), self.commits.ticket)
        self.commits.flush()
        await done

    def close(self, queues: Iterable[Queue]) -> None:
        """Write what is left, and of each queue what nobody has seen yet.  Waits for the disk."""
        for queue in queues:
            if queue.journal is not None:
                name, unseen = queue.journal.groups[0], queue.first_unseen
                self.commits.put(SEEN, NUMBER.pack(name), NUMBER.pack(unseen))
        self.commits.close()


class Resolving:
    """Waits for a commit in the place of a coroutine."""

    __slots__ = ("_done",)

    def __init__(self, done: asyncio.Future[None]) -> None:
        self._done = done

    def on_durable(self, ticket: int) -> None:
        del ticket
        if not self._done.done():
            self._done.set_result(None)


def open_durability(
    directory: Path, turn: Turn, *, on_fatal: Callable[[StorageError], None]
) -> Durability:
    """Open what is in `directory`, for the running loop.  Raises `StorageError`."""
    loop = asyncio.get_running_loop()
    store = open_store(directory, call_soon=loop.call_soon_threadsafe, on_fatal=on_fatal)
    return Durability(store, turn)
