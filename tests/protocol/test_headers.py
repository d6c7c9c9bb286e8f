"""Headers that the broker adds: where they stand, and that nothing else of a message changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.protocol.headers import (
    PropertyOverlay,
    counted,
    delay_in,
    delay_of,
    waited,
    with_headers,
)
from fluffle.protocol.properties import (
    Properties,
    body_of,
    build_content,
    decode_properties,
    encode_properties,
    join_properties,
    raw_properties,
    split_properties,
)
from fluffle.protocol.wire import Field, FieldTable, to_table
from tests.protocol.test_properties import PROPERTIES

KEYS = st.sampled_from(["a", "x-delivery-count", "x-a", "z", "é", "\udcff", ""])
TABLES: st.SearchStrategy[FieldTable] = st.dictionaries(
    KEYS,
    st.sampled_from([("l", 1), ("t", True), ("S", b"\xff"), ("F", {"n": ("s", 5)}), ("V", None)]),
)


def message(**properties: object) -> bytes:
    return build_content(encode_properties(Properties(**properties)), b"body")  # type: ignore[arg-type]


def headers_of(content: bytes) -> list[tuple[str, object]]:
    table = decode_properties(raw_properties(content)).headers
    assert table is not None
    return list(table.items())


def test_counts_of_a_message_without_headers() -> None:
    [content] = counted([message(content_type="text/plain", priority=3)], 2, 1)
    expected = Properties(
        content_type="text/plain",
        headers={"x-acquired-count": ("l", 2), "x-delivery-count": ("l", 1)},
        priority=3,
    )
    assert content == build_content(encode_properties(expected), b"body")


def test_hand_outs_that_have_not_failed_are_not_reported_as_failures() -> None:
    [content] = counted([message()], 2, 0)
    assert headers_of(content) == [("x-acquired-count", ("l", 2))]


def test_what_a_client_says_of_counts_is_not_believed() -> None:
    """RabbitMQ 4.0.5 answers to the same message with the same order."""
    [content] = counted(
        [message(headers=to_table({"z": 1, "a": 2, "x-delivery-count": "mine"}))], 3, 3
    )
    assert headers_of(content) == [
        ("a", ("l", 2)),
        ("x-acquired-count", ("l", 3)),
        ("x-delivery-count", ("l", 3)),
        ("z", ("l", 1)),
    ]


def test_messages_of_a_run_are_changed_each() -> None:
    run = [message(message_id=name) for name in ("a", "b", "a")]
    changed = counted(run, 1, 0)
    assert [decode_properties(raw_properties(content)).message_id for content in changed] == [
        *"aba"
    ]
    assert [body_of(content) for content in changed] == [b"body"] * 3


def test_fields_pass_as_they_stand() -> None:
    """True written as 2 and a second field of one name are no table that this project writes."""
    odd = b"\x03odd" + b"t\x02"
    table = odd + b"\x01bV" + b"\x01bI\x00\x00\x00\x05"
    raw = b"\x20\x00" + len(table).to_bytes(4, "big") + table
    added = with_headers(raw, {"c": ("B", 1)})
    inside = b"\x01bV" + b"\x01cB\x01" + odd
    assert added == b"\x20\x00" + len(inside).to_bytes(4, "big") + inside


def sorted_table(table: FieldTable) -> FieldTable:
    """Table sorted by the bytes of its keys, inner tables as they are: so RabbitMQ 4.0.5 writes
    headers."""
    return dict(sorted(table.items(), key=lambda item: item[0].encode(errors="surrogateescape")))


@given(PROPERTIES, TABLES, TABLES)
def test_headers_are_added_and_all_else_is_kept(
    properties: Properties, headers: FieldTable, added: FieldTable
) -> None:
    properties.headers = headers
    changed = decode_properties(with_headers(encode_properties(properties), added))
    properties.headers = sorted_table(headers | added)
    assert changed == properties
    assert list(changed.headers or ()) == list(properties.headers)


@given(PROPERTIES)
def test_properties_are_joined_as_they_were_split(properties: Properties) -> None:
    raw = encode_properties(properties)
    assert join_properties(split_properties(raw)) == raw


TIMES = st.none() | st.just(5)
STAMPS = st.builds(Properties, headers=st.none() | TABLES, timestamp=TIMES)


@given(PROPERTIES, STAMPS, STAMPS)
def test_a_stamp_is_as_if_decoded_and_changed(
    properties: Properties, over: Properties, under: Properties
) -> None:
    raw = encode_properties(properties)
    stamped = decode_properties(PropertyOverlay(over, under).on(raw))
    headers = {**(under.headers or {}), **(properties.headers or {}), **(over.headers or {})}
    times = (over.timestamp, properties.timestamp, under.timestamp)
    properties.headers = sorted_table(headers)
    properties.timestamp = next((each for each in times if each is not None), None)
    assert encode_properties(stamped) == encode_properties(properties)


INTEGERS: list[Field] = [(tag, 100) for tag in "bBsuIilL"]
FLOATS: list[Field] = [(tag, 100.9) for tag in "fd"]


@pytest.mark.parametrize(
    "field", [*INTEGERS, *FLOATS, ("S", b"100"), ("S", b"+100"), ("x", b"0100")]
)
def test_how_long(field: Field) -> None:
    assert delay_of({"x-delay": field}) == 100


@pytest.mark.parametrize(
    "field",
    [
        ("l", 0),
        ("l", -1),
        ("l", 1 << 32),
        ("d", 0.9),
        ("d", -7.0),
        ("d", 1e300),
        ("S", b""),
        ("S", b"soon"),
        ("S", b"10 "),
        ("S", b"-10"),
        ("S", b"9" * 5_000),
        ("t", True),
        ("T", 100),
        ("V", None),
        ("F", {}),
        ("A", []),
    ],
)
def test_at_once(field: Field) -> None:
    assert delay_of({"x-delay": field}) == 0


def test_as_long_as_a_timer_of_erlang_can_be_set() -> None:
    assert delay_of({"x-delay": ("l", (1 << 32) - 1)}) == (1 << 32) - 1
    assert delay_of({}) == delay_of(None) == 0


def test_what_has_waited_says_so_and_does_not_wait_again() -> None:
    raw = encode_properties(Properties(headers={"x-delay": ("S", b"70"), "a": ("I", 1)}))
    assert delay_in(raw) == 70
    again = waited(raw)
    assert decode_properties(again).headers == {"a": ("I", 1), "x-delay": ("l", -70)}
    assert delay_in(again) == 0
    assert waited(again) == again
    plain = encode_properties(Properties(headers={"a": ("I", 1)}))
    assert waited(plain) is plain
