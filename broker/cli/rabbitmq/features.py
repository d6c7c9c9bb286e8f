"""Feature flags and `rabbitmq-plugins`: all that is built in is enabled, and cannot be otherwise.

A container's list of plugins must not break its start: to enable what is built in changes nothing,
and to disable it is said to change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fluffle.broker.base.features import FEATURES
from fluffle.broker.cli.rabbitmq.verb import (
    FLAG,
    USAGE,
    Failure,
    Invocation,
    Report,
    RowTable,
    UsageFailure,
    Verb,
)

FLAG_COLUMNS = ("name", "state", "stability", "provided_by", "desc", "doc_url")
FEATURE_COLUMNS = ("name", "deprecation_phase", "provided_by", "desc", "doc_url")


def columns_of(
    call: Invocation, default: tuple[str, ...], known: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the columns that were asked for.  UsageFailure."""
    for name in call.words:
        if name not in known:
            raise UsageFailure(f"Info key(s) {name} are not supported")
    return tuple(call.words) or default


def list_feature_flags(call: Invocation) -> RowTable:
    columns = columns_of(call, ("name", "state"), FLAG_COLUMNS)
    rows = (
        {
            "name": name,
            "state": "enabled",
            "stability": "required",
            "provided_by": "rabbit",
            "desc": description,
        }
        for name, description in FEATURES.items()
    )
    return RowTable(columns, rows)


def enable_feature_flag(call: Invocation) -> None:
    """Enable a feature flag, which all that exist are already."""
    name = call.word(0, "all")
    if name not in ("all", *FEATURES):
        raise Failure(f"This feature flag is not supported by node {call.node}", USAGE)


def list_deprecated_features(call: Invocation) -> RowTable:
    columns = columns_of(call, ("name", "deprecation_phase"), FEATURE_COLUMNS)
    return RowTable(columns, ())


def enabling(call: Invocation) -> str:
    name = call.word(0, "all")
    what = "all feature flags" if name == "all" else f'feature flag "{name}"'
    return f"Enabling {what} ..."


VERBS: Mapping[str, Verb] = {
    "list_feature_flags": Verb(
        list_feature_flags, "[<column> ...]", "Listing feature flags ...", (0, None),
        note="those of RabbitMQ 4 whose features are built in, always enabled",
    ),
    "enable_feature_flag": Verb(
        enable_feature_flag, "<all | feature_flag>", enabling, (0, 1),
        {"experimental": FLAG, "opt-in": FLAG}, note="nothing is to be enabled: all are",
    ),
    "list_deprecated_features": Verb(
        list_deprecated_features, "[<column> ...]", "Listing deprecated features ...", (0, None),
        {"used": FLAG}, note="there are none",
    ),
}  # fmt: skip


PLUGINS: Mapping[str, str] = {
    "rabbitmq_management": "served where --management says",
    "rabbitmq_management_agent": "a part of it",
    "rabbitmq_prometheus": "served where --metrics says",
    "rabbitmq_mqtt": "served where --mqtt says",
    "rabbitmq_web_mqtt": "served where --mqtt-ws says",
    "rabbitmq_peer_discovery_common": "--peers",
    "rabbitmq_peer_discovery_k8s": "--discover, by DNS",
    "rabbitmq_event_exchange": "switched on by --event-exchange",
    "rabbitmq_consistent_hash_exchange": "",
    "rabbitmq_random_exchange": "",
    "rabbitmq_sharding": "the exchange type x-modulus-hash",
    "rabbitmq_recent_history_exchange": "",
    "rabbitmq_delayed_message_exchange": "",
    "rabbitmq_jms_topic_exchange": "",
    "rabbitmq_message_deduplication": "",
    "rabbitmq_auth_mechanism_ssl": "",
}
"""Built in, so that they count as enabled; and what there is to say of them."""


ONLINE: Mapping[str, str] = {"online": FLAG, "offline": FLAG, "all": FLAG}
LISTING: Mapping[str, str] = {
    "minimal": FLAG, "enabled": FLAG, "implicitly-enabled": FLAG, "verbose": FLAG,
}  # fmt: skip
BUILT_IN = "[E*]"


def named(call: Invocation) -> Sequence[str]:
    """Return the plugins that were named, or all.  Failure for one that there is not."""
    if call.has("all"):
        return list(PLUGINS)
    for name in call.words:
        if name not in PLUGINS:
            raise Failure(
                f"The following plugins could not be found: {name}. Built in are "
                f"{', '.join(PLUGINS)}"
            )
    return call.words


def enable(call: Invocation) -> Report:
    names = named(call)
    return Report([f"  {name}: built in" for name in names], {"enabled": list(names)})


def disable(call: Invocation) -> Report:
    names = named(call)
    return Report([f"  {name}: built in, stays" for name in names], {"disabled": []})


def set_plugins(call: Invocation) -> Report:
    return enable(call)


def list_plugins(call: Invocation) -> Report:
    pattern = call.word(0)
    names = [name for name in PLUGINS if pattern in name]
    content = {
        "format": "minimal" if call.has("minimal") else "normal",
        "plugins": [{"name": name, "enabled": "enabled", "running": True} for name in names],
    }
    return Report(names if call.has("minimal") else list(plugin_lines(names)), content)


def plugin_lines(names: Sequence[str]) -> Iterator[str]:
    yield " Configured: E = explicitly enabled; e = implicitly enabled"
    yield " | Status: * = running"
    yield " |/"
    for name in names:
        what = PLUGINS[name] or "built in"
        yield f"{BUILT_IN} {name.ljust(36)} {what}"


def is_enabled(call: Invocation) -> Report:
    for name in call.words:
        if name not in PLUGINS:
            raise Failure(
                f"Plugin {name} is not enabled. Enabled plugins and dependencies: "
                f"{', '.join(PLUGINS)}"
            )
    one = "Plugin" if len(call.words) == 1 else "Plugins"
    verb = "is" if len(call.words) == 1 else "are"
    return Report([f"{one} {', '.join(call.words)} {verb} enabled"])


def directories(_call: Invocation) -> Report:
    return Report(["Plugins are built in; there are no directories of them"])


def plugins_banner(call: Invocation) -> str:
    return "\n".join(("Enabling plugins on node:", *call.words))


PLUGIN_VERBS: Mapping[str, Verb] = {
    "list": Verb(
        list_plugins, "[<pattern>]", "Listing plugins ...", (0, 1), LISTING,
        note="what is built in; a pattern is a part of a name",
    ),
    "enable": Verb(
        enable, "<plugin> [...]", plugins_banner, (0, None), ONLINE,
        note="changes nothing: what is built in is enabled; options switch it on",
    ),
    "disable": Verb(disable, "<plugin> [...]", "", (0, None), ONLINE, note="changes nothing"),
    "set": Verb(set_plugins, "<plugin> [...]", "", (0, None), ONLINE, note="changes nothing"),
    "is_enabled": Verb(
        is_enabled, "<plugin> [...]", "Asking if {0} is enabled...", (1, None), ONLINE,
        note="needs no node",
    ),
    "directories": Verb(directories, note="there are none"),
}  # fmt: skip
