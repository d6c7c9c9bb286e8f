"""Figures of the product's sources, read from their syntax trees."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.house.syntax import parsed, statements, without_collections

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("broker", "raft", "storage", "protocol")
NAME = "fluffle"
BUNDLE_FIELDS_MIN = 2
"""A class with so many fields that are callables is a bundle of them."""
NOT_A_SUBJECT = frozenset(
    (
        *("As", "By", "For", "Of", "One"),
        *("Everybody", "He", "It", "Nobody", "Somebody", "Someone", "They", "Those"),
        *("Their", "Told", "What", "Whether", "Which", "Who", "Whoever", "Whom", "Whose"),
    )
)
"""First words of a docstring that leave its subject to be guessed."""
CLASS_WORDS_MIN = 4


class Module(NamedTuple):
    """A source file: its dotted name without `fluffle.`, its path, its text and its tree."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def line_count(self) -> int:
        return len(self.text.splitlines())


class Bundle(NamedTuple):
    """A class that its maker gives functions."""

    module: str
    name: str
    field_count: int


def modules() -> list[Module]:
    """All modules of the product, in order of their names."""
    return modules_in(*PACKAGES)


def modules_in(*folders: str, files: str = "*.py") -> list[Module]:
    """The modules in these folders of the repository whose files are named so."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob(files))]
    with without_collections():
        return [module_of(path) for path in paths]


def module_of(path: Path) -> Module:
    """The module of a file of the repository."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    text = path.read_text(encoding="utf-8")
    return Module(".".join(parts).removesuffix(".__init__"), path, text, parsed(text))


def in_ing(found: list[Module]) -> list[str]:
    """Modules whose name is a gerund."""
    return [m.name for m in found if m.name.rpartition(".")[2].endswith("ing")]


def importers(found: list[Module]) -> Mapping[str, set[str]]:
    """Importing modules by module, for types or to run."""
    names = {module.name for module in found}
    by: dict[str, set[str]] = {name: set() for name in names}
    for module in found:
        for imported in imports_of(module, names):
            if imported != module.name:
                by[imported].add(module.name)
    return by


def imports_of(module: Module, names: set[str]) -> Iterator[str]:
    """Modules of the product that a module imports anywhere in its text."""
    for node in statements(module.tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{NAME}."):
            base = str(node.module).removeprefix(f"{NAME}.")
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in names else base


def cycles(by: Mapping[str, set[str]]) -> list[list[str]]:
    """Strongly connected sets of modules with more than one member, largest first (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(by.get(name, ())):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            circle = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(circle) > 1:
                found.append(sorted(circle))

    for name in sorted(by):
        if name not in index:
            visit(name)
    return sorted(found, key=len, reverse=True)


def bundles(found: list[Module]) -> list[Bundle]:
    """Classes whose maker gives them two functions or more, those with most first.

    Private fields of a dataclass count: its `__init__` takes them.  A field that no parameter
    sets, and a method that a class binds to a name of its own, are no part of a bundle.
    """
    named = []
    for module in found:
        aliases = callable_aliases(module.tree)
        for node in statements(module.tree):
            if isinstance(node, ast.ClassDef):
                count = sum(
                    isinstance(field, ast.AnnAssign)
                    and is_callable(field.annotation, aliases)
                    and not is_set_by_its_class(field)
                    for field in node.body
                )
                if count >= BUNDLE_FIELDS_MIN:
                    named.append(Bundle(module.name, node.name, count))
    return sorted(named, key=lambda bundle: -bundle.field_count)


def callable_aliases(tree: ast.Module) -> set[str]:
    """Names of a module that stand for a type of callables."""
    return {
        node.target.id
        for node in tree.body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and node.value is not None
        and "Callable[" in ast.unparse(node.value)
    }


def is_callable(annotation: ast.expr, aliases: set[str]) -> bool:
    text = ast.unparse(annotation).removesuffix(" | None")
    return text.startswith("Callable[") or text in aliases


def is_set_by_its_class(field: ast.AnnAssign) -> bool:
    """True for a field of a dataclass that is no parameter: `field(..., init=False)`."""
    return isinstance(field.value, ast.Call) and any(
        keyword.arg == "init" and ast.unparse(keyword.value) == "False"
        for keyword in field.value.keywords
    )


def riddles(found: list[Module]) -> list[str]:
    """Classes and modules whose docstring does not begin with what they are."""
    named = []
    for module in found:
        text = ast.get_docstring(module.tree) or ""
        if first_word(text) in NOT_A_SUBJECT:
            named.append(module.name)
        for node in statements(module.tree):
            if isinstance(node, ast.ClassDef):
                text = ast.get_docstring(node) or ""
                if text and (
                    first_word(text) in NOT_A_SUBJECT or word_count(text) < CLASS_WORDS_MIN
                ):
                    named.append(f"{module.name}:{node.name}")
    return named


def unclear_docstrings() -> Iterator[str]:
    """Places of docstrings of any kind, of tests too, that leave their subject to be guessed."""
    folders = (*PACKAGES, "tests", "benchmarks")
    with without_collections():
        for path in (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))):
            lines = without_subject(parsed(path.read_text(encoding="utf-8")))
            yield from (f"{path.relative_to(ROOT)}:{line}" for line in lines)


def without_subject(tree: ast.Module) -> Iterator[int]:
    """Lines of docstrings, of attributes too, that leave their subject to be guessed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            text = node.value.value
            if isinstance(text, str) and first_word(text) in NOT_A_SUBJECT:
                yield node.lineno


def first_word(text: str) -> str:
    return text.split(maxsplit=1)[0].rstrip(".,:") if text else ""


def word_count(text: str) -> int:
    """Words of the first paragraph."""
    return len(text.partition("\n\n")[0].split())


def loose_modules(
    found: list[Module], by: Mapping[str, set[str]], line_count_max: int
) -> list[str]:
    """Small modules that a single other one imports."""
    return [
        module.name
        for module in found
        if module.path.name != "__init__.py"
        and module.line_count <= line_count_max
        and len(by[module.name]) == 1
    ]


def without_init(found: list[Module]) -> list[Module]:
    """The modules but for each package's `__init__.py`, which has a docstring and exports alone."""
    return [module for module in found if module.path.name != "__init__.py"]


def line_median(found: list[Module]) -> float:
    return median(module.line_count for module in found)


CLASS_NAME = re.compile(r"`(?!None`|True`|False`)([A-Z][a-z]\w+)(?:\.\w+)*(?:\(\))?`")
FILE_NAME = re.compile(r"(?<![\w.])([a-z]\w*\.py)\b")


def unknown_names(found: list[Module]) -> list[str]:
    """Names of classes and of files that docstrings and comments give, and that nothing has."""
    known = {word for module in found for word in identifiers(module.tree)}
    files = {path.name for path in ROOT.rglob("*.py")}
    unknown = []
    for module in found:
        for line, text in prose(module.text):
            names = [name for name in CLASS_NAME.findall(text) if name not in known]
            names += [name for name in FILE_NAME.findall(text) if name not in files]
            unknown += [f"{module.name}:{line}: {name}" for name in names]
    return unknown


def identifiers(tree: ast.Module) -> Iterator[str]:
    """Every name that the code of a module defines, imports or uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.asname or node.name


WORDS_OF_PEOPLE = frozenset(("nobody", "somebody", "told", "who", "whoever", "whom", "whose"))
"""Words of prose about people; in a name they say nothing of a thing."""


def names_of_people(found: list[Module]) -> list[str]:
    """Names that the modules give to anything, with one of `WORDS_OF_PEOPLE` in them."""
    named = {
        f"{module.name} {name}"
        for module in found
        for name in names_given(module.tree)
        if not WORDS_OF_PEOPLE.isdisjoint(name.lower().split("_"))
    }
    return sorted(named)


def names_given(tree: ast.Module) -> Iterator[str]:
    """Names of classes, functions, parameters, variables and attributes that code binds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Comments and strings in three quotes, each with its line."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        is_docstring = token.type == tokenize.STRING and '"""' in token.string[:4]
        if is_docstring or token.type == tokenize.COMMENT:
            yield token.start[0], token.string
