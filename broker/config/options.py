"""The settings of a node: from four sources to one Config.

A value is taken from the command line, else from the environment (`FLUFFLE_` and the name in upper
case, `_` for `-`; then what RabbitMQ's variables say), else from the file (TOML, where the name is
the key, or a rabbitmq.conf), else the default of `Config` holds.  An option that collects takes
many values: the flag many times, the variable with one on each line, the key with an array.  What
cannot be used ends the start with a sentence that says what to change and where.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluffle.broker.config.cluster_options import with_cluster
from fluffle.broker.config.config import (
    DEFAULT_PASSWORD,
    DEFAULT_USER,
    DEFAULT_VHOST,
    Config,
    InterceptorConfig,
    Limits,
    QuorumConfig,
)
from fluffle.broker.config.option_table import OPTIONS, PREFIX, Option
from fluffle.broker.config.sources import OptionError, OptionTexts, Remark, from_toml

FIRST_PREFIX, QUORUM_PREFIX, LIMITS_PREFIX = "first_", "quorum_", "limits_"
STAMPS_PREFIX = "stamps_"
UNFINISHED_MESSAGES, UNCOMMITTED_MESSAGES = 4, 8
"""Of the largest size, that one connection may have under way, or in transactions: as `Limits`."""

CONFIG = "config"
"""The option that names the file, and so cannot stand in it."""
SECRET, SECRET_FILE = "cluster-secret", "cluster-secret-file"
NOWHERE = OptionTexts((), "")
CONFIG_VARIABLE = PREFIX + CONFIG.upper()
OF_COMMANDS = (f"{PREFIX}URL", f"{PREFIX}PASSWORD_FILE")
"""Variables for those who administer a node that is elsewhere."""
RABBITMQ_PREFIX = "RABBITMQ_"
"""Of RabbitMQ's variables, which deployments everywhere set."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Outcome of options: a Config, and remarks for the operator."""

    config: Config
    unknown_variables: tuple[str, ...]
    """Variables that look like ours and are not: perhaps a typing error."""
    remarks: tuple[Remark, ...] = ()
    """What of RabbitMQ's configuration does not count here."""


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
    fields["interceptors"] = InterceptorConfig(**taken(fields, STAMPS_PREFIX))
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
        if option.config_field is not None:
            yield option.config_field, option.collect(parsed) if option.collect else parsed[0]


def _parsed(option: Option, text: str, source: str) -> object:
    try:
        return option.parse(text)
    except ValueError as error:
        shown = "that value" if option.is_secret else repr(text)
        raise OptionError(f"{source}: cannot use {shown}; {error}") from error
