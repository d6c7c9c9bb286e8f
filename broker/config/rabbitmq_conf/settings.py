"""Settings of a rabbitmq.conf: how its text is read, and what a rule says of each of them.

The text is `a.b.c = value` on each line, as cuttlefish reads it.  A `#` begins a comment wherever
it stands, but in a value between single quotes.  A dot behind a backslash is some of a name.
`$(NAME)` is the value of a key, or of a variable of the environment.  Of a key that is set twice
the last one counts.  Beside the file is its directory `conf.d`, whose files come behind it, by
name.

A rule looks at one setting, and at others where several make one option.  Its verdict is options in
the place of the setting, or that it is ignored or refused, and why.  It is refused what we would be
less safe without than RabbitMQ is with it: who may log in, what is encrypted and checked, where
nodes find each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

Key: TypeAlias = tuple[str, ...]
"""The names between the dots."""

DIRECTORY = "conf.d"
LINE = re.compile(
    r"\s*(?P<key>(?:[\w-]|\\.|\.)+)\s*=\s*(?:'(?P<quoted>[^']*)'|(?P<plain>[^#\n]*?))\s*(?:#.*)?"
)
SUBSTITUTED = re.compile(r"\$\(([^()]+)\)")
DEPTH_MAX = 10
"""Depth of values that name others: more is a circle."""


class ConfError(Exception):
    """Error in a rabbitmq.conf, as a sentence with its file and line."""


@dataclass(frozen=True, slots=True)
class ConfLine:
    """A line of a rabbitmq.conf: key, value and place."""

    key: Key
    value: str
    file: Path
    line: int

    @property
    def name(self) -> str:
        """Key of the setting as it is written."""
        return ".".join(part.replace(".", "\\.") for part in self.key)

    @property
    def source(self) -> str:
        """File and line of the setting, for messages."""
        return f"{self.file}:{self.line}: {self.name}"


def read(path: Path, environment: Mapping[str, str]) -> Mapping[Key, ConfLine]:
    """Read the settings of a file and those beside it, or of a directory.  ConfError."""
    settings: dict[Key, ConfLine] = {}
    for file in files_of(path):
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise ConfError(f"cannot read the configuration file {file}: {reason}") from error
        for setting in lines_of(text, file):
            settings.pop(setting.key, None)  # its place is that of the last
            settings[setting.key] = setting
    return {key: substituted(each, settings, environment) for key, each in settings.items()}


def files_of(path: Path) -> list[Path]:
    """Return the files in the order in which they count.  ConfError for a directory without any."""
    if path.is_dir():
        if files := sorted(path.glob("*.conf")):
            return files
        raise ConfError(f"there is no file in the directory {path} whose name ends with .conf")
    return [path, *sorted((path.parent / DIRECTORY).glob("*.conf"))]


def lines_of(text: str, file: Path) -> Iterator[ConfLine]:
    """Parse the settings of one text.  ConfError."""
    for number, line in enumerate(text.split("\n"), 1):
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        if bare.startswith("include "):
            raise ConfError(
                f"{file}:{number}: cannot include files; put them into {DIRECTORY} beside this one"
            )
        found = LINE.fullmatch(line)
        if found is None or not key_of(found["key"]):
            raise ConfError(f"{file}:{number}: cannot read this line; write a.key = value")
        value = found["quoted"] if found["quoted"] is not None else found["plain"].strip()
        if not value and found["quoted"] is None:
            raise ConfError(f"{file}:{number}: there is no value; write one, or '' for none")
        yield ConfLine(key_of(found["key"]), value, file, number)


def key_of(text: str) -> Key:
    """Split a key into its names; none if there is an empty one."""
    parts = re.split(r"(?<!\\)\.", text)
    return tuple(part.replace("\\.", ".") for part in parts) if all(parts) else ()


def substituted(
    setting: ConfLine, settings: Mapping[Key, ConfLine], environment: Mapping[str, str]
) -> ConfLine:
    """Return a line with the variables that its value names replaced.  ConfError for one that is
    not there."""
    value = setting.value
    for _ in range(DEPTH_MAX):
        found = SUBSTITUTED.search(value)
        if found is None:
            return replace(setting, value=value)
        named = settings.get(key_of(found[1].strip()))
        text = named.value if named is not None else environment.get(found[1].strip())
        if text is None:
            raise ConfError(
                f"{setting.source}: there is neither a key nor a variable '{found[1]}'; set it"
            )
        value = value[: found.start()] + text + value[found.end() :]
    raise ConfError(f"{setting.source}: its value names itself; write what it is")


@dataclass(frozen=True, slots=True)
class MappedSetting:
    """A setting with options in its place: the texts of each, by name.  None: it is so here
    anyway."""

    options: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IgnoredSetting:
    """A setting without effect here, and the reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class RefusedSetting:
    """A setting that keeps a node from starting; the reason says what to do."""

    reason: str


Verdict: TypeAlias = MappedSetting | IgnoredSetting | RefusedSetting


@dataclass(frozen=True, slots=True)
class ConfSettings:
    """All settings of a rabbitmq.conf, and the environment."""

    settings: Mapping[Key, ConfLine]
    environment: Mapping[str, str] = field(default_factory=dict)

    def value(self, name: str, default: str = "") -> str:
        """Return the value of the key with this name."""
        setting = self.settings.get(tuple(name.split(".")))
        return default if setting is None else setting.value

    def below(self, name: str) -> dict[str, str]:
        """Return the values of keys with one name more, by that name."""
        parts = tuple(name.split("."))
        return {
            key[-1]: setting.value for key, setting in self.settings.items() if key[:-1] == parts
        }

    def beside(self, setting: ConfLine) -> dict[str, str]:
        """Return the values of keys that differ in their last name alone, by that name."""
        return {
            key[-1]: each.value
            for key, each in self.settings.items()
            if key[:-1] == setting.key[:-1] and len(key) == len(setting.key)
        }

    def has(self, prefix: str) -> bool:
        """True if there is any key below a name."""
        parts = tuple(prefix.split("."))
        return any(key[: len(parts)] == parts for key in self.settings)


Rule: TypeAlias = Callable[[ConfSettings, ConfLine], Verdict]
Rules: TypeAlias = Mapping[str, Rule]
"""Rules by names of keys: `$` stands for any one name, `**` at the end for any rest."""

TRUE, FALSE = "true", "false"


def mapped(**options: str) -> MappedSetting:
    """Map a setting to one text for each option; `_` stands for `-`."""
    return MappedSetting({name.replace("_", "-"): (text,) for name, text in options.items()})


def to(option: str) -> Rule:
    """Return a rule that gives the value to an option."""
    return lambda _conf, setting: MappedSetting({option: (setting.value,)})


def by_word(option: str, words: Mapping[str, str]) -> Rule:
    """Return a rule that translates each word for an option, and refuses others."""

    def rule(_conf: ConfSettings, setting: ConfLine) -> Verdict:
        if setting.value not in words:
            return RefusedSetting(f"there is no '{setting.value}'; write {' or '.join(words)}")
        return MappedSetting({option: (words[setting.value],)})

    return rule


def ignored(reason: str) -> Rule:
    """Return a rule that ignores a setting, whatever its value."""
    return lambda _conf, _setting: IgnoredSetting(reason)


def refused(reason: str) -> Rule:
    """Return a rule that refuses a setting, whatever its value."""
    return lambda _conf, _setting: RefusedSetting(reason)


def refused_unless(kept: Sequence[str], reason: str) -> Rule:
    """Return a rule that accepts values for what is done anyway, and refuses all others."""
    return lambda _conf, setting: (
        MappedSetting() if setting.value in kept else RefusedSetting(reason)
    )


def ignored_unless(kept: Sequence[str], reason: str) -> Rule:
    """Return a rule that accepts values for what is done anyway, and ignores all others."""
    return lambda _conf, setting: (
        MappedSetting() if setting.value in kept else IgnoredSetting(reason)
    )


def each(names: str, rule: Rule, below: str = "") -> Rules:
    """Return one rule for many keys, whose names have spaces between them."""
    return {below + name: rule for name in names.split()}
