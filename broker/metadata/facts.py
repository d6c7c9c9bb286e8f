"""The port to what remembers the definitions of a node when the process does not.

The owner of a definition puts it, at the moment of a change, what is true from now on: a kind, a
name that is unique within it, and a value.  Only what must outlive the process is put.
"""

from enum import StrEnum
from typing import Protocol, TypeAlias

Key: TypeAlias = tuple[str | bytes, ...]
"""A name: what it stands in, then its own; `Kind` says which parts."""


class Kind(StrEnum):
    """Kind of a stored fact, with the parts of its names."""

    STARTED = "started"
    """(): what belongs to a first start has been made."""
    USER = "user"
    """(user)"""
    VHOST = "vhost"
    """(vhost)"""
    DOOMED = "doomed"
    """(vhost): it is being deleted; what is left of it goes at the next start."""
    PERMISSION = "permission"
    """(user, vhost)"""
    TOPIC_PERMISSION = "topic_permission"
    """(user, vhost, exchange)"""
    EXCHANGE = "exchange"
    """(vhost, exchange)"""
    QUEUE = "queue"
    """(vhost, queue)"""
    BINDING = "binding"
    """(vhost, source, kind of destination, destination, routing key, arguments)"""
    POLICY = "policy"
    """(vhost, policy)"""
    PARAMETER = "parameter"
    """(vhost, component, parameter)"""
    GLOBAL_PARAMETER = "global_parameter"
    """(parameter)"""
    NODE = "node"
    """(node): it is one of the cluster; there are none of these where a node is alone."""


class Facts(Protocol):
    """Receiver of changed facts, which are durable later: see `Commits`."""

    def put(self, kind: Kind, key: Key, value: object) -> None:
        """Put a fact, in place of what was under that name."""

    def remove(self, kind: Kind, key: Key) -> None:
        """Remove a fact."""


class NoFacts:
    """Remembers nothing: for what ends with the process."""

    __slots__ = ()

    def put(self, kind: Kind, key: Key, value: object) -> None:
        """Do nothing: no fact is read again."""

    def remove(self, kind: Kind, key: Key) -> None:
        """Do nothing: no fact is read again."""


NO_FACTS = NoFacts()
