"""A lock between processes, on a file: one node a data directory.

The kernel lets go of it when its holder ends, however it ends, so a lock is never stale.  The file
itself stays: if it were removed, two processes could each lock a file of that name.
"""

import fcntl
from pathlib import Path
from typing import BinaryIO

LOCK_FILE = "lock"
"""The one of a data directory, in it."""


def lock(path: Path) -> BinaryIO:
    """Lock a file, which is made if need be, until what is returned is closed.

    BlockingIOError when another process (or another call) holds the lock, OSError when the file
    cannot be made or its file system has no locks.
    """
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file
