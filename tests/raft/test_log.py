"""The log in memory, against a list."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fluffle.raft.config import Configuration
from fluffle.raft.log import DATA, Entry, Log, SnapshotMeta, size_of
from fluffle.raft.ranges import Ranges
from tests.suite.seeds import machine_settings


def meta(index: int, term: int) -> SnapshotMeta:
    return SnapshotMeta(index, term, Configuration(), Ranges(), 0, 0)


def entries(first: int, *terms: int) -> list[Entry]:
    return [Entry(first + at, term, DATA, b"x" * term) for at, term in enumerate(terms)]


def log_of(*terms: int) -> Log:
    log = Log(meta(0, 0))
    log.append(entries(1, *terms))
    return log


class LogAgainstList(RuleBasedStateMachine):
    """Terms, entries and bounds are those of a list of all entries since the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log(meta(0, 0))
        self.model: list[Entry] = []
        self.term = 1

    @rule(count=st.integers(1, 4), is_new_term=st.booleans())
    def append(self, count: int, is_new_term: bool) -> None:
        self.term += is_new_term
        more = entries(len(self.model) + 1, *[self.term] * count)
        self.model += more
        self.log.append(more)

    @precondition(lambda self: self.log.commit < self.log.last_index)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        first = data.draw(st.integers(self.log.commit + 1, self.log.last_index))
        del self.model[first - 1 :]
        self.log.truncate(first)

    @rule(data=st.data())
    def commit_and_apply(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(self.log.commit, self.log.last_index))
        self.log.commit = self.log.handed = self.log.applied = index

    @rule()
    def submit(self) -> None:
        submitted = self.log.submitted
        assert self.log.submit() == self.model[submitted:]
        assert self.log.submit() == []

    @rule(data=st.data())
    def evict(self, data: st.DataObject) -> None:
        self.log.submit()
        self.log.evict(data.draw(st.integers(0, self.log.applied)))

    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        self.log.submit()
        index = data.draw(st.integers(self.log.floor, self.log.applied))
        if index:
            self.log.compact(meta(index, self.model[index - 1].term))

    @rule()
    def restart(self) -> None:
        """Restart from what a store would find."""
        floor = self.log.floor
        above = self.model[floor:]
        changes = [
            (entry.index, entry.term)
            for at, entry in enumerate(above)
            if at == 0 or above[at - 1].term != entry.term
        ]
        applied, commit = self.log.applied, self.log.commit
        self.log = Log(self.log.snapshot, changes, len(self.model))
        self.log.commit, self.log.handed, self.log.applied = commit, commit, applied

    @invariant()
    def terms_are_those_of_the_list(self) -> None:
        log = self.log
        assert log.last_index == len(self.model)
        assert log.term_at(log.last_index + 1) is None
        assert log.floor == 0 or log.term_at(log.floor - 1) is None
        for entry in self.model[log.floor :]:
            assert log.term_at(entry.index) == entry.term
        assert log.last_term == (self.model[-1].term if self.model else 0)

    @invariant()
    def the_tail_is_the_end_of_the_list(self) -> None:
        log = self.log
        assert log.tail == self.model[log.tail_first - 1 :]
        assert log.tail_bytes == sum(map(size_of, log.tail))

    @invariant()
    def the_last_not_newer_is_found(self) -> None:
        log = self.log
        for index in range(log.floor, log.last_index + 2):
            for term in range(self.term + 2):
                fitting = [e for e in self.model[log.floor : index] if e.term <= term]
                found = log.last_not_newer(index, term)
                if fitting:
                    assert found == (fitting[-1].index, fitting[-1].term)
                else:
                    assert found == (log.floor, log.snapshot.term)


TestLogAgainstList = LogAgainstList.TestCase
TestLogAgainstList.settings = machine_settings()


def test_what_is_committed_is_never_truncated() -> None:
    log = log_of(1, 1, 1)
    log.commit = 2
    with pytest.raises(AssertionError, match="truncation from 2 with commit 2"):
        log.truncate(2)


def test_entries_follow_each_other() -> None:
    log = log_of(1, 1)
    with pytest.raises(AssertionError, match="4 behind 2"):
        log.append(entries(4, 1))


def test_an_unknown_term_equals_no_term() -> None:
    """Not 0: a missing entry must never match another missing one."""
    log = Log(meta(10, 3), [], 10)
    assert log.term_at(9) is None
    assert log.term_at(10) == 3
    assert log.term_at(11) is None


def test_a_slice_ends_with_its_size_but_is_never_empty() -> None:
    log = log_of(1, 1, 1)
    size = size_of(log.tail[0])
    assert [e.index for e in log.slice(1, 4, 1)] == [1]
    assert [e.index for e in log.slice(1, 4, 2 * size)] == [1, 2]
    assert [e.index for e in log.slice(2, 3, 1 << 20)] == [2]


def test_a_snapshot_from_elsewhere_leaves_nothing() -> None:
    log = log_of(1, 1, 2)
    log.reset(meta(50, 7))
    assert (log.floor, log.last_index, log.last_term) == (50, 50, 7)
    assert (log.commit, log.handed, log.applied, log.submitted) == (50, 50, 50, 50)
    assert log.tail == []
    log.append(entries(51, 7))
    assert log.term_at(51) == 7


def test_damage_is_received_again_from_the_floor_on() -> None:
    log = log_of(1, 1, 2, 2)
    log.submit()
    log.commit = log.handed = log.applied = 4
    log.cut_damage(3)
    assert (log.last_index, log.last_term, log.submitted) == (2, 1, 2)
    assert (log.commit, log.handed, log.applied) == (0, 0, 0)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=8).map(sorted))
def test_a_compacted_log_goes_on(terms: list[int]) -> None:
    log = log_of(*terms)
    log.submit()
    log.commit = log.handed = log.applied = len(terms)
    log.compact(meta(len(terms), terms[-1]))
    log.append(entries(len(terms) + 1, terms[-1]))
    assert log.term_at(len(terms) + 1) == terms[-1]
