"""A durable queue on a disk of which some entries are damaged, after a start, against a list."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fluffle.broker.commits import Commits
from fluffle.broker.journals.local import LocalJournals
from fluffle.broker.message import Origin
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.handout import Handout, Outcome
from fluffle.broker.turn import Turn
from fluffle.storage.errors import StorageError
from fluffle.storage.layout import Table
from fluffle.storage.memory import MemoryDisk
from fluffle.storage.mover import Tuning
from fluffle.storage.store import Store
from tests.support.store import InstantWriter, raise_it

ORIGIN = Origin("", "q")


class Getter:
    """Takes what it is given."""

    no_ack = False

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def took(self, handout: Handout) -> None: ...

    def settled(self, count: int) -> None: ...

    def deliver(self, handout: Handout) -> None: ...


class Node:
    """One queue on a disk, from a start on.  Every `commit` is one."""

    def __init__(self, disk: MemoryDisk, groups: tuple[int, ...], window_bytes: int) -> None:
        tuning = Tuning(window_bytes=window_bytes)
        store = Store(disk, InstantWriter, on_fatal=raise_it, tuning=tuning)
        self.commits = Commits(store, Turn(lambda _act: None))
        journals = LocalJournals(store.log, self.commits, {})
        journal = journals.reopen(groups) if groups else journals.create()
        self.groups = journal.groups
        self.crashes = 0
        self.queue = Queue(
            QueueSpec("q", durable=True),
            touch=lambda _queue: None,
            journal=journal,
            on_crash=self._crashed,
        )
        self.queue.recover()

    def _crashed(self, queue: Queue) -> None:
        assert queue.damage is not None
        self.crashes += 1

    def take(self) -> Iterator[Handout]:
        """Messages one by one, as long as there are any."""
        while (handout := self.queue.get(Getter(self.queue))) is not None:
            yield handout

    def bodies(self) -> list[bytes]:
        return [handout.contents[0] for handout in self.take()]


def flip(disk: MemoryDisk, body: bytes) -> None:
    with disk.view() as view:
        ((table, key, at),) = [
            (table, bytes(key), bytes(value).index(body))
            for table in (Table.HOT, Table.COLD)
            for key, value in view.scan(table, b"", None)
            if body in bytes(value)
        ]
    disk.flip(table, key, at)


@pytest.mark.parametrize("window_bytes", [1 << 20, 0], ids=["hot", "cold"])
@given(
    batches=st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=8),
    settled=st.sets(st.integers(0, 31)),
)
@example(batches=[(2, False), (2, True), (1, True), (3, False)], settled={1, 2})
@example(batches=[(1, True)], settled=set())
def test_all_that_can_be_read_is_served_around_what_cannot(
    window_bytes: int, batches: list[tuple[int, bool]], settled: set[int]
) -> None:
    """`batches`: how many messages each has, and whether it is damaged."""
    disk = MemoryDisk()
    before = Node(disk, (), window_bytes)
    entries: list[tuple[list[bytes], bool]] = []
    number = 0
    for count, is_damaged in batches:
        bodies = [b"<%d>" % each for each in range(number, number + count)]
        number += count
        before.queue.enqueue([ORIGIN] * count, bodies, sum(map(len, bodies)), persistent=True)
        before.commits.flush()
        entries.append((bodies, is_damaged))
    for each, handout in enumerate(list(before.take())):
        if each in settled:
            before.queue.settle(handout, 0, 1, Outcome.ACKED)
    before.commits.flush()
    gone = {b"<%d>" % each for each in settled}
    entries = [(bodies, bad) for bodies, bad in entries if not gone.issuperset(bodies)]
    for bodies, is_damaged in entries:
        if is_damaged:
            flip(disk, bodies[0])

    after = Node(disk, before.groups, window_bytes)
    ready = [[body for body in bodies if body not in gone] for bodies, _ in entries]
    assert after.queue.ready_count == sum(map(len, ready))
    served: list[bytes] = []
    dropped = 0
    while True:
        served += after.bodies()
        if after.queue.damage is None:
            break
        dropped += after.queue.drop_damaged()
    assert served == [
        body for bodies, (_, bad) in zip(ready, entries, strict=True) for body in bodies if not bad
    ]
    damaged = [bodies for bodies, (_, bad) in zip(ready, entries, strict=True) if bad]
    assert (dropped, after.queue.ready_count) == (sum(map(len, damaged)), 0)
    assert (after.crashes > 0) == bool(damaged)
    after.commits.flush()
    again = Node(disk, before.groups, window_bytes)
    assert again.bodies() == served, "what was dropped is gone, and nothing else"


def test_what_is_settled_is_still_known_when_an_entry_behind_cannot_be_decoded() -> None:
    disk = MemoryDisk()
    before = Node(disk, (), 1 << 20)
    before.queue.enqueue([ORIGIN] * 2, [b"<0>", b"<1>"], 6, persistent=True)
    before.commits.flush()
    first, _second = list(before.take())
    before.queue.settle(first, 0, 1, Outcome.ACKED)
    before.commits.flush()
    before.commits.batch().append(before.groups[0], 3, b"\xffof a later version", tag=1)
    before.commits.flush()

    journal = Node(disk, before.groups, 1 << 20).queue.journal
    assert journal is not None
    for _ in range(2):
        with pytest.raises(StorageError, match="shape"):
            journal.load(1, 4)
    assert [part.contents for part in journal.load(1, 3)] == [[b"<1>"]]
