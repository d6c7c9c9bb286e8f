"""Keys and values: what was written comes back, and every flipped bit is noticed."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.storage.errors import Corrupt
from fluffle.storage.layout import (
    PART_BYTES,
    RECORD_BYTES_MAX,
    RECORD_ROWS_MAX,
    Change,
    Deletion,
    Packer,
    Part,
    Record,
    Row,
    catalog_item,
    catalog_key,
    catalog_value,
    cold_index,
    cold_key,
    cold_part,
    cold_piece,
    cold_value,
    cut,
    format_number,
    format_value,
    raft_content,
    raft_key,
    raft_value,
    row_of,
    sequence_number,
    sequence_of,
)

U64 = st.integers(0, 2**64 - 1)


@given(U64, U64, U64, st.binary(max_size=50))
def test_a_part_comes_back(group: int, index: int, tag: int, payload: bytes) -> None:
    [(part, piece)] = cut(group, index, tag, payload)
    key, value = cold_key(group, index), cold_value(part, piece)
    assert cold_part(key, value) == part == Part(group, index, 0, tag, len(payload), part.crc)
    assert bytes(cold_piece(part, value)) == payload


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES])
def test_parts_make_up_the_payload(size: int) -> None:
    payload = bytes(range(256)) * (size // 256 + 1)
    parts = cut(1, 2, 3, payload[:size])
    assert b"".join(piece for _, piece in parts) == payload[:size]
    assert [part.number for part, _ in parts] == list(range(len(parts)))
    assert len(parts) == max(1, -(-size // PART_BYTES))
    assert all(part.fits(piece) for part, piece in parts)


def flipped(data: bytes) -> list[bytes]:
    """`data` with one bit wrong, for each byte."""
    return [data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :] for at in range(len(data))]


def read_cold(key: bytes, value: bytes) -> bytes:
    return bytes(cold_piece(cold_part(key, value), value))


def read_catalog(key: bytes, value: bytes) -> object:
    return catalog_item(key, value)


[(PART, PIECE)] = cut(1, 2, 3, b"payload")


@pytest.mark.parametrize(
    ("read", "key", "value"),
    [
        (read_cold, cold_key(1, 2), cold_value(PART, PIECE)),
        (read_catalog, catalog_key("queue", b"q"), catalog_value("queue", b"q", b"value")),
        (raft_content, raft_key(1, 2), raft_value(raft_key(1, 2), b"head")),
    ],
)
def test_no_flipped_bit_of_key_or_value_goes_unnoticed(
    read: Callable[[bytes, bytes], object], key: bytes, value: bytes
) -> None:
    read(key, value)
    for damaged in flipped(value):
        with pytest.raises(Corrupt):
            read(key, damaged)
    for damaged in flipped(key):
        with pytest.raises(Corrupt):
            read(damaged, value)
    for length in range(len(value)):
        with pytest.raises(Corrupt):
            read(key, value[:length])


def test_keys_of_another_length_are_corrupt() -> None:
    with pytest.raises(Corrupt, match="table cold, key 00: a key that was never written"):
        cold_part(b"\0", b"")
    with pytest.raises(Corrupt, match="table hot, key 00: a key that was never written"):
        sequence_number(b"\0")
    with pytest.raises(Corrupt, match="table cold, key 00: a key that was never written"):
        cold_index(b"\0")
    with pytest.raises(Corrupt, match="table raft, key 00: a key that was never written"):
        raft_content(b"\0", b"")


def test_definitions_come_back_with_names_of_any_length() -> None:
    name = b"n" * 2000
    key = catalog_key("binding", name)
    assert len(key) < 511, "LMDB's limit"
    assert catalog_item(key, catalog_value("binding", name, b"v")) == ("binding", name, b"v")


def test_the_format_comes_back() -> None:
    assert format_number(format_value(7)) == 7
    for damaged in flipped(format_value(7)):
        with pytest.raises(Corrupt, match="format"):
            format_number(damaged)


def test_what_is_on_disk_does_not_change_by_accident() -> None:
    """A change of one of these must raise `FORMAT` and read the old one as well."""
    assert cold_key(1, 2, 3).hex() == "000000000000000100000000000000020003"
    assert cold_value(PART, PIECE).hex() == GOLDEN_COLD
    assert catalog_key("q", b"n").hex()[:4] == "7100"
    assert catalog_value("q", b"n", b"v").hex() == GOLDEN_CATALOG
    assert raft_key(1, 2, 3, 4).hex() == "010000000000000002030000000000000004"
    assert raft_value(raft_key(1, 2, 3, 4), b"v").hex() == GOLDEN_RAFT
    assert format_value().hex() == GOLDEN_FORMAT


GOLDEN_COLD = "00000000000000030000000794fa3b6ecc2db2dd7061796c6f6164"
GOLDEN_CATALOG = "ded9eb59000000016e76"
GOLDEN_RAFT = "63bb5af876"
GOLDEN_FORMAT = "00000002cf4abe30"


CHANGES = st.one_of(
    st.builds(Deletion, U64, U64, U64),
    st.builds(lambda *entry: cut(*entry)[0], U64, U64, U64, st.binary(max_size=30)),
)


def pack(changes: list[Change], sequence: int = 1) -> Packer:
    packer = Packer(sequence, top_group=9)
    packer.pack(changes)
    packer.finish()
    return packer


def unpack(packer: Packer, sequence: int = 1) -> list[Change]:
    found: list[Change] = []
    for number, value in enumerate(packer.records, start=sequence):
        record = Record(number, value)
        record.check()
        for row in record.changes():
            if isinstance(row, Row):
                found.append((row.part, bytes(record.piece(row))))
            else:
                found.append(row)
    return found


@given(st.lists(CHANGES, max_size=10), st.integers(1, 2**48 - 1))
def test_changes_come_back_in_order(changes: list[Change], sequence: int) -> None:
    packer = pack(changes, sequence)
    assert unpack(packer, sequence) == changes
    assert [row_of(place) for place in packer.places] == list(range(len(changes)))
    assert {sequence_of(place) for place in packer.places} <= {sequence}
    assert packer.sequence == sequence + bool(changes)


def test_a_record_is_no_larger_than_it_should_be() -> None:
    changes: list[Change] = [*cut(1, 1, 0, bytes(3_000_000)), *cut(1, 2, 0, b"small")]
    packer = pack(changes)
    assert len(packer.records) == 3
    assert max(map(len, packer.records)) <= RECORD_BYTES_MAX
    assert min(map(len, packer.records[:-1])) > RECORD_BYTES_MAX - 2 * PART_BYTES
    assert unpack(packer) == changes


def test_rows_are_counted_with_16_bits() -> None:
    packer = pack([Deletion(1, index, index) for index in range(RECORD_BYTES_MAX // 40 + 10)])
    assert len(packer.records) == 2
    assert RECORD_BYTES_MAX // 40 < RECORD_ROWS_MAX
    assert sequence_of(packer.places[-1]) == 2


def test_no_flipped_bit_goes_unnoticed() -> None:
    packer = pack([cut(1, 1, 7, b"payload")[0], Deletion(1, 2, 3)], sequence=5)
    value = packer.records[0]
    for at in range(len(value)):
        damaged = value[:at] + bytes([value[at] ^ 4]) + value[at + 1 :]
        with pytest.raises(Corrupt, match="table hot, record 5"):
            unpack_one(5, damaged)
    for length in range(len(value)):
        with pytest.raises(Corrupt, match="table hot, record 5"):
            unpack_one(5, value[:length])
    with pytest.raises(Corrupt, match="table hot, record 6: this is record 5"):
        unpack_one(6, value)


def unpack_one(sequence: int, value: bytes) -> None:
    record = Record(sequence, value)
    record.check()
    for _, row in record.parts():
        record.piece(row)


def test_a_record_on_disk_does_not_change_by_accident() -> None:
    """A change of this must raise `FORMAT` and read the old one as well."""
    packer = pack([cut(1, 2, 3, b"payload")[0], Deletion(4, 5, 6)], sequence=7)
    assert packer.records[0].hex() == GOLDEN


GOLDEN = (
    "0000000000000007000000000000000900000002624fb78600000000000000010000000000000002"
    "0000000000000003000000070000000094fa3b6e0000010000000000000000040000000000000005"
    "0000000000000006000000000000000000000000000002007061796c6f6164"
)
