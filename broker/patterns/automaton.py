"""Automata that search names for an expression in bounded time, and the tables made of them.

Python's `re` tries one way after another, and there may be exponentially many.  An automaton goes
all ways at once (Thompson 1968): a place in the expression is looked at once for each octet of the
name, however many ways lead there.  What stands ahead or behind is found out beforehand for each
position of the name, in the same way, so that looking around costs no more.

    steps:  OCTET among, then the next | FORK to two | IF a condition holds, then the next | MATCH

In a table all ways are gone beforehand: for each octet of a name it takes one look.  Places that
can be reached together are one state (Rabin and Scott 1959).  What comes next is a symbol: which of
the conditions hold at a position, and the octet behind it, or that there is none.  Octets between
which no step makes a difference are one.

    name:        o   r   d   e   r   s
    position:  0   1   2   3   4   5   6
    symbols:   0+o 1+r 2+d 3+e 4+r 5+s 6+end

There may be exponentially many states.  So there is an end to what is written down, and a table
is made when an expression is read, or not at all: what it takes is known before it is used.
"""

from __future__ import annotations

from array import array
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
"""Steps of one expression, lookarounds included; counted repetitions are written out."""

VISITS_MAX = 50_000
"""Steps looked at in one search, for some ten milliseconds.  Who needs more finds nothing."""


class TooCostly(Exception):
    """A search has looked at VISITS_MAX steps."""


class NodeKind(Enum):
    OCTET = auto()
    FORK = auto()
    IF = auto()
    MATCH = auto()


OCTET, FORK, MATCH = NodeKind.OCTET, NodeKind.FORK, NodeKind.MATCH


class Step(NamedTuple):
    """`first` and `second` are numbers of steps for FORK; `first` one of a condition for IF."""

    kind: NodeKind
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
    """True if it reads from the end of the name to its start."""
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
    program.add(Step(NodeKind.MATCH))
    return program


def write(program: Program, node: Node) -> None:
    """Add the steps of a node."""
    match node:
        case OctetSet(among):
            program.add(Step(NodeKind.OCTET, among))
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
    program.add(Step(NodeKind.IF, first=number))


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
        fork = program.add(Step(NodeKind.FORK))
        write(program, node)
        jumps.append(program.add(Step(NodeKind.FORK)))
        program.steps[fork] = Step(NodeKind.FORK, first=fork + 1, second=len(program.steps))
    write(program, nodes[-1])
    end = len(program.steps)
    for jump in jumps:
        program.steps[jump] = Step(NodeKind.FORK, first=end, second=end)


def write_repeat(program: Program, node: Node, least: int, most: int | None) -> None:
    """Write the node `least` times, then as often as may be."""
    for _ in range(least):
        before = len(program.steps)
        write(program, node)
        if len(program.steps) == before:  # nothing, as often as one likes
            break
    if most is None:
        fork = program.add(Step(NodeKind.FORK))
        write(program, node)
        program.add(Step(NodeKind.FORK, first=fork, second=fork))
        program.steps[fork] = Step(NodeKind.FORK, first=fork + 1, second=len(program.steps))
        return
    forks = []
    for _ in range(most - least):
        forks.append(program.add(Step(NodeKind.FORK)))
        write(program, node)
    for fork in forks:
        program.steps[fork] = Step(NodeKind.FORK, first=fork + 1, second=len(program.steps))


class Automaton:
    """Searches names for one expression."""

    __slots__ = ("program",)

    def __init__(self, node: Node) -> None:
        """UnsupportedSyntax for what no automaton does."""
        self.program = program_of(node, StepBudget())

    def finds(self, name: bytes) -> bool:
        """True if it matches somewhere; not when that takes too long to find out."""
        try:
            return next(Search(name).ends(self.program), None) is not None
        except TooCostly:
            return False


class Search:
    """Search of one name, and the steps it has taken."""

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


COST_MAX = 60_000
"""Steps looked at, and entries written, for one table with those of what it looks around for: some
twenty milliseconds, once for an expression."""

STATES_MAX = 1 << 15
"""Most states, so that twice their number fits into sixteen bits."""

CONDITIONS_MAX = 6
"""Each doubles the symbols."""

LOOKS_MAX = 3
"""Looks around, one within another or not: each is a search of the whole name by itself."""


class TooLarge(Exception):
    """A table would take more than COST_MAX, or LOOKS_MAX."""


class Budget:
    """The work that may still be done."""

    def __init__(self, left: int = COST_MAX, looks_left: int = LOOKS_MAX) -> None:
        self.left = left
        self.looks_left = looks_left

    def spend(self, toil: int) -> None:
        """Spend some of the budget.  TooLarge."""
        self.left -= toil
        if self.left < 0:
            raise TooLarge

    def look_around(self) -> None:
        """Count a condition that looks ahead or behind.  TooLarge."""
        self.looks_left -= 1
        if self.looks_left < 0:
            raise TooLarge


class OctetClasses(NamedTuple):
    """Octets, and the end, by what steps make of them."""

    of_octet: bytes
    """The kind of each, for `bytes.translate`."""
    examples: tuple[int | None, ...]
    """An octet of each kind; None, the end, is the last."""


def kinds_of(steps: list[Step], budget: Budget) -> OctetClasses:
    """Divide the octets into kinds that no step distinguishes.  TooLarge."""
    sets = list({step.among for step in steps if step.kind is NodeKind.OCTET})
    budget.spend(len(sets) * 16)
    of_octet, examples = bytearray(256), dict[tuple[bool, ...], int]()
    for octet in range(256):
        among = tuple(octet in each for each in sets)
        of_octet[octet] = list(examples).index(among) if among in examples else len(examples)
        examples.setdefault(among, octet)
    return OctetClasses(bytes(of_octet), (*examples.values(), None))


class TransitionTable:
    """Searches names for one expression, or for what one looks around for."""

    __slots__ = ("_conditions", "_is_backwards", "_kinds", "_rows", "_width")

    def __init__(self, program: Program, budget: Budget | None = None) -> None:
        """TooLarge."""
        budget = budget or Budget()
        if len(program.conditions) > CONDITIONS_MAX:
            raise TooLarge
        self._is_backwards = program.is_backwards
        self._kinds = kinds_of(program.steps, budget)
        self._width = len(self._kinds.examples)
        self._conditions = [table_of(each, budget) for each in program.conditions]
        self._rows = TableBuilder(program, self._kinds, budget).rows()

    def finds(self, name: bytes) -> bool:
        """True if there is a match somewhere."""
        rows, state = self._rows, 0
        for symbol in self._symbols(name):
            code = rows[state][symbol]
            if code & 1:
                return True
            state = code >> 1
        return False

    def ends(self, name: bytes) -> Iterator[int]:
        """Yield the positions where a match ends, wherever it began: where it begins if it is read
        backwards."""
        rows, state, length = self._rows, 0, len(name)
        for position, symbol in enumerate(self._symbols(name)):
            code = rows[state][symbol]
            if code & 1:
                yield length - position if self._is_backwards else position
            state = code >> 1

    def _symbols(self, name: bytes) -> list[int]:
        """Yield the symbols of a name in the order of reading."""
        octets = name[::-1] if self._is_backwards else name
        symbols = list(octets.translate(self._kinds.of_octet))
        symbols.append(self._width - 1)
        for number, condition in enumerate(self._conditions):
            distance = self._width << number
            for position in condition.true_at(name):
                symbols[len(name) - position if self._is_backwards else position] += distance
        return symbols


class PositionCondition(NamedTuple):
    """A condition on the position in a name."""

    place: PositionTest

    def true_at(self, name: bytes) -> Collection[int]:
        return PLACES[self.place](name)


class LookaroundCondition(NamedTuple):
    """A condition on what stands ahead or behind."""

    table: TransitionTable
    is_wanted: bool

    def true_at(self, name: bytes) -> Collection[int]:
        found = set(self.table.ends(name))
        return found if self.is_wanted else set(range(len(name) + 1)) - found


def table_of(condition: Condition, budget: Budget) -> PositionCondition | LookaroundCondition:
    """Build the table of a condition.  TooLarge."""
    if isinstance(condition, LookaroundTest):
        budget.look_around()
        return LookaroundCondition(TransitionTable(condition.program, budget), condition.is_wanted)
    return PositionCondition(condition)


class Transition(NamedTuple):
    """The next state of a match that begins here, if certain conditions hold."""

    after: tuple[frozenset[int], ...]
    """The steps that are reached, by the kind of the octet."""
    is_match: bool


class TableBuilder:
    """Builder of the rows of a program's table.  All of it: TooLarge."""

    def __init__(self, program: Program, kinds: OctetClasses, budget: Budget) -> None:
        self._budget = budget
        self._steps = program.steps
        self._kinds_of = tuple(
            [kind for kind, octet in enumerate(kinds.examples) if octet in step.among]
            for step in program.steps
        )
        """In which kinds of octets the octets of each step are."""
        self._states = [frozenset[int]()]
        """The steps that were reached, but for what may begin anywhere."""
        self._numbers: dict[frozenset[int], int] = {self._states[0]: 0}
        width, truths = len(kinds.examples), range(1 << len(program.conditions))
        self._starts = [self._start(width, each) for each in truths]

    def rows(self) -> list[array[int]]:
        """Next state for each state and symbol: twice its number, plus one if there is a match
        before the octet."""
        plain = [
            [array("H", self._codes(start, is_match=is_match)) for is_match in (False, True)]
            for start in self._starts
        ]
        rows: list[array[int]] = []
        for reached in self._states:  # more are found on the way
            row = array("H")
            for truths, start in enumerate(self._starts):
                after, is_match = self._after(reached, truths)
                part = plain[truths][is_match or start.is_match][:]
                for kind, numbers in after.items():
                    number = self._number(start.after[kind].union(numbers))
                    part[kind] = number << 1 | part[kind] & 1
                row += part
            self._budget.spend(len(row) // 4)
            rows.append(row)
        return rows

    def _start(self, width: int, truths: int) -> Transition:
        after, is_match = self._after(frozenset({0}), truths)
        return Transition(tuple(frozenset(after.get(kind, ())) for kind in range(width)), is_match)

    def _codes(self, start: Transition, *, is_match: bool) -> list[int]:
        return [self._number(after) << 1 | (is_match or start.is_match) for after in start.after]

    def _number(self, state: frozenset[int]) -> int:
        self._budget.spend(len(state))
        if state not in self._numbers:
            if len(self._states) == STATES_MAX:
                raise TooLarge
            self._numbers[state] = len(self._states)
            self._states.append(state)
        return self._numbers[state]

    def _after(self, reached: frozenset[int], truths: int) -> tuple[dict[int, set[int]], bool]:
        """Return what steps are reached by an octet of each kind, and whether there is a match
        before it; `truths` has a bit for each condition."""
        after: dict[int, set[int]] = {}
        seen: set[int] = set()
        is_match, ahead = False, list(reached)
        while ahead:
            number = ahead.pop()
            if number in seen:
                continue
            seen.add(number)
            self._budget.spend(1 + len(self._kinds_of[number]))
            kind, _among, first, second = self._steps[number]
            if kind is NodeKind.OCTET:
                for octets in self._kinds_of[number]:
                    after.setdefault(octets, set()).add(number + 1)
            elif kind is NodeKind.FORK:
                ahead += (first, second)
            elif kind is NodeKind.MATCH:
                is_match = True
            elif truths >> first & 1:
                ahead.append(number + 1)
        return after, is_match
