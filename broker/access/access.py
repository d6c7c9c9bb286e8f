"""Access: the users of a node and their permissions, who logs in, and what a connection may do.

`Access` holds what is so; what is to change is decided by functions, and applied elsewhere.  What a
connection may do is asked of its `Rights`, with RabbitMQ's texts for refusals.  Names of virtual
hosts are taken as they come: that there is such a host is the caller's business.

A permission is three patterns for a user in a virtual host, one for topics is two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from fluffle.broker.access.limits import Usage, UserLimits
from fluffle.broker.access.passwords import PasswordHash, decoy, why_unusable
from fluffle.broker.access.verification import (
    Answer,
    PasswordVerdict,
    VerificationRequest,
    Verifier,
    always,
    run_here,
)
from fluffle.broker.base.callbacks import call_listener
from fluffle.broker.base.errors import AccessRefused, SyntaxFailure
from fluffle.broker.config.config import DEFAULT_USER
from fluffle.broker.metadata.change import NOTHING, Change, Fact, Key, Kind, Name
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


def decoded_user_name(octets: bytes) -> str:
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


BUSY = PasswordVerdict.BUSY

DEFAULT_EXCHANGE_NAME = "amq.default"
"""Under which the exchange without a name is matched and reported."""

REMEMBERED_MAX = 1024
"""Clients choose the names, so that there must be an end to what is remembered of them."""


class LoginRefused(Exception):
    """Why a login failed: for the log, never for the client."""


class LoopbackOnly(LoginRefused):
    """The user is who he says, and may come from this machine alone."""


class PasswordChecksOverloaded(LoginRefused):
    """Refusal because too many passwords are being compared; logged once."""

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
    """The tables, and listeners for a change of them."""

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
        """Hash to compare with for unknown users, once a user has a slow hash."""
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
            elif user is None or self.current(user) is None:
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
            return LoopbackOnly(f"user '{name}' can only connect via localhost")
        return user

    def current(self, user: User) -> User | None:
        """Return the user as he is now; None if he was deleted or made anew since his login, or has
        another password."""
        found = self.users.get(user.name)
        is_same = found is user or (found is not None and found.password == user.password)
        return found if is_same else None

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


class Rights:
    """The rights of one connection in its virtual host.

    Answers are remembered until `forget`, which is called when the permissions of the user change:
    the patterns are searched once for a name, not once for an operation.
    """

    __slots__ = ("_access", "_remembered", "_user", "_vhost", "topic_variables")

    def __init__(self, access: Access, user: User, vhost: str) -> None:
        self._access = access
        self._user = user
        self._vhost = vhost
        self._remembered: dict[tuple[Right, str], bool] = {}
        self.topic_variables = {"username": user.name, "vhost": vhost}
        """Values of variables in topic permissions, by name; a protocol may add its own, as MQTT
        its `client_id`."""

    def check(self, right: Right, kind: ResourceKind, name: str) -> None:
        """AccessRefused unless the user has this right to a queue or an exchange."""
        shown = name if name or kind == "queue" else DEFAULT_EXCHANGE_NAME
        if not self._has(right, shown):
            raise self._refused(right, kind, shown)

    def check_any(self, kind: ResourceKind, name: str) -> None:
        """AccessRefused unless the user has one of the three rights (RabbitMQ 4.3.1)."""
        if not any(self._has(right, name) for right in RIGHTS):
            raise self._refused("configure", kind, name)

    def may(self, right: Right, name: str) -> bool:
        """True if the user has this right to a queue."""
        return self._has(right, name)

    def guards_topics(self, exchange: str) -> bool:
        """True if routing keys matter: there are topic permissions for this exchange."""
        return (self._user.name, self._vhost, exchange) in self._access.topic_permissions

    def check_topic(self, right: TopicRight, exchange: str, routing_key: str) -> None:
        """AccessRefused unless the user may use this key with a topic exchange."""
        name = self._user.name
        permission = self._access.topic_permissions.get((name, self._vhost, exchange))
        if permission is None:
            return
        if not permission.allows(right, routing_key, self.topic_variables):
            raise AccessRefused(
                f"{right} access to topic '{routing_key}' in exchange '{exchange}' in vhost "
                f"'{self._vhost}' refused for user '{name}'"
            )

    def forget(self) -> None:
        """Forget all answers: permissions have changed."""
        self._remembered.clear()

    def forget_beyond(self, count: int) -> None:
        """Forget all answers if more than `count` are remembered: memory is short."""
        if len(self._remembered) > count:
            self._remembered.clear()

    def _has(self, right: Right, name: str) -> bool:
        key = (right, name)
        answer = self._remembered.get(key)
        if answer is None:
            if len(self._remembered) >= REMEMBERED_MAX:
                self._remembered.clear()
            permission = self._access.permissions.get((self._user.name, self._vhost))
            answer = permission is not None and permission.allows(right, name)
            self._remembered[key] = answer
        return answer

    def _refused(self, right: Right, kind: ResourceKind, name: str) -> AccessRefused:
        return AccessRefused(
            f"{right} access to {kind} '{name}' in vhost '{self._vhost}' "
            f"refused for user '{self._user.name}'"
        )


# Changes: decided here, applied elsewhere


def user_name(name: str) -> Name:
    return Kind.USER, (name,)


def put_user(user: User) -> Change:
    """Make a user, or change the one of that name, who is as he was looked at."""
    kind, key = name = user_name(user.name)
    return Change(puts=(Fact(kind, key, user),), rests_on=(name,))


def delete_user(access: Access, name: str) -> Change:
    """Remove a user and his permissions, unless he is gone."""
    user = access.users.get(name)
    if user is None:
        return NOTHING
    kind, key = user_name(name)
    return Change(removes=(*rights(access, lambda key: key[0] == name), Fact(kind, key, user)))


def put_permission(user: str, vhost: str, permission: Permission) -> Change:
    return Change(puts=(Fact(Kind.PERMISSION, (user, vhost), permission),))


def put_topic_permission(
    user: str, vhost: str, exchange: str, permission: TopicPermission
) -> Change:
    return Change(puts=(Fact(Kind.TOPIC_PERMISSION, (user, vhost, exchange), permission),))


def clear_permission(access: Access, user: str, vhost: str) -> Change:
    """Remove the permission for a virtual host; those for topics stay."""
    permission = access.permissions.get((user, vhost))
    if permission is None:
        return NOTHING
    return Change(removes=(Fact(Kind.PERMISSION, (user, vhost), permission),))


def clear_topic_permissions(
    access: Access, user: str, vhost: str, exchange: str | None = None
) -> Change:
    """Remove the topic permissions for one exchange, or for all in the virtual host."""

    def concerns(key: Key) -> bool:
        return key[:2] == (user, vhost) and exchange in (None, key[2])

    return Change(removes=tuple(topic_rights(access, concerns)))


def rights(access: Access, concerns: Callable[[Key], bool]) -> Iterator[Fact]:
    """Permissions by their names, those for topics too."""
    for key, permission in access.permissions.items():
        if concerns(key):
            yield Fact(Kind.PERMISSION, key, permission)
    yield from topic_rights(access, concerns)


def topic_rights(access: Access, concerns: Callable[[Key], bool]) -> Iterator[Fact]:
    for key, permission in access.topic_permissions.items():
        if concerns(key):
            yield Fact(Kind.TOPIC_PERMISSION, key, permission)
