"""An automaton whose ways are all gone beforehand: for each octet of a name one look into a table.

Places that can be reached together are one state (Rabin and Scott 1959).  What comes next is a
symbol: which of the conditions hold at a position, and the octet behind it, or that there is none.
Octets between which no step makes a difference are one.

    name:        o   r   d   e   r   s
    position:  0   1   2   3   4   5   6
    symbols:   0+o 1+r 2+d 3+e 4+r 5+s 6+end

There may be exponentially many states.  So there is an end to what is written down, and a table
is made when an expression is read, or not at all: what it takes is known before it is used.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator
from typing import NamedTuple

from fluffle.broker.patterns.automaton import PLACES, Condition, Kind, LookaroundTest, Program, Step
from fluffle.broker.patterns.syntax import PositionTest

COST_MAX = 60_000
"""Steps looked at, and entries written, for one table with those of what it looks around for: some
twenty milliseconds, once for an expression."""

STATES_MAX = 1 << 15
"""So that twice their number is one of sixteen bits."""

CONDITIONS_MAX = 6
"""Each doubles the symbols."""

LOOKS_MAX = 3
"""Looks around, one within another or not: each is a search of the whole name by itself."""


class TooLarge(Exception):
    """A table would take more than COST_MAX, or LOOKS_MAX."""


class Budget:
    """The work that may still be done."""

    __slots__ = ("left", "looks_left")

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
    """Divide the octets into kinds that no step tells apart.  TooLarge."""
    sets = list({step.among for step in steps if step.kind is Kind.OCTET})
    budget.spend(len(sets) * 16)
    of_octet, examples = bytearray(256), dict[tuple[bool, ...], int]()
    for octet in range(256):
        among = tuple(octet in each for each in sets)
        of_octet[octet] = list(examples).index(among) if among in examples else len(examples)
        examples.setdefault(among, octet)
    return OctetClasses(bytes(of_octet), (*examples.values(), None))


class Table:
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
        self._conditions = [condition_of(each, budget) for each in program.conditions]
        self._rows = TableBuilder(program, self._kinds, budget).rows()

    def finds(self, name: bytes) -> bool:
        """Whether there is a match somewhere."""
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

    table: Table
    is_wanted: bool

    def true_at(self, name: bytes) -> Collection[int]:
        found = set(self.table.ends(name))
        return found if self.is_wanted else set(range(len(name) + 1)) - found


def condition_of(condition: Condition, budget: Budget) -> PositionCondition | LookaroundCondition:
    """Build the table of a condition.  TooLarge."""
    if isinstance(condition, LookaroundTest):
        budget.look_around()
        return LookaroundCondition(Table(condition.program, budget), condition.is_wanted)
    return PositionCondition(condition)


class Transition(NamedTuple):
    """The next state of a match that begins here, if certain conditions hold."""

    after: tuple[frozenset[int], ...]
    """The steps that are reached, by the kind of the octet."""
    is_match: bool


class TableBuilder:
    """Builder of the rows of a program's table.  All of it: TooLarge."""

    __slots__ = ("_budget", "_kinds_of", "_numbers", "_starts", "_states", "_steps")

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
        """For each state, and each symbol, the next state: twice its number, and one if there is a
        match before the octet."""
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
            if kind is Kind.OCTET:
                for octets in self._kinds_of[number]:
                    after.setdefault(octets, set()).add(number + 1)
            elif kind is Kind.FORK:
                ahead += (first, second)
            elif kind is Kind.MATCH:
                is_match = True
            elif truths >> first & 1:
                ahead.append(number + 1)
        return after, is_match
