"""A file system that can be filled: root may mount one in memory."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FILLER = "filler"
CHUNK_BYTES = 1 << 20


class NoDisk(Exception):
    """Reason why no small disk can be made here."""


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[None]:
    """An empty one in this folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or mount is None or umount is None:
        raise NoDisk("only root may mount a file system")
    command = [mount, "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise NoDisk(f"a file system cannot be mounted: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run([umount, "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Leave nothing."""
    for size in (CHUNK_BYTES, 4096):
        with suppress(OSError), (disk / FILLER).open("ab", buffering=0) as filler:
            while filler.write(bytes(size)) == size:
                pass


def free(disk: Path) -> None:
    """The opposite."""
    (disk / FILLER).unlink(missing_ok=True)
