"""Inspecting a store, and `fluffle log` on damaged files."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fluffle.broker.__main__ import main
from fluffle.storage.batch import Batch
from fluffle.storage.check import SLICE, inspect
from fluffle.storage.environment import DATA_FILE, STORE_FOLDER, open_environment
from fluffle.storage.errors import Corrupt
from fluffle.storage.layout import SEQUENCE, Table
from fluffle.storage.memory import MemoryDisk
from fluffle.storage.mover import Tuning
from fluffle.storage.store import open_store
from tests.storage.support import Host


def fill(host: Host) -> None:
    """Something in every table."""
    batch = Batch()
    batch.put("seen", b"orders", b"durable")
    batch.append(1, 1, b"the first payload", tag=3)
    batch.append(1, 2, b"the second payload, which is longer than the preview", tag=4)
    host.submit(batch)
    host.settle()
    host.append(2, 1, payload=bytes(400))
    host.delete(2, 0, 1)
    host.settle()


def test_everything_is_described_in_order(host: Host) -> None:
    fill(host)
    texts = [finding.text for finding in inspect(host.disk)]
    assert texts[0] == "catalog seen b'orders' b'durable'"
    assert texts[1].splitlines() == [
        "hot record 2 464 bytes, top group 2",
        f"  append group 2 index 1 part 0 tag 1 size 400 {bytes(32)!r}...",
    ]
    assert texts[2].splitlines() == [
        "hot record 3 64 bytes, top group 2",
        "  delete group 2 index 0 up to 1",
    ]
    assert texts[3:] == [
        "cold group 1 index 1 part 0 tag 3 size 17 b'the first payload'",
        "cold group 1 index 2 part 0 tag 4 size 52 b'the second payload, which is lon'...",
    ]


def test_more_than_a_slice_is_inspected(host: Host) -> None:
    host.append(1, *range(1, SLICE + 10))
    host.append(2, 1)  # there is no room in the window for both
    indexes = [f"cold group 1 index {index} " for index in range(1, SLICE + 10)]
    texts = "".join(finding.text for finding in inspect(host.disk))
    assert [index for index in indexes if index not in texts] == []


@pytest.mark.parametrize(
    ("table", "key", "at", "message"),
    [
        (Table.HOT, b"\0" * 7 + b"\2", 30, "record 2: head and rows do not match"),
        (Table.HOT, b"\0" * 7 + b"\2", 300, "record 2: the bytes of group 2 index 1 part 0 do not"),
        (Table.COLD, b"\0" * 7 + b"\1" + b"\0" * 7 + b"\1\0\0", 25, "group 1 index 1 part 0: the"),
    ],
)
def test_damage_is_found_and_the_rest_is_read(
    table: Table, key: bytes, at: int, message: str
) -> None:
    disk = MemoryDisk()
    fill(Host(lambda: disk))
    disk.flip(table, key, at)
    findings = list(inspect(disk))
    assert len(findings) == 5
    [damage] = [damage for finding in findings for damage in finding.damage]
    assert message in str(damage)


@pytest.mark.parametrize(("lost", "found"), [(1, []), (2, [2]), (SLICE, [SLICE]), (SLICE + 5, [])])
def test_a_record_is_missed_unless_it_was_the_oldest_or_the_newest(
    lost: int, found: list[int]
) -> None:
    disk = MemoryDisk()
    host = Host(lambda: disk, Tuning())
    for index in range(1, SLICE + 6):
        host.append(1, index)
    disk.lose(Table.HOT, SEQUENCE.pack(lost))
    damage = [str(damage) for finding in inspect(disk) for damage in finding.damage]
    assert damage == [f"corrupt: table hot, record {number}: it is missing" for number in found]


# The command


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["log", *map(str, arguments)])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    environment = open_environment(tmp_path)
    fill(Host(lambda: environment))
    environment.close()
    return tmp_path


def flip(directory: Path, content: bytes) -> bytes:
    """Change a byte of `content` in the file; the file as it is then."""
    file = directory / STORE_FOLDER / DATA_FILE
    data = bytearray(file.read_bytes())
    assert content in data
    at = -1
    while (at := data.find(content, at + 1)) >= 0:  # also in pages that are no longer in use
        data[at] ^= 1
    file.write_bytes(data)
    return bytes(data)


def test_a_whole_store_is_verified_and_dumped(directory: Path) -> None:
    result = run("verify", directory)
    assert (result.exit_code, result.output) == (0, "5 values read, 0 damaged\n")
    result = run("dump", directory)
    assert result.exit_code == 0
    assert "cold group 1 index 1 part 0 tag 3 size 17 b'the first payload'\n" in result.output


def test_a_flipped_byte_is_reported_with_its_place_and_nothing_is_overwritten(
    directory: Path,
) -> None:
    before = flip(directory, b"the first payload")
    damage = "corrupt: table cold, group 1 index 1 part 0: the bytes do not match their checksum\n"
    result = run("verify", directory)
    assert (result.exit_code, result.output) == (1, damage + "5 values read, 1 damaged\n")
    result = run("dump", directory)
    assert result.exit_code == 1
    assert damage in result.output
    assert "cold group 1 index 2" in result.output
    assert (directory / STORE_FOLDER / DATA_FILE).read_bytes() == before


def test_a_node_does_not_start_on_a_damaged_record_and_overwrites_nothing(
    directory: Path,
) -> None:
    before = flip(directory, (3).to_bytes(8, "big") + (2).to_bytes(8, "big") + b"\0\0\0\1")
    for _ in range(2):  # the first leaves no lock behind
        with pytest.raises(Corrupt, match="table hot, record 3: "):
            open_store(directory, call_soon=lambda _: None, on_fatal=lambda _: None)
    assert (directory / STORE_FOLDER / DATA_FILE).read_bytes() == before
    assert run("verify", directory).exit_code == 1


def test_a_directory_without_a_store_is_an_error(tmp_path: Path) -> None:
    for command in ("verify", "dump"):
        result = run(command, tmp_path)
        assert (result.exit_code, result.output) == (1, f"Error: {tmp_path} holds no store\n")
