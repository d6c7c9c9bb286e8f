"""Crashes: whatever was durable is there, each batch whole, and nothing that was not submitted.

Two ways.  A process is killed between any two commits, for real.  And what a process does to the
file is recorded, so that the disk after a power cut can be made for every moment: what was synced
is there, of what was not some pages are, some are not, some are torn.
"""

import os
import shutil
import subprocess
from pathlib import Path
from random import Random
from types import ModuleType

import pytest

from fluffle.storage.environment import DATA_FILE, STORE_FOLDER, open_environment
from tests.storage.kills import ROOT, WORKLOADS, command, kill, states
from tests.suite.seeds import is_night
from tests.support.powercut import Noted, PowerCut, read_trace, recording_environment

each_workload = pytest.mark.parametrize("load", WORKLOADS)


@each_workload
@pytest.mark.parametrize(
    "seed",
    [
        1,
        *(
            pytest.param(
                seed, marks=pytest.mark.slow("a process writes, dies and is read for each seed")
            )
            for seed in range(2, 14)
        ),
    ],
)
def test_a_killed_process_loses_nothing_that_was_durable(
    tmp_path: Path, load: ModuleType, seed: int
) -> None:
    kill(load, tmp_path, seed)


def record(tmp_path: Path, load: ModuleType, seed: int, commits: int) -> list[Noted]:
    """Run the workload and return what it did to the file."""
    trace, directory = tmp_path / "trace", tmp_path / "recorded"
    directory.mkdir()
    recording = recording_environment(tmp_path, trace)
    environment = os.environ | recording | {"RECORDER_MARKS": "1"}
    arguments = command(load, directory, seed, commits, 0)
    subprocess.run(arguments, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
    return read_trace(trace)


@each_workload
@pytest.mark.parametrize(
    ("seed", "commits"),
    [
        (1, 8),
        pytest.param(
            2,
            60 if is_night() else 25,
            marks=pytest.mark.slow("what every cut of a long history leaves is read"),
        ),
    ],
)
def test_every_power_cut_leaves_what_was_durable(
    tmp_path: Path, load: ModuleType, seed: int, commits: int
) -> None:
    events = record(tmp_path, load, seed, commits)
    expected, random, disk = states(load, seed, commits), Random(seed), PowerCut()
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
            found = reopen(load, directory, image)
            allowed = expected[durable : durable + 2]
            assert found in allowed, f"seed {seed}, event {number}, {durable} durable"
    assert durable == commits


def reopen(load: ModuleType, directory: Path, image: bytearray) -> object:
    """State that a start finds on a disk as a power cut left it."""
    shutil.rmtree(directory, ignore_errors=True)
    data = directory / STORE_FOLDER / DATA_FILE
    data.parent.mkdir(parents=True)
    data.write_bytes(image)
    return load.held(open_environment(directory))
