"""Headers exchanges.  The answers are those of RabbitMQ 4.0.5."""

import pytest

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.routing.matcher import headers_matcher
from fluffle.protocol.properties import Properties
from fluffle.protocol.wire import Field, FieldTable
from tests.broker.routing.topologies import matches_of, to_queue

ONE: Field = ("I", 1)


def matches(arguments: FieldTable, headers: FieldTable | None) -> bool:
    matcher = headers_matcher()
    matcher.add(to_queue("x", "q", "", arguments))
    return len(list(matches_of(matcher, [""], Properties(headers=headers)))) == 1


def x_match(mode: str, **arguments: Field) -> FieldTable:
    return {"x-match": ("S", mode.encode()), **arguments}


@pytest.mark.parametrize(
    ("mode", "headers", "expected"),
    [
        ("all", {"a": ONE, "b": ONE, "c": ONE}, True),
        ("all", {"a": ONE}, False),
        ("all", {"a": ONE, "b": ("I", 2)}, False),
        ("all", {}, False),
        ("all", None, False),
        ("any", {"a": ONE}, True),
        ("any", {"a": ("I", 2), "b": ONE}, True),
        ("any", {"a": ("I", 2)}, False),
        ("any", {"A": ONE}, False),
        ("any", None, False),
    ],
)
def test_all_wants_every_argument_and_any_one(
    mode: str, headers: FieldTable | None, expected: bool
) -> None:
    assert matches(x_match(mode, a=ONE, b=ONE), headers) is expected


def test_all_is_the_default() -> None:
    assert not matches({"a": ONE, "b": ONE}, {"a": ONE})
    assert matches({"a": ONE, "b": ONE}, {"b": ONE, "a": ONE})


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("all", True), ("any", False), ("all-with-x", True), ("any-with-x", False)],
)
def test_without_arguments_all_matches_everything_and_any_nothing(
    mode: str, expected: bool
) -> None:
    assert matches(x_match(mode), None) is expected
    assert matches(x_match(mode), {"a": ONE, **x_match(mode)}) is expected


@pytest.mark.parametrize(
    ("mode", "present", "absent"),
    [
        ("all", True, True),
        ("any", False, False),
        ("all-with-x", True, False),
        ("any-with-x", True, False),
    ],
)
def test_x_arguments_count_only_with_x(mode: str, present: bool, absent: bool) -> None:
    assert matches({**x_match(mode), "x-a": ONE}, {"x-a": ONE}) is present
    assert matches({**x_match(mode), "x-a": ONE}, {}) is absent


def test_only_a_small_x_and_a_dash_make_an_x_argument() -> None:
    assert matches({"x-": ONE}, {})
    assert not matches({"x": ONE}, {})
    assert not matches({"X-a": ONE}, {})


@pytest.mark.parametrize(
    ("wanted", "given", "expected"),
    [
        # The width and sign of an integer do not count, its being one does.
        (("I", 5), ("l", 5), True),
        (("b", 5), ("s", 5), True),
        (("I", 5), ("I", 6), False),
        (("I", 1), ("d", 1.0), False),
        (("I", 1), ("t", True), False),
        (("I", 0), ("t", False), False),
        (("t", True), ("t", True), True),
        (("t", True), ("t", False), False),
        (("d", 1.5), ("f", 1.5), True),
        # Strings are octets.
        (("S", b"a"), ("x", b"a"), True),
        (("S", b""), ("S", b""), True),
        (("S", b"1"), ("I", 1), False),
        (("S", b"undefined"), ("V", None), False),
        (("D", (1, 15)), ("D", (1, 15)), True),
        (("D", (1, 15)), ("D", (2, 150)), False),
        # A void argument: there, whatever it is.
        (("V", None), ("I", 5), True),
        (("V", None), ("V", None), True),
        (("I", 5), ("V", None), False),
        # Timestamps: the header in milliseconds, the argument in seconds.
        (("T", 7), ("T", 7), False),
        (("T", 7), ("I", 7), True),
        (("I", 7000), ("T", 7), True),
        # Inside tables and arrays tags and order count, and timestamps stay as they are.
        (("A", [("I", 1), ("I", 2)]), ("A", [("I", 1), ("I", 2)]), True),
        (("A", [("I", 1), ("I", 2)]), ("A", [("I", 2), ("I", 1)]), False),
        (("A", [("I", 1)]), ("A", [("l", 1)]), False),
        (("A", [("l", 1)]), ("A", [("L", 1)]), True),
        (("A", [("S", b"a")]), ("A", [("x", b"a")]), False),
        (("A", [("T", 7)]), ("A", [("T", 7)]), True),
        (("A", [("V", None)]), ("A", [("I", 5)]), False),
        (("F", {"a": ONE}), ("F", {"a": ONE}), True),
        (("F", {"a": ONE}), ("F", {"a": ("l", 1)}), False),
        (("F", {"a": ONE, "b": ONE}), ("F", {"b": ONE, "a": ONE}), False),
        (("F", {"a": ("A", [ONE])}), ("F", {"a": ("A", [ONE])}), True),
        (("F", {}), ("A", []), True),
        (("F", {"a": ONE}), ("A", [ONE]), False),
    ],
)
def test_values_of_all_types(wanted: Field, given: Field, expected: bool) -> None:
    assert matches({"k": wanted}, {"k": given}) is expected
    assert matches(x_match("any", k=wanted), {"k": given}) is expected


def test_a_void_argument_wants_the_header_to_be_there() -> None:
    assert not matches({"k": ("V", None)}, {})
    assert not matches(x_match("any", k=("V", None)), {"other": ONE})


@pytest.mark.parametrize(
    ("field", "explanation"),
    [
        (("S", b"foo"), 'value <<"foo">>; expected all, any, all-with-x, or any-with-x'),
        (("S", b"ALL"), 'value <<"ALL">>; expected all, any, all-with-x, or any-with-x'),
        (("S", b""), "value <<>>; expected all, any, all-with-x, or any-with-x"),
        (("x", b"any"), 'type binary (value <<"any">>); expected longstr'),
        (("I", 5), "type signedint (value 5); expected longstr"),
        (("t", True), "type bool (value true); expected longstr"),
        (("V", None), "type void (value undefined); expected longstr"),
        (("F", {"a": ONE}), 'type table (value [{<<"a">>,signedint,1}]); expected longstr'),
    ],
)
def test_any_other_x_match_is_refused(field: Field, explanation: str) -> None:
    matcher = headers_matcher()
    with pytest.raises(PreconditionFailed) as caught:
        matcher.check(to_queue("x", "q", "", {"x-match": field}))
    assert caught.value.explanation == f"Invalid x-match field {explanation}"
    assert len(matcher) == 0


def test_bindings_are_distinguished_by_arguments_and_key() -> None:
    matcher = headers_matcher()
    first = to_queue("x", "q", "", {"a": ONE, "b": ONE})
    assert matcher.add(first)
    assert not matcher.add(to_queue("x", "q", "", {"b": ONE, "a": ONE}))
    assert matcher.add(to_queue("x", "q", "key", {"a": ONE, "b": ONE}))
    assert matcher.add(to_queue("x", "q", "", {"a": ("l", 1), "b": ONE}))
    assert matcher.discard(to_queue("x", "q", "", {"b": ONE, "a": ONE}))
    assert not matcher.discard(first)
    assert len(matcher) == 2
    assert first not in list(matcher)
