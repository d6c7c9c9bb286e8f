"""docs/raft.md keeps its promises: its example elects, proposes and applies; its table is whole."""

import ast
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from fluffle.raft.output import Output

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "raft.md").read_text(encoding="utf-8")


def defined_names() -> set[str]:
    """Names of functions, classes and methods of `raft/`, as the page has them: alone, and behind
    their module."""
    found: set[str] = set()
    for path in (ROOT / "raft").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                continue
            inner = [each for each in node.body if isinstance(each, ast.FunctionDef)]
            methods = inner if isinstance(node, ast.ClassDef) else []
            names = {node.name, *(f"{node.name}.{each.name}" for each in methods)}
            found |= names | {f"{path.stem}.{name}" for name in names}
    return found


def test_the_example_applies_on_all_members_what_one_proposed() -> None:
    example = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    command = [sys.executable, "-c", example[1]]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    proposed = re.findall(
        r"^(.) proposes Position\(term=1, index=2\)$", result.stdout, re.MULTILINE
    )
    assert len(proposed) == 1
    applied = re.findall(r"^(.) applies \[b'carrot'\]$", result.stdout, re.MULTILINE)
    assert sorted(applied) == ["a", "b", "c"]


def test_the_table_has_each_field_of_an_output_in_order() -> None:
    table = PAGE.split("| field of an output")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == [each.name for each in fields(Output)]


def test_the_table_of_rules_names_functions_that_are_there() -> None:
    table = PAGE.split("| rule | where |")[1].split("\n\n")[0]
    cells = [row.split("|")[2] for row in table.splitlines()[2:]]
    named = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    assert len(named) >= len(cells) > 40
    defined = defined_names()
    assert [name for name in named if name not in defined] == []
