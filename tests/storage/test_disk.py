"""Requirements for a disk, the fake and LMDB alike."""

from collections.abc import Callable, Iterator

import pytest

from fluffle.storage.disk import Disk, Trim, WriteTransaction
from fluffle.storage.errors import StorageError
from fluffle.storage.layout import SEQUENCE, Table, cold_key


def put(disk: Disk, table: Table, **values: str) -> None:
    puts = [(table, key.encode(), value.encode()) for key, value in values.items()]
    disk.commit(WriteTransaction(puts=puts))


def everything(disk: Disk, table: Table) -> dict[str, str]:
    with disk.view() as view:
        items = view.scan(table, b"", None)
        return {bytes(key).decode(): bytes(value).decode() for key, value in items}


def test_values_are_found_under_their_keys(disk: Disk) -> None:
    put(disk, Table.CATALOG, a="1", b="2")
    put(disk, Table.CATALOG, b="3")
    put(disk, Table.COLD, a="cold")
    assert everything(disk, Table.CATALOG) == {"a": "1", "b": "3"}
    with disk.view() as view:
        assert bytes(view.get(Table.COLD, b"a") or b"") == b"cold"
        assert view.get(Table.COLD, b"b") is None


def test_a_scan_is_in_order_and_bounded(disk: Disk) -> None:
    put(disk, Table.CATALOG, c="3", a="1", b="2", d="4")
    with disk.view() as view:
        assert [bytes(key) for key, _ in view.scan(Table.CATALOG, b"b", b"d")] == [b"b", b"c"]
        assert [bytes(key) for key, _ in view.scan(Table.CATALOG, b"bb", None)] == [b"c", b"d"]
        assert list(view.scan(Table.CATALOG, b"x", None)) == []


def test_the_last_key_below_another(disk: Disk) -> None:
    with disk.view() as view:
        assert view.last_key(Table.CATALOG, None) is None
        assert view.last_key(Table.CATALOG, b"b") is None
    put(disk, Table.CATALOG, a="1", c="3")
    with disk.view() as view:
        found = [view.last_key(Table.CATALOG, stop) for stop in (b"a", b"b", b"c", b"d", None)]
    assert found == [None, b"a", b"a", b"c", b"c"]


def test_removing_comes_before_putting_and_what_is_not_there_does_not_matter(disk: Disk) -> None:
    put(disk, Table.CATALOG, a="1", b="2")
    removes = [(Table.CATALOG, key) for key in (b"a", b"b", b"none")]
    disk.commit(WriteTransaction(removes=removes, puts=[(Table.CATALOG, b"a", b"anew")]))
    assert everything(disk, Table.CATALOG) == {"a": "anew"}


def test_keys_that_are_made_while_they_are_removed_go_before_what_is_put(disk: Disk) -> None:
    put(disk, Table.CATALOG, a="1", b="2", c="3")
    made: list[bytes] = []

    def keys() -> Iterator[bytes]:
        for key in (b"a", b"b", b"none"):
            made.append(key)
            yield key

    work = WriteTransaction(
        catalog_removes=[keys(), iter([b"d"])], puts=[(Table.CATALOG, b"a", b"anew")]
    )
    assert made == []
    disk.commit(work)
    assert made == [b"a", b"b", b"none"]
    assert everything(disk, Table.CATALOG) == {"a": "anew", "c": "3"}


def test_trims_share_a_number_of_keys(disk: Disk) -> None:
    keys = [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (3, 1)]
    disk.commit(WriteTransaction(puts=[(Table.COLD, cold_key(*key), b"x") for key in keys]))
    trims = [
        Trim(cold_key(1, 2), cold_key(1, 9)),
        Trim(cold_key(2, 0), cold_key(2, 2)),
        Trim(cold_key(5, 0), cold_key(6, 0)),
    ]
    outcomes = [disk.commit(WriteTransaction(trims=trims, trim_keys_max=2)) for _ in range(3)]
    assert [(o.trims_finished, o.trimmed_keys) for o in outcomes] == [(1, 2), (3, 1), (3, 0)]
    with disk.view() as view:
        left = [bytes(key) for key, _ in view.scan(Table.COLD, b"", None)]
    assert left == [cold_key(1, 1), cold_key(2, 2), cold_key(3, 1)]


def test_a_trim_ends_with_the_table(disk: Disk) -> None:
    disk.commit(
        WriteTransaction(
            puts=[(Table.COLD, cold_key(1, 1), b"x"), (Table.COLD, cold_key(1, 2), b"x")]
        )
    )
    trim = Trim(cold_key(1, 0), cold_key(9, 0))
    outcome = disk.commit(WriteTransaction(trims=[trim], trim_keys_max=9))
    assert (outcome.trims_finished, outcome.trimmed_keys) == (1, 2)


def test_a_commit_that_fails_changes_nothing(disk: Disk) -> None:
    disk.commit(WriteTransaction(puts=[(Table.HOT, SEQUENCE.pack(5), b"five")]))
    work = WriteTransaction(
        puts=[(Table.CATALOG, b"a", b"1"), (Table.HOT, SEQUENCE.pack(4), b"four")]
    )
    with pytest.raises(StorageError):
        disk.commit(work)
    with disk.view() as view:
        assert view.get(Table.HOT, SEQUENCE.pack(4)) is None


def test_used_bytes_grow_and_shrink(disk: Disk) -> None:
    before = disk.commit(WriteTransaction()).used_bytes
    large = disk.commit(
        WriteTransaction(puts=[(Table.COLD, cold_key(1, 1), bytes(100_000))])
    ).used_bytes
    after = disk.commit(WriteTransaction(removes=[(Table.COLD, cold_key(1, 1))])).used_bytes
    assert large >= before + 100_000
    assert after < large
    assert disk.room_bytes > large
    with disk.view() as view:
        assert view.used_bytes() == after


def test_what_was_committed_is_there_again(open_disk: Callable[[], Disk]) -> None:
    put(open_disk(), Table.CATALOG, a="1")
    assert everything(open_disk(), Table.CATALOG) == {"a": "1"}
