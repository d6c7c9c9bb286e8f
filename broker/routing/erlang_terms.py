"""Reads Erlang terms as text, as far as compiled JMS selectors are made of them.

Those are tuples, lists, binaries, strings, numbers, and the few atoms that mean something in a
selector; a full stop may be at the end.  It is the language, and these are the reasons, of the
reader in RabbitMQ 4.3 (sjx_parser); 4.0 reads all that Erlang has.
"""

import re
from math import isinf
from typing import TypeAlias

from fluffle.protocol.terms import string

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
