"""x-jms-topic: which messages a selector selects, and which selectors there can be.

The answers are those of RabbitMQ 4.0.5's plugin, where it does not fail; texts are those of 4.3.
"""

import operator
from collections.abc import Callable, Mapping
from random import Random
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.routing.exchange import EXCHANGE_TYPES, ExchangeSpec
from fluffle.broker.routing.exchange_host import ExchangeHost
from fluffle.broker.routing.explain import of_selector
from fluffle.broker.routing.jms_topic import (
    DEPTH_MAX,
    ITEMS_MAX,
    PATTERNS_MAX,
    VALUE_BYTES_MAX,
    BadPattern,
    LikePattern,
    Term,
    Value,
    compiled,
    expression,
    read_term,
)
from fluffle.broker.routing.matcher import MatchInput
from fluffle.broker.routing.router import KEYS_SUFFICE, Router
from fluffle.protocol.properties import Properties
from fluffle.protocol.wire import Field, FieldTable, to_table
from tests.broker.routing.topologies import (
    bind,
    declare,
    matches_of,
    to_exchange,
    to_queue,
    topology,
    unbind,
)
from tests.support.selectors import Drawn, selector

HEADERS: FieldTable = {
    "s": ("S", b"blue"),
    "n": ("I", 5),
    "f": ("d", 2.5),
    "yes": ("t", True),
    "no": ("t", False),
    "when": ("T", 5),
    "many": ("A", [("I", 5)]),
    "nothing": ("V", None),
    "money": ("D", (1, 5)),
    "octets": ("x", b"blue"),
    "unsigned": ("B", 5),
    "long": ("S", b"a" * VALUE_BYTES_MAX),
    "longer": ("S", b"a" * (VALUE_BYTES_MAX + 1)),
}


def value(text: str) -> Value:
    return expression(read_term(text.encode()))(HEADERS)


def ident(name: str) -> str:
    return f'{{ident,<<"{name}">>}}'


def selecting(text: str) -> FieldTable:
    return {"rjms_erlang_selector": ("S", text.encode())}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # what is not there, or has a type that JMS has not, is unknown
        (ident("gone"), None),
        (ident("when"), None),
        (ident("many"), None),
        (ident("nothing"), None),
        (ident("money"), None),
        (ident("octets"), None),
        (ident("S"), None),
        ("{ident,in}", None),
        (f"{{is_null,{ident('gone')}}}", "true"),
        (f"{{not_null,{ident('s')}}}", "true"),
        ("{is_null,{'+',1,2}}", "false"),
        (f"{{'=',{ident('unsigned')},5}}", "true"),
        # comparisons know an order of everything
        (f"{{'>',{ident('s')},1000}}", "true"),
        (f"{{'<',{ident('n')},{ident('yes')}}}", "true"),
        ("{'<',{9},{1,2,3,4}}", "true"),
        ("{'<',{1,2,3,4},[]}", "true"),
        ("{'<',{1,2,3,4},{1,3,2,4}}", "true"),
        ("{'<',[],[1]}", "true"),
        ("{'<',[1,2],[1,3]}", "true"),
        ("{'<',[1,2],[1]}", "false"),
        ("{'<',[9],<<>>}", "true"),
        ('{\'=\',[1,<<"a">>],[1.0,<<"a">>]}', "true"),
        ("{'=',true,1}", "false"),
        ("{'=',9007199254740993,9007199254740992.0}", "false"),
        ("{in,1,[1.0]}", "false"),
        ("{in,1.0,[1.0,2]}", "true"),
        ("{in,-0.0,[0.0]}", "false"),
        ("{in,-0.0,[-0.0]}", "true"),
        ("{'=',-0.0,0.0}", "true"),
        ("{in,[1],[[1]]}", "true"),
        ("{not_in,true,[1]}", "true"),
        # arithmetic
        ("{'/',1,2}", 0.5),
        ("{'/',4,2}", 2.0),
        ("{'/',1,0}", "plus_infinity"),
        ("{'/',-1.5,0.0}", "minus_infinity"),
        ("{'/',0,0}", "nan"),
        ("{'/',<<>>,0}", "plus_infinity"),
        ("{'>',{'/',-1,0},1000}", "true"),
        ("{'*',1000000000000,1000000000000}", 10**24),
        ("{'-',5}", -5),
        ("{'+',2.5}", 2.5),
        # what RabbitMQ fails at is unknown
        (f"{{'+',{ident('s')},1}}", None),
        (f"{{'/',{ident('s')},2}}", None),
        (f"{{'/',2,{ident('s')}}}", None),
        (f"{{'-',{ident('yes')}}}", None),
        ("{'*',1.0e300,1.0e300}", None),
        (f"{{'*',1.0e300,1{'0' * 300}}}", None),
        (f"{{'*',1.0,1{'0' * 400}}}", None),
        (f"{{'/',1{'0' * 400},2}}", None),
        (f'{{like,{ident("n")},<<"%">>,no_escape}}', None),
        (f'{{not_like,{ident("n")},<<"%">>,no_escape}}', None),
        ('{like,{ident,<<"long">>},<<"%">>,no_escape}', "true"),
        ('{not_like,{ident,<<"longer">>},<<"%">>,no_escape}', None),
        ("{in,1,1}", None),
        ("{not_in,1,<<>>}", None),
        # logic
        ("{'not',1}", None),
        ("{'and',false,1}", "false"),
        ("{'and',1,false}", "false"),
        ("{'and',true,1}", None),
        ("{'or',1,true}", "true"),
        ("{'or',1,false}", None),
        ("{'and',true,{range,1,2}}", None),
        # what means nothing
        ("{like,1}", "error"),
        ("{1,2,3}", "error"),
        (f"{{like,1,{ident('gone')}}}", None),
        ("{in,1,2,3}", ("in", 1, 2, 3)),
        ("{in,1,{range,2,3}}", ("in", 1, 2, 3)),
        ("[ident,1]", ["ident", 1]),
        ("{'>',1,[range,2,3]}", "false"),
        ("{}", ()),
        ("regex", "regex"),
    ],
)
def test_values(text: str, expected: Value) -> None:
    assert value(text) == expected
    assert type(value(text)) is type(expected)


Said = float | str | None
YES, UNKNOWN, NO = 1.0, 0.5, 0.0
SIGNS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
SUMS: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


def said(term: Term, headers: dict[str, str | int | float | bool]) -> float:
    """How true it is: what is unknown is half true."""
    match term:
        case "true":
            return YES
        case "false":
            return NO
        case ("ident", _):
            return {True: YES, False: NO, None: UNKNOWN}[amount(term, headers)]  # type: ignore[index]
        case ("not", one):
            return 1 - said(one, headers)
        case ("and", one, other):
            return min(said(one, headers), said(other, headers))
        case ("or", one, other):
            return max(said(one, headers), said(other, headers))
        case ("is_null" | "null", one):
            return YES if amount(one, headers) is None else NO
        case (str() as negated, *rest) if negated.startswith("not_"):
            return 1 - said((negated.removeprefix("not_"), *rest), headers)
        case ("between", one, ("range", low, high)) | ("between", one, low, high):
            if None in [amount(each, headers) for each in (one, low, high)]:
                return UNKNOWN
            return min(said((">=", one, low), headers), said(("<=", one, high), headers))
        case ("like", one, bytes() as pattern, escape):
            text = amount(one, headers)
            sign = escape.decode() if isinstance(escape, bytes) else ""
            if not isinstance(text, str):
                return UNKNOWN
            octets = text.encode().decode("latin-1")
            return YES if looks_like(octets, pattern.decode(), sign) else NO
        case ("in", one, list() as items):
            text = amount(one, headers)
            if text is None:
                return UNKNOWN
            return max([NO, *(said(("=", one, item), headers) for item in items)])
        case (str() as sign, one, other):
            pair = amount(one, headers), amount(other, headers)
            return UNKNOWN if None in pair else YES if SIGNS[sign](*pair) else NO
    raise AssertionError(term)


def amount(term: Term, headers: dict[str, str | int | float | bool]) -> Said:
    match term:
        case bytes():
            return term.decode()
        case ("ident", bytes() as name):
            return headers.get(name.decode())
        case (str() as sign, one):
            return amount((sign, 0, one), headers)
        case (str() as sign, one, other):
            pair = amount(one, headers), amount(other, headers)
            return None if None in pair else SUMS[sign](*pair)
        case int() | float():
            return term
    raise AssertionError(term)


def looks_like(text: str, pattern: str, escape: str) -> bool:
    if not pattern:
        return not text
    first, rest = pattern[0], pattern[1:]
    if first == escape and rest:
        return text[:1] == rest[0] and looks_like(text[1:], rest[1:], escape)
    if first == "%":
        lengths = range(len(text.partition("\n")[0]) + 1)
        return any(looks_like(text[length:], rest, escape) for length in lengths)
    if first == "_":
        return text[:1] not in ("", "\n") and looks_like(text[1:], rest, escape)
    return text[:1] == first and looks_like(text[1:], rest, escape)


@given(st.randoms(use_true_random=False))
def test_selectors_say_what_they_say(chance: Random) -> None:
    drawn = Drawn(chance)
    term, headers = drawn.condition(4), drawn.headers()
    found = expression(term)(to_table(headers))
    assert found == {YES: "true", NO: "false", UNKNOWN: None}[said(term, headers)]


@given(st.text("ab%_\n", max_size=8), st.text("ab\n", max_size=8), st.sampled_from("!a%_"))
def test_patterns_match_what_looks_like_them(pattern: str, text: str, escape: str) -> None:
    plain, escaped = LikePattern(pattern.encode()), LikePattern(pattern.encode(), ord(escape))
    assert plain.matches(text.encode()) == looks_like(text, pattern, "")
    assert escaped.matches(text.encode()) == looks_like(text, pattern, escape)


def test_no_pattern_takes_long() -> None:
    """Backtracking would take longer than the age of the world."""
    pattern = LikePattern(b"%a" * (ITEMS_MAX // 2 - 1) + b"%b")
    started = process_time()
    assert not pattern.matches(b"a" * 10_000)
    assert process_time() - started < 5


def test_a_pattern_matches_octets() -> None:
    assert not LikePattern(b"_").matches("é".encode())
    assert LikePattern(b"__").matches("é".encode())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "cannot parse selector 'error' binding destination 'q' to exchange 'x'"),
        (
            {"rjms_erlang_selector": ("I", 5)},
            "cannot parse selector 'error' binding destination 'q' to exchange 'x'",
        ),
        (selecting("{"), "invalid JMS selector: unexpected_end"),
        (selecting("sql"), 'invalid JMS selector: {unknown_atom,"sql"}'),
        *(
            (selecting(f"{{'not',{{{like}}}}}."), f"invalid JMS selector pattern: {reason}")
            for like, reason in (
                ('like,1,<<"a">>,<<"ab">>', "{invalid_like_pattern,invalid_escape}"),
                ('like,1,<<"a">>,<<>>', "{invalid_like_pattern,invalid_escape}"),
                ('not_like,1,<<"a">>,5', "{invalid_like_pattern,invalid_escape}"),
                ("like,1,5,no_escape", "{invalid_like_pattern,not_a_binary_pattern}"),
                ('like,1,regex,<<"a+">>', "{invalid_regex,not_supported}"),
                (f'like,1,<<"{"_" * 1025}">>,no_escape', "{invalid_like_pattern,pattern_too_long}"),
            )
        ),
    ],
)
def test_bindings_that_cannot_be(arguments: FieldTable, text: str) -> None:
    made = topology(ExchangeSpec("x", "x-jms-topic"))
    with pytest.raises(PreconditionFailed) as refused:
        bind(made, to_queue("x", "q", "", arguments))
    assert str(refused.value) == text


OF_THE_CLIENT = r"""
a = 'x'
{'=',{'ident',<<"a">>},<<"x">>}.
NOT (n > 10 AND r IN ('emea','a''b'))
{'not',{'and',{'>',{'ident',<<"n">>},10},{'in',{'ident',<<"r">>},[<<"emea">>,<<"a'b">>]}}}.
x BETWEEN 1 AND 10.5 AND y NOT BETWEEN -3 AND +4
{'and',{'between',{'ident',<<"x">>},1,10.5},{'not_between',{'ident',<<"y">>},{'-',3},{'+',4}}}.
s LIKE 'a!_%' ESCAPE '!'
{'like',{'ident',<<"s">>},<<"a!_%">>,<<"!">>}.
s NOT LIKE '%é"\'
{'not_like',{'ident',<<"s">>},<<"%é\"\\">>,'no_escape'}.
a IS NOT NULL AND b IS NULL
{'and',{'not_null',{'ident',<<"a">>}},{'is_null',{'ident',<<"b">>}}}.
TRUE
'true'.
d < 0.00001
{'<',{'ident',<<"d">>},1.0E-5}.
d <> 1.5E10
{'<>',{'ident',<<"d">>},1.5E10}.
-x * (2 + y) / 3 >= 7
{'>=',{'*',{'-',{'ident',<<"x">>}},{'/',{'+',2,{'ident',<<"y">>}},3}},7}.
x = 3.0f OR x = 10.5d
{'or',{'=',{'ident',<<"x">>},3.0},{'=',{'ident',<<"x">>},10.5}}.
""".strip().splitlines()
"""Selectors as version 3 of the JMS client sends them, line by line: text, term."""


@pytest.mark.parametrize("text", OF_THE_CLIENT[1::2], ids=OF_THE_CLIENT[::2])
def test_selectors_of_the_client(text: str) -> None:
    headers: FieldTable = {
        "a": ("S", b"x"), "n": ("l", 9), "x": ("d", 10.5), "y": ("l", -4), "s": ("S", b"a_b"),
        "d": ("d", 1e-6),
    }  # fmt: skip
    assert expression(read_term(text.encode()))(headers) == "true"


@pytest.mark.parametrize("operator", ["'or',false", "'and',true", "'not'"])
def test_it_may_be_as_deep_as_can_be_read(operator: str) -> None:
    text = f"{{{operator}," * DEPTH_MAX + "true" + "}" * DEPTH_MAX
    assert value(text) == "true"


def test_a_selector_may_have_so_many_patterns() -> None:
    like = ("not_like", ("ident", b"s"), b"a%", "no_escape")
    many: list[Term] = [like] * PATTERNS_MAX
    compiled(("in", 1, [many]))
    with pytest.raises(BadPattern, match="too_many_patterns"):
        compiled(("in", 1, [[*many, like]]))


def test_a_pattern_may_have_so_many_items() -> None:
    pattern = "!a" * (ITEMS_MAX - 1) + "%"
    text = f'{{like,{{ident,<<"s">>}},<<"{pattern}">>,<<"!">>}}'
    made = topology(ExchangeSpec("x", "x-jms-topic"))
    assert bind(made, to_queue("x", "q", "", selecting(text)))


@pytest.mark.parametrize("kind", ["x-jms-topic", "x-delayed-message"])
def test_messages_go_where_they_are_selected(kind: str) -> None:
    arguments: FieldTable = {"x-delayed-type": ("S", b"x-jms-topic")}
    made = topology(
        ExchangeSpec("x", kind, arguments=arguments if kind == "x-delayed-message" else {}),
        ExchangeSpec("y", "fanout"),
        to_queue("x", "five", "a", selecting(f"{{'=',{ident('n')},5}}.")),
        to_queue("x", "many", "a", selecting(f"{{'>',{ident('n')},5}}.")),
        to_exchange("x", "y", "a", selecting(f"{{'>',{ident('n')},1}}.")),
        to_queue("y", "behind"),
    )
    router = Router(made, lambda _name: False)

    def routes(**headers: Field) -> tuple[str, ...]:
        return router.route("x", ["k"], Properties(headers=headers))

    assert routes(n=("I", 5)) == ("five", "behind")
    assert routes(n=("l", 9)) == ("many", "behind")
    assert routes(n=("S", b"5")) == ("many", "behind")
    assert routes(m=("I", 5)) == ()
    assert router.route("x", ["k"], Properties()) == ()
    assert router.route("x", ["k"], None) == ()
    unbind(made, to_queue("x", "five", "a", selecting(f"{{'=',{ident('n')},5}}.")))
    assert routes(n=("I", 5)) == ("behind",)


def test_who_has_no_selector_pays_nothing() -> None:
    made = topology(
        ExchangeSpec("x", "x-jms-topic"),
        ExchangeSpec("y", "direct"),
        to_queue("x", "q", "", selecting("true.")),
        to_queue("y", "q", ""),
    )
    router = Router(made, lambda _name: False)
    assert router.needs("y") == KEYS_SUFFICE
    assert router.needs("x") == KEYS_SUFFICE._replace(property_bindings=1)
    declare(made, ExchangeSpec("z", "x-jms-topic"))
    assert router.needs("z") == KEYS_SUFFICE


def test_its_bindings_are_kept_once() -> None:
    matcher = EXCHANGE_TYPES["x-jms-topic"].make({}, ExchangeHost())
    one = to_queue("x", "q", "k", selecting("true."))
    assert matcher.asks is MatchInput.PROPERTIES
    assert matcher.add(one)
    assert not matcher.add(one)
    assert [*matcher] == [one]
    assert len(matcher) == 1
    assert matcher.discard(one)
    assert not matcher.discard(one)
    assert not [*matches_of(matcher, ["k"], Properties())]


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"n": ("I", 5)}, ""),
        ({"n": ("I", 4)}, "the selector is false"),
        ({}, "the selector is neither true nor false"),
    ],
)
def test_why_one_does_not_match(headers: FieldTable, reason: str) -> None:
    text = selector(("=", ("ident", b"n"), 5))
    binding = to_queue("x", "q", "", selecting(text))
    assert of_selector(binding, ["k"], Properties(headers=headers)) == reason
