"""A durable queue on a disk of which some entries are damaged, after a start, against a list."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fluffle.broker.base.message import Origin
from fluffle.broker.durability.local_journal import LocalJournals
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.engine import Queue, QueueStores
from fluffle.broker.queues.queue_api import DeliveryBatch, Outcome
from fluffle.broker.runtime.commits import Commits
from fluffle.broker.runtime.turn import Turn
from fluffle.storage.disk import MemoryDisk
from fluffle.storage.errors import StorageError
from fluffle.storage.layout import COLD_VALUE, Table, cold_key
from fluffle.storage.log import UpkeepTuning
from fluffle.storage.store import InstantWriter, Store
from tests.support.no_timeout import NoTimeoutHolder
from tests.support.queue_host import FakeQueueHost, ignore
from tests.support.store import raise_it

ORIGIN = Origin("", "q")


class Getter(NoTimeoutHolder):
    """Takes what it is given."""

    no_ack = False

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def took(self, delivery_batch: DeliveryBatch) -> None: ...

    def settled(self, count: int) -> None: ...

    def deliver(self, delivery_batch: DeliveryBatch) -> None: ...


class Node:
    """Queue on a disk, from a start on.  Every `commit` is one."""

    def __init__(self, disk: MemoryDisk, groups: tuple[int, ...], window_bytes: int) -> None:
        tuning = UpkeepTuning(window_bytes=window_bytes)
        store = Store(disk, InstantWriter, on_fatal=raise_it, tuning=tuning)
        self.commits = Commits(store, Turn(lambda _act: None))
        journals = LocalJournals(store.log, self.commits, {})
        journal = journals.reopen(groups) if groups else journals.create(journals.new_groups())
        self.groups = journal.groups
        self.crashes = 0
        self.queue = Queue(
            QueueSpec("q", durable=True),
            FakeQueueHost(ignore, on_crash=self._crashed),
            QueueStores(journal),
        )
        self.queue.recover()

    def _crashed(self, queue: Queue) -> None:
        assert queue.damage is not None
        self.crashes += 1

    def take(self) -> Iterator[DeliveryBatch]:
        """Messages one by one, as long as there are any."""
        while (delivery_batch := self.queue.get(Getter(self.queue))) is not None:
            yield delivery_batch

    def bodies(self) -> list[bytes]:
        return [delivery_batch.contents[0] for delivery_batch in self.take()]


def flip_cold(disk: MemoryDisk, group: int, index: int, at: int) -> None:
    """Change a byte of an entry that has left the hot window; its head is in front."""
    disk.flip(Table.COLD, cold_key(group, index), at)


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
    for each, delivery_batch in enumerate(list(before.take())):
        if each in settled:
            before.queue.settle(delivery_batch, 0, 1, Outcome.ACKED)
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


def filled(disk: MemoryDisk, *counts: int) -> Node:
    """A queue of so many batches, with so many messages each; all of them have left the window."""
    node = Node(disk, (), window_bytes=0)
    number = 0
    for count in counts:
        bodies = [b"<%d>" % each for each in range(number, number + count)]
        node.queue.enqueue([ORIGIN] * count, bodies, sum(map(len, bodies)), persistent=True)
        node.commits.flush()
        number += count
    push_out(node)
    return node


def push_out(node: Node) -> None:
    """Have all that was written so far leave the window: the newest record stays in it."""
    node.commits.put("kind", b"name", b"")
    node.commits.batch().append(999, node.commits.ticket, b"")
    node.commits.flush()


def test_where_a_head_is_damaged_the_next_batch_says_how_far_that_goes() -> None:
    """The extent of damage at the end is unknown."""
    disk = MemoryDisk()
    before = filled(disk, 2, 3, 1, 2)
    messages = before.groups[0]
    for index in (3, 7):
        flip_cold(disk, messages, index, at=0)
    Node(disk, before.groups, window_bytes=0)  # a start changes nothing
    node = Node(disk, before.groups, window_bytes=0)
    assert (node.queue.ready_count, node.crashes) == (2 + 3 + 1 + 1, 0)
    assert (node.bodies(), node.crashes) == ([b"<0>", b"<1>"], 1)
    assert node.queue.damage is not None
    assert node.queue.damage.place == f"table cold, group {messages} index 3 part 0"
    assert node.queue.drop_damaged() == 3
    assert node.bodies() == [b"<5>"]
    node.queue.enqueue([ORIGIN], [b"new"], 3, persistent=True)
    assert node.queue.drop_damaged() == 1
    assert node.bodies() == [b"new"]
    node.commits.flush()
    again = Node(disk, before.groups, window_bytes=0)
    assert again.bodies() == [b"<0>", b"<1>", b"<5>", b"new"]
    assert again.queue.purge() == 0


def test_batches_without_heads_that_follow_each_other() -> None:
    disk = MemoryDisk()
    before = filled(disk, 2, 2, 2)
    for index in (1, 3):
        flip_cold(disk, before.groups[0], index, at=0)
    node = Node(disk, before.groups, window_bytes=0)
    assert node.bodies() == []
    assert [node.queue.drop_damaged() for _ in range(2)] == [2, 2]
    assert node.bodies() == [b"<4>", b"<5>"]


def test_a_head_that_is_damaged_while_the_node_runs_needs_a_start() -> None:
    disk = MemoryDisk()
    before = filled(disk, 1, 2, 1)
    node = Node(disk, before.groups, window_bytes=0)
    flip_cold(disk, before.groups[0], 2, at=0)
    assert node.bodies() == [b"<0>"]
    assert (node.queue.drop_damaged(), node.queue.damage is None) == (0, False)
    node = Node(disk, before.groups, window_bytes=0)
    assert node.bodies() == [b"<0>"]
    assert (node.queue.drop_damaged(), node.bodies()) == (2, [b"<3>"])


def noted(disk: MemoryDisk) -> Node:
    """Three batches of two messages, of which the second of each is settled."""
    node = filled(disk, 2, 2, 2)
    for number, delivery_batch in enumerate(list(node.take())):
        if number % 2:
            node.queue.settle(delivery_batch, 0, 1, Outcome.ACKED)
            node.commits.flush()
    push_out(node)
    return node


@pytest.mark.parametrize("at", [0, COLD_VALUE.size], ids=["head", "bytes"])
def test_a_queue_that_does_not_know_what_was_acknowledged_hands_out_nothing(at: int) -> None:
    """Until somebody says that it may come again; what is known of the rest stays known."""
    disk = MemoryDisk()
    before = noted(disk)
    for note in (2, 3):
        flip_cold(disk, before.groups[1], note, at)
    Node(disk, before.groups, window_bytes=0)
    node = Node(disk, before.groups, window_bytes=0)
    assert (node.crashes, node.bodies()) == (1, [])
    assert node.queue.damage is not None
    assert node.queue.damage.place.startswith(f"table cold, group {before.groups[1]} index 2")
    node.queue.enqueue([ORIGIN], [b"new"], 3, persistent=True)
    assert node.queue.drop_damaged() == 0
    assert node.bodies() == [b"<0>", b"<2>", b"<3>", b"<4>", b"<5>", b"new"]
    node.commits.flush()
    again = Node(disk, before.groups, window_bytes=0)
    assert (again.crashes, len(again.bodies())) == (0, 6)


def test_a_purge_needs_no_notes() -> None:
    disk = MemoryDisk()
    before = noted(disk)
    flip_cold(disk, before.groups[1], 1, at=0)
    node = Node(disk, before.groups, window_bytes=0)
    assert (node.queue.purge(), node.queue.damage) == (4, None)
    node.commits.flush()
    again = Node(disk, before.groups, window_bytes=0)
    assert (again.crashes, again.bodies()) == (0, [])


def test_both_kinds_of_damage() -> None:
    disk = MemoryDisk()
    before = noted(disk)
    flip_cold(disk, before.groups[1], 1, at=0)
    flip_cold(disk, before.groups[0], 3, at=0)
    node = Node(disk, before.groups, window_bytes=0)
    assert (node.queue.drop_damaged(), node.bodies()) == (0, [b"<0>", b"<1>"])
    assert (node.queue.drop_damaged(), node.bodies()) == (1, [b"<4>"])
