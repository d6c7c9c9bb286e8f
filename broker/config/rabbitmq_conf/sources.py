"""What RabbitMQ's configuration says in options: that of its file, and that of its variables.

Containers and scripts set the variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from fluffle.broker.config.config import AMQP_PORT
from fluffle.broker.config.option_table import OPTIONS
from fluffle.broker.config.rabbitmq_conf.http_rules import MANAGEMENT, METRICS, PORTS
from fluffle.broker.config.rabbitmq_conf.node_rules import LEVELS, own_name
from fluffle.broker.config.rabbitmq_conf.parser import ConfError
from fluffle.broker.config.rabbitmq_conf.report import LineVerdict, line_verdicts
from fluffle.broker.config.rabbitmq_conf.verdicts import (
    ConfSettings,
    IgnoredSetting,
    MappedSetting,
    RefusedSetting,
)
from fluffle.broker.config.sources import OptionError, OptionTexts, Remark

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

PLUGINS: Mapping[str, tuple[str, str]] = {
    "rabbitmq_management": (MANAGEMENT, f":{PORTS[MANAGEMENT]}"),
    "rabbitmq_prometheus": (METRICS, f":{PORTS[METRICS]}"),
    "rabbitmq_event_exchange": ("event-exchange", "yes"),
}
"""What is switched on in the place of a plugin."""

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
    """Whether a file of this name is a rabbitmq.conf, or a directory holds some."""
    return path.suffix == ".conf" or path.is_dir()


def of_file(
    path: Path, environment: Mapping[str, str]
) -> tuple[dict[str, OptionTexts], tuple[Remark, ...]]:
    """What a rabbitmq.conf says, and what of it does not count.  OptionError for what is refused,
    all of it at once."""
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
    """What all lines say together; of an option with one value the last one counts."""
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
    """The value of a setting, unless it is nobody's business."""
    key, value = judgement.setting.key, judgement.setting.value
    is_secret = SECRET.search(key[-1]) is not None or "key" in key or "@" in value
    return "…" if is_secret else value


def of_variables(environment: Mapping[str, str]) -> dict[str, OptionTexts]:
    """What the variables say; empty ones were not filled in."""
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
    """The file that is named, also without its ending; empty if none is."""
    name = environment.get(CONFIG_FILE, "")
    return f"{name}.conf" if name and not Path(name).suffix else name


def of_plugins(environment: Mapping[str, str]) -> tuple[dict[str, OptionTexts], tuple[Remark, ...]]:
    """What is switched on in the place of plugins, and those for which there is nothing."""
    name = environment.get(PLUGINS_FILE, "")
    try:
        text = Path(name).read_text(encoding="utf-8") if name else ""
    except OSError:
        return {}, ()  # as with RabbitMQ: a file that is not there enables nothing
    plugins = re.findall(r"\w+", re.sub(r"%.*", "", text))
    switched = [PLUGINS[each] for each in plugins if each in PLUGINS]
    nothing = [each for each in plugins if each not in PLUGINS and each not in BUILT_IN]
    return (
        {option: OptionTexts((value,), name) for option, value in switched},
        tuple(Remark(f"{name}: {each}", "there is no such plugin here") for each in nothing),
    )
