"""Syntax trees of Python files, and the walk through their statements.

A tree is fifty times its text: a module that needs it once drops it.
"""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from contextlib import contextmanager

BODIES = ("body", "handlers", "orelse", "finalbody", "cases")
"""Fields of a node that hold statements, or what has some, as a handler has."""


def parsed(text: str) -> ast.Module:
    """The tree of a file with this text."""
    with without_collections():
        return ast.parse(text)


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements below `node`, wherever they stand; those of a block follow its head."""
    for child in children(node):
        yield child
        yield from statements(child)


def children(node: ast.AST) -> Iterator[ast.AST]:
    """Statements directly in `node`; expressions have none."""
    for name in BODIES:
        yield from getattr(node, name, ())


@contextmanager
def without_collections() -> Iterator[None]:
    """No garbage collections: trees have no circles, and looking for some takes three times as
    long as parsing.  Many files are parsed in one such block, as there is a look behind each."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
