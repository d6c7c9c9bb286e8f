"""Files of a data directory that concern processes: the lock, `node.json` and the control
socket."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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


NODE_FILE = "node.json"


def write_node_file(
    file: Path, node_name: str, version: str, addresses: Mapping[str, tuple[str, int]]
) -> None:
    """Say it of this process, at once or not at all, to the owner alone.  OSError."""
    content = {"node": node_name, "pid": os.getpid(), "addresses": addresses, "version": version}
    draft = file.with_suffix(".tmp")
    draft.unlink(missing_ok=True)
    draft.touch(0o600)
    draft.write_text(json.dumps(content) + "\n", encoding="utf-8")
    draft.replace(file)


def node_pid(file: Path) -> int | None:
    """Return the process that wrote a node file; None where none did, or it is not for us to
    read."""
    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


SOCKET_NAME = "control.sock"
PATH_BYTES_MAX = 103
"""Most bytes of a path in `sockaddr_un` on common systems, without the NUL at the end; Linux has
107."""
OPEN_FILES = Path("/proc/self/fd")


@contextmanager
def control_address(data_dir: Path) -> Iterator[str]:
    """Return the address of the control socket to bind or connect to, while this lasts.

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
