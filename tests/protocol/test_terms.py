"""Values in reply texts, as RabbitMQ 4.0.5 printed them."""

import pytest

from fluffle.protocol.terms import term, text
from fluffle.protocol.wire import FieldValue


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (None, "undefined"),
        (True, "true"),
        (False, "false"),
        (5, "5"),
        (-1, "-1"),
        (1.5, "1.5"),
        (100.0, "100.0"),
        (1000.0, "1.0e3"),
        (-1234567.0, "-1234567.0"),
        (1.25e20, "1.25e20"),
        (2.0**53, "9.007199254740992e15"),
        (0.001, "0.001"),
        (5e-324, "5.0e-324"),
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        ((1, 15), "{1,15}"),
        (b"", "<<>>"),
        (b"foo", '<<"foo">>'),
        (b'a"b\\', '<<"a\\"b\\\\">>'),
        (b"a\nb", '<<"a\\nb">>'),
        ("é".encode(), '<<"é"/utf8>>'),
        (b"\xff", '<<"ÿ">>'),
        (b"\x01\x02", "<<1,2>>"),
        ([], "[]"),
        ([("I", 1), ("S", b"b")], '[{signedint,1},{longstr,<<"b">>}]'),
        ({}, "[]"),
        ({"a": ("I", 1), "b": ("F", {})}, '[{<<"a">>,signedint,1},{<<"b">>,table,[]}]'),
    ],
)
def test_term(value: FieldValue, printed: str) -> None:
    assert term(value) == printed


@pytest.mark.parametrize(
    ("value", "printed"),
    [("plain", "plain"), (b"ae", "ae"), ("é".encode(), "é"), (b"\xff", "ÿ"), (False, "false")],
)
def test_strings_stand_for_themselves_in_text(value: "FieldValue | str", printed: str) -> None:
    assert text(value) == printed
