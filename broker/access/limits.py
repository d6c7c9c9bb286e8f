"""How many connections, channels and queues a user or a virtual host may have, and how many are.

RabbitMQ's rule: no limit when there is none or it is negative, and nothing at all when it is 0.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

PROTECTED = "protected_from_deletion"
"""Metadata key of a virtual host that is protected from deletion."""


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
    """Settings of a virtual host that can be changed."""

    limits: VhostLimits = VhostLimits()
    metadata: Mapping[str, object] = field(default_factory=dict)
    """Description, tags and default_queue_type, by name; the values are JSON."""

    @property
    def is_protected(self) -> bool:
        return self.metadata.get(PROTECTED) is True


def is_reached(limit: int | None, count: int) -> bool:
    """True if there can be no more than `count`."""
    return limit is not None and 0 <= limit <= count


class LimitedResource(IntEnum):
    """Kind of thing that is limited in number.

    Between nodes as it is here.
    """

    CONNECTIONS_OF_USER = 0
    CONNECTIONS_TO_VHOST = 1
    CHANNELS_OF_USER = 2


Counts: TypeAlias = Mapping[LimitedResource, dict[str, int]]
"""Counts by name of a user or virtual host, for each limited resource; zero counts have no
entry."""


@dataclass(slots=True)
class Usage:
    """How many there are on this node, and on the others as far as they have said."""

    here: Mapping[LimitedResource, Counter[str]] = field(
        default_factory=lambda: {what: Counter() for what in LimitedResource}
    )
    elsewhere: dict[str, Counts] = field(default_factory=dict)
    """Counts on the other nodes, by node."""
    on_change: Callable[[LimitedResource, str], None] | None = None
    """Tells the other nodes of a change, where there are any."""

    @property
    def connection_count(self) -> int:
        return self.here[LimitedResource.CONNECTIONS_TO_VHOST].total()

    def in_all(self, what: LimitedResource, name: str) -> int:
        """Return the count of all nodes together."""
        others = sum(counts[what].get(name, 0) for counts in self.elsewhere.values())
        return self.here[what].get(name, 0) + others

    def opened(self, user: str, vhost: str) -> None:
        """A connection has opened a virtual host."""
        self._count(LimitedResource.CONNECTIONS_OF_USER, user, 1)
        self._count(LimitedResource.CONNECTIONS_TO_VHOST, vhost, 1)

    def closed(self, user: str, vhost: str) -> None:
        """Count a connection or channel that has ended."""
        self._count(LimitedResource.CONNECTIONS_OF_USER, user, -1)
        self._count(LimitedResource.CONNECTIONS_TO_VHOST, vhost, -1)

    def channel_opened(self, user: str) -> None:
        self._count(LimitedResource.CHANNELS_OF_USER, user, 1)

    def channel_closed(self, user: str) -> None:
        self._count(LimitedResource.CHANNELS_OF_USER, user, -1)

    def _count(self, what: LimitedResource, name: str, more: int) -> None:
        counts = self.here[what]
        count = counts.get(name, 0) + more
        if count:
            counts[name] = count
        else:
            counts.pop(name, None)
        if self.on_change is not None:
            self.on_change(what, name)
