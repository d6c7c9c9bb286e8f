"""Tests of a process's disk after a power cut: what it synced, and maybe more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.support.powercut import SECTOR_BYTES, cut_power, forgetting_environment

SCRIPT = """
import os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
at_once = os.open(sys.argv[1], os.O_RDWR | os.O_DSYNC)
for step in sys.argv[2:]:
    what, _, at = step.partition(" ")
    if what == "sync":
        os.fdatasync(file)
    else:
        os.pwrite(at_once if what.isupper() else file, what.encode() * 512, 512 * int(at))
"""


def left(tmp_path: Path, seed: int, *steps: str) -> str:
    """The first letter of each sector, after a process that does this has lost its power."""
    data, synced = tmp_path / "data.mdb", tmp_path / "synced"
    variables = os.environ | forgetting_environment(tmp_path, synced, 0)
    subprocess.run([sys.executable, "-c", SCRIPT, str(data), *steps], env=variables, check=True)
    cut_power(data, synced, Random(seed))
    assert data.read_bytes() == synced.read_bytes(), "this is what is on the disk from now on"
    return data.read_bytes()[::SECTOR_BYTES].decode()


def test_what_was_synced_is_there_and_of_the_rest_any_part(tmp_path: Path) -> None:
    found = set()
    for seed in range(20):
        (folder := tmp_path / str(seed)).mkdir()
        found.add(left(folder, seed, "a 0", "a 1", "a 2", "sync", "b 1", "B 2", "b 3"))
    assert found == {f"a{overwritten}B{more}" for overwritten in "ab" for more in ("", "b")}


@pytest.mark.parametrize("steps", [("b 0", "sync"), ("b 0", "c 1", "sync", "d 1")])
def test_the_next_process_goes_on_with_what_was_left(tmp_path: Path, steps: tuple[str]) -> None:
    assert left(tmp_path, 1, "a 0", "a 1", "a 2", "sync") == "aaa"
    assert left(tmp_path, 2, *steps)[0] == "b"
    assert left(tmp_path, 3)[0] == "b"
