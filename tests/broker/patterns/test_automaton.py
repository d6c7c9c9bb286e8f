"""The automaton finds what `re` finds, and nothing takes it long."""

import re
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fluffle.broker.patterns import automaton
from fluffle.broker.patterns.automaton import (
    COST_MAX,
    STEPS_MAX,
    Automaton,
    Budget,
    Search,
    TooCostly,
    TooLarge,
    TransitionTable,
)
from fluffle.broker.patterns.syntax import UnsupportedSyntax, parse

ATOMS = (
    *("a", "b", ".", "\\.", "_", "1", "-", "^", "$", "\\A", "\\Z", "\\b", "\\B", "\\d", "\\W"),
    *("\\x61", "\\141", "\\0", "\\n", "[ab]", "[^a]", "[]a]", "[a-c_]", "[^\\W\\d]", "[a\\]-]"),
    *("[\\x60-b]", "(?#note)", "()", "{", "{}", "{,x}", "\\s", "\\t"),
)
QUANTIFIERS = ("*", "+", "?", "*?", "+?", "??", "{2}", "{0}", "{1,2}", "{,2}", "{1,}", "{1,2}?")
OPENINGS = ("(", "(?:", "(?P<n>", "(?i:", "(?s-i:", "(?m:", "(?=", "(?!")
FLAGS = ("", "(?i)", "(?s)", "(?m)", "(?im)(?s)")


def grouped(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    group = st.builds("{}{})".format, st.sampled_from(OPENINGS), inner)
    behind = st.builds("(?<{}{})".format, st.sampled_from("=!"), st.sampled_from(ATOMS[:6]))
    repeated = st.builds("(?:{}){}".format, inner, st.sampled_from(QUANTIFIERS))
    return (
        st.lists(inner | group | behind | repeated, min_size=1, max_size=4).map("".join)
        | st.lists(inner, min_size=2, max_size=3).map("|".join)
        | repeated
    )


SINGLE = st.builds(
    "{}{}".format,
    st.sampled_from([each for each in ATOMS if each not in ("^", "$", "\\A", "\\Z", "{")]),
    st.sampled_from(("", *QUANTIFIERS)),
)
EXPRESSIONS = st.recursive(st.sampled_from(ATOMS) | SINGLE, grouped, max_leaves=8)
NAMES = st.text(alphabet="aAbB_1.-\n \0", max_size=8).map(str.encode) | st.binary(max_size=4)


def compiled(expression: bytes) -> re.Pattern[bytes] | None:
    try:
        return re.compile(expression)
    except (re.error, FutureWarning):
        return None


@given(st.sampled_from(FLAGS), EXPRESSIONS, st.lists(NAMES, min_size=1, max_size=5))
@example("", "(a|b*)*", [b"c"])
@example("", "^a$|b", [b"a\n", b"\nb"])
@example("(?m)", "^a$", [b"b\na\nc"])
@example("", "(?=.*a)(?!.*b)", [b"a", b"ab", b"ba"])
@example("", "(?<!a)b", [b"ab", b"b"])
@example("", "(?=\\n?\\Z)a*", [b"a\n"])
@example("", "(?:(?=a)){2}a", [b"a"])
def test_it_finds_what_re_finds(flags: str, expression: str, names: list[bytes]) -> None:
    octets = f"{flags}{expression}".encode()
    oracle = compiled(octets)
    if oracle is None:
        return
    if b"\\B" in octets:
        names = [name for name in names if name]  # PCRE finds it there, Python from 3.14 on
    found = Automaton(parse(octets))
    searched = {name: oracle.search(name) is not None for name in names}
    assert {name: found.finds(name) for name in names} == searched
    try:
        table = TransitionTable(found.program)
    except TooLarge:
        return
    assert {name: table.finds(name) for name in names} == searched


def evil_names() -> Iterator[bytes]:
    yield b"a" * 255
    yield b"a" * 254 + b"!"
    yield b"ab" * 127
    yield b"b" * 255


@pytest.mark.parametrize(
    "expression",
    [
        b"(a+)+$",
        b"(a|a)*$",
        b"(.*a){20}",
        b"(.*)*x",
        b".*.*.*.*.*x",
        b"(a|ab|abc)*$",
        b"((((a*)*)*)*)*x",
        b"^(a?){90}a{90}$",
        b"(?=.*a)(?=.*b)(?!.*c).*x",
    ],
)
def test_evil_patterns_are_done_in_few_steps(expression: bytes) -> None:
    """The work is counted, not timed: `re` would need 2 to the power of 255."""
    program = Automaton(parse(expression)).program
    for name in evil_names():
        search = Search(name)
        next(search.ends(program), None)
        assert search._visits < automaton.VISITS_MAX * 4 // 5


EVIL = (b"(a+)+$", b"(a|a)*$", b"(.*a){20}", b"(.*)*x", b".*.*.*.*.*x", b"((((a*)*)*)*)*x")


@pytest.mark.parametrize("expression", EVIL)
def test_a_table_looks_at_each_octet_once(expression: bytes) -> None:
    program, budget = Automaton(parse(expression)).program, Budget()
    table = TransitionTable(program, budget)
    assert COST_MAX - budget.left < COST_MAX // 4
    for name in evil_names():
        assert table.finds(name) == (next(Search(name).ends(program), None) is not None)


@pytest.mark.parametrize(
    "expression",
    [
        b".*a.{20}b",  # the places of the last twenty octets: a million states
        b"^(a?){90}a{90}$",
        b"(?:^|a|$|\\b|\\B|\\A|\\Z|(?m:^)|(?m:$))b",
        b"(?=a)(?=b)(?=c)(?=d)x",
        b"(?=a(?=b(?=c(?=d))))x",
    ],
)
def test_there_is_an_end_to_tables(expression: bytes) -> None:
    with pytest.raises(TooLarge):
        TransitionTable(Automaton(parse(expression)).program)


def test_what_takes_too_long_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Automaton(parse(b"(a{1,50}){1,50}$"))
    assert found.finds(b"a" * 5)
    assert not found.finds(b"a" * 255)
    with pytest.raises(TooCostly):
        list(Search(b"a" * 255).ends(found.program))


@pytest.mark.parametrize(
    "expression",
    [
        b"a{10000}",
        b"((a{100}){100}){100}",
        b"(?=a{5000})(?=b{5000})",
        b"(a?){4000000000}",
        b"(^){4000000000}",
    ],
)
def test_there_is_an_end_to_steps(expression: bytes) -> None:
    with pytest.raises(UnsupportedSyntax, match=f"more than {STEPS_MAX} steps"):
        Automaton(parse(expression))


def test_what_repeats_nothing_is_nothing() -> None:
    assert Automaton(parse(b"(){4000000000}a")).finds(b"a")
    assert Automaton(parse(b"((?=a)){3000}a")).finds(b"a")


@pytest.mark.parametrize(
    ("expression", "what"),
    [
        (rb"(a)\1", "back references"),
        (b"(?P<n>a)(?P=n)", "back references"),
        (b"(?>a)", "atomic groups"),
        (b"a++", "possessive quantifiers"),
        (b"(a)?(?(1)b|c)", "conditions"),
        (b"(?x) a b", "the flags x and L"),
    ],
)
def test_what_no_automaton_does(expression: bytes, what: str) -> None:
    with pytest.raises(UnsupportedSyntax, match=what):
        Automaton(parse(expression))
