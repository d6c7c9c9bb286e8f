"""The README keeps its promises: the example does what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import Daemon

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.interop
def test_the_example_prints_what_it_published(tmp_path: Path) -> None:
    example = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    with Daemon(tmp_path) as daemon:
        code = example[1].replace('"localhost"', f'"localhost", {daemon.port}')
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "Hello, rabbits!\n", "")
