"""Errors of the disk.  Nothing here is retried; the texts say what to do."""

from pathlib import Path


class StorageError(Exception):
    """The store cannot do what it was asked; after one from a commit, the node must end."""


class StoreInUse(StorageError):
    """Another process works on the same directory."""

    def __init__(self, directory: Path, pid: int | None) -> None:
        who = f"process {pid}" if pid is not None else "another process"
        super().__init__(f"{directory} is in use by {who}; stop it, or choose another directory")
        self.pid = pid


class NewerFormat(StorageError):
    """The directory was written by a later version."""

    def __init__(self, directory: Path, found: int, known: int) -> None:
        super().__init__(
            f"{directory} has format {found}; this version reads formats up to {known}. "
            "Use the version that wrote it, or a later one; nothing has been changed"
        )


class OlderFormat(StorageError):
    """The directory was written by an earlier version, and is opened for reading only."""

    def __init__(self, directory: Path, found: int, known: int) -> None:
        super().__init__(
            f"{directory} has format {found}; start a node of this version on it, which makes it "
            f"format {known}, or read it with the version that wrote it"
        )


class StoreMissing(StorageError):
    """There is no store in a directory that should hold one."""

    def __init__(self, directory: Path) -> None:
        super().__init__(f"{directory} holds no store")


class DiskFull(StorageError):
    """The map or the file system has no room for a commit."""


class Corrupt(StorageError):
    """Bytes on disk are not those that were written.  Says which and how; nothing is repaired."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"corrupt: {where}: {what}")
        self.where = where
        self.what = what


class CorruptEntry(Corrupt):
    """Damage to an entry of a log whose group and index are known."""

    def __init__(self, where: str, what: str, group: int, index: int) -> None:
        super().__init__(where, what)
        self.group = group
        self.index = index
