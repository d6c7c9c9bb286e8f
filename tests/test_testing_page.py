"""Each block of the pages about testing works when it is pasted."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_examples import APART

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ("testing.md", "testing-frameworks.md")
LIMIT_S = 300
"""Time for all tests of a page; each wait in a block has a limit of its own."""


def blocks(page: str) -> list[str]:
    """Python blocks that are not marked as not to be run."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


TESTS = {page: [block for block in blocks(page) if block.startswith("# test_")] for page in PAGES}
PROGRAMS = [block for page in PAGES for block in blocks(page) if not block.startswith("# test_")]

pytestmark = pytest.mark.interop


def run(folder: Path, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_their_tests_pass(page: str, tmp_path: Path) -> None:
    for block in TESTS[page]:
        name = block.partition("\n")[0].removeprefix("# ")
        (tmp_path / name).write_text(block)
    assert len(TESTS[page]) == len(list(tmp_path.iterdir())) > 0
    run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", *APART)


@pytest.mark.parametrize("program", PROGRAMS)
def test_their_programs_run(program: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(program)
    run(tmp_path, "program.py")
