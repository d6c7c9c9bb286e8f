"""Messages leave memory at the pace of the disk, and what is gone keeps none."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from fluffle.broker.durability.durability import PageOut
from fluffle.broker.durability.local_journal import LocalJournals
from fluffle.broker.queues import ready_list
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.engine import Queue, QueueStores
from fluffle.broker.queues.queue_api import Consumer, SharedCredit
from fluffle.broker.runtime import commits as group_commit
from fluffle.broker.runtime.commits import Commits
from fluffle.broker.runtime.turn import Turn
from fluffle.storage.disk import Disk
from tests.broker.queues.queue_harness import ORIGIN, FakeSink, numbered
from tests.storage.support import ManualWriter
from tests.support.queue_host import FakeQueueHost
from tests.support.store import open_store


class Harness:
    """A long transient queue, on a node whose disk is moved by hand."""

    def __init__(self) -> None:
        self.turn = Turn(lambda _act: None)
        self.store = open_store(make_writer=self._make_writer)
        self.commits = Commits(self.store, self.turn)
        self.journals = LocalJournals(self.store.log, self.commits, {})
        ports = FakeQueueHost()
        self.queue = Queue(QueueSpec("q"), ports, QueueStores(spill=self.journals.spill))
        self.shedding = PageOut(lambda: [self.queue], self.journals.spill, self.commits, self)

    def relieve(self) -> None:
        """Do nothing: there are no connections."""

    def _make_writer(self, disk: Disk, wake: Callable[[], None]) -> ManualWriter:
        self.writer = ManualWriter(disk, wake)
        return self.writer

    def step(self) -> bool:
        """Do one commit, if there is one to do."""
        self.commits.flush()
        return self.writer.step()


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    monkeypatch.setattr(group_commit, "BEHIND_BYTES", 200)
    monkeypatch.setattr(ready_list, "SEGMENT_MESSAGES_MAX", 1)
    return Harness()


def take_all(queue: Queue) -> list[bytes]:
    sink = FakeSink()
    consumer = Consumer("c", queue, sink, shared=SharedCredit(), no_ack=True)
    queue.attach(consumer)
    for delivery_batch in queue.pump():
        sink.deliver(delivery_batch)
    queue.detach(consumer)
    return sink.contents


def test_one_long_queue_is_not_written_all_at_once(harness: Harness) -> None:
    """Messages being written are in memory twice, while memory is short."""
    contents = numbered(100, 100)
    for content in contents:
        harness.queue.enqueue([ORIGIN], [content], len(content))
    harness.shedding.shed()
    assert 0 < harness.commits.unwritten_bytes < 300
    while harness.step():
        assert harness.commits.unwritten_bytes < 300
    assert harness.commits.done.commits > 5
    assert harness.commits.done.written_bytes > sum(map(len, contents[1:]))
    assert take_all(harness.queue) == contents


def test_what_was_to_leave_and_was_taken_is_gone(harness: Harness) -> None:
    """Taken messages leave memory without another look, even if no more messages come."""
    content = b"".join(numbered(100, 1))
    harness.queue.enqueue([ORIGIN], [b"first"], 5)
    harness.queue.enqueue([ORIGIN] * 2, [content, b"last"], len(content))
    references = sys.getrefcount(content)
    harness.shedding.shed()
    sink = FakeSink()
    sink.left = 2
    consumer = Consumer("c", harness.queue, sink, shared=SharedCredit(), no_ack=True)
    harness.queue.attach(consumer)
    harness.queue.pump()
    sink.open()
    harness.queue.pump()
    assert (harness.queue.ready_count, sys.getrefcount(content)) == (0, references - 1)
