"""Rights of one connection in its virtual host, with RabbitMQ's texts for refusals.

Answers are remembered until `forget`, which is called when the user's permissions change: the
patterns are searched once for a name, not once for an operation.
"""

from __future__ import annotations

from fluffle.broker.access.access import Access
from fluffle.broker.access.permissions import RIGHTS, Kind, Right, TopicRight
from fluffle.broker.access.users import User
from fluffle.broker.base.errors import AccessRefused

DEFAULT_EXCHANGE_NAME = "amq.default"
"""Under which the exchange without a name is matched and reported."""

REMEMBERED_MAX = 1024
"""Clients choose the names, so that there must be an end to what is remembered of them."""


class Rights:
    """The rights of a user in a virtual host."""

    __slots__ = ("_access", "_remembered", "_user", "_vhost")

    def __init__(self, access: Access, user: User, vhost: str) -> None:
        self._access = access
        self._user = user
        self._vhost = vhost
        self._remembered: dict[tuple[Right, str], bool] = {}

    def check(self, right: Right, kind: Kind, name: str) -> None:
        """AccessRefused unless the user has this right to a queue or an exchange."""
        shown = name if name or kind == "queue" else DEFAULT_EXCHANGE_NAME
        if not self._has(right, shown):
            raise self._refused(right, kind, shown)

    def check_any(self, kind: Kind, name: str) -> None:
        """AccessRefused unless the user has one of the three rights (RabbitMQ 4.3.1)."""
        if not any(self._has(right, name) for right in RIGHTS):
            raise self._refused("configure", kind, name)

    def may(self, right: Right, name: str) -> bool:
        """Whether the user has this right to a queue."""
        return self._has(right, name)

    def guards_topics(self, exchange: str) -> bool:
        """Whether routing keys matter: there are topic permissions for this exchange."""
        return (self._user.name, self._vhost, exchange) in self._access.topic_permissions

    def check_topic(self, right: TopicRight, exchange: str, routing_key: str) -> None:
        """AccessRefused unless the user may use this key with a topic exchange."""
        name = self._user.name
        permission = self._access.topic_permissions.get((name, self._vhost, exchange))
        if permission is None:
            return
        variables = {"username": name, "vhost": self._vhost}
        if not permission.allows(right, routing_key, variables):
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

    def _refused(self, right: Right, kind: Kind, name: str) -> AccessRefused:
        return AccessRefused(
            f"{right} access to {kind} '{name}' in vhost '{self._vhost}' "
            f"refused for user '{self._user.name}'"
        )
