"""Group commit: what all queues and declarations of a node have to write, one commit at a time.

    add_writer, put, delete ... --> flush --> batch --> store: one commit --> durable --> waiters
                                  ^                                          |
                                  +------ what came in the meantime ---------+

What is recorded while a commit runs is written by the next; there is no timer, and a message that
is published and settled within one commit is never written.  Removals have no size, so those that
are recorded without a pause are in one batch, and no crash leaves half of a queue.

Commits have numbers, their *tickets*: a recorder of something remembers `ticket`, and what it
recorded is durable once `durable` is as great.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from fluffle.broker.runtime.turn import Turn, do_nothing
from fluffle.storage.histogram import Histogram
from fluffle.storage.store import Batch, Store

BATCH_BYTES_MAX = 1 << 20
"""A batch is never split, so beyond this a new one begins, and the store may end a commit."""

BEHIND_BYTES = 1 << 25
"""Undurable bytes at which publishers are held up: what a slow disk writes in a second."""


class CommitWriter(Protocol):
    """Part of the node with something to write in a commit."""

    def write(self) -> None:
        """Add all of it to what `Commits.batch` returns."""


class CommitWaiter(Protocol):
    """Part of the node that must not answer before something is durable."""

    def on_durable(self, ticket: int) -> None:
        """Handle that everything up to this ticket is durable."""


class WaitingCall:
    """A `CommitWaiter` that calls something."""

    __slots__ = ("_act",)

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def on_durable(self, _ticket: int) -> None:
        self._act()


class CommitProgress:
    """Counts of what has been committed since the node started: numbers to be read, nothing
    else."""

    __slots__ = ("changes", "commits", "seconds", "written_bytes")

    def __init__(self) -> None:
        self.commits = 0
        self.seconds = 0.0
        """From when commits began until the loop heard of their end."""
        self.written_bytes = 0
        """Bytes of messages and definitions, without what the store adds."""
        self.changes = 0
        """Entries appended, stretches deleted, and values put or removed."""


class Commits:
    """The commits of one node.  Used from the loop's thread."""

    def __init__(
        self, store: Store, turn: Turn, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._now_s = now_s
        self._began_s = 0.0
        """When the commit that runs began."""
        self.done = CommitProgress()
        self._turn = turn
        turn.begin_commit = self.flush
        self.ticket = 1
        """Ticket of the commit that collects."""
        self.durable = 0
        """Ticket of the last commit that has been done.  Invariant: `ticket` less 1 or 2."""
        self.defined = 0
        """Ticket of the last commit that contains a declaration."""
        self.has_given_up = False
        """Set when the node has failed: from then on nothing is written."""
        self.waiting_bytes = 0
        """Bytes of messages that were announced and not yet written."""
        self._running_bytes = 0
        """Bytes that the running commit writes."""
        self._batches: list[Batch] = [Batch()]
        """Invariant: at least one."""
        self._is_whole = False
        """True if the last batch takes all changes."""
        self._is_whole_once = False
        """True if it does up to the next commit."""
        self._writers: dict[CommitWriter, None] = {}
        self._waiters: dict[CommitWaiter, None] = {}
        """Waiters for the commit that collects."""
        self._running_waiters: dict[CommitWaiter, None] = {}
        """Waiters for the running commit."""
        self._held: dict[Callable[[], None], None] = {}
        """Callbacks for when the disk has caught up."""

    @property
    def is_behind(self) -> bool:
        """True if the disk is so far behind that publishers should wait."""
        return self.unwritten_bytes > BEHIND_BYTES

    @property
    def is_running(self) -> bool:
        """True if a commit is under way."""
        return self.ticket - self.durable > 1

    @property
    def unwritten_bytes(self) -> int:
        """Bytes of messages that were announced and are not durable."""
        return self.waiting_bytes + self._running_bytes

    @property
    def store_bytes(self) -> int:
        """Bytes on disk, as of the last commit, without free pages."""
        return self._store.used_bytes

    @property
    def of_disk(self) -> tuple[Histogram, Histogram]:
        """How long commits of the store took, those of Raft included, and how large they were."""
        return self._store.commit_seconds, self._store.commit_bytes

    # What is to be written

    def add_writer(self, writer: CommitWriter) -> None:
        """Have `writer` write when the next commit begins."""
        self._writers[writer] = None
        self._turn.touch_commit()

    def remove_writer(self, writer: CommitWriter) -> None:
        """Remove a writer, which has nothing left to write."""
        self._writers.pop(writer, None)

    def put(self, kind: str, name: bytes, value: bytes) -> None:
        """Write a definition: see `Batch.put`."""
        self.batch().put(kind, name, value)
        self._define()

    def remove(self, kind: str, name: bytes) -> None:
        """Delete a definition: see `Batch.remove`."""
        self.batch().remove(kind, name)
        self._define()

    def remove_all(self, kind: str, names: Iterable[bytes], count: int) -> None:
        """Delete very many definitions, which are named while they are deleted: see
        `Batch.remove_all`."""
        if self._batches[-1].values:
            self._batches.append(Batch())
        self._batches[-1].remove_all(kind, names, count)
        self._define()

    def touch(self) -> None:
        """Ask for a commit: changes were added to what `batch` returned."""
        self._turn.touch_commit()

    def delete(self, group: int, first: int, stop: int) -> None:
        """Delete entries of a log: see `Batch.delete`."""
        self.batch().delete(group, first, stop)
        self._turn.touch_commit()

    def _define(self) -> None:
        self.defined = self.ticket
        self._turn.touch_commit()

    def batch(self) -> Batch:
        """Batch for the next commit, to be added to; get it again each time."""
        is_whole = self._is_whole or self._is_whole_once
        if self._batches[-1].size_bytes > BATCH_BYTES_MAX and not is_whole:
            self._batches.append(Batch())
        return self._batches[-1]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Collect changes of the block in one commit, however large."""
        self.batch()
        self._is_whole = True
        try:
            yield
        finally:
            self._is_whole = False

    # Who waits for it

    def keep_together(self) -> None:
        """Collect all changes up to the next commit in one, however large, with the last change
        before."""
        self._is_whole_once = True

    def wait(self, waiter: CommitWaiter, ticket: int) -> None:
        """Call `waiter` back once the commit `ticket`, which is yet to be done, has been."""
        if ticket < self.ticket:
            self._running_waiters[waiter] = None
        else:
            self._waiters[waiter] = None
            self._turn.touch_commit()

    def when_caught_up(self, act: Callable[[], None]) -> None:
        """Call `act` when the disk is no longer behind."""
        self._held[act] = None

    def forget(self, act: Callable[[], None]) -> None:
        """Do not."""
        self._held.pop(act, None)

    def flush(self) -> None:
        """Begin a commit of the collected changes, unless one is running.

        Whatever else was submitted to the store goes with it, or without it.
        """
        if not self.has_given_up:
            self._submit()
            self._store.flush()

    def _submit(self) -> None:
        """Give the store the collected changes, unless it still has earlier ones."""
        if self.is_running:
            return
        writers, self._writers = self._writers, {}
        for writer in writers:
            writer.write()
        self._is_whole_once = False
        if not (any(self._batches) or self._waiters):
            self.waiting_bytes = 0  # all of it has been settled meanwhile
            if self._held:
                self._let_go()
            return
        batches, self._batches = self._batches, [Batch()]
        self._running_waiters, self._waiters = self._waiters, {}
        self._running_bytes, self.waiting_bytes = self.waiting_bytes, 0
        self.ticket += 1
        if not any(batches):  # all of it has been settled meanwhile
            self._finish()
            return
        self._began_s = self._now_s()
        done, last = self.done, batches[-1]
        for batch in batches:
            done.written_bytes += batch.size_bytes
            done.changes += len(batch.changes) + len(batch.values) + batch.removed_count
            self._store.submit(batch, self._on_durable if batch is last else None)

    def _finish(self) -> None:
        """The commit that runs has been done."""
        self.durable += 1
        self._running_bytes = 0
        waiters, self._running_waiters = self._running_waiters, {}
        for waiter in waiters:
            waiter.on_durable(self.durable)
        self._let_go()

    def _let_go(self) -> None:
        """Call what has waited for the disk, if it has caught up."""
        if self._held and not self.is_behind:
            held, self._held = self._held, {}
            for act in held:
                act()

    def _on_durable(self) -> None:
        """Handle a finished commit: call those that waited and begin the next, in one turn."""
        self.done.commits += 1
        self.done.seconds += self._now_s() - self._began_s
        ends_turn = self._turn.begin()
        try:
            self._finish()
            self.flush()
        finally:
            if ends_turn:
                self._turn.end()

    def close(self) -> None:
        """Write what is left and let go of the store.  Waits for the disk.

        Connections may end later; what they then tell is not written.
        """
        self._turn.begin_commit = do_nothing
        self.flush()
        self._store.close()


def when_safe(commits: Commits, act: Callable[[], None]) -> None:
    """Call `act` once all changes so far are durable."""
    commits.wait(WaitingCall(act), commits.ticket)
