"""Records: changes in, changes out, over as many records as they need."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.storage.errors import Corrupt
from fluffle.storage.layout import PART_BYTES, cut
from fluffle.storage.record import (
    RECORD_BYTES_MAX,
    RECORD_ROWS_MAX,
    Change,
    Deletion,
    Packer,
    Record,
    Row,
    row_of,
    sequence_of,
)

U64 = st.integers(0, 2**64 - 1)
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


def test_what_is_on_disk_does_not_change_by_accident() -> None:
    """Who changes this raises `FORMAT` and reads the old one as well."""
    packer = pack([cut(1, 2, 3, b"payload")[0], Deletion(4, 5, 6)], sequence=7)
    assert packer.records[0].hex() == GOLDEN


GOLDEN = (
    "0000000000000007000000000000000900000002624fb78600000000000000010000000000000002"
    "0000000000000003000000070000000094fa3b6e0000010000000000000000040000000000000005"
    "0000000000000006000000000000000000000000000002007061796c6f6164"
)
