"""Where a node is administered: a socket in its data directory, for its owner alone.

A socket's path may have about a hundred bytes, a directory's thousands: a longer one is reached
through the open directory.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOCKET_NAME = "control.sock"
PATH_BYTES_MAX = 103
"""Of `sockaddr_un` on the systems there are, without the NUL at the end; Linux has 107."""
OPEN_FILES = Path("/proc/self/fd")


@contextmanager
def control_address(data_dir: Path) -> Iterator[str]:
    """What to bind or connect to, while this lasts.

    OSError when the directory cannot be opened, or its path is too long on a system without /proc.
    """
    path = data_dir / SOCKET_NAME
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        yield str(path)
        return
    if not OPEN_FILES.exists():
        raise OSError(f"the path is too long for a socket, {PATH_BYTES_MAX} bytes at most")
    directory = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield str(OPEN_FILES / str(directory) / SOCKET_NAME)
    finally:
        os.close(directory)
