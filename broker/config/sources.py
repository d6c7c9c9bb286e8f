"""Where the values of options stand: what is the same for all files, and the TOML file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from fluffle.broker.config.option_table import OPTIONS


class OptionError(Exception):
    """Error in the value of an option, as a sentence for the person who gave it."""


@dataclass(frozen=True, slots=True)
class OptionTexts:
    """Texts that were given for an option, and their source in words."""

    texts: Sequence[str]
    source: str


@dataclass(frozen=True, slots=True)
class Remark:
    """Note on a setting that was given and has no effect."""

    source: str
    reason: str


def from_toml(path: Path) -> dict[str, OptionTexts]:
    """Read the options of a TOML file.  Its path is absolute, to be found from the log."""
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise OptionError(f"cannot read the configuration file {path}: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise OptionError(f"{path} is not a TOML file: {error}") from error
    given = {}
    for key, value in content.items():
        source = f"{path}:{_line_of(key, text)}: {key}"
        given[key] = OptionTexts(_texts(source, key, value), source)
    return given


def _line_of(key: str, text: str) -> int:
    """Return the line of a key at the top of a TOML file; what is written oddly is on the first
    line."""
    found = re.search(rf"^\s*[\[\"']*{re.escape(key)}\b", text, re.MULTILINE)
    return text.count("\n", 0, found.end()) + 1 if found else 1


def _texts(source: str, key: str, value: object) -> list[str]:
    """Return the value of a key as the texts it would be on the command line."""
    if key not in OPTIONS:
        near = get_close_matches(key, OPTIONS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(OPTIONS)}"
        raise OptionError(f"{source}: there is no such option; {hint}")
    values = value if isinstance(value, list) and OPTIONS[key].collect else [value]
    if OPTIONS[key].is_switch and isinstance(value, bool):
        return [str(value)]
    if any(isinstance(item, bool) or not isinstance(item, str | int | float) for item in values):
        raise OptionError(f'{source}: write a string, such as {key} = "…"')
    return [str(item) for item in values]
