"""JSON as it comes in bodies: what is none, and what is too much to be read in one turn."""

import json
import sys
import time
from contextlib import suppress
from threading import Thread

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fluffle.broker.protocols.http.json_bodies import (
    NESTED_MAX,
    STRETCH_BYTES_MAX,
    VALUES_MAX,
    InvalidJson,
    TooManyValues,
    check_stretches,
    check_values,
    parsed,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@given(VALUES, st.booleans())
def test_what_is_json_is_read(value: object, is_ascii: bool) -> None:
    with suppress(UnicodeEncodeError):
        assert parsed(json.dumps(value, ensure_ascii=is_ascii).encode()) == value


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"NaN", b"[Infinity]", b"-1e999", b"9" * 5000, b"\xff", b'"\xed\xa0\x80"',
        b'"\\ud800"', b'"\\uD83D"', b"[" * 203 + b"]" * 203, b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_none_is_not(body: bytes) -> None:
    with pytest.raises(InvalidJson):
        parsed(body)


ESCAPES = (
    "\\ud83d", "\\uDE00", "\\uD800", "\\udfff", "\\ud7ff", "\\ue000", "\\\\", "\\n", "ud83d",
)  # fmt: skip


@given(st.lists(st.sampled_from(ESCAPES)))
@example(["\\\\", "ud83d", "\\uDE00"])
def test_half_a_character_is_found_among_whole_ones(pieces: list[str]) -> None:
    body = f'"{"".join(pieces)}"'
    try:
        value = json.loads(body)
        value.encode()
    except ValueError:
        with pytest.raises(InvalidJson):
            parsed(body.encode())
    else:
        assert parsed(body.encode()) == value


def test_to_read_much_in_a_thread_lets_others_run() -> None:
    body = json.dumps([{str(number): number for number in range(500)}] * (NESTED_MAX - 1)).encode()
    reading = Thread(target=parsed, args=(body,))
    turns, usual_s = 0, sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        reading.start()
        while reading.is_alive():
            turns += 1
            time.sleep(0)
    finally:
        sys.setswitchinterval(usual_s)
    assert turns > 20  # a few where the scanner keeps the interpreter to itself


def test_both_halves_of_a_character_are_one() -> None:
    assert parsed(b'"\\ud83d\\ude00"') == "\U0001f600"


@pytest.mark.parametrize(
    "value",
    [
        [1] * (VALUES_MAX + 1),
        ["a"] * (VALUES_MAX + 1),
        {str(number): "x" for number in range(VALUES_MAX + 1)},
        {"a": "\\", "b": [1] * VALUES_MAX},
        [[[[[[[[[[]]]]]]]]]] * (VALUES_MAX // 10),
        {"a": [{"": {"": {}}}] * (VALUES_MAX // 3)},
    ],
)
def test_there_is_an_end_to_values(value: object) -> None:
    with pytest.raises(TooManyValues):
        check_values(json.dumps(value).encode() + b" ")


@pytest.mark.parametrize(
    "text", ["," * VALUES_MAX, '"' * VALUES_MAX * 5, '\\",' * VALUES_MAX, "é\n" * VALUES_MAX]
)
def test_there_is_none_to_what_is_in_a_text(text: str) -> None:
    check_values(json.dumps({"a": text, "b": [text]}).encode())
    check_values(json.dumps(text, ensure_ascii=False).encode())


@pytest.mark.parametrize("before", [0, 1, STRETCH_BYTES_MAX, 3 * STRETCH_BYTES_MAX])
@pytest.mark.parametrize("behind", [0, 1, STRETCH_BYTES_MAX])
def test_no_stretch_without_objects_is_longer_than_may_be(before: int, behind: int) -> None:
    front, back = b'[{"a":1},' * (before // 9), b"{}" * (behind // 2)
    check_stretches(front + b"1" * (STRETCH_BYTES_MAX - 10) + b"}" + back)
    for stretch in (b"1" * (STRETCH_BYTES_MAX + 1), b"1" * (STRETCH_BYTES_MAX + 1) + b"}"):
        with pytest.raises(TooManyValues):
            check_stretches(front + stretch + back.replace(b"}", b"{"))
