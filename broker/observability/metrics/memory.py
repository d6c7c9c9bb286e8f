"""GET /metrics/memory-breakdown: what the memory of a node is used for, as far as anybody counts.

Of RabbitMQ's names there is what every allocator has; the rest are parts of Erlang's machine.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric

from fluffle.broker.observability.metrics.families import gauge, labelled

STATUS = Path("/proc/self/status")
KINDS = {"Anon": "own", "File": "mapped", "Shmem": "shared"}
"""What Linux calls resident pages, and what they are: of the process, of files, of several."""


class Mallinfo2(ctypes.Structure):
    """glibc's, since 2.33."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
            "fordblks", "keepcost",
        )
    )  # fmt: skip


def memory_metrics() -> Iterator[Metric]:
    resident = GaugeMetricFamily("fluffle_memory_resident_bytes", "Resident memory, by what it is")
    for kind, size_bytes in resident_kinds().items():
        labelled(resident, size_bytes, kind=kind)
    yield resident
    unused_bytes = allocated_unused_bytes()
    if unused_bytes is not None:
        text = "Runtime allocated but unused blocks size in bytes"
        yield gauge("memory_runtime_allocated_unused_bytes", text, unused_bytes)


def resident_kinds() -> dict[str, int]:
    """Nothing where the system does not tell."""
    if not STATUS.exists():
        return {}
    found = re.findall(r"^Rss(\w+):\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    return {KINDS[name]: int(size_kb) * 1024 for name, size_kb in found if name in KINDS}


def allocated_unused_bytes() -> int | None:
    """What the allocator keeps of what was given back; None where it does not tell."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        return None
    ask.restype = Mallinfo2
    return int(ask().fordblks)
