"""Errors of the disk.  Nothing here is retried; the texts say what to do."""

from pathlib import Path


class StorageError(Exception):
    """Failure of the store; after one from a commit, the node must end."""


class StoreInUse(StorageError):
    """Refusal to open a directory that another process works on."""

    def __init__(self, directory: Path, pid: int | None) -> None:
        holder = f"process {pid}" if pid is not None else "another process"
        super().__init__(f"{directory} is in use by {holder}; stop it, or choose another directory")
        self.pid = pid


class NewerFormat(StorageError):
    """Refusal to open a directory that was written by a later version."""

    def __init__(self, directory: Path, found: int, known: int) -> None:
        super().__init__(
            f"{directory} has format {found}; this version reads formats up to {known}. "
            "Use the version that wrote it, or a later one; nothing has been changed"
        )


class OlderFormat(StorageError):
    """Refusal to open for reading only a directory that was written by an earlier version."""

    def __init__(self, directory: Path, found: int, known: int) -> None:
        super().__init__(
            f"{directory} has format {found}; start a node of this version on it, which makes it "
            f"format {known}, or read it with the version that wrote it"
        )


class StoreMissing(StorageError):
    """Error for a directory that should hold a store and has none."""

    def __init__(self, directory: Path) -> None:
        super().__init__(f"{directory} holds no store")


class DiskFull(StorageError):
    """Failure of a commit for want of room in the map or the file system."""


class Corrupt(StorageError):
    """Damage: bytes on disk are not those that were written.  Says which and how; nothing is
    repaired."""

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
