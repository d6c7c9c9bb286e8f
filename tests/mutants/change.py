"""Changes of one statement, described by its shape: renames of what it names do not matter.

A pattern is Python.  One capital letter in it is any expression, or any name of an attribute, an
argument or a variable, and the same wherever the letter comes again; `...` is all other arguments
of a call, or the whole body of a block.  Everything else is as it is written.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

Part = TypeVar("Part", ast.expr, ast.stmt)

BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
"""Fields of a statement that hold other statements."""


class NotThere(Exception):
    """The statement has no such part, or more than one."""


@dataclass(frozen=True, slots=True)
class Swap:
    """The part of the statement that matches `old`, or all of it, replaced by `new`."""

    old: str
    new: str

    def of(self, statement: ast.stmt) -> list[ast.stmt]:
        """The statement as changed.  Raises NotThere unless `old` matches once."""
        old, new = ast.parse(self.old).body[0], ast.parse(self.new).body
        if isinstance(old, ast.Expr) and len(new) == 1 and isinstance(new[0], ast.Expr):
            return [self._expression(statement, old.value, new[0].value)]
        found = Match()
        if not found.same(old, statement):
            raise NotThere(f"{self.old!r} is not {ast.unparse(statement)!r}")
        return [found.filled(part) for part in new]

    def _expression(self, statement: ast.stmt, old: ast.expr, new: ast.expr) -> ast.stmt:
        places = []
        for node, put in expressions(statement):
            found = Match()
            if found.same(old, node):
                places.append((put, found))
        if len(places) != 1:
            raise NotThere(f"{self.old!r}: {len(places)} times in {ast.unparse(statement)!r}")
        [(put, found)] = places
        put(found.filled(new))
        for target in targets(statement):
            target.ctx = ast.Store()
        return statement


@dataclass(frozen=True, slots=True)
class Insert:
    """Statements before that with the tag."""

    new: str

    def of(self, statement: ast.stmt) -> list[ast.stmt]:
        return [*ast.parse(self.new).body, statement]


@dataclass(frozen=True, slots=True)
class Remove:
    """The statement with the tag left out."""

    new: str = "pass"

    def of(self, statement: ast.stmt) -> list[ast.stmt]:
        del statement
        return ast.parse(self.new).body


Change = Swap | Insert | Remove


def expressions(node: ast.AST) -> Iterator[tuple[ast.expr, Callable[[ast.expr], None]]]:
    """Every expression of a statement but those of its blocks, and what puts another there."""
    for name, value in ast.iter_fields(node):
        if name in BLOCKS and isinstance(value, list):
            continue
        for at, child in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(child, ast.expr):
                yield child, Slot(node, name, at if isinstance(value, list) else None).put
            if isinstance(child, ast.AST):
                yield from expressions(child)


@dataclass(frozen=True, slots=True)
class Slot:
    """Where an expression is: in a field, or in a list that is one."""

    parent: ast.AST
    name: str
    at: int | None

    def put(self, new: ast.expr) -> None:
        if self.at is None:
            setattr(self.parent, self.name, new)
        else:
            getattr(self.parent, self.name)[self.at] = new


def targets(node: ast.AST) -> Iterator[ast.Name | ast.Tuple]:
    """The targets that a statement assigns to, where that is a name or some."""
    for target in getattr(node, "targets", ()):
        for each in (target, *getattr(target, "elts", ())):
            if isinstance(each, ast.Name | ast.Tuple):
                yield each


def is_letter(text: object) -> bool:
    return isinstance(text, str) and len(text) == 1 and text.isupper()


def is_rest(node: object) -> bool:
    if isinstance(node, ast.Expr):
        node = node.value
    return isinstance(node, ast.Constant) and node.value is ...


@dataclass(slots=True)
class Match:
    """The values that the letters of a pattern stand for."""

    letters: dict[str, object] = field(default_factory=dict)
    rests: list[list[ast.AST]] = field(default_factory=list)
    """The nodes that each `...` stands for, in their order."""

    def same(self, old: object, there: object) -> bool:
        """True if a pattern is what is there; if it is not, this is of no more use."""
        if isinstance(old, ast.Name) and is_letter(old.id):
            return isinstance(there, ast.expr) and self._is(old.id, there)
        if isinstance(old, str) and is_letter(old):
            return isinstance(there, str) and self._is(old, there)
        if isinstance(old, list):
            return isinstance(there, list) and self._same_all(old, there)
        if not isinstance(old, ast.AST):
            return type(old) is type(there) and old == there
        if type(old) is not type(there):
            return False
        if isinstance(old, ast.Call) and isinstance(there, ast.Call):
            return self.same(old.func, there.func) and self._same_all(
                [*old.args, *old.keywords], [*there.args, *there.keywords]
            )
        names = [name for name in old._fields if name not in ("ctx", "type_comment", "kind")]
        return all(self.same(getattr(old, n, None), getattr(there, n, None)) for n in names)

    def _same_all(self, old: list[ast.AST], there: list[ast.AST]) -> bool:
        rests = [at for at, node in enumerate(old) if is_rest(node)]
        if not rests:
            return len(old) == len(there) and all(map(self.same, old, there))
        at, behind = rests[0], len(old) - rests[0] - 1
        if len(there) < at + behind:
            return False
        self.rests.append(there[at : len(there) - behind])
        ends = [*there[:at], *there[len(there) - behind :]]
        return all(map(self.same, [*old[:at], *old[at + 1 :]], ends))

    def _is(self, letter: str, there: object) -> bool:
        known = self.letters.setdefault(letter, there)
        return known is there or dump(known) == dump(there)

    def filled(self, new: Part) -> Part:
        """A copy of `new` with what the letters stand for."""
        filled: Part = Filling(self).visit(copy.deepcopy(new))
        return filled


def dump(there: object) -> str:
    """Text that is equal for equal nodes, whether they are read or written."""
    if not isinstance(there, ast.AST):
        return repr(there)
    return ast.unparse(there)


class Filling(ast.NodeTransformer):
    """Puts into the new part what the letters of the old one stand for."""

    def __init__(self, match: Match) -> None:
        self._match = match
        self._rests = iter(match.rests)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        found = self._match.letters.get(node.id)
        if isinstance(found, ast.expr):
            again = copy.deepcopy(found)
            if hasattr(again, "ctx"):
                again.ctx = node.ctx
            return again
        if isinstance(found, str):
            node.id = found
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for name, value in ast.iter_fields(node):
            if isinstance(value, str) and is_letter(value) and value in self._match.letters:
                known = self._match.letters[value]
                setattr(node, name, known if isinstance(known, str) else dump(known))
            elif isinstance(value, list) and any(map(is_rest, value)):
                self._spread(node, name, value)
        return super().generic_visit(node)

    def _spread(self, node: ast.AST, name: str, value: list[ast.AST]) -> None:
        at = next(at for at, each in enumerate(value) if is_rest(each))
        rest = copy.deepcopy(next(self._rests))
        keywords = [each for each in rest if isinstance(each, ast.keyword)]
        value[at : at + 1] = [each for each in rest if not isinstance(each, ast.keyword)]
        if isinstance(node, ast.Call) and name == "args":
            node.keywords[:0] = keywords
