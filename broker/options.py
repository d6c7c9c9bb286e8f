"""The settings of a node: from four sources to one Config.

A value is taken from the command line, else from the environment (`FLUFFLE_` and the name in upper
case, `_` for `-`), else from the TOML file (the name is the key), else the default of `Config`
holds.  An option that collects takes many values: the flag many times, the variable with one on
each line, the key with an array.  What cannot be used ends the start with a sentence that says what
to change and where.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fluffle.broker.cluster_options import with_cluster
from fluffle.broker.config import (
    DEFAULT_PASSWORD,
    DEFAULT_USER,
    DEFAULT_VHOST,
    Config,
    Limits,
    QuorumConfig,
)
from fluffle.broker.option_table import OPTIONS, PREFIX, Option

FIRST_START = ("RABBITMQ_DEFAULT_USER", "RABBITMQ_DEFAULT_PASS", "RABBITMQ_DEFAULT_VHOST")
"""Variables of RabbitMQ's that deployments everywhere set: name, password, virtual host."""

QUORUM_PREFIX, LIMITS_PREFIX = "quorum_", "limits_"
UNFINISHED_MESSAGES, UNCOMMITTED_MESSAGES = 4, 8
"""Of the largest size, that one connection may have under way, or in transactions: as `Limits`."""

CONFIG = "config"
"""The option that names the file, and so cannot stand in it."""


class OptionError(Exception):
    """A value that cannot be used, as a sentence for whoever gave it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The outcome: a Config, and what its user should be told."""

    config: Config
    unknown_variables: tuple[str, ...]
    """Variables that look like ours and are not: perhaps a typing error."""


@dataclass(frozen=True, slots=True)
class _Given:
    """What was given for an option, and where, in words."""

    texts: Sequence[str]
    source: str


def with_first_start(fields: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Put the default user and virtual host before those that were given.

    With definitions there is neither, as with RabbitMQ, unless a variable asks for it.
    """
    user, password, vhost = (environment.get(name) for name in FIRST_START)
    users, vhosts = fields.get("users", {}), fields.get("vhosts", ())
    has_definitions = "definitions" in fields
    if user or password or not has_definitions:
        users = {user or DEFAULT_USER: password or DEFAULT_PASSWORD} | users
    if vhost or not has_definitions:
        vhosts = tuple(dict.fromkeys((vhost or DEFAULT_VHOST, *vhosts)))
    fields.update(users=users, vhosts=vhosts)


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
    """The fields that begin with `prefix`, without it; they are in `fields` no longer."""
    given = [name for name in fields if name.startswith(prefix)]
    return {name.removeprefix(prefix): fields.pop(name) for name in given}


def resolve(flags: Mapping[str, Sequence[str]], environment: Mapping[str, str]) -> Settings:
    """The settings of a node.

    `flags` holds the values of the options that stood on the command line, by name, `config`
    among them.  Reads the file that `config` names.  OptionError for anything unusable.
    """
    for name, texts in flags.items():
        if len(texts) > 1 and not (name in OPTIONS and OPTIONS[name].collect):
            raise OptionError(f"--{name} is given {len(texts)} times; write it once")
    config_flag = flags.get(CONFIG, ())
    variables = {option.variable: name for name, option in OPTIONS.items()}
    config_variable = PREFIX + CONFIG.upper()
    path = config_flag[0] if config_flag else environment.get(config_variable, "")
    given: dict[str, _Given] = {}
    if path:
        given |= _from_file(Path(path).absolute())
    for variable, name in variables.items():
        if environment.get(variable):  # an empty variable is one that was not filled in
            text = environment[variable]
            lines = text.splitlines() if OPTIONS[name].collect else [text]
            given[name] = _Given([line for line in lines if line], variable)
    for name, texts in flags.items():
        if name != CONFIG and texts:
            given[name] = _Given(texts, f"--{name}")
    known = {*variables, config_variable}
    fields = dict(_config_fields(given))
    with_first_start(fields, environment)
    with_quorum(fields)
    with_limits(fields)
    try:
        with_cluster(fields)
    except ValueError as error:
        raise OptionError(str(error)) from error
    return Settings(
        config=Config(**fields),
        unknown_variables=tuple(
            sorted(key for key in environment if key.startswith(PREFIX) and key not in known)
        ),
    )


def _config_fields(given: Mapping[str, _Given]) -> Iterator[tuple[str, Any]]:
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


def _from_file(path: Path) -> dict[str, _Given]:
    """What a TOML file says.  Its path is absolute, to be found from what the log says."""
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
        given[key] = _Given(_texts(source, key, value), source)
    return given


def _line_of(key: str, text: str) -> int:
    """Where a key stands at the top of a TOML file; what is written oddly is on the first line."""
    found = re.search(rf"^\s*[\[\"']*{re.escape(key)}\b", text, re.MULTILINE)
    return text.count("\n", 0, found.end()) + 1 if found else 1


def _texts(source: str, key: str, value: object) -> list[str]:
    """The value of a key as the texts it would be on the command line."""
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
