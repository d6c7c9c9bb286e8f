"""Arguments of brokers and virtual hosts for tests: paths, URLs, and `VhostRequirements`.

@pytest.mark.amqp(users={"app": "secret"}, permissions={"app": ("^app", ".*", ".*")})
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote


def amqp_url(user: str, password: str, address: str, vhost: str, *, scheme: str = "amqp") -> str:
    """Build an AMQP URL; `address` is HOST:PORT, or the path of a unix socket, quoted."""
    name, secret, place = (quote(each, safe="") for each in (user, password, vhost))
    return f"{scheme}://{name}:{secret}@{address}/{place}"


class MqttUrl(str):
    """MQTT URL, which has its parts as attributes for clients that take no URL.

    The user name is `VHOST:USER`, by which a client says which virtual host it wants.
    """

    host: str
    port: int
    username: str
    password: str

    def __new__(cls, user: str, password: str, address: tuple[str, int], vhost: str) -> MqttUrl:
        host, port = address
        username = f"{vhost}:{user}"
        name, secret = quote(username, safe=""), quote(password, safe="")
        url = super().__new__(cls, f"mqtt://{name}:{secret}@{host}:{port}")
        url.host, url.port, url.username, url.password = host, port, username, password
        return url


def mqtt_urls(
    users: Mapping[str, str], address: tuple[str, int] | None, vhost: str
) -> dict[str, MqttUrl]:
    """Build an MQTT URL for each user with a password; none without an address."""
    if address is None:
        return {}
    return {user: MqttUrl(user, password, address, vhost) for user, password in users.items()}


class VhostUrls(NamedTuple):
    """URLs of a virtual host by user, those of the first user first."""

    amqp: Mapping[str, str]
    mqtt: Mapping[str, MqttUrl]
    """Empty where no port is open for MQTT."""


def first_url(urls: Mapping[str, MqttUrl]) -> MqttUrl:
    """Return the URL of the first user.  RuntimeError if there is none, since there is no port."""
    if not urls:
        raise RuntimeError("a broker that listens at a unix socket has no port for MQTT")
    return next(iter(urls.values()))


PathArgument: TypeAlias = "str | PathLike[str]"


def path_of(argument: str, value: PathArgument | None) -> Path | None:
    """Return `value` as a Path; None stays None.  Raises TypeError unless it is a str or
    PathLike."""
    if value is None:
        return None
    if not isinstance(value, str | PathLike):
        raise TypeError(f"{argument} is a path, not {value!r}")
    return Path(value)


def socket_path_of(value: PathArgument | None) -> Path | None:
    """Return an absolute path of a socket.  TypeError for what is meant as an address, and would
    be a file's name."""
    path = path_of("listen", value)
    if isinstance(value, str) and "/" not in value:
        raise TypeError(
            f"listen is the path of a unix socket, not {value!r}; without it a free port is taken"
        )
    return path and path.absolute()


def names_of(argument: str, value: Sequence[str]) -> tuple[str, ...]:
    """Return names as a list.  TypeError for a string, of which each letter would be one."""
    if isinstance(value, str):
        raise TypeError(f"{argument} are names: {argument}=[{value!r}], not {value!r}")
    return tuple(value)


Definitions: TypeAlias = "Mapping[str, Any] | str | PathLike[str]"

IN_VHOST = ("parameters", "policies", "exchanges", "queues", "bindings")
"""Categories of definitions in one virtual host, in the order in which they can be made.  Users and
their rights are not taken from there: a test says which it wants."""


class RightPatterns(NamedTuple):
    """Three patterns, in the order of `rabbitmqctl set_permissions`."""

    configure: str = ".*"
    write: str = ".*"
    read: str = ".*"


@dataclass(frozen=True, slots=True)
class VhostRequirements:
    """The default: a virtual host in which all users of the broker may do everything."""

    users: Mapping[str, str] = field(
        default_factory=dict, metadata={"is": "names with passwords; the first one is in the URL"}
    )
    permissions: Mapping[str, tuple[str, str, str]] = field(
        default_factory=dict, metadata={"is": "names with patterns (configure, write, read)"}
    )
    definitions: Definitions | None = field(
        default=None, metadata={"is": "RabbitMQ's JSON, as a dict or a path"}
    )
    default_queue_type: str | None = field(default=None, metadata={"is": "'classic' or 'quorum'"})

    def rights(self, others: Iterable[str]) -> dict[str, RightPatterns]:
        """Return what each user may do: those that are named here, and `others`, who are there
        already."""
        names = dict.fromkeys((*self.users, *others, *self.permissions))
        return {name: RightPatterns(*self.permissions.get(name, ())) for name in names}

    def entries(self) -> dict[str, list[dict[str, Any]]]:
        """Return what is to be made, by category, without the virtual host that it names.
        ValueError."""
        content = content_of(self.definitions)
        found = {name: [dict(each) for each in content.get(name, ())] for name in IN_VHOST}
        homes = {each.pop("vhost", None) for entries in found.values() for each in entries}
        if len(homes) > 1:
            named = ", ".join(sorted(map(repr, homes)))
            raise ValueError(f"the definitions are of more than one virtual host: {named}")
        return {name: entries for name, entries in found.items() if entries}


def content_of(definitions: Definitions | None) -> Mapping[str, Any]:
    """Read definitions.  OSError, ValueError."""
    if isinstance(definitions, Mapping):
        return definitions
    if definitions is None:
        return {}
    content = json.loads(Path(definitions).read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"definitions {definitions}: there is no object at the top")
    return content


def requirements_of(arguments: Iterable[Mapping[str, Any]]) -> VhostRequirements:
    """Join the arguments of several marks; what the first one says counts.  TypeError for what
    there is not."""
    given: dict[str, Any] = {}
    known = {each.name: each.metadata["is"] for each in fields(VhostRequirements)}
    for each in arguments:
        for name, value in each.items():
            if name not in known:
                there = "; ".join(f"{name}: {what}" for name, what in known.items())
                raise TypeError(f"@pytest.mark.amqp has no argument '{name}', but {there}")
            given.setdefault(name, value)
    return VhostRequirements(**given)


NOTHING_SPECIAL = VhostRequirements()
