"""permissions.*: what users may do in virtual hosts, and with which routing keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fluffle.broker.access import changes
from fluffle.broker.access.permissions import Permission, TopicPermission
from fluffle.broker.admin.context import NodeContext, Result, Rows
from fluffle.broker.admin.users import existing_user
from fluffle.broker.metadata.change import Change


def list_permissions(
    context: NodeContext, *, user: str | None = None, vhost: str | None = None
) -> Rows:
    """Those of a user, in a virtual host, or all."""
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
        return changes.put_permission(user, vhost, permission)

    return context.change(decide)


def clear_permission(context: NodeContext, *, user: str, vhost: str) -> Result:
    """He cannot open the virtual host any more; who is in it may do nothing."""

    def decide() -> Change:
        check_exist(context, user, vhost)
        return changes.clear_permission(context.access, user, vhost)

    return context.change(decide)


def list_topic_permissions(
    context: NodeContext, *, user: str | None = None, vhost: str | None = None
) -> Rows:
    """Those of a user, in a virtual host, or all."""
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
        return changes.put_topic_permission(user, vhost, exchange, permission)

    return context.change(decide)


def clear_topic_permission(
    context: NodeContext, *, user: str, vhost: str, exchange: str | None = None
) -> Result:
    """For one exchange, or for all in the virtual host."""

    def decide() -> Change:
        check_exist(context, user, vhost)
        return changes.clear_topic_permissions(context.access, user, vhost, exchange)

    return context.change(decide)


def check_exist(context: NodeContext, user: str | None, vhost: str | None) -> None:
    """NotFound, as long as they are named."""
    if user is not None:
        existing_user(context, user)
    if vhost is not None:
        context.vhost(vhost)


READS: Mapping[str, Callable[..., Any]] = {
    "permissions.list": list_permissions,
    "permissions.topic_list": list_topic_permissions,
}
CHANGES: Mapping[str, Callable[..., Any]] = {
    "permissions.set": set_permission,
    "permissions.clear": clear_permission,
    "permissions.topic_set": set_topic_permission,
    "permissions.topic_clear": clear_topic_permission,
}
