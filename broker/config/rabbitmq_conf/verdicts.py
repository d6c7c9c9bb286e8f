"""Verdicts on settings of a rabbitmq.conf: options in their place, ignored or refused, and why.

A rule looks at one setting, and at others where several make one option.  It is refused what we
would be less safe without than RabbitMQ is with it: who may log in, what is encrypted and checked,
where nodes find each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from fluffle.broker.config.rabbitmq_conf.parser import ConfLine, Key


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
