"""What definitions are about: the parts of a node that they fill, and that they are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from fluffle.broker.access.access import Access
from fluffle.broker.vhost import VirtualHost

Entry: TypeAlias = dict[str, Any]
"""An object of the file."""


@dataclass(slots=True)
class Kept:
    """What definitions hold that nothing acts on yet: it is kept as it came, and exported again."""

    policies: list[Entry] = field(default_factory=list)
    parameters: list[Entry] = field(default_factory=list)
    global_parameters: list[Entry] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The definable parts of a node."""

    access: Access
    vhosts: dict[str, VirtualHost]
    make_vhost: Callable[[str], VirtualHost]
    kept: Kept = field(default_factory=Kept)

    def vhost(self, name: str) -> VirtualHost:
        """The virtual host of that name, made if there is none."""
        vhost = self.vhosts.get(name)
        if vhost is None:
            vhost = self.vhosts[name] = self.make_vhost(name)
        return vhost

    def delete_vhost(self, name: str) -> None:
        """Remove a virtual host with all that is in it or about it; its connections are closed."""
        self.vhosts.pop(name, None)
        kept = self.kept
        kept.policies[:] = [entry for entry in kept.policies if entry["vhost"] != name]
        kept.parameters[:] = [entry for entry in kept.parameters if entry["vhost"] != name]
        self.access.delete_vhost(name)
