"""`x-jms-topic`: a binding asks of a message what a JMS selector says; routing keys do not count.

The JMS client binds such an exchange to a topic exchange by the name of the topic, and to it the
queue of each subscriber with a selector.  A selector says what a header of a message must be; it
is compiled once and asked for each message.

A selector comes as an Erlang term, made of SQL-92 by the JMS client: `{'>',{'ident',<<"n">>},5}`.
Terms are read (`read_term`) as far as selectors are made of them: tuples, lists, binaries, strings,
numbers, and the few atoms that mean something there; a full stop may be at the end.  It is the
language, and these are the reasons, of the reader in RabbitMQ 4.3 (sjx_parser); 4.0 reads all that
Erlang has.

It is true, false or neither: what asks about a header that is not there is unknown (None), and only
what is true matches.  What RabbitMQ's plugin (sjx_evaluator) makes of that, and we do:

- Anything can be compared, in Erlang's order of terms: numbers before atoms before strings.
- `and` and `or` take what is neither true nor false for unknown, whatever it is.
- A division by zero gives an atom, as does an operator that there is not.
- `=` finds 1 and 1.0 equal, `in` does not.

Where the plugin fails, which costs a publisher its connection, it is unknown: a sum of what are
no numbers, LIKE of what is no string, a number beyond what a float holds, and a header of a type
that JMS has not.  So is LIKE of a string that is very long.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from math import isfinite, isinf
from operator import add, eq, ge, gt, le, lt, mul, ne, sub
from typing import Any, TypeAlias

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.routing.bindings import Binding
from fluffle.broker.routing.matcher import ConditionMatcher
from fluffle.protocol.properties import Properties
from fluffle.protocol.terms import string
from fluffle.protocol.wire import FieldTable

Term: TypeAlias = "int | float | bytes | str | tuple[Term, ...] | list[Term]"
"""A `str` is an atom, `bytes` are a binary, and a string is the list of its octets."""

TEXT_BYTES_MAX = 1 << 16
"""Most bytes of a text: it is read within 0.1 s."""
DEPTH_MAX = 100
"""RabbitMQ 4.3 allows 16, 4.0 anything.  `a OR b OR …` is one deeper for each."""
DIGITS_MAX = 1000
"""Most digits of an integer: the cost of reading grows with their square."""

_WORDS = "ident not and or is_null not_null like not_like between not_between range in not_in"
_SIGNS = "= <> > < >= <= + - * /"
ATOMS = frozenset(f"{_WORDS} {_SIGNS} true false no_escape regex".split())

_SPACE = re.compile(rb"[ \t\n\r]+")
_STRING = re.compile(rb'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_QUOTED = re.compile(rb"'((?:[^'\\]|\\.)*+)'", re.DOTALL)
_BARE = re.compile(rb"[a-z][a-zA-Z0-9_@]*")
_NUMBER = re.compile(rb"[0-9]+(\.[0-9]+([eE][+-]?[0-9]*)?)?")
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_CONTROLS = {b"n": b"\n", b"t": b"\t", b"r": b"\r"}


class InvalidTerm(Exception):
    """No such term; says why, as Erlang prints it."""


def read_term(text: bytes) -> Term:
    """InvalidTerm, if it is not one."""
    if len(text) > TEXT_BYTES_MAX:
        raise InvalidTerm("max_size_exceeded")
    reader = TermReader(text)
    term = reader.term(0)
    reader.skip(b".")
    if not reader.is_at_end():
        raise InvalidTerm("trailing_characters")
    return term


class TermReader:
    """A text, and how far it has been read."""

    __slots__ = ("_at", "_text")

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._at = 0

    def term(self, depth: int) -> Term:
        """The next one, so deep in others."""
        if depth > DEPTH_MAX:
            raise InvalidTerm("max_depth_exceeded")
        if self.is_at_end():
            raise InvalidTerm("unexpected_end")
        match self._text[self._at : self._at + 1]:
            case b"{":
                return self._tuple(depth + 1)
            case b"[":
                return self._list(depth + 1)
            case b"<":
                return self._binary()
            case b'"':
                return [*self._string()]
            case b"'":
                return atom(_ESCAPE.sub(rb"\1", self._token(_QUOTED, "unterminated_quoted_atom")))
            case b"-":
                self._at += 1
                return -self._number()
            case b"+":
                self._at += 1
                return self._number()
        bare = _BARE.match(self._text, self._at)
        if bare is None:
            return self._number()
        self._at = bare.end()
        return atom(bare[0])

    def skip(self, wanted: bytes) -> bool:
        """True if this was next, but for white space; then it is behind us."""
        self._skip_space()
        is_next = self._text.startswith(wanted, self._at)
        if is_next:
            self._at += len(wanted)
        return is_next

    def is_at_end(self) -> bool:
        self._skip_space()
        return self._at == len(self._text)

    def _skip_space(self) -> None:
        space = _SPACE.match(self._text, self._at)
        if space is not None:
            self._at = space.end()

    def _tuple(self, depth: int) -> Term:
        items: list[Term] = []
        self._at += 1
        while not self.skip(b"}"):
            items.append(self.term(depth))
            if not self.skip(b","):
                if not self.skip(b"}"):
                    raise InvalidTerm("expected_comma_or_closing_brace")
                break
        return tuple(items)

    def _list(self, depth: int) -> Term:
        items: list[Term] = []
        self._at += 1
        if self.skip(b"]"):
            return items
        while True:
            items.append(self.term(depth))
            if self.skip(b"]"):
                return items
            if not self.skip(b","):
                raise InvalidTerm("expected_comma_or_closing_bracket")

    def _binary(self) -> bytes:
        if not self.skip(b"<<"):
            raise InvalidTerm("unexpected_character")
        if self.skip(b">>"):
            return b""
        octets = self._string() if self._text.startswith(b'"', self._at) else None
        if octets is None:
            raise InvalidTerm("invalid_binary")
        if not self.skip(b">>"):
            raise InvalidTerm("expected_closing_binary")
        return octets

    def _string(self) -> bytes:
        escaped = self._token(_STRING, "unterminated_string")
        return _ESCAPE.sub(lambda found: _CONTROLS.get(found[1], found[1]), escaped)

    def _token(self, pattern: re.Pattern[bytes], otherwise: str) -> bytes:
        """Text in the quotes of a token; raises `InvalidTerm(otherwise)` if none is here."""
        found = pattern.match(self._text, self._at)
        if found is None:
            raise InvalidTerm(otherwise)
        self._at = found.end()
        octets: bytes = found[1]
        return octets

    def _number(self) -> int | float:
        """Behind its sign, if it has one."""
        self._skip_space()
        found = _NUMBER.match(self._text, self._at)
        if found is None:
            raise InvalidTerm("unexpected_character")
        self._at = found.end()
        if found[1] is None:
            if len(found[0]) > DIGITS_MAX:
                raise InvalidTerm("invalid_term")
            return int(found[0])
        try:
            number = float(found[0])
        except ValueError:  # an exponent without digits
            number = float("inf")
        if isinf(number):
            raise InvalidTerm("invalid_term")
        return number


def atom(name: bytes) -> str:
    """RabbitMQ calls some of the others disallowed: those that are atoms of its Erlang node."""
    decoded = name.decode("latin-1")
    if decoded not in ATOMS:
        raise InvalidTerm(f"{{unknown_atom,{string(decoded)}}}")
    return decoded


JMS_TOPIC = "x-jms-topic"
SELECTOR_ARGUMENT = "rjms_erlang_selector"

ITEMS_MAX = 1024
"""Most items of a pattern, as with RabbitMQ 4.3."""
VALUE_BYTES_MAX = 1 << 13
"""Most bytes of a value that LIKE compares: longer ones would hold up every other client."""

ANY_OCTETS, ANY_OCTET, NEWLINE = b"%_\n"
NO_ESCAPE_BYTE = -1


class TooLong(Exception):
    """A pattern has more than ITEMS_MAX items."""


class LikePattern:
    """Pattern of a JMS LIKE, which the whole value must match."""

    __slots__ = ("_any", "_end", "_loops", "_steps")

    def __init__(self, pattern: bytes, escape: int = NO_ESCAPE_BYTE) -> None:
        """Compile a LIKE pattern; the octet after `escape` stands for itself."""
        self._steps: dict[int, int] = {}
        """Bits of the places that an octet leads to, by octet."""
        self._any = 0
        """Bits of the places that every octet leads to."""
        self._loops = 0
        """The bits of places that any octet leaves as they are."""
        place = items = 0
        octets = iter(pattern)
        for octet in octets:
            items += 1
            literal = next(octets, None) if octet == escape else None
            if literal is None and octet == ANY_OCTETS:
                self._loops |= 1 << place
                continue
            place += 1
            if literal is None and octet == ANY_OCTET:
                self._any |= 1 << place
            else:
                wanted = octet if literal is None else literal
                self._steps[wanted] = self._steps.get(wanted, 0) | 1 << place
        if items > ITEMS_MAX:
            raise TooLong
        self._end = 1 << place

    def matches(self, value: bytes) -> bool:
        places = 1
        steps, wild, loops = self._steps, self._any, self._loops
        for octet in value:
            if octet == NEWLINE:
                places = places << 1 & steps.get(octet, 0)
            else:
                places = places << 1 & (steps.get(octet, 0) | wild) | places & loops
            if not places:
                return False
        return bool(places & self._end)


Value: TypeAlias = "Term | None"
Expression: TypeAlias = Callable[[FieldTable], Value]
Operation: TypeAlias = Callable[[Term, Term], Value]

TRUE, FALSE, ERROR, NO_ESCAPE = "true", "false", "error", "no_escape"
TRUTHS = (FALSE, TRUE)
"""The atom of a bool."""

VALUE_TAGS = frozenset("SbBsuIilLfd")
"""Field types of headers with a value, besides booleans; RabbitMQ fails at the unsigned ones."""
RANKS = {int: 0, float: 0, str: 1, tuple: 2, list: 3, bytes: 4}
"""Terms of a lower one are smaller, whatever they are."""
PATTERNS_MAX = 100
"""In a selector: with the longest values they take as long as any pause of the broker may be."""
PLAIN = frozenset((int, float, str, bytes))
"""Kinds of terms that Python has in the same order."""


class BadPattern(Exception):
    """A LIKE that cannot be; says why, as Erlang prints it."""


def compiled(term: Term) -> Expression:
    """BadPattern, if there is a LIKE that cannot be, or too many."""
    if patterns_in(term) > PATTERNS_MAX:
        raise BadPattern("too_many_patterns")
    return expression(term)


def patterns_in(term: Term) -> int:
    if not isinstance(term, (tuple, list)):
        return 0
    is_pattern = bool(term) and term[0] in ("like", "not_like")
    return is_pattern + sum(map(patterns_in, term))


def expression(term: Term) -> Expression:
    """BadPattern, if it contains what is none."""
    if not isinstance(term, tuple):
        return constant(term)
    match term:
        case (operator, inner):
            return of_one(operator, inner)
        case (operator, left, right):
            if operator not in ("and", "or") and isinstance(right, tuple):
                match right:
                    case ("range", low, high):
                        return expression((operator, left, low, high))
            return of_two(operator, left, right)
        case ("like", value, pattern, escape):
            return like(operand(value), pattern, escape)
        case ("not_like", value, pattern, escape):
            return negation(like(operand(value), pattern, escape))
        case ("between", value, low, high):
            return between(expression(value), expression(low), expression(high))
        case ("not_between", value, low, high):
            return negation(between(expression(value), expression(low), expression(high)))
    return constant(term)


def operand(term: Term) -> Expression:
    """Operand of LIKE or IS NULL: a header, or the term as a constant."""
    match term:
        case ("ident", name) if isinstance(term, tuple):
            return header(name)
    return constant(term)


def constant(term: Term) -> Expression:
    return lambda _headers: term


def unknown(_headers: FieldTable) -> Value:
    return None


def header(name: Term) -> Expression:
    """No header has a name that is no string."""
    if not isinstance(name, bytes):
        return unknown
    key = name.decode(errors="surrogateescape")

    def value(headers: FieldTable) -> Value:
        field = headers.get(key)
        return None if field is None else value_of(*field)

    return value


def value_of(tag: str, value: object) -> Value:
    """Value of a header; None for types that have none."""
    if isinstance(value, bool):
        return TRUTHS[value]
    if tag in VALUE_TAGS and isinstance(value, (int, float, bytes)):
        return value
    return None


# Logic


def of_one(operator: Term, inner: Term) -> Expression:
    match operator:
        case "not":
            return negation(expression(inner))
        case "ident":
            return header(inner)
        case "is_null":
            asked = operand(inner)
            return lambda headers: TRUTHS[asked(headers) is None]
        case "not_null":
            asked = operand(inner)
            return lambda headers: TRUTHS[asked(headers) is not None]
        case _:
            return signed(operator, expression(inner))


def of_two(operator: Term, left: Term, right: Term) -> Expression:
    one, other = expression(left), expression(right)
    match operator:
        case "and":
            return both(one, other)
        case "or":
            return negation(both(negation(one), negation(other)))
        case "in":
            return among(one, right)
        case "not_in":
            return negation(among(one, right))
        case _:
            operation = OPERATIONS.get(operator) if isinstance(operator, str) else None
            return operated(operation or mistaken, one, other)


def negation(inner: Expression) -> Expression:
    opposite = {TRUE: FALSE, FALSE: TRUE}

    def value(headers: FieldTable) -> Value:
        found = inner(headers)
        return opposite.get(found) if isinstance(found, str) else None

    return value


def both(one: Expression, other: Expression) -> Expression:
    def value(headers: FieldTable) -> Value:
        left = one(headers)
        if left == FALSE:
            return FALSE
        right = other(headers)
        if right == FALSE:
            return FALSE
        return TRUE if left == right == TRUE else None

    return value


# Comparison


def order(left: Term, right: Term) -> int:
    """Less than 0, 0 or more than 0, as `left` is less than `right`, equal or more."""
    ranks = RANKS[type(left)], RANKS[type(right)]
    if ranks[0] != ranks[1]:
        return ranks[0] - ranks[1]
    if isinstance(left, tuple) and isinstance(right, tuple) and len(left) != len(right):
        return len(left) - len(right)
    if isinstance(left, (tuple, list)) and isinstance(right, (tuple, list)):
        orders = (order(*pair) for pair in zip(left, right, strict=False))
        return next(filter(None, orders), len(left) - len(right))
    return (left > right) - (left < right)  # type: ignore[operator]


def between(asked: Expression, low: Expression, high: Expression) -> Expression:
    def value(headers: FieldTable) -> Value:
        found, least, most = asked(headers), low(headers), high(headers)
        if found is None or least is None or most is None:
            return None
        return TRUTHS[order(least, found) <= 0 and order(found, most) <= 0]

    return value


def among(asked: Expression, items: Term) -> Expression:
    """Unknown, if it is no list."""
    if not isinstance(items, list):
        return unknown
    known = frozenset(map(exact, items))

    def value(headers: FieldTable) -> Value:
        found = asked(headers)
        return None if found is None else TRUTHS[exact(found) in known]

    return value


def exact(term: Term) -> Hashable:
    """Equal for what is the same, numbers of the same kind and zeros of the same sign."""
    kind = type(term)
    if kind is float:
        return str(term)
    return (kind, tuple(map(exact, term)) if isinstance(term, (tuple, list)) else term)


def like(asked: Expression, pattern: Term, escape: Term) -> Expression:
    wanted = like_pattern(pattern, escape)

    def value(headers: FieldTable) -> Value:
        found = asked(headers)
        if not isinstance(found, bytes) or len(found) > VALUE_BYTES_MAX:
            return None
        return TRUTHS[wanted.matches(found)]

    return value


def like_pattern(pattern: Term, escape: Term) -> LikePattern:
    """Compile the pattern of LIKE, with RabbitMQ 4.3's errors; its `regex`, which RabbitMQ accepts,
    is refused."""
    if pattern == "regex":
        raise BadPattern("{invalid_regex,not_supported}")
    if not isinstance(pattern, bytes):
        raise BadPattern("{invalid_like_pattern,not_a_binary_pattern}")
    try:
        if escape == NO_ESCAPE:
            return LikePattern(pattern)
        if isinstance(escape, bytes) and len(escape) == 1:
            return LikePattern(pattern, escape[0])
    except TooLong:
        raise BadPattern("{invalid_like_pattern,pattern_too_long}") from None
    raise BadPattern("{invalid_like_pattern,invalid_escape}")


# Arithmetic


def signed(operator: Term, inner: Expression) -> Expression:
    def value(headers: FieldTable) -> Value:
        found = inner(headers)
        if found is None or operator not in ("+", "-"):
            return None if found is None else ERROR
        if not isinstance(found, (int, float)):
            return None
        return -found if operator == "-" else found

    return value


def operated(operation: Operation, one: Expression, other: Expression) -> Expression:
    def value(headers: FieldTable) -> Value:
        left = one(headers)
        if left is None:
            return None
        right = other(headers)
        return None if right is None else operation(left, right)

    return value


def mistaken(_left: Term, _right: Term) -> Value:
    """Result of an unknown operator."""
    return ERROR


def compared(holds: Callable[[Any, Any], bool]) -> Operation:
    def operation(left: Term, right: Term) -> Value:
        kind = type(left)
        if kind is type(right) and kind in PLAIN:  # as nearly all are
            return TRUTHS[holds(left, right)]
        return TRUTHS[holds(order(left, right), 0)]

    return operation


def calculated(calculate: Callable[[float, float], float]) -> Operation:
    def operation(left: Term, right: Term) -> Value:
        if not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
            return None
        try:
            result = calculate(left, right)
        except OverflowError:
            return None
        return result if isinstance(result, int) or isfinite(result) else None

    return operation


divided = calculated(lambda left, right: float(left) / float(right))


def quotient(left: Term, right: Term) -> Value:
    """Quotient; divided by zero it is the atom by which RabbitMQ means infinity, even for a value
    that is no number."""
    if order(right, 0):
        return divided(left, right)
    sign = order(left, 0)
    return "plus_infinity" if sign > 0 else "minus_infinity" if sign else "nan"


OPERATIONS: Mapping[str, Operation] = {
    "=": compared(eq),
    "<>": compared(ne),
    ">": compared(gt),
    "<": compared(lt),
    ">=": compared(ge),
    "<=": compared(le),
    "+": calculated(add),
    "-": calculated(sub),
    "*": calculated(mul),
    "/": quotient,
}
"""Arithmetic operators for two known values."""


def selector_matcher() -> ConditionMatcher[FieldTable]:
    """Selectors are compiled once, when their bindings are made."""
    return ConditionMatcher(Selector, headers_of)


def headers_of(properties: Properties | None) -> FieldTable:
    return (properties and properties.headers) or {}


class Selector:
    """Selector of one binding."""

    __slots__ = ("_value",)

    def __init__(self, binding: Binding) -> None:
        """PreconditionFailed if it has none."""
        self._value = selector_of(binding)

    def holds(self, headers: FieldTable) -> bool:
        return self._value(headers) == TRUE


def selector_of(binding: Binding) -> Expression:
    """PreconditionFailed if it has none, with the texts of RabbitMQ 4.3.

    One that has no selector at all gets the text that RabbitMQ means for it, and fails to say.
    """
    tag, text = binding.arguments.get(SELECTOR_ARGUMENT, ("V", None))
    if tag != "S" or not isinstance(text, bytes):
        raise PreconditionFailed(
            f"cannot parse selector 'error' binding destination '{binding.destination}'"
            f" to exchange '{binding.source}'"
        )
    try:
        return compiled(read_term(text))
    except InvalidTerm as unreadable:
        raise PreconditionFailed(f"invalid JMS selector: {unreadable}") from None
    except BadPattern as bad:
        raise PreconditionFailed(f"invalid JMS selector pattern: {bad}") from None
