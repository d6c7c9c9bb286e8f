"""Signatures as schemas."""

import pytest

from fluffle.broker.admin.arguments import (
    Entries,
    Limits,
    arguments_of,
    check_arguments,
    check_name,
)
from fluffle.broker.base.errors import SyntaxFailure


def verb(
    context: object,
    *,
    name: str,
    count: int = 0,
    all_of_them: bool = False,
    tags: list[str] | None = None,
    limits: Limits | None = None,
    entries: Entries | None = None,
) -> None:
    """Takes one argument of each type."""


TAKEN = arguments_of(verb)


def test_the_first_parameter_is_no_argument() -> None:
    assert list(TAKEN) == ["name", "count", "all_of_them", "tags", "limits", "entries"]
    assert [name for name, argument in TAKEN.items() if argument.required] == ["name"]


@pytest.mark.parametrize(
    "given",
    [
        {"name": ""},
        {"name": "\udc80"},  # an octet that was no UTF-8
        {"name": "a", "count": -1, "all_of_them": True, "tags": ["b"], "limits": {"c": None}},
        {"name": "a", "tags": None, "limits": {"c": 1}, "entries": [{}]},
    ],
)
def test_what_fits_is_taken(given: dict[str, object]) -> None:
    check_arguments(TAKEN, given)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "'name' is missing"),
        ({"name": "a", "nam": "b"}, "there is no argument 'nam'"),
        ({"name": None}, "'name' must be a string"),
        ({"name": 1}, "'name' must be a string"),
        ({"name": "\ud800"}, "'name' must be a string"),
        ({"name": "a", "count": True}, "'count' must be a whole number"),
        ({"name": "a", "count": 1.5}, "'count' must be a whole number"),
        ({"name": "a", "all_of_them": 1}, "'all_of_them' must be true or false"),
        ({"name": "a", "tags": "b"}, "'tags' must be a list of strings or null"),
        ({"name": "a", "tags": [1]}, "'tags' must be a list of strings or null"),
        ({"name": "a", "limits": {"c": "1"}}, "'limits' must be an object of numbers or null"),
        ({"name": "a", "limits": {"c": True}}, "'limits' must be an object of numbers or null"),
        ({"name": "a", "entries": [1]}, "'entries' must be a list of objects or null"),
    ],
)
def test_what_does_not_fit_is_named(given: dict[str, object], text: str) -> None:
    with pytest.raises(SyntaxFailure) as refused:
        check_arguments(TAKEN, given)
    assert refused.value.explanation == text


@pytest.mark.parametrize("name", ["", "a" * 256, "é" * 128])
def test_names_have_an_end(name: str) -> None:
    check_name("user", "a" * 255)
    with pytest.raises(SyntaxFailure, match="1 to 255 bytes"):
        check_name("user", name)
