"""The YAML of our manifests: blocks of mappings and lists, plain and quoted scalars, `|` and `>-`.

Whatever else YAML has is refused, so that the manifests stay plain.
"""

from __future__ import annotations

import json
import re
from typing import Any

ENTRY = re.compile(r'([\w./-]+|"[^"]*"):(?: +(.*))?')
NUMBER = re.compile(r"-?\d+")


class NotPlain(Exception):
    """A line that is not read, and why."""


def documents(text: str) -> list[Any]:
    """Documents between lines of three dashes."""
    return [Reader(part).block(0) for part in re.split(r"^---$", text, flags=re.MULTILINE)]


class Reader:
    """Document read line by line."""

    def __init__(self, text: str) -> None:
        lines = enumerate(text.splitlines(), 1)
        self._lines = [
            (number, len(line) - len(line.lstrip()), line.strip())
            for number, line in lines
            if line.strip() and not line.strip().startswith("#")
        ]
        self._at = 0

    def block(self, indent: int) -> Any:
        """Value of the lines from here on that are indented by at least `indent`."""
        _number, own, line = self._lines[self._at]
        if own < indent:
            raise NotPlain(f"{line}: nothing is below it")
        return self._items(own) if line.startswith("- ") else self._mapping(own)

    def _peek(self, indent: int) -> str | None:
        """The line that is next, if it is indented by so much."""
        if self._at == len(self._lines):
            return None
        number, own, line = self._lines[self._at]
        if own > indent:
            raise NotPlain(f"line {number} is indented too much: {line}")
        return line if own == indent else None

    def _mapping(self, indent: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while (line := self._peek(indent)) is not None and not line.startswith("- "):
            entry = ENTRY.fullmatch(line)
            if entry is None or entry[1] in found:
                raise NotPlain(f"no key, or one that is there: {line}")
            self._at += 1
            found[entry[1].strip('"')] = self._value(entry[2], indent)
        return found

    def _items(self, indent: int) -> list[Any]:
        found = []
        while (line := self._peek(indent)) is not None and line.startswith("- "):
            inside = line.removeprefix("- ")
            if ENTRY.fullmatch(inside):
                number = self._lines[self._at][0]
                self._lines[self._at] = (number, indent + 2, inside)
                found.append(self._mapping(indent + 2))
            else:
                self._at += 1
                found.append(self._value(inside, indent))
        return found

    def _value(self, text: str | None, indent: int) -> Any:
        if not text:
            is_list = self._at < len(self._lines) and self._lines[self._at][2].startswith("- ")
            return self.block(indent if is_list else indent + 1)
        if text in {"|", ">-"}:
            lines = []
            while self._at < len(self._lines) and self._lines[self._at][1] > indent:
                lines.append(self._lines[self._at][2])
                self._at += 1
            return "\n".join(lines) + "\n" if text == "|" else " ".join(lines)
        return scalar(text)


def scalar(text: str) -> Any:
    """A value on one line."""
    if text[0] in "[{\"'":
        return json.loads(text)
    if text in {"true", "false"}:
        return text == "true"
    if NUMBER.fullmatch(text):
        return int(text)
    if text[0] in "&*!%@`|>" or ": " in text or " #" in text:
        raise NotPlain(f"this is more than plain: {text}")
    return text
