"""The settings of a node: from four sources to one Config.

A value is taken from the command line, else from the environment (`FLUFFLE_` and the name in upper
case, `_` for `-`; then what RabbitMQ's variables say), else from the file (TOML, where the name is
the key, or a rabbitmq.conf), else the default of `Config` holds.  An option that collects takes
many values: the flag many times, the variable with one on each line, the key with an array.  What
cannot be used ends the start with a sentence that says what to change and where.
"""

from __future__ import annotations

import platform
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fluffle.broker.config.config import (
    DEFAULT_PASSWORD,
    DEFAULT_USER,
    DEFAULT_VHOST,
    FOUNDERS,
    MQTT_PACKET_BYTES_MAX,
    MQTT_PUBLISH_ROOM_BYTES,
    ClusterConfig,
    Config,
    InterceptorConfig,
    Limits,
    ListenAddress,
    MqttConfig,
    QuorumConfig,
)
from fluffle.broker.config.option_table import OPTIONS
from fluffle.broker.config.option_values import PREFIX, Option, OptionError, OptionTexts, Remark

FIRST_PREFIX, QUORUM_PREFIX, LIMITS_PREFIX = "first_", "quorum_", "limits_"
STAMPS_PREFIX, CLUSTER_PREFIX, MQTT_PREFIX = "stamps_", "cluster_", "mqtt_"
UNFINISHED_MESSAGES, UNCOMMITTED_MESSAGES = 4, 8
"""Messages of the largest size that one connection may have unfinished, or in transactions: as
`Limits`."""

CONFIG = "config"
"""The option that names the file, and so cannot stand in it."""
SECRET, SECRET_FILE = "cluster-secret", "cluster-secret-file"
NOWHERE = OptionTexts((), "")
CONFIG_VARIABLE = PREFIX + CONFIG.upper()
OF_COMMANDS = (f"{PREFIX}URL", f"{PREFIX}PASSWORD_FILE")
"""Variables for those who administer a node that is elsewhere."""
RABBITMQ_PREFIX = "RABBITMQ_"
"""Prefix of RabbitMQ's variables, which many deployments set."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Outcome of options: a Config, and remarks for the operator."""

    config: Config
    unknown_variables: tuple[str, ...]
    """Variables that look like ours and are not: perhaps a typing error."""
    remarks: tuple[Remark, ...] = ()
    """Settings of RabbitMQ's configuration that have no effect here."""


def with_first_start(fields: dict[str, Any]) -> None:
    """Put the default user and virtual host before those that were given.

    With definitions there is neither, as with RabbitMQ, unless options ask for it.
    """
    first = taken(fields, FIRST_PREFIX)
    users, vhosts = fields.get("users", {}), fields.get("vhosts", ())
    has_definitions = "definitions" in fields
    if "user" in first or "password" in first or not has_definitions:
        name, password = first.get("user", DEFAULT_USER), first.get("password", DEFAULT_PASSWORD)
        users = {name: password} | users
    default_vhost = first.get("vhost", DEFAULT_VHOST)
    if "vhost" in first or not has_definitions:
        vhosts = tuple(dict.fromkeys((default_vhost, *vhosts)))
    fields.update(users=users, vhosts=vhosts, default_vhost=default_vhost)


def with_quorum(fields: dict[str, Any]) -> None:
    """Put `quorum` in the place of the fields that are about quorum queues."""
    fields["quorum"] = QuorumConfig(**taken(fields, QUORUM_PREFIX))


def with_limits(fields: dict[str, Any]) -> None:
    """Put `limits` in the place of the fields that are about what one client may do."""
    values = taken(fields, LIMITS_PREFIX)
    if size := values.get("message_bytes_max"):
        values["unfinished_bytes_max"] = UNFINISHED_MESSAGES * size
        values["uncommitted_bytes_max"] = UNCOMMITTED_MESSAGES * size
    fields["limits"] = Limits(**values)


def with_mqtt(fields: dict[str, Any]) -> None:
    """Put `mqtt` in the place of the fields that are about it.

    A packet holds the largest message unless an option says otherwise.
    """
    values = taken(fields, MQTT_PREFIX)
    size = fields["limits"].message_bytes_max + MQTT_PUBLISH_ROOM_BYTES
    values.setdefault("packet_bytes_max", min(size, MQTT_PACKET_BYTES_MAX))
    fields["mqtt"] = MqttConfig(**values)


def with_cluster(fields: dict[str, Any]) -> None:
    """Put `cluster` in the place of the fields that are about it, if there is to be one.

    Reads the file of the secret.  ValueError with what to give instead.
    """
    values = taken(fields, CLUSTER_PREFIX)
    service, size = values.pop("discover", None), values.pop("size", FOUNDERS)
    if service is not None:
        if "peers" in values:
            raise ValueError("--peers and --discover are both given; keep one")
        own = fields.setdefault("node_name", platform.node().partition(".")[0])
        values["peers"] = discovered(service, own, size)
        values["advertise"] = ListenAddress(f"{own}.{service.host}", service.port)
    if "peers" not in values:
        if "listen" in values:
            raise ValueError("--cluster-listen: name the nodes with --peers, or use --discover")
        return  # what else was given is for a cluster alone, and does no harm
    values["secret"] = secret_of(values.pop("secret", None), values.pop("secret_file", None))
    if "tls_cert" not in values and {"tls_key", "tls_ca"} & values.keys():
        raise ValueError("--cluster-tls-key and --cluster-tls-ca need a --cluster-tls-cert")
    if "node_name" not in fields:
        raise ValueError(
            f"--peers: say with --node which of {', '.join(values['peers'])} this node is, or how "
            "one is called that is to join them"
        )
    fields["cluster"] = ClusterConfig(**values)


def discovered(service: ListenAddress, own: str, size: int) -> dict[str, ListenAddress]:
    """Return the nodes of a set of names with ordinals, `own` one of them, that DNS knows by a
    service.

    Kubernetes calls them a StatefulSet and a headless service.  Names are looked up whenever
    a link is dialled, so addresses may change.
    """
    base, dash, ordinal = own.rpartition("-")
    if not (base and dash and ordinal.isdecimal()):
        raise ValueError(
            f"--discover: the name of this node, '{own}', does not end with an ordinal, as in "
            "fluffle-0; give one that does with --node, as DNS knows it, or use --peers"
        )
    names = [f"{base}-{number}" for number in range(size)]
    return {name: ListenAddress(f"{name}.{service.host}", service.port) for name in names}


def secret_of(text: str | None, file: Path | None) -> bytes:
    """Return the secret that was given, as text or as a file."""
    if text is not None and file is not None:
        raise ValueError("--cluster-secret and --cluster-secret-file are both given; keep one")
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeError) as error:
            raise ValueError(f"--cluster-secret-file: cannot read {file} ({error})") from error
        if not text:
            raise ValueError(f"--cluster-secret-file: {file} is empty; put the secret in it")
    if not text:
        raise ValueError(
            "the nodes of a cluster need a secret that they share; give each the same "
            "--cluster-secret or --cluster-secret-file"
        )
    return text.encode()


def taken(fields: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Take the fields that begin with `prefix` out of `fields`; return them without it."""
    given = [name for name in fields if name.startswith(prefix)]
    return {name.removeprefix(prefix): fields.pop(name) for name in given}


def resolve(flags: Mapping[str, Sequence[str]], environment: Mapping[str, str]) -> Settings:
    """Resolve the settings of a node from all four sources.

    `flags` holds the values of the options that stood on the command line, by name, `config`
    among them.  Reads the file that `config` names.  OptionError for anything unusable.
    """
    for name, texts in flags.items():
        if len(texts) > 1 and not (name in OPTIONS and OPTIONS[name].collect):
            raise OptionError(f"--{name} is given {len(texts)} times; write it once")
    given, remarks = _from_files(flags.get(CONFIG, ()), environment)
    for name, option in OPTIONS.items():
        if environment.get(option.variable):  # an empty variable is one that was not filled in
            text = environment[option.variable]
            lines = text.splitlines() if option.collect else [text]
            given[name] = OptionTexts([line for line in lines if line], option.variable)
    for name, texts in flags.items():
        if name != CONFIG and texts:
            given[name] = OptionTexts(texts, f"--{name}")
    if SECRET_FILE in given and given.get(SECRET, NOWHERE).source.startswith(RABBITMQ_PREFIX):
        del given[SECRET]  # the cookie of RabbitMQ's nodes is none of ours if there is another
    fields = dict(_config_fields(given))
    with_first_start(fields)
    with_quorum(fields)
    with_limits(fields)
    with_mqtt(fields)
    fields["stamps"] = InterceptorConfig(**taken(fields, STAMPS_PREFIX))
    try:
        with_cluster(fields)
    except ValueError as error:
        raise OptionError(str(error)) from error
    known = {CONFIG_VARIABLE, *OF_COMMANDS, *(option.variable for option in OPTIONS.values())}
    return Settings(
        config=Config(**fields),
        unknown_variables=tuple(
            sorted(key for key in environment if key.startswith(PREFIX) and key not in known)
        ),
        remarks=remarks,
    )


def _from_files(
    flag: Sequence[str], environment: Mapping[str, str]
) -> tuple[dict[str, OptionTexts], tuple[Remark, ...]]:
    """Return the options of files and of RabbitMQ's variables, and remarks on what of them does not
    count.

    The file says more than that plugins are enabled, and the variables more than the file.
    """
    path = next(filter(None, (*flag, environment.get(CONFIG_VARIABLE))), "")
    is_rabbitmqs = any(name.startswith(RABBITMQ_PREFIX) for name in environment)
    if not (is_rabbitmqs or path.endswith(".conf") or Path(path or ".toml").is_dir()):
        return (from_toml(Path(path).absolute()) if path else {}), ()
    from fluffle.broker.config.rabbitmq_conf import sources  # noqa: PLC0415  only if it is used

    given, remarks = sources.of_plugins(environment)
    if path := path or sources.config_file(environment):
        file = Path(path).absolute()
        if sources.is_conf(file):
            more, ignored = sources.of_file(file, environment)
            given |= more
            remarks += ignored
        else:
            given |= from_toml(file)
    return given | sources.of_variables(environment), remarks


def _config_fields(given: Mapping[str, OptionTexts]) -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        option = OPTIONS[name]
        parsed = [_parsed(option, text, value.source) for text in value.texts]
        present = (each for each in parsed if each is not None)
        yield option.config_field, option.collect(present) if option.collect else parsed[0]


def _parsed(option: Option, text: str, source: str) -> Any:
    try:
        return option.parse(text)
    except ValueError as error:
        shown = "that value" if option.is_secret else repr(text)
        raise OptionError(f"{source}: cannot use {shown}; {error}") from error


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
