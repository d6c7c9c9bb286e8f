"""Samples of the node while it is abused: memory, descriptors, threads, CPU, log."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
KEPT_LINES = 20


@dataclass(frozen=True, slots=True)
class Sample:
    """Sample of a process's resources."""

    resident_mib: float
    """Without pages of files, which are the system's to keep or to drop."""
    files: int
    threads: int
    cpu_s: float
    run_s: float
    """How long its first thread, which is that of the loop, has been running, …"""
    queued_s: float
    """… and how long it had to wait for a processor to do so."""


def look(pid: int) -> Sample:
    """Sample of a process, from /proc."""
    folder = Path(f"/proc/{pid}")
    status = dict(
        line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line
    )
    run_ns, queued_ns, _slices = map(int, (folder / "schedstat").read_text().split())
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return Sample(
        resident_mib=int(status["RssAnon"].split()[0]) / 1024,
        files=len(list((folder / "fd").iterdir())),
        threads=int(status["Threads"]),
        cpu_s=(int(fields[11]) + int(fields[12])) / TICKS_PER_S,
        run_s=run_ns / 1e9,
        queued_s=queued_ns / 1e9,
    )


@dataclass(slots=True)
class LogCount:
    """Counts of a node's log lines by event, and the worst of them."""

    levels: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    tracebacks: list[str] = field(default_factory=list)
    _awaited: str = ""
    _is_heard: Event = field(default_factory=Event)

    def listen_for(self, text: str) -> Event:
        """Set once a line that has `text` in it was counted, and all before it."""
        self._awaited, self._is_heard = text, Event()
        return self._is_heard

    def hear(self, line: str) -> None:
        """Count one line."""
        self._count(line)
        if self._awaited and self._awaited in line:
            self._is_heard.set()

    def _count(self, line: str) -> None:
        match = LINE.match(line)
        level, name = match.groups() if match else ("none", line.strip()[:60])
        self.levels[level] += 1
        if level != "info":
            self.events[name] += 1
        if "raceback" in line and len(self.tracebacks) < KEPT_LINES:
            self.tracebacks.append(line.strip())

    @property
    def complaints(self) -> int:
        """Lines that are more than a note."""
        return sum(count for level, count in self.levels.items() if level != "info")


LINE = re.compile(r"\S+ (debug|info|warning|error|critical) (\S+)")
"""`2026-01-31T12:00:00.000Z info ready node=…`."""
