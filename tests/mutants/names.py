"""Names in what a mutant puts in place of the original, that nothing in the sources has.

Patterns name nothing, but what is new may, as `state.log.last_index`.  After a rename such a mutant
would die of an AttributeError, and would show nothing.
"""

from __future__ import annotations

import ast
import builtins
import re
from functools import cache
from itertools import chain
from typing import TypeGuard

from tests.mutants.change import is_letter
from tests.mutants.mutant import Mutant
from tests.mutants.tags import PACKAGES, ROOT

DEFINED = re.compile(r"\b(?:def|class)\s+(\w+)|(\w+)\s*(?::|=)(?!=)")
BUILT_IN = {name for kind in (str, bytes, int, list, dict, set, tuple) for name in dir(kind)}
BUILT_IN |= {"appendleft", "popleft"}


def unknown(mutant: Mutant) -> list[str]:
    """Attributes that no source has, and names that its function does not see."""
    new = list(ast.walk(ast.parse(mutant.change.new)))
    function = mutant.function()
    seen = {"_", *vars(builtins), *function.__globals__, *function.__code__.co_varnames}
    seen |= {*function.__code__.co_freevars, *function.__code__.co_cellvars}
    seen |= {node.id for node in ast.walk(mutant.place().function) if isinstance(node, ast.Name)}
    seen |= {node.id for node in new if _is_target(node)}
    names = {node.id for node in new if isinstance(node, ast.Name) and not is_letter(node.id)}
    attributes = {node.attr for node in new if isinstance(node, ast.Attribute)}
    lost = {name for name in attributes if not is_letter(name)} - attributes_of_sources()
    return sorted((names - seen) | (lost - BUILT_IN))


def _is_target(node: ast.AST) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


@cache
def attributes_of_sources() -> frozenset[str]:
    """All that is assigned, annotated or defined anywhere."""
    found: set[str] = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            found.update(filter(None, chain(*DEFINED.findall(path.read_text(encoding="utf-8")))))
    return frozenset(found)
