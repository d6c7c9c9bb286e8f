"""Mark of a file that sets it apart from every copy of it, whatever bytes are in both.

    birth time              where the file system has one (statx): no copy has that of its original
    inode and generation    where it tells generations, as to exporters of it

Both stay as they are when the machine starts anew, the disk is mounted elsewhere or gets another
device number; so the device is no part of it.  Nor is the inode alone: there are file systems that
give another each time they are mounted (FAT, some in user space).  Both are as they were when a
whole disk is put back, as from a snapshot of its blocks: that cannot be seen by the file.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from pathlib import Path
from typing import NamedTuple

NS_PER_S = 1_000_000_000

GET_GENERATION = 0x80087601
"""FS_IOC_GETVERSION (linux/fs.h), with a `long`, of which file systems write the lower half."""

HERE = -100
"""AT_FDCWD (linux/fcntl.h)."""
WANTS_BIRTH = 0x800
"""STATX_BTIME (linux/stat.h)."""
STATX_BYTES = 256
STATX_MASK = struct.Struct("=I")
STATX_BIRTH_AT = 80
STATX_BIRTH = struct.Struct("=qI")


class FileMark(NamedTuple):
    """Identity of a file, as far as its file system says."""

    birth_ns: int | None
    inode: int
    generation: int | None

    def is_other(self, file: FileMark) -> bool:
        """True if these are two files for certain: what only one of both says proves
        nothing."""
        if self.birth_ns is not None and file.birth_ns is not None:
            return self.birth_ns != file.birth_ns  # mutant: M50
        if self.generation is not None and file.generation is not None:
            return (self.inode, self.generation) != (file.inode, file.generation)
        return False

    @property
    def is_conclusive(self) -> bool:
        """True if a copy can be distinguished from this one at all."""
        return self.birth_ns is not None or self.generation is not None


def mark_of(path: Path) -> FileMark | None:
    """Return the mark of a file; None if there is no file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        found = os.fstat(file)
        return FileMark(_birth_ns(path, found), found.st_ino, _generation(file))
    finally:
        os.close(file)


def _birth_ns(path: Path, found: os.stat_result) -> int | None:
    """Return when the file was made, which nothing can change."""
    birth_s = getattr(found, "st_birthtime", None)
    if birth_s is not None:
        return int(birth_s * NS_PER_S)
    import ctypes  # noqa: PLC0415  slow to import, and not wanted in every process

    statx = getattr(ctypes.CDLL(None), "statx", None)
    if statx is None:
        return None
    answer = ctypes.create_string_buffer(STATX_BYTES)
    if statx(HERE, os.fsencode(path), 0, WANTS_BIRTH, answer) != 0:
        return None
    (given,) = STATX_MASK.unpack_from(answer)
    seconds, nanoseconds = STATX_BIRTH.unpack_from(answer, STATX_BIRTH_AT)
    return seconds * NS_PER_S + nanoseconds if given & WANTS_BIRTH else None


def _generation(file: int) -> int | None:
    """Return how often its inode was given to a file, or a number drawn then."""
    try:
        answer = fcntl.ioctl(file, GET_GENERATION, bytes(8))
    except OSError:
        return None
    return int.from_bytes(answer[:4], sys.byteorder)
