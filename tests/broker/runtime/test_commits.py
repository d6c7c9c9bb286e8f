"""Group commit: what is reported and what is let go, also when there is nothing left to write."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.base.message import Origin
from fluffle.broker.durability.local_journal import LocalJournals
from fluffle.broker.queues.journal import Journal
from fluffle.broker.runtime import commits as group_commit
from fluffle.broker.runtime.commits import Commits
from fluffle.broker.runtime.turn import Turn
from fluffle.storage import store as storage
from fluffle.storage.disk import Disk
from tests.storage.support import ManualWriter
from tests.support.store import open_store

ORIGIN = Origin("", "q")


class Harness:
    """The commits of a node with one queue, moved by hand."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []
        self.turn = Turn(self.callbacks.append)
        self.store = open_store(make_writer=self._make_writer)
        self.commits = Commits(self.store, self.turn)
        journals = LocalJournals(self.store.log, self.commits, {})
        self.journal: Journal = journals.create(journals.new_groups())
        self._next_sequence = 1

    def _make_writer(self, disk: Disk, wake: Callable[[], None]) -> ManualWriter:
        self.writer = ManualWriter(disk, wake)
        return self.writer

    def publish(self, size_bytes: int) -> int:
        """A message; its sequence number."""
        first, self._next_sequence = self._next_sequence, self._next_sequence + 1
        self.journal.enqueued([ORIGIN], [b"m"], size_bytes, first, apart=False)
        return first

    def run(self) -> None:
        """Have all turns that were asked for."""
        while self.callbacks:
            self.callbacks.pop(0)()


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    monkeypatch.setattr(group_commit, "BEHIND_BYTES", 10)
    return Harness()


def test_what_is_settled_before_it_was_written_is_not_waited_for(harness: Harness) -> None:
    """A consumer may keep up with a publisher that wants no confirms."""
    for _ in range(20):
        harness.journal.settled([harness.publish(1)])
        harness.run()
    assert (harness.writer.work, harness.commits.unwritten_bytes) == (None, 0)


def test_who_waits_for_the_disk_goes_on_when_nothing_is_left_to_write(harness: Harness) -> None:
    reported: list[str] = []
    harness.publish(1)
    harness.run()
    late = harness.publish(11)
    assert harness.commits.is_behind
    harness.commits.when_caught_up(lambda: reported.append("caught up"))
    harness.journal.settled([late])
    harness.writer.step()
    harness.run()
    assert (harness.writer.work, reported) == (None, ["caught up"])


def test_what_is_reported_by_who_went_on_is_written(harness: Harness) -> None:
    """Also if he went on because there was nothing to write, and so in the midst of a turn."""

    def publish_more() -> None:
        harness.publish(1)

    for size_bytes in (11, 1):
        harness.commits.when_caught_up(publish_more)
        harness.journal.settled([harness.publish(size_bytes)])
        harness.run()
        assert harness.writer.step()
        harness.run()


def names_of(harness: Harness) -> set[bytes]:
    return {name for name, _ in harness.store.catalog.items("binding")}


def test_very_many_definitions_are_named_by_the_commit_that_removes_them(harness: Harness) -> None:
    for name in (b"a", b"b", b"c"):
        harness.commits.put("binding", name, b"v")
    harness.run()
    harness.writer.step()
    named: list[bytes] = []

    def names() -> Iterator[bytes]:
        for name in (b"a", b"b"):
            named.append(name)
            yield name

    before = harness.commits.done.changes
    harness.commits.remove_all("binding", names(), 2)
    harness.run()
    assert (named, harness.commits.done.changes) == ([], before + 2)
    harness.writer.step()
    assert named == [b"a", b"b"]
    assert names_of(harness) == {b"c"}


def test_what_is_put_together_is_in_one_commit_however_much_it_is(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "BATCH_BYTES_MAX", 1)
    monkeypatch.setattr(storage, "COMMIT_BYTES_MAX", 1)
    for name in (b"a", b"b"):
        harness.commits.put("binding", name, b"v")
    with harness.commits.together():
        harness.commits.remove("binding", b"a")
        for name in (b"c", b"d"):
            harness.commits.put("binding", name, b"v")
    harness.commits.put("binding", b"e", b"v")
    found = []
    harness.run()
    while harness.writer.step():
        found.append(names_of(harness))
        harness.run()
    assert found == [{b"a"}, {b"a", b"b"}, {b"b", b"c", b"d"}, {b"b", b"c", b"d", b"e"}]


class Waiter:
    """Waits for one commit."""

    durable = 0

    def on_durable(self, ticket: int) -> None:
        self.durable = ticket


@given(st.lists(st.tuples(st.sampled_from("pra|"), st.sets(st.sampled_from("abc"), min_size=1))))
def test_what_is_put_and_removed_by_many_is_so_in_the_order_in_which_it_came(
    asked: list[tuple[str, set[str]]],
) -> None:
    """p puts, r removes one by one, a removes all at once, | ends a turn, and maybe a commit."""
    harness, known = Harness(), set[bytes]()
    for what, some in asked:
        names = {name.encode() for name in some}
        if what == "p":
            for name in names:
                harness.commits.put("binding", name, b"v")
            known |= names
        elif what == "|":
            harness.run()
            if "a" in some:
                harness.writer.step()
            continue
        elif what == "r":
            for name in names:
                harness.commits.remove("binding", name)
        else:
            harness.commits.remove_all("binding", iter(names), len(names))
        if what in "ra":
            known -= names
    waiter, ticket = Waiter(), harness.commits.ticket
    harness.commits.wait(waiter, ticket)
    harness.run()
    while not waiter.durable:
        harness.writer.step()
        harness.run()
    assert waiter.durable == ticket
    assert names_of(harness) == known
