"""Search by an automaton, whose time no name can make long.

Python's `re` tries one way after another, and there may be exponentially many.  Here all ways are
gone at once (Thompson 1968): a place in the expression is looked at once for each octet of the
name, however many ways lead there.  What stands ahead or behind is found out beforehand for each
position of the name, in the same way, so that looking around costs no more.

    steps:  OCTET among, then the next | FORK to two | IF a condition holds, then the next | MATCH
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple, TypeAlias

from fluffle.broker.patterns.syntax import (
    NEWLINE,
    WORD,
    Alternation,
    Concatenation,
    Lookaround,
    Node,
    OctetSet,
    PositionTest,
    Repeat,
    UnsupportedNode,
    UnsupportedSyntax,
)

STEPS_MAX = 10_000
"""Of one expression, what it looks around for included; counted repetitions are written out."""

VISITS_MAX = 50_000
"""Steps looked at in one search, for some ten milliseconds.  Who needs more finds nothing."""


class TooCostly(Exception):
    """A search has looked at VISITS_MAX steps."""


class Kind(Enum):
    OCTET = auto()
    FORK = auto()
    IF = auto()
    MATCH = auto()


OCTET, FORK, MATCH = Kind.OCTET, Kind.FORK, Kind.MATCH


class Step(NamedTuple):
    """`first` and `second` are numbers of steps for FORK; `first` one of a condition for IF."""

    kind: Kind
    among: frozenset[int] = frozenset()
    first: int = 0
    second: int = 0


Condition: TypeAlias = "PositionTest | LookaroundTest"


@dataclass(slots=True)
class StepBudget:
    """The steps that an expression may still have."""

    left: int = STEPS_MAX


@dataclass(slots=True)
class Program:
    """The steps of an expression, or of a part that is looked for elsewhere."""

    room: StepBudget
    is_backwards: bool
    """Whether it reads from the end of the name to its start."""
    steps: list[Step] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    written: dict[int, int] = field(default_factory=dict)
    """Numbers of conditions by the identity of their nodes: a repeated one is the same."""

    def add(self, step: Step) -> int:
        """Add a step; return its number.  UnsupportedSyntax when there are too many."""
        if not self.room.left:
            raise UnsupportedSyntax(f"more than {STEPS_MAX} steps")
        self.room.left -= 1
        self.steps.append(step)
        return len(self.steps) - 1


@dataclass(frozen=True, slots=True)
class LookaroundTest:
    """A condition that is a search of its own."""

    program: Program
    is_wanted: bool


def program_of(node: Node, room: StepBudget, *, is_backwards: bool = False) -> Program:
    """Compile `node` to a program.  UnsupportedSyntax for what no automaton does."""
    program = Program(room, is_backwards)
    write(program, node)
    program.add(Step(Kind.MATCH))
    return program


def write(program: Program, node: Node) -> None:
    """Add the steps of a node."""
    match node:
        case OctetSet(among):
            program.add(Step(Kind.OCTET, among))
        case Concatenation(nodes):
            for each in reversed(nodes) if program.is_backwards else nodes:
                write(program, each)
        case Alternation(nodes):
            write_choice(program, nodes)
        case Repeat(inner, least, most):
            write_repeat(program, inner, least, most)
        case Lookaround() | PositionTest():
            write_condition(program, node)
        case UnsupportedNode(what):
            raise UnsupportedSyntax(what)


def write_condition(program: Program, node: Lookaround | PositionTest) -> None:
    number = program.written.setdefault(id(node), len(program.conditions))
    if number == len(program.conditions):
        program.conditions.append(condition_of(node, program.room))
    program.add(Step(Kind.IF, first=number))


def condition_of(node: Lookaround | PositionTest, room: StepBudget) -> Condition:
    """Compile a condition; what is ahead is read backwards, so that one search finds it for every
    position."""
    if isinstance(node, PositionTest):
        return node
    return LookaroundTest(program_of(node.node, room, is_backwards=node.is_ahead), node.is_wanted)


def write_choice(program: Program, nodes: tuple[Node, ...]) -> None:
    """FORK to the first or to the rest; behind each a jump to the end."""
    jumps = []
    for node in nodes[:-1]:
        fork = program.add(Step(Kind.FORK))
        write(program, node)
        jumps.append(program.add(Step(Kind.FORK)))
        program.steps[fork] = Step(Kind.FORK, first=fork + 1, second=len(program.steps))
    write(program, nodes[-1])
    end = len(program.steps)
    for jump in jumps:
        program.steps[jump] = Step(Kind.FORK, first=end, second=end)


def write_repeat(program: Program, node: Node, least: int, most: int | None) -> None:
    """Write the node `least` times, then as often as may be."""
    for _ in range(least):
        before = len(program.steps)
        write(program, node)
        if len(program.steps) == before:  # nothing, as often as one likes
            break
    if most is None:
        fork = program.add(Step(Kind.FORK))
        write(program, node)
        program.add(Step(Kind.FORK, first=fork, second=fork))
        program.steps[fork] = Step(Kind.FORK, first=fork + 1, second=len(program.steps))
        return
    forks = []
    for _ in range(most - least):
        forks.append(program.add(Step(Kind.FORK)))
        write(program, node)
    for fork in forks:
        program.steps[fork] = Step(Kind.FORK, first=fork + 1, second=len(program.steps))


class Automaton:
    """Searches names for one expression."""

    __slots__ = ("program",)

    def __init__(self, node: Node) -> None:
        """UnsupportedSyntax for what no automaton does."""
        self.program = program_of(node, StepBudget())

    def finds(self, name: bytes) -> bool:
        """Whether it matches somewhere; not when that takes too long to find out."""
        try:
            return next(Search(name).ends(self.program), None) is not None
        except TooCostly:
            return False


class Search:
    """Search of one name, and the steps it has taken."""

    __slots__ = ("_name", "_visits")

    def __init__(self, name: bytes) -> None:
        self._name = name
        self._visits = 0

    def ends(self, program: Program) -> Iterator[int]:
        """Yield the positions where a match ends, wherever it began: where it begins if it is read
        backwards.  TooCostly."""
        name, steps = self._name, program.steps
        true_at = [self._true_at(condition) for condition in program.conditions]
        order = range(len(name), -1, -1) if program.is_backwards else range(len(name) + 1)
        next_octet = -1 if program.is_backwards else 0
        reached: list[int] = []
        for position in order:
            reached.append(0)  # a match may begin anywhere
            waiting, is_match = self._closure(steps, reached, true_at, position)
            if is_match:
                yield position
            if position != order[-1]:
                octet = name[position + next_octet]
                reached = [number + 1 for number in waiting if octet in steps[number].among]

    def _closure(
        self,
        steps: list[Step],
        reached: list[int],
        true_at: list[Collection[int]],
        position: int,
    ) -> tuple[list[int], bool]:
        """Return the steps that wait for an octet, and whether there is a match here."""
        seen = bytearray(len(steps))
        waiting, is_match = [], False
        while reached:
            number = reached.pop()
            if seen[number]:
                continue
            seen[number] = 1
            kind, _among, first, second = steps[number]
            if kind is OCTET:
                waiting.append(number)
            elif kind is FORK:
                reached += (first, second)
            elif kind is MATCH:
                is_match = True
            elif position in true_at[first]:
                reached.append(number + 1)
        self._visits += sum(seen)
        if self._visits > VISITS_MAX:
            raise TooCostly
        return waiting, is_match

    def _true_at(self, condition: Condition) -> Collection[int]:
        """Return the positions where a condition holds."""
        if isinstance(condition, PositionTest):
            return PLACES[condition](self._name)
        found = set(self.ends(condition.program))
        return found if condition.is_wanted else set(range(len(self._name) + 1)) - found


def near_end(name: bytes) -> Collection[int]:
    return {len(name), len(name) - 1} if name.endswith(b"\n") else {len(name)}


def line_starts(name: bytes) -> Collection[int]:
    return {0} | {at + 1 for at, octet in enumerate(name) if octet in NEWLINE}


def line_ends(name: bytes) -> Collection[int]:
    return {len(name)} | {at for at, octet in enumerate(name) if octet in NEWLINE}


def word_edges(name: bytes) -> Collection[int]:
    is_word = [False, *(octet in WORD for octet in name), False]
    return {at for at in range(len(name) + 1) if is_word[at] is not is_word[at + 1]}


def no_word_edges(name: bytes) -> Collection[int]:
    return set(range(len(name) + 1)) - set(word_edges(name))


PLACES: Mapping[PositionTest, Callable[[bytes], Collection[int]]] = {
    PositionTest.START: lambda name: {0},
    PositionTest.END: lambda name: {len(name)},
    PositionTest.NEAR_END: near_end,
    PositionTest.LINE_START: line_starts,
    PositionTest.LINE_END: line_ends,
    PositionTest.WORD_EDGE: word_edges,
    PositionTest.NO_WORD_EDGE: no_word_edges,
}
"""Where each condition holds in a name."""
