"""The list of source files in docs/source-files.md, made of the first lines of the modules."""

from __future__ import annotations

import ast
from itertools import groupby

from tests.house.source_tree import ROOT, Module, modules

PAGE = ROOT / "docs" / "source-files.md"
HEAD = """# Source files

Every module of the product with the first sentence of its docstring, written by
`python -m tests.house --write-files`.
[Architecture](architecture.md) explains how they work together.
"""
ORDER = ("protocol", "raft", "storage", "broker")


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    by_package = sorted(modules(), key=lambda module: (ORDER.index(top(module)), folder(module)))
    for package, found in groupby(by_package, key=folder):
        listed = list(found)
        parts.append(f"\n## {package}/\n\n")
        heads = [module for module in listed if module.path.name == "__init__.py"]
        parts.extend(f"{first_sentence(module)}\n\n" for module in heads if first_sentence(module))
        parts.extend(
            f"- `{module.path.name}` – {first_sentence(module)}\n"
            for module in listed
            if module not in heads
        )
    return "".join(parts)


def top(module: Module) -> str:
    return module.name.partition(".")[0]


def folder(module: Module) -> str:
    return str(module.path.parent.relative_to(ROOT))


def first_sentence(module: Module) -> str:
    """The first paragraph of its docstring, in one line, up to the end of a sentence."""
    text = " ".join((ast.get_docstring(module.tree) or "").partition("\n\n")[0].split())
    head, full_stop, _rest = text.partition(".  ")
    return head + "." if full_stop else text
