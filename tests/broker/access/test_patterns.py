"""Patterns of permissions, where PCRE and Python agree and where they had to be made to."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.access.patterns import UnusablePattern, compiled, expanded, found


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("", [""], ["a", " "]),
        (".*", ["", "a", "é"], []),
        ("in", ["in", "inn", "begin"], ["IN", "i", ""]),
        ("^in", ["inn"], ["begin"]),
        ("in$", ["begin", "in\n"], ["inn"]),
        (r"in\z", ["begin"], ["in\n"]),
        (r"in\Z", ["begin", "in\n"], ["inn"]),
        ("(?i)in", ["IN"], ["on"]),
        ("^[[:alpha:]_]+$", ["ab_c"], ["a1"]),
        (r"\[:alpha:]", ["[:alpha:]"], ["a"]),
        (r"\\z$", ["\\z"], ["z", "\\"]),
        ("^..$", ["é", "ab"], ["a"]),  # octets, as with RabbitMQ
        ("(?<year>[0-9]{4})", [], []),
    ],
)
def test_what_a_pattern_finds(pattern: str, matching: list[str], other: list[str]) -> None:
    assert [name for name in matching if not found(pattern, name)] == []
    assert [name for name in other if found(pattern, name)] == []


@pytest.mark.parametrize("pattern", ["(", "[", "*", "a{2,1}", "[[:nonsense:]]", "[[:^alpha:]]"])
def test_what_cannot_be_read_finds_nothing(pattern: str) -> None:
    with pytest.raises(UnusablePattern, match="cannot use the regular expression"):
        compiled(pattern)
    assert not any(found(pattern, name) for name in ("", "(", "[", "a", "aa"))


@given(st.text(), st.text(), st.text())
def test_a_literal_is_searched_for(before: str, name: str, after: str) -> None:
    assert found(re.escape(name) or ".*", before + name + after)
    assert found(f"^{re.escape(name)}\\z", before + name) == (not before)


@given(st.text(), st.text())
def test_variables_are_taken_literally(username: str, vhost: str) -> None:
    variables = {"username": username, "vhost": vhost}
    pattern = expanded(r"^{username}\.{vhost}\z", variables)
    assert found(pattern, f"{username}.{vhost}")
    assert not found(pattern, f"{username}x{vhost}")


def test_other_braces_stay() -> None:
    assert expanded("a{2}{client_id}{username}", {"username": "u"}) == "a{2}{client_id}u"
