"""Crashes: whatever was durable is there, each batch whole, and nothing that was not submitted.

Two ways.  A process is killed between any two commits, for real.  And what a process does to the
file is recorded, so that the disk after a power cut can be made for every moment: what was synced
is there, of what was not some pages are, some are not, some are torn.
"""

import os
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from fluffle.storage.environment import DATA_FILE, STORE_FOLDER, open_environment
from tests.storage.workload import State, held, plan
from tests.support.powercut import Noted, PowerCut, read_trace, recording_environment

ROOT = Path(__file__).parent.parent.parent


def workload(directory: Path, seed: int, commits: int) -> list[str]:
    arguments = [str(directory), str(seed), str(commits)]
    return [sys.executable, "-m", "tests.storage.workload", *arguments]


def states(seed: int, commits: int) -> list[State]:
    """What a store holds after 0, 1, 2 ... commits."""
    return [State(), *(state for _, state in islice(plan(seed), commits))]


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 40))]
)
def test_a_killed_process_loses_nothing_that_was_durable(tmp_path: Path, seed: int) -> None:
    commits = Random(seed).randint(1, 120)
    command = workload(tmp_path, seed, 10_000)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        lines = list(islice(process.stdout, 1 + commits))
        process.kill()
        lines += process.stdout.readlines()
    told = int(lines[-1])
    assert told >= commits
    disk = open_environment(tmp_path)
    expected = states(seed, told + 1)
    assert held(disk) in expected[told:], f"seed {seed}, {told} commits"


def record(tmp_path: Path, seed: int, commits: int) -> list[Noted]:
    """Run the workload and return what it did to the file."""
    trace, directory = tmp_path / "trace", tmp_path / "recorded"
    directory.mkdir()
    recording = recording_environment(tmp_path, trace)
    environment = os.environ | recording | {"RECORDER_MARKS": "1"}
    command = workload(directory, seed, commits)
    subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
    return read_trace(trace)


@pytest.mark.parametrize(("seed", "commits"), [(1, 8), pytest.param(2, 60, marks=pytest.mark.slow)])
def test_every_power_cut_leaves_what_was_durable(tmp_path: Path, seed: int, commits: int) -> None:
    events = record(tmp_path, seed, commits)
    expected, random, disk = states(seed, commits), Random(seed), PowerCut()
    kinds = [event.kind for event in events]
    assert kinds.count(b"D") >= commits, "each commit writes its meta page synchronously"
    assert kinds.count(b"S") >= commits, "after its data are synced"
    directory = tmp_path / "image"
    durable: int | None = None  # none while the store is made, under another name
    for number, event in enumerate(events):
        disk.replay(event)
        if event.kind == b"M":
            durable = 0 if event.content == b"ready\n" else int(event.content)
        if durable is None:
            continue
        for image in disk.images(random):
            found = reopen(directory, image)
            allowed = expected[durable : durable + 2]
            assert found in allowed, f"seed {seed}, event {number}, {durable} durable"
    assert durable == commits


def reopen(directory: Path, image: bytearray) -> State:
    """Start on a disk as a power cut left it."""
    shutil.rmtree(directory, ignore_errors=True)
    data = directory / STORE_FOLDER / DATA_FILE
    data.parent.mkdir(parents=True)
    data.write_bytes(image)
    return held(open_environment(directory))
