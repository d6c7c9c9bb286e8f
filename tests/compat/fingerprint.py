"""Fingerprints of what RabbitMQ is asked: the code that asks, and all of `tests` that it reaches.

A fingerprint is another one as soon as the code may ask something else or write it down otherwise.
Comments, docstrings, types and layout are no part of it, nor are the names of functions, classes,
constants and modules of tests: in the place of such a name stands the fingerprint of what it names.
Of a class only methods count whose names are mentioned.  Functions of fluffle are no part of it and
may be called otherwise: what they do is seen in what is said.  Nor is how brokers are started.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, TypeAlias

ROOT = Path(__file__).parents[2]
TESTS, FLUFFLE = "tests", "fluffle"
STARTING = frozenset(
    {"tests.compat.oracle", *(f"tests.support.{name}" for name in ("daemon", "ports", "require"))}
)
"""Modules that start brokers; how they are configured stands where it is asked for."""
CHARACTERS = 16
ROUNDS = 2
"""So far away a change of what is named is seen in the place of its name; farther away it is seen
as a change of something that is reached."""

REGISTERS = frozenset({"scenario", "across", "under_alarm", "with_nodes"})
"""Decorators that say which rows a scenario covers."""
NO_CODE = frozenset({"annotation", "returns", "type_comment", "type_params", "ctx", "kind"})
NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SCOPES = (*FUNCTIONS, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class QualifiedName(NamedTuple):
    """A name at the top of a module of tests."""

    module: str
    name: str


Piece: TypeAlias = str | QualifiedName
"""Part of a fingerprint's text: as it is, or a name that refers to code of the tests."""
Root: TypeAlias = Callable[..., object] | QualifiedName


class Module(NamedTuple):
    """Names that a module defines and imports."""

    defined: dict[str, list[ast.stmt]]
    imported: dict[str, QualifiedName]
    helpers: set[str]
    """Functions of fluffle."""
    tops: set[ast.stmt]
    """The statements of `defined`."""


def found(module: str, name: str) -> QualifiedName | None:
    """Definition in the tests to which a name of a module refers, or None."""
    if name in module_of(module).defined:
        return QualifiedName(module, name)
    place = module_of(module).imported.get(name)
    return found(*place) if place is not None else None


def fingerprint(*roots: Root, said: object = "") -> str:
    """That of these functions and constants, with what is `said` beside them."""
    places = [root if isinstance(root, QualifiedName) else place_of(root) for root in roots]
    texts = reached(places, {part for root in roots for part in method_of(root)})
    prints = dict.fromkeys(texts, "")
    for _ in range(ROUNDS):
        prints = {place: hashed(filled(text, prints)) for place, text in texts.items()}
    return hashed(repr(([prints[place] for place in places], sorted(prints.values()), said)))


def place_of(root: Callable[..., object]) -> QualifiedName:
    """The place of a function or a class, or the class of a method."""
    file = Path(sys.modules[root.__module__].__file__ or "")  # pytest gives modules other names
    parts = file.resolve().relative_to(ROOT).with_suffix("").parts
    return QualifiedName(".".join(parts), root.__qualname__.partition(".")[0])


def method_of(root: Root) -> list[str]:
    return [] if isinstance(root, QualifiedName) else root.__qualname__.split(".")[1:]


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:CHARACTERS]


def filled(text: list[Piece], prints: dict[QualifiedName, str]) -> str:
    return "".join(
        f"<{prints[each]}>" if isinstance(each, QualifiedName) else each for each in text
    )


def reached(places: list[QualifiedName], mentioned: set[str]) -> dict[QualifiedName, list[Piece]]:
    """The texts of these and of all that they name, and that names, and so on."""
    while True:
        before = len(mentioned)
        texts: dict[QualifiedName, list[Piece]] = {}
        ahead = [*places]
        while ahead:
            place = ahead.pop()
            if place in texts:
                continue
            texts[place] = []
            for node in nodes_of(place, mentioned):
                pieces, named, attributes = read(place.module, node)
                texts[place] += pieces
                mentioned |= attributes
                ahead += named
        if len(mentioned) == before:
            return texts


def nodes_of(place: QualifiedName, mentioned: set[str]) -> Iterator[ast.AST]:
    """The code of a name: of a class the methods that count."""
    for statement in module_of(place.module).defined[place.name]:
        if isinstance(statement, ast.ClassDef):
            yield from statement.decorator_list
            yield from statement.bases
            yield from (each for each in statement.body if counts(each, mentioned))
        else:
            yield statement


def counts(part: ast.stmt, mentioned: set[str]) -> bool:
    """True if a part of a class does."""
    if not isinstance(part, FUNCTIONS):
        return True
    return part.name in mentioned or part.name.startswith("__")


@cache
def module_of(name: str) -> Module:
    path = ROOT / f"{name.replace('.', '/')}.py"
    defined: dict[str, list[ast.stmt]] = {}
    imported: dict[str, QualifiedName] = {}
    helpers: set[str] = set()
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.ImportFrom):
            module, names = statement.module or "", statement.names
            if module.partition(".")[0] == TESTS and module not in STARTING:
                imported |= {
                    each.asname or each.name: QualifiedName(module, each.name) for each in names
                }
            elif module.partition(".")[0] == FLUFFLE:
                helpers |= {each.asname or each.name for each in names if each.name.islower()}
        for bound in names_bound(statement):
            defined.setdefault(bound, []).append(statement)
    tops = {statement for each in defined.values() for statement in each}
    return Module(defined, imported, helpers, tops)


def names_bound(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, NAMED):
        yield statement.name
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:
            yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


@cache
def read(
    module: str, node: ast.AST
) -> tuple[tuple[Piece, ...], frozenset[QualifiedName], frozenset[str]]:
    """The text of some code, the places that it names, and the attributes."""
    pieces: list[Piece] = []
    attributes: set[str] = set()
    write(node, module, pieces, attributes)
    joined: list[Piece] = []
    for is_text, group in groupby(pieces, lambda piece: isinstance(piece, str)):
        parts = [*group]
        joined += ["".join(map(str, parts))] if is_text else parts
    places = frozenset(piece for piece in pieces if isinstance(piece, QualifiedName))
    return tuple(joined), places, frozenset(attributes)


def write(
    node: ast.AST,
    module: str,
    pieces: list[Piece],
    attributes: set[str],
    local: frozenset[str] = frozenset(),
) -> None:
    """The text of some code: its tree, but for what is no code.  `local`: names of its own."""
    if is_docstring(node):
        return
    if isinstance(node, ast.Name):
        pieces.append(node.id if node.id in local else meaning(module, node.id))
        return
    if isinstance(node, ast.Attribute):
        attributes.add(node.attr)
    if isinstance(node, SCOPES):
        local |= frozenset(names_of(node))
    pieces.append(f"({type(node).__name__}")
    for field, value in ast.iter_fields(node):
        if field in NO_CODE or (field == "name" and node in module_of(module).tops):
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                if field != "decorator_list" or not registers(each):
                    write(each, module, pieces, attributes, local)
            elif each is not None:
                pieces.append(f" {each!r}")
        pieces.append(";")
    pieces.append(")")


def meaning(module: str, name: str) -> Piece:
    """Piece that stands for a name of a module."""
    place = found(module, name)
    if place is not None:
        return place
    return FLUFFLE if name in module_of(module).helpers else name


def names_of(scope: ast.AST) -> Iterator[str]:
    """The names that a function or a comprehension has of its own."""
    ahead = [*ast.iter_child_nodes(scope)]
    while ahead:
        node = ahead.pop()
        if isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, NAMED):
            yield node.name
        if not isinstance(node, SCOPES):
            ahead += ast.iter_child_nodes(node)


def is_docstring(node: ast.AST) -> bool:
    """True if it is a docstring, of whatever."""
    if not isinstance(node, ast.Expr):
        return False
    return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def registers(decorator: ast.AST) -> bool:
    made = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(made, ast.Name) and made.id in REGISTERS
