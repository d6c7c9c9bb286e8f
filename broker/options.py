"""The options of `fluffle serve`: one row each, from four sources to one Config.

A value is taken from the command line, else from the environment (`FLUFFLE_` and the name in upper
case, `_` for `-`), else from the TOML file (the name is the key), else the default of `Config`
holds.  What cannot be used ends the start with a sentence that says what to change and where.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fluffle.broker.config import (
    DEFAULT_PASSWORD,
    DEFAULT_USER,
    DEFAULT_VHOST,
    Config,
    ListenAddress,
    memory_bytes,
)
from fluffle.broker.logs import FORMATS

PREFIX = "FLUFFLE_"
FIRST_START = ("RABBITMQ_DEFAULT_USER", "RABBITMQ_DEFAULT_PASS", "RABBITMQ_DEFAULT_VHOST")
"""Variables of RabbitMQ's that deployments everywhere set: name, password, virtual host."""

CONFIG = "config"
"""The option that names the file, and so cannot stand in it."""

LEVELS = ("debug", "info", "warning", "error")
PORT_MAX = 65_535


class OptionError(Exception):
    """A value that cannot be used, as a sentence for whoever gave it."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option.  `parse` raises ValueError with what to write instead."""

    name: str
    metavar: str
    help: str
    parse: Callable[[str], object] = str
    config_field: str | None = None
    collect: Callable[[list[Any]], object] | None = None
    """Makes one value of those of an option that may be given many times."""
    is_secret: bool = False
    """Whether its value must not be shown, not even in an error."""

    @property
    def effective(self) -> bool:
        """Whether the part it is for exists."""
        return self.config_field is not None

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return PREFIX + self.name.upper().replace("-", "_")


@dataclass(frozen=True, slots=True)
class Settings:
    """The outcome: a Config, and what its user should be told."""

    config: Config
    not_in_effect: tuple[str, ...]
    """Where options were given whose part does not exist yet."""
    unknown_variables: tuple[str, ...]
    """Variables that look like ours and are not: perhaps a typing error."""


@dataclass(frozen=True, slots=True)
class _Given:
    """What was given for an option, and where, in words."""

    texts: Sequence[str]
    source: str


def parse_address(text: str) -> ListenAddress:
    """HOST:PORT, [IPv6]:PORT or :PORT."""
    host, colon, port = text.rpartition(":")
    bare_host = host.removeprefix("[").removesuffix("]")
    is_host = host in (bare_host, f"[{bare_host}]") and (":" in bare_host) == (host != bare_host)
    if not (colon and is_host and port.isdecimal() and int(port) <= PORT_MAX):
        raise ValueError("write HOST:PORT such as 127.0.0.1:5672 or [::1]:5672, port 0 for any")
    return ListenAddress(bare_host, int(port))


def parse_user(text: str) -> tuple[str, str]:
    """NAME:PASSWORD; a password may hold colons."""
    name, _, password = text.partition(":")
    if not (name and password):
        raise ValueError("write NAME:PASSWORD, neither of them empty")
    return name, password


def parse_name(text: str) -> str:
    """A name that can stand in lists and logs."""
    if not text or not text.isprintable() or set(text) & set(" ,=:"):
        raise ValueError("write a name without spaces, commas, colons and equals signs")
    return text


def parse_vhost(text: str) -> str:
    """The name of a virtual host."""
    if not text:
        raise ValueError("write the name of a virtual host")
    return text


def parse_watermark(text: str) -> int:
    """A share of the memory there is, in bytes."""
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ValueError("write a share of the memory, above 0 and at most 1, such as 0.6")
    return int(share * memory_bytes())


def choice(*words: str) -> Callable[[str], str]:
    """One of `words`, in any case."""

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"write {', '.join(words[:-1])} or {words[-1]}")
        return text.lower()

    return parse


def parse_loopback_users(text: str) -> frozenset[str]:
    """Names with commas between them, or none."""
    return frozenset() if text == "none" else frozenset(filter(None, text.split(",")))


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


OPTIONS: Mapping[str, Option] = {
    option.name: option
    for option in (
        Option("node", "NAME", "Name of this node.", parse_name, "node_name"),
        Option(
            "data-dir", "DIR", "Where the node keeps its data, by default ./data.", Path, "data_dir"
        ),
        Option(
            "listen",
            "HOST:PORT",
            "Where to accept AMQP clients, by default :5672.",
            parse_address,
            "listen",
        ),
        Option("tls-listen", "HOST:PORT", "Where to accept AMQP clients with TLS."),
        Option("http", "HOST:PORT", "Where to serve the management API."),
        Option("metrics", "HOST:PORT", "Where to serve metrics for Prometheus."),
        Option("cluster-listen", "HOST:PORT", "Where to accept the other nodes."),
        Option("peers", "a=HOST:PORT,…", "The other nodes of the cluster."),
        Option("cluster-secret", "TEXT", "What the nodes of a cluster share.", is_secret=True),
        Option(
            "user",
            "NAME:PASSWORD",
            "A user besides guest, with all rights; may be given many times.",
            parse_user,
            "users",
            dict,
            is_secret=True,
        ),
        Option(
            "vhost",
            "NAME",
            "A virtual host besides /; may be given many times.",
            parse_vhost,
            "vhosts",
            tuple,
        ),
        Option(
            "loopback-users",
            "NAME,…|none",
            "Who may only connect from this machine, by default guest.",
            parse_loopback_users,
            "loopback_users",
        ),
        Option(
            "definitions",
            "FILE",
            "Definitions to start with, as exported by RabbitMQ.",
            Path,
            "definitions",
        ),
        Option(
            "memory-high-watermark",
            "SHARE",
            "Share of the memory above which publishers are paused, by default 0.6.",
            parse_watermark,
            "memory_bytes_max",
        ),
        Option("product", "NAME", "Product that clients are told.", parse_name, "product"),
        Option("product-version", "VERSION", "Its version.", parse_name, "product_version"),
        Option(
            "log-format",
            "|".join(FORMATS),
            "How to write log lines.",
            choice(*FORMATS),
            "log_format",
        ),
        Option("log-level", "LEVEL", f"One of {', '.join(LEVELS)}.", choice(*LEVELS), "log_level"),
    )
}


def resolve(flags: Mapping[str, Sequence[str]], environment: Mapping[str, str]) -> Settings:
    """The settings of a node.

    `flags` holds the values of the options that stood on the command line, by name, `config`
    among them.  Reads the file that `config` names.  OptionError for anything unusable.
    """
    config_flag = flags.get(CONFIG, ())
    variables = {option.variable: name for name, option in OPTIONS.items()}
    config_variable = PREFIX + CONFIG.upper()
    path = config_flag[-1] if config_flag else environment.get(config_variable, "")
    given: dict[str, _Given] = {}
    if path:
        given |= _from_file(Path(path))
    for variable, name in variables.items():
        if environment.get(variable):  # an empty variable is one that was not filled in
            given[name] = _Given((environment[variable],), variable)
    for name, texts in flags.items():
        if name != CONFIG and texts:
            given[name] = _Given(texts, f"--{name}")
    known = {*variables, config_variable}
    fields = dict(_config_fields(given))
    with_first_start(fields, environment)
    return Settings(
        config=Config(**fields),
        not_in_effect=tuple(
            value.source for name, value in given.items() if not OPTIONS[name].effective
        ),
        unknown_variables=tuple(
            sorted(key for key in environment if key.startswith(PREFIX) and key not in known)
        ),
    )


def _config_fields(given: Mapping[str, _Given]) -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        option = OPTIONS[name]
        if option.config_field is None:
            continue
        parsed = [_parsed(option, text, value.source) for text in value.texts]
        yield option.config_field, option.collect(parsed) if option.collect else parsed[-1]


def _parsed(option: Option, text: str, source: str) -> object:
    try:
        return option.parse(text)
    except ValueError as error:
        shown = "that value" if option.is_secret else repr(text)
        raise OptionError(f"{source}: cannot use {shown}; {error}") from error


def _from_file(path: Path) -> dict[str, _Given]:
    """What a TOML file says."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"cannot read the configuration file {path}: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise OptionError(f"{path} is not a TOML file: {error}") from error
    return {
        key: _Given(_texts(path, key, value), f"{path}, {key}") for key, value in content.items()
    }


def _texts(path: Path, key: str, value: object) -> list[str]:
    """The value of a key as the texts it would be on the command line."""
    if key not in OPTIONS:
        near = get_close_matches(key, OPTIONS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(OPTIONS)}"
        raise OptionError(f"{path}: there is no option '{key}'; {hint}")
    values = value if isinstance(value, list) and OPTIONS[key].collect else [value]
    if any(isinstance(item, bool) or not isinstance(item, str | int | float) for item in values):
        raise OptionError(f'{path}, {key}: write a string, such as {key} = "…"')
    return [str(item) for item in values]
