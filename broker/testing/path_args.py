"""Arguments as people write them: paths as strings, and what is none in words."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TypeAlias

PathArgument: TypeAlias = "str | PathLike[str]"


def path_of(argument: str, value: PathArgument | None) -> Path | None:
    """Return `value` as a Path; None stays None.  Raises TypeError unless it is a str or
    PathLike."""
    if value is None:
        return None
    if not isinstance(value, str | PathLike):
        raise TypeError(f"{argument} is a path, not {value!r}")
    return Path(value)


def socket_path_of(value: PathArgument | None) -> Path | None:
    """Return an absolute path of a socket.  TypeError for what is meant as an address, and would
    be a file's name."""
    path = path_of("listen", value)
    if isinstance(value, str) and "/" not in value:
        raise TypeError(
            f"listen is the path of a unix socket, not {value!r}; without it a free port is taken"
        )
    return path and path.absolute()


def names_of(argument: str, value: Sequence[str]) -> tuple[str, ...]:
    """Return names as a list.  TypeError for a string, of which each letter would be one."""
    if isinstance(value, str):
        raise TypeError(f"{argument} are names: {argument}=[{value!r}], not {value!r}")
    return tuple(value)
