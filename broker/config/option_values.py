"""Options and their values: parsers of their texts, one for each kind, and where the texts stood.

A parser raises ValueError, which says what to write.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from fluffle.broker.config.config import (
    AUTH_MECHANISMS,
    MQTT_PACKET_BYTES_MAX,
    ClusterConfig,
    Config,
    InterceptorConfig,
    Limits,
    ListenAddress,
    MqttConfig,
    QuorumConfig,
    UserRights,
    memory_bytes,
)
from fluffle.broker.patterns.patterns import UnusablePattern, compiled

PREFIX = "FLUFFLE_"
"""Prefix of an option's variable in the environment."""
PORT_MAX = 65_535
NAME_BYTES_MAX = 255
"""Longest name of an exchange in AMQP."""
MQTT_STRING_BYTES_MAX = 65_535
MESSAGE_BYTES_MAX = 512 << 20
"""Largest possible limit for a message's bytes, as in RabbitMQ: several must fit in memory."""
Value = TypeVar("Value")
UNITS: Mapping[str, int] = {"": 1, "b": 1} | {
    f"{prefix}{ending}": int(base**power)
    for power, prefix in enumerate("kmgt", start=1)
    for ending, base in (("", 1000), ("b", 1000), ("i", 1024), ("ib", 1024))
}


@dataclass(frozen=True, slots=True)
class Option:
    """An option of `fluffle serve`.  `parse` raises ValueError with what to write instead."""

    name: str
    metavar: str
    help: str
    parse: Callable[[str], Any]
    config_field: str
    """Field of the `Config` with its group, as `mqtt_prefetch`."""
    default: str
    """Default as a user would write it; the value itself is in `Config`."""
    collect: type[dict[Any, Any]] | type[tuple[Any, ...]] | None = None
    """Type of the value if the option may be given many times; a None among them is left out."""
    is_secret: bool = False
    """True if its value must not be shown, not even in an error."""
    is_switch: bool = False
    """True if it is `yes` when it is given without a value."""

    @property
    def description(self) -> str:
        """Help text of the option, on one line."""
        parts = (
            self.help,
            "May be given many times." if self.collect else "",
            f"[default: {self.default}]" if self.default else "",
        )
        return "  ".join(part for part in parts if part)

    @property
    def variable(self) -> str:
        """Name of the environment variable for the option."""
        return PREFIX + self.name.upper().replace("-", "_")


def option(
    name: str,
    metavar: str,
    says: str,
    parse: Callable[[str], object],
    config_field: str = "",
    *,
    default: str | None = None,
    **more: Any,
) -> Option:
    """Return an option; its field is called as it is, and its default is the one of that field as
    text, unless something else is said."""
    field = config_field or name.replace("-", "_")
    text = default_text(field, metavar) if default is None else default
    return Option(name, metavar, says, parse, field, text, **more)


def switch(name: str, says: str, config_field: str = "") -> Option:
    """Return an option that is on or off."""
    return option(name, "yes|no", says, parse_switch, config_field, is_switch=True)


def one_of(name: str, words: Sequence[str], says: str, config_field: str = "") -> Option:
    """Return an option for one of some words."""
    return option(name, "|".join(words), says, choice(*words), config_field)


def limit(name: str, says: str, config_field: str) -> Option:
    """Return an option for a number, or for no limit."""
    return option(name, "N|none", says, parse_limit, config_field)


GROUPS: Mapping[str, object] = {
    "cluster_": ClusterConfig({}, b""),
    "limits_": Limits(),
    "mqtt_": MqttConfig(),
    "quorum_": QuorumConfig(),
    "stamps_": InterceptorConfig(),
}
"""Groups of fields of a `Config`, by what their names begin with among options."""
DEFAULTS: Mapping[str, object] = {each.name: each.default for each in fields(Config)}


def default_text(field: str, metavar: str) -> str:
    """Return the default of a field of the `Config`, as a user would write it; nothing for what is
    not written in a word."""
    value = DEFAULTS.get(field)
    for prefix, group in GROUPS.items():
        if field.startswith(prefix):
            value = getattr(group, field.removeprefix(prefix), None)
    if value is None:
        return "none" if "none" in metavar.split("|") else ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, int | str | Path) else ""


class OptionError(Exception):
    """Error in the value of an option, as a sentence for the person who gave it."""


@dataclass(frozen=True, slots=True)
class OptionTexts:
    """Texts that were given for an option, and their source in words."""

    texts: Sequence[str]
    source: str


@dataclass(frozen=True, slots=True)
class Remark:
    """Note on a setting that was given and has no effect."""

    source: str
    reason: str


def parse_address(text: str) -> ListenAddress:
    """Parse an address to listen on: HOST:PORT, [IPv6]:PORT or :PORT."""
    host, colon, port = text.rpartition(":")
    bare_host = host.removeprefix("[").removesuffix("]")
    is_host = host in (bare_host, f"[{bare_host}]") and (":" in bare_host) == (host != bare_host)
    if not (colon and is_host and port.isdecimal() and int(port) <= PORT_MAX):
        raise ValueError("write HOST:PORT such as 127.0.0.1:5672 or [::1]:5672, port 0 for any")
    return ListenAddress(bare_host, int(port))


def parse_client_address(text: str) -> ListenAddress:
    """Parse an address to listen for clients on: also unix:PATH."""
    kind, colon, path = text.partition(":")
    if colon and kind == "unix":
        if not path:
            raise ValueError("write unix:PATH such as unix:/run/fluffle/amqp.sock")
        return ListenAddress(str(Path(path).absolute()), 0)
    return parse_address(text)


def parse_peer_address(text: str) -> ListenAddress:
    """HOST:PORT or [IPv6]:PORT, where other nodes reach one."""
    with suppress(ValueError):
        address = parse_address(text)
        if address.host and address.port:
            return address
    raise ValueError(
        "write HOST:PORT such as 10.0.0.4:25672 or [fd00::4]:25672: where the other nodes reach "
        "the --cluster-listen of that node"
    )


def parse_service(text: str) -> ListenAddress:
    """SERVICE:PORT of nodes that DNS knows."""
    with suppress(ValueError):
        return parse_peer_address(text)
    raise ValueError(
        "write SERVICE:PORT such as fluffle.default.svc.cluster.local:25672, with the port of "
        "--cluster-listen"
    )


def parse_peers(text: str) -> dict[str, ListenAddress]:
    """Parse nodes by name: NAME=HOST:PORT,…."""
    peers = {}
    for peer in text.split(","):
        name, equals, address = peer.partition("=")
        if not equals:
            raise ValueError("write NAME=HOST:PORT, with commas between the nodes")
        peers[parse_name(name)] = parse_peer_address(address)
    return peers


def parse_user(text: str) -> tuple[str, str]:
    """Parse NAME:PASSWORD; a password may hold colons."""
    name, _, password = text.partition(":")
    if not (name and password):
        raise ValueError("write NAME:PASSWORD, neither of them empty")
    return name, password


def parse_user_tags(text: str) -> tuple[str, tuple[str, ...]]:
    """NAME=TAG,…, or NAME= for none."""
    name, equals, tags = text.partition("=")
    if not (name and equals):
        raise ValueError("write NAME=TAG,… such as carol=monitoring, or carol= for no tags")
    return name, tuple(tag.strip() for tag in tags.split(",") if tag.strip())


def parse_user_rights(text: str) -> tuple[str, UserRights]:
    """NAME CONFIGURE WRITE READ [VHOSTS], quoted as in a shell."""
    words = []
    with suppress(ValueError):  # a quotation that does not end
        words = shlex.split(text)
    if len(words) not in {4, 5} or not words[0]:
        raise ValueError(
            "write NAME CONFIGURE WRITE READ, quoted as in a shell, such as carol '' '^orders' '.*'"
        )
    name, *patterns = words
    for pattern in patterns:
        try:
            compiled(pattern)
        except UnusablePattern as error:
            raise ValueError(f"{error}; write another one") from error
    return name, UserRights(*patterns)


def parse_mechanisms(text: str) -> frozenset[str]:
    """Names of SASL mechanisms with commas between them."""
    names = frozenset(name.strip().upper() for name in text.split(",") if name.strip())
    if not names or names - set(AUTH_MECHANISMS):
        raise ValueError(f"write some of {','.join(AUTH_MECHANISMS)}")
    return names


def parse_name(text: str) -> str:
    """Parse a name that can stand in lists and logs."""
    if not text or not text.isprintable() or set(text) & set(" ,=:"):
        raise ValueError("write a name without spaces, commas, colons and equals signs")
    return text


def parse_vhost(text: str) -> str:
    """Parse the name of a virtual host."""
    if not text:
        raise ValueError("write the name of a virtual host")
    return text


def parse_exchange(text: str) -> str:
    """Parse the name of an exchange that is there."""
    if not 0 < len(text.encode()) <= NAME_BYTES_MAX:
        raise ValueError("write the name of a topic exchange, such as amq.topic")
    return text


def parse_mqtt_string(text: str) -> str:
    """Parse what goes into one string of MQTT."""
    if not 0 < len(text.encode()) <= MQTT_STRING_BYTES_MAX or "\0" in text:
        raise ValueError(f"write a text of up to {MQTT_STRING_BYTES_MAX} bytes")
    return text


def parse_watermark(text: str) -> int:
    """Parse a share of the memory there is, or a size, in bytes."""
    share = share_of(text)
    if share is not None and 0 < share <= 1:
        return int(share * memory_bytes())
    with suppress(ValueError):
        if size := parse_size(text):
            return size
    raise ValueError("write a share of the memory, above 0 and at most 1, such as 0.6; or 2GB")


def parse_disk_limit(text: str) -> int:
    """Parse a size, or how many times the memory there is, in bytes."""
    share = share_of(text)
    if share is not None and "." in text:
        return int(share * memory_bytes())
    with suppress(ValueError):
        return parse_size(text)
    raise ValueError("write a size such as 50MB or 2GiB; or 1.5 for 1.5 times the memory")


def share_of(text: str) -> float | None:
    """Return a plain decimal number."""
    whole, _, fraction = text.partition(".")
    is_number = ((whole + fraction).isdecimal() and whole and fraction) or whole.isdecimal()
    return float(text) if is_number and (whole + fraction).isascii() else None


def parse_size(text: str) -> int:
    """Parse a number of bytes, with a unit of powers of 1000 (MB) or of 1024 (MiB)."""
    number = text.rstrip("BGKMTbgikmt ")
    unit = text[len(number) :].strip().lower()
    if not number.isdecimal() or unit not in UNITS:
        raise ValueError("write a number of bytes such as 50MB, 2GiB or 1000000")
    return int(number) * UNITS[unit]


def parse_timeout_ms(text: str) -> int | None:
    """Parse milliseconds, or `none`."""
    return None if text == "none" else parse_count(text)


def parse_count(text: str) -> int:
    """Parse a count of one at least."""
    if not text.isdecimal() or not int(text):
        raise ValueError("write a number, 1 or more")
    return int(text)


def between(lowest: int, highest: int) -> Callable[[str], int]:
    """Return a number from `lowest` to `highest`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not lowest <= int(text) <= highest:
            raise ValueError(f"write a number from {lowest} to {highest}")
        return int(text)

    return parse


def parse_message_size(text: str) -> int:
    """Bytes of one message."""
    size = parse_size(text)
    if not 0 < size <= MESSAGE_BYTES_MAX:
        raise ValueError(f"write a size up to {MESSAGE_BYTES_MAX >> 20}MiB")
    return size


def parse_packet_size(text: str) -> int:
    """Parse the size of the largest MQTT packet."""
    size = parse_size(text)
    if not 0 < size <= MQTT_PACKET_BYTES_MAX:
        raise ValueError(f"write a size up to {MQTT_PACKET_BYTES_MAX} bytes, as MQTT has no larger")
    return size


def parse_limit(text: str) -> int | None:
    """Parse a maximum, or `none`."""
    return None if text == "none" else between(0, 1 << 31)(text)


def parse_optional_address(text: str) -> ListenAddress | None:
    """Parse an address to listen for clients on, or `none`."""
    return None if text == "none" else parse_client_address(text)


def parse_path(text: str) -> str:
    """Parse the path of an URL."""
    if not text.startswith("/") or not text.isascii() or set(text) & set("?# "):
        raise ValueError("write a path that begins with a slash, such as /ws")
    return text


def parse_origins(text: str) -> frozenset[str] | None:
    """Parse the sites whose pages may connect, with commas between them, or `all`."""
    origins = [origin.strip().lower().rstrip("/") for origin in text.split(",") if origin.strip()]
    if origins in (["all"], ["*"]):
        return None
    parts = [origin.partition("://") for origin in origins]
    if not parts or any(not (scheme and host) or "/" in host for scheme, _, host in parts):
        raise ValueError("write https://HOST or https://HOST:PORT, with commas, or all")
    return frozenset(origins)


def parse_switch(text: str) -> bool:
    """Yes or no, or what TOML and environments call it."""
    words = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if text.lower() not in words:
        raise ValueError("write yes or no")
    return words[text.lower()]


def choice(*words: str) -> Callable[[str], str]:
    """Return a parser of one of `words`, in any case."""

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"write {', '.join(words[:-1])} or {words[-1]}")
        return text.lower()

    return parse


def or_none(parse: Callable[[str], Value]) -> Callable[[str], Value | None]:
    """Return a parser of the same values, and of `none`."""
    return lambda text: None if text.lower() == "none" else parse(text)


def parse_loopback_users(text: str) -> frozenset[str]:
    """Names with commas between them, or none."""
    return frozenset() if text == "none" else frozenset(filter(None, text.split(",")))
