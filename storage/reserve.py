"""Reserve file beside the store that takes room, to be given up when nothing else is free.

Others fill a disk, too, and an acknowledgement is written like everything else: without a reserve
no consumer could empty a node whose disk is full, nor start it again.

    DIR/reserve    its bytes mean nothing
"""

import os
from contextlib import suppress
from pathlib import Path

RESERVE_FILE = "reserve"

RESERVED_BYTES = 1 << 24
"""A hundred thousand messages can be acknowledged one by one in less."""

LOW_BYTES = 1 << 23
"""A commit may take so much, if it is large."""


def free_bytes(folder: Path | str) -> int:
    """Return what this process may still write there.  OSError."""
    system = os.statvfs(folder)
    return system.f_bavail * system.f_frsize


def give_up_if_low(directory: Path | str) -> int:
    """Let the next commit have the room of the reserve if there may be no other.

    Returns how much was free.  OSError.
    """
    free = free_bytes(directory)
    if free < LOW_BYTES:
        give_up(directory)
    return free


def give_up(directory: Path | str) -> None:
    """Free the room of the reserve.  OSError."""
    (Path(directory) / RESERVE_FILE).unlink(missing_ok=True)


def keep(directory: Path) -> None:
    """Have a reserve; where the room cannot be taken there is none, and commits fail earlier."""
    file = directory / RESERVE_FILE
    with suppress(FileNotFoundError):
        if file.stat().st_size == RESERVED_BYTES:
            return
    with suppress(OSError):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, RESERVED_BYTES)
        finally:
            os.close(descriptor)
