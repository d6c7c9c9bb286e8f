"""Properties of the machine, pinning to cores, and what processes cost (Linux /proc)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

Cores = frozenset[int]


@dataclass(frozen=True, slots=True)
class Placement:
    """The cores of a broker and of the load against it."""

    broker: Cores
    load: Cores


def placements(*, pin_rabbitmq: bool) -> dict[str, Placement]:
    """Where each broker and its load run.

    fluffle gets one core and the load another.  RabbitMQ, which has a scheduler for every
    core, gets the whole machine together with its load unless it is to be pinned as well.  So does
    a cluster of either.  On a machine of one core everybody shares it.
    """
    everything = sorted(os.sched_getaffinity(0))
    shared = Placement(Cores(everything), Cores(everything))
    apart = Placement(Cores(everything[:1]), Cores(everything[1:2] or everything))
    return {
        "fluffle": apart,
        "former-fluffle": apart,
        "rabbitmq": apart if pin_rabbitmq else shared,
        "three-fluffles": shared,
        "former-three-fluffles": shared,
        "three-rabbits": shared,
    }


@contextmanager
def pinned(cores: Cores) -> Iterator[None]:
    """Processes started inside run on `cores` only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def family(pid: int) -> list[int]:
    """`pid` and its descendants."""
    children = (PROC / f"{pid}/task").glob("*/children")
    found = [int(child) for file in children for child in file.read_text().split()]
    return [pid, *(descendant for child in found for descendant in family(child))]


def cpu_s(pids: list[int]) -> float:
    """User and system seconds that `pids` have used so far."""
    ticks = 0
    for pid in pids:
        # utime and stime are fields 14 and 15; the command name before them may hold spaces.
        fields = (PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / CLOCK_TICKS_PER_S


def rss_bytes(pids: list[int]) -> int:
    return sum(int((PROC / f"{pid}/statm").read_text().split()[1]) for pid in pids) * PAGE_BYTES


def anonymous_bytes(pids: list[int]) -> int:
    """Memory of `pids` that is theirs alone, without the pages of files they have mapped."""
    statuses = ((PROC / f"{pid}/status").read_text() for pid in pids)
    return sum(int(status.partition("RssAnon:")[2].split()[0]) for status in statuses) * 1024


def written_bytes(pids: list[int]) -> int:
    """Bytes that `pids` have written to disk so far."""
    fields = ((PROC / f"{pid}/io").read_text() for pid in pids)
    return sum(int(text.partition("\nwrite_bytes:")[2].split()[0]) for text in fields)


def machine_class() -> dict[str, str | int]:
    """The kind of machine; nothing that would name this one."""
    models = [
        line.partition(":")[2].strip()
        for line in (PROC / "cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * PAGE_BYTES
    return {
        "cpu": models[0] if models else os.uname().machine,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_bytes / 2**30),
        "system": os.uname().sysname,
    }
