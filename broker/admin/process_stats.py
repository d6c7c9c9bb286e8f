"""Figures of the operating system about this process: files, memory, threads, time."""

from __future__ import annotations

import gc
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

PROCESS = Path("/proc/self")
THREADS_MAX = Path("/proc/sys/kernel/threads-max")
NOTHING = ""
"""The name of memory that is of no file."""


def open_files(process: Path = PROCESS) -> int:
    """0 where the system does not tell.  Linux does from 6.2 on without listing them."""
    folder = process / "fd"
    try:
        return folder.stat().st_size or sum(1 for _ in folder.iterdir())
    except OSError:
        return 0


def open_files_max() -> int:
    """How many there may be."""
    limit, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit


def threads_max(file: Path = THREADS_MAX) -> int:
    """Of the machine; 0 where the system does not tell."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


def threads() -> int:
    """Those that Python knows of."""
    return threading.active_count()


def processors() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


def context_switches() -> int:
    """Since the process began."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_nvcsw + used.ru_nivcsw


def collections() -> int:
    """Of garbage, likewise."""
    return sum(each["collections"] for each in gc.get_stats())


def resident_by_file(process: Path = PROCESS) -> dict[str, int]:
    """Bytes that are in memory, by the file that they are of; of none: `NOTHING`."""
    found: dict[str, int] = {}
    try:
        lines = (process / "smaps").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return found
    for name, size_bytes in mappings(lines):
        found[name] = found.get(name, 0) + size_bytes
    return found


def mappings(lines: list[str]) -> Iterator[tuple[str, int]]:
    """The file of each, and how much of it is resident.  See proc(5)."""
    name = NOTHING
    for line in lines:
        first, _, rest = line.partition(" ")
        if not first.endswith(":"):
            *_, path = ["", *rest.split(None, 4)[4:]]
            name = path.strip() if path.strip().startswith("/") else NOTHING
        elif first == "Rss:":
            yield name, int(rest.split()[0]) * 1024
