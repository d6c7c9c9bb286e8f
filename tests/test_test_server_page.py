"""docs/test-server.md: its table is that of the operations."""

from __future__ import annotations

import inspect
from pathlib import Path

from fluffle.broker.testing.server.operations import OPERATIONS, Operation

PAGE = Path(__file__).parent.parent / "docs" / "test-server.md"


def row(path: str, operation: Operation) -> str:
    """The line of the table about one operation."""
    names = (
        f"`{name}`" if argument.required else f"[`{name}`]"
        for name, argument in operation.arguments.items()
    )
    what = " ".join((inspect.getdoc(operation.act) or "").split())
    return f"| `{path}` | {', '.join(names)} | {what} |"


def test_the_table_is_that_of_the_operations() -> None:
    table = ["| path | arguments | what it does |", "|---|---|---|"]
    table += [row(path, operation) for path, operation in OPERATIONS.items()]
    assert "\n".join(table) + "\n\n" in PAGE.read_text(encoding="utf-8"), "\n".join(table)
