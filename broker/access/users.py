"""Users as they are stored, and their permissions.

A permission is three patterns for a user in a virtual host, one for topics is two.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from fluffle.broker.access.limits import UserLimits
from fluffle.broker.access.passwords import PasswordHash
from fluffle.broker.base.errors import SyntaxFailure
from fluffle.broker.patterns.patterns import compiled, expanded, found

ADMINISTRATOR = "administrator"
IMPERSONATOR = "impersonator"
"""May publish under another's user-id; the other tags are about management alone."""

Right: TypeAlias = Literal["configure", "write", "read"]
RIGHTS: tuple[Right, ...] = ("configure", "write", "read")
TopicRight: TypeAlias = Literal["write", "read"]
TOPIC_RIGHTS: tuple[TopicRight, ...] = ("write", "read")
ResourceKind: TypeAlias = Literal["queue", "exchange"]


@dataclass(frozen=True, slots=True)
class User:
    """User account, as it is stored.

    Without a password he cannot do so by one.
    """

    name: str
    password: PasswordHash | None = None
    tags: tuple[str, ...] = ()
    limits: UserLimits = field(default_factory=UserLimits)

    @property
    def may_impersonate(self) -> bool:
        return IMPERSONATOR in self.tags


def user_name(octets: bytes) -> str:
    """Return a user name as a client sends it; bytes that are not UTF-8 make one that no user
    has."""
    return octets.decode(errors="surrogateescape")


@dataclass(frozen=True, slots=True)
class Permission:
    """Three patterns of one user in one virtual host: what he may configure, write and read."""

    configure: str = ""
    write: str = ""
    read: str = ""

    def allows(self, right: Right, name: str) -> bool:
        return found(getattr(self, right), name)

    def check(self) -> None:
        """UnusablePattern when one of the three cannot be read."""
        for right in RIGHTS:
            compiled(getattr(self, right))


def permissions_of(rows: Mapping[str, Any]) -> dict[str, Permission]:
    """Permissions by virtual host, as a user carries them in the management API and in definitions.
    SyntaxFailure for an entry that is no object of the three patterns."""
    found = {}
    for vhost, row in rows.items():
        if not isinstance(row, Mapping) or not all(isinstance(row.get(it), str) for it in RIGHTS):
            names = ", ".join(f"'{right}'" for right in RIGHTS)
            raise SyntaxFailure(f"permissions in vhost '{vhost}' need {names}, each a string")
        found[vhost] = Permission(**{right: row[right] for right in RIGHTS})
    return found


@dataclass(frozen=True, slots=True)
class TopicPermission:
    """Right of a user to publish to a topic exchange, or bind to it, by routing key."""

    write: str = ""
    read: str = ""

    def allows(self, right: TopicRight, routing_key: str, variables: Mapping[str, str]) -> bool:
        """`variables` are the values of `{username}`, `{vhost}` and others that a client has."""
        return found(expanded(getattr(self, right), variables), routing_key)

    def check(self) -> None:
        """UnusablePattern when one of the two cannot be read."""
        for right in TOPIC_RIGHTS:
            compiled(expanded(getattr(self, right), {"username": "u", "vhost": "v"}))
