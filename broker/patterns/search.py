"""Expressions of RabbitMQ in Python: what searches a name for one, in bounded time.

The two dialects agree but for the little that `translated` mends.  Clients choose the names, and
Python's `re` tries one way after another.  So it searches only for expressions that leave it few
ways; for the others an automaton is made into a table, or run where that would be too large
(docs/decisions/0006-patterns-without-backtracking.md).
"""

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeAlias

from fluffle.broker.patterns.automaton import Automaton, TooLarge, TransitionTable
from fluffle.broker.patterns.syntax import (
    NOTHING,
    Alternation,
    Concatenation,
    Lookaround,
    Node,
    PositionTest,
    Repeat,
    UnsupportedNode,
    UnsupportedSyntax,
    parse,
)

_ODDITIES = re.compile(rb"\\(?P<escaped>.)|\[:(?P<not>\^?)(?P<class>\w+):\]", re.DOTALL)
_ESCAPES: Mapping[bytes, bytes] = {b"z": rb"\Z", b"Z": rb"(?=\n?\Z)"}
_CLASSES: Mapping[bytes, bytes] = {
    b"alnum": rb"a-zA-Z0-9",
    b"alpha": rb"a-zA-Z",
    b"blank": rb" \t",
    b"digit": rb"0-9",
    b"lower": rb"a-z",
    b"space": rb"\s",
    b"upper": rb"A-Z",
    b"word": rb"\w",
    b"xdigit": rb"0-9A-Fa-f",
}

PATTERN_BYTES_MAX = 8192
"""Most bytes of a pattern: it can be parsed in a few milliseconds."""

NAME_BYTES_MAX = 255
"""A short string of AMQP."""

STEADY_EFFORT_MAX = 1 << 14
"""Effort of `re`, in octets to look at, up to which nothing else is tried: some dozen microseconds,
and most expressions need no more."""

EFFORT_MAX = 1 << 21
"""The same where a table would be too large: some milliseconds."""

ENDLESS = 1 << 40
"""Number that stands for no limit."""


Search: TypeAlias = tuple[Callable[[bytes], bool], bool]
"""(whether an expression matches somewhere in a name, whether the search is steady)."""


def searching(pattern: bytes) -> Search:
    """Build the search of names for an expression.  UnsupportedSyntax, and what `re` raises."""
    if len(pattern) > PATTERN_BYTES_MAX:
        raise UnsupportedSyntax(f"it has more than {PATTERN_BYTES_MAX} bytes")
    octets = translated(pattern)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # on what means the same until then
        expression = re.compile(octets)

    def by_re(name: bytes) -> bool:
        return expression.search(name) is not None

    try:
        node = parse(octets)
        needed = effort(node)
        if needed <= STEADY_EFFORT_MAX:
            return by_re, True
        if (steady := by_table(node)) is not None:
            return steady
        return by_re if needed <= EFFORT_MAX else Automaton(node).finds, False
    except UnsupportedSyntax as error:
        raise UnsupportedSyntax(
            f"{error} cannot be used where many ways lead to a match"
        ) from error


def by_table(node: Node) -> Search | None:
    """Build a search by table; None for what would need too large a one, or cannot have one."""
    try:
        return TransitionTable(Automaton(node).program).finds, True
    except (TooLarge, UnsupportedSyntax):
        return None


def effort(node: Node) -> int:
    """Return a bound on how many octets `re` has to look at; much more than EFFORT_MAX is not
    counted."""
    nodes = node.nodes if isinstance(node, Concatenation) else (node,)
    starts = 1 if nodes and nodes[0] is PositionTest.START else NAME_BYTES_MAX + 1
    return starts * search_cost(node).octets


class SearchCost(NamedTuple):
    """Cost of a node of the tree for `re`, at one place of a name."""

    octets: int
    """How many octets it looks at, on all ways together."""
    ways: int
    """In how many ways it may get through: what stands behind is tried for each of them."""


def search_cost(node: Node) -> SearchCost:
    """Return the cost of a node at one place of a name."""
    match node:
        case Concatenation(nodes):
            return in_series(map(search_cost, nodes))
        case Alternation(nodes):
            each = tuple(map(search_cost, nodes))
            return SearchCost(
                sum(search_cost.octets for search_cost in each),
                sum(search_cost.ways for search_cost in each),
            )
        case Repeat(inner, least, most):
            return repeated(search_cost(inner), least, NAME_BYTES_MAX if most is None else most)
        case UnsupportedNode(_, inner) if inner == NOTHING:
            return SearchCost(NAME_BYTES_MAX, 1)  # it compares with what was found before
        case Lookaround(inner):
            return SearchCost(search_cost(inner).octets, 1)  # it does not look another time
        case UnsupportedNode(_, inner):
            return search_cost(inner)
    return SearchCost(1, 1)


def in_series(toils: Iterable[SearchCost]) -> SearchCost:
    octets, ways = 1, 1
    for each in toils:
        octets = min(octets + ways * each.octets, ENDLESS)
        ways = min(ways * each.ways, ENDLESS)
    return SearchCost(octets, ways)


def repeated(each: SearchCost, least: int, most: int) -> SearchCost:
    """A way may end after each time from the `least` on; no name has more than so many octets."""
    octets, ways, before = 1, 0, 1
    for times in range(min(most, NAME_BYTES_MAX) + 1):
        if times >= min(least, NAME_BYTES_MAX):
            ways = min(ways + before, ENDLESS)
        octets = min(octets + before * each.octets, ENDLESS)
        before = min(before * each.ways, ENDLESS)
    return SearchCost(octets, ways)


def translated(pattern: bytes) -> bytes:
    """Return an expression of PCRE in Python's words."""
    return _ODDITIES.sub(_in_pythons_words, pattern)


def _in_pythons_words(match: re.Match[bytes]) -> bytes:
    if match["escaped"] is not None:
        return _ESCAPES.get(match["escaped"], match[0])
    if match["not"] or match["class"] not in _CLASSES:
        raise re.error(f"there is no class {match[0].decode(errors='replace')}")
    return _CLASSES[match["class"]]
