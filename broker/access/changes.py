"""Changes of users and permissions: decided here, applied elsewhere.

That a user or a virtual host is there is the caller's business, as far as he wants to say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fluffle.broker.access.access import Access
from fluffle.broker.access.permissions import Permission, TopicPermission
from fluffle.broker.access.users import User
from fluffle.broker.metadata.change import NOTHING, Change, Fact, Name
from fluffle.broker.metadata.facts import Key, Kind


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
