"""What definitions are about: the parts of a node that they fill, and that they are made of."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from fluffle.broker.access.access import Access
from fluffle.broker.errors import PreconditionFailed
from fluffle.broker.facts import FORGOTTEN, Facts, Key, Kind
from fluffle.broker.recording.image import KEPT, Entry, Image, VhostImage
from fluffle.broker.vhost import VirtualHost


class Kept:
    """What definitions hold that nothing acts on yet: it is kept as it came, and exported again."""

    __slots__ = ("_entries", "_facts")

    def __init__(self, facts: Facts = FORGOTTEN, image: Image | None = None) -> None:
        self._facts = facts
        self._entries = (image or Image()).kept

    @property
    def policies(self) -> list[Entry]:
        return list(self._entries[Kind.POLICY].values())

    @property
    def parameters(self) -> list[Entry]:
        return list(self._entries[Kind.PARAMETER].values())

    @property
    def global_parameters(self) -> list[Entry]:
        return list(self._entries[Kind.GLOBAL_PARAMETER].values())

    def put(self, kind: Kind, entry: Entry) -> None:
        """Keep an entry in the place of an earlier one with the same names."""
        key = tuple(str(entry[name]) for name in KEPT[kind])
        self._entries[kind][key] = entry
        self._facts.put(kind, key, entry)

    def delete_vhost(self, vhost: str) -> None:
        """Forget what belongs to a virtual host."""
        for kind, names in KEPT.items():
            if names[0] == "vhost":
                for key in [key for key in self._entries[kind] if key[0] == vhost]:
                    self._remove(kind, key)

    def _remove(self, kind: Kind, key: Key) -> None:
        del self._entries[kind][key]
        self._facts.remove(kind, key)


class MakeVhost(Protocol):
    """Makes a virtual host: a new one, or one that was there."""

    def __call__(self, name: str, image: VhostImage | None = None) -> VirtualHost: ...


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The definable parts of a node."""

    access: Access
    vhosts: dict[str, VirtualHost]
    """For reading."""
    make_vhost: Callable[[str], VirtualHost]
    facts: Facts = FORGOTTEN
    kept: Kept = field(default_factory=Kept)
    doomed: set[str] = field(default_factory=set)
    """Names of virtual hosts of which something is left to be deleted."""

    def vhost(self, name: str) -> VirtualHost:
        """The virtual host of that name, made if there is none.

        PreconditionFailed while one of that name is being deleted.
        """
        vhost = self.vhosts.get(name)
        if vhost is None:
            if name in self.doomed:
                raise PreconditionFailed(f"vhost '{name}' is being deleted")
            vhost = self.vhosts[name] = self.make_vhost(name)
            self.facts.put(Kind.VHOST, (name,), vhost.settings)
        return vhost

    def delete_vhost(self, name: str) -> None:
        """Remove one with all that is in it or about it, in one go, if it is there."""
        if name in self.vhosts:
            for _ in self.dismantle(self.doom(name)):
                pass

    def doom(self, name: str) -> VirtualHost:
        """Nobody can open a virtual host any more, and its connections are closed.

        Once all of them are, `dismantle` must follow; if the process ends before it has, the next
        start does it.
        """
        vhost = self.vhosts.pop(name)
        self.doomed.add(name)
        self.facts.put(Kind.DOOMED, (name,), None)  # first: the rest may be in a later commit
        self.kept.delete_vhost(name)
        self.access.delete_vhost(name)
        return vhost

    def dismantle(self, vhost: VirtualHost) -> Iterator[None]:
        """Remove all that is in it, a queue or an exchange at a time, and free its name."""
        queues = deque(vhost.queues.values())
        while queues:
            vhost.delete_queue(queues.popleft())  # and let go of it: all at the end takes long
            yield
        yield from vhost.topology.clear()
        for kind in (Kind.VHOST, Kind.DOOMED):
            self.facts.remove(kind, (vhost.name,))
        self.doomed.remove(vhost.name)


def restored(image: Image, facts: Facts, access: Access, make_vhost: MakeVhost) -> Catalogue:
    """What was remembered, and `access` which was made of its tables.  StorageError."""
    vhosts = {name: make_vhost(name, vhost) for name, vhost in image.vhosts.items()}
    catalogue = Catalogue(access, vhosts, make_vhost, facts, Kept(facts, image))
    for name in image.doomed:
        catalogue.delete_vhost(name)
    return catalogue
