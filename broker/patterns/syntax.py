"""Regular expressions as trees, so that they can be run in another way than by trying.

Reads what Python's `re` takes for octets, once `re` has taken it: what is wrong is found there.
Groups are not remembered and greed does not count, since all that matters is whether there is a
match.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

QUANTIFIER = re.compile(rb"\*|\+|\?|\{(?P<least>\d*)(?:(?P<comma>,)(?P<most>\d*))?\}")
GROUP = re.compile(
    rb"\((?:\?(?:P=(?P<reference>[^)]*)\)|P<[^>]*>|(?P<look><?[=!])"
    rb"|(?P<atomic>>)|(?P<condition>\([^)]*\))|(?P<on>[aiLmsux]*)(?:-(?P<off>[imsx]+))?(?P<end>[:)])))?"
)
GLOBAL_FLAGS = re.compile(rb"\(\?([aiLmsux]+)\)")
COMMENTS = re.compile(rb"(?:\(\?#[^)]*\))*")
OCTAL = re.compile(rb"0[0-7]{0,2}|[0-3][0-7]{2}")

ALL = frozenset(range(256))
NEWLINE = frozenset(b"\n")
DIGITS = frozenset(b"0123456789")
SPACES = frozenset(b" \t\n\r\f\v")
WORD = DIGITS | frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
CLASSES = {
    b"d": DIGITS,
    b"D": ALL - DIGITS,
    b"s": SPACES,
    b"S": ALL - SPACES,
    b"w": WORD,
    b"W": ALL - WORD,
}
CONTROLS = {b"a": 7, b"b": 8, b"f": 12, b"n": 10, b"r": 13, b"t": 9, b"v": 11}


class PositionTest(Enum):
    """A condition on the position in a name."""

    START = auto()
    END = auto()
    NEAR_END = auto()
    """At the end, or before a newline there."""
    LINE_START = auto()
    LINE_END = auto()
    WORD_EDGE = auto()
    NO_WORD_EDGE = auto()


@dataclass(frozen=True, slots=True)
class OctetSet:
    """A single octet out of a set."""

    among: frozenset[int]


@dataclass(frozen=True, slots=True)
class Concatenation:
    """Nodes that match one after the other; none of them matches nothing."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alternation:
    """Nodes of which any one matches."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """A node repeated between `least` and `most` times; None is without end."""

    node: Node
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Lookaround:
    """Condition that something stands ahead or behind, or (`is_wanted`) that it does not."""

    node: Node
    is_ahead: bool
    is_wanted: bool


@dataclass(frozen=True, slots=True)
class UnsupportedNode:
    """A node that no automaton matches: `what` in words."""

    what: str
    node: Node


Node: TypeAlias = (
    OctetSet | Concatenation | Alternation | Repeat | Lookaround | UnsupportedNode | PositionTest
)

NOTHING = Concatenation(())


class UnsupportedSyntax(ValueError):
    """Error for syntax that this module does not parse, in words."""


def parse(octets: bytes) -> Node:
    """Parse an expression that `re` can compile.  UnsupportedSyntax."""
    reader = PatternReader(octets)
    flags = frozenset[str]()
    while found := GLOBAL_FLAGS.match(octets, reader.at):
        flags |= set(found[1].decode())
        reader.at = found.end()
    node = reader.choice(flags)
    if reader.at < len(octets):
        raise UnsupportedSyntax("parentheses that do not match")
    return node


class PatternReader:
    """Where one is in an expression.  Flags go along, for they may hold for a group alone."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.at = 0

    def take(self, count: int = 1) -> bytes:
        taken = self.octets[self.at : self.at + count]
        self.at += count
        return taken

    def takes(self, octets: bytes) -> bool:
        """True if that comes next; if so it is taken."""
        is_next = self.octets.startswith(octets, self.at)
        self.at += len(octets) * is_next
        return is_next

    def skip_comments(self) -> None:
        found = COMMENTS.match(self.octets, self.at)
        assert found is not None  # there may be none
        self.at = found.end()

    def choice(self, flags: frozenset[str]) -> Node:
        """Read a choice up to the end or a closing parenthesis."""
        if "x" in flags or "L" in flags:
            raise UnsupportedSyntax("the flags x and L")
        nodes = [self.series(flags)]
        while self.takes(b"|"):
            nodes.append(self.series(flags))
        return Alternation(tuple(nodes)) if len(nodes) > 1 else nodes[0]

    def series(self, flags: frozenset[str]) -> Node:
        nodes: list[Node] = []
        self.skip_comments()
        while self.at < len(self.octets) and self.octets[self.at] not in b"|)":
            node = self.atom(flags)
            self.skip_comments()  # a quantifier behind them still means what is before
            nodes.append(self.quantified(node))
            self.skip_comments()
        return nodes[0] if len(nodes) == 1 else Concatenation(tuple(nodes))

    def quantified(self, node: Node) -> Node:
        found = QUANTIFIER.match(self.octets, self.at)
        if found is None or found[0] == b"{}":
            return node
        self.at = found.end()
        repeat = Repeat(node, *counts(found))
        self.takes(b"?")  # as little as possible: the same
        return UnsupportedNode("possessive quantifiers", repeat) if self.takes(b"+") else repeat

    def atom(self, flags: frozenset[str]) -> Node:
        octet = self.octets[self.at : self.at + 1]
        if octet == b"(":
            return self.group(flags)
        self.at += 1
        match octet:
            case b".":
                return OctetSet(ALL if "s" in flags else ALL - NEWLINE)
            case b"^":
                return PositionTest.LINE_START if "m" in flags else PositionTest.START
            case b"$":
                return PositionTest.LINE_END if "m" in flags else PositionTest.NEAR_END
            case b"[":
                return self.octet_class(flags)
            case b"\\":
                return self.escaped(flags)
        return OctetSet(folded(frozenset(octet), flags))

    def group(self, flags: frozenset[str]) -> Node:
        found = GROUP.match(self.octets, self.at)
        if found is None:
            raise UnsupportedSyntax("an extension of groups")
        self.at = found.end()
        if found["reference"]:
            return UnsupportedNode("back references", NOTHING)
        if found["end"]:
            flags = (flags | set((found["on"] or b"").decode())) - set(
                (found["off"] or b"").decode()
            )
        node = self.choice(flags)
        if not self.takes(b")"):
            raise UnsupportedSyntax("parentheses that do not match")
        if look := found["look"]:
            return Lookaround(node, is_ahead=b"<" not in look, is_wanted=b"=" in look)
        if found["atomic"]:
            return UnsupportedNode("atomic groups", node)
        return UnsupportedNode("conditions", node) if found["condition"] else node

    def escaped(self, flags: frozenset[str]) -> Node:
        """Read what stands behind a backslash, outside of a class."""
        places = {
            b"A": PositionTest.START,
            b"Z": PositionTest.END,
            b"b": PositionTest.WORD_EDGE,
            b"B": PositionTest.NO_WORD_EDGE,
        }
        octet = self.octets[self.at : self.at + 1]
        if octet in places:
            self.at += 1
            return places[octet]
        if octet.isdigit() and not OCTAL.match(self.octets, self.at):
            self.take(2 if self.octets[self.at + 1 : self.at + 2].isdigit() else 1)
            return UnsupportedNode("back references", NOTHING)
        return OctetSet(folded(self.escaped_octets(), flags))

    def escaped_octets(self) -> frozenset[int]:
        """Read what stands behind a backslash, in a class or not."""
        if octal := OCTAL.match(self.octets, self.at):
            self.at = octal.end()
            return frozenset((int(octal[0], 8),))
        octet = self.take()
        if octet == b"x":
            return frozenset((int(self.take(2), 16),))
        return CLASSES.get(octet) or frozenset((CONTROLS.get(octet, octet[0]),))

    def octet_class(self, flags: frozenset[str]) -> Node:
        """Read a class up to the closing bracket, which is one of the octets if it comes first."""
        is_negated = self.takes(b"^")
        among: frozenset[int] = frozenset()
        is_first = True
        while is_first or not self.takes(b"]"):
            is_first = False
            low = self.class_member()
            is_range = self.octets[self.at : self.at + 1] == b"-" and (
                self.octets[self.at + 1 : self.at + 2] != b"]"
            )
            if is_range:
                self.at += 1
                low = frozenset(range(min(low), max(self.class_member()) + 1))
            among |= low
        among = folded(among, flags)
        return OctetSet(ALL - among if is_negated else among)

    def class_member(self) -> frozenset[int]:
        octets = self.take()
        if not octets:
            raise UnsupportedSyntax("brackets that do not match")
        return self.escaped_octets() if octets == b"\\" else frozenset(octets)


def counts(quantifier: re.Match[bytes]) -> tuple[int, int | None]:
    """Return the least and the most of a quantifier."""
    simple: dict[bytes, tuple[int, int | None]] = {b"*": (0, None), b"+": (1, None), b"?": (0, 1)}
    if quantifier[0] in simple:
        return simple[quantifier[0]]
    least = int(quantifier["least"] or 0)
    if quantifier["comma"]:
        return least, int(quantifier["most"]) if quantifier["most"] else None
    return least, least


def folded(among: frozenset[int], flags: frozenset[str]) -> frozenset[int]:
    """Return octets with the letters of the other case, if case does not count."""
    return among | frozenset(bytes(among).swapcase()) if "i" in flags else among
