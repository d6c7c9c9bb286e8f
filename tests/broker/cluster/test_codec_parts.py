"""Values as parts: the same bytes as in one, and what is large is not copied."""

from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.cluster.codec import (
    APART_BYTES_MIN,
    BIN_16_BYTES_MAX,
    TEXT_ERRORS,
    pack_apart,
)
from tests.support.payloads import joined

SIZES = [APART_BYTES_MIN - 1, APART_BYTES_MIN, BIN_16_BYTES_MAX, BIN_16_BYTES_MAX + 1]
PLAIN = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.booleans(), st.none(), st.text(max_size=9),
    st.binary(max_size=9), st.sampled_from(SIZES).map(bytes), st.just("\udcff"),
)  # fmt: skip
VALUE = st.recursive(
    PLAIN,
    lambda each: st.lists(each, max_size=5) | st.lists(each, max_size=5).map(tuple),
    max_leaves=20,
)


@given(VALUE)
def test_the_parts_are_what_msgpack_makes_in_one(value: Any) -> None:
    parts, whole = pack_apart(value), msgpack.packb(value, unicode_errors=TEXT_ERRORS)
    assert joined(parts) == whole
    assert sum(map(len, parts)) == len(whole)


def test_what_is_large_is_a_part_as_it_was() -> None:
    large, small = bytes(APART_BYTES_MIN), bytes(APART_BYTES_MIN - 1)
    parts = pack_apart([1, [large, small, large]])
    assert [part is large for part in parts] == [False, True, False, True, False]
