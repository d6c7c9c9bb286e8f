"""How far long work is, at a terminal: a line that is written over, and gone at the end."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

import click

WIDTH = 30
ERASE_LINE = "\r\x1b[K"


class Progress:
    """A bar on standard error; nothing where that is no terminal."""

    __slots__ = ("_is_shown", "_percent", "_unit")

    def __init__(self, unit: str) -> None:
        """`unit` is done to those that are counted: moved, imported."""
        self._unit = unit
        self._is_shown = sys.stderr.isatty()
        self._percent = -1

    def at(self, done: int, total: int) -> None:
        """Show that so many of so many are done."""
        percent = min(100, 100 * done // total) if total else 100
        if not self._is_shown or percent == self._percent:
            return
        self._percent = percent
        filled = WIDTH * percent // 100
        bar = "#" * filled + "." * (WIDTH - filled)
        text = f"{ERASE_LINE}[{bar}] {percent:3} %  {done} of {total} {self._unit}"
        click.echo(text, nl=False, err=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        if self._percent >= 0:
            click.echo(ERASE_LINE, nl=False, err=True)
