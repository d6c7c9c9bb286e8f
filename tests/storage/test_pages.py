"""Files that have lost their end, and those that only look so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import lmdb
import pytest

from fluffle.storage.disk import WriteTransaction
from fluffle.storage.environment import DATA_FILE, STORE_FOLDER, open_environment, read_environment
from fluffle.storage.errors import Corrupt
from fluffle.storage.layout import Table, cold_key
from fluffle.storage.pages import LEAF, NODE, PAGE, check_complete

PAGE_BYTES = 4096


def test_a_file_without_its_end_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    environment = open_environment(tmp_path)
    puts = [(Table.COLD, cold_key(1, index), bytes(900)) for index in range(1, 400)]
    environment.commit(WriteTransaction(puts=[*puts, (Table.HOT, b"a", bytes(100_000))]))
    environment.close()
    file = tmp_path / STORE_FOLDER / DATA_FILE
    whole = file.read_bytes()
    for size in range(2 * PAGE_BYTES, len(whole), 7 * PAGE_BYTES + 100):
        file.write_bytes(whole[:size])
        for opening in (open_environment, read_environment):
            with pytest.raises(Corrupt) as caught:
                opening(tmp_path)
            assert str(caught.value) == (
                f"corrupt: {file}: it has {size} bytes, its pages need {len(whole)}"
            )
        assert file.read_bytes() == whole[:size]
    file.write_bytes(whole)
    open_environment(tmp_path).close()


def test_what_was_taken_and_freed_by_one_commit_is_not_missed(tmp_path: Path) -> None:
    """LMDB counts pages at the end that it has never written."""
    random, keys, shorter = Random(1), list[bytes](), 0
    with lmdb.open(str(tmp_path), map_size=1 << 30, max_dbs=1, sync=False) as environment:
        table = environment.open_db(b"t")
        for _ in range(400):
            with environment.begin(write=True, db=table) as transaction:
                for _ in range(random.randrange(200)):
                    if keys and random.random() < 0.5:
                        transaction.delete(keys.pop(random.randrange(len(keys))))
                    else:
                        keys.append(random.randbytes(12))
                        transaction.put(keys[-1], bytes(random.choice((5, 500, 3000, 9000))))
            file, last = tmp_path / DATA_FILE, environment.info()["last_pgno"]
            shorter += file.stat().st_size < (last + 1) * PAGE_BYTES
            check_complete(file, page_bytes=PAGE_BYTES, last_page=last)
    assert shorter > 0, "this is what the test is about"


@pytest.mark.parametrize("size", [0, 100, PAGE_BYTES, PAGE_BYTES + 1])
def test_a_file_without_its_first_pages_is_refused(tmp_path: Path, size: int) -> None:
    open_environment(tmp_path).close()
    file = tmp_path / STORE_FOLDER / DATA_FILE
    file.write_bytes(file.read_bytes()[:size])
    code = (
        "import sys; from pathlib import Path\n"
        "from fluffle.storage.environment import open_environment\n"
        "open_environment(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, "not a signal"
    assert "Corrupt" in done.stderr


def test_pages_of_zeros_are_found_before_lmdb_comes_upon_them(tmp_path: Path) -> None:
    """It asserts that there are none, which ends the process."""
    environment = open_environment(tmp_path)
    puts = [(Table.COLD, cold_key(1, index), bytes(900)) for index in range(1, 400)]
    environment.commit(WriteTransaction(puts=puts))
    environment.close()
    read_environment(tmp_path).close()
    file = tmp_path / STORE_FOLDER / DATA_FILE
    data = bytearray(file.read_bytes())
    page = leaf_with(data, cold_key(1, 200))
    data[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = bytes(PAGE_BYTES)
    file.write_bytes(data)
    with pytest.raises(Corrupt, match=f"corrupt: {file}, page {page}: this is no page of a tree"):
        read_environment(tmp_path)
    environment = open_environment(tmp_path)
    with (
        pytest.raises(Corrupt, match=f"corrupt: {file}, table cold: .*MDB_CORRUPTED"),
        environment.view() as view,
    ):
        view.get(Table.COLD, cold_key(1, 200))
    environment.close()


def leaf_with(data: bytearray, key: bytes) -> int:
    """The page that has it as a node; others have it behind theirs, where memory had it before."""
    for number in range(2, len(data) // PAGE_BYTES):
        page = data[number * PAGE_BYTES : (number + 1) * PAGE_BYTES]
        _, _, flags, lower, _ = PAGE.unpack_from(page)
        nodes = range(PAGE.size, lower, 2) if flags == LEAF else ()
        keys_at = (
            int.from_bytes(page[node : node + 2], sys.byteorder) + NODE.size for node in nodes
        )
        if any(page.startswith(key, at) for at in keys_at):
            return number
    raise AssertionError(f"no leaf has {key!r}")


def test_pages_may_be_checked_beside_a_node(tmp_path: Path) -> None:
    environment = open_environment(tmp_path)
    for number in range(1, 50):
        puts = [(Table.COLD, cold_key(number, index), bytes(50 * index)) for index in range(1, 40)]
        environment.commit(WriteTransaction(puts=puts))
        command = [sys.executable, "-c", READ, str(tmp_path)]
        if number % 10 == 0:
            subprocess.run(command, check=True)
    environment.close()


READ = """
import sys
from pathlib import Path
from fluffle.storage.environment import read_environment
read_environment(Path(sys.argv[1])).close()
"""
