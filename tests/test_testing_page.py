"""Each block of docs/testing.md works when it is pasted."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "testing.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
TESTS = [block for block in BLOCKS if block.startswith("# test_")]
PROGRAMS = [block for block in BLOCKS if not block.startswith("# test_")]

pytestmark = pytest.mark.interop


def run(folder: Path, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_tests_pass(tmp_path: Path) -> None:
    for block in TESTS:
        name = block.partition("\n")[0].removeprefix("# ")
        (tmp_path / name).write_text(block)
    assert len(TESTS) == len(list(tmp_path.iterdir())) > 0
    run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider")


@pytest.mark.parametrize("program", PROGRAMS)
def test_its_programs_run(program: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(program)
    run(tmp_path, "program.py")
