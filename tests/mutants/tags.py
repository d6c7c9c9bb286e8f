"""Comments in the sources that name mutants, as `# mutant: M26`, and the statements they stand at.

A tag is at the end of a line of the statement that is changed, or on a line of its own above it;
`# mutant: M1 M12` is one of each.  Of a block, as an `if`, what stands before the colon is meant.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("protocol", "raft", "storage", "broker")
TAG = re.compile(r"# mutant: (?P<numbers>[A-Z]+\d+[a-z]?(?: [A-Z]+\d+[a-z]?)*)\s*$")
ALIKE = re.compile(r"#\s*mutants?\b", re.IGNORECASE)
"""A comment that may be a tag with a slip in it."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Tag:
    """A number in a comment."""

    number: str
    path: Path
    """Below the root of the repository."""
    line: int
    """The line of the comment, or of the code below it if it has a line of its own."""

    @property
    def module(self) -> str:
        """Name of the module below `fluffle`."""
        return ".".join(self.path.with_suffix("").parts).removesuffix(".__init__")


class BadTag(Exception):
    """A comment that names no statement of a function."""


@cache
def tags() -> dict[str, list[Tag]]:
    """All that there are, by number."""
    found: dict[str, list[Tag]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if "mutant" in text:
                for tag in tags_of(text, path.relative_to(ROOT)):
                    found.setdefault(tag.number, []).append(tag)
    return found


def tags_of(text: str, path: Path) -> Iterator[Tag]:
    lines = text.splitlines()
    for at, line in enumerate(lines):
        found = TAG.search(line)
        if found is None:
            if ALIKE.search(line):
                raise BadTag(f"{path}:{at + 1}: {line.strip()}")
            continue
        meant = at
        while lines[meant].lstrip().startswith("#"):
            meant += 1
        for number in found["numbers"].split():
            yield Tag(number, path, meant + 1)


@dataclass(frozen=True, slots=True)
class Place:
    """The statement that a tag stands at, in a tree of its own that may be changed."""

    tag: Tag
    qualname: str
    """The name of the function, in its module."""
    function: Function
    statement: ast.stmt

    @property
    def where(self) -> str:
        return f"{self.tag.module}:{self.qualname}"

    def put(self, new: list[ast.stmt]) -> None:
        """Replace the statement."""
        for parent in ast.walk(self.function):
            for _, value in ast.iter_fields(parent):
                if isinstance(value, list) and self.statement in value:
                    at = value.index(self.statement)
                    value[at : at + 1] = new
                    return
        raise BadTag(f"{self.tag}: its statement stands nowhere")


def place_of(tag: Tag) -> Place:
    """Where it stands.  Raises BadTag where it stands in no function."""
    names: list[str] = []
    function: Function | None = None
    node: ast.AST = tree_of(tag.path)
    while (child := _around(node, tag.line)) is not None:
        if function is None and isinstance(child, Function | ast.ClassDef):
            names.append(child.name)
            function = child if isinstance(child, Function) else None
        node = child
    if function is None or node is function or not isinstance(node, ast.stmt):
        raise BadTag(f"{tag.path}:{tag.line}: no statement of a function is here")
    copies: dict[int, ast.AST] = {}
    own = copy.deepcopy(function, copies)
    statement = copies[id(node)]
    assert isinstance(statement, ast.stmt)
    return Place(tag, ".".join(names), own, statement)


@lru_cache(maxsize=4)
def tree_of(path: Path) -> ast.Module:
    """The tree of a file; those of the last few are kept, as many mutants are of one."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def _around(node: ast.AST, line: int) -> ast.AST | None:
    """The statement below `node` that this line is of, or what holds it, as a handler does."""
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        child: ast.stmt | ast.excepthandler | ast.match_case
        for child in getattr(node, name, ()):
            first = child.pattern if isinstance(child, ast.match_case) else child
            last = child.body[-1] if isinstance(child, ast.match_case) else child
            if first.lineno <= line <= (last.end_lineno or 0):
                return child
    return None
