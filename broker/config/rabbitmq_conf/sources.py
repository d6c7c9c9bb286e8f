"""Options that RabbitMQ's file and variables stand for, with a verdict on each line.

Containers and scripts set the variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import NamedTuple

from fluffle.broker.config.config import AMQP_PORT
from fluffle.broker.config.option_table import OPTIONS
from fluffle.broker.config.option_values import OptionError, OptionTexts, Remark
from fluffle.broker.config.rabbitmq_conf import client_rules, node_rules
from fluffle.broker.config.rabbitmq_conf.client_rules import MQTT_PORT, WS_PORT
from fluffle.broker.config.rabbitmq_conf.node_rules import (
    LEVELS,
    MANAGEMENT,
    METRICS,
    PORTS,
    own_name,
)
from fluffle.broker.config.rabbitmq_conf.settings import (
    ConfError,
    ConfLine,
    ConfSettings,
    IgnoredSetting,
    Key,
    MappedSetting,
    RefusedSetting,
    Rule,
    Rules,
    Verdict,
    read,
)

RULES: Rules = {
    **client_rules.RULES,
    **node_rules.RULES,
    **client_rules.MQTT_RULES,
    **node_rules.SERVED_RULES,
}
ADVANCED = "advanced.config"
ENCRYPTED = "encrypted:"
"""Prefix of a value that RabbitMQ decrypts."""
EMPTY_ADVANCED = re.compile(r"(?:%.*|\s)*(?:\[\s*(?:%.*|\s)*\]\s*\.)?(?:%.*|\s)*")


class LineVerdict(NamedTuple):
    setting: ConfLine
    verdict: Verdict


def line_verdicts(path: Path, environment: Mapping[str, str]) -> list[LineVerdict]:
    """Return the verdict on every setting of a file and those beside it, in their order.
    ConfError."""
    check_advanced(path)
    return list(judgements(ConfSettings(read(path, environment), environment)))


def judgements(conf: ConfSettings) -> Iterator[LineVerdict]:
    for setting in conf.settings.values():
        rule = unreadable if setting.value.startswith(ENCRYPTED) else rule_for(setting.key)
        yield LineVerdict(setting, rule(conf, setting))


def unreadable(_conf: ConfSettings, _setting: ConfLine) -> Verdict:
    """Return a verdict on a value that would be taken for something else, such as an encrypted
    one."""
    return RefusedSetting("encrypted values are not read; write $(NAME), and set that variable")


def rule_for(key: Key) -> Rule:
    """Return the rule of a key; of one that RabbitMQ does not know either, a guess at what was
    meant."""
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


CONFIG_FILE = "RABBITMQ_CONFIG_FILE"
PLUGINS_FILE = "RABBITMQ_ENABLED_PLUGINS_FILE"

SECRET = re.compile(r"pass(?:word)?$|secret|token|access_key")
"""In the last name of a key."""

VARIABLES: Mapping[str, str] = {
    "RABBITMQ_DEFAULT_USER": "default-user",
    "RABBITMQ_DEFAULT_PASS": "default-password",
    "RABBITMQ_DEFAULT_VHOST": "default-vhost",
    "RABBITMQ_ERLANG_COOKIE": "cluster-secret",
    "RABBITMQ_PRODUCT_NAME": "product",
    "RABBITMQ_PRODUCT_VERSION": "product-version",
}
"""The option of each whose value it is."""

PLUGINS: Mapping[str, Mapping[str, str]] = {
    "rabbitmq_management": {MANAGEMENT: f":{PORTS[MANAGEMENT]}"},
    "rabbitmq_prometheus": {METRICS: f":{PORTS[METRICS]}"},
    "rabbitmq_event_exchange": {"event-exchange": "yes"},
    "rabbitmq_mqtt": {"mqtt": f":{MQTT_PORT}"},
    "rabbitmq_web_mqtt": {"mqtt": f":{MQTT_PORT}", "mqtt-ws": f":{WS_PORT}"},
}
"""Options that stand for a plugin and the plugins that it needs."""

BUILT_IN = frozenset(
    {
        "rabbitmq_auth_mechanism_ssl",
        "rabbitmq_consistent_hash_exchange",
        "rabbitmq_delayed_message_exchange",
        "rabbitmq_jms_topic_exchange",
        "rabbitmq_management_agent",
        "rabbitmq_message_deduplication",
        "rabbitmq_random_exchange",
        "rabbitmq_recent_history_exchange",
        "rabbitmq_sharding",
    }
)
"""Plugins whose work is done without them."""


def is_conf(path: Path) -> bool:
    """True if a file of this name is a rabbitmq.conf, or a directory holds some."""
    return path.suffix == ".conf" or path.is_dir()


def of_file(
    path: Path, environment: Mapping[str, str]
) -> tuple[dict[str, OptionTexts], tuple[Remark, ...]]:
    """Return the options of a rabbitmq.conf, and remarks on what of it does not count.  OptionError
    for what is refused, all of it at once."""
    try:
        lines = line_verdicts(path, environment)
    except ConfError as error:
        raise OptionError(str(error)) from error
    refused = [
        f"  {setting.source} = {shown(judgement)}: {verdict.reason}"
        for judgement in lines
        for setting, verdict in [judgement]
        if isinstance(verdict, RefusedSetting)
    ]
    if refused:
        raise OptionError("\n".join((f"no node runs as {path} says:", *refused)))
    remarks = tuple(
        Remark(setting.source, verdict.reason)
        for setting, verdict in lines
        if isinstance(verdict, IgnoredSetting)
    )
    return options_of(lines), remarks


def options_of(lines: Iterable[LineVerdict]) -> dict[str, OptionTexts]:
    """Join the options of all lines; of an option with one value the last line counts."""
    given: dict[str, OptionTexts] = {}
    for setting, verdict in lines:
        if not isinstance(verdict, MappedSetting):
            continue
        for option, texts in verdict.options.items():
            earlier = given[option].texts if option in given and OPTIONS[option].collect else ()
            more = (text for text in texts if text not in earlier)
            given[option] = OptionTexts((*earlier, *more), setting.source)
    return given


def shown(judgement: LineVerdict) -> str:
    """Return the value of a setting for people, masked if it is a secret."""
    key, value = judgement.setting.key, judgement.setting.value
    is_secret = SECRET.search(key[-1]) is not None or "key" in key or "@" in value
    return "…" if is_secret else value


def of_variables(environment: Mapping[str, str]) -> dict[str, OptionTexts]:
    """Return the options of RabbitMQ's variables; empty ones were not filled in."""
    given = {
        option: OptionTexts((environment[variable],), variable)
        for variable, option in VARIABLES.items()
        if environment.get(variable)
    }
    if environment.get("RABBITMQ_NODENAME"):
        given["node"] = OptionTexts((own_name(ConfSettings({}, environment)),), "RABBITMQ_NODENAME")
    host, port = (environment.get(f"RABBITMQ_NODE_{name}") for name in ("IP_ADDRESS", "PORT"))
    if host or port:
        host = f"[{host}]" if host and ":" in host else host or ""
        variable = "RABBITMQ_NODE_PORT" if port else "RABBITMQ_NODE_IP_ADDRESS"
        given["listen"] = OptionTexts((f"{host}:{port or AMQP_PORT}",), variable)
    words = [word for word in environment.get("RABBITMQ_LOG", "").split(",") if word in LEVELS]
    if words:
        given["log-level"] = OptionTexts((LEVELS[words[0]],), "RABBITMQ_LOG")
    return given


def config_file(environment: Mapping[str, str]) -> str:
    """Return the file that is named, also without its ending; empty if none is."""
    name = environment.get(CONFIG_FILE, "")
    return f"{name}.conf" if name and not Path(name).suffix else name


def of_plugins(environment: Mapping[str, str]) -> tuple[dict[str, OptionTexts], tuple[Remark, ...]]:
    """Return the options that stand for enabled plugins, and the plugins for which there are
    none."""
    name = environment.get(PLUGINS_FILE, "")
    try:
        text = Path(name).read_text(encoding="utf-8") if name else ""
    except OSError:
        return {}, ()  # as with RabbitMQ: a file that is not there enables nothing
    plugins = re.findall(r"\w+", re.sub(r"%.*", "", text))
    switched = [pair for each in plugins if each in PLUGINS for pair in PLUGINS[each].items()]
    nothing = [each for each in plugins if each not in PLUGINS and each not in BUILT_IN]
    return (
        {option: OptionTexts((value,), name) for option, value in switched},
        tuple(Remark(f"{name}: {each}", "there is no such plugin here") for each in nothing),
    )
