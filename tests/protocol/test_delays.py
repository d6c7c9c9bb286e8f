"""x-delay: facts of github.com/rabbitmq/rabbitmq-delayed-message-exchange (4.2), in its
src/rabbit_delayed_message_utils.erl and src/rabbit_exchange_type_delayed_message.erl."""

from __future__ import annotations

import pytest

from fluffle.protocol.headers import delay_in, delay_of, waited
from fluffle.protocol.properties import Properties, decode_properties, encode_properties
from fluffle.protocol.types import Field

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
