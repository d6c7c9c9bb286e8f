"""What becomes of a whole rabbitmq.conf: a verdict on each line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import NamedTuple

from fluffle.broker.config.rabbitmq_conf import client_rules, http_rules, node_rules
from fluffle.broker.config.rabbitmq_conf.parser import ConfError, ConfLine, Key, read
from fluffle.broker.config.rabbitmq_conf.verdicts import (
    ConfSettings,
    RefusedSetting,
    Rule,
    Rules,
    Verdict,
)

RULES: Rules = {**client_rules.RULES, **node_rules.RULES, **http_rules.RULES}
ADVANCED = "advanced.config"
ENCRYPTED = "encrypted:"
"""What a value begins with that RabbitMQ decrypts."""
EMPTY_ADVANCED = re.compile(r"(?:%.*|\s)*(?:\[\s*(?:%.*|\s)*\]\s*\.)?(?:%.*|\s)*")


class LineVerdict(NamedTuple):
    setting: ConfLine
    verdict: Verdict


def line_verdicts(path: Path, environment: Mapping[str, str]) -> list[LineVerdict]:
    """Every setting of a file and those beside it, in their order.  ConfError."""
    check_advanced(path)
    return list(judgements(ConfSettings(read(path, environment), environment)))


def judgements(conf: ConfSettings) -> Iterator[LineVerdict]:
    for setting in conf.settings.values():
        rule = unreadable if setting.value.startswith(ENCRYPTED) else rule_for(setting.key)
        yield LineVerdict(setting, rule(conf, setting))


def unreadable(_conf: ConfSettings, _setting: ConfLine) -> Verdict:
    """What would be taken for the value itself."""
    return RefusedSetting("encrypted values are not read; write $(NAME), and set that variable")


def rule_for(key: Key) -> Rule:
    """The rule of a key; of one that RabbitMQ does not know either, a guess at what was meant."""
    joined = "\0".join(key)
    for pattern, rule in patterns():
        if pattern.fullmatch(joined):
            return rule
    return unknown


@cache
def patterns() -> list[tuple[re.Pattern[str], Rule]]:
    """Whole names before those with gaps, and longer ones before shorter ones."""
    order = sorted(RULES, key=lambda name: ("**" in name, "$" in name, -name.count(".")))
    return [(pattern_of(name), RULES[name]) for name in order]


def pattern_of(name: str) -> re.Pattern[str]:
    parts = {"$": "[^\\0]+", "**": ".+"}
    return re.compile("\0".join(parts.get(part, re.escape(part)) for part in name.split(".")))


def unknown(_conf: ConfSettings, setting: ConfLine) -> Verdict:
    near = get_close_matches(setting.name, (name for name in RULES if "**" not in name), n=1)
    hint = f"; did you mean {near[0]}?" if near else "; take it out"
    return RefusedSetting(f"RabbitMQ has no such key{hint}")


def check_advanced(path: Path) -> None:
    """Erlang terms cannot be read: what they say would be lost.  ConfError."""
    file = (path if path.is_dir() else path.parent) / ADVANCED
    if file.is_file() and not EMPTY_ADVANCED.fullmatch(file.read_text(errors="replace")):
        raise ConfError(
            f"cannot read {file}; say in {path.name} or in options what it says, and move it away"
        )
