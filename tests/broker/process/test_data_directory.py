"""A lock is for one holder, and ends with it."""

import subprocess
import sys
from pathlib import Path

import pytest

from fluffle.broker.process.data_directory import lock

HOLDS = """
import sys
from pathlib import Path
from fluffle.broker.process.data_directory import lock

held = lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_is_for_one_and_ends_when_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock(path), pytest.raises(BlockingIOError):
        lock(path)
    with lock(path):
        assert path.exists()


def test_a_process_that_is_killed_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDS, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError):
            lock(path)
        holder.kill()
    lock(path).close()


def test_a_file_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        lock(tmp_path / "none" / "lock")
