"""docs/raft.md keeps its promises: its example elects, proposes and applies; its table is whole."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from fluffle.raft.output import Output

PAGE = (Path(__file__).parent.parent / "docs" / "raft.md").read_text(encoding="utf-8")


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
