"""Logs: what was appended and not deleted can be read, wherever it is by now."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fluffle.storage.disk import Disk, MemoryDisk
from fluffle.storage.environment import open_environment
from fluffle.storage.errors import Corrupt, CorruptEntry
from fluffle.storage.layout import INDEX_END, PART_BYTES, SEQUENCE, Table, cold_key
from fluffle.storage.log import COMPACT_ENTRIES, Positions, UpkeepTuning
from fluffle.storage.store import Batch
from tests.storage.support import Host


def cold_indexes(host: Host, group: int) -> list[int]:
    with host.disk.view() as view:
        keys = view.scan(Table.COLD, cold_key(group, 0), cold_key(group + 1, 0))
        return [int.from_bytes(key[8:16], "big") for key, _ in keys]


def records(host: Host) -> int:
    with host.disk.view() as view:
        return sum(1 for _ in view.scan(Table.HOT, b"", None))


def test_entries_are_read_by_index(host: Host) -> None:
    host.append(1, 1, 5, 9)
    host.append(2, 5)
    assert host.read(1) == {1: b"entry 1", 5: b"entry 5", 9: b"entry 9"}
    assert host.read(1, 2, 9) == {5: b"entry 5"}
    assert host.read(2) == {5: b"entry 5"}
    assert host.read(3) == {}
    assert list(host.log.entries(1, 5)) == [
        (5, 5, 7),
        (9, 9, 7),
    ]


@pytest.mark.parametrize(("bytes_max", "read"), [(0, 1), (13, 1), (14, 2), (15, 2), (21, 3)])
def test_reading_ends_before_the_limit_but_not_before_an_entry(
    host: Host, bytes_max: int, read: int
) -> None:
    host.append(1, *range(1, 10))
    entries = host.log.read(1, 1, 100, bytes_max=bytes_max)
    assert [entry.index for entry in entries] == list(range(1, read + 1))


def test_an_entry_without_bytes_is_an_entry(host: Host) -> None:
    batch = Batch()
    batch.append(1, 1, b"", tag=4)
    host.submit(batch)
    host.settle()
    assert host.read(1) == {1: b""}


def test_what_survives_moves_to_the_cold_table(host: Host) -> None:
    for index in range(1, 60):
        host.append(1, index)
    moved = cold_indexes(host, 1)
    assert moved == list(range(1, len(moved) + 1))
    assert len(moved) > 40
    assert records(host) < 20
    assert host.indexes(1) == list(range(1, 60))
    assert host.read(1) == {index: b"entry %d" % index for index in range(1, 60)}
    host.restart()
    assert host.read(1) == {index: b"entry %d" % index for index in range(1, 60)}


def test_what_is_deleted_in_time_never_moves(host: Host) -> None:
    for index in range(1, 60):
        host.append(1, index)
        host.delete(1, index, index + 1)
        host.settle()
    assert cold_indexes(host, 1) == []
    assert host.log.groups() == []


def test_a_large_entry_lies_in_parts(host: Host) -> None:
    payload = bytes(range(251)) * 2000
    assert len(payload) > 7 * PART_BYTES
    host.append(1, 1, payload=payload)
    host.append(1, 2)
    assert host.read(1)[1] == payload
    for index in range(3, 20):
        host.append(1, index)
    assert cold_indexes(host, 1)[:9] == [1] * 8 + [2]
    assert host.read(1)[1] == payload
    host.delete(1, 1, 2)
    assert host.writer.step()
    assert 1 not in host.read(1)
    assert cold_indexes(host, 1)[0] == 1, "only a slice of it went with the first commit"
    host.settle()
    assert cold_indexes(host, 1)[0] == 2


def test_deletions_one_by_one_are_carried_out_as_fast_as_they_come(host: Host) -> None:
    entries = 200
    host.append(1, *range(1, entries + 1))
    host.append(2, 1, payload=bytes(600))
    assert len(cold_indexes(host, 1)) == entries
    left = []
    for first in range(1, entries, 20):
        batch = Batch()
        for index in range(first, first + 20):
            batch.delete(1, index, index + 1)
        host.submit(batch)
        if first > 1:  # so that the end of each commit begins one with the next deletions
            assert host.writer.step()
            left.append(len(cold_indexes(host, 1)))
    assert left == [200, 180, 160, 140, 120, 100, 80, 60, 40], "each commit carries out the last"
    host.settle()
    assert cold_indexes(host, 1) == []


def test_a_deleted_group_is_forgotten_once_its_cold_entries_are_gone(host: Host) -> None:
    host.append(1, *range(1, 10))
    host.append(2, 1, payload=bytes(600))
    assert cold_indexes(host, 1) == list(range(1, 10))
    host.delete(1, 0)
    host.delete(1, 0, 5)  # a second pending deletion outlives the group
    assert host.writer.step()
    assert list(host.log._groups) == [1, 2]
    host.settle()
    assert list(host.log._groups) == [2]
    host.append(1, 1)
    assert host.indexes(1) == [1]


def test_an_entry_in_several_records_moves_whole(host: Host) -> None:
    payload = bytes(range(251)) * 10_000
    host.append(1, 1, payload=payload)
    assert records(host) > 2
    host.append(1, 2, payload=bytes(600))
    assert records(host) == 1
    assert host.read(1, 1, 2) == {1: payload}


def test_a_deletion_is_at_once_though_its_work_takes_commits(host: Host) -> None:
    host.append(1, *range(1, 40))
    host.append(1, 40, payload=bytes(600))
    assert len(cold_indexes(host, 1)) == 39
    host.delete(1, 0, 31)
    assert host.writer.step()
    assert host.indexes(1) == list(range(31, 41))
    assert list(host.read(1)) == list(range(31, 41))
    assert len(cold_indexes(host, 1)) > 30
    host.restart()
    assert host.indexes(1) == list(range(31, 41))
    host.store.flush()
    host.settle()
    assert cold_indexes(host, 1) == list(range(31, 41))


def test_a_tail_can_be_replaced_wherever_it_is(host: Host) -> None:
    host.append(1, *range(1, 20))
    host.append(1, 20, payload=bytes(600))  # everything before it is cold now
    batch = Batch()
    batch.delete(1, 10, INDEX_END)
    batch.append(1, 10, b"anew")
    host.submit(batch)
    assert host.writer.step()
    expected = {index: b"entry %d" % index for index in range(1, 10)} | {10: b"anew"}
    assert host.read(1) == expected
    host.restart()
    assert host.read(1) == expected
    host.append(2, 1, payload=bytes(600))
    host.store.flush()
    host.settle()
    host.append(2, 2, payload=bytes(600))
    assert cold_indexes(host, 1) == list(range(1, 11))
    assert host.read(1) == expected


def test_what_moves_while_it_is_deleted_is_deleted(host: Host) -> None:
    host.append(1, 1)
    big = Batch()
    big.append(2, 1, bytes(600))
    host.submit(big)  # this commit moves 1/1 to the cold table
    host.delete(1, 1)
    assert host.writer.step()
    assert cold_indexes(host, 1) == [1]
    host.settle()
    assert cold_indexes(host, 1) == []
    assert host.indexes(1) == []


def test_an_entry_can_be_read_while_it_moves(host: Host) -> None:
    host.append(1, 1)
    big = Batch()
    big.append(2, 1, bytes(600))
    host.submit(big)
    host.writer.commit()  # on disk it has moved; nobody has heard of it
    assert cold_indexes(host, 1) == [1]
    assert host.read(1) == {1: b"entry 1"}
    assert host.indexes(1) == [1]


def test_the_newest_record_stays(host: Host) -> None:
    host.append(1, 1)
    host.delete(1, 0)
    host.settle()
    assert records(host) >= 1


def test_many_groups_are_read_in_slices(host: Host) -> None:
    host.append(1, *range(1, 3000))
    assert host.indexes(1) == list(range(1, 3000))
    host.append(1, 3000)
    host.append(1, 3001)
    assert len(cold_indexes(host, 1)) >= 2999
    assert host.indexes(1) == list(range(1, 3002))
    host.restart()
    assert host.indexes(1) == list(range(1, 3002))


# Damage


def test_damage_of_a_payload_is_reported_when_it_is_read() -> None:
    disk = MemoryDisk()
    host = Host(lambda: disk)
    host.append(1, 1, 2)
    with disk.view() as view:
        value = bytes(view.get(Table.HOT, (1).to_bytes(8, "big")) or b"")
    disk.flip(Table.HOT, (1).to_bytes(8, "big"), value.index(b"entry 2"))
    assert host.read(1, 1, 2) == {1: b"entry 1"}
    with pytest.raises(Corrupt, match="record 1, group 1 index 2 part 0: the bytes do not match"):
        host.read(1)


def test_damage_moves_along_and_stays_visible() -> None:
    disk = MemoryDisk()
    host = Host(lambda: disk)
    host.append(1, 1)
    with disk.view() as view:
        value = bytes(view.get(Table.HOT, (1).to_bytes(8, "big")) or b"")
    disk.flip(Table.HOT, (1).to_bytes(8, "big"), value.index(b"entry 1"))
    host.append(1, 2, payload=bytes(600))
    assert host.fatal == []
    assert host.indexes(1) == [1, 2]
    with pytest.raises(Corrupt, match="table cold, group 1 index 1 part 0: the bytes do not match"):
        host.read(1)


@pytest.mark.parametrize(
    ("at", "what"), [(0, "head does not"), (15, "head does not"), (20, "bytes")]
)
def test_damage_of_a_cold_entry_is_reported(at: int, what: str) -> None:
    disk = MemoryDisk()
    host = Host(lambda: disk)
    host.append(1, 1)
    host.append(1, 2, payload=bytes(600))
    disk.flip(Table.COLD, cold_key(1, 1), at)
    with pytest.raises(Corrupt, match=f"table cold, group 1 index 1 part 0: the {what}"):
        host.read(1)


def test_a_missing_part_is_reported() -> None:
    disk = MemoryDisk()
    host = Host(lambda: disk)
    host.append(1, 1, payload=bytes(3 * PART_BYTES))
    host.append(1, 2)
    host.append(1, 3)
    disk.lose(Table.COLD, cold_key(1, 1, 1))
    with pytest.raises(Corrupt, match="group 1 index 1 part 0: its part 1 is missing"):
        host.read(1)
    disk.lose(Table.COLD, cold_key(1, 1, 0))
    with pytest.raises(Corrupt, match="group 1 index 1 part 2: the parts before it are missing"):
        host.read(1)


def test_damage_says_which_entry_it_is_of() -> None:
    disk = MemoryDisk()
    host = Host(lambda: disk)
    host.append(1, 1, 2)  # record 1
    host.append(2, 1, payload=bytes(500))
    disk.flip(Table.COLD, cold_key(1, 2), 20)
    with pytest.raises(CorruptEntry) as caught:
        host.read(1)
    assert (caught.value.group, caught.value.index) == (1, 2)
    disk.lose(Table.HOT, SEQUENCE.pack(2))
    with pytest.raises(CorruptEntry, match="group 2 index 1: it is missing") as caught:
        host.read(2)
    assert (caught.value.group, caught.value.index) == (2, 1)
    with pytest.raises(CorruptEntry, match="group 2 index 1: it is missing"):
        host.indexes(2)


def test_damage_of_the_head_of_a_record_is_damage_of_what_is_read_from_it() -> None:
    disk = MemoryDisk()
    host = Host(lambda: disk)
    host.append(1, 1, 2)
    disk.flip(Table.HOT, SEQUENCE.pack(1), 0)
    with pytest.raises(CorruptEntry, match="table hot, record 1, group 1 index 2:") as caught:
        host.read(1, 2)
    assert (caught.value.group, caught.value.index) == (1, 2)


def survey(host: Host, group: int, checked_from: int = 0) -> list[tuple[int, int | None]]:
    return list(host.log.survey(group, 0, INDEX_END, checked_from=checked_from))


def test_a_survey_tells_what_is_there_and_what_is_damaged() -> None:
    disk = MemoryDisk()
    host = Host(lambda: disk, UpkeepTuning(window_bytes=PART_BYTES, moved_bytes=PART_BYTES))
    for index in (1, 2, 3, 4):
        host.append(1, index, payload=bytes(2 * PART_BYTES))
    host.append(1, 5)
    assert cold_indexes(host, 1) == [1, 1, 2, 2, 3, 3, 4, 4]
    assert survey(host, 1) == [(index, index) for index in range(1, 6)]
    disk.lose(Table.COLD, cold_key(1, 1, 1))
    disk.flip(Table.COLD, cold_key(1, 2, 1), 100)  # the bytes
    disk.flip(Table.COLD, cold_key(1, 3, 0), 3)  # the head
    disk.lose(Table.COLD, cold_key(1, 4, 0))
    [newest] = hot_keys(disk)
    disk.flip(Table.HOT, newest, -1)
    assert survey(host, 1) == [(index, None) for index in range(1, 6)]
    assert survey(host, 1, 3) == [(1, None), (2, 2), (3, None), (4, None), (5, None)]


def hot_keys(disk: Disk) -> list[bytes]:
    with disk.view() as view:
        return [bytes(key) for key, _ in view.scan(Table.HOT, b"", None)]


@pytest.mark.parametrize("at", [0, 20])
def test_a_store_opens_though_the_first_and_last_cold_entries_are_damaged(at: int) -> None:
    disk = MemoryDisk()
    host = Host(lambda: disk)
    host.append(1, 1, 2, 3)
    host.append(2, 1, payload=bytes(600))
    for index in (1, 3):
        disk.flip(Table.COLD, cold_key(1, index), at)
    host.restart()
    assert survey(host, 1) == [(1, None), (2, 2), (3, None)]
    assert host.log.last_index(1) == 3


def test_reading_between_many_deletions_looks_at_each_once(host: Host) -> None:
    host.append(1, *range(1, 2001))
    host.append(2, 1, payload=bytes(600))
    assert len(cold_indexes(host, 1)) == 2000
    batch = Batch()
    for index in range(2, 2000, 2):
        batch.delete(1, index, index + 1)
    host.submit(batch)
    assert host.writer.step()
    odd = [*range(1, 2000, 2), 2000]
    assert host.indexes(1) == list(host.read(1)) == odd
    assert [index for index, _ in survey(host, 1)] == odd
    deleted_cold = host.log._hot_window.deleted_cold(1)
    assert deleted_cold is host.log._hot_window.deleted_cold(1)
    assert len(deleted_cold) == 999
    host.settle()
    assert not host.log._hot_window.deleted_cold(1)
    assert cold_indexes(host, 1) == host.indexes(1) == odd


def test_a_survey_is_made_in_slices_and_leaves_out_what_is_deleted(host: Host) -> None:
    host.append(1, *range(1, 3000))
    host.append(1, 3000)
    host.append(1, 3001)
    host.delete(1, 5, 2001)
    assert host.writer.step()
    assert [index for index, _ in survey(host, 1)] == [1, 2, 3, 4, *range(2001, 3002)]
    assert host.log.bounds(1) == (1, 3002)
    assert host.log.bounds(2) == (0, 0)


# Against a model

GROUPS = st.integers(1, 3)
ACTIONS = st.one_of(
    st.tuples(st.just("append"), GROUPS, st.integers(1, 4), st.integers(0, 400)),
    st.tuples(st.just("delete"), GROUPS, st.integers(0, 40), st.integers(0, 40)),
    st.tuples(st.just("truncate"), GROUPS, st.integers(0, 40), st.just(0)),
    st.tuples(st.just("step"), st.just(0), st.just(0), st.just(0)),
    st.tuples(st.just("restart"), st.booleans(), st.just(0), st.just(0)),
)


def tag_of(payload: bytes) -> int:
    return len(payload)


class Entries(dict[int, bytes]):
    """Expected entries of one group, and the index that its next entry must exceed."""

    last = 0

    def copy(self) -> "Entries":
        same = Entries(self)
        same.last = self.last
        return same


class Model:
    """Expected content of a log: a dictionary for each group."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.states = [{group: Entries() for group in (1, 2, 3)}]
        """States on disk, and after each batch on its way."""
        self.serial = 0

    def act(self, action: str, group: int, a: int, b: int) -> None:
        if action == "step":
            self.host.writer.step()
        elif action == "restart":
            self.restart(committed=bool(group))
        else:
            self.change(action, group, a, b)
        self.check()

    def change(self, action: str, group: int, a: int, b: int) -> None:
        state = {key: entries.copy() for key, entries in self.states[-1].items()}
        entries = state[group]
        batch = Batch()
        if action == "append":
            for _ in range(a):
                self.serial += 1
                entries.last += 1
                entries[entries.last] = b"%d" % self.serial + bytes(b)
                payload = entries[entries.last]
                batch.append(group, entries.last, payload, tag=tag_of(payload))
        else:
            stop = a + b if action == "delete" else INDEX_END
            batch.delete(group, a, stop)
            for index in [index for index in entries if a <= index < stop]:
                del entries[index]
            if a <= entries.last < stop:
                entries.last = max(a - 1, 0)
        self.states.append(state)
        self.host.store.submit(batch, self.advance)
        self.host.store.flush()

    def advance(self) -> None:
        del self.states[0]

    def restart(self, *, committed: bool) -> None:
        """Kill the node, before or after the commit that is under way."""
        if committed:
            self.host.writer.step()
        del self.states[1:]
        self.host.restart()
        self.host.store.flush()

    def check(self) -> None:
        for group, entries in self.states[0].items():
            assert self.host.read(group) == entries
            assert self.host.indexes(group) == sorted(entries)
            assert survey(self.host, group) == [(i, tag_of(entries[i])) for i in sorted(entries)]
            low, high = self.host.log.bounds(group)
            assert all(low <= index < high for index in entries)
        assert self.host.fatal == []


def run_against_model(
    open_disk: Callable[[], Disk], actions: list[tuple[str, int, int, int]]
) -> None:
    host = Host(open_disk)
    model = Model(host)
    for action in actions:
        model.act(*action)
    host.settle()
    model.check()
    for group, entries in model.states[0].items():
        assert set(cold_indexes(host, group)) <= set(entries), "deletions end"


@given(st.lists(ACTIONS, max_size=60))
@example([("append", 1, 3, 0), ("delete", 1, 2, 1), ("delete", 1, 3, 1), ("append", 1, 1, 0)])
@settings(deadline=None)
def test_a_log_holds_what_a_dictionary_would(actions: list[tuple[str, int, int, int]]) -> None:
    disk = MemoryDisk()
    run_against_model(lambda: disk, actions)


@pytest.mark.slow("thousands of commits are flushed to a disk")
@given(st.lists(ACTIONS, max_size=60))
@settings(deadline=None)
def test_a_log_on_lmdb_holds_what_a_dictionary_would(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int, int, int]]
) -> None:
    directory: Path = tmp_path_factory.mktemp("log")
    opened: list[Disk] = []

    def open_again() -> Disk:
        if opened:
            opened.pop().close()
        opened.append(open_environment(directory))
        return opened[0]

    run_against_model(open_again, actions)
    opened[0].close()


@example([("append", 0, 0)] * 3 + [("delete", 2, 1), ("delete", 3, 1), ("append", 0, 0)])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["append", "delete", "truncate"]),
            st.integers(0, 30),
            st.integers(0, 30),
        )
    )
)
def test_positions_hold_what_a_dictionary_would(actions: list[tuple[str, int, int]]) -> None:
    positions, model, place = Positions(), dict[int, int](), 0
    for action, a, b in actions:
        if action == "append":
            place += 1
            index = max([0, *model]) + 1 + a
            if model or positions.is_empty:
                positions.append(index, place)
                model[index] = place
        else:
            first, stop = (a, a + b) if action == "delete" else (a, 2**64 - 1)
            assert not positions.delete(first, stop), "nothing is cold"
            model = {index: at for index, at in model.items() if not first <= index < stop}
        assert dict(positions.hot(0, 2**64 - 1)) == model
        assert dict(positions.hot(5, 20)) == {i: p for i, p in model.items() if 5 <= i < 20}
        assert all(positions.find(index) == model.get(index, 0) for index in range(60))
        assert positions.is_empty == (not model)


def test_a_front_that_is_gone_is_cut_off() -> None:
    positions = Positions()
    for index in range(1, 10 * COMPACT_ENTRIES):
        positions.append(index, index)
        if index > 3:
            positions.delete(index - 3, index - 2)
    assert len(positions._indexes) < 3 * COMPACT_ENTRIES
    assert [index for index, _ in positions.hot(0, 2**64 - 1)][-1] == 10 * COMPACT_ENTRIES - 1


def test_cold_bounds_follow() -> None:
    positions = Positions()
    for index in range(1, 10):
        positions.append(index, index)
    for index in range(1, 6):
        positions.move_to_cold(index)
    assert (positions.cold_first, positions.cold_stop) == (1, 6)
    assert positions.find(5) == 0
    assert positions.find(6) == 6
    assert positions.cold_end(100) == 6
    assert positions.cold_end(3) == 3
    assert positions.delete(0, 2), "there may be cold ones"
    assert not positions.delete(6, 7), "there are none"
    positions.trimmed(0, 2)
    assert (positions.cold_first, positions.cold_stop) == (2, 6)
    positions.trimmed(5, 100)
    assert (positions.cold_first, positions.cold_stop) == (2, 5)
    positions.trimmed(7, 100)
    assert (positions.cold_first, positions.cold_stop) == (2, 5), "nothing was there"
    positions.trimmed(3, 4)
    assert (positions.cold_first, positions.cold_stop) == (2, 5), "a hole is not a bound"
    positions.delete(0, 100)
    assert not positions.is_empty
    positions.trimmed(0, 100)
    assert positions.is_empty
    assert positions.is_forgettable
    positions = Positions()
    positions.trimmed(7, 100)
    assert positions.is_forgettable, "an old deletion says nothing of a group that began anew"


def test_small_commits_have_records_leave_together() -> None:
    """Leaving records dirty pages of their own, so they do not leave with each commit; and the
    window stays a window."""
    disk = MemoryDisk()
    host = Host(lambda: disk, UpkeepTuning(window_bytes=10_000, slack_share=10))
    leaving = []
    for index in range(1, 301):
        batch = Batch()
        batch.append(1, index, bytes(36))
        host.submit(batch)
        assert host.writer.work is not None
        leaving.append(len(host.writer.work.removes))
        host.settle()
        assert 100 * records(host) <= 11_000
    assert set(leaving) == {0, 11}
    assert sum(leaving) + records(host) == 300
    assert host.indexes(1) == list(range(1, 301))
