"""Inspecting a store, and `fluffle log` on damaged files."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fluffle.broker.__main__ import main
from fluffle.raft.config import Member
from fluffle.raft.log import CONFIG, HardState, Quarantine
from fluffle.raft.log_store import Write
from fluffle.storage.check import SLICE, inspect, inspect_groups
from fluffle.storage.disk import MemoryDisk
from fluffle.storage.environment import DATA_FILE, STORE_FOLDER, open_environment
from fluffle.storage.errors import Corrupt
from fluffle.storage.layout import SEQUENCE, Table
from fluffle.storage.log import UpkeepTuning
from fluffle.storage.store import Batch, open_store
from tests.storage.log_stores import (
    THREE,
    InStore,
    Writer,
    created,
    entries,
    entry,
    meta,
    snapshot,
    staged,
)
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
        (Table.HOT, b"\0" * 7 + b"\2", 300, "record 2, group 2 index 1 part 0: the bytes do not"),
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
    host = Host(lambda: disk, UpkeepTuning())
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


# Raft groups


@pytest.fixture
def subject() -> InStore:
    """Two groups, the first with a snapshot, a change of members and something staged."""
    disk = MemoryDisk()
    subject = InStore(lambda: disk)
    log = Writer(subject)
    log.write(created(7, incarnation=2), created(8))
    written = [*entries(1, 9), entry(9, 2, CONFIG, THREE.encode()), entry(10, 3)]
    log.write(Write(7, entries=written, hard_state=HardState(3, Member("b", 1))))
    log.write(
        Write(7, snapshot=snapshot(6, [(2, 4), (5, 6)], b"image"), deletes=[(1, 2), (4, 5), (6, 7)])
    )
    log.write(Write(7, staged=[staged(meta(20, [(20, 21)], b"state"), entries(20, 21), 20, b"st")]))
    log.write(Write(8, entries=entries(1, 3), quarantine=Quarantine(1, 5, 4, needs_snapshot=True)))
    return subject


def texts_of(subject: InStore) -> str:
    findings = [*inspect(subject.disk), *inspect_groups(subject.disk)]
    assert [damage for finding in findings for damage in finding.damage] == []
    return "\n".join(finding.text for finding in findings)


def test_a_dump_knows_groups(subject: InStore) -> None:
    text = texts_of(subject)
    [log] = subject.logs(7)
    assert f"Raft group 7 owns log {log}\n" in text
    assert 'head of Raft group 7 {"incarnation":2,' in text
    assert "image of Raft group 7 slot 0 part 0 size 9\n" in text
    assert f"group {log} index 2 part 0 of Raft group 7 term 1 kind data size 7 b'entry 2'" in text
    assert f"group {log} index 9 part 0 of Raft group 7 term 2 kind config size" in text
    assert text.endswith(
        f"""
Raft group 7 incarnation 2 term 3, voted for b incarnation 1
  logs {log}
  snapshot at index 6 term 1, 5 bytes; 3 live 2-4 5-6
  {THREE.encode().decode()}
  entries 7 up to 11, terms from 7-1 9-2 10-3
  index 9 {THREE.encode().decode()}
  staged: snapshot at index 20, entries through 20, 2 of 5 bytes
Raft group 8 incarnation 1 term 0
  logs {subject.logs(8)[0]}
  snapshot at index 0 term 0, 0 bytes; 0 live
  {THREE.encode().decode()}
  entries 1 up to 3, terms from 1-1
  in quarantine since term 4: 1 through 5, needs a snapshot"""
    )


def damage_of(subject: InStore) -> list[str]:
    findings = inspect_groups(subject.disk)
    return [str(damage) for finding in findings for damage in finding.damage]


def test_groups_are_verified_one_by_one(subject: InStore) -> None:
    assert damage_of(subject) == []
    subject.host.append(99, 1, payload=bytes(600))
    subject.host.append(99, 2, payload=bytes(600))
    subject.lose_entry(7, 5)
    subject.damage_entry(8, 2)
    assert damage_of(subject) == [
        "corrupt: Raft group 7: what is at index 5 is damaged or missing",
        "corrupt: Raft group 8: what is at index 2 is damaged or missing",
    ]
    subject.damage_head(8)
    assert "corrupt: Raft group 8: its head is damaged or missing" in damage_of(subject)
    [newest] = [key for key in hot_keys(subject) if key > SEQUENCE.pack(1)][-1:]
    subject.disk.flip(Table.HOT, newest, 9)
    [damage] = damage_of(subject)
    assert damage.startswith(
        "corrupt: Raft groups: they are not distinguishable: corrupt: table hot"
    )


def hot_keys(subject: InStore) -> list[bytes]:
    with subject.disk.view() as view:
        return [bytes(key) for key, _ in view.scan(Table.HOT, b"", None)]


def test_the_command_verifies_and_dumps_groups(tmp_path: Path) -> None:
    environment = open_environment(tmp_path)
    log = Writer(InStore(lambda: environment, UpkeepTuning()))
    log.write(created(7))
    log.write(Write(7, entries=entries(1, 5)))
    environment.close()
    result = run("verify", tmp_path)
    summary = "4 values read, 0 damaged\n1 Raft groups, 0 damaged\n"
    assert (result.exit_code, result.output) == (0, summary)
    assert "entries 1 up to 5, terms from 1-1" in run("dump", tmp_path).output
    flip(tmp_path, b"entry 3")
    result = run("verify", tmp_path)
    assert result.exit_code == 1
    assert (
        "Raft group 7: what is at index 3 is damaged or missing\n1 Raft groups, 1" in result.output
    )


def test_a_directory_without_a_store_is_an_error(tmp_path: Path) -> None:
    for command in ("verify", "dump"):
        result = run(command, tmp_path)
        assert (result.exit_code, result.output) == (1, f"Error: {tmp_path} holds no store\n")
