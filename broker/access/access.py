"""The users of a node and their permissions; who logs in, and who must hear of a change.

What is to change is decided in `changes`; here is what is so.
Names of virtual hosts are taken as they come: that there is such a host is the caller's business.
What a connection may do is asked of its `Rights`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from fluffle.broker.access.limits import Usage
from fluffle.broker.access.passwords import PasswordHash, decoy, why_unusable
from fluffle.broker.access.permissions import Permission, TopicPermission
from fluffle.broker.access.users import User
from fluffle.broker.access.verification import (
    Answer,
    PasswordVerdict,
    VerificationRequest,
    Verifier,
    always,
    run_here,
)
from fluffle.broker.base.listeners import call_listener
from fluffle.broker.config.config import DEFAULT_USER

BUSY = PasswordVerdict.BUSY


class LoginRefused(Exception):
    """Why a login failed: for the log, never for the client."""


class PasswordChecksOverloaded(LoginRefused):
    """So many passwords are being compared that this one is not; the log says so once."""

    def __init__(self) -> None:
        super().__init__("too many passwords are being compared")


LoginAnswer: TypeAlias = Callable[[User | LoginRefused], None]


@dataclass(slots=True)
class AccessTables:
    """Users by name; permissions by user and virtual host, those for topics by exchange too."""

    users: dict[str, User] = field(default_factory=dict)
    permissions: dict[tuple[str, str], Permission] = field(default_factory=dict)
    topic_permissions: dict[tuple[str, str, str], TopicPermission] = field(default_factory=dict)


class Access:
    """The tables, and who must hear of a change of them."""

    __slots__ = (
        "_decoy",
        "_listeners",
        "_loopback_users",
        "_verifier",
        "permissions",
        "topic_permissions",
        "usage",
        "users",
    )

    def __init__(
        self,
        *,
        loopback_users: frozenset[str] = frozenset({DEFAULT_USER}),
        verifier: Verifier | None = None,
        tables: AccessTables | None = None,
    ) -> None:
        """`tables` as an earlier process left them."""
        tables = tables or AccessTables()
        self.users = tables.users
        self.permissions = tables.permissions
        self.topic_permissions = tables.topic_permissions
        self.usage = Usage()
        self._loopback_users = loopback_users
        self._verifier = verifier or Verifier(run_here)
        self._listeners: dict[str, dict[Callable[[], None], None]] = {}
        self._decoy: PasswordHash | None = None
        """What is compared where there is nothing to compare, once a user has a slow hash."""
        for user in self.users.values():
            self._note_slow_hash(user)

    # Logging in

    def login(
        self,
        name: str,
        password: bytes,
        answer: LoginAnswer,
        *,
        from_loopback: bool,
        source: str = "",
        is_there: Callable[[], bool] = always,
    ) -> None:
        """Call `answer`, now or later, with the user of that name and password or a refusal.

        `source` is the address the client comes from, and `is_there` whether he still waits.
        """
        user = self.users.get(name)
        stored = user.password if user is not None else None

        def compare(stored: PasswordHash, act: Answer) -> None:
            self._verifier.verify(stored, password, VerificationRequest(act, is_there, source))

        def refuse(reason: str) -> None:
            """Refuse as late, where slow hashes are in use, as if one had been compared: time gives
            nothing away."""
            refused = LoginRefused(f"user '{name}' {reason}")
            if self._decoy is None or (stored is not None and stored.is_slow):
                answer(refused)
            else:
                compare(
                    self._decoy,
                    lambda it: answer(PasswordChecksOverloaded() if it is BUSY else refused),
                )

        def on_verdict(verdict: PasswordVerdict) -> None:
            if verdict is BUSY:
                answer(PasswordChecksOverloaded())
            elif verdict is PasswordVerdict.WRONG:
                unusable = stored and why_unusable(stored)
                refuse(f"has no usable hash: {unusable}" if unusable else "gave a wrong password")
            elif self.users.get(name) is not user:
                answer(LoginRefused(f"user '{name}' was changed meanwhile"))
            else:
                answer(self.admit(name, from_loopback=from_loopback))

        if stored is not None:
            compare(stored, on_verdict)
        else:
            refuse("does not exist" if user is None else "has no password")

    def admit(self, name: str, *, from_loopback: bool) -> User | LoginRefused:
        """Return the user of that name, who has shown in another way that it is his."""
        user = self.users.get(name)
        if user is None:
            return LoginRefused(f"user '{name}' does not exist")
        if name in self._loopback_users and not from_loopback:
            return LoginRefused(f"user '{name}' can only connect via localhost")
        return user

    # Facts, wherever they were decided

    def put_user(self, user: User) -> None:
        """Add a user, in the place of one of that name."""
        self.users[user.name] = user
        self._note_slow_hash(user)

    def remove_user(self, name: str) -> None:
        """Remove a user; the permissions are facts of their own."""
        del self.users[name]

    def _note_slow_hash(self, user: User) -> None:
        if self._decoy is None and user.password is not None and user.password.is_slow:
            self._decoy = decoy(user.password)

    # Who must hear of it

    def listen(self, user: str, listener: Callable[[], None]) -> None:
        """Call `listener` after every change that concerns a user."""
        self._listeners.setdefault(user, {})[listener] = None

    def unlisten(self, user: str, listener: Callable[[], None]) -> None:
        listeners = self._listeners.get(user, {})
        listeners.pop(listener, None)
        if not listeners:
            self._listeners.pop(user, None)

    def notify(self, user: str) -> None:
        """Notify the listeners of a user that something of it has changed."""
        for listener in tuple(self._listeners.get(user, ())):
            call_listener(listener)

    @property
    def listened_to(self) -> tuple[str, ...]:
        """Users whose changes have a listener."""
        return tuple(self._listeners)
