"""Users as they are stored."""

from dataclasses import dataclass, field

from fluffle.broker.access.limits import UserLimits
from fluffle.broker.access.passwords import PasswordHash

ADMINISTRATOR = "administrator"
IMPERSONATOR = "impersonator"
"""May publish under another's user-id; the other tags are about management alone."""


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
