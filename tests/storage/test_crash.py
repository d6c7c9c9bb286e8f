"""Crashes: whatever was durable is there, each batch whole, and nothing that was not submitted.

Two ways.  A process is killed between any two commits, for real.  And what a process does to the
file is recorded, so that the disk after a power cut can be made for every moment: what was synced
is there, of what was not some pages are, some are not, some are torn.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from random import Random
from struct import Struct

import pytest

from fluffle.storage.environment import DATA_FILE, STORE_FOLDER, open_environment
from tests.storage.workload import State, held, plan
from tests.support.require import require

ROOT = Path(__file__).parent.parent.parent
EVENT = Struct(">cQQ")
SECTOR_BYTES = 512
"""What a disk writes whole or not at all."""


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


@dataclass(slots=True)
class PowerCut:
    """A disk that is replayed event by event, and what could be left of it at each."""

    synced: bytearray = field(default_factory=bytearray)
    unsynced: list[tuple[int, bytes]] = field(default_factory=list)
    marks: int | None = None
    """How many commits were told to be durable; None while the store is made, under another
    name."""

    def replay(self, kind: bytes, offset: int, content: bytes) -> None:
        if kind == b"W":
            self.unsynced.append((offset, content))
        elif kind == b"D":
            write(self.synced, offset, content)
        elif kind == b"S":
            for earlier in self.unsynced:
                write(self.synced, *earlier)
            self.unsynced.clear()
        elif kind == b"M":
            self.marks = 0 if content == b"ready\n" else int(content)

    def images(self, random: Random) -> list[bytearray]:
        """Nothing unsynced is there, all of it is, some sectors are."""
        lost, kept, torn = bytearray(self.synced), bytearray(self.synced), bytearray(self.synced)
        if not self.unsynced:
            return [lost]
        for offset, content in self.unsynced:
            write(kept, offset, content)
            for at in range(0, len(content), SECTOR_BYTES):
                if random.random() < 0.5:
                    write(torn, offset + at, content[at : at + SECTOR_BYTES])
        return [lost, kept, torn]


def write(image: bytearray, offset: int, content: bytes) -> None:
    if len(image) < offset:
        image.extend(bytes(offset - len(image)))
    image[offset : offset + len(content)] = content


def record(tmp_path: Path, seed: int, commits: int) -> list[tuple[bytes, int, bytes]]:
    """Run the workload and return what it did to the file."""
    library, trace = tmp_path / "recorder.so", tmp_path / "trace"
    source = Path(__file__).with_name("recorder.c")
    compile_it = [require("cc"), "-shared", "-fPIC", "-O1", "-o", str(library), str(source)]
    subprocess.run(compile_it, check=True)
    directory = tmp_path / "recorded"
    directory.mkdir()
    environment = os.environ | {
        "LD_PRELOAD": str(library), "RECORDER_TRACE": str(trace), "RECORDER_MARKS": "1"
    }  # fmt: skip
    command = workload(directory, seed, commits)
    subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
    events, data, at = [], trace.read_bytes(), 0
    while at < len(data):
        kind, offset, length = EVENT.unpack_from(data, at)
        at += EVENT.size
        events.append((kind, offset, data[at : at + length]))
        at += length
    return events


@pytest.mark.parametrize(("seed", "commits"), [(1, 8), pytest.param(2, 60, marks=pytest.mark.slow)])
def test_every_power_cut_leaves_what_was_durable(tmp_path: Path, seed: int, commits: int) -> None:
    events = record(tmp_path, seed, commits)
    expected, random, disk = states(seed, commits), Random(seed), PowerCut()
    kinds = [kind for kind, _, _ in events]
    assert kinds.count(b"D") >= commits, "each commit writes its meta page synchronously"
    assert kinds.count(b"S") >= commits, "after its data are synced"
    directory = tmp_path / "image"
    for number, event in enumerate(events):
        disk.replay(*event)
        if disk.marks is None:
            continue
        for image in disk.images(random):
            found = reopen(directory, image)
            allowed = expected[disk.marks : disk.marks + 2]
            assert found in allowed, f"seed {seed}, event {number}, {disk.marks} durable"
    assert disk.marks == commits


def reopen(directory: Path, image: bytearray) -> State:
    """Start on a disk as a power cut left it."""
    shutil.rmtree(directory, ignore_errors=True)
    data = directory / STORE_FOLDER / DATA_FILE
    data.parent.mkdir(parents=True)
    data.write_bytes(image)
    return held(open_environment(directory))
