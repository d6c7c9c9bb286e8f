"""Who may log in, and to which virtual hosts.

Users and their passwords are given at the start; permissions and stored hashes come with durable
storage.  guest may only come from this machine, as with RabbitMQ's `loopback_users`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hmac import compare_digest

LOOPBACK_USERS = frozenset({"guest"})


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who has logged in."""

    name: str


class LoginRefused(Exception):
    """Why a login failed: for the log, never for the client."""


class Access:
    """The users of a node."""

    __slots__ = ("_passwords",)

    def __init__(self, passwords: Mapping[str, str]) -> None:
        self._passwords = {name: text.encode() for name, text in passwords.items()}

    def login(self, name: str, password: bytes, *, from_loopback: bool) -> User:
        """The user of that name and password; LoginRefused otherwise.  No password is blank."""
        known = self._passwords.get(name)
        if known is None:
            raise LoginRefused(f"user '{name}' does not exist")
        if not password or not compare_digest(known, password):
            raise LoginRefused(f"user '{name}' gave a wrong password")
        return self.login_certified(name, from_loopback=from_loopback)

    def login_certified(self, name: str, *, from_loopback: bool) -> User:
        """The user of that name, who has proved to be the one; LoginRefused if there is none."""
        if name not in self._passwords:
            raise LoginRefused(f"user '{name}' does not exist")
        if name in LOOPBACK_USERS and not from_loopback:
            raise LoginRefused(f"user '{name}' can only connect via localhost")
        return User(name)
