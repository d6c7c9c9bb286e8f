"""The applications of docs/examples: their own tests pass, as who copies a folder runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from shutil import copytree

import pytest

from tests.support.deadlines import DEADLINE_S
from tests.support.node_packages import installed

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
PYTHON = {"aio-pika-app", "aiomqtt-app", "celery-app", "paho-app", "pika-app"}
NODE = {"mqttjs-app", "node-app"}
APART = ("--basetemp", "temporary")
"""Options of pytest inside pytest: without, it would first delete what earlier runs have left."""

pytestmark = pytest.mark.interop(seconds=5)  # npm installs what the example needs


def run(folder: Path, *words: str) -> str:
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_is_run() -> None:
    assert {each.name for each in EXAMPLES.iterdir() if each.is_dir()} == PYTHON | NODE


@pytest.mark.parametrize("name", sorted(PYTHON))
def test_the_bug_is_found(name: str, tmp_path: Path) -> None:
    """Alone in its folder: settings of this repository are not its own."""
    folder = copytree(EXAMPLES / name, tmp_path / name)
    output = run(folder, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *APART)
    assert " xfailed" in output


@pytest.mark.parametrize("name", sorted(NODE))
def test_the_bug_is_found_in_node(name: str) -> None:
    folder = EXAMPLES / name
    node = installed(folder)
    output = run(
        folder, sys.executable, "-m", "fluffle.broker", "test-server", "--", node, "--test"
    )
    assert "# pass 3" in output
