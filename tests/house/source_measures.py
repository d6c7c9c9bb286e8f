"""Sizes and imports of a Python file, read from its statements in one pass."""

from __future__ import annotations

import ast
import asyncio
from dataclasses import dataclass, field

from tests.house.syntax import children, parsed, statements

Function = ast.FunctionDef | ast.AsyncFunctionDef
Loop = ast.For | ast.AsyncFor | ast.While
Block = Loop | ast.If | ast.With | ast.AsyncWith | ast.Try | ast.TryStar | ast.Match


@dataclass(frozen=True, slots=True)
class FunctionMeasures:
    name: str
    line_count: int
    nesting: int
    positional_count: int


@dataclass(frozen=True, slots=True)
class ClassMeasures:
    name: str
    public_method_count: int


@dataclass(frozen=True, slots=True)
class SourceMeasures:
    line_count: int
    functions: list[FunctionMeasures] = field(default_factory=list)
    classes: list[ClassMeasures] = field(default_factory=list)
    imported: set[str] = field(default_factory=set)
    """Top-level packages."""


def measure(text: str) -> SourceMeasures:
    """Measures of the file with this text."""
    found = SourceMeasures(len(text.splitlines()))
    for node in statements(parsed(text)):
        if isinstance(node, Function):
            found.functions.append(_measure_function(node))
        elif isinstance(node, ast.ClassDef):
            found.classes.append(ClassMeasures(node.name, _public_method_count(node)))
        elif isinstance(node, ast.Import):
            found.imported.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.imported.add(node.module.partition(".")[0])
    return found


def _measure_function(node: Function) -> FunctionMeasures:
    assert node.end_lineno is not None
    line_count = node.end_lineno - node.lineno + 1
    return FunctionMeasures(node.name, line_count, _nesting(node), _positional_count(node))


def _nesting(node: ast.AST) -> int:
    """Number of blocks inside one another below `node`; `elif` is no deeper than its `if`."""
    deepest = 0
    for child in children(node):
        if isinstance(child, Function | ast.ClassDef):
            continue
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deepest = max(deepest, _nesting(child) + (isinstance(child, Block) and not is_elif))
    return deepest


def _positional_count(function: Function) -> int:
    names = [arg.arg for arg in (*function.args.posonlyargs, *function.args.args)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def _public_method_count(node: ast.ClassDef) -> int:
    """The methods that a user may call: no properties, and no callbacks that asyncio calls."""
    methods = (item for item in node.body if isinstance(item, Function))
    named = (m.name for m in methods if not m.name.startswith("_") and not m.decorator_list)
    return sum(not hasattr(asyncio.Protocol, name) for name in named)
