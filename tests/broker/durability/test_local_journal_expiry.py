"""Messages that expire in a durable queue: a restart neither prolongs their life nor loses it."""

from __future__ import annotations

import pytest

from fluffle.broker.base.message import Origin
from fluffle.broker.durability.local_journal import LocalJournals, of_tag
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.dead_letters import DeadMessages
from fluffle.broker.queues.engine import Queue, QueueStores
from fluffle.broker.queues.expiry_times import NEVER_MS
from fluffle.broker.queues.queue_api import Consumer, DeliverySource, Outcome, SharedCredit
from fluffle.broker.queues.settings import QueueSettings
from fluffle.broker.runtime.commits import Commits
from fluffle.broker.runtime.turn import Turn
from fluffle.storage.disk import MemoryDisk
from fluffle.storage.store import InstantWriter, Store
from tests.broker.queues.queue_harness import FakeSink, lane_of
from tests.support.queue_arguments import queue_arguments
from tests.support.queue_host import FakeQueueHost, ignore
from tests.support.store import raise_it

ORIGIN = Origin("", "q")
START_MS = 1_700_000_000_000


class Node:
    """Queue on a disk, from a start on; time passes by hand."""

    def __init__(self, disk: MemoryDisk, groups: tuple[int, ...] = (), now_ms: int = START_MS):
        store = Store(disk, InstantWriter, on_fatal=raise_it)
        self.commits = Commits(store, Turn(lambda _act: None))
        self.log = store.log
        journals = LocalJournals(store.log, self.commits, {})
        journal = journals.reopen(groups) if groups else journals.create(journals.new_groups())
        self.groups = journal.groups
        self.now = now_ms
        self.wakes: list[int] = []
        self.dead: list[bytes] = []
        self.queue = Queue(
            QueueSpec("q", durable=True, arguments=queue_arguments(dead_letter_exchange="dlx")),
            FakeQueueHost(ignore, self, dead_letter=self.on_dead),
            QueueStores(journal),
        )
        self.queue.recover()

    def on_dead(self, queue: str, settings: QueueSettings, dead: DeadMessages) -> None:
        assert (queue, settings) == ("q", self.queue.settings)
        self.dead += dead.contents

    def now_ms(self) -> int:
        return self.now

    def wake(self, _queue: DeliverySource, at_ms: int) -> None:
        self.wakes.append(at_ms)

    def publish(self, *bodies: bytes, expiration_ms: int | None = None) -> None:
        self.queue.enqueue(
            [ORIGIN] * len(bodies),
            [*bodies],
            sum(map(len, bodies)),
            persistent=True,
            expiration_ms=expiration_ms,
        )

    def pump(self) -> None:
        self.queue.pump()
        self.commits.flush()


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk()


def test_what_expires_next_is_known_after_a_restart(disk: MemoryDisk) -> None:
    before = Node(disk)
    before.publish(b"a", b"b", expiration_ms=1_000)
    before.publish(b"c")
    before.commits.flush()
    after = Node(disk, before.groups, START_MS + 600)
    assert after.wakes == [START_MS + 1_000]
    assert lane_of(after.queue)._ready[0].contents == [], "nothing was read for that"
    after.pump()
    assert after.dead == []
    after.now = START_MS + 1_000
    after.pump()
    assert (after.dead, after.queue.ready_count) == ([b"a", b"b"], 1)


def test_an_entry_whose_first_to_expire_is_settled_wakes_the_queue_once_too_early(
    disk: MemoryDisk,
) -> None:
    """The tag of an entry stays as it was written; which of its messages are left, and until when,
    is known once it is read.  Until then the queue looks early, and nothing dies of that."""
    before = Node(disk)
    before.publish(b"a", expiration_ms=400)
    before.publish(b"b", expiration_ms=1_000)
    before.commits.flush()
    taker = Consumer("tag", before.queue, FakeSink(), shared=SharedCredit())
    delivery_batch = before.queue.get(taker)
    assert delivery_batch is not None
    before.queue.settle(delivery_batch, 0, 1, Outcome.ACKED)
    before.commits.flush()
    after = Node(disk, before.groups, START_MS + 100)
    assert after.wakes == [START_MS + 400]
    after.now = START_MS + 400
    after.pump()
    assert (after.wakes[1:], after.dead) == ([START_MS + 1_000], [])
    after.now = START_MS + 999
    after.pump()
    assert after.dead == []
    after.now = START_MS + 1_000
    after.pump()
    assert (after.dead, after.queue.ready_count) == ([b"b"], 0)


def test_what_has_expired_meanwhile_goes_first_and_for_good(disk: MemoryDisk) -> None:
    before = Node(disk)
    for number in range(50):
        before.publish(b"%d" % number, expiration_ms=1_000 + number)
        before.commits.flush()
    after = Node(disk, before.groups, START_MS + 1_030)
    after.pump()
    assert after.dead == [b"%d" % number for number in range(31)]
    again = Node(disk, before.groups, START_MS + 1_030)
    assert (again.queue.ready_count, again.wakes) == (19, [START_MS + 1_031])


def test_a_queue_in_which_nothing_expires_asks_for_nothing(disk: MemoryDisk) -> None:
    before = Node(disk)
    before.publish(b"a", b"b")
    before.commits.flush()
    after = Node(disk, before.groups)
    after.pump()
    assert (after.wakes, after.queue.ready_count) == ([], 2)


def test_the_tag_of_an_entry_says_when_its_first_message_expires(disk: MemoryDisk) -> None:
    node = Node(disk)
    node.publish(b"a", b"b")
    node.publish(b"c", expiration_ms=70)
    node.publish(b"d", expiration_ms=315_360_000_000)
    node.commits.flush()
    node.publish(b"e")
    node.commits.flush()
    tags = [tag for _index, tag, _size in node.log.entries(node.groups[0], 0)]
    assert [of_tag(tag) for tag in tags] == [(4, START_MS + 70), (1, NEVER_MS)]
    assert tags[1] == 1, "as it was before there was any of this"


def test_a_tag_has_no_room_for_what_is_too_far_away(disk: MemoryDisk) -> None:
    node = Node(disk)
    last_ms = 2**44 - 1
    for at_ms in (last_ms, last_ms + 1, NEVER_MS - 1):
        node.publish(b"a", expiration_ms=at_ms - START_MS)
        node.commits.flush()
    tags = [tag for _index, tag, _size in node.log.entries(node.groups[0], 0)]
    assert [of_tag(tag) for tag in tags] == [(1, last_ms), (1, NEVER_MS), (1, NEVER_MS)]
    assert Node(disk, node.groups).queue.ready_count == 3
