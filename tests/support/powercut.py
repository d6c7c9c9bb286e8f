"""The disk after a power cut, at every moment of a process's life, or when it is killed.

What a process does to the file of its store is recorded by a library that is preloaded into it.
Replayed event by event it says what could be left at each: what was synced is there; of what was
not some sectors are, some are not.  For processes that run for long another library keeps the least
that a cut would leave now, in a file beside.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import merge
from pathlib import Path
from random import Random
from struct import Struct
from typing import NamedTuple

from tests.support.require import require

RECORDER = Path(__file__).with_name("recorder.c")
FORGETFUL = Path(__file__).with_name("forgetful.c")
EVENT = Struct(">cQQQ")
SECTOR_BYTES = 512
"""Bytes that a disk writes whole or not at all."""


class Noted(NamedTuple):
    """Event of a recording; the kinds are listed in `recorder.c`."""

    kind: bytes
    at_ns: int
    offset: int
    """Or the port of the other end."""
    content: bytes
    length: int


def preloaded(source: Path, folder: Path) -> str:
    """Compile a library that can be preloaded into a process; its path."""
    library = folder / source.with_suffix(".so").name
    compile_it = [require("cc"), "-shared", "-fPIC", "-O1", "-o", str(library), str(source)]
    subprocess.run(compile_it, check=True)
    return str(library)


def recording_environment(folder: Path, trace: Path) -> dict[str, str]:
    """The variables that make a process note in `trace` what it does."""
    return {"LD_PRELOAD": preloaded(RECORDER, folder), "RECORDER_TRACE": str(trace)}


def forgetting_environment(folder: Path, synced: Path, sync_ms: int) -> dict[str, str]:
    """The variables that make a process keep in `synced` what a power cut would leave at least."""
    return {
        "LD_PRELOAD": preloaded(FORGETFUL, folder),
        "FORGETFUL_SYNCED": str(synced),
        "FORGETFUL_SYNC_MS": str(sync_ms),
    }


def cut_power(data: Path, synced: Path, random: Random) -> None:
    """Make the file as a cut leaves it: without what was not synced, or with some of that.

    Its process is gone.  A file that was never there stays so.
    """
    if not data.exists():
        return
    written, image = data.read_bytes(), bytearray(synced.read_bytes())
    share = random.choice((0.0, 0.5))
    for at in range(0, len(written), SECTOR_BYTES):
        sector = written[at : at + SECTOR_BYTES]
        if sector != image[at : at + SECTOR_BYTES] and random.random() < share:
            write(image, at, sector)
    for file in (data, synced):
        file.write_bytes(image)


def read_trace(trace: Path) -> list[Noted]:
    """Events in order; one that was cut short by a kill is left out."""
    events, data, at = [], trace.read_bytes(), 0
    while at + EVENT.size <= len(data):
        kind, at_ns, offset, length = EVENT.unpack_from(data, at)
        at += EVENT.size
        size = 0 if kind == b"R" else length
        if at + size > len(data):
            break
        events.append(Noted(kind, at_ns, offset, data[at : at + size], length))
        at += size
    return events


def read_traces(traces: Mapping[str, Path]) -> Iterator[tuple[str, Noted]]:
    """Events of several processes, in one order in which nothing comes before its cause."""
    reported = ([(node, event) for event in read_trace(trace)] for node, trace in traces.items())
    return merge(*reported, key=lambda each: each[1].at_ns)


@dataclass(slots=True)
class PowerCut:
    """A disk that is replayed event by event, and what could be left of it at each."""

    synced: bytearray = field(default_factory=bytearray)
    unsynced: list[tuple[int, bytes]] = field(default_factory=list)

    def replay(self, event: Noted) -> None:
        if event.kind == b"W":
            self.unsynced.append((event.offset, event.content))
        elif event.kind == b"D":
            write(self.synced, event.offset, event.content)
        elif event.kind == b"S":
            for earlier in self.unsynced:
                write(self.synced, *earlier)
            self.unsynced.clear()

    def whole(self) -> bytearray:
        """All that was written: what a process finds that was only killed."""
        image = bytearray(self.synced)
        for offset, content in self.unsynced:
            write(image, offset, content)
        return image

    def images(self, random: Random) -> list[bytearray]:
        """Nothing unsynced is there, all of it is, some sectors are."""
        lost, kept, torn = bytearray(self.synced), self.whole(), bytearray(self.synced)
        if not self.unsynced:
            return [lost]
        for offset, content in self.unsynced:
            for at in range(0, len(content), SECTOR_BYTES):
                if random.random() < 0.5:
                    write(torn, offset + at, content[at : at + SECTOR_BYTES])
        return [lost, kept, torn]


def write(image: bytearray, offset: int, content: bytes) -> None:
    if len(image) < offset:
        image.extend(bytes(offset - len(image)))
    image[offset : offset + len(content)] = content
