"""Terms are read as RabbitMQ 4.3 reads them (sjx_parser); none is too deep, too long, too large."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.routing.jms_topic import (
    ATOMS,
    DEPTH_MAX,
    DIGITS_MAX,
    TEXT_BYTES_MAX,
    InvalidTerm,
    Term,
    read_term,
)
from tests.support.selectors import Drawn, selector


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("true", "true"),
        (" 'no_escape' \r\n.\t", "no_escape"),
        (r"'\<\>'", "<>"),
        ("{}", ()),
        ('{ident , <<"a">>}.', ("ident", b"a")),
        ("{1,}", (1,)),
        ("[]", []),
        ("[ 1 ,[2],{3} ]", [1, [2], (3,)]),
        ("<<>>", b""),
        ("<< >>", b""),
        ('<<"">>', b""),
        ('<< "a" >>', b"a"),
        (r'<<"q\" b\\ n\n t\t r\r x\x">>', b'q" b\\ n\n t\t r\r xx'),
        ('<<"é">>', "é".encode()),
        ('"ab"', [97, 98]),
        ('""', []),
        ("5", 5),
        ("- 5", -5),
        ("+5.", 5),
        ("007", 7),
        ("1.5", 1.5),
        ("-1.0E10", -1e10),
        ("1.5e-3.", 0.0015),
        ("1.0e+2", 100.0),
        ("9" * DIGITS_MAX, int("9" * DIGITS_MAX)),
    ],
)
def test_terms(text: str, term: Term) -> None:
    found = read_term(text.encode())
    assert (found, type(found)) == (term, type(term))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "unexpected_end"),
        ("  ", "unexpected_end"),
        ("{1,", "unexpected_end"),
        ("[1,]", "unexpected_character"),
        ("{1 2}", "expected_comma_or_closing_brace"),
        ("[1 2]", "expected_comma_or_closing_bracket"),
        ("[", "unexpected_end"),
        (".", "unexpected_character"),
        ("True", "unexpected_character"),
        ("$a", "unexpected_character"),
        ("--1", "unexpected_character"),
        ("-", "unexpected_character"),
        ("true true", "trailing_characters"),
        ("true..", "trailing_characters"),
        ("1e5", "trailing_characters"),
        ("16#ff", "trailing_characters"),
        ("1.5e", "invalid_term"),
        ("1.5e+", "invalid_term"),
        ("1.0e400", "invalid_term"),
        ("1" + "0" * DIGITS_MAX, "invalid_term"),
        ("<<1>>", "invalid_binary"),
        ("<<", "invalid_binary"),
        ('<<"a">', "expected_closing_binary"),
        ('<<"a"/utf8>>', "expected_closing_binary"),
        ('"a', "unterminated_string"),
        ('"a\\"', "unterminated_string"),
        ('"a\\', "unterminated_string"),
        ("'a", "unterminated_quoted_atom"),
        ("erlang", '{unknown_atom,"erlang"}'),
        ("'q\"\\\\\té'", '{unknown_atom,"q\\"\\\\\\tÃ©"}'),
        ("''", "{unknown_atom,[]}"),
        ("'\x01a'", "{unknown_atom,[1,97]}"),
        ("no_escape1", '{unknown_atom,"no_escape1"}'),
    ],
)
def test_what_is_no_term(text: str, reason: str) -> None:
    with pytest.raises(InvalidTerm) as unreadable:
        read_term(text.encode())
    assert str(unreadable.value) == reason


@pytest.mark.parametrize(("opening", "closing"), ["{}", "[]"])
def test_how_deep_it_may_be(opening: str, closing: str) -> None:
    def nested(depth: int) -> bytes:
        return (opening * depth + "1" + closing * depth).encode()

    read_term(nested(DEPTH_MAX))
    for depth in (DEPTH_MAX + 1, TEXT_BYTES_MAX // 4):
        with pytest.raises(InvalidTerm, match="max_depth_exceeded"):
            read_term(nested(depth))


def test_how_long_it_may_be() -> None:
    assert read_term(b'"' + b"a" * (TEXT_BYTES_MAX - 2) + b'"') == [97] * (TEXT_BYTES_MAX - 2)
    with pytest.raises(InvalidTerm, match="max_size_exceeded"):
        read_term(b" " * TEXT_BYTES_MAX + b"1")


TERMS = st.recursive(
    st.integers()
    | st.floats(allow_nan=False, allow_infinity=False, min_value=0.001, max_value=1e9)
    | st.text("ab\"\\'\n", max_size=4).map(str.encode)
    | st.sampled_from(sorted(ATOMS)),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=12,
)


@given(TERMS)
def test_what_is_written_is_read(term: Term) -> None:
    assert read_term(selector(term).encode()) == term


@given(st.randoms(use_true_random=False))
def test_so_are_selectors(chance: Random) -> None:
    term = Drawn(chance).condition(4)
    assert read_term(selector(term).encode()) == term
