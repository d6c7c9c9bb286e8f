"""users.*, permissions.*: who may log in, and what users may do in virtual hosts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fluffle.broker.access import access
from fluffle.broker.access.access import (
    ADMINISTRATOR,
    LoginRefused,
    Permission,
    TopicPermission,
    User,
    delete_user,
    permissions_of,
    put_permission,
    put_user,
    user_name,
)
from fluffle.broker.access.passwords import SHA256, PasswordHash, check_storable
from fluffle.broker.admin.arguments import Limits, changed_limits, check_name
from fluffle.broker.admin.context import DeferredRow, NodeContext, Result, Row, Rows
from fluffle.broker.base.errors import AccessRefused, BrokerError, NotFound, PreconditionFailed
from fluffle.broker.metadata.change import Change

LIMITS: Mapping[str, str] = {"max-connections": "max_connections", "max-channels": "max_channels"}


def user_row(user: User) -> Row:
    """All there is to say of a user, but for the hash of his password."""
    return {
        "user": user.name,
        "tags": list(user.tags),
        "hashing_algorithm": user.password.algorithm if user.password else None,
        "max_connections": user.limits.max_connections,
        "max_channels": user.limits.max_channels,
    }


def is_administrator(user: User) -> bool:
    return ADMINISTRATOR in user.tags


def existing_user(context: NodeContext, name: str) -> User:
    """NotFound."""
    user = context.access.users.get(name)
    if user is None:
        raise NotFound(f"user '{name}' does not exist")
    return user


def list_users(context: NodeContext) -> Rows:
    """All of them."""
    return map(user_row, tuple(context.access.users.values()))


def show(context: NodeContext, *, name: str) -> Row:
    """Row of one user."""
    return user_row(existing_user(context, name))


def add(
    context: NodeContext,
    *,
    name: str,
    password_hash: str = "",
    hashing_algorithm: str = SHA256,
    tags: list[str] | None = None,
) -> Result:
    """A new user without permissions; without a hash he cannot log in with a password."""
    check_name("user", name)

    def decide() -> Change:
        if name in context.access.users:
            raise PreconditionFailed(f"user '{name}' already exists")
        stored = usable_hash(password_hash, hashing_algorithm)
        return put_user(User(name, stored, tuple(tags or ())))

    return context.change(decide)


def put(
    context: NodeContext,
    *,
    name: str,
    tags: list[str],
    password_hash: str = "",
    hashing_algorithm: str = SHA256,
    limits: Limits | None = None,
    permissions: dict[str, Any] | None = None,
) -> Result:
    """A user as he is to be, whether there was one of that name, with permissions by virtual host;
    limits and permissions that are not named stay.  All of it is done, or nothing."""
    check_name("user", name)
    granted = permissions_of(permissions or {})

    def decide() -> Change:
        user = context.access.users.get(name, User(name))
        stored = usable_hash(password_hash, hashing_algorithm)
        changed = changed_limits(user.limits, LIMITS, limits or {})
        put = put_user(replace(user, password=stored, tags=tuple(tags), limits=changed))
        for vhost, permission in granted.items():
            context.vhost(vhost)
            permission.check()
            put = put.joined(put_permission(name, vhost, permission))
        return put

    return context.change(decide)


def delete(context: NodeContext, *, name: str, force: bool = False) -> Result:
    """A user with his permissions; his connections are closed.

    The last administrator only with `force`: it is mostly guest, before there is another one.
    """

    def decide() -> Change:
        user = existing_user(context, name)
        change = delete_user(context.access, name)
        if force or not is_administrator(user):
            return change
        administrators = filter(is_administrator, context.access.users.values())
        other = next((each for each in administrators if each is not user), None)
        if other is None:
            raise PreconditionFailed(
                f"user '{name}' is the last administrator; add another one, or use force"
            )
        return change._replace(rests_on=(*change.rests_on, user_name(other.name)))

    return context.change(decide)


def set_password(
    context: NodeContext, *, name: str, password_hash: str, hashing_algorithm: str = SHA256
) -> Result:
    """Another password, or with an empty hash none; who is logged in stays."""

    def decide() -> Change:
        user = existing_user(context, name)
        stored = usable_hash(password_hash, hashing_algorithm)
        return put_user(replace(user, password=stored))

    return context.change(decide)


def set_tags(context: NodeContext, *, name: str, tags: list[str]) -> Result:
    """These and no others."""

    def decide() -> Change:
        return put_user(replace(existing_user(context, name), tags=tuple(tags)))

    return context.change(decide)


def set_limits(context: NodeContext, *, name: str, limits: Limits) -> Result:
    """Change the limits that are named."""

    def decide() -> Change:
        user = existing_user(context, name)
        changed = changed_limits(user.limits, LIMITS, limits)
        return put_user(replace(user, limits=changed))

    return context.change(decide)


def authenticate(context: NodeContext, *, name: str, password: str) -> DeferredRow:
    """Check a user's password.  AccessRefused, with what the log would say."""

    def begin(answer: Callable[[Row | BrokerError], None]) -> None:
        def on_login(outcome: User | LoginRefused) -> None:
            if isinstance(outcome, LoginRefused):
                answer(AccessRefused(str(outcome)))
            else:
                answer(user_row(outcome))

        octets = password.encode(errors="surrogateescape")
        context.access.login(name, octets, on_login, from_loopback=True)

    return DeferredRow(begin)


def usable_hash(password_hash: str, hashing_algorithm: str) -> PasswordHash | None:
    """None for an empty one.  UnusableHash."""
    if not password_hash:
        return None
    stored = PasswordHash(password_hash, hashing_algorithm)
    check_storable(stored)
    return stored


def list_permissions(
    context: NodeContext, *, user: str | None = None, vhost: str | None = None
) -> Rows:
    """List the permissions of a user, in a virtual host, or all."""
    check_exist(context, user, vhost)
    return (
        {
            "user": of_user,
            "vhost": in_vhost,
            "configure": permission.configure,
            "write": permission.write,
            "read": permission.read,
        }
        for (of_user, in_vhost), permission in tuple(context.access.permissions.items())
        if user in (None, of_user) and vhost in (None, in_vhost)
    )


def set_permission(
    context: NodeContext, *, user: str, vhost: str, configure: str, write: str, read: str
) -> Result:
    """In the place of what the user has there.  UnusablePattern."""
    permission = Permission(configure, write, read)

    def decide() -> Change:
        check_exist(context, user, vhost)
        permission.check()
        return access.put_permission(user, vhost, permission)

    return context.change(decide)


def clear_permission(context: NodeContext, *, user: str, vhost: str) -> Result:
    """Clear a user's permission for a virtual host; his open connections to it lose all rights."""

    def decide() -> Change:
        check_exist(context, user, vhost)
        return access.clear_permission(context.access, user, vhost)

    return context.change(decide)


def list_topic_permissions(
    context: NodeContext, *, user: str | None = None, vhost: str | None = None
) -> Rows:
    """List the topic permissions of a user, in a virtual host, or all."""
    check_exist(context, user, vhost)
    return (
        {
            "user": of_user,
            "vhost": in_vhost,
            "exchange": exchange,
            "write": permission.write,
            "read": permission.read,
        }
        for (of_user, in_vhost, exchange), permission in tuple(
            context.access.topic_permissions.items()
        )
        if user in (None, of_user) and vhost in (None, in_vhost)
    )


def set_topic_permission(
    context: NodeContext, *, user: str, vhost: str, exchange: str, write: str, read: str
) -> Result:
    """In the place of what the user has for that exchange.  UnusablePattern."""
    permission = TopicPermission(write, read)

    def decide() -> Change:
        check_exist(context, user, vhost)
        permission.check()
        return access.put_topic_permission(user, vhost, exchange, permission)

    return context.change(decide)


def clear_topic_permission(
    context: NodeContext, *, user: str, vhost: str, exchange: str | None = None
) -> Result:
    """Clear a user's topic permissions for one exchange, or for all of the virtual host."""

    def decide() -> Change:
        check_exist(context, user, vhost)
        return access.clear_topic_permissions(context.access, user, vhost, exchange)

    return context.change(decide)


def check_exist(context: NodeContext, user: str | None, vhost: str | None) -> None:
    """NotFound, as long as they are named."""
    if user is not None:
        existing_user(context, user)
    if vhost is not None:
        context.vhost(vhost)


READS: Mapping[str, Callable[..., Any]] = {
    "users.list": list_users,
    "users.show": show,
    "users.authenticate": authenticate,
    "permissions.list": list_permissions,
    "permissions.topic_list": list_topic_permissions,
}

CHANGES: Mapping[str, Callable[..., Any]] = {
    "users.add": add,
    "users.put": put,
    "users.delete": delete,
    "users.password": set_password,
    "users.tags": set_tags,
    "users.limits": set_limits,
    "permissions.set": set_permission,
    "permissions.clear": clear_permission,
    "permissions.topic_set": set_topic_permission,
    "permissions.topic_clear": clear_topic_permission,
}
