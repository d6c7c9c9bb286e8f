"""Patterns of permissions, where PCRE and Python agree and where they had to be made to."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.patterns.patterns import (
    UnusablePattern,
    compiled,
    expanded,
    found,
    searching_for,
)
from fluffle.broker.patterns.search import EFFORT_MAX, STEADY_EFFORT_MAX, effort, translated
from fluffle.broker.patterns.syntax import parse


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


@pytest.mark.parametrize("pattern", [r"(a)\1$", "(?>ab)c", "a++b", "^(a)?(?(1)b|c)$"])
def test_what_leaves_few_ways_may_use_all_of_re(pattern: str) -> None:
    names = ("aa", "ab", "abc", "aab", "c", "ac")
    for name in names:
        assert found(pattern, name) == (re.search(pattern, name) is not None)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (r"(a+)+\1", "back references cannot be used where many ways lead to a match"),
        ("(.*)*(?>a)", "atomic groups cannot be used"),
        ("(?x)(a *)+", "the flags x and L cannot be used"),
        ("((a{100}){100}){100}", "more than 10000 steps cannot be used"),
        ("a" * 8193, "it has more than 8192 bytes"),
    ],
)
def test_what_cannot_be_bounded_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(UnusablePattern) as refused:
        compiled(pattern)
    assert reason in str(refused.value)
    assert len(str(refused.value)) < 400
    assert not found(pattern, "a")


@pytest.mark.parametrize(
    ("pattern", "is_quick"),
    [
        ("", True),
        (".*", True),
        (r"^orders\.", True),
        ("^(a|b|c)-.*", True),
        (r"^\w+\.\w+$", True),
        ("^(?!amq\\.).*", True),
        ("|".join(f"queue{number}" for number in range(300)), True),
        ("(a+)+$", False),
        ("(a|a)*$", False),
        ("(.*a){20}", False),
        (".*.*x", False),
        ("(?i)(A+)+$", False),
    ],
)
def test_re_searches_where_it_has_few_ways(pattern: str, is_quick: bool) -> None:
    assert (effort(parse(translated(pattern.encode()))) <= EFFORT_MAX) == is_quick


@pytest.mark.parametrize(
    ("pattern", "is_steady"),
    [
        (".*", True),
        ("^$", True),
        (r"^orders\.", True),
        (r"^(?!amq\.).*", True),
        (r"(?!amq\.).*x.*y", True),
        (r"^\w+\.\w+$", True),
        ("^[a-z]+-[a-z]+-[a-z]+$", True),
        ("^.*-.{8}-.{4}-.{4}-.{4}-.{12}$", True),
        (r"^([a-z0-9_-]+\.)+(dlq|retry)$", True),
        ("|".join(f"queue{number}" for number in range(300)), True),
        ("(a+)+$", True),
        ("(.*a){20}", True),
        ("(?=.*a)(?=.*b)(?!.*c).*x", True),
        ("(a*)*x" + "(?=a" * 90 + ")" * 90, False),
        (".*a.{20}b", False),
        ("^(a?){100}a{100}$", False),
    ],
)
def test_what_is_searched_for_in_many_names(pattern: str, is_steady: bool) -> None:
    assert searching_for(pattern).is_steady == is_steady


def test_a_look_ahead_is_one_way() -> None:
    """`re` does not look another time, so that what is behind is tried once for it."""
    assert effort(parse(b"^(?=.*a)(?=.*b)(?!.*c).*x")) < STEADY_EFFORT_MAX


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("^(a+)+$", ["a", "a" * 255], ["", "b", "a" * 254 + "!"]),
        ("^(a|a)*$", ["", "a" * 255], ["a" * 254 + "b"]),
        ("(.*a){20}", ["a" * 20, "xa" * 100], ["a" * 19]),
        ("^((a|b)+-?)+[[:digit:]]$", ["ab-ba1"], ["ab-"]),
        (r"^(.*)(.*)\Z", ["", "x\n"], []),
        ("^(é+)+$", ["é", "éé"], ["e"]),
        ("(?i)^(x+)+$", ["xX"], ["y"]),
    ],
)
def test_evil_patterns_mean_what_they_say(
    pattern: str, matching: list[str], other: list[str]
) -> None:
    assert [name for name in matching if not found(pattern, name)] == []
    assert [name for name in other if found(pattern, name)] == []
