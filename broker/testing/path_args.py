"""Arguments as people write them: paths as strings, and what is none in words."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TypeAlias

PathSaid: TypeAlias = "str | PathLike[str]"


def path_of(argument: str, said: PathSaid | None) -> Path | None:
    """Return `said` as a Path; None stays None.  Raises TypeError unless it is a str or
    PathLike."""
    if said is None:
        return None
    if not isinstance(said, str | PathLike):
        raise TypeError(f"{argument} is a path, not {said!r}")
    return Path(said)


def socket_path_of(said: PathSaid | None) -> Path | None:
    """Return an absolute path of a socket.  TypeError for what is meant as an address, and would
    be a file's name."""
    path = path_of("listen", said)
    if isinstance(said, str) and "/" not in said:
        raise TypeError(
            f"listen is the path of a unix socket, not {said!r}; without it a free port is taken"
        )
    return path and path.absolute()


def names_of(argument: str, said: Sequence[str]) -> tuple[str, ...]:
    """Return names as a list.  TypeError for a string, of which each letter would be one."""
    if isinstance(said, str):
        raise TypeError(f"{argument} are names: {argument}=[{said!r}], not {said!r}")
    return tuple(said)
