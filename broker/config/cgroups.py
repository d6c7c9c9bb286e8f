"""How much memory the control groups of this process allow it (Linux; elsewhere there are none).

A group may use no more than any group above it, so that the smallest limit on the way up counts.
"""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
V2 = ("sys/fs/cgroup", "memory.max")
V1 = ("sys/fs/cgroup/memory", "memory.limit_in_bytes")


def memory_limits(root: Path = ROOT) -> Iterator[int]:
    """The limits in bytes of the groups of this process and of all above them, where they have one.

    In a container a group's path may lie outside of what can be seen: then its own root counts.
    """
    for line in lines(root / "proc/self/cgroup"):
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        tree, name = V1 if controllers else V2
        path = Path(group.lstrip("/"))
        for above in (path, *path.parents):
            limit = lines(root / tree / above / name)
            yield from map(int, filter(str.isdecimal, limit))  # `max` is none


def lines(file: Path) -> list[str]:
    """Of a file of the kernel's; none where it is not there."""
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
