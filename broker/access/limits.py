"""How many connections, channels and queues a user or a virtual host may have, and how many are.

RabbitMQ's rule: no limit when there is none or it is negative, and nothing at all when it is 0.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class UserLimits:
    max_connections: int | None = None
    max_channels: int | None = None


@dataclass(frozen=True, slots=True)
class VhostLimits:
    max_connections: int | None = None
    max_queues: int | None = None


@dataclass(frozen=True, slots=True)
class VhostSettings:
    """What can be changed of a virtual host as a whole."""

    limits: VhostLimits = VhostLimits()
    metadata: Mapping[str, object] = field(default_factory=dict)
    """What definitions say of it besides: description, tags, default_queue_type.  JSON."""


def is_reached(limit: int | None, count: int) -> bool:
    """Whether there can be no more than `count`."""
    return limit is not None and 0 <= limit <= count


@dataclass(slots=True)
class Usage:
    """How many there are on this node.  A name with none has no entry."""

    connections_of_user: Counter[str] = field(default_factory=Counter)
    connections_to_vhost: Counter[str] = field(default_factory=Counter)
    channels_of_user: Counter[str] = field(default_factory=Counter)

    @property
    def connection_count(self) -> int:
        return self.connections_to_vhost.total()

    def opened(self, user: str, vhost: str) -> None:
        """A connection has opened a virtual host."""
        self.connections_of_user[user] += 1
        self.connections_to_vhost[vhost] += 1

    def closed(self, user: str, vhost: str) -> None:
        """It has ended."""
        subtract(self.connections_of_user, user)
        subtract(self.connections_to_vhost, vhost)

    def channel_opened(self, user: str) -> None:
        self.channels_of_user[user] += 1

    def channel_closed(self, user: str) -> None:
        subtract(self.channels_of_user, user)


def subtract(counts: Counter[str], name: str) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]
